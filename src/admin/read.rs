//! The calls that change nothing.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::body::{self, Response};
use super::problem::Problem;
use super::query::Query;
use crate::control::api::Refused;
use crate::control::{Handle, Phase, Question};

const YAML: &str = "text/yaml; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Entries of `audit` unless the call says otherwise.
const AUDIT_ENTRIES: usize = 100;

pub fn livez() -> Response {
    body::text(StatusCode::OK, TEXT, "ok\n")
}

/// `handle`: `None` until the first configuration serves.
pub fn readyz(phase: Phase, handle: Option<&Handle>) -> Response {
    let why_not = match (phase, handle) {
        (Phase::PreDrain | Phase::LameDuck | Phase::Ending, _) => Some("draining\n"),
        (Phase::Starting, _) | (Phase::Ready, None) => Some("starting\n"),
        (Phase::Ready, Some(_)) => None,
    };
    if let Some(why_not) = why_not {
        return body::text(StatusCode::SERVICE_UNAVAILABLE, TEXT, why_not);
    }
    let status = handle.map(Handle::status).filter(|status| status.config.degraded);
    let ready = match status {
        None => "ready\n".to_string(),
        Some(status) => format!(
            "degraded: {} was broken at start; the last known good configuration serves (generation {})\n",
            status.config.source, status.generation.number
        ),
    };
    body::text(StatusCode::OK, TEXT, ready)
}

pub fn metrics(text: String) -> Response {
    body::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

pub fn status(handle: &Handle) -> Response {
    let status = handle.status();
    let number = status.generation.number;
    super::change::tagged(body::json(&status), number)
}

pub fn effective(handle: &Handle) -> Response {
    body::text(StatusCode::OK, YAML, handle.effective())
}

pub fn generations(handle: &Handle) -> Response {
    body::json(&handle.generations())
}

pub fn audit(handle: &Handle, query: &mut Query) -> Result<Response, Problem> {
    let limit = match query.take("limit").map_err(Problem::bad_request)? {
        None => AUDIT_ENTRIES,
        Some(text) => text.parse().map_err(|_| Problem::bad_request(format!("`limit` is a number, not `{text}`")))?,
    };
    Ok(body::json(&handle.audit(limit)))
}

pub async fn rollout(handle: &Handle, service: &str, query: &mut Query) -> Result<Response, Problem> {
    let all = query.take_flag("all").map_err(Problem::bad_request)?;
    Ok(body::json(&handle.rollout_report(service, all).await?))
}

pub fn explain(handle: &Handle, query: &mut Query) -> Result<Response, Problem> {
    let explained = handle.explain(&question(query)?).map_err(|refused| match refused {
        Refused::Failed { what, .. } => Problem::bad_request(what),
        Refused::Invalid { .. } | Refused::NotFound { .. } | Refused::Conflict { .. } | Refused::Stale { .. } => {
            refused.into()
        }
    })?;
    Ok(body::json(&explained))
}

fn question(query: &mut Query) -> Result<Question, Problem> {
    let bad = Problem::bad_request;
    let method = query.take("method").map_err(bad)?.unwrap_or_else(|| "GET".into());
    let url = query.take("url").map_err(bad)?.ok_or_else(|| {
        bad("the call needs `url`".into())
            .hint("as in `/api/v1/explain?method=GET&url=http%3A%2F%2Fshop.example.com%2F`")
    })?;
    let client = match query.take("client").map_err(bad)? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| bad(format!("`client` is an IP address, not `{text}`")))?),
    };
    Ok(Question { method, url, headers: query.take_prefixed("h."), client })
}

/// An empty body plans the configuration on disk.
pub async fn plan(handle: &Handle, query: &mut Query, text: &Bytes) -> Result<Response, Problem> {
    let name = config_name(query)?;
    let text = match text.is_empty() {
        true => None,
        false => Some((config_text(text)?, name)),
    };
    Ok(body::json(&handle.plan(text).await?))
}

/// Longest name: that of a path.
const NAME_MAX: usize = 4096;

/// What messages call a configuration that came in a call: `?name=`, usually its file.
pub fn config_name(query: &mut Query) -> Result<String, Problem> {
    let name = query.take("name").map_err(Problem::bad_request)?.unwrap_or_else(|| "request".into());
    match name.len() > NAME_MAX || name.chars().any(char::is_control) {
        true => Err(Problem::bad_request(format!("`name` must be at most {NAME_MAX} bytes of text"))),
        false => Ok(name),
    }
}

pub fn config_text(bytes: &[u8]) -> Result<String, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("the configuration is not text: byte {} is not UTF-8", error.valid_up_to());
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-configuration", "The configuration is wrong", detail)
    })?;
    Ok(text.to_string())
}

/// JSON calls say so, which no form of a web page can (it would need a preflight, and gets none).
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_ready_says_why() {
        for (phase, body) in [
            (Phase::Starting, "starting\n"),
            (Phase::Ready, "starting\n"),
            (Phase::PreDrain, "draining\n"),
            (Phase::LameDuck, "draining\n"),
            (Phase::Ending, "draining\n"),
        ] {
            let response = readyz(phase, None);
            assert_eq!(response.status(), 503, "{phase:?}");
            let body::Body::Whole(Some(bytes)) = response.into_body() else { panic!("a whole body") };
            assert_eq!(bytes, body, "{phase:?}");
        }
    }

    #[test]
    fn a_question_is_read_from_the_query() {
        let mut query = Query::parse(Some("url=http%3A%2F%2Fshop.test%2Fa&h.x-user=7&client=10.0.0.1")).unwrap();
        let question = question(&mut query).unwrap();
        assert_eq!((&question.method[..], &question.url[..]), ("GET", "http://shop.test/a"));
        assert_eq!(question.headers, [("x-user".to_string(), "7".to_string())]);
        assert_eq!(question.client, Some("10.0.0.1".parse().unwrap()));
        for bad in ["method=GET", "url=/&client=me"] {
            assert_eq!(super::question(&mut Query::parse(Some(bad)).unwrap()).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn a_binary_configuration_is_refused() {
        let problem = config_text(b"schema: 1\n\xff").unwrap_err();
        assert_eq!((problem.status, problem.detail.contains("byte 10")), (422, true));
    }
}
