//! Prometheus' text exposition format 0.0.4, as the service `metrics` prints it.
//!
//! The crate `prometheus-client` writes OpenMetrics only, where a counter's `TYPE` line has another
//! name than its samples and the text ends with `# EOF`; version 0.0.4 knows neither.

use std::fmt::{Display, Write};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by one metric after the other.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric: its samples follow. Writing to a string cannot fail, here and below.
    pub fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample, with its labels.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0 += name;
        for (i, (label, text)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            self.0.push(before);
            self.0 += label;
            self.0 += "=\"";
            self.escaped(text);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// Hardly any text has something to escape, and there may be many: the parent does nothing else
    /// while it prints them.
    fn escaped(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            self.0 += &rest[..at];
            self.0 += match rest.as_bytes()[at] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            };
            rest = &rest[at + 1..];
        }
        self.0 += rest;
    }

    /// A metric with one sample, without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_two_comments_and_its_samples() {
        let mut e = Exposition::default();
        e.begin("a_total", Kind::Counter, "What\nit \\ is.");
        e.sample("a_total", &[("x", "1"), ("y", "a\\b\"c\nd")], 7);
        e.single("b", Kind::Gauge, "B.", 0.5);
        assert_eq!(
            e.finish(),
            "# HELP a_total What\\nit \\\\ is.\n# TYPE a_total counter\n\
             a_total{x=\"1\",y=\"a\\\\b\\\"c\\nd\"} 7\n\
             # HELP b B.\n# TYPE b gauge\nb 0.5\n"
        );
    }
}
