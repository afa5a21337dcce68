//! `publisher ship`: lines of files, each stored once.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`text`] | content → text |
//! | [`lines`] | text → lines |
//! | [`identity`] | line → event id, from what the file is and where the line stands |
//! | [`window`] | the beginning of a file, to be compared |
//! | [`registry`] | what this machine shipped, to tell files apart that begin alike |
//! | [`batch`] | lines → events → bounded requests |
//! | [`stream`], [`settle`], [`summary`] | one file's content on its way, and the sums of the answers |
//! | [`mod@file`], [`pipe`] | what is read |
//! | [`family`], [`follow`] | files as they grow and are rotated |
//!
//! Files run side by side, up to a limit; the lines of one file are sent in
//! order, one request at a time or over a stream of the service. Every line is an
//! event, empty ones included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

use crate::client::{Client, Failure};
use crate::compression::Compression;
use crate::console;
use crate::metrics::per_second;
use crate::progress;
use crate::report::ship::{FileReport, ShipReport, Tally};
use crate::signal::Stop;
use crate::wire::Stats;

pub(crate) mod batch;
mod family;
pub(crate) mod file;
pub(crate) mod follow;
pub(crate) mod identity;
pub(crate) mod lines;
mod options;
mod pipe;
pub(crate) mod registry;
pub(crate) mod settle;
mod shared;
pub(crate) mod stream;
pub(crate) mod summary;
mod text;
mod window;

use family::Family;
use file::{Opened, READ_BYTES, Reader};
use identity::Identity;
pub(crate) use options::{Input, Options};
use registry::{Answer, Question, Registry};
pub(crate) use shared::Shared;
use stream::Stream;
use summary::Summary;
use text::TextDecoder;

/// The pause before a service is asked again that did not answer at the start of
/// following, in seconds.
const START_PAUSE_SECONDS: u64 = 1;
/// Files open for each request that may be under way, where they are not
/// followed: so many can be asked about at once, and are remembered together.
const FILES_PER_REQUEST: usize = 4;

/// Ships all inputs.
///
/// # Errors
///
/// If the service's statistics cannot be read. What goes wrong with a file is
/// in its report, and the others are shipped all the same.
pub(crate) async fn run(
    client: Arc<Client>,
    options: Options,
    registry: Registry,
    stop: Stop,
) -> anyhow::Result<ShipReport> {
    let stats = stats(&client, &options, stop.clone()).await.context("cannot read /stats")?;
    // A service that does not say when it started is known by its address.
    let store = stats.started_at.unwrap_or_else(|| client.url().to_owned());
    let files = options.inputs.len();
    let verb = if options.follow { "following" } else { "shipping" };
    let task =
        format!("{verb} {files} {} to {}", if files == 1 { "file" } else { "files" }, client.url());
    let bytes = block_in_place(|| total_bytes(&options.inputs));
    let progress = match bytes {
        Some(bytes) if !options.follow => progress::bytes(&task, bytes),
        _ => {
            console::note(format_args!("{task}"));
            ProgressBar::hidden()
        }
    };
    let shared = Arc::new(Shared {
        requests: Arc::new(Semaphore::new(options.concurrency)),
        said_no_streams: Once::new(),
        client,
        options,
        registry,
        store,
        progress,
        stop,
    });

    let began = Instant::now();
    let files_max = shared.options.concurrency.saturating_mul(FILES_PER_REQUEST);
    let open_files = Arc::new(Semaphore::new(files_max.min(Semaphore::MAX_PERMITS)));
    let mut tasks = JoinSet::new();
    for (index, input) in shared.options.inputs.iter().cloned().enumerate() {
        let (shared, open_files) = (Arc::clone(&shared), Arc::clone(&open_files));
        tasks.spawn(async move {
            // Files that are followed never end: all of them are open.
            let permit = match shared.options.follow {
                true => None,
                false => Some(open_files.acquire().await),
            };
            let report = ship(&shared, &input).await;
            drop(permit);
            (index, report)
        });
    }
    let mut reports = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (index, report) = done.context("a task of the shipping died")?;
        reports.insert(index, report);
    }
    shared.progress.finish_and_clear();
    shared.client.close().await;

    let mut files: Vec<FileReport> = reports.into_values().collect();
    if let Err(error) = shared.registry.close().await
        && let Some(file) = files.last_mut()
    {
        file.notes.push(format!("not remembered as shipped: {error:#}"));
    }
    let mut tally = Tally::default();
    for file in &files {
        tally += file.tally;
    }
    let total = report("all".to_owned(), None, tally, began.elapsed());
    Ok(ShipReport {
        url: shared.client.url().to_owned(),
        source: shared.options.source.clone(),
        interrupted: files.iter().any(|file| file.interrupted),
        files,
        total,
    })
}

/// The service's statistics. Who follows files waits for them, as for any answer.
async fn stats(client: &Client, options: &Options, mut stop: Stop) -> Result<Stats, Failure> {
    let mut said = false;
    loop {
        match client.stats().await {
            Err(error @ Failure::GaveUp { .. }) if options.follow && !stop.is_set() => {
                if !std::mem::replace(&mut said, true) {
                    console::note(format_args!(
                        "the service does not answer: {error}; it is tried again"
                    ));
                }
                stop.sleep(Duration::from_secs(START_PAUSE_SECONDS)).await;
            }
            answer => return answer,
        }
    }
}

fn report(file: String, topic: Option<String>, tally: Tally, elapsed: Duration) -> FileReport {
    FileReport {
        file,
        topic,
        tally,
        seconds: elapsed.as_secs_f64(),
        lines_per_second: per_second(tally.lines, elapsed),
        notes: Vec::new(),
        problems: Vec::new(),
        failure: None,
        interrupted: false,
    }
}

/// Ships one input and accounts for it.
async fn ship(shared: &Shared, input: &Input) -> FileReport {
    let began = Instant::now();
    let topic = shared.options.topic.clone().unwrap_or_else(|| input.topic());
    let mut summary = Summary::default();
    let result = match input {
        Input::Stdin => pipe::ship(shared, std::io::stdin(), &topic, &mut summary).await,
        Input::File(path) => ship_path(shared, path, &topic, &mut summary).await,
    };
    summary.close();
    let mut report = report(input.name(), Some(topic), summary.tally, began.elapsed());
    report.notes = summary.notes;
    report.problems = summary.problems;
    report.interrupted = summary.interrupted;
    report.failure = result.err().map(|error| format!("{error:#}"));
    report
}

async fn ship_path(
    shared: &Shared,
    path: &Path,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let follow = shared.options.follow;
    let is_file = || path.metadata().map_or(true, |metadata| metadata.is_file());
    match (follow, is_file()) {
        (true, true) => follow::follow(shared, path, topic, summary).await,
        (true, false) if !path.is_dir() => pipe::follow(shared, path, topic, summary).await,
        _ => {
            let opened = block_in_place(|| file::open(path))?;
            if opened.metadata.is_file() {
                ship_file(shared, path, opened, topic, summary).await
            } else {
                pipe::ship(shared, opened.file, topic, summary).await
            }
        }
    }
}

/// Ships a file to the end that it has now.
async fn ship_file(
    shared: &Shared,
    path: &Path,
    mut opened: Opened,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let encoding = shared.options.encoding;
    let (compression, beginning) = block_in_place(|| {
        let compression = file::compression(&mut opened.file)?;
        let (beginning, head) = file::window(&opened.file, compression, encoding)
            .with_context(|| cannot_read(compression))?;
        file::ensure_text(&head, encoding)?;
        anyhow::Ok((compression, beginning))
    })?;
    let scope = shared.scope(topic);
    let known = if beginning.is_empty() {
        None
    } else {
        let question =
            Question { key: Some(opened.key), family: Family::of(path), ..Question::of(&scope) };
        let file = opened.file.try_clone().context("cannot read")?;
        let read = Box::new(move || Ok(file::window(&file, compression, encoding)?.0));
        shared.identify(question, read, summary).await
    };
    let known = match known {
        Some(Answer::Known(known)) => Ok(known),
        _ => Err(Identity::of_head(beginning.head())),
    };
    let reader =
        block_in_place(|| Reader::new(&opened.file, compression)).context("cannot read")?;
    let mut stream = Stream::new(shared, scope, known);
    let result = read_to_end(shared, reader, compression, &mut stream, summary).await;
    stream.abandon(summary);
    result
}

fn cannot_read(compression: Option<Compression>) -> String {
    match compression {
        None => "cannot read".to_owned(),
        Some(compression) => format!("cannot unpack it ({compression:?})"),
    }
}

async fn read_to_end(
    shared: &Shared,
    mut reader: Reader,
    compression: Option<Compression>,
    stream: &mut Stream,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut decoder = TextDecoder::new(shared.options.encoding);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if shared.stop.is_set() {
            stream.flush(shared, summary).await?;
            summary.interrupted = true;
            anyhow::bail!("interrupted after {} bytes", stream.offset_bytes());
        }
        let read = match block_in_place(|| file::read(&mut reader, &mut buffer)) {
            Err(error) => {
                // What was read of it is no less worth.
                stream.flush(shared, summary).await?;
                return Err(error).with_context(|| cannot_read(compression));
            }
            Ok(read) => read,
        };
        let mut text = Vec::new();
        if read == 0 {
            decoder.finish(&mut text);
            stream.accept(shared, &[], &text, summary);
            summary.tally.hole_bytes += decoder.hole_bytes();
            return stream.finish(shared, summary).await;
        }
        decoder.push(&buffer[..read], &mut text);
        stream.accept(shared, &buffer[..read], &text, summary);
        stream.send_full(shared, summary).await?;
    }
}

/// The bytes of all inputs, where that is known.
fn total_bytes(inputs: &[Input]) -> Option<u64> {
    inputs.iter().try_fold(0, |sum, input| match input {
        Input::Stdin => None,
        // What cannot be looked at is reported when it is its turn.
        Input::File(path) => Some(sum + path.metadata().map_or(0, |metadata| metadata.len())),
    })
}
