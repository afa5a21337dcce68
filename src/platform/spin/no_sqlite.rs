//! No SQLite: in a component for hosts that do not have it, and would not run one that
//! asks for it.

use std::rc::Rc;

use super::Spin;
use crate::platform::sqlite::{Sqlite, SqliteConnection, SqliteError};

impl Sqlite for Spin {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        Err(SqliteError::Platform(
            "this component is built without SQLite, and database_url names no other database"
                .to_owned(),
        ))
    }
}
