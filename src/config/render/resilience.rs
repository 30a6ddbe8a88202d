//! Second chances as text.

use serde_json::{Map, Value, json};

use super::super::model::Retry;
use super::super::scalar::{Word, write_percent, write_time};

pub(super) fn retry(retry: &Retry) -> Value {
    let mut out = Map::new();
    out.insert("attempts".into(), retry.attempts.into());
    let on = &retry.on;
    let words = [("connect", on.connect), ("refused", on.refused), ("reset", on.reset), ("timeout", on.timeout)];
    let words = words.into_iter().filter(|(_, is_on)| *is_on).map(|(word, _)| json!(word));
    out.insert("on".into(), words.chain(on.statuses.iter().map(|status| json!(status))).collect());
    out.insert("budget".into(), write_percent(retry.budget_bp).into());
    out.insert("methods".into(), retry.methods.word().into());
    if let Some(time) = retry.per_try_timeout {
        out.insert("per_try_timeout".into(), write_time(time).into());
    }
    out.into()
}
