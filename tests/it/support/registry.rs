//! A test stands where its file says what it is about, and registers itself:
//!
//! ```ignore
//! #[test(any_server)]
//! fn refuses_an_empty_body(target: &Target) -> TestResult {
//! ```
//!
//! What is in the brackets says what the test needs. Its name is that of its
//! file and of its function: `cargo test publish::refuses_an_empty_body`.

use std::panic::{self, AssertUnwindSafe};

use libtest_mimic::Trial;

use super::TestResult;
use super::engine::{Engine, engine};
use super::server::{Target, remote, take_logs};
use super::threads::panicked;

/// The attribute of a test. Where it is imported, a plain `#[test]` does not
/// compile; elsewhere nothing would run it.
pub(crate) use macro_rules_attribute::apply as test;

/// A function with the attribute.
pub struct Test {
    pub module: &'static str,
    pub function: &'static str,
    pub body: Body,
}

pub enum Body {
    /// Runs against any server: its own, or that of `SEKALI_URL`.
    AnyServer(fn(&Target) -> TestResult),
    /// Starts, stops or kills servers of its own, so it is ignored where there
    /// is a `SEKALI_URL`.
    OwnServer(fn() -> TestResult),
    /// The same, but about SQLite alone: its files, its write lock, its log, what it
    /// is asked in its own words, and what is done only because it has one writer. So
    /// it is ignored where the tests are run on another engine.
    SqliteServer(fn() -> TestResult),
    /// Needs no server.
    Plain(fn() -> TestResult),
}

inventory::collect!(Test);

macro_rules! any_server {
    ($($function:tt)*) => { $crate::support::registry::register!(AnyServer, $($function)*); };
}
pub(crate) use any_server;

macro_rules! own_server {
    ($($function:tt)*) => { $crate::support::registry::register!(OwnServer, $($function)*); };
}
pub(crate) use own_server;

macro_rules! sqlite_server {
    ($($function:tt)*) => { $crate::support::registry::register!(SqliteServer, $($function)*); };
}
pub(crate) use sqlite_server;

macro_rules! no_server {
    ($($function:tt)*) => { $crate::support::registry::register!(Plain, $($function)*); };
}
pub(crate) use no_server;

macro_rules! register {
    ($body:ident, $(#[$attribute:meta])* fn $function:ident $($rest:tt)*) => {
        inventory::submit! {
            $crate::support::registry::Test {
                module: module_path!(),
                function: stringify!($function),
                body: $crate::support::registry::Body::$body($function),
            }
        }
        $(#[$attribute])*
        fn $function $($rest)*
    };
}
pub(crate) use register;

/// Every registered test, in the order of their names.
pub fn trials() -> Vec<Trial> {
    let mut tests: Vec<&Test> = inventory::iter::<Test>().collect();
    tests.sort_by_key(|test| (test.module, test.function));
    tests.into_iter().map(Test::trial).collect()
}

impl Test {
    fn trial(&self) -> Trial {
        // Without the name of this binary, which is the same for all.
        let module = self.module.split_once("::").map_or(self.module, |(_, module)| module);
        let name = format!("{module}::{}", self.function);
        match self.body {
            Body::AnyServer(test) => on_any_server(name, test),
            Body::OwnServer(test) => {
                Trial::test(name, move || run(test)).with_ignored_flag(remote().is_some())
            }
            Body::SqliteServer(test) => {
                let is_ignored = remote().is_some() || engine() != Engine::Sqlite;
                Trial::test(name, move || run(test))
                    .with_kind("sqlite")
                    .with_ignored_flag(is_ignored)
            }
            Body::Plain(test) => Trial::test(name, move || run(test)),
        }
    }
}

/// A test that is given a server to talk to.
pub fn on_any_server(
    name: String,
    test: impl FnOnce(&Target) -> TestResult + Send + 'static,
) -> Trial {
    Trial::test(name, move || run(|| test(&Target::new()?)))
}

/// Runs a test, and adds to a failure what its servers logged.
fn run(test: impl FnOnce() -> TestResult) -> TestResult {
    let result = panic::catch_unwind(AssertUnwindSafe(test));
    let logs = take_logs();
    result
        .unwrap_or_else(|panic| Err(panicked(&*panic)))
        .map_err(|failed| format!("{}\n{logs}", failed.message().unwrap_or("failed")).into())
}
