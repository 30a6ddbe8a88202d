//! Values for the tests of this folder.

use serde_json::json;

use crate::alerts::notice::{Alarm, Happened, Notice, Severity};
use crate::config::model::Secret;

/// A rollback with everything that must be escaped.
pub fn notice() -> Notice {
    Notice {
        happened: Happened::RolledBack,
        alarm: Alarm::Opens(Severity::Error),
        service: "shop".into(),
        version: "v2".into(),
        stable: "v1".into(),
        stage: 2,
        stages: 5,
        message: "rollback v2: 7 of 9 <requests> & more failed".into(),
        evidence: json!({ "canary_failures": 7 }),
        // 2026-11-25 10:00:00.000 UTC.
        at_unix_ms: 1_795_600_800_000,
        before: None,
    }
}

/// The next rollout, after one of `v1`.
pub fn started() -> Notice {
    Notice {
        happened: Happened::Started,
        alarm: Alarm::Closes,
        message: "rollout of v2 begins".into(),
        before: Some("v1".into()),
        stage: 0,
        ..notice()
    }
}

pub fn secret(value: &str) -> Secret {
    Secret { value: value.into(), file: "/run/secrets/it".into() }
}
