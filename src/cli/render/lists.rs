//! Lists: generations, audit, events, drains.

use super::{Tone, ago, cell, counts, date, paint, span, split, table, until};
use crate::control::api::{AuditRecord, DrainStatus, EventRecord, GenerationInfo};

/// Newest first; the first is live.
pub fn history(generations: &[GenerationInfo], now: u64, colour: bool) -> String {
    let mut rows = Vec::new();
    for (at, generation) in generations.iter().enumerate() {
        let (number, tone) = match at {
            0 => (format!("{} live", generation.number), Tone::Good),
            _ => (generation.number.to_string(), Tone::Plain),
        };
        let splits: Vec<_> =
            generation.splits.iter().map(|(service, weights)| format!("{service}: {}", split(weights))).collect();
        rows.push(vec![
            cell(number, tone),
            cell(ago(generation.at, now), Tone::Plain),
            cell(generation.hash.chars().take(12).collect::<String>(), Tone::Quiet),
            cell(&generation.author, Tone::Plain),
            cell(&generation.cause, Tone::Plain),
            cell(splits.join("; "), Tone::Quiet),
        ]);
    }
    table(&["generation", "when", "config", "author", "cause", "splits"], rows, colour)
}

pub fn audit(records: &[AuditRecord], now: u64, colour: bool) -> String {
    if records.is_empty() {
        return "nothing was changed through the admin API yet\n".into();
    }
    let mut rows = Vec::new();
    for record in records {
        let tone = if record.result.starts_with("refused") { Tone::Bad } else { Tone::Plain };
        let generation = record.generation.map_or("-".into(), |generation| generation.to_string());
        rows.push(vec![
            cell(ago(record.at, now), Tone::Plain),
            cell(&record.author, Tone::Plain),
            cell(&record.from, Tone::Quiet),
            cell(&record.action, Tone::Plain),
            cell(generation, Tone::Plain),
            cell(&record.result, tone),
        ]);
    }
    table(&["when", "author", "from", "action", "generation", "result"], rows, colour)
}

pub fn event(record: &EventRecord, colour: bool) -> String {
    let tone = match &record.kind[..] {
        "reload_failed" | "ejected" => Tone::Bad,
        "warning" | "hold" => Tone::Attention,
        "publish" | "drain_finished" | "release" => Tone::Good,
        _ => Tone::Plain,
    };
    let about = match (&record.service, &record.version) {
        (Some(service), Some(version)) => format!("{service}/{version}: "),
        (Some(service), None) => format!("{service}: "),
        (None, Some(_) | None) => String::new(),
    };
    let kind = paint(&format!("{:14}", record.kind), tone, colour);
    format!("{}  {:>5}  {kind}  {about}{}\n", date(record.at), record.id, record.message)
}

/// One line, for a terminal that shows it in place.
pub fn drain(drain: &DrainStatus, now: u64) -> String {
    let mut line = format!("{}/{} is draining: {}", drain.service, drain.version, counts(&drain.remaining));
    line.push_str(&format!(", for {}", span(now.saturating_sub(drain.since))));
    let left = drain.remaining.iter().filter(|(_, left)| **left > 0);
    let deadlines = left.filter_map(|(kind, _)| drain.deadline.get(kind).map(|at| (kind, *at)));
    for (kind, at) in deadlines {
        line.push_str(&format!(", {} cut {}", kind.as_str(), until(at, now)));
    }
    if let Some(sessions) = drain.sessions_until.filter(|at| *at > now) {
        line.push_str(&format!(", pinned clients may return for {}", span(sessions - now)));
    }
    if drain.cut > 0 {
        line.push_str(&format!(", {} cut so far", drain.cut));
    }
    line
}

pub fn drained(service: &str, version: &str, cut: u64, colour: bool) -> String {
    match cut {
        0 => format!("{service}/{version} {}\n", paint("drained: all its work finished", Tone::Good, colour)),
        cut => {
            let text = format!("drained: {cut} cut at the deadline");
            format!("{service}/{version} {}\n", paint(&text, Tone::Attention, colour))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, NOW};
    use super::*;

    #[test]
    fn history_shows_the_live_one_first() {
        insta::assert_snapshot!(history(&samples::history(), NOW, false), @r"
        generation  when       config        author                 cause                     splits
        42 live     1m 5s ago  9f86d081884c  admin:alice@127.0.0.1  weights shop v1=90 v2=10  shop: v1 90, v2 10
        41          2h 5m ago  9f86d081884c  file                   first configuration       shop: v1 100
        ");
    }

    #[test]
    fn audit_shows_refusals_too() {
        insta::assert_snapshot!(audit(&samples::audit(), NOW, false), @r"
        when       author                 from             action                             generation  result
        1m 5s ago  admin:alice@127.0.0.1  127.0.0.1:51234  POST /api/v1/services/shop/switch  -           refused (401): the call brings no token, or more than one
        1m 5s ago  admin:alice@127.0.0.1  127.0.0.1:51234  weights shop v1=90 v2=10           42          done
        ");
        assert_eq!(audit(&[], NOW, false), "nothing was changed through the admin API yet\n");
    }

    #[test]
    fn an_event_is_one_line() {
        let record = EventRecord {
            id: 12,
            at: NOW,
            kind: "drain_started".into(),
            service: Some("shop".into()),
            version: Some("v1".into()),
            message: "41 in flight".into(),
            data: serde_json::Value::Null,
        };
        insta::assert_snapshot!(event(&record, false), @"2025-11-25 02:40:00Z     12  drain_started   shop/v1: 41 in flight");
    }

    #[test]
    fn a_drain_says_what_is_left_and_until_when() {
        insta::assert_snapshot!(drain(&samples::status().draining[0], NOW), @"shop/v0 is draining: 2 http, 1 websocket, for 12s, http cut in 18s, websocket cut in 9m 48s, pinned clients may return for 9m 48s, 1 cut so far");
        insta::assert_snapshot!(drained("shop", "v1", 0, false), @"shop/v1 drained: all its work finished");
        insta::assert_snapshot!(drained("shop", "v1", 2, false), @"shop/v1 drained: 2 cut at the deadline");
    }
}
