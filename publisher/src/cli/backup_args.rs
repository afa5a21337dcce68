//! Arguments of `publisher backup`.

use std::path::PathBuf;

use clap::Args;

use crate::backup::Options;
use crate::backup::check::Depth;

/// Where the state of a service is that was started beside us.
const STATE_DIRECTORY: &str = ".spin";

/// Copy the SQLite files of a service, which may run meanwhile
///
/// The copy is of one moment: everything that was acknowledged before is in it. It holds
/// no publish up. It is a directory that a service can be started on, and has its name
/// only once it is on disk and was checked: whether SQLite finds it sound, and whether
/// each topic has as many events as its counter says.
///
/// It reads files, and asks no service: it has to run on the machine where they are.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArgs {
    /// The directory to make, beside which there has to be room
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The state directory of the service
    #[arg(long, value_name = "DIR", default_value = STATE_DIRECTORY)]
    state_dir: PathBuf,
    /// The database of events, if it is elsewhere [default: sqlite_db.db in the state directory]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// The key-value store, if it is elsewhere [default: sqlite_key_value.db in the state
    /// directory]
    #[arg(long, value_name = "FILE")]
    key_value: Option<PathBuf>,
    /// How closely to look at the copy
    #[arg(long, value_enum, default_value_t = Depth::Full)]
    check: Depth,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

impl BackupArgs {
    /// What to back up, and where to.
    pub(super) fn options(&self) -> Options {
        let (database, key_value) = (self.database.clone(), self.key_value.clone());
        Options::new(self.directory.clone(), &self.state_dir, database, key_value, self.check)
    }
}
