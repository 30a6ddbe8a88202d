//! Traffic as it was: lines of switchback's access log.

use serde::Deserialize;

use super::traffic::{Latency, Traffic};
use crate::analysis::{MAX_BUCKET, MIN_BUCKET, bucket_of};

/// A longer log is cut: a week of seconds.
const SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// What is read of a line; the rest may be anything.
#[derive(Deserialize)]
struct Line<'a> {
    /// Milliseconds since the Unix epoch.
    at: u64,
    #[serde(borrow)]
    service: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    version: Option<std::borrow::Cow<'a, str>>,
    status: u16,
    duration_us: u64,
    #[serde(borrow)]
    method: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<std::borrow::Cow<'a, str>>,
}

/// Reads a log line by line, in any order.
#[derive(Debug)]
pub struct Recorder {
    service: String,
    version: String,
    /// Whole seconds since the epoch, and requests in them.
    seconds: std::collections::BTreeMap<u64, u64>,
    latencies: Vec<u64>,
    requests: u64,
    failed: u64,
    safe: u64,
    others: u64,
    unread: u64,
}

/// A log that was read.
#[derive(Debug, Clone)]
pub struct Recording {
    pub traffic: Traffic,
    pub requests: u64,
    pub failed: u64,
    pub seconds: u64,
    /// Lines of other services and versions, and lines that could not be read.
    pub others: u64,
    pub unread: u64,
}

impl Recorder {
    /// For the requests that `version` of `service` answered.
    pub fn new(service: &str, version: &str) -> Recorder {
        Recorder {
            service: service.into(),
            version: version.into(),
            seconds: std::collections::BTreeMap::new(),
            latencies: vec![0; (MAX_BUCKET - MIN_BUCKET + 1) as usize],
            requests: 0,
            failed: 0,
            safe: 0,
            others: 0,
            unread: 0,
        }
    }

    pub fn line(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let Ok(line) = serde_json::from_str::<Line<'_>>(text) else {
            self.unread += 1;
            return;
        };
        let is_ours = line.service.as_deref() == Some(&self.service) && line.version.as_deref() == Some(&self.version);
        // A client that left says nothing about the version.
        if !is_ours || line.error.as_deref() == Some("downstream_abort") {
            self.others += 1;
            return;
        }
        self.requests += 1;
        *self.seconds.entry(line.at / 1_000).or_default() += 1;
        if line.status >= 500 || line.error.is_some() {
            self.failed += 1;
        } else if line.kind.as_deref().is_none_or(|kind| kind == "http") {
            let bucket = bucket_of(line.duration_us as f64 / 1e3) - MIN_BUCKET;
            self.latencies[bucket as usize] += 1;
        }
        let is_safe = matches!(line.method.as_deref(), Some("GET" | "HEAD" | "OPTIONS" | "TRACE"));
        self.safe += u64::from(is_safe);
    }

    /// What was read, or why that is not enough.
    pub fn finish(self) -> Result<Recording, String> {
        let whose = format!("service `{}`, version `{}`", self.service, self.version);
        let (Some((first, _)), Some((last, _))) = (self.seconds.first_key_value(), self.seconds.last_key_value())
        else {
            let rest = match (self.others, self.unread) {
                (0, 0) => "it is empty".into(),
                (others, unread) => format!("{others} lines are of others, {unread} are no lines of an access log"),
            };
            return Err(format!("no request of {whose}: {rest}"));
        };
        let length = last - first + 1;
        if length > SECONDS_MAX {
            return Err(format!("its first and last request of {whose} are more than a week apart"));
        }
        if self.latencies.iter().all(|count| *count == 0) {
            return Err(format!("no good answer of {whose}: there is nothing to compare a canary with"));
        }
        let mut per_second = vec![0; length as usize];
        for (second, count) in &self.seconds {
            per_second[(second - first) as usize] = *count;
        }
        let latencies = self.latencies.iter().enumerate().filter(|(_, count)| **count > 0);
        let latency = Latency::of(latencies.map(|(at, count)| (at as i32 + MIN_BUCKET, *count as f64)));
        let requests = self.requests as f64;
        let traffic =
            Traffic::recorded(&per_second, self.failed as f64 / requests, latency, self.safe as f64 / requests);
        let (requests, failed, others, unread) = (self.requests, self.failed, self.others, self.unread);
        Ok(Recording { traffic, requests, failed, seconds: length, others, unread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64, version: &str, status: u16, more: &str) -> String {
        format!(
            "{{\"at\":{at},\"client\":\"::1\",\"method\":\"GET\",\"status\":{status},\"duration_us\":2000,\
             \"service\":\"shop\",\"version\":\"{version}\",\"kind\":\"http\"{more}}}"
        )
    }

    #[test]
    fn a_log_becomes_traffic() {
        let mut recorder = Recorder::new("shop", "v1");
        for text in [
            line(10_000, "v1", 200, ""),
            line(10_900, "v1", 500, ""),
            line(12_000, "v1", 404, ""),
            line(12_100, "v1", 200, "").replace("GET", "POST"),
            line(12_200, "v1", 499, ",\"error\":\"downstream_abort\""),
            line(99_000, "v2", 200, ""),
            line(11_000, "v1", 200, "").replace("shop", "api"),
            "not a line".into(),
            String::new(),
        ] {
            recorder.line(&text);
        }
        let recording = recorder.finish().expect("four requests");
        assert_eq!((recording.requests, recording.failed, recording.seconds), (4, 1, 3));
        assert_eq!((recording.others, recording.unread), (3, 1));
        assert_eq!((recording.traffic.errors, recording.traffic.replayable), (0.25, 0.75));
        assert!((recording.traffic.latency.quantile(0.5) / 2.0 - 1.0).abs() < 0.03);
        assert!((recording.traffic.rps() - 4.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_log_without_anything_to_go_by_says_so() {
        let read = |lines: &[String]| {
            let mut recorder = Recorder::new("shop", "v1");
            lines.iter().for_each(|text| recorder.line(text));
            recorder.finish().expect_err("nothing to go by")
        };
        assert!(read(&[]).contains("it is empty"));
        assert!(read(&["{}".into(), line(1, "v2", 200, "")]).contains("1 lines are of others, 1 are no lines"));
        assert!(read(&[line(1, "v1", 500, "")]).contains("no good answer"));
        assert!(read(&[line(1, "v1", 200, ""), line(u64::MAX, "v1", 200, "")]).contains("more than a week"));
    }
}
