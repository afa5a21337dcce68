//! Numbers and texts as a page shows them.

use plotters::style::RGBColor;

use crate::report::load::Latency;

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

pub(super) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// A number with a comma before every third digit from the right; other words
/// as they are.
pub(super) fn grouped(text: &str) -> String {
    let digits = text.trim_start_matches('-');
    if !digits.chars().all(|digit| digit.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut grouped = text.strip_suffix(digits).unwrap_or_default().to_owned();
    for (index, digit) in digits.chars().enumerate() {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        grouped.extend(comma.then_some(',').into_iter().chain([digit]));
    }
    grouped
}

pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// A number to three digits or so.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => return grouped(&format!("{value:.0}")),
        size if size >= 9.995 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn rate(value: f64) -> String {
    format!("{} events/s", number(value))
}

pub(super) fn quantiles(latency: &Latency) -> String {
    let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(duration);
    format!("p50 {p50}, p99 {p99}, longest {max}")
}

/// A number that fits beside an axis.
pub(super) fn short(value: f64) -> String {
    if value < 999_999.5 { number(value) } else { format!("{} M", number(value / 1e6)) }
}

pub(super) fn duration(ms: f64) -> String {
    if ms < 999.5 { format!("{} ms", number(ms)) } else { format!("{} s", number(ms / 1_000.0)) }
}

pub(super) fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size).unwrap_or((1.0, "B"));
    format!("{} {}", number(bytes / unit.0), unit.1)
}

/// A share; neither none nor all is said of what is not quite that.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        few if few > 0.0 && few < 0.01 => "under 0.01%".to_owned(),
        most if most > 99.99 && most < 100.0 => "over 99.99%".to_owned(),
        share if share > 99.0 && share < 100.0 => format!("{share:.2}%"),
        share => format!("{}%", number(share)),
    }
}
