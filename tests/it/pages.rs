//! The pages and what they load.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use libtest_mimic::Failed;

use crate::support::{Client, Reply, Target, TestResult, any_server, check, check_eq, test};

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// What every browser accepts when someone opens an address.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

const PAGES: [&str; 2] = ["/", "/docs"];

/// What is served under these names, whatever the pages load.
const ASSETS: [&str; 4] =
    ["/assets/style.css", "/assets/dashboard.js", "/assets/docs.js", "/assets/icon.svg"];

/// Asks for a page as a browser does.
fn page(client: &Client, path: &str) -> Result<Reply, Failed> {
    client.send("GET", path, &[("accept", BROWSER)], &[])?.expect(200)
}

#[test(any_server)]
fn the_index_is_html_for_browsers_and_text_for_others(target: &Target) -> TestResult {
    let client = target.client();
    let html = page(&client, "/")?;
    check_eq(html.media_type(), "text/html", "for a browser")?;
    check(html.text.starts_with("<!doctype html>"), || format!("{html:#?}"))?;
    let texts = [
        client.get("/")?,
        client.send("GET", "/", &[("accept", "*/*")], &[])?,
        client.send("GET", "/", &[("accept", "text/plain")], &[])?,
        client.send("GET", "/", &[("accept", "text/html;q=0, text/plain")], &[])?,
        client.send("GET", "/", &[("accept", "text/plain, text/html;q=0.9")], &[])?,
    ];
    for text in texts {
        let text = text.expect(200)?;
        check_eq(text.media_type(), "text/plain", "for others")?;
        check(text.text.contains("/publish") && !text.text.contains('<'), || format!("{text:#?}"))?;
    }
    Ok(())
}

/// The values of an attribute in HTML or SVG.
fn values<'a>(text: &'a str, attribute: &str) -> Vec<&'a str> {
    let begin = format!(" {attribute}=\"");
    let after = text.split(&begin).skip(1);
    after.filter_map(|after| after.split('"').next()).collect()
}

/// What a page or a script has a browser load from this service.
fn loads(text: &str) -> Vec<String> {
    let links = [values(text, "src"), values(text, "href")].concat();
    let links = links.into_iter().filter(|link| link.starts_with("/assets/")).map(str::to_owned);
    // `import … from './other.js'`, and `import './other.js'`.
    let modules = text.split(['\'', '"', '`']).filter_map(|quoted| {
        let name = quoted.strip_prefix("./").filter(|name| name.ends_with(".js"))?;
        Some(format!("/assets/{name}"))
    });
    links.chain(modules).collect()
}

/// Everything that the pages load, and what that loads; with the pages.
fn served(client: &Client) -> Result<BTreeMap<String, Reply>, Failed> {
    let mut served = BTreeMap::new();
    let mut rest: Vec<String> = PAGES.iter().chain(&ASSETS).map(ToString::to_string).collect();
    while let Some(path) = rest.pop() {
        if let Entry::Vacant(entry) = served.entry(path) {
            let reply = page(client, entry.key())?;
            rest.extend(loads(&reply.text));
            entry.insert(reply);
        }
    }
    Ok(served)
}

/// The pages, all of them behind the policy, and with nothing in them that the
/// policy forbids.
#[test(any_server)]
fn the_content_security_policy_allows_what_pages_need(target: &Target) -> TestResult {
    let client = target.client();
    for path in PAGES.into_iter().chain(["/docs/"]) {
        let html = page(&client, path)?;
        check_eq(html.media_type(), "text/html", path)?;
        let policy = html.header("content-security-policy");
        check_eq(policy, Some(CONTENT_SECURITY_POLICY), path)?;
        let head = client.send("HEAD", path, &[("accept", BROWSER)], &[])?.expect(200)?;
        check_eq(head.header("content-security-policy"), policy, "to HEAD")?;

        let lower = html.text.to_ascii_lowercase();
        for forbidden in [" style=", "<style", " onclick=", " onload=", "javascript:", "<base"] {
            check(!lower.contains(forbidden), || format!("{path} has {forbidden:?}"))?;
        }
        for script in lower.split("<script").skip(1) {
            let is_loaded = script.split('>').next().is_some_and(|tag| tag.contains(" src=\"/"));
            check(is_loaded, || format!("{path} has a script of its own: <script{script}"))?;
        }
        let local: Vec<&str> = [values(&html.text, "src"), values(&html.text, "href")].concat();
        check(local.iter().any(|link| link.ends_with(".js")), || format!("{path}: {local:?}"))?;
        for link in local.iter().filter(|link| !link.starts_with('#')) {
            check(link.starts_with('/'), || format!("{path} links to {link}"))?;
            client.get(&link.replace("&amp;", "&"))?.expect(200)?;
        }
    }
    Ok(())
}

#[test(any_server)]
fn assets_are_revalidated_by_etag(target: &Target) -> TestResult {
    let client = target.client();
    for (path, asset) in served(&client)? {
        let path = path.as_str();
        let Some((_, extension)) = path.split_once('.') else { continue };
        let expected = match extension {
            "css" => "text/css",
            "js" => "text/javascript",
            "svg" => "image/svg+xml",
            other => return Err(format!("{path}: browsers know no {other}").into()),
        };
        check_eq(asset.media_type(), expected, path)?;
        check_eq(asset.header("cache-control"), Some("no-cache"), path)?;
        check(!asset.text.is_empty(), || format!("{path} is empty"))?;
        let tag = asset.header("etag").unwrap_or_default();
        check(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), || tag.to_owned())?;
        let get = |if_none_match: &str| {
            client.send("GET", path, &[("if-none-match", if_none_match)], &[])
        };
        for known in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let reply = get(known)?.expect(304)?;
            check_eq(reply.text.as_str(), "", &format!("the body, when {known} is known"))?;
            check_eq(reply.header("etag"), Some(tag), "etag of what is known")?;
            check_eq(reply.header("cache-control"), Some("no-cache"), "cache-control")?;
            let length = reply.header("content-length");
            check(length.is_none() || length == Some("0"), || format!("{reply:#?}"))?;
        }
        for other in ["\"other\"", "", &tag[1..], &format!("x{tag}")] {
            check_eq(get(other)?.expect(200)?.text, asset.text.clone(), "the asset")?;
        }
        let head = client.send("HEAD", path, &[], &[])?.expect(200)?;
        check_eq(head.header("etag"), Some(tag), "etag to HEAD")?;
        let length = asset.text.len().to_string();
        check_eq(head.header("content-length"), Some(length.as_str()), "length to HEAD")?;
    }
    Ok(())
}

/// The namespaces of SVG and the like, which are names and no addresses.
const NAMESPACES: &str = "http://www.w3.org/";

/// Where `text` would have a browser go elsewhere.
fn elsewhere(text: &str) -> Option<&str> {
    let excerpt = |place: usize| {
        let from = text[..place].char_indices().nth_back(10).map_or(0, |(place, _)| place);
        let excerpt = &text[from..];
        let end = excerpt.char_indices().nth(80).map_or(excerpt.len(), |(place, _)| place);
        &excerpt[..end]
    };
    for (place, _) in text.match_indices("://") {
        let scheme = text[..place].rfind(|one: char| !one.is_ascii_alphabetic());
        let address = &text[scheme.map_or(0, |place| place + 1)..];
        if !address.starts_with(NAMESPACES) {
            return Some(excerpt(place));
        }
    }
    // An address without its scheme.
    let quoted = ["\"//", "'//", "`//", "url(//", "= //", "@import"];
    quoted.into_iter().find_map(|mark| text.find(mark)).map(excerpt)
}

#[test(any_server)]
fn nothing_refers_to_another_host(target: &Target) -> TestResult {
    for (path, file) in served(&target.client())? {
        let found = elsewhere(&file.text);
        check(found.is_none(), || format!("{found:?} in {path}"))?;
    }
    // The check itself: it finds each kind of address, and nothing in what is right.
    for (text, is_wrong) in [
        ("<script src=\"https://cdn.example/x.js\">", true),
        ("<img src=\"//cdn.example/x.png\">", true),
        ("a { background: url(//cdn.example/x.png) }", true),
        ("import x from 'https://cdn.example/x.js';", true),
        ("new WebSocket(`ws://${host}`)", true),
        ("<svg xmlns=\"http://www.w3.org/2000/svg\">", false),
        ("// a comment\nfetch('/stats')", false),
    ] {
        check_eq(elsewhere(text).is_some(), is_wrong, text)?;
    }
    Ok(())
}
