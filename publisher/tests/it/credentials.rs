//! Users and passwords: sent to the service, and shown and kept nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::fake::Fake;
use crate::harness::Place;

const SECRET: &str = "s3cret";
/// The same in an address, and what it means.
const PASSWORD_ENCODED: &str = "s3cret%40%2F";
/// `ana:s3cret@/` in Base64.
const BASIC: &str = "Basic YW5hOnMzY3JldEAv";

/// The service's address with something before its host.
fn url(service: &Fake, who: &str) -> String {
    service.url.replace("://", &format!("://{who}@"))
}

/// What a run said, which must not be secret.
#[track_caller]
fn said(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    assert!(!text.contains(SECRET), "{command:?} says\n{text}");
    (status.code(), text)
}

/// No file holds the secret, as it is or encoded.
#[track_caller]
fn assert_kept_nowhere(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_kept_nowhere(&path);
        } else {
            let content = fs::read(&path).unwrap();
            let content = String::from_utf8_lossy(&content);
            let kept = content.contains(SECRET) || content.contains(BASIC);
            assert!(!kept, "{} holds\n{content}", path.display());
        }
    }
}

/// Who asked since the last look.
fn asked(service: &Fake) -> BTreeSet<Option<String>> {
    std::mem::take(&mut service.state().asked_by)
}

fn only(authorization: &str) -> BTreeSet<Option<String>> {
    BTreeSet::from([Some(authorization.to_owned())])
}

#[test]
fn a_password_in_the_address_is_sent_and_shown_and_kept_nowhere() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    let address = url(&service, &format!("ana:{PASSWORD_ENCODED}"));
    let shown = url(&service, "ana:***");
    let load = ["load", "--events", "50", "--audit", "--ledger"];
    for (args, is_shown) in [
        (&["ship", "--topic", "t", "a.log"][..], true),
        (&["ship", "--topic", "t", "--json", "a.log"], true),
        (&[&load[..], &["run-1", "--html", "report.html"]].concat(), true),
        (&[&load[..], &["run-2", "--json"]].concat(), true),
        (&[&load[..], &["run-3", "--json", "report.json", "--http2"]].concat(), true),
        (&["verify", "run-1"], true),
        (&["resume", "run-1"], true),
        (&["schema"], false),
    ] {
        let mut command = place.publisher(&service, args);
        command.env("SEKALI_URL", &address);
        let (code, text) = said(command);
        assert_eq!((code, text.contains(&shown)), (Some(0), is_shown), "{args:?}: {text}");
        if is_shown {
            assert_eq!(asked(&service), only(BASIC), "{args:?}");
        }
    }
    let run = place.read_json("run-1/run.json");
    assert_eq!(run["url"], shown.as_str());
    assert_eq!(place.read_json("report.json")["url"], shown.as_str());
    assert!(fs::read_to_string(place.path("report.html")).unwrap().contains(&shown));
    assert_kept_nowhere(&place.path("."));

    // A recorded run does not know the password, and says so.
    let mut command = place.publisher(&service, &["resume", "run-1"]);
    command.env_remove("SEKALI_URL");
    let (code, text) = said(command);
    assert_eq!((code, text.contains("SEKALI_PASSWORD")), (Some(2), true), "{text}");
    let mut command = place.publisher(&service, &["resume", "run-1"]);
    command.env_remove("SEKALI_URL").env("SEKALI_PASSWORD", "s3cret@/");
    let (code, text) = said(command);
    assert_eq!((code, asked(&service)), (Some(0), only(BASIC)), "{text}");
}

#[test]
fn a_password_is_not_in_errors() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    for address in [
        format!("http://ana:{SECRET}@{closed}"),
        format!("https://ana:{SECRET}@{closed}"),
        format!("http://{SECRET}@{closed}"),
    ] {
        for protocol in [&[][..], &["--http2"]] {
            let args = [&["load", "--wait-for", "0", "--url", &address], protocol].concat();
            let (code, text) = said(place.publisher(&service, &args));
            assert_eq!(code, Some(1), "{text}");
            assert!(text.contains("***@127.0.0.1"), "{text}");
        }
    }
    // The service that refuses, the one that is there already, the one that ends.
    let address = url(&service, &format!("ana:{SECRET}"));
    service.state().unhealthy = usize::MAX;
    let refused = ["ship", "a.log", "--wait-for", "0", "--url", &address];
    assert_eq!(said(place.publisher(&service, &refused)).0, Some(1));
    let told = format!("echo using {address}; exit 7");
    for (address, code) in [(&address, 1), (&format!("http://ana:{SECRET}@{closed}"), 1)] {
        let args = ["chaos", "--ledger", "run", "--command", &told, "--url", address];
        assert_eq!(said(place.publisher(&service, &args)).0, Some(code));
    }
}

#[test]
fn what_is_no_address_is_not_repeated() {
    let (place, service) = (Place::new(), Fake::start());
    for address in [
        "http://ana:s3cret@",
        "http://ana:s3cret@host:99999",
        "http://ana:s3cret#@host",
        "http://ana:12/s3cret@host",
        "http://host/?token=s3cret",
        "http://host/#s3cret",
        "ana:s3cret@host",
        "ftp://ana:s3cret@host",
    ] {
        for args in [&["load", "--url", address][..], &["--url", address, "ship", "a.log"]] {
            let (code, text) = said(place.publisher(&service, args));
            assert_eq!((code, text.contains("--url")), (Some(2), true), "{text}");
        }
        let mut command = place.publisher(&service, &["load"]);
        command.env("SEKALI_URL", address);
        let (code, text) = said(command);
        assert_eq!((code, text.contains("SEKALI_URL")), (Some(2), true), "{text}");
    }
    // In the wrong place.
    for args in [
        &["load", "http://ana:s3cret@host"][..],
        &["http://ana:s3cret@host", "load"],
        &["load", "--rate", "http://s3cret@host"],
        &["load", "--ulr=http://ana:s3cret@host"],
    ] {
        assert_eq!(said(place.publisher(&service, args)).0, Some(2));
    }
}

/// `USER:PASSWORD` in Base64, for those of the tests.
fn basic(who: &str) -> String {
    let encoded = match who {
        "ana:one" => "YW5hOm9uZQ==",
        "ana:two" => "YW5hOnR3bw==",
        "ben:two" => "YmVuOnR3bw==",
        "ana:net" => "YW5hOm5ldA==",
        "ben:net" => "YmVuOm5ldA==",
        "ana:" => "YW5hOg==",
        other => panic!("{other} is not encoded here"),
    };
    format!("Basic {encoded}")
}

#[test]
fn who_asks_may_come_from_an_option_the_environment_or_a_netrc_file() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    place.write(
        "netrc",
        "machine 127.0.0.1 login ana password net\nmachine 127.0.0.1 login ben password net\n",
    );
    let user = |user| ("SEKALI_USER", user);
    let password = |password| ("SEKALI_PASSWORD", password);
    let netrc = ["--netrc-file", "netrc"];
    for (who, args, variables, expected) in [
        ("", &[][..], &[][..], Some("")),
        ("", &["--user", "ana:one"], &[user("ben"), password("two")], Some("ana:one")),
        ("", &["-u", "ana"], &[password("two")], Some("ana:two")),
        ("", &["-u", "ana:"], &[password("two")], Some("ana:")),
        ("", &[], &[user("ben"), password("two")], Some("ben:two")),
        ("", &[], &[user("ana:one")], Some("ana:one")),
        ("", &[], &[user(""), password("")], Some("")),
        ("", &netrc, &[], Some("ana:net")),
        ("", &netrc, &[user("ben")], Some("ben:net")),
        ("", &[&netrc[..], &["-u", "ben"]].concat(), &[], Some("ben:net")),
        ("", &[&netrc[..], &["-u", "ben"]].concat(), &[password("two")], Some("ben:two")),
        ("ana:one", &[], &[user("ben"), password("two")], Some("ana:one")),
        ("ana:one", &["-u", "ben:two"], &[], Some("ben:two")),
        ("ana", &[], &[], Some("ana:")),
        ("ana", &[], &[password("two")], Some("ana:two")),
        ("ana", &netrc, &[], Some("ana:net")),
        ("ana:***", &[], &[password("two")], Some("ana:two")),
        // No password, or nobody whose it is.
        ("", &["-u", "ana"], &[], None),
        ("", &[&netrc[..], &["-u", "zoe"]].concat(), &[], None),
        ("", &[], &[user("ana")], None),
        ("", &[], &[password("two")], None),
        ("ana:***", &[], &[], None),
        ("***", &[], &[], None),
    ] {
        let args = [&["ship", "a.log"], args].concat();
        let mut command = place.publisher(&service, &args);
        let address = if who.is_empty() { service.url.clone() } else { url(&service, who) };
        command.env("SEKALI_URL", address).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let case = format!("{who:?} {args:?} {variables:?}: {output:?}");
        let Some(expected) = expected else {
            assert_eq!((output.status.code(), asked(&service).len()), (Some(2), 0), "{case}");
            continue;
        };
        let expected = Some(basic_or_none(expected));
        assert_eq!(output.status.code(), Some(0), "{case}");
        assert_eq!(asked(&service).pop_first(), expected, "{case}");
    }
    let unreadable = place.run(&service, &["ship", "a.log", "--netrc-file", "none"]).failed();
    assert!(unreadable.stderr.contains("none"), "{unreadable:?}");
}

fn basic_or_none(who: &str) -> Option<String> {
    if who.is_empty() { None } else { Some(basic(who)) }
}

#[cfg(unix)]
mod permissions {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn runs_are_for_their_user_alone() {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", "a\n");
        place.run(&service, &["load", "--events", "50", "--ledger", "run"]).ok();
        place.run(&service, &["ship", "a.log"]).ok();
        for file in ["run/run.json", "run/ledger", "state/sekali/ship.db"] {
            assert_eq!(mode(&place.path(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn a_run_with_a_password_of_an_older_version_is_resumed_and_closed_to_others() {
        let (place, service) = (Place::new(), Fake::start());
        place.run(&service, &["load", "--events", "50", "--ledger", "run"]).ok();
        let (run, ledger) = (place.path("run/run.json"), place.path("run/ledger"));
        let text = fs::read_to_string(&run).unwrap();
        let address = url(&service, &format!("ana:{PASSWORD_ENCODED}"));
        fs::write(&run, text.replace(&service.url, &address)).unwrap();
        for file in [&run, &ledger] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        asked(&service);
        for command in ["verify", "resume"] {
            let mut publisher = place.publisher(&service, &[command, "run"]);
            publisher.env_remove("SEKALI_URL");
            let (code, text) = said(publisher);
            assert_eq!((code, asked(&service)), (Some(0), only(BASIC)), "{text}");
        }
        assert_eq!((mode(&run), mode(&ledger)), (0o600, 0o600));
    }
}
