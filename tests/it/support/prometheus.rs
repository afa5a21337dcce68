//! A reader of both exposition formats, Prometheus' text and OpenMetrics, that
//! insists on what they promise.

use std::collections::BTreeMap;

use libtest_mimic::Failed;

use super::{Client, check, check_eq};

pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub type Labels = BTreeMap<String, String>;

/// What a scrape returned: the samples by name and labels.
#[derive(Debug, PartialEq)]
pub struct Scrape {
    pub samples: BTreeMap<(String, Labels), f64>,
    pub kinds: BTreeMap<String, String>,
}

impl Scrape {
    pub fn take(client: &Client) -> Result<Self, Failed> {
        let reply = client.get("/metrics")?.expect(200)?;
        check_eq(reply.header("content-type"), Some(TEXT), "content-type")?;
        Self::read(&reply.text)
    }

    /// Reads either format. Families are described before their samples, and
    /// stand together; no series comes twice.
    pub fn read(text: &str) -> Result<Self, Failed> {
        let mut scrape = Scrape { samples: BTreeMap::new(), kinds: BTreeMap::new() };
        let mut family = String::new();
        let mut described = String::new();
        let text = text.strip_suffix("# EOF\n").unwrap_or(text);
        let whole = text.strip_suffix('\n').ok_or("the last line has no end")?;
        // Not `lines()`, which takes a carriage return for part of the end.
        for line in whole.split('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                described = help.split(' ').next().unwrap_or_default().to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) =
                    kind.split_once(' ').ok_or_else(|| format!("no kind: {line:?}"))?;
                check_eq(name, described.as_str(), "the family that was described")?;
                let known = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                check(known.is_none(), || format!("{name} comes twice"))?;
                family = name.to_owned();
            } else {
                let (name, labels, value) = sample(line)?;
                let suffix = name.strip_prefix(&family).unwrap_or("(another family)");
                let is_of_family =
                    ["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&suffix);
                check(is_of_family, || format!("{line:?} stands in the family {family}"))?;
                let known = scrape.samples.insert((name, labels), value);
                check(known.is_none(), || format!("{line:?} comes twice"))?;
            }
        }
        Ok(scrape)
    }

    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        let samples = self.samples.iter().filter(move |((other, _), _)| other == name);
        samples.map(|((_, labels), value)| (labels, *value))
    }

    /// Count and sum of a histogram, whose buckets are cumulative and end with
    /// the count.
    pub fn histogram(&self, name: &str) -> Result<(u64, f64), Failed> {
        check_eq(self.kinds.get(name).map(String::as_str), Some("histogram"), name)?;
        let mut buckets = Vec::new();
        for (labels, value) in self.of(&format!("{name}_bucket")) {
            let le = labels.get("le").map(String::as_str).unwrap_or_default();
            let bound: f64 = le.parse().map_err(|error| format!("le {le:?}: {error}"))?;
            buckets.push((bound, value));
        }
        buckets.sort_by(|one, next| one.0.total_cmp(&next.0));
        let rises = buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1);
        check(rises && buckets.len() > 2, || format!("{name}: {buckets:?}"))?;
        let count = self.get(&format!("{name}_count"), &[]).unwrap_or(-1.0);
        check_eq(buckets.last().copied(), Some((f64::INFINITY, count)), name)?;
        let sum = self.get(&format!("{name}_sum"), &[]).unwrap_or(-1.0);
        check(count >= 0.0 && sum >= 0.0, || format!("{name}: {count} observations of {sum}"))?;
        Ok((count as u64, sum))
    }
}

/// The name, the labels and the value of a sample.
fn sample(line: &str) -> Result<(String, Labels, f64), Failed> {
    let invalid = |what: &str| Failed::from(format!("{what} in the sample {line:?}"));
    let end = line.find(['{', ' ']).ok_or_else(|| invalid("no value"))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"").ok_or_else(|| invalid("no label"))?;
            let (value, after) =
                unescaped(value).ok_or_else(|| invalid("a label without an end"))?;
            let known = labels.insert(label.to_owned(), value);
            check(known.is_none(), || format!("{label} is given twice in {line:?}"))?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
    Ok((name.to_owned(), labels, value.ok_or_else(|| invalid("no number"))?))
}

/// A label's value up to its closing quote, and what follows.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (place, '"') => return Some((value, &text[place + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            (_, other) => value.push(other),
        }
    }
}
