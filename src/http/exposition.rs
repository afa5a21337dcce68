//! Metrics as text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

use std::fmt::{Display, Write as _};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `text/plain; version=0.0.4`
    Text,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

/// What a family of series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only ever goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations, counted in ranges.
    Histogram,
    /// 1, with labels that tell something.
    Info,
}

/// Metrics on their way out, family by family.
#[derive(Debug)]
pub(crate) struct Exposition {
    format: Format,
    text: String,
    /// The name of the samples of the family that is being written.
    name: String,
}

impl Exposition {
    /// Nothing yet.
    pub(crate) fn new(format: Format) -> Self {
        Exposition { format, text: String::new(), name: String::new() }
    }

    /// Begins a family. `name` is without the suffix of its kind.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (suffix, text_kind, open_kind) = match kind {
            Kind::Counter => ("_total", "counter", "counter"),
            Kind::Gauge => ("", "gauge", "gauge"),
            Kind::Histogram => ("", "histogram", "histogram"),
            Kind::Info => ("_info", "gauge", "info"),
        };
        self.name = format!("{name}{suffix}");
        let (described, kind) = match self.format {
            Format::Text => (self.name.as_str(), text_kind),
            Format::OpenMetrics => (name, open_kind),
        };
        self.text.push_str(&format!("# HELP {described} {help}\n# TYPE {described} {kind}\n"));
    }

    /// A sample of the family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.write("", labels, value);
    }

    /// The observations of a histogram up to `bound`.
    pub(crate) fn bucket(&mut self, bound: f64, up_to: i64) {
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
        self.write("_bucket", &[("le", &bound)], up_to);
    }

    /// What the observations of a histogram come to.
    pub(crate) fn sum_and_count(&mut self, sum: f64, count: i64) {
        self.write("_sum", &[], format_args!("{sum:?}"));
        self.write("_count", &[], count);
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push_str(if index == 0 { "{" } else { "," });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string does not fail.
        writeln!(self.text, " {value}").ok();
    }

    /// All of it.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}
