//! Replicas on one PostgreSQL behind HAProxy, as `docs/deploying.md` has it.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::postgres::{database, on};
use crate::support::{
    Client, Server, Stream, TestResult, check, check_eq, free_address, join, own_server, publisher,
    read, shell_line, shown, test,
};

/// Where Debian has it, which is not in everybody's PATH.
const PATHS: [&str; 2] = ["/usr/sbin/haproxy", "/usr/bin/haproxy"];

/// HAProxy before two replicas; ended when it is dropped.
struct Balancer {
    url: String,
    child: Child,
    _directory: TempDir,
}

impl Balancer {
    /// None where HAProxy is not installed.
    fn before(replicas: [&str; 2]) -> Result<Option<Self>, Failed> {
        let Some(program) = PATHS.into_iter().find(|path| fs::exists(path).unwrap_or(false)) else {
            let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            check(!is_ci, || "HAProxy is not installed".to_owned())?;
            // Past the capture of the test harness. Nobody can be told that nobody can
            // be told.
            writeln!(std::io::stderr(), "skipped, since HAProxy is not installed").ok();
            return Ok(None);
        };
        let address = free_address()?;
        let text = read("docs/deploying.md")?;
        let (_, section) = text.split_once("## Several replicas").ok_or("no section")?;
        let (_, block) = section.split_once("```haproxy\n").ok_or("no configuration")?;
        let (block, _) = block.split_once("```").ok_or("no end of it")?;
        let mut configuration = block.to_owned();
        let [one, two] = replicas;
        for (from, to) in
            [("127.0.0.1:8082", &*address), ("10.0.0.1:3000", one), ("10.0.0.2:3000", two)]
        {
            check(configuration.contains(from), || format!("no {from} in {block}"))?;
            configuration = configuration.replace(from, to);
        }
        let directory = TempDir::new()?;
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, configuration)?;
        // In the foreground.
        let child =
            Command::new(program).arg("-db").arg("-f").arg(path).stderr(Stdio::null()).spawn()?;
        Ok(Some(Balancer { url: format!("http://{address}"), child, _directory: directory }))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already, which is what this is for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads on, over one stream after the other, until `is_over`: the place of each event,
/// and where to go on.
fn follow(client: &Client, is_over: &AtomicBool) -> Result<(Vec<i64>, String), Failed> {
    let (mut places, mut last_id) = (Vec::new(), "0".to_owned());
    while !is_over.load(Ordering::SeqCst) {
        let Ok(mut stream) = Stream::resume(client, "/events/stream", &last_id, u64::MAX) else {
            // Neither is up at the moment.
            thread::park_timeout(Duration::from_millis(10));
            continue;
        };
        while let Some(event) = stream.event_if_any()? {
            places.push(event.data["seq"].as_i64().ok_or("no seq")?);
            last_id = event.id;
        }
    }
    Ok((places, last_id))
}

/// One of two is killed again and again under load: the load is stored once, and who
/// follows through the balancer sees all of it in order.
#[test(own_server)]
fn replicas_that_are_killed_behind_a_balancer_cost_nothing() -> TestResult {
    const KILLS: &str = "8";
    let Some(database) = database()? else { return Ok(()) };
    let (one, two) = (free_address()?, free_address()?);
    let Some(balancer) = Balancer::before([&one, &two])? else { return Ok(()) };
    let (first, state) = on(&database).listen(&one).command()?;
    let (second, _other_state) = on(&database).listen(&two).command()?;
    let ledger = state.path().join("run").display().to_string();
    let (first, second) = (shell_line(&first), shell_line(&second));
    let args = ["chaos", "--json", "--kills", KILLS, "--up-max", "400ms", "--ledger", &ledger];
    let commands = ["--command", &first, "--command", &second];
    let is_over = AtomicBool::new(false);
    let (report, followed) = thread::scope(|scope| {
        let client = Client::new(&balancer.url);
        let is_over = &is_over;
        let follower = scope.spawn(move || follow(&client, is_over));
        let output = publisher(&balancer.url, &[&args[..], &commands].concat()).output();
        is_over.store(true, Ordering::SeqCst);
        Ok::<_, Failed>((output?, join(follower)?))
    })?;
    check(report.status.success(), || shown(&report))?;
    let report: Value = serde_json::from_slice(&report.stdout)?;
    let killed = report["kills"].as_array().ok_or("no kills")?;
    check_eq(killed.len().to_string().as_str(), KILLS, "kills")?;
    for process in [1, 2] {
        let is_of = |kill: &Value| kill["process"].as_u64() == Some(process);
        check(killed.iter().any(is_of), || format!("{process} was left alone"))?;
    }

    let server: Server = on(&database).start()?;
    let client = server.client();
    let stored = client.get("/stats")?.expect(200)?.count("unique_processed")?;
    let (mut places, last_id) = followed;
    check(!places.is_empty(), || "nothing was seen while replicas were killed".to_owned())?;
    let mut stream = Stream::resume(&client, "/events/stream", &last_id, u64::MAX)?;
    while places.len() < usize::try_from(stored)? {
        places.push(stream.event()?.data["seq"].as_i64().ok_or("no seq")?);
    }
    check(places.is_sorted_by(|before, after| before < after), || "not in order".to_owned())?;
    check_eq(Some(places.len() as u64), report["check"]["events_read"].as_u64(), "events seen")
}
