//! `publisher ship`: lines of files, each stored once.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`lines`] | bytes → lines |
//! | [`identity`] | line → event id, from what the file is and where the line stands |
//! | [`registry`] | what this machine shipped, to tell files apart that begin alike |
//! | [`batch`] | lines → events → bounded requests |
//! | [`stream`] | one file's content on its way, and the sums of the answers |
//! | [`mod@file`] | files as they are read |
//! | [`follow`] | files as they grow and are rotated |
//!
//! Files run side by side, up to a limit; the lines of one file are sent in
//! order, one request at a time. Every line is an event, empty ones included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

use crate::client::Client;
use crate::metrics::per_second;
use crate::progress;
use crate::report::ship::{FileReport, ShipReport, Tally};
use crate::signal::Stop;

pub(crate) mod batch;
pub(crate) mod file;
pub(crate) mod follow;
pub(crate) mod identity;
pub(crate) mod lines;
mod options;
pub(crate) mod registry;
mod shared;
pub(crate) mod stream;

use file::{FileContent, READ_BYTES};
use identity::HEAD_BYTES;
pub(crate) use options::{Input, Options};
use registry::Registry;
pub(crate) use shared::Shared;
use stream::{Stream, Summary};

/// The wait for more from a pipe before what is there is sent, in milliseconds.
const PIPE_LINGER_MS: u64 = 200;

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
    let stats = client.stats().await.context("cannot read /stats")?;
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
            eprintln!("publisher: {task}");
            ProgressBar::hidden()
        }
    };
    let shared = Arc::new(Shared {
        requests: Semaphore::new(options.concurrency),
        client,
        options,
        registry: Mutex::new(registry),
        store,
        progress,
        stop,
    });

    let began = Instant::now();
    let open_files = Arc::new(Semaphore::new(shared.options.concurrency));
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

    let files: Vec<FileReport> = reports.into_values().collect();
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
        Input::Stdin => ship_pipe(shared, tokio::io::stdin(), &topic, &mut summary).await,
        Input::File(path) => ship_file(shared, path, &topic, &mut summary).await,
    };
    summary.close();
    let mut report = report(input.name(), Some(topic), summary.tally, began.elapsed());
    report.notes = summary.notes;
    report.problems = summary.problems;
    report.interrupted = summary.interrupted;
    report.failure = result.err().map(|error| format!("{error:#}"));
    report
}

async fn ship_file(
    shared: &Shared,
    path: &Path,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let followed = shared.options.follow && path.metadata().map_or(true, |meta| meta.is_file());
    if followed {
        return follow::follow(shared, path, topic, summary).await;
    }
    let (mut file, metadata) = block_in_place(|| file::open(path))?;
    if !metadata.is_file() {
        let pipe = tokio::fs::File::from_std(file);
        return ship_pipe(shared, pipe, topic, summary).await;
    }
    let mut stream = block_in_place(|| {
        let head = file::read_head(&mut file, HEAD_BYTES, 0).context("cannot read")?;
        file::ensure_text(&head)?;
        let len_bytes = file.metadata().context("cannot look at it")?.len();
        let mut content = FileContent { file: &mut file, len_bytes };
        anyhow::Ok(Stream::begin(shared, topic, &head, Some(&mut content), &[], summary))
    })?;
    let result = read_to_end(shared, &mut file, &mut stream, summary).await;
    stream.abandon(summary);
    result
}

async fn read_to_end(
    shared: &Shared,
    file: &mut std::fs::File,
    stream: &mut Stream,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    use std::io::Read as _;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if shared.stop.is_set() {
            stream.flush(shared, summary).await?;
            summary.interrupted = true;
            anyhow::bail!("interrupted after {} bytes", stream.offset_bytes());
        }
        let read = block_in_place(|| file.read(&mut buffer)).context("cannot read")?;
        if read == 0 {
            return stream.finish(shared, summary).await;
        }
        stream.push(shared, &buffer[..read], summary).await?;
    }
}

/// Ships what can be read once and in order only. Nothing is sent before
/// [`HEAD_BYTES`] are in, or the end, for they decide on the ids.
async fn ship_pipe(
    shared: &Shared,
    mut pipe: impl AsyncRead + Unpin,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut stop = shared.stop.clone();
    let mut buffer = vec![0; READ_BYTES];
    let mut head = Vec::new();
    let mut ended = false;
    while head.len() < HEAD_BYTES && !ended {
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read.context("cannot read")?,
            () = stop.wait() => 0,
        };
        head.extend_from_slice(&buffer[..read]);
        ended = read == 0;
    }
    let beginning = &head[..head.len().min(HEAD_BYTES)];
    file::ensure_text(beginning)?;
    let mut whole = &*head;
    // A pipe that has ended is all there, as a file is.
    let content = if ended { Some(&mut whole as &mut dyn registry::Content) } else { None };
    let mut stream =
        block_in_place(|| Stream::begin(shared, topic, beginning, content, &[], summary));
    let result = async {
        stream.push(shared, &head, summary).await?;
        while !ended {
            let linger = Duration::from_millis(PIPE_LINGER_MS);
            let read = tokio::select! {
                read = pipe.read(&mut buffer) => read.context("cannot read")?,
                () = stop.wait() => 0,
                () = tokio::time::sleep(linger), if stream.has_pending() => {
                    stream.flush(shared, summary).await?;
                    continue;
                }
            };
            ended = read == 0;
            stream.push(shared, &buffer[..read], summary).await?;
        }
        stream.finish(shared, summary).await
    }
    .await;
    stream.abandon(summary);
    // To be stopped is the usual end of a pipe that is followed.
    if stop.is_set() && !shared.options.follow {
        summary.interrupted = true;
        result.and(Err(anyhow::anyhow!("interrupted after {} bytes", stream.offset_bytes())))
    } else {
        result
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
