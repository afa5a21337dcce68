//! Standard streams that are gone or full, empty variables, signals, proxies.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fake::{Fake, Fault};
use crate::harness::{Place, wait_for};

/// Longer than any test.
const LONG: &str = "10m";
const LONG_SECONDS: &str = "600";

const SHIP: [&str; 4] = ["ship", "--topic", "t", "a.log"];
const LOAD: [&str; 5] = ["load", "--events", "50", "--seed", "1"];

/// A service, two lines in a file, and a recorded run.
fn place() -> (Place, Fake) {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    place.run(&service, &["load", "--events", "50", "--seed", "2", "--ledger", "run"]).ok();
    (place, service)
}

/// Arguments of every command that prints a result, and ends well.
const PRINTING: [&[&str]; 12] = [
    &SHIP,
    &["ship", "--topic", "t", "--json", "a.log"],
    &LOAD,
    &["load", "--events", "50", "--seed", "1", "--json"],
    &["verify", "run"],
    &["resume", "run"],
    &["calibrate", "--duration", "50ms"],
    &["workloads"],
    &["workloads", "mixed"],
    &["schema"],
    &["--help"],
    &["--version"],
];

#[test]
fn a_reader_that_has_left_ends_nothing() {
    let (place, service) = place();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.publisher(&service, args).stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("pipe"), "{args:?}: {stderr}");
    }
    assert_eq!(service.messages("t"), ["a", "b"]);
    // What went wrong is told by the exit code all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.publisher(&service, &["ship", "none.log"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[cfg(target_os = "linux")]
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_result_that_cannot_be_written_is_an_error() {
    let (place, service) = place();
    for args in PRINTING {
        let output = place.publisher(&service, args).stdout(full()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        let named = stderr.contains("standard output") && stderr.contains("No space left");
        assert!(named, "{args:?}: {stderr}");
    }
    assert_eq!(service.messages("t"), ["a", "b"]);
}

#[test]
#[cfg(target_os = "linux")]
fn notes_that_cannot_be_written_change_nothing() {
    let (place, service) = place();
    let code = |args: &[&str], stdin: Stdio| {
        let mut command = place.publisher(&service, args);
        command.stdin(stdin).stderr(full()).output().unwrap().status.code()
    };
    for args in PRINTING {
        assert_eq!(code(args, Stdio::null()), Some(0), "{args:?}");
    }
    let file = std::fs::File::open(place.path("a.log")).unwrap();
    assert_eq!(code(&["ship", "--topic", "p", "-"], file.into()), Some(0));
    assert_eq!(service.messages("p"), ["a", "b"]);
    let unwritable = ["ship", "--topic", "q", "--state", "a.log/no", "a.log"];
    assert_eq!(code(&unwritable, Stdio::null()), Some(0), "a registry that cannot be kept");
    assert_eq!(service.messages("q"), ["a", "b"]);
    assert_eq!(code(&["load", "--gzip", "--events", "9"], Stdio::null()), Some(0));
    assert_eq!(code(&["ship", "none.log"], Stdio::null()), Some(1));
    assert_eq!(code(&["verify", "none"], Stdio::null()), Some(1));
    assert_eq!(code(&["fly"], Stdio::null()), Some(2));
    // Nobody hears anything at all.
    let mut command = place.publisher(&service, &["ship", "--topic", "r", "a.log"]);
    let status = command.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!((status.code(), service.messages("r").len()), (Some(1), 2));
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_is_followed_though_notes_cannot_be_written() {
    let (place, service) = place();
    let args = ["ship", "--follow", "--topic", "t", "a.log", "later.log"];
    let mut command = place.publisher(&service, &args);
    let mut child = command.stderr(full()).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&2, || service.messages("t").len());
    place.write("later.log", "c\n");
    wait_for(&3, || service.messages("t").len());
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_empty_variable_is_not_set() {
    let (place, service) = place();
    let mut verify = place.publisher(&service, &["verify", "run"]);
    let output = verify.env("SEKALI_URL", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "the run's own address: {output:?}");
    let mut ship = place.publisher(&service, &SHIP);
    assert!(ship.env("SEKALI_SHIP_STATE", "").status().unwrap().success());
    assert!(place.path("state/sekali/ship.db").exists(), "the default registry");
    let mut ship = place.publisher(&service, &["--url", &service.url, "ship", "a.log"]);
    assert!(ship.env("SEKALI_URL", "").status().unwrap().success());
    // What is not empty is looked at, and named.
    let mut ship = place.publisher(&service, &SHIP);
    let output = ship.env("SEKALI_URL", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SEKALI_URL"), "{output:?}");
    let mut schema = place.publisher(&service, &["--url", &service.url, "schema"]);
    assert!(schema.env("SEKALI_URL", "nowhere").status().unwrap().success(), "--url wins");
}

#[test]
fn no_registry_is_kept_where_none_is_wanted() {
    let (place, service) = place();
    let ship = |args: &[&str]| {
        let mut command = place.publisher(&service, args);
        let kept = place.path("kept.json");
        let code = command.env("SEKALI_SHIP_STATE", &kept).status().unwrap().code();
        (code, kept.exists())
    };
    assert_eq!(ship(&["ship", "--no-state", "a.log"]), (Some(0), false));
    assert_eq!(ship(&["ship", "--no-state", "--state", "b.json", "a.log"]), (Some(2), false));
    assert_eq!(ship(&["ship", "--state", "b.json", "a.log"]), (Some(0), false));
    assert!(place.path("b.json").exists(), "the argument wins over the variable");
    assert_eq!(ship(&["ship", "a.log"]), (Some(0), true));
}

fn interrupt(pid: u32) {
    let status = Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Interrupts a run twice: the second time once it has said that it heard the
/// first. It must end at once.
#[track_caller]
fn ends_at_the_second(mut command: Command, is_at_work: impl Fn() -> bool) {
    use std::io::{BufRead as _, BufReader};
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&true, is_at_work);
    interrupt(child.id());
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.any(|line| line.unwrap().contains("once more to stop at once")));
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_a_retry() {
    let (place, service) = place();
    let before = service.state().requests.len();
    let refused = Fault::Status(503, Some(LONG_SECONDS));
    service.state().faults.extend([refused; 20]);
    for args in [&SHIP[..], &LOAD] {
        let seen = service.state().requests.len();
        let args = [args, &["--retry-for", "1h"]].concat();
        ends_at_the_second(place.publisher(&service, &args), || {
            service.state().requests.len() > seen
        });
    }
    assert!(service.state().requests.len() > before);
}

#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_a_read_of_a_pipe() {
    let (place, service) = place();
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let before = service.state().connections;
    // Opened when somebody writes to it, which nobody does.
    let command = place.publisher(&service, &["ship", "pipe"]);
    ends_at_the_second(command, || service.state().connections > before);
}

#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_an_audit() {
    let (place, service) = place();
    service.state().holds_reads = true;
    for args in [&["verify", "run"][..], &[&LOAD[..], &["--audit"]].concat()] {
        service.state().reads = 0;
        let args = [args, &["--timeout", LONG]].concat();
        ends_at_the_second(place.publisher(&service, &args), || service.state().reads > 0);
    }
}

#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_a_program_that_nobody_listens_to() {
    use std::io::Write as _;
    let (place, service) = place();
    service.state().faults.extend([Fault::Status(503, Some(LONG_SECONDS)); 20]);
    // A pipe that is full, and not read.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap();
    let filling = std::thread::spawn(move || writer.write_all(&[0; 1 << 20]));
    let mut command = place.publisher(&service, &SHIP);
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    let began = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end");
        }
        interrupt(child.id());
        std::thread::sleep(Duration::from_millis(200));
    };
    // Before it listens to signals, the first ends it.
    assert!(matches!(code, Some(130) | None), "{code:?}");
    drop(filling);
}

#[test]
fn errors_behind_a_proxy_name_it() {
    let (place, proxy) = place();
    let address = proxy.url.trim_start_matches("http://");
    let run = |args: &[&str], proxy_url: &str, no_proxy: &str| {
        let args = [args, &["--url", "http://sekali.invalid", "--retry-for", "0"]].concat();
        let mut command = place.publisher(&proxy, &args);
        command.env("HTTP_PROXY", proxy_url).env("NO_PROXY", no_proxy);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    let through = format!("http://someone:pass%77ord@{address}");
    // The proxy answers for the service, and then refuses.
    proxy.state().faults.push_back(Fault::Status(403, None));
    let (code, said) = run(&SHIP, &through, "");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("proxy") && said.contains(address), "{said}");
    assert!(!said.contains("pass"), "{said}");
    proxy.state().faults.push_back(Fault::Status(502, None));
    let (_, said) = run(&LOAD, &through, "");
    assert!(said.contains("proxy") && said.contains(address), "{said}");
    let (code, said) = run(&SHIP, &through, "");
    assert_eq!((code, said.contains("proxy")), (Some(0), false), "{said}");

    // Nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for command in [&SHIP[..], &LOAD, &["verify", "run"]] {
        let args = [command, &["--wait-for", "0"]].concat();
        let (code, said) = run(&args, &format!("http://someone:password@{address}"), "");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("proxy") && said.contains(&address), "{said}");
        assert!(!said.contains("password"), "{said}");
        let (_, said) = run(&args, &format!("http://{address}"), "sekali.invalid");
        assert!(!said.contains(&address), "{said}");
    }
}
