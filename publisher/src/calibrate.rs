//! `publisher calibrate`: how fast this program is on this machine, against a
//! server that does nothing.
//!
//! The server runs as a process of its own, in one thread, and answers each
//! event as accepted without looking at it. What is measured is the most that a
//! load can ask of a service here.

use std::convert::Infallible;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::console;
use crate::report::{LoadReport, Report};

const HEALTHY: &str = r#"{"ok":true}"#;
const STATS: &str = r#"{"received":0,"unique_processed":0,"duplicate_dropped":0}"#;
const ACCEPTED: &str = r#"{"received":1,"accepted":1,"duplicates":0,"conflicts":0,"rejected":0,"message":"Received 1 events, accepted 1, rejected 0 duplicates","results":[]}"#;

/// The name of the command that is the server.
pub(crate) const SERVER_COMMAND: &str = "calibration-server";

/// Serves until it is killed; prints its URL first.
///
/// # Errors
///
/// If there is no address to listen on.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    console::print(&format!("http://{}\n", listener.local_addr()?))?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept a connection")?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
            // The client's end is the end.
            connection.await.ok();
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = match request.uri().path() {
        "/healthz" => HEALTHY,
        "/stats" => STATS,
        _ => ACCEPTED,
    };
    // A body that breaks off is no less ignored.
    request.into_body().collect().await.ok();
    Ok(Response::new(Full::new(Bytes::from_static(reply.as_bytes()))))
}

/// The server as a process, killed when it is dropped.
pub(crate) struct Server {
    _child: Child,
    /// Where it listens.
    pub url: String,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If this program cannot be started a second time.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg(SERVER_COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the calibration server")?;
        let stdout = child.stdout.take().context("the calibration server has no output")?;
        let Some(url) = BufReader::new(stdout).lines().next_line().await? else {
            bail!("the calibration server ended at once");
        };
        Ok(Self { _child: child, url })
    }
}

/// How fast this program is.
#[derive(Debug, Serialize)]
pub(crate) struct Calibration {
    /// Requests of one event answered in a second.
    pub requests_per_second: f64,
    /// Half of the latencies are below, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// Cores that this program used on average.
    pub tool_cpu_cores: Option<f64>,
    /// Requests without an answer.
    pub errors: u64,
}

impl Calibration {
    /// Out of a load of single events on the [`Server`]. Its check means nothing.
    #[must_use]
    pub(crate) fn of(report: &LoadReport) -> Self {
        Self {
            requests_per_second: report.events_per_second,
            p50_ms: report.latency_ms.raw.p50,
            p99_ms: report.latency_ms.raw.p99,
            tool_cpu_cores: report.tool_cpu_cores,
            errors: report.tally.errors,
        }
    }
}

impl Report for Calibration {
    fn ok(&self) -> bool {
        self.errors == 0
    }

    fn text(&self) -> String {
        let Self { requests_per_second, p50_ms, p99_ms, tool_cpu_cores, errors } = self;
        let cores = tool_cpu_cores.map_or(String::new(), |cores| {
            let micros = cores / requests_per_second * 1e6;
            format!("; this program used {cores:.2} cores, {micros:.0} µs a request")
        });
        let errors = if *errors > 0 { format!("; {errors} errors") } else { String::new() };
        format!(
            "{requests_per_second:.0} requests/s against a server that does nothing, p50 \
             {p50_ms:.2} ms, p99 {p99_ms:.2} ms{cores}{errors}\n"
        )
    }
}
