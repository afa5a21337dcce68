//! What holds for every route: methods, HEAD, limits of a request.

use crate::support::{Target, TestResult, any_server, check, shown, test};

/// The one reply that is not the service's own.
#[test(any_server)]
fn refuses_a_head_that_is_too_large(target: &Target) -> TestResult {
    let names: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    target.client().send("GET", "/healthz", &headers, &[])?.expect(431).map(drop)
}

#[test(any_server)]
fn answers_head_over_http_2(target: &Target) -> TestResult {
    let curl = |path: &str| {
        let url = format!("{}{path}", target.url);
        let flags = ["--http2-prior-knowledge", "--silent", "--show-error", "--head"];
        std::process::Command::new("curl").args(flags).arg(url).output()
    };
    if curl("/").is_err() {
        println!("not tested over HTTP/2: there is no curl here");
        return Ok(());
    }
    for (path, status) in [("/", 200), ("/stats", 200), ("/events", 200), ("/nowhere", 404)] {
        let output = curl(path)?;
        let shown = shown(&output);
        let head = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_expected = head.starts_with(&format!("HTTP/2 {status}"));
        check(output.status.success() && is_expected, || shown)?;
        check(head.contains("content-length: "), || head.clone())?;
    }
    Ok(())
}
