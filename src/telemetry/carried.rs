//! Counters that outlive the process: what the one before has counted is added to what this one counts.
//!
//! They travel as the text of `/metrics`, because that is where everything that counts comes together: a family that
//! is added later is carried without anybody thinking of it. Only what grows is carried, and only for as long as the
//! version it is about is part of the configuration.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::names;

/// Series by family. What each was at some moment, or by how much each has grown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Family {
    kind: String,
    help: String,
    /// In the order in which they were written: that of buckets matters.
    series: Vec<(String, f64)>,
}

/// Of the process itself, or counted by the supervisor.
fn is_carried(family: &str) -> bool {
    !family.starts_with("process_") && ![names::WORKER_RESTARTS_TOTAL, names::UPGRADES_TOTAL].contains(&family)
}

impl Counts {
    /// Every counter and histogram of an exposition.
    pub fn read(text: &str) -> Counts {
        let mut counts = Counts::default();
        let mut help = "";
        let mut current: Option<String> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').map_or("", |(_, words)| words);
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                let grows = matches!(kind, "counter" | "histogram") && is_carried(name);
                current = grows.then(|| name.to_string());
                if let Some(name) = &current {
                    let family = Family { kind: kind.into(), help: help.into(), series: Vec::new() };
                    counts.families.insert(name.clone(), family);
                }
            } else if let (Some(name), Some((series, value))) = (&current, line.rsplit_once(' '))
                && let (Some(family), Ok(value)) = (counts.families.get_mut(name), value.parse())
            {
                family.series.push((series.to_string(), value));
            }
        }
        counts
    }

    /// By how much each has grown since `before`.
    pub fn since(mut self, before: &Counts) -> Counts {
        for (name, family) in &mut self.families {
            let known: HashMap<&str, f64> =
                before.families.get(name).into_iter().flat_map(|it| it.by_series()).collect();
            for (series, value) in &mut family.series {
                *value = (*value - known.get(series.as_str()).copied().unwrap_or(0.0)).max(0.0);
            }
        }
        self
    }

    pub fn add(&mut self, more: Counts) {
        for (name, family) in more.families {
            let Some(have) = self.families.get_mut(&name) else {
                self.families.insert(name, family);
                continue;
            };
            let at: HashMap<String, usize> =
                have.series.iter().enumerate().map(|(at, (series, _))| (series.clone(), at)).collect();
            for (series, value) in family.series {
                match at.get(&series) {
                    Some(at) => have.series[*at].1 += value,
                    None => have.series.push((series, value)),
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// `text` with these counts in it. `is_live`: whether a service still has a version.
    pub fn onto(&self, text: &str, is_live: impl Fn(&str, &str) -> bool) -> String {
        let mut out = String::with_capacity(text.len() + 1024);
        let mut left: BTreeMap<&str, HashMap<&str, f64>> =
            self.families.iter().map(|(name, family)| (name.as_str(), family.by_series().collect())).collect();
        let mut current: Option<&str> = None;
        for line in text.lines() {
            if line.starts_with("# HELP ") {
                self.rest_of(current.take(), &mut left, &is_live, &mut out);
            } else if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                self.rest_of(current.take(), &mut left, &is_live, &mut out);
                current = Some(name);
            } else if let (Some(name), Some((series, value))) = (current, line.rsplit_once(' '))
                && let (Some(family), Ok(value)) = (left.get_mut(name), value.parse::<f64>())
                && let Some(before) = family.remove(series)
            {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{series} {}", value + before);
                continue;
            }
            out.push_str(line);
            out.push('\n');
        }
        self.rest_of(current, &mut left, &is_live, &mut out);
        for (name, family) in &self.families {
            let shown = |(series, _): &&(String, f64)| of_live(series, &is_live);
            if left.contains_key(name.as_str()) && family.series.iter().any(|it| shown(&it)) {
                let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
                self.rest_of(Some(name), &mut left, &is_live, &mut out);
            }
        }
        out
    }

    /// Series of a family that this process has not counted yet.
    fn rest_of(
        &self,
        name: Option<&str>,
        left: &mut BTreeMap<&str, HashMap<&str, f64>>,
        is_live: &impl Fn(&str, &str) -> bool,
        out: &mut String,
    ) {
        let Some(name) = name else { return };
        let (Some(mut rest), Some(family)) = (left.remove(name), self.families.get(name)) else { return };
        for (series, _) in family.series.iter().filter(|(series, _)| of_live(series, is_live)) {
            if let Some(value) = rest.remove(series.as_str()) {
                let _ = writeln!(out, "{series} {value}");
            }
        }
    }
}

impl Family {
    fn by_series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.series.iter().map(|(series, value)| (series.as_str(), *value))
    }
}

fn of_live(series: &str, is_live: impl Fn(&str, &str) -> bool) -> bool {
    match (label(series, "service"), label(series, "version")) {
        (Some(service), Some(version)) if !version.is_empty() => is_live(service, version),
        _ => true,
    }
}

/// Names of services and versions need no escapes.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let at = series.find(&format!("{name}=\""))? + name.len() + 2;
    series[at..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::super::exposition::strict;
    use super::*;

    const BEFORE: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{service=\"shop\",version=\"v1\",code=\"200\"} 5\n\
        a_total{service=\"shop\",version=\"v1\",code=\"500\"} 2\na_total{service=\"shop\",version=\"old\",code=\"200\"} 9\n\
        # HELP b_total B.\n# TYPE b_total counter\nb_total 3\n\
        # HELP g G.\n# TYPE g gauge\ng 7\n\
        # HELP process_x_total X.\n# TYPE process_x_total counter\nprocess_x_total 7\n\
        # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 4\nh_count 2\n";
    const NOW: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{service=\"shop\",version=\"v1\",code=\"200\"} 1\n\
        # HELP g G.\n# TYPE g gauge\ng 1\n\
        # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 1\n";

    #[test]
    fn what_was_counted_before_is_added_and_nothing_else() {
        let counts = Counts::read(BEFORE);
        let seen = strict::read(&counts.onto(NOW, |_, version| version == "v1"));
        let of = |series: &str| seen.get(series).copied();
        assert_eq!(of("a_total{service=\"shop\",version=\"v1\",code=\"200\"}"), Some(6.0));
        assert_eq!(of("a_total{service=\"shop\",version=\"v1\",code=\"500\"}"), Some(2.0), "not seen here yet");
        assert_eq!(of("a_total{service=\"shop\",version=\"old\",code=\"200\"}"), None, "no such version any more");
        assert_eq!(of("b_total"), Some(3.0), "a whole family");
        assert_eq!(of("g"), Some(1.0), "gauges are of now");
        assert_eq!(of("process_x_total"), None);
        assert_eq!((of("h_bucket{le=\"1\"}"), of("h_sum"), of("h_count")), (Some(1.0), Some(7.0), Some(3.0)));
    }

    #[test]
    fn what_grows_between_two_looks_is_added_once() {
        let mut carried = Counts::read(BEFORE);
        let later = BEFORE.replace("code=\"200\"} 5", "code=\"200\"} 8");
        let more = Counts::read(&later).since(&carried);
        let text = serde_json::to_string(&more).expect("plain data");
        carried.add(serde_json::from_str(&text).expect("as written"));
        assert_eq!(carried, Counts::read(&later));
    }
}
