//! Arguments, and the way from them to a running server.
//!
//! Flags that Spin has are named as there and take the same values.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::sync::oneshot;

use crate::allowed_hosts::AllowedHosts;
use crate::build_component::build_all;
use crate::code_cache::CodeCache;
use crate::components::{Components, Loaded};
use crate::connections::ConnectionLimits;
use crate::console;
use crate::engine::Loader;
use crate::instances::{Grants, Reuse};
use crate::manifest::{Component, Manifest};
use crate::postgres::Servers;
use crate::postgres::pools::Permits;
use crate::quick_check::QuickCheck;
use crate::ranges::{Range, parse_count, parse_duration, parse_limit};
use crate::request_body::BodyLimits;
use crate::routes::Routes;
use crate::runtime_config::RuntimeConfig;
use crate::server::{self, Limits, Server, Stopped};
use crate::signals::Signals;
use crate::state_dir::StateDir;
use crate::stdio::Logs;
use crate::stores::Labels;
use crate::variables::{self, ApplicationVariables, Source, Variables};

/// How long blocking work (a commit) may take once serving has ended.
const RUNTIME_SHUTDOWN_WAIT_SECONDS_MAX: u64 = 5;
/// The variable by which an application is told by which hosts it may be called.
/// An application that has it, with an empty default, is told those of the host.
const HOSTS_VARIABLE: &str = "allowed_hosts";

/// The variable by which an application knows who may call it, if it has one.
const KEYS_VARIABLE: &str = "api_keys";
/// The part of the open files that connections may be, if nothing else was said:
/// each request under way may have an instance of its own, with a database and
/// its log.
const CONNECTIONS_PER_OPEN_FILES: usize = 2;
/// Connections at a time, if nothing else was said and there may be more files.
const CONNECTIONS_DEFAULT_MAX: usize = 10_000;
/// Said when something is to be built.
const NO_BUILD: &str = "the manifest does not say how to build any component";
/// The exit code of a process that a signal ended, as shells tell it.
const SIGNALLED: u8 = 130;

/// Builds the components and serves them the way `spin up` does, with no Spin installed.
#[derive(Debug, Parser)]
#[command(name = "sekali-host", version)]
struct Arguments {
    /// The manifest, or its directory [default: the nearest spin.toml here or above]
    #[arg(short = 'f', long = "from", value_name = "FILE")]
    from: Option<PathBuf>,

    /// Address and port to listen on; with port 0, a free one
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "SPIN_HTTP_LISTEN_ADDR",
        default_value = "127.0.0.1:3000",
        value_parser = parse_listen_address
    )]
    listen: Listen,

    /// Build components first, and fail if the manifest does not say how
    #[arg(long)]
    build: bool,

    /// Serve what was built before [default: build if the manifest says how]
    #[arg(long, conflicts_with = "build")]
    no_build: bool,

    /// Give an application variable a value: KEY=VALUE, KEY=@FILE, @FILE.json or @FILE.toml
    #[arg(long, value_name = "KEY=VALUE")]
    variable: Vec<Source>,

    /// What is behind the labels of databases and stores, and limits: Spin's TOML
    #[arg(long, value_name = "FILE", env = "RUNTIME_CONFIG_FILE")]
    runtime_config_file: Option<PathBuf>,

    /// Where databases and logs are kept; empty: in memory [default: .spin next to the manifest]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<OsString>,

    /// Where the components' output is kept; empty: nowhere [default: logs in the state directory]
    #[arg(short = 'L', long, value_name = "DIRECTORY", env = "SPIN_LOG_DIR")]
    log_dir: Option<OsString>,

    /// Do not repeat the components' output on stderr
    #[arg(short, long, aliases = ["sh", "shush"])]
    quiet: bool,

    /// Requests that one instance takes in all: a number, or a range such as 1..8
    #[arg(long, value_name = "COUNT", default_value = "128", value_parser = parse_count)]
    max_instance_reuse_count: Range<usize>,

    /// Requests that one instance takes at a time: a number, or a range such as 1..8
    #[arg(long, value_name = "COUNT", default_value = "16", value_parser = parse_count)]
    max_instance_concurrent_reuse_count: Range<usize>,

    /// How long an instance without requests is kept, e.g. 500ms, or a range such as 1..8s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    idle_instance_timeout: Range<Duration>,

    /// How much memory an instance may have [default: without limit]
    #[arg(long, value_name = "BYTES", env = "SPIN_MAX_INSTANCE_MEMORY")]
    max_instance_memory: Option<usize>,

    /// How long a request may take to be answered, e.g. 30s [default: without limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    request_timeout: Option<Range<Duration>>,

    /// How long a client may take for the head of a request; 0: without limit
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_limit)]
    head_timeout: Duration,

    /// How long a client may pause within a body; 0: without limit
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_limit)]
    body_timeout: Duration,

    /// How many bytes a second of a body must come after that time, on average; 0: any
    #[arg(long, value_name = "BYTES", default_value = "500")]
    min_body_rate: u32,

    /// How long a client may take no byte of a reply; 0: without limit
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = parse_limit)]
    reply_timeout: Duration,

    /// How long a connection without a request is kept; 0: without limit
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_limit)]
    idle_connection_timeout: Duration,

    /// Connections at a time [default: half the open files that the process may have, at most 10000]
    #[arg(long, value_name = "COUNT", value_parser = parse_connections)]
    max_connections: Option<usize>,

    /// Whether databases are checked at the start; auto: those of up to 256 MiB
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = QuickCheck::Auto)]
    quick_check: QuickCheck,

    #[command(flatten)]
    code_cache: CodeCache,
}

/// Runs the host with these arguments, of which the first is the program's name,
/// until it is told to stop. What went wrong is one line on stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            return match (usage.print(), u8::try_from(usage.exit_code())) {
                (Ok(()), Ok(code)) => ExitCode::from(code),
                _ => ExitCode::FAILURE,
            };
        }
    };
    match run(&arguments) {
        Ok(Stopped::Gracefully) => ExitCode::SUCCESS,
        Ok(Stopped::AtOnce) => ExitCode::from(SIGNALLED),
        Err(error) => {
            // Some libraries draw their errors over several lines.
            let lines = format!("error: {error:#}");
            console::message(lines.split_whitespace().collect::<Vec<_>>().join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Builds the components of `manifest`, a file or its directory, as their build
/// commands say.
///
/// # Errors
///
/// A manifest that cannot be used or does not say how, and a build that fails.
pub fn build_application(manifest: &Path) -> Result<()> {
    let manifest = Manifest::read(&Manifest::find(Some(manifest))?)?;
    ensure!(build_all(&manifest.components)?, "{NO_BUILD}");
    Ok(())
}

fn run(arguments: &Arguments) -> Result<Stopped> {
    let mut manifest = Manifest::read(&Manifest::find(arguments.from.as_deref())?)?;
    // What can be found wrong in an instant is found before a build of minutes.
    let given = variables::outside(&arguments.variable)?;
    let hosts = default_hosts(&mut manifest.variables, &given, &arguments.listen)?;
    let open = open_to_everybody(&manifest.variables, &given)?;
    let variables = ApplicationVariables::resolve(&manifest.variables, given)?;
    let file = arguments.runtime_config_file.as_deref();
    let config = file.map(RuntimeConfig::read).transpose()?.unwrap_or_default();
    let state_dir = StateDir::create(
        &manifest.directory,
        arguments.state_dir.as_deref().or(config.state_dir.as_deref()),
        arguments.log_dir.as_deref().or(config.log_dir.as_deref()),
    )?;
    let summary = config.summary();
    let memory_bytes_max = arguments.max_instance_memory.or(config.memory_bytes_max);
    let permits = Permits::new([config.postgres_connections_max, config.connections_max]);
    let labels = Labels::new(config, &state_dir)?;
    let logs = |id: &str| Logs::new(id, state_dir.log_directory(), arguments.quiet);
    let grants = grants(&manifest, &variables, &labels, &permits, memory_bytes_max, logs)?;
    let routes = Routes::new(&manifest.triggers)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let (started, starts) = oneshot::channel();
    let signals =
        runtime.spawn(async { anyhow::Ok(Signals::listen()?.end_until(starts, SIGNALLED).await) });
    build(&manifest, arguments)?;

    for file in labels.files() {
        arguments.quick_check.run(file)?;
    }
    let mut loader = Loader::new(arguments.code_cache.open()?)?;
    let mut loaded = HashMap::new();
    for (component, grants) in manifest.components.iter().zip(grants) {
        // One without a trigger cannot be called, as in Spin.
        if manifest.triggers.iter().any(|trigger| trigger.component == component.id) {
            let grants = Loaded { component: loader.load(&component.source)?, grants };
            loaded.insert(component.id.clone(), grants);
        }
    }
    let reuse = Reuse {
        requests_max: arguments.max_instance_reuse_count,
        concurrent_requests_max: arguments.max_instance_concurrent_reuse_count,
        idle_timeout: arguments.idle_instance_timeout,
        request_timeout: arguments.request_timeout,
    };
    let ended = Arc::new(AtomicBool::new(false));
    let server = Server {
        routes,
        info: info(&manifest)?,
        limits: limits(arguments),
        components: Components::new(loaded, reuse, &ended),
    };

    let stopped = runtime.block_on(async {
        let listener = server::listen(arguments.listen.address).await?;
        if let (Some(summary), Some(file)) = (summary, file) {
            console::message(format_args!("Using {summary} of {}", file.display()));
        }
        if let Some(data) = state_dir.data_directory() {
            console::message(format_args!("Storing data in {}", data.display()));
        }
        if let Some(logs) = state_dir.log_directory() {
            console::message(format_args!("Logging component stdio to {}", logs.display()));
        }
        for said in [hosts, open].into_iter().flatten() {
            console::message(said);
        }
        // If it does not wait for that, it has failed to listen, which is told next.
        started.send(()).ok();
        let signals = signals.await.context("signals are not listened for")??;
        server::serve(server, listener, signals).await
    });
    ended.store(true, Ordering::Relaxed);
    match stopped {
        // Instances are dropped here, which closes their databases in good order.
        Ok(Stopped::Gracefully) => {
            runtime.shutdown_timeout(Duration::from_secs(RUNTIME_SHUTDOWN_WAIT_SECONDS_MAX));
        }
        Ok(Stopped::AtOnce) | Err(_) => runtime.shutdown_background(),
    }
    stopped
}

fn build(manifest: &Manifest, arguments: &Arguments) -> Result<()> {
    if !arguments.no_build {
        let is_built = build_all(&manifest.components)?;
        ensure!(is_built || !arguments.build, "--build: {NO_BUILD}");
    }
    for component in &manifest.components {
        let source = &component.source;
        ensure!(
            source.is_file(),
            "there is no component at {}: {}",
            source.display(),
            remedy(component)
        );
    }
    Ok(())
}

fn remedy(component: &Component) -> String {
    match &component.build {
        Some(build) => {
            let directory = build.directory.display();
            format!("run `{}` in {directory}, or leave --no-build out", build.commands.join(" && "))
        }
        None => "build it, or correct its `source` in the manifest".to_owned(),
    }
}

/// What the instances of each component are given, in the order of the manifest.
fn grants(
    manifest: &Manifest,
    variables: &ApplicationVariables,
    labels: &Labels,
    permits: &Permits,
    memory_bytes_max: Option<usize>,
    logs: impl Fn(&str) -> Logs,
) -> Result<Vec<Grants>> {
    let ids: Vec<_> = manifest.components.iter().map(|component| component.id.as_str()).collect();
    let grants_of = |component: &Component| {
        let Component { id, variables: templates, allowed_outbound_hosts: hosts, .. } = component;
        let allowed_hosts = Arc::new(AllowedHosts::new(id, hosts, variables, &ids)?);
        Ok(Grants {
            logs: logs(id),
            environment: component.environment.clone(),
            variables: Arc::new(Variables::new(id, templates, variables)?),
            servers: Arc::new(Servers::new(allowed_hosts.clone(), permits.clone())),
            allowed_hosts,
            databases: Arc::new(labels.databases_of(component)?),
            stores: Arc::new(labels.stores_of(component)?),
            memory_bytes_max,
        })
    };
    manifest.components.iter().map(grants_of).collect()
}

fn limits(arguments: &Arguments) -> Limits {
    Limits {
        connection: ConnectionLimits {
            head_time_max: arguments.head_timeout,
            idle_time_max: arguments.idle_connection_timeout,
            reply_pause_max: arguments.reply_timeout,
        },
        body: BodyLimits {
            pause_max: arguments.body_timeout,
            bytes_per_second_min: arguments.min_body_rate,
        },
        connections_max: arguments.max_connections.unwrap_or_else(|| {
            let files = open_files_max().unwrap_or(usize::MAX);
            (files / CONNECTIONS_PER_OPEN_FILES).clamp(1, CONNECTIONS_DEFAULT_MAX)
        }),
    }
}

/// How many files this process may have open at a time, if that is limited.
#[cfg(unix)]
fn open_files_max() -> Option<usize> {
    use rustix::process::{Resource, getrlimit};
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

#[cfg(not(unix))]
fn open_files_max() -> Option<usize> {
    None
}

/// What Spin tells about an application.
fn info(manifest: &Manifest) -> Result<bytes::Bytes> {
    let mut info = serde_json::json!({ "name": manifest.name });
    if !manifest.version.is_empty() {
        info["version"] = manifest.version.clone().into();
    }
    Ok(serde_json::to_vec_pretty(&info)?.into())
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("there must be one at least".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("expected an integer such as 500: {error}")),
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen {
    address: SocketAddr,
    /// The host as it was written.
    host: String,
}

/// Host names are allowed; of several addresses 127.0.0.1 is taken first.
fn parse_listen_address(text: &str) -> Result<Listen, String> {
    let addresses: Vec<_> = text.to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let local = addresses.iter().find(|address| address.ip() == Ipv4Addr::LOCALHOST);
    let address = local.or(addresses.first()).copied().ok_or("it has no address")?;
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    Ok(Listen { address, host: host.to_owned() })
}

impl Listen {
    /// The hosts by which who listens here is called: those of this machine, and
    /// the one that was written. `None` when it listens on every address, since then
    /// others call it by names that only they know.
    fn hosts(&self) -> Option<String> {
        let ip = self.address.ip().to_canonical();
        if ip.is_unspecified() {
            return None;
        }
        let listening = SocketAddr::new(ip, 0).to_string();
        let listening = listening.strip_suffix(":0").unwrap_or(&listening);
        let mut hosts = vec!["127.0.0.1", "localhost", "[::1]"];
        for own in [listening, &self.host] {
            if !own.is_empty() && !hosts.contains(&own) {
                hosts.push(own);
            }
        }
        Some(hosts.join(", "))
    }
}

/// Has the application called by this host's own addresses alone, if it can be
/// told so and nobody says otherwise: a page whose name was made to lead here (DNS
/// rebinding) is none of them. A sentence that says what was done about it.
fn default_hosts(
    defaults: &mut BTreeMap<String, Option<String>>,
    given: impl Fn(&str) -> Result<Option<String>>,
    listen: &Listen,
) -> Result<Option<String>> {
    let default = defaults.get_mut(HOSTS_VARIABLE).and_then(Option::as_mut);
    let Some(default) = default.filter(|default| default.is_empty()) else { return Ok(None) };
    if given(HOSTS_VARIABLE)?.is_some() {
        return Ok(None);
    }
    Ok(Some(match listen.hosts() {
        Some(hosts) => {
            let said = format!(
                "Answering requests to the hosts {hosts}; name others, such as that of a proxy, \
                 with --variable {HOSTS_VARIABLE}=HOST,…"
            );
            *default = hosts;
            said
        }
        None => format!(
            "Answering requests to any host, since it listens on every address; \
             name yours with --variable {HOSTS_VARIABLE}=HOST,…"
        ),
    }))
}

/// What is said of an application that could ask for keys, and has none.
fn open_to_everybody(
    defaults: &BTreeMap<String, Option<String>>,
    given: impl Fn(&str) -> Result<Option<String>>,
) -> Result<Option<String>> {
    let Some(default) = defaults.get(KEYS_VARIABLE) else { return Ok(None) };
    let keys = given(KEYS_VARIABLE)?.or_else(|| default.clone());
    let is_open = keys.is_some_and(|keys| keys.trim().is_empty());
    Ok(is_open.then(|| {
        format!(
            "Open to everybody who reaches it: there are no keys (--variable {KEYS_VARIABLE}=…)"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["sekali-host"], arguments].concat())
    }

    #[test]
    fn arguments() -> Result<()> {
        use clap::CommandFactory;
        Arguments::command().debug_assert();

        let defaults = parse(&[])?;
        assert_eq!(defaults.max_instance_reuse_count, Range::Value(128));
        assert_eq!(defaults.max_instance_concurrent_reuse_count, Range::Value(16));
        assert_eq!(defaults.idle_instance_timeout, Range::Value(Duration::from_secs(1)));
        assert_eq!(defaults.request_timeout, None);

        let given = parse(&["--listen", "localhost:0", "--state-dir", "", "--variable", "a=b"])?;
        assert_eq!(given.listen.address, "127.0.0.1:0".parse()?);
        assert_eq!(given.state_dir, Some(OsString::new()));
        assert_eq!(defaults.head_timeout, Duration::from_secs(30));
        assert_eq!(defaults.quick_check, QuickCheck::Auto);
        let limits = limits(&parse(&["--max-connections", "7", "--body-timeout", "0"])?);
        assert_eq!((limits.connections_max, limits.body.pause_max), (7, Duration::MAX));
        assert!(parse(&["--max-connections", "0"]).is_err());
        assert!(parse(&["--build", "--no-build"]).is_err());
        assert!(parse(&["--disable-cache", "--cache", "cache.toml"]).is_err());
        assert!(parse(&["--variable", "a"]).is_err());
        Ok(())
    }

    #[test]
    fn an_application_without_keys_is_said_to_be_open() -> Result<()> {
        for (default, given, expected) in [
            (Some(Some("")), None, true),
            (Some(Some("k")), Some(" "), true),
            (Some(Some("")), Some("k"), false),
            (Some(Some("k")), None, false),
            // It is asked for, and missing.
            (Some(None), None, false),
            (None, None, false),
        ] {
            let named =
                |default: Option<&str>| (KEYS_VARIABLE.to_owned(), default.map(str::to_owned));
            let defaults = default.map(named).into_iter().collect();
            let said = open_to_everybody(&defaults, |_| Ok(given.map(str::to_owned)))?;
            assert_eq!(said.is_some(), expected, "{default:?} {given:?}");
        }
        Ok(())
    }

    /// What the variable is by default where the host listens on `listen`, and
    /// whether anything is said about it.
    fn hosts_of(
        listen: &str,
        default: Option<Option<&str>>,
        given: Option<&str>,
    ) -> Result<(Option<String>, bool)> {
        let listen = parse_listen_address(listen).map_err(anyhow::Error::msg)?;
        let mut defaults = BTreeMap::new();
        if let Some(default) = default {
            defaults.insert(HOSTS_VARIABLE.to_owned(), default.map(str::to_owned));
        }
        let given = |_: &str| Ok(given.map(str::to_owned));
        let said = default_hosts(&mut defaults, given, &listen)?;
        Ok((defaults.remove(HOSTS_VARIABLE).flatten(), said.is_some()))
    }

    #[test]
    fn an_application_is_told_the_hosts_own_addresses() -> Result<()> {
        const LOCAL: &str = "127.0.0.1, localhost, [::1]";
        for (listen, expected) in [
            ("127.0.0.1:3000", LOCAL.to_owned()),
            ("localhost:0", LOCAL.to_owned()),
            ("[::1]:3000", LOCAL.to_owned()),
            ("127.0.0.2:3000", format!("{LOCAL}, 127.0.0.2")),
            ("192.0.2.7:80", format!("{LOCAL}, 192.0.2.7")),
            ("[2001:db8::7]:80", format!("{LOCAL}, [2001:db8::7]")),
            // Called by names that only others know.
            ("0.0.0.0:3000", String::new()),
            ("[::]:3000", String::new()),
            ("[::ffff:0.0.0.0]:3000", String::new()),
        ] {
            assert_eq!(hosts_of(listen, Some(Some("")), None)?, (Some(expected), true), "{listen}");
        }
        let named = Listen { address: "192.0.2.7:80".parse()?, host: "events.example".to_owned() };
        assert_eq!(named.hosts(), Some(format!("{LOCAL}, 192.0.2.7, events.example")));
        Ok(())
    }

    #[test]
    fn who_names_the_hosts_has_the_last_word() -> Result<()> {
        for (default, given, expected) in [
            // The operator, also with nothing, which is any host.
            (Some(Some("")), Some("a.example"), Some("")),
            (Some(Some("")), Some(""), Some("")),
            // The author of the manifest.
            (Some(Some("b.example")), None, Some("b.example")),
            (Some(None), None, None),
            // It knows no such variable.
            (None, None, None),
        ] {
            let (hosts, is_said) = hosts_of("127.0.0.1:3000", default, given)?;
            assert_eq!((hosts.as_deref(), is_said), (expected, false), "{default:?} {given:?}");
        }
        Ok(())
    }
}
