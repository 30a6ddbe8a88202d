//! The Prometheus text format, version 0.0.4: families in the order they are begun, each once.

use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// One family; its head is written with its first sample, so that an empty one leaves no trace.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    kind: Type,
    help: &'static str,
    begun: bool,
}

impl Exposition {
    pub(super) fn family(&mut self, name: &'static str, kind: Type, help: &'static str) -> Family<'_> {
        Family { text: &mut self.text, name, kind, help, begun: false }
    }

    /// A family with one sample that has no labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Type, help: &'static str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// `counts` per bucket, not yet summed up; one more than `bounds`.
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut so_far = 0;
        for (at, count) in counts.iter().enumerate() {
            so_far += count;
            let bound = bounds.get(at).map_or("+Inf".to_string(), f64::to_string);
            let with_bound: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line("_bucket", &with_bound, so_far as f64);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, so_far as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let name = self.name;
        if !self.begun {
            self.begun = true;
            let kind = match self.kind {
                Type::Counter => "counter",
                Type::Gauge => "gauge",
                Type::Histogram => "histogram",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", self.help);
        }
        let _ = write!(self.text, "{name}{suffix}");
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
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
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
pub(super) mod strict {
    //! A reader that accepts nothing but the format, for tests.

    use std::collections::{BTreeMap, BTreeSet};

    /// Value of every series, by name and labels as written (`name{a="b"}`). Panics at the first fault.
    pub(crate) fn read(text: &str) -> BTreeMap<String, f64> {
        let (mut helps, mut types, mut all) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let mut current = String::new();
        let mut closed = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!words.trim().is_empty() && helps.insert(name.to_string()), "help: {line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "type: {line}");
                assert!(helps.contains(name), "no help before {line}");
                assert!(types.insert(name.to_string(), kind.to_string()).is_none(), "twice: {line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("value: {line}"));
            let name = series.split('{').next().expect("the first part");
            assert!(is_name(name), "name: {line}");
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                check_labels(labels, line);
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| {
                    name.strip_suffix(suffix).filter(|name| types.get(*name).is_some_and(|k| k == "histogram"))
                })
                .unwrap_or(name);
            let kind = types.get(family).unwrap_or_else(|| panic!("no type before {line}"));
            assert!(kind != "counter" || family.ends_with("_total"), "counter without _total: {line}");
            assert!(kind == "gauge" || value >= 0.0, "negative: {line}");
            if family != current {
                assert!(closed.insert(family.to_string()), "family in two places: {line}");
                current = family.to_string();
            }
            assert!(all.insert(series.to_string(), value).is_none(), "twice: {line}");
        }
        all
    }

    fn is_name(name: &str) -> bool {
        let mut letters = name.chars();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    }

    fn check_labels(labels: &str, line: &str) {
        let mut rest = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("braces");
        let mut seen = BTreeSet::new();
        loop {
            let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("label: {line}"));
            assert!(is_name(name) && seen.insert(name), "label: {line}");
            let mut end = None;
            let mut escaped = false;
            for (at, letter) in after.char_indices() {
                match (escaped, letter) {
                    (true, '\\' | '"' | 'n') => escaped = false,
                    (true, _) => panic!("escape: {line}"),
                    (false, '\\') => escaped = true,
                    (false, '"') => {
                        end = Some(at);
                        break;
                    }
                    (false, _) => {}
                }
            }
            rest = &after[end.unwrap_or_else(|| panic!("label has no end: {line}")) + 1..];
            if rest.is_empty() {
                return;
            }
            rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("comma: {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_written() {
        let mut exposition = Exposition::default();
        exposition.family("none", Type::Gauge, "Left out: it has no samples.");
        exposition.single("up", Type::Gauge, "One.", 1.0);
        let mut family = exposition.family("odd_total", Type::Counter, "Odd labels.");
        family.sample(&[("a", "say \"hi\"\\\n"), ("b", "grüße")], 12_345_678_901.0);
        let mut family = exposition.family("took_seconds", Type::Histogram, "Times.");
        family.histogram(&[("s", "x")], &[0.005, 1.0], &[2, 0, 3], 4.25);
        insta::assert_snapshot!(exposition.finish(), @r#"
        # HELP up One.
        # TYPE up gauge
        up 1
        # HELP odd_total Odd labels.
        # TYPE odd_total counter
        odd_total{a="say \"hi\"\\\n",b="grüße"} 12345678901
        # HELP took_seconds Times.
        # TYPE took_seconds histogram
        took_seconds_bucket{s="x",le="0.005"} 2
        took_seconds_bucket{s="x",le="1"} 2
        took_seconds_bucket{s="x",le="+Inf"} 5
        took_seconds_sum{s="x"} 4.25
        took_seconds_count{s="x"} 5
        "#);
    }
}
