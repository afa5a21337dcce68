//! One page to look at: the report of a load as HTML, which asks the network
//! for nothing and needs no script.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::load::{Arrivals, Bucket, Interval, Latencies, Latency, LoadReport};

mod chart;
mod formatting;

use chart::{
    BLUE, GREEN, NOTHING, ORANGE, Of, PURPLE, SKY, Size, Time, VERMILLION, Y_LABELS, canvas,
    figure, joined, key, legend, linear, log, logarithmic, merged,
};
use formatting::{
    bytes, count, duration, escape, grouped, hex, number, percent, quantiles, rate, short,
};

/// Rows of a table that are shown without being asked for.
const ROWS_OPEN_MAX: usize = 10;

/// What corrected latency is.
const CORRECTED: &str = "From the moment a request was due to its reply: what a user would have \
     waited, also for a pause of the service before it could be sent.";
/// What raw latency is.
const RAW: &str = "From the moment a request was sent to its reply, its retries included: while \
     the service pauses, only the requests under way wait.";

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1b1b;--soft:#5c5c5c;--grid:#ddd;--back:#fff;--card:#f3f4f6;
--good:#00694d;--bad:#a83200;--warn:#7a5200}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--soft:#a9a9a9;--grid:#3c3f44;--back:#16181c;
--card:#22252b;--good:#3ecf9f;--bad:#ff8f52;--warn:#f0b429}svg [stroke='#0072B2']{stroke:#3a9ad9}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1020px;padding:1rem;background:var(--back);color:var(--ink);
font:15px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.3rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
h3{font-size:.95rem;margin:1rem 0 0}
p,ul{margin:.4rem 0}dl{margin:.5rem 0}dd,figure{margin:0}figcaption{margin-top:.3rem}
p,figcaption,dt{color:var(--soft);font-size:.87rem}
.verdict{border-left:.5rem solid;padding:.3rem .8rem;margin:1rem 0;background:var(--card)}
.verdict strong{display:block;font-size:1.55rem;line-height:1.25}
.verdict ul{padding-left:1.2rem;color:var(--ink)}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.5rem}
.cards div{background:var(--card);border-radius:.4rem;padding:.45rem .7rem}
.cards dd{font-size:1.2rem;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto}svg text{font-family:inherit}
svg [fill='#000000']{fill:var(--ink)}svg [stroke='#000000']{stroke:var(--ink)}
svg [stroke='#DDDDDD']{stroke:var(--grid)}
svg [stroke='#111111']{stroke:var(--ink);stroke-dasharray:5 4}
.mix{height:2.2rem;border-radius:.3rem}.narrow{display:none}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;font-size:.9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;overflow-wrap:normal}
th,td{text-align:right;padding:.2rem .7rem;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left;padding-left:0}th{color:var(--soft)}
td:last-child{white-space:nowrap}tr.bad td{color:var(--bad);font-weight:600}
pre{overflow-x:auto;background:var(--card);padding:.6rem}summary{cursor:pointer}
@media(max-width:640px){.wide{display:none}.narrow{display:block}
table{font-size:.8rem}th,td{padding:.2rem .3rem}}
";

/// The report as one HTML page.
///
/// # Errors
///
/// If a chart cannot be drawn.
pub(crate) fn page(report: &LoadReport) -> anyhow::Result<String> {
    let parts = merged(&report.timeline);
    let time = Time::of(report);
    // The policy holds the page to its word: nothing is loaded from anywhere.
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>Sekali: load test {run}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Sekali: load test and exactly-once audit</h1>\n",
        run = escape(&report.run)
    );
    html += &verdict(report);
    html += &about(report)?;
    html += &key_figures(report);
    html += &throughput(report, &parts, &time)?;
    html += &latency(report, &parts, &time)?;
    html += &histogram(report)?;
    html += &outcomes(report);
    html += &audit(report);
    html += &pace(report);
    html += &thresholds(report);
    html += &by_kind("Requests without an answer", &report.errors_by_kind);
    html += &by_kind("Attempts that failed and could be made again", &report.losses_by_kind);
    html += &kills(report);
    Ok(html + "</body>\n</html>\n")
}

fn verdict(report: &LoadReport) -> String {
    let (class, sign) = match (report.check.ok, report.ok) {
        (true, true) => ("good", "✓"),
        (true, false) => ("warn", "!"),
        (false, _) => ("bad", "✗"),
    };
    let words = if report.check.ok { "every check holds" } else { "NOT as expected" };
    let mut notes = vec![format!("The run {}.", if report.ok { "passed" } else { "failed" })];
    let crossed = report.thresholds.iter().filter(|threshold| threshold.crossed);
    notes.extend(crossed.map(|threshold| format!("Threshold crossed: {}", threshold.fail_if)));
    let interrupted = "Interrupted: a signal ended the run early.";
    notes.extend(report.interrupted.then(|| interrupted.to_owned()));
    let short = [(report.unsent, "planned and not sent"), (report.tally.errors, "not answered")];
    let short = short.iter().filter(|(number, _)| *number > 0);
    notes.extend(short.map(|(number, what)| format!("Deliveries {what}: {}", count(*number))));
    notes.extend(report.failure.as_ref().map(|failure| format!("Failure: {failure}")));
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    format!(
        "<div class=\"verdict {class}\"><strong>{sign} Exactly-once audit: {words}</strong>\
         <ul>{notes}</ul></div>\n"
    )
}

fn about(report: &LoadReport) -> anyhow::Result<String> {
    let arrivals = match report.arrivals {
        Arrivals::Closed => "closed loop: each request when an earlier one is answered",
        Arrivals::Constant => "open loop: at a rate, evenly, whatever the service does",
        Arrivals::Poisson => "open loop: at a rate, at random moments, whatever the service does",
    };
    let planned = report.planned.map(|planned| format!("{} deliveries", count(planned)));
    let facts = [
        ("Service", report.url.clone()),
        ("Run", format!("{} (seed {})", report.run, report.seed)),
        ("Started", report.started_at.clone()),
        ("Program", report.program.clone()),
        ("Arrivals", arrivals.to_owned()),
        ("Rate", report.pace.map_or("as replies come".to_owned(), |pace| rate(pace.rate))),
        ("Concurrency", format!("{} requests under way at most", count(report.concurrency))),
        ("Planned", planned.unwrap_or("as many as fit into the time".to_owned())),
    ];
    let spec = &report.workload;
    let summary = format!(
        "Workload: topics {}, events in a request up to {}, repeats {}, conflicts {}, invalid {}",
        count(spec.topics),
        count(spec.batch.max),
        percent(spec.duplicates),
        percent(spec.conflicts),
        percent(spec.invalid),
    );
    let json = escape(&serde_json::to_string_pretty(spec)?);
    let facts = list("facts", &facts);
    Ok(format!("{facts}<details><summary>{summary}</summary><pre>{json}</pre></details>\n"))
}

fn key_figures(report: &LoadReport) -> String {
    let mut cards = vec![
        ("Events a second", number(report.events_per_second)),
        ("Sent", count(report.tally.sent)),
        ("Accepted", count(report.tally.accepted)),
        ("Duplicates", count(report.tally.duplicates)),
        ("of these conflicts", count(report.tally.conflicts)),
        ("Rejected", count(report.tally.rejected)),
        ("Errors", count(report.tally.errors)),
        ("Retries", count(report.tally.retries)),
        ("Bytes sent", bytes(report.bytes_sent)),
        ("Bytes received", bytes(report.bytes_received)),
        ("Time measured", format!("{} s", number(report.seconds))),
    ];
    cards.extend(report.tool_cpu_cores.map(|cores| ("CPU cores of this tool", number(cores))));
    let mut html = format!("<h2>Key figures</h2>\n{}", list("cards", &cards));
    let corrected = report.latency_ms.corrected.map(|latency| ("corrected", CORRECTED, latency));
    for (name, meaning, latency) in
        corrected.into_iter().chain([("raw", RAW, report.latency_ms.raw)])
    {
        let Latency { p50, p99, p99_9, max, .. } = latency;
        let cards = [("p50", p50), ("p99", p99), ("p99.9", p99_9), ("max", max)];
        let cards = list("cards", &cards.map(|(name, ms)| (name, duration(ms))));
        let cards = if latency.count > 0 { &cards } else { NOTHING };
        html += &format!("<h3>Latency, {name}</h3>\n<p>{meaning}</p>\n{cards}");
    }
    html
}

fn throughput(report: &LoadReport, parts: &[Interval], time: &Time) -> anyhow::Result<String> {
    let per_second = |part: &Interval, number| number as f64 / part.seconds.max(0.001);
    // Each is painted over the one before.
    let stack: [(_, Of<u64>); 3] = [
        (ORANGE, |part| part.accepted + part.duplicates + part.rejected),
        (SKY, |part| part.accepted + part.duplicates),
        (BLUE, |part| part.accepted),
    ];
    let peak = parts.iter().map(|part| per_second(part, stack[0].1(part))).fold(0.0, f64::max);
    let mut keys = vec![key(BLUE, "■", "accepted"), key(SKY, "■", "duplicates")];
    keys.push(key(ORANGE, "■", "rejected"));
    keys.extend(
        (report.tally.errors > 0).then(|| key(VERMILLION, "✕", "requests without an answer")),
    );
    keys.extend((report.tally.retries > 0).then(|| key(GREEN, "▲", "retries")));
    let (mean, most) = (rate(report.events_per_second), rate(peak));
    let label = format!("Throughput over time: {mean} on average, {most} at most");
    let mut caption = "Events answered in a second, stacked.".to_owned();
    caption += &joined(report, "their rate together");
    let draw = |size: &Size| {
        let top = peak.max(1.0);
        let mut y = linear(top, Y_LABELS, short);
        // The marks have their place above the highest rate.
        y.range.end = top * 1.15;
        canvas(size, &label, [time.axis(size), y], &time.name(), |chart| {
            for (colour, number) in stack {
                let line = time.steps(parts, |part| per_second(part, number(part)));
                chart.draw_series(AreaSeries::new(line, 0.0, colour.filled()))?;
            }
            time.mark(chart)?;
            let middle = |part: &Interval| (part.from_second + part.seconds / 2.0) / time.scale;
            let lost = parts.iter().filter(|part| part.errors > 0);
            let cross =
                |part| Cross::new((middle(part), top * 1.12), 4, VERMILLION.stroke_width(2));
            chart.draw_series(lost.map(cross))?;
            let again = parts.iter().filter(|part| part.retries > 0);
            let mark = |part| TriangleMarker::new((middle(part), top * 1.05), 6, GREEN.filled());
            chart.draw_series(again.map(mark))?;
            Ok(())
        })
    };
    let draw = (!parts.is_empty()).then_some(draw);
    figure("Throughput over time", keys, &caption, Some(time), draw)
}

fn latency(report: &LoadReport, parts: &[Interval], time: &Time) -> anyhow::Result<String> {
    let figures: [(_, _, Of<f64>); 3] = [
        (ORANGE, "max", |part| part.max_ms),
        (BLUE, "p99", |part| part.p99_ms),
        (GREEN, "p50", |part| part.p50_ms),
    ];
    let measured: Vec<_> = parts.iter().filter(|part| part.requests > 0).collect();
    let least = measured.iter().map(|part| part.p50_ms).fold(f64::INFINITY, f64::min);
    let most = measured.iter().map(|part| part.max_ms).fold(0.0, f64::max);
    let Latencies { raw, corrected } = report.latency_ms;
    let kind = if corrected.is_some() { "corrected" } else { "raw" };
    let label = format!("Latency over time: {kind} {}", quantiles(&corrected.unwrap_or(raw)));
    let mut caption = format!("Latencies ({kind}) on a logarithmic scale.");
    caption += &joined(report, "the mean of their p50 by requests, and their highest p99 and max");
    let draw = |size: &Size| {
        let y = logarithmic(least, most, Y_LABELS, |at| duration(10_f64.powf(at)));
        canvas(size, &label, [time.axis(size), y], &time.name(), |chart| {
            for (colour, _, of) in figures {
                // A part without a reply has no latency: the line has a gap there.
                let runs = parts.chunk_by(|a, b| a.requests > 0 && b.requests > 0);
                for run in runs.filter(|run| run.iter().all(|part| part.requests > 0)) {
                    let line = time.steps(run, |part| log(of(part)));
                    chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
                }
            }
            time.mark(chart)
        })
    };
    let keys = figures.map(|(colour, name, _)| key(colour, "━", name)).into();
    let draw = (!measured.is_empty()).then_some(draw);
    figure("Latency over time", keys, &caption, Some(time), draw)
}

fn histogram(report: &LoadReport) -> anyhow::Result<String> {
    let Latencies { raw, corrected } = report.latency_ms;
    // The first bar is as wide as the others.
    let mut low = report.histogram.first().map_or(1.0, |bar| bar.up_to_ms / 2_f64.powf(0.25));
    let first = low;
    let with_low = |bar: &Bucket| (std::mem::replace(&mut low, bar.up_to_ms), *bar);
    let bars: Vec<_> = report.histogram.iter().map(with_low).collect();
    let most = bars.iter().map(|(_, bar)| bar.raw.max(bar.corrected)).max().unwrap_or(0);
    let mut keys = vec![key(SKY, "■", "raw")];
    let mut label = format!("Histogram of latencies: raw {}", quantiles(&raw));
    if let Some(corrected) = corrected {
        keys.push(key(VERMILLION, "━", "corrected"));
        label += &format!("; corrected {}", quantiles(&corrected));
    }
    let draw = |size: &Size| {
        let x = logarithmic(first, low, size.x_labels, |at| duration(10_f64.powf(at)));
        let mut y = logarithmic(1.0, most as f64, Y_LABELS, |at| short(10_f64.powf(at)));
        // Below 1, so that a bar of one request can be seen.
        let floor = -0.2;
        y.range.start = floor;
        let height = |number: u64| if number == 0 { floor } else { log(number as f64) };
        canvas(size, &label, [x, y], "latency", |chart| {
            let raw = bars.iter().filter(|(_, bar)| bar.raw > 0).map(|(low, bar)| {
                let corners = [(log(*low), floor), (log(bar.up_to_ms), height(bar.raw))];
                Rectangle::new(corners, SKY.filled())
            });
            chart.draw_series(raw)?;
            if corrected.is_some() {
                let line = bars.iter().flat_map(|(low, bar)| {
                    [*low, bar.up_to_ms].map(|end| (log(end), height(bar.corrected)))
                });
                chart.draw_series(LineSeries::new(line, VERMILLION.stroke_width(2)))?;
            }
            Ok(())
        })
    };
    let caption = "Requests by latency, both on logarithmic scales: the few slow ones show too.";
    figure("Histogram of latencies", keys, caption, None, (most > 0).then_some(draw))
}

fn outcomes(report: &LoadReport) -> String {
    let mix = [
        (BLUE, "accepted", report.tally.accepted),
        (SKY, "duplicates", report.tally.duplicates.saturating_sub(report.tally.conflicts)),
        (PURPLE, "conflicts", report.tally.conflicts),
        (ORANGE, "rejected", report.tally.rejected),
        (VERMILLION, "errors", report.tally.errors),
    ];
    let all = mix.iter().map(|(_, _, number)| *number).sum::<u64>() as f64;
    if all == 0.0 {
        return format!("<h2>Outcomes</h2>\n{NOTHING}");
    }
    let (mut from, mut bar) = (0.0, String::new());
    for (colour, _, number) in mix {
        let (width, fill) = (number as f64 / all * 1_000.0, hex(colour));
        bar += &format!("<rect x=\"{from}\" width=\"{width}\" height=\"40\" fill=\"{fill}\"/>");
        from += width;
    }
    let share = |number: u64| percent(number as f64 / all);
    let keys = mix.map(|(colour, name, number)| {
        key(colour, "■", &format!("{name} {} ({})", share(number), count(number)))
    });
    format!(
        "<h2>Outcomes</h2>\n<figure>{}<svg class=\"mix\" viewBox=\"0 0 1000 40\" role=\"img\" \
         preserveAspectRatio=\"none\" aria-label=\"Outcomes: {} accepted\">{bar}</svg>\n\
         <figcaption>What came of each delivery; conflicts are duplicates with other content.\
         </figcaption></figure>\n",
        legend(&keys),
        share(report.tally.accepted)
    )
}

fn audit(report: &LoadReport) -> String {
    let check = &report.check;
    let rows = check.rows.iter().map(|row| {
        // Only its numbers are touched: "at least 1000" becomes "at least 1,000".
        let expected: Vec<_> = row.expected().split(' ').map(grouped).collect();
        let verdict = if row.ok { "✓ holds" } else { "✗ fails" };
        let cells = [row.counter.clone(), expected.join(" "), grouped(&row.observed.to_string())];
        (row.ok, [cells.as_slice(), &[verdict.to_owned()]].concat())
    });
    let mut html = "<h2>Exactly-once audit</h2>\n".to_owned();
    html += &table(&["counter", "expected", "observed", "verdict"], rows);
    let read = check.events_read.map_or("events were not read back".to_owned(), count);
    let mut facts = vec![
        ("Events read back", read),
        ("Broken promises", count(check.violations_total)),
        ("Unsettled deliveries", count(check.unsettled)),
        ("Audit took", format!("{} s", number(report.check_seconds))),
    ];
    facts.extend(report.ledger.clone().map(|ledger| ("Ledger", ledger)));
    html += &list("facts", &facts);
    let rest = check.violations_total.saturating_sub(check.violations.len() as u64);
    let more = (rest > 0).then(|| format!("and {} more", count(rest)));
    let items = check.violations.iter().chain(&more);
    let items: String = items.map(|text| format!("<li>{}</li>", escape(text))).collect();
    if !items.is_empty() {
        html += &format!("<ul class=\"bad\">{items}</ul>\n");
    }
    html
}

fn pace(report: &LoadReport) -> String {
    let Some(pace) = report.pace else { return String::new() };
    let late = |number: u64, why: &str| format!("{} requests, {why}", count(number));
    let verdict = if pace.held { "✓ the rate was held" } else { "✗ the rate was NOT held" };
    let facts = [
        ("Verdict", verdict.to_owned()),
        ("Asked for", rate(pace.rate)),
        ("Sent", rate(pace.sent_rate)),
        ("Late", late(pace.late_requests, "as all that may be under way were")),
        ("Late by this tool", late(pace.late_by_tool, "although fewer were")),
        ("Latest", duration(pace.late_max_ms)),
        ("Dropped", late(pace.dropped_requests, "as the run ended before their turn")),
    ];
    format!("<h2>Pace</h2>\n{}", list("facts", &facts))
}

fn thresholds(report: &LoadReport) -> String {
    let rows = report.thresholds.iter().map(|threshold| {
        let observed = threshold.observed.map_or("nothing".to_owned(), number);
        let verdict = if threshold.crossed { "✗ crossed" } else { "✓ not crossed" };
        (!threshold.crossed, vec![threshold.fail_if.clone(), observed, verdict.to_owned()])
    });
    section("Thresholds", &["fails if", "measured (times in ms)", "verdict"], rows)
}

fn by_kind(title: &str, kinds: &BTreeMap<String, u64>) -> String {
    let rows = kinds.iter().map(|(kind, number)| (true, vec![kind.clone(), count(*number)]));
    section(title, &["kind", "number"], rows)
}

fn kills(report: &LoadReport) -> String {
    let rows = report.kills.iter().map(|kill| {
        let at = number(kill.at_second);
        let (under_way, acknowledged) = (count(kill.under_way), count(kill.acknowledged));
        let (up, down) = (duration(kill.up_ms), duration(kill.down_ms));
        (true, vec![at, kill.process.to_string(), up, acknowledged, under_way, down])
    });
    let header =
        ["at second", "process", "had been up", "acknowledged by then", "under way", "down for"];
    section("Kills of the service", &header, rows)
}

fn section(
    title: &str,
    header: &[&str],
    rows: impl ExactSizeIterator<Item = (bool, Vec<String>)>,
) -> String {
    let (number, table) = (rows.len(), table(header, rows));
    match number {
        0 => String::new(),
        1..=ROWS_OPEN_MAX => format!("<h2>{title}</h2>\n{table}"),
        _ => {
            format!("<h2>{title}</h2>\n<details><summary>all {number}</summary>{table}</details>\n")
        }
    }
}

/// A table of texts, each row with whether it is fine.
fn table(header: &[&str], rows: impl Iterator<Item = (bool, Vec<String>)>) -> String {
    let head: String = header.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let mut html = format!("<div class=\"scroll\"><table>\n<tr>{head}</tr>\n");
    for (ok, cells) in rows {
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        html += &format!("<tr{}>{cells}</tr>\n", if ok { "" } else { " class=\"bad\"" });
    }
    html + "</table></div>\n"
}

/// Names with a text each.
fn list(class: &str, items: &[(&str, String)]) -> String {
    // A card is a box of its own; facts share the columns of their list.
    let (open, close) = if class == "cards" { ("<div>", "</div>") } else { ("", "") };
    let item = |(name, text): &(&str, String)| {
        format!("{open}<dt>{name}</dt><dd>{}</dd>{close}\n", escape(text))
    };
    format!("<dl class=\"{class}\">\n{}</dl>\n", items.iter().map(item).collect::<String>())
}

#[cfg(test)]
mod tests;
