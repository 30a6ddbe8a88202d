//! PagerDuty's Events API v2: one incident for each canary, opened and resolved by the same `dedup_key`.

use serde_json::{Value, json};

use crate::alerts::notice::{Alarm, Notice, shortened};

/// Of `payload.summary`, by the API's documentation.
const SUMMARY_MAX: usize = 1_024;

/// The events of a notice; none if it neither opens nor closes anything.
pub fn events(notice: &Notice, routing_key: &str, source: Option<&str>) -> Vec<Value> {
    let severity = match notice.alarm {
        Alarm::Opens(severity) => severity,
        Alarm::Closes => {
            let resolve = |key| json!({ "routing_key": routing_key, "event_action": "resolve", "dedup_key": key });
            return notice.closed().into_iter().map(resolve).collect();
        }
        Alarm::Quiet => return Vec::new(),
    };
    vec![json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": notice.dedup(),
        "client": "switchback",
        "payload": {
            "summary": shortened(&format!("{}: {}", notice.service, notice.message), SUMMARY_MAX),
            "source": source.unwrap_or(&notice.service),
            "severity": severity.word(),
            "timestamp": crate::config::rfc3339(notice.at_unix_ms),
            "component": notice.version,
            "group": notice.service,
            "class": format!("rollout {}", notice.happened.word()),
            "custom_details": {
                "service": notice.service,
                "version": notice.version,
                "stable": notice.stable,
                "stage": format!("{} of {}", notice.stage, notice.stages),
                "evidence": notice.evidence,
            },
        },
    })]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{notice, started};
    use super::*;
    use crate::alerts::notice::Happened;

    #[test]
    fn a_rollback_triggers() {
        let events = events(&notice(), "R0UT1NG", None);
        assert_eq!(
            events,
            [json!({
                "routing_key": "R0UT1NG",
                "event_action": "trigger",
                "dedup_key": "switchback/shop/v2",
                "client": "switchback",
                "payload": {
                    "summary": "shop: rollback v2: 7 of 9 <requests> & more failed",
                    "source": "shop",
                    "severity": "error",
                    "timestamp": "2026-11-25T10:00:00.000Z",
                    "component": "v2",
                    "group": "shop",
                    "class": "rollout rolled_back",
                    "custom_details": {
                        "service": "shop", "version": "v2", "stable": "v1", "stage": "2 of 5",
                        "evidence": { "canary_failures": 7 },
                    },
                },
            })]
        );
    }

    #[test]
    fn the_next_start_resolves_both_the_same_version_and_the_one_before() {
        let resolve = |key| json!({ "routing_key": "R", "event_action": "resolve", "dedup_key": key });
        assert_eq!(
            events(&started(), "R", Some("eu-1")),
            [resolve("switchback/shop/v2"), resolve("switchback/shop/v1")]
        );
        let again = Notice { before: Some("v2".into()), ..started() };
        assert_eq!(events(&again, "R", None), [resolve("switchback/shop/v2")]);
    }

    #[test]
    fn a_summary_is_never_too_long_and_what_is_quiet_is_not_sent() {
        let long = Notice { message: "ä".repeat(3_000), ..notice() };
        let event = events(&long, "R", Some("eu-1")).remove(0);
        assert_eq!(event["payload"]["summary"].as_str().unwrap().chars().count(), 1_024);
        assert_eq!(event["payload"]["source"], "eu-1");
        let quiet = Notice { alarm: Alarm::Quiet, happened: Happened::Advanced, ..notice() };
        assert_eq!(events(&quiet, "R", None), Vec::<Value>::new());
    }
}
