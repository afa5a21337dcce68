//! `chaos`: what it starts and kills, and what it leaves alone.
//!
//! What is killed is a process that forwards to the service in this one: so the
//! store survives, and replies are lost as they are when a service dies.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};

use crate::fake::Fake;
use crate::harness::{Place, Running, wait_for};

/// From where to where to forward, for [`forwarder`].
const FORWARD: &str = "PUBLISHER_TEST_FORWARD";

/// Says which processes there are, and waits.
const SLEEP: &str = "sleep 600 & echo $$ $! >> started; wait";

/// No test, but what the tests start.
#[test]
#[ignore = "chaos starts it"]
fn forwarder() {
    let Ok(addresses) = std::env::var(FORWARD) else { return };
    let (from, to) = addresses.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(from.parse().unwrap()).unwrap();
        let listener = socket.listen(1_024).unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut service = TcpStream::connect(to).await.unwrap();
            // Either end may go away at any time.
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut service).await.ok() });
        }
    });
}

/// What starts the forwarder, and says which processes there are.
fn command(front: &Fake, service: &Fake) -> String {
    let address = |fake: &Fake| fake.url.trim_start_matches("http://").to_owned();
    let program = std::env::current_exe().unwrap();
    format!(
        "sleep 600 & echo $$ $! >> started; {FORWARD}='{} {}' '{}' --exact chaos::forwarder \
         --ignored",
        address(front),
        address(service),
        program.display(),
    )
}

fn processes(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.path("started")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether a process is there and has not ended.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which is in brackets and may hold anything.
    let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
    !state.is_empty() && !state.starts_with('Z')
}

/// A process that chaos has nothing to do with; it ends with the test.
struct Bystander(Child);

impl Bystander {
    fn start(own_group: bool) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600");
        if own_group {
            command.process_group(0);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start(place: &Place, front: &Fake, service: &Fake, kills: &str) -> Running {
    let command = command(front, service);
    let args = ["chaos", "--seed", "11", "--ledger", "run", "--command", &command];
    let more = ["--kills", kills, "--up-min", "10ms", "--up-max", "60ms", "--concurrency", "4"];
    Running::start(place, front, &[&args[..], &more].concat())
}

#[test]
fn it_kills_what_it_started_and_nothing_else() {
    let (place, front, service) = (Place::new(), Fake::new(), Fake::start());
    let bystanders = [Bystander::start(false), Bystander::start(true)];
    let done = start(&place, &front, &service, "4").end().ok();
    assert_eq!(done.json["kills"].as_array().unwrap().len(), 4, "{done:#?}");
    assert_eq!(done.json["check"]["events_read"], service.state().stored.len());
    assert_eq!(done.json["check"]["unsettled"], 0, "{done:#?}");
    assert!(done.json["retries"].as_u64().unwrap() > 0, "{done:#?}");
    let processes = processes(&place);
    assert_eq!(processes.len(), 2 * 5, "{processes:?}");
    // Also what the shell had started, which nobody but its group tells of.
    for pid in &processes {
        wait_for(&false, || is_alive(pid));
    }
    assert!(bystanders.iter().all(|other| is_alive(&other.0.id().to_string())));
    place.run(&service, &["verify", "run"]).ok();
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let (place, front, service) = (Place::new(), Fake::new(), Fake::start());
    let running = start(&place, &front, &service, "1000");
    wait_for(&true, || processes(&place).len() >= 2 * 3);
    let done = running.stop("-INT").ended(130);
    assert_eq!(done.json["interrupted"], true, "{done:#?}");
    assert_eq!(done.json["check"]["ok"], true, "{done:#?}");
    for pid in &processes(&place) {
        wait_for(&false, || is_alive(pid));
    }
}

#[test]
fn what_answers_already_is_left_alone() {
    let (place, service) = (Place::new(), Fake::start());
    let told = place.tell(&service, &["chaos", "--command", SLEEP, "--ledger", "run"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains(&service.url), "{}", told.stderr);
    assert!(told.stderr.contains("already"), "{}", told.stderr);
    assert!(processes(&place).is_empty(), "the command was not to be run");
    assert!(service.state().requests.is_empty());
}

#[test]
fn a_service_that_ends_by_itself_is_named_with_its_output() {
    let (place, service) = (Place::new(), Fake::new());
    let command = "echo the port is taken >&2; exit 7";
    let told = place.tell(&service, &["chaos", "--command", command, "--ledger", "run"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    for part in ["ended by itself", "7", "the port is taken"] {
        assert!(told.stderr.contains(part), "{}", told.stderr);
    }
}

#[test]
fn a_service_that_does_not_wake_is_ended() {
    let (place, service) = (Place::new(), Fake::new());
    let args = ["chaos", "--command", SLEEP, "--ledger", "run", "--wait-for", "500ms"];
    let told = place.tell(&service, &args);
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains("not healthy"), "{}", told.stderr);
    for pid in &processes(&place) {
        wait_for(&false, || is_alive(pid));
    }
}
