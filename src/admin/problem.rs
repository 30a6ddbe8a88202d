//! What went wrong with a call, as a problem document (RFC 9457).

use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::body::{self, Response};
use crate::config::problem::Problem as ConfigProblem;
use crate::control::api::Refused;

/// Boxed, because it travels in the `Err` of everything here.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Document>);

/// The members of RFC 9457 3.1 and our own beside them. The command line reads the same type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Document {
    /// Stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Everything wrong with a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ConfigProblem>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
    /// The live generation, when `If-Match` named another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// Methods that would have been allowed.
    #[serde(skip)]
    pub allow: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Problem {
        Problem(Box::new(Document {
            kind: format!("urn:switchback:problem:{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            ..Document::default()
        }))
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The call cannot be understood", detail)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.0.hint = Some(hint.into());
        self
    }

    fn maybe_hint(mut self, hint: Option<String>) -> Problem {
        self.0.hint = hint;
        self
    }

    pub fn allow(mut self, methods: &'static str) -> Problem {
        self.0.allow = Some(methods);
        self
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn into_response(self) -> Response {
        let mut response = body::json_as(self.status(), "application/problem+json", &self.0);
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"switchback\""));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl std::ops::Deref for Problem {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.0
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        match refused {
            Refused::Invalid { problems, rendered } => {
                let detail = match problems.len() {
                    1 => problems[0].what.clone(),
                    many => format!("{many} problems; nothing was changed"),
                };
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                let mut problem = Problem::new(status, "invalid-configuration", "The configuration is wrong", detail);
                problem.0.problems = problems;
                problem.0.rendered = Some(rendered);
                problem
            }
            Refused::NotFound { what, hint } => {
                Problem::new(StatusCode::NOT_FOUND, "unknown-name", "There is no such thing", what).maybe_hint(hint)
            }
            Refused::Conflict { what, hint } => {
                Problem::new(StatusCode::CONFLICT, "not-now", "This cannot be done now", what).maybe_hint(hint)
            }
            Refused::Stale { wanted, live } => {
                let detail = format!("generation {live} is live, not {wanted}: somebody changed something meanwhile");
                let status = StatusCode::PRECONDITION_FAILED;
                let mut problem = Problem::new(status, "stale", "Another generation is live", detail);
                problem.0.live = Some(live);
                problem.hint("look at what is live now, then ask again")
            }
            Refused::Failed { what, hint } => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Problem::new(status, "failed", "It was tried and did not work", what).maybe_hint(hint)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Severity;

    fn json(problem: Problem) -> String {
        serde_json::to_string_pretty(&*problem).unwrap()
    }

    #[test]
    fn a_stale_if_match_names_the_live_generation() {
        let problem = Problem::from(Refused::Stale { wanted: 3, live: 5 });
        insta::assert_snapshot!(json(problem), @r#"
        {
          "type": "urn:switchback:problem:stale",
          "title": "Another generation is live",
          "status": 412,
          "detail": "generation 5 is live, not 3: somebody changed something meanwhile",
          "hint": "look at what is live now, then ask again",
          "live": 5
        }
        "#);
    }

    #[test]
    fn a_wrong_configuration_brings_every_problem() {
        let wrong = ConfigProblem {
            severity: Severity::Error,
            what: "service `api` has no version `gren`".into(),
            place: None,
            why: None,
            hint: Some("did you mean `green`?".into()),
        };
        let problem = Problem::from(Refused::Invalid { problems: vec![wrong], rendered: "error: …".into() });
        insta::assert_snapshot!(json(problem), @r#"
        {
          "type": "urn:switchback:problem:invalid-configuration",
          "title": "The configuration is wrong",
          "status": 422,
          "detail": "service `api` has no version `gren`",
          "problems": [
            {
              "severity": "error",
              "what": "service `api` has no version `gren`",
              "place": null,
              "why": null,
              "hint": "did you mean `green`?"
            }
          ],
          "rendered": "error: …"
        }
        "#);
    }

    #[test]
    fn each_refusal_has_its_status() {
        let (what, hint) = (String::from("x"), None);
        for (refused, status) in [
            (Refused::Invalid { problems: vec![], rendered: String::new() }, 422),
            (Refused::NotFound { what: what.clone(), hint: hint.clone() }, 404),
            (Refused::Conflict { what: what.clone(), hint: hint.clone() }, 409),
            (Refused::Stale { wanted: 1, live: 2 }, 412),
            (Refused::Failed { what, hint }, 500),
        ] {
            let response = Problem::from(refused).into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
}
