//! Answers that break a guardrail of the user's own, by their head.

use std::ops::RangeInclusive;

use http::header::{HeaderMap, HeaderName};

use super::custom::Bad;
use super::judge::Judge;
use crate::config::model::{CustomEvent, CustomRule, Guardrails, Name, ValueMatch};

#[derive(Debug, Clone)]
enum Event {
    Header(HeaderName, ValueMatch),
    Status(Vec<RangeInclusive<u16>>),
    Grpc(Vec<u8>),
}

/// One rule, and its place in the evidence.
#[derive(Debug, Clone)]
pub struct Watch {
    bad: Bad,
    event: Event,
}

/// The rules of a stage that look at answers, as `judge` knows them.
pub fn watches(rules: &Guardrails, judge: &Judge) -> Box<[Watch]> {
    let watch = |(name, rule): &(Name, CustomRule)| {
        let event = match &rule.what {
            CustomEvent::Header { name, value, .. } => Event::Header(name.clone(), value.clone()),
            CustomEvent::Status { ranges, .. } => Event::Status(ranges.clone()),
            CustomEvent::GrpcStatus { codes, .. } => Event::Grpc(codes.clone()),
            CustomEvent::Prometheus { .. } | CustomEvent::Outside { .. } => return None,
        };
        Some(Watch { bad: Bad::custom(judge.place_of(name)?), event })
    };
    rules.custom.iter().filter_map(watch).collect()
}

/// Which rules this head breaks, `errors` included: a 5xx, or a gRPC status that says the server failed.
pub fn bad(watches: &[Watch], status: u16, headers: &HeaderMap) -> Bad {
    let grpc = grpc_status(headers);
    // Of gRPC's codes: unknown, deadline exceeded, internal, unavailable, data loss.
    let failed = status >= 500 || grpc.is_some_and(|code| matches!(code, 2 | 4 | 13 | 14 | 15));
    let found = if failed { Bad::FAILED } else { Bad::default() };
    watches.iter().fold(found, |found, watch| {
        let is_bad = match &watch.event {
            Event::Header(name, ValueMatch::Present) => headers.contains_key(name),
            Event::Header(name, ValueMatch::Exact(wanted)) => {
                headers.get_all(name).iter().any(|value| value.as_bytes() == wanted.as_bytes())
            }
            Event::Status(ranges) => ranges.iter().any(|range| range.contains(&status)),
            Event::Grpc(codes) => grpc.is_some_and(|code| codes.contains(&code)),
        };
        if is_bad { found.or(watch.bad) } else { found }
    })
}

/// The status of a gRPC answer that has nothing but a head ("Trailers-Only" in the gRPC protocol).
fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn each_rule_sees_its_own_bad_answers() {
        let watches = [
            Watch { bad: Bad::custom(0), event: Event::Status(vec![400..=499]) },
            Watch {
                bad: Bad::custom(1),
                event: Event::Header(HeaderName::from_static("x-degraded"), ValueMatch::Exact("yes".into())),
            },
            Watch { bad: Bad::custom(2), event: Event::Grpc(vec![7]) },
        ];
        let (none, failed) = (Bad::default(), Bad::FAILED);
        for (status, fields, wanted) in [
            (200, head(&[]), none),
            (500, head(&[]), failed),
            (404, head(&[]), Bad::custom(0)),
            (200, head(&[("x-degraded", "no")]), none),
            (503, head(&[("x-degraded", "yes")]), failed.or(Bad::custom(1))),
            (200, head(&[("grpc-status", "0")]), none),
            (200, head(&[("grpc-status", "7")]), Bad::custom(2)),
            (200, head(&[("grpc-status", "14")]), failed),
            (200, head(&[("grpc-status", "not a number")]), none),
        ] {
            assert_eq!(bad(&watches, status, &fields), wanted, "{status} {fields:?}");
        }
    }
}
