//! A component for the tests of the host: it does with databases and stores what
//! the lines of a request's body say, each when it has come, and responds with what
//! came of it. Each line is told on stdout before it is done.
//!
//! | line | does |
//! | --- | --- |
//! | `open ADDRESS` | opens a PostgreSQL connection, which the lines below are about |
//! | `build ADDRESS` | the same with a builder, which trusts the last `ca-root` |
//! | `ca-root PEM` | sets the root certificate, in which `\n` is the end of a line |
//! | `query SQL` | columns, rows and the outcome of a statement |
//! | `execute SQL` | the number of rows |
//! | `begin SQL` | a query of which one row is read |
//! | `end` | reads the rest of it |
//! | `types` | a query for each type of a parameter |
//! | `close` | closes all connections |
//! | `sqlite LABEL SQL` | rows of a SQLite database |
//! | `set LABEL KEY VALUE`, `get LABEL KEY`, `delete LABEL KEY`, `exists LABEL KEY`, `keys LABEL` | a key-value store |
//!
//! `open`, `build`, `query`, `execute` and `types` make asynchronous calls;
//! `open-sync` and so on make synchronous ones.
#![cfg(target_family = "wasm")]

mod parameters;

use std::fmt::Debug;

use spin_sdk::key_value::Store;
use spin_sdk::pg::wit::postgres::{
    Column, Connection, ConnectionBuilder, DbValue, Error, ParameterValue,
};
use spin_sdk::sqlite::wit::sqlite::Connection as SqliteConnection;
use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::service;
use spin_sdk::wasip3::http::types::{ErrorCode, Fields, Request, Response};
use spin_sdk::wasip3::{wit_future, wit_stream};
use spin_sdk::wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter, spawn};

/// Bytes read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

struct Component;
service::export!(Component);

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (_, result) = wit_future::new(|| Ok(()));
        let (lines, _) = Request::consume_body(request, result);
        let (told, body) = wit_stream::new::<u8>();
        spawn(run(lines, told));
        let (_, trailers) = wit_future::new(|| Ok(None));
        Ok(Response::new(Fields::new(), Some(body), trailers).0)
    }
}

async fn run(mut lines: StreamReader<u8>, mut told: StreamWriter<u8>) {
    let mut session = Session::default();
    let mut unread = Vec::new();
    loop {
        let (result, bytes) = lines.read(Vec::with_capacity(READ_BYTES_MAX)).await;
        unread.extend(bytes);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            println!("{line}");
            let came = session.run(&line).await;
            // Whoever has asked may be gone.
            if !told.write_all(format!("{came}\n").into_bytes()).await.is_empty() {
                return;
            }
        }
        if matches!(result, StreamResult::Dropped | StreamResult::Cancelled) {
            return;
        }
    }
}

/// Rows of a query that are still to be read, and its outcome.
type UnderWay = (StreamReader<Vec<DbValue>>, FutureReader<Result<(), Error>>);

#[derive(Default)]
struct Session {
    connections: Vec<Connection>,
    ca_root: Option<String>,
    under_way: Option<UnderWay>,
}

impl Session {
    async fn run(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "open" => {
                let opened = Connection::open_async(rest.to_owned()).await;
                self.push(opened)
            }
            "open-sync" => self.push(Connection::open(rest)),
            "build" | "build-sync" => {
                let builder = ConnectionBuilder::new(rest);
                if let Some(pem) = &self.ca_root
                    && let Err(error) = builder.set_ca_root(pem)
                {
                    return shown(Err::<(), _>(error));
                }
                let built = match verb {
                    "build" => builder.build_async().await,
                    _ => builder.build(),
                };
                self.push(built)
            }
            "ca-root" => {
                self.ca_root = Some(rest.replace("\\n", "\n"));
                String::new()
            }
            "close" => {
                self.connections.clear();
                String::new()
            }
            "sqlite" => sqlite(rest),
            "set" | "get" | "delete" | "exists" | "keys" => key_value(verb, rest).await,
            _ => self.on_connection(verb, rest).await,
        }
    }

    async fn on_connection(&mut self, verb: &str, rest: &str) -> String {
        let Some(connection) = self.connections.last() else { return "no connection".to_owned() };
        match verb {
            "query" => query(connection, rest, Vec::new()).await,
            "query-sync" => shown(connection.query(rest, &[])),
            "execute" => shown(connection.execute_async(rest.to_owned(), Vec::new()).await),
            "execute-sync" => shown(connection.execute(rest, &[])),
            "begin" => match connection.query_async(rest.to_owned(), Vec::new()).await {
                Ok((columns, mut rows, outcome)) => {
                    let first = rows.next().await;
                    self.under_way = Some((rows, outcome));
                    format!("{} columns, first {first:?}", columns.len())
                }
                Err(error) => shown(Err::<(), _>(error)),
            },
            "end" => match self.under_way.take() {
                Some((rows, outcome)) => rest_of(rows, outcome).await,
                None => "nothing is under way".to_owned(),
            },
            "types" | "types-sync" => {
                let mut told = Vec::new();
                for (statement, value) in parameters::of_each_type() {
                    let came = match verb {
                        "types" => query(connection, statement, vec![value]).await,
                        _ => shown(connection.query(statement, &[value])),
                    };
                    told.push(format!("{statement}: {came}"));
                }
                told.join("\n")
            }
            _ => format!("there is no {verb:?}"),
        }
    }

    fn push(&mut self, opened: Result<Connection, Error>) -> String {
        shown(opened.map(|connection| self.connections.push(connection)))
    }
}

async fn query(connection: &Connection, sql: &str, values: Vec<ParameterValue>) -> String {
    match connection.query_async(sql.to_owned(), values).await {
        Ok((columns, rows, outcome)) => {
            let columns: Vec<_> =
                columns.iter().map(|Column { name, data_type }| (name, data_type)).collect();
            format!("{columns:?} {}", rest_of(rows, outcome).await)
        }
        Err(error) => shown(Err::<(), _>(error)),
    }
}

async fn rest_of(
    mut rows: StreamReader<Vec<DbValue>>,
    outcome: FutureReader<Result<(), Error>>,
) -> String {
    let mut read = Vec::new();
    while let Some(row) = rows.next().await {
        read.push(row);
    }
    format!("{read:?} {}", shown(outcome.await))
}

fn sqlite(rest: &str) -> String {
    let (label, sql) = rest.split_once(' ').unwrap_or((rest, ""));
    let result = SqliteConnection::open(label).and_then(|open| open.execute(sql, &[]));
    shown(result.map(|result| result.rows.into_iter().map(|row| row.values).collect::<Vec<_>>()))
}

async fn key_value(verb: &str, rest: &str) -> String {
    let mut words = rest.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (label, key, value) = (word(), word(), word());
    let store = match Store::open(label).await {
        Ok(store) => store,
        Err(error) => return shown(Err::<(), _>(error)),
    };
    match verb {
        "set" => shown(store.set(key, value).await),
        "delete" => shown(store.delete(key).await),
        "exists" => shown(store.exists(key).await),
        "get" => shown(
            store
                .get(key)
                .await
                .map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned())),
        ),
        _ => {
            let keys = store.get_keys().await.collect().await;
            shown(keys.map(|mut keys| {
                keys.sort();
                keys
            }))
        }
    }
}

/// On one line.
fn shown<T: Debug, E: Debug>(result: Result<T, E>) -> String {
    format!("{result:?}").replace('\n', "\\n")
}
