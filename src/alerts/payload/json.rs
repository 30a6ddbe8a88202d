//! Our own JSON: what a `webhook` notification and the webhooks of a rollout are sent. Fields are added, never
//! changed.

use serde_json::{Value, json};

use crate::alerts::notice::Notice;
use crate::config::model::HookPoint;

pub fn notice(notice: &Notice) -> Value {
    json!({
        "kind": notice.happened.word(),
        "service": notice.service,
        "version": notice.version,
        "stable": notice.stable,
        "stage": notice.stage,
        "stages": notice.stages,
        "message": notice.message,
        "evidence": notice.evidence,
        "at": notice.at_unix_ms,
        "key": notice.dedup(),
    })
}

/// A point of a rollout at which somebody is asked or told.
#[derive(Debug, Clone, PartialEq)]
pub struct HookCall {
    pub point: HookPoint,
    pub service: String,
    /// The canary.
    pub version: String,
    pub stable: String,
    /// From 1: the stage that is to begin, has ended, or was rolled back.
    pub stage: usize,
    pub stages: usize,
    /// Part of the traffic that the canary has now, 0 to 1.
    pub share: f64,
    pub message: String,
    pub evidence: Value,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
}

pub fn hook(call: &HookCall) -> Value {
    json!({
        "point": call.point.as_str(),
        "service": call.service,
        "version": call.version,
        "stable": call.stable,
        "stage": call.stage,
        "stages": call.stages,
        "share": call.share,
        "message": call.message,
        "evidence": call.evidence,
        "at": call.at_unix_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_everything() {
        assert_eq!(
            notice(&super::super::testing::notice()),
            json!({
                "kind": "rolled_back", "service": "shop", "version": "v2", "stable": "v1", "stage": 2, "stages": 5,
                "message": "rollback v2: 7 of 9 <requests> & more failed",
                "evidence": { "canary_failures": 7 },
                "at": 1_795_600_800_000_u64,
                "key": "switchback/shop/v2",
            })
        );
    }

    #[test]
    fn a_call_names_its_point_and_the_canary_s_share() {
        let call = HookCall {
            point: HookPoint::BeforeStage,
            service: "shop".into(),
            version: "v2".into(),
            stable: "v1".into(),
            stage: 2,
            stages: 3,
            share: 0.05,
            message: "stage 2 is to begin".into(),
            evidence: Value::Null,
            at_unix_ms: 7,
        };
        assert_eq!(
            hook(&call),
            json!({
                "point": "before_stage", "service": "shop", "version": "v2", "stable": "v1", "stage": 2, "stages": 3,
                "share": 0.05, "message": "stage 2 is to begin", "evidence": null, "at": 7,
            })
        );
    }
}
