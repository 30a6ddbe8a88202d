//! Alertmanager's API v2, `POST /api/v2/alerts`: a list of alerts.
//!
//! An alert is known by its labels, so they are the same when it fires and when it is resolved; what differs
//! is said by annotations. Without `endsAt` Alertmanager would resolve an alert by itself after five minutes
//! (it expects to be told again and again), so one that fires ends in the far future, and is merged with
//! the one that resolves it because their times overlap.

use serde_json::{Value, json};

use crate::alerts::notice::{Alarm, Notice};
use crate::config::rfc3339;

const NAME: &str = "SwitchbackRollout";
/// How long it fires if nobody resolves it: a week.
const FIRES_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// `None` if there is nothing to fire or to resolve.
pub fn alerts(notice: &Notice) -> Option<Value> {
    let at = rfc3339(notice.at_unix_ms);
    let labels = |version: &str| json!({ "alertname": NAME, "severity": "warning", "service": notice.service, "version": version });
    match notice.alarm {
        Alarm::Opens(severity) => Some(json!([{
            "labels": labels(&notice.version),
            "annotations": {
                "summary": format!("{}: rollout of {} {}", notice.service, notice.version, notice.happened.word().replace('_', " ")),
                "description": notice.message,
                "event": notice.happened.word(),
                "urgency": severity.word(),
                "stable": notice.stable,
                "stage": format!("{} of {}", notice.stage, notice.stages),
                "evidence": notice.evidence.to_string(),
            },
            "startsAt": at,
            "endsAt": rfc3339(notice.at_unix_ms + FIRES_MS),
        }])),
        Alarm::Closes => {
            let resolved = |version| {
                json!({
                    "labels": labels(version),
                    "annotations": { "description": notice.message, "event": notice.happened.word() },
                    "endsAt": at,
                })
            };
            Some(notice.closed_versions().into_iter().map(resolved).collect())
        }
        Alarm::Quiet => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{notice, started};
    use super::*;

    #[test]
    fn an_alert_fires_until_it_is_resolved_with_the_same_labels() {
        let fires = alerts(&notice()).unwrap();
        assert_eq!(
            fires,
            json!([{
                "labels": {
                    "alertname": "SwitchbackRollout", "severity": "warning", "service": "shop", "version": "v2",
                },
                "annotations": {
                    "summary": "shop: rollout of v2 rolled back",
                    "description": "rollback v2: 7 of 9 <requests> & more failed",
                    "event": "rolled_back",
                    "urgency": "error",
                    "stable": "v1",
                    "stage": "2 of 5",
                    "evidence": "{\"canary_failures\":7}",
                },
                "startsAt": "2026-11-25T10:00:00.000Z",
                "endsAt": "2026-12-02T10:00:00.000Z",
            }])
        );
        let resolved = alerts(&started()).unwrap();
        assert_eq!(resolved.as_array().unwrap().len(), 2, "the canary before, too");
        assert_eq!(resolved[0]["labels"], fires[0]["labels"]);
        assert_eq!(resolved[0]["endsAt"], "2026-11-25T10:00:00.000Z");
        assert_eq!(resolved[1]["labels"]["version"], "v1");
        // Label values and annotations are strings, or the API refuses all of it.
        for alert in fires.as_array().unwrap().iter().chain(resolved.as_array().unwrap()) {
            for map in ["labels", "annotations"] {
                assert!(alert[map].as_object().unwrap().values().all(Value::is_string), "{alert}");
            }
        }
        assert_eq!(alerts(&Notice { alarm: Alarm::Quiet, ..notice() }), None);
    }
}
