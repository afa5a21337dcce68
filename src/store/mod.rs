//! Where events are kept: the trait, and the engines behind it.
//!
//! A new engine is a folder beside `sqlite/`, declared here and chosen in [`open`].
//! `conformance/` says what it has to do. It imports what it needs from `engine` and
//! `model`, not from here, since this file imports it.

use std::rc::Rc;

use crate::config::{Config, Engine, Role};
use crate::platform::{KeyValue, SharedPlatform};

mod columns;
#[cfg(test)]
mod conformance;
mod encoding;
mod engine;
pub(crate) mod frames;
mod latest;
mod marks;
mod model;
pub mod postgres;
mod retention;
mod retry;
pub mod sqlite;
mod tail;

pub use engine::{Deliveries, Store};
pub(crate) use latest::Latest;
pub use marks::{Claim, Claimed, Lease, Marks};
pub use model::*;
pub use retention::*;
pub(crate) use retry::RetryingStore;
pub(crate) use tail::Tail;

/// The store of this instance, and what the service keeps beside events: that of the
/// platform, or in the database that replicas share. Nothing is asked of them yet.
pub(crate) fn open(
    platform: &SharedPlatform,
    config: &Config,
) -> (Rc<dyn Store>, Rc<dyn KeyValue>) {
    match &config.engine {
        Engine::Sqlite => (open_sqlite(platform, config), platform.clone()),
        Engine::Postgres { url } => {
            let store = postgres::PostgresStore::new(
                platform.clone(),
                platform.clone(),
                platform.clone(),
                url.to_string(),
            );
            let store = Rc::new(store);
            (store.clone(), store)
        }
    }
}

fn open_sqlite(platform: &SharedPlatform, config: &Config) -> Rc<dyn Store> {
    let store = sqlite::SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
        .with_wal_pages_max(config.wal_pages_max);
    Rc::new(match config.role {
        Role::Service => store.handing_over(platform.clone(), config.commit_wait_max),
        Role::ServiceAlone => store,
        Role::Writer => store.writing_for_others(),
    })
}
