//! Rust types and traits generated from `wit/`: the interfaces that Spin
//! offers and this component imports.
//!
//! Every function may trap, and functions that are synchronous in WIT are
//! `async` here: they hold the whole instance while they run, as in Spin.

wasmtime::component::bindgen!({
    path: "wit",
    world: "sekali:host/imports",
    imports: { default: async | trappable },
    with: {
        "spin:sqlite/sqlite.connection": crate::resources::Connection,
        "spin:key-value/key-value.store": crate::resources::Store,
        "spin:postgres/postgres.connection": crate::postgres::pools::Connection,
        "spin:postgres/postgres.connection-builder": crate::postgres::pools::ConnectionBuilder,
    },
    trappable_error_type: {
        "spin:sqlite/sqlite.error" => spin::sqlite::sqlite::Error,
        "spin:key-value/key-value.error" => spin::key_value::key_value::Error,
        "spin:postgres/postgres.error" => spin::postgres::postgres::Error,
        "spin:variables/variables.error" => spin::variables::variables::Error,
    },
});

pub(crate) use spin::key_value::key_value;
pub(crate) use spin::postgres::postgres;
pub(crate) use spin::sqlite::sqlite;
pub(crate) use spin::variables::variables;
