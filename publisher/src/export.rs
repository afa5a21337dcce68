//! `publisher export`: stored events as lines of a file, which `publisher import` or any
//! client puts into a store again.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`pages`] | the events of a service in their order, from pages |
//! | [`target`] | the file, which has its name only once it is whole |
//!
//! It is of one moment: nothing is in it that is newer than the newest event when it
//! began, and nothing appears below that later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::block_in_place;

use crate::client::Client;
use crate::console;
use crate::exported::line;
use crate::exported::manifest::{Manifest, Selection, UpTo};
use crate::exported::sums::Summing;
use crate::metrics::per_second;
use crate::progress;
use crate::report::export::ExportReport;
use crate::signal::Stop;
use crate::wire::{Stats, StoredEvent};

mod pages;
mod target;

use pages::Pages;
use target::Target;
pub(crate) use target::To;

/// Bytes of lines that are written at a time.
const WRITE_BYTES: usize = 256 * 1024;
/// Stored events that cannot be shown and are named one by one; the rest are counted.
const UNREADABLE_LISTED_MAX: u64 = 20;

/// What to export, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub selection: Selection,
    pub to: To,
    /// Where the manifest goes, if there is to be one.
    pub manifest: Option<PathBuf>,
}

/// Exports. If it is interrupted, nothing is left of it.
///
/// # Errors
///
/// If events cannot be read, or the file cannot be written: then it is not there.
pub(crate) async fn run(
    client: Arc<Client>,
    options: Options,
    mut stop: Stop,
) -> anyhow::Result<ExportReport> {
    let began = Instant::now();
    let Options { selection, to, manifest: manifest_path } = options;
    let exported_at = jiff::Timestamp::now().to_string();
    // What cannot be written is found out before anything is read.
    let mut target = block_in_place(|| Target::create(&to, manifest_path.clone()))?;
    let looked = tokio::select! {
        looked = look(&client) => Some(looked?),
        () = stop.wait() => None,
    };
    let mut interrupted = looked.is_none();
    let (stats, up_to) = looked.unwrap_or_default();
    let end = up_to.as_ref().map_or(0, |up_to| up_to.seq);
    let bar = progress::place(&format!("exporting {} to {to}", client.url()), end);

    let mut pages = Pages::new(Arc::clone(&client), &selection, end);
    let mut writing = Writing::default();
    loop {
        let event = tokio::select! {
            event = pages.next() => event?,
            () = stop.wait() => {
                interrupted = true;
                None
            }
        };
        let Some(event) = event else { break };
        bar.set_position(event.seq);
        writing.take(&event)?;
        if writing.lines.len() >= WRITE_BYTES {
            block_in_place(|| target.write(&writing.lines))?;
            writing.lines.clear();
        }
    }
    bar.finish_and_clear();
    let Writing { summing, lines, unreadable } = writing;
    let events = summing.events();
    let topics = summing.finish();
    let mut report = ExportReport {
        url: client.url().to_owned(),
        file: to.to_string(),
        manifest: manifest_path.map(|path| path.display().to_string()),
        events,
        topics: topics.len() as u64,
        unreadable,
        up_to: up_to.clone(),
        bytes: 0,
        file_bytes: 0,
        seconds: 0.0,
        events_per_second: 0.0,
        interrupted,
    };
    if !interrupted {
        let manifest = Manifest {
            sekali_export: Manifest::VERSION,
            exported_at,
            url: client.url().to_owned(),
            store_started_at: stats.started_at,
            selection,
            up_to,
            events,
            unreadable,
            topics,
        };
        let written = block_in_place(|| {
            target.write(&lines)?;
            target.finish(&manifest.json()?)
        })?;
        (report.bytes, report.file_bytes) = (written.bytes, written.file_bytes);
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.events_per_second = per_second(events, began.elapsed());
    Ok(report)
}

/// The counters of a service, and its newest event if there is any.
async fn look(client: &Client) -> anyhow::Result<(Stats, Option<UpTo>)> {
    let stats = client.stats().await.context("cannot read /stats")?;
    let page = client.page(&[("order", "desc"), ("limit", "1")]).await;
    let page = page.context("cannot read the newest event")?;
    let cursor = page.next;
    Ok((stats, page.events.first().map(|event| UpTo { seq: event.seq, cursor })))
}

/// Lines that are to be written, and the sums of all.
#[derive(Default)]
struct Writing {
    summing: Summing,
    lines: Vec<u8>,
    unreadable: u64,
}

impl Writing {
    fn take(&mut self, event: &StoredEvent) -> anyhow::Result<()> {
        let StoredEvent { seq, topic, event_id, .. } = event;
        if let Some(error) = &event.error {
            self.unreadable += 1;
            if self.unreadable <= UNREADABLE_LISTED_MAX {
                console::note(format_args!(
                    "left out: event {event_id:?} of topic {topic:?}, seq {seq}: {error}"
                ));
            }
            return Ok(());
        }
        let added = self.summing.add(topic, line::content(event)).map_err(anyhow::Error::msg);
        added.with_context(|| format!("event {event_id:?} of topic {topic:?}, seq {seq}"))?;
        line::write(event, &mut self.lines)?;
        Ok(())
    }
}
