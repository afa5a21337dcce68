//! The ledger of a run: a write-ahead log on disk.
//!
//! A run is a directory of two files: `run.json` says what is delivered, where
//! to, and how the counters were before; `ledger` holds an entry for every
//! request that is about to be sent, is retried, or is settled. What a request
//! delivers follows from the seed, so an entry needs to name its number only.
//! From the two another process, at another time, makes an [`Auditor`] that
//! knows what the one of the run knew.
//!
//! An entry of a request that is about to be sent is written ahead: handed to
//! the operating system before the request is sent. It survives the death of the
//! publisher, though not that of the machine. One that settles a request may
//! wait in memory for the next that is written ahead: without it the request
//! counts as indeterminate, which is safe.
//!
//! `ledger` is a sequence of frames: the length of the entry in bytes, the
//! CRC-32 of that length, the CRC-32 of the entry, each 32 bits with the low
//! byte first, and the entry in [postcard](https://postcard.jamesmunns.com)'s
//! format. The length has a check of its own so that a damaged one is not taken
//! for that of a torn entry, which was not written to its end.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::answer::Answer;
use crate::auditor::{Auditor, Baseline};
use crate::state::{self, open_private, private, tighten};
use crate::workload::{Plan, Spec};

/// The version of both files; others are not read.
const VERSION: u32 = 1;
/// Bytes before an entry: its length and two checks.
const FRAME_HEAD_BYTES: usize = 12;
/// The most runs of one seed in the default directory.
const RUNS_OF_SEED_MAX: u32 = 10_000;

const RUN_FILE: &str = "run.json";
const LEDGER_FILE: &str = "ledger";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// The next request of the plan is about to be sent.
    Sent {
        /// Its number: one more than that of the last.
        request: u64,
        /// What it delivers, to tell a plan that means something else by now.
        deliveries: u32,
    },
    /// A request is about to be retried.
    Retried {
        /// Its number.
        request: u64,
    },
    /// A request is about to be sent again, by another process than before.
    Resumed {
        /// Its number.
        request: u64,
    },
    /// A request will not be sent again.
    Settled {
        /// Its number.
        request: u64,
        /// Attempts that have no reply: they may have been stored or not.
        indeterminate: u64,
        /// What was answered.
        answer: Answer,
    },
}

/// What `run.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    version: u32,
    /// Where the service was. Who asked is not recorded with its secret.
    pub url: Address,
    /// What the deliveries are derived from.
    pub seed: u64,
    /// What the load looks like.
    pub workload: Spec,
    /// Deliveries in all; absent: as many as fitted.
    pub deliveries: Option<u64>,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// The service's counters before the run.
    #[serde(rename = "before")]
    pub baseline: Baseline,
}

impl RunFile {
    /// For a run of this plan against a service.
    #[must_use]
    pub(crate) fn new(url: &Address, plan: &Plan, concurrency: usize, baseline: Baseline) -> Self {
        Self {
            version: VERSION,
            url: url.clone(),
            seed: plan.seed(),
            workload: *plan.spec(),
            deliveries: plan.deliveries(),
            concurrency,
            baseline,
        }
    }

    /// The plan of the run.
    ///
    /// # Errors
    ///
    /// If there can be no such plan.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        Plan::new(self.seed, self.workload, self.deliveries)
    }
}

/// The end of a ledger, where entries are added.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    file: File,
    /// Entries that are not written yet.
    pending: Vec<u8>,
}

impl Ledger {
    /// Starts the ledger of a run in a directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// If it holds a run already, or cannot be written to.
    pub(crate) fn create(directory: &Path, run: &RunFile) -> anyhow::Result<Self> {
        let begin = || -> anyhow::Result<File> {
            std::fs::create_dir_all(directory)?;
            let new = |name| {
                private(OpenOptions::new().append(true).create_new(true)).open(directory.join(name))
            };
            let ledger = new(LEDGER_FILE)?;
            new(RUN_FILE)?.write_all(&serde_json::to_vec_pretty(run)?)?;
            Ok(ledger)
        };
        let file =
            begin().with_context(|| format!("cannot start a ledger in {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), file, pending: Vec::new() })
    }

    /// Appends an entry in memory, to be written with the next that is
    /// [written ahead](Self::write_ahead).
    ///
    /// # Errors
    ///
    /// If it cannot be written in postcard's format, which would be a defect.
    pub(crate) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let begin = self.pending.len();
        self.pending.extend([0; FRAME_HEAD_BYTES]);
        self.pending = postcard::to_extend(entry, std::mem::take(&mut self.pending))?;
        let bytes = &self.pending[begin + FRAME_HEAD_BYTES..];
        let length = u32::try_from(bytes.len())?.to_le_bytes();
        let checks = [crc32fast::hash(&length), crc32fast::hash(bytes)].map(u32::to_le_bytes);
        let head = [length, checks[0], checks[1]].concat();
        self.pending[begin..begin + FRAME_HEAD_BYTES].copy_from_slice(&head);
        Ok(())
    }

    /// Appends an entry and writes all there are: when this returns, they survive
    /// the death of this process.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub(crate) fn write_ahead(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.append(entry)?;
        self.flush()
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.file
            .write_all(&self.pending)
            .with_context(|| format!("cannot write the ledger in {}", self.directory.display()))?;
        self.pending.clear();
        Ok(())
    }
}

/// A run as its directory holds it.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// What was to be delivered, and where to.
    pub run: RunFile,
    /// What the auditor knew after the last entry.
    pub auditor: Auditor,
    /// Requests that were sent.
    pub requests: u64,
    /// The length of the ledger up to the end of its last entry, in bytes. What
    /// comes after it is torn.
    valid_bytes: u64,
    directory: PathBuf,
}

impl Recorded {
    /// Reads a run.
    ///
    /// # Errors
    ///
    /// If there is none, if it is of another version, or if it is damaged: a
    /// torn entry is the last, or else it is damage.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        Self::read_files(directory)
            .with_context(|| format!("cannot read the run in {}", directory.display()))
    }

    fn read_files(directory: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(directory.join(RUN_FILE)).context(RUN_FILE)?;
        let run: RunFile = serde_json::from_slice(&text).context(RUN_FILE)?;
        let version = run.version;
        ensure!(version == VERSION, "{RUN_FILE} has version {version}, expected {VERSION}");
        let plan = run.plan()?;
        let mut requests = plan.requests();
        let mut sent = 0;
        let mut auditor = Auditor::new(plan, run.baseline.clone());
        let file = File::open(directory.join(LEDGER_FILE)).context(LEDGER_FILE)?;
        let length = file.metadata().context(LEDGER_FILE)?.len();
        let mut frames = Frames { reader: BufReader::new(file), bytes: 0 };
        while let Some(entry) = frames.next(length)? {
            match entry {
                Entry::Sent { request, deliveries } => {
                    let planned = requests.next().filter(|planned| {
                        planned.number == request && planned.deliveries.len() == deliveries as usize
                    });
                    let planned = planned.with_context(|| {
                        format!("request {request} is not the plan's: another version wrote it")
                    })?;
                    sent = planned.number + 1;
                    auditor.sent(planned);
                }
                Entry::Retried { request } => auditor.retried(request),
                Entry::Resumed { request } => auditor.resumed(request),
                Entry::Settled { request, indeterminate, answer } => {
                    auditor.settled(request, indeterminate, &answer);
                }
            }
        }
        let valid_bytes = frames.bytes;
        Ok(Self { run, auditor, requests: sent, valid_bytes, directory: directory.to_owned() })
    }

    /// Goes on with the ledger where it ends.
    ///
    /// # Errors
    ///
    /// If it cannot be written to.
    pub(crate) fn ledger(&self) -> anyhow::Result<Ledger> {
        let path = self.directory.join(LEDGER_FILE);
        let open = || -> std::io::Result<File> {
            let mut file = open_private(OpenOptions::new().write(true), &path)?;
            file.set_len(self.valid_bytes)?;
            file.seek(std::io::SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().with_context(|| format!("cannot write to {}", path.display()))?;
        // It may be of a version that wrote the password into it.
        let run = self.directory.join(RUN_FILE);
        File::open(&run)
            .map(|file| tighten(&file, &run))
            .with_context(|| format!("cannot read {}", run.display()))?;
        Ok(Ledger { directory: self.directory.clone(), file, pending: Vec::new() })
    }
}

/// The entries of a ledger, one after the other.
struct Frames {
    reader: BufReader<File>,
    /// Read so far, to the end of an entry.
    bytes: u64,
}

impl Frames {
    /// The next entry of a file of `length` bytes; `None` at its end, and
    /// before a torn entry.
    fn next(&mut self, length: u64) -> anyhow::Result<Option<Entry>> {
        let left = length - self.bytes;
        let mut head = [0; FRAME_HEAD_BYTES];
        if left < FRAME_HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.reader.read_exact(&mut head).context(LEDGER_FILE)?;
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let [length, length_crc, entry_crc] = [0, 4, 8].map(word).map(u32::from_le_bytes);
        let damaged = format!("{LEDGER_FILE} is damaged at byte {}", self.bytes);
        ensure!(crc32fast::hash(&word(0)) == length_crc, damaged);
        let size = length as usize;
        if size as u64 > left - FRAME_HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut entry = vec![0; size];
        self.reader.read_exact(&mut entry).context(LEDGER_FILE)?;
        ensure!(crc32fast::hash(&entry) == entry_crc, damaged);
        self.bytes += (FRAME_HEAD_BYTES + size) as u64;
        let entry = postcard::from_bytes(&entry).context(LEDGER_FILE)?;
        Ok(Some(entry))
    }
}

/// Where runs are kept, if the environment says: in the user's state directory.
#[must_use]
pub(crate) fn default_directory() -> Option<PathBuf> {
    Some(state::directory(|name| std::env::var_os(name))?.join("runs"))
}

/// A directory that does not exist yet for a run of this plan.
///
/// # Errors
///
/// If the environment does not say where runs are kept, or there are too many
/// of that seed.
pub(crate) fn new_directory(plan: &Plan) -> anyhow::Result<PathBuf> {
    let runs = default_directory()
        .context("there is no state directory (HOME is not set): say where with --ledger")?;
    let name = plan.run_id();
    let names = std::iter::once(name.clone())
        .chain((2..RUNS_OF_SEED_MAX).map(|number| format!("{name}.{number}")));
    names
        .map(|name| runs.join(name))
        .find(|path| !path.exists())
        .with_context(|| format!("{} holds too many runs of this seed", runs.display()))
}

/// The directory of a run that is given by its path or by its name in the
/// default directory.
#[must_use]
pub(crate) fn find(run: &Path) -> PathBuf {
    match default_directory().map(|runs| runs.join(run)) {
        Some(named) if !run.join(RUN_FILE).exists() && named.exists() => named,
        _ => run.to_owned(),
    }
}

#[cfg(test)]
mod tests;
