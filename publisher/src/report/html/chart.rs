//! Charts as SVG: axes, time, and what stands around them.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::formatting::{escape, hex, number};
use crate::report::load::{Interval, LoadReport};

/// The most points of a line; more would not be told apart.
pub(super) const POINTS_MAX: usize = 600;
/// What stands where a chart would be.
pub(super) const NOTHING: &str = "<p>nothing was measured</p>\n";

// By Okabe and Ito: told apart by the colour-blind as well.
pub(super) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub(super) const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
pub(super) const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
pub(super) const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
pub(super) const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
pub(super) const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
// `STYLE` knows these three by their value: it fits them to light and dark, and
// dashes the last.
pub(super) const INK: RGBColor = RGBColor(0x00, 0x00, 0x00);
pub(super) const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
pub(super) const KILL: RGBColor = RGBColor(0x11, 0x11, 0x11);
pub(super) const SHADE: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// The time axis, which two charts share.
pub(super) struct Time {
    /// Seconds in its unit.
    pub(super) scale: f64,
    unit: &'static str,
    end: f64,
    warm_up: f64,
    kills: Vec<f64>,
}

impl Time {
    pub(super) fn of(report: &LoadReport) -> Self {
        let end = |part: &Interval| part.from_second + part.seconds;
        let warm = report.timeline.iter().rfind(|part| part.warm_up);
        let kills: Vec<_> = report.kills.iter().map(|kill| kill.at_second).collect();
        let last = kills.iter().copied().fold(report.timeline.last().map_or(0.0, end), f64::max);
        let (scale, unit) = match last {
            last if last <= 300.0 => (1.0, "seconds"),
            last if last <= 10_800.0 => (60.0, "minutes"),
            _ => (3_600.0, "hours"),
        };
        Self { scale, unit, end: last.max(0.001), warm_up: warm.map_or(0.0, end), kills }
    }

    pub(super) fn axis(&self, size: &Size) -> Axis {
        linear(self.end / self.scale, size.x_labels, number)
    }

    pub(super) fn name(&self) -> String {
        format!("{} since the first request", self.unit)
    }

    /// A line that keeps its height for as long as each part lasts.
    pub(super) fn steps(
        &self,
        parts: &[Interval],
        height: impl Fn(&Interval) -> f64,
    ) -> Vec<(f64, f64)> {
        let ends = |part: &Interval| [part.from_second, part.from_second + part.seconds];
        let step = |part| ends(part).map(|second| (second / self.scale, height(part)));
        parts.iter().flat_map(step).collect()
    }

    /// Shades the warm-up and marks the kills.
    pub(super) fn mark(&self, chart: &mut Chart<'_, '_>) -> anyhow::Result<()> {
        let Range { start, end } = chart.y_range();
        if self.warm_up > 0.0 {
            let corners = [(0.0, start), (self.warm_up / self.scale, end)];
            chart.draw_series([Rectangle::new(corners, SHADE.mix(0.3).filled())])?;
        }
        let line = |at: &f64| vec![(at / self.scale, start), (at / self.scale, end)];
        let style = KILL.stroke_width(1);
        chart.draw_series(self.kills.iter().map(|at| PathElement::new(line(at), style)))?;
        Ok(())
    }
}

/// Puts neighbours together until there are few enough for a chart.
pub(super) fn merged(timeline: &[Interval]) -> Vec<Interval> {
    let mut parts: Vec<_> =
        timeline.chunks(timeline.len().div_ceil(POINTS_MAX).max(1)).map(join).collect();
    // What came in the last milliseconds is no rate.
    if parts.last().is_some_and(|last| last.seconds < 0.5)
        && let Some(index) = parts.len().checked_sub(2)
    {
        let last = join(&parts.split_off(index));
        parts.push(last);
    }
    parts
}

/// What a point of a chart stands for, if not for one part of the run.
pub(super) fn joined(report: &LoadReport, what: &str) -> String {
    match report.timeline.len().div_ceil(POINTS_MAX) {
        0 | 1 => String::new(),
        parts => format!(" Each point stands for {parts} parts of the run: {what}."),
    }
}

/// Several parts of the run as one. Its p50 is the mean of theirs by requests,
/// since their own latencies are not known any more.
pub(super) fn join(parts: &[Interval]) -> Interval {
    let sum = |of: Of<u64>| parts.iter().map(of).sum::<u64>();
    let most = |of: Of<f64>| parts.iter().map(of).fold(0.0, f64::max);
    let requests = sum(|part| part.requests);
    let weighted: f64 = parts.iter().map(|part| part.p50_ms * part.requests as f64).sum();
    Interval {
        from_second: parts.first().map_or(0.0, |part| part.from_second),
        seconds: parts.iter().map(|part| part.seconds).sum(),
        warm_up: parts.iter().all(|part| part.warm_up),
        requests,
        accepted: sum(|part| part.accepted),
        duplicates: sum(|part| part.duplicates),
        rejected: sum(|part| part.rejected),
        errors: sum(|part| part.errors),
        retries: sum(|part| part.retries),
        p50_ms: weighted / requests.max(1) as f64,
        p99_ms: most(|part| part.p99_ms),
        max_ms: most(|part| part.max_ms),
    }
}

pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// A chart is drawn once for wide screens and once for phones, on which the
/// text of the wide one would be too small.
pub(super) struct Size {
    class: &'static str,
    pixels: (u32, u32),
    pub(super) x_labels: usize,
}

pub(super) const Y_LABELS: usize = 6;
pub(super) const WIDE: Size = Size { class: "wide", pixels: (980, 300), x_labels: 12 };
pub(super) const NARROW: Size = Size { class: "narrow", pixels: (380, 270), x_labels: 5 };

/// An axis, with its labels where they are few and round. A logarithmic one is
/// in powers of ten.
pub(super) struct Axis {
    pub(super) range: Range<f64>,
    ticks: Vec<f64>,
    label: fn(f64) -> String,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (share.clamp(0.0, 1.0) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

pub(super) fn linear(most: f64, labels: usize, label: fn(f64) -> String) -> Axis {
    let rough = most / labels as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0].map(|digit| digit * power);
    let step = round.into_iter().find(|step| *step >= rough).unwrap_or(power * 10.0);
    let ticks = (0..=labels).map(|index| index as f64 * step).filter(|tick| *tick <= most);
    Axis { range: 0.0..most, ticks: ticks.collect(), label }
}

pub(super) fn logarithmic(least: f64, most: f64, labels: usize, label: fn(f64) -> String) -> Axis {
    let steps =
        (-3..16).flat_map(|power| [1.0_f64, 2.0, 5.0].map(|d| d.log10() + f64::from(power)));
    let steps: Vec<f64> = steps.collect();
    let (least, most) = (log(least), log(most));
    let start = steps.iter().copied().rfind(|step| *step <= least).unwrap_or(-3.0);
    let end = steps.iter().copied().find(|step| *step >= most && *step > start).unwrap_or(16.0);
    let mut ticks = steps;
    ticks.retain(|tick| (start..=end).contains(tick));
    if ticks.len() > labels {
        ticks.retain(|tick| tick.fract() == 0.0);
    }
    let ticks = ticks.iter().copied().step_by(ticks.len().div_ceil(labels).max(1)).collect();
    Axis { range: start..end, ticks, label }
}

/// The logarithm of a latency or a number; none is below a microsecond.
pub(super) fn log(value: f64) -> f64 {
    value.max(0.001).log10()
}

/// Axes, and what is painted between them.
pub(super) fn canvas(
    size: &Size,
    label: &str,
    [x, y]: [Axis; 2],
    x_name: &str,
    paint: impl Fn(&mut Chart<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size.pixels).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(46)
            .y_label_area_size(68)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 16).into_font().color(&INK))
            .x_desc(x_name)
            .draw()?;
        paint(&mut chart)?;
        root.present()?;
    }
    // In place of a fixed width and height.
    let (_, body) = svg.split_once('>').unwrap_or_default();
    let (Size { class, pixels: (width, height), .. }, label) = (size, escape(label));
    Ok(format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{label}\">{body}"
    ))
}

/// A figure of a part of the run.
pub(super) type Of<T> = fn(&Interval) -> T;

/// An entry of a legend.
pub(super) struct Key(RGBColor, &'static str, String);

pub(super) fn key(colour: RGBColor, sign: &'static str, text: &str) -> Key {
    Key(colour, sign, text.to_owned())
}

/// A chart with all that belongs to it; without one there is nothing to see.
pub(super) fn figure(
    title: &str,
    mut keys: Vec<Key>,
    caption: &str,
    time: Option<&Time>,
    draw: Option<impl Fn(&Size) -> anyhow::Result<String>>,
) -> anyhow::Result<String> {
    let Some(draw) = draw else { return Ok(format!("<h2>{title}</h2>\n{NOTHING}")) };
    if let Some(time) = time {
        keys.extend((time.warm_up > 0.0).then(|| key(SHADE, "■", "warm-up")));
        keys.extend((!time.kills.is_empty()).then(|| key(KILL, "┆", "kill of the service")));
    }
    let (legend, wide, narrow) = (legend(&keys), draw(&WIDE)?, draw(&NARROW)?);
    Ok(format!(
        "<h2>{title}</h2>\n<figure>{legend}{wide}{narrow}\
         <figcaption>{caption}</figcaption></figure>\n"
    ))
}

pub(super) fn legend(keys: &[Key]) -> String {
    let item = |Key(colour, sign, text): &Key| {
        let colour = if *colour == KILL { "inherit".to_owned() } else { hex(*colour) };
        format!("<li><span style=\"color:{colour}\" aria-hidden=\"true\">{sign}</span> {text}</li>")
    };
    format!("<ul class=\"legend\">{}</ul>\n", keys.iter().map(item).collect::<String>())
}
