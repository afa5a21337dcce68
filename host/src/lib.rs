//! Runs the Sekali component the way `spin up` does, with no Spin installed.
//!
//! It claims nothing that Spin does not have: same manifest, same state
//! directory with the same files and tables, same limits, same reuse of
//! instances. What Spin would do and this host does not is refused by name
//! when the manifest is read.
//!
//! | module | is about |
//! | --- | --- |
//! | `cli` | arguments, and the way from them to a running server |
//! | `ranges` | the values of the instance flags: `16`, `1..8`, `500ms` |
//! | `manifest` | `spin.toml`, checked, in the terms of this host |
//! | `build_component` | the wasm target and the manifest's build command |
//! | `runtime_config` | the runtime configuration file, checked |
//! | `state_dir` | where data and logs live, and whether they can |
//! | `stores` | what is behind the labels of databases and stores |
//! | `engine` | wasmtime set up as in Spin, components compiled and linked |
//! | `code_cache` | compiled code, kept for the next start |
//! | `components` | the components of the application, by name |
//! | `instances` | instances of a component, reused and concurrent |
//! | `chaining` | requests of components to each other |
//! | `allowed_hosts` | what a component may connect to |
//! | `routes` | which path belongs to which component, and the `spin-*` headers |
//! | `server` | HTTP connections, and their end |
//! | `signals` | what tells it to stop |
//! | `connections`, `request_body` | what a connection and a body may take |
//! | `resources` | what the guest holds handles to: SQLite connections, and stores in files and in Redis |
//! | `database_file`, `file_identity` | SQLite files that go or become others |
//! | `libsql_server` | libSQL servers in the place of files |
//! | `quick_check` | whether the databases are whole, at the start |
//! | `bindings` | generated from `wit/` |
//! | `sqlite`, `key_value`, `postgres`, `variables` | the imports of components |
//! | `guest_stream` | a channel handed to the guest as a stream |
//! | `stdio` | what components print: log files and stderr |
//! | `console` | one-line messages on the host's own stderr |

#![warn(unreachable_pub)]

mod allowed_hosts;
mod bindings;
mod build_component;
mod chaining;
mod cli;
mod code_cache;
mod components;
mod connections;
mod console;
mod database_file;
mod engine;
mod file_identity;
mod guest_stream;
mod instances;
mod key_value;
mod libsql_server;
mod manifest;
mod postgres;
mod quick_check;
mod ranges;
mod request_body;
mod resources;
mod routes;
mod runtime_config;
mod server;
mod signals;
mod sqlite;
mod state_dir;
mod stdio;
mod stores;
mod variables;

pub use cli::{build_application, main};
