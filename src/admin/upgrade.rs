//! `POST /api/v1/upgrade`: a new process takes over. Answers when it serves, or when it is given up.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::body::{self, Response};
use super::change;
use super::problem::Problem;
use crate::handover::{Outcome, UpgradeResult};

/// Which program (`None`: the one that was started, as its file is now), who asks, and from where. `None` if the
/// supervisor is gone.
pub type Upgrades =
    Arc<dyn Fn(Option<PathBuf>, String, String) -> Pin<Box<dyn Future<Output = Option<Outcome>> + Send>> + Send + Sync>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct UpgradeBody {
    binary: Option<PathBuf>,
}

pub fn binary(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<PathBuf>, Problem> {
    let body: UpgradeBody = change::json(headers, bytes, r#"{"binary":"/usr/local/bin/switchback"}"#)?;
    match body.binary {
        Some(binary) if !binary.is_absolute() => {
            let detail = format!("`binary` is `{}`, which is no absolute path", binary.display());
            Err(Problem::bad_request(detail))
        }
        binary => Ok(binary),
    }
}

pub fn nobody() -> Problem {
    let detail = "no supervisor runs above this process, so nothing can take over from it";
    Problem::new(StatusCode::CONFLICT, "not-now", "This cannot be done now", detail)
        .hint("run `switchback run` without --no-supervisor; until then an upgrade is a restart")
}

pub fn answer(outcome: Option<Outcome>) -> Result<Response, Problem> {
    let Some(outcome) = outcome else {
        let detail = "the supervisor has gone while it was asked";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong inside", detail));
    };
    match outcome.result {
        UpgradeResult::Ok => Ok(body::json(&outcome)),
        UpgradeResult::Refused => {
            Err(Problem::new(StatusCode::CONFLICT, "not-now", "This cannot be done now", outcome.why))
        }
        UpgradeResult::Failed => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Problem::new(status, "failed", "It was tried and did not work", outcome.why)
                .hint("the process before serves on as if nothing had been; its log has what the new one said"))
        }
    }
}
