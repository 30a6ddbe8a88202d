//! The calls that change state: from path, query and body to a [`Change`], and from what became of it to
//! an answer and an audit record.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::{self, Response};
use super::problem::Problem;
use super::query::Query;
use super::read::{config_name, config_text};
use super::route::{ChangeCall, RolloutVerb};
use super::unique::Unique;
use super::units::parse_duration;
use crate::control::api::{AuditRecord, Author, Change, Receipt, RolloutAction};
use crate::telemetry::unix_ms;

/// Who calls, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    /// `10.0.0.1` or `unix`.
    pub peer: String,
    /// With what else is known: the port, or the ids of the process at the other end of a Unix socket.
    pub from: String,
}

impl Caller {
    /// The name is what the caller says (the token is what counts), cut to what is safe to print anywhere.
    pub fn new(headers: &HeaderMap, peer: String, from: String) -> Caller {
        let said = headers.get("x-switchback-user").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let user = said.filter(|said| !said.is_empty()).unwrap_or_else(|| "api".into());
        let safe = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
        Caller { user: user.chars().take(64).map(safe).collect(), peer, from }
    }

    pub fn author(&self) -> Author {
        Author(format!("admin:{}@{}", self.user, self.peer))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchBody {
    to: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct StartBody {
    to: Option<String>,
    #[serde(default)]
    again: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    gate: Option<String>,
    by: Option<String>,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventBody {
    version: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {
    generation: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NoBody {}

/// Longest wait for a confirmation: a day.
const CONFIRM_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Characters of a reason that are kept: it stands in tables, events and the journal.
const REASON_MAX: usize = 200;

/// Without line breaks and terminal escapes, and not longer than a line.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(REASON_MAX).collect()
}

pub fn parse(call: &ChangeCall, query: &mut Query, headers: &HeaderMap, bytes: &[u8]) -> Result<Change, Problem> {
    let bad = Problem::bad_request;
    match call {
        ChangeCall::Apply => {
            let confirm_ms = match query.take("confirm").map_err(bad)? {
                None => None,
                Some(text) => Some(u64::try_from(parse_duration(&text).map_err(bad)?.as_millis()).unwrap_or(u64::MAX)),
            };
            if confirm_ms.is_some_and(|ms| !(1..=CONFIRM_MS_MAX).contains(&ms)) {
                return Err(bad("`confirm` must leave time to confirm, and at most 24h".into()));
            }
            let name = config_name(query)?;
            if bytes.is_empty() {
                return Err(bad("the body must be the configuration".into())
                    .hint("to read the file on disk again, call `POST /api/v1/config/reload`"));
            }
            Ok(Change::Apply { text: config_text(bytes)?, name, confirm_ms })
        }
        ChangeCall::Reload => json::<NoBody>(headers, bytes, "{}").map(|_| Change::Reload),
        ChangeCall::Confirm => {
            let body: ConfirmBody = json(headers, bytes, r#"{"generation":42}"#)?;
            Ok(Change::Confirm { generation: body.generation })
        }
        ChangeCall::Revert { generation } => {
            json::<NoBody>(headers, bytes, "{}").map(|_| Change::Revert { generation: *generation })
        }
        ChangeCall::Switch { service } => {
            let force = query.take_flag("force").map_err(bad)?;
            let to = match service {
                Some(service) => {
                    let body: SwitchBody = needed(headers, bytes, r#"{"to":"v2"}"#)?;
                    BTreeMap::from([(service.clone(), body.to)])
                }
                None => needed::<Unique<String>>(headers, bytes, r#"{"shop":"v2","api":"green"}"#)?.0,
            };
            some(to.len(), "a service")?;
            Ok(Change::Switch { to, force })
        }
        ChangeCall::Weights { service } => {
            let force = query.take_flag("force").map_err(bad)?;
            let to: BTreeMap<String, BTreeMap<String, u32>> = match service {
                Some(service) => {
                    let Unique(weights) = needed(headers, bytes, r#"{"v1":90,"v2":10}"#)?;
                    BTreeMap::from([(service.clone(), weights)])
                }
                None => {
                    let all: Unique<Unique<u32>> = needed(headers, bytes, r#"{"shop":{"v1":90,"v2":10}}"#)?;
                    all.0.into_iter().map(|(service, weights)| (service, weights.0)).collect()
                }
            };
            some(to.len(), "a service")?;
            for weights in to.values() {
                some(weights.len(), "a version")?;
            }
            Ok(Change::Weights { to, force })
        }
        ChangeCall::Rollback { service } => {
            let body: RollbackBody = json(headers, bytes, r#"{"reason":"errors"}"#)?;
            Ok(Change::Rollback { service: service.clone(), reason: body.reason.map(|reason| one_line(&reason)) })
        }
        ChangeCall::Drain { service } => {
            let body: DrainBody = needed(headers, bytes, r#"{"version":"v1"}"#)?;
            Ok(Change::Drain { service: service.clone(), version: one_line(&body.version) })
        }
        ChangeCall::Hold { service } => {
            json::<NoBody>(headers, bytes, "{}").map(|_| Change::Hold { service: service.clone() })
        }
        ChangeCall::Release { service } => {
            json::<NoBody>(headers, bytes, "{}").map(|_| Change::Release { service: service.clone() })
        }
        ChangeCall::Clear { service } => {
            json::<NoBody>(headers, bytes, "{}").map(|_| Change::Clear { service: service.clone() })
        }
        ChangeCall::Rollout { service, verb } => {
            let action = rollout_action(*verb, headers, bytes)?;
            Ok(Change::Rollout { service: service.clone(), action })
        }
        ChangeCall::Events { service } => {
            let body: EventBody = needed(headers, bytes, r#"{"version":"v2","kind":"restart"}"#)?;
            Ok(Change::Report {
                service: service.clone(),
                version: one_line(&body.version),
                kind: one_line(&body.kind),
            })
        }
    }
}

fn rollout_action(verb: RolloutVerb, headers: &HeaderMap, bytes: &[u8]) -> Result<RolloutAction, Problem> {
    let line = |text: Option<String>| text.map(|text| one_line(&text));
    Ok(match verb {
        RolloutVerb::Start => {
            let body: StartBody = json(headers, bytes, r#"{"to":"v2","again":true}"#)?;
            RolloutAction::Start { to: line(body.to), again: body.again }
        }
        RolloutVerb::Promote => {
            json::<NoBody>(headers, bytes, "{}")?;
            RolloutAction::Promote
        }
        RolloutVerb::Pause => {
            let body: RollbackBody = json(headers, bytes, r#"{"reason":"lunch"}"#)?;
            RolloutAction::Pause { reason: line(body.reason) }
        }
        RolloutVerb::Resume => {
            json::<NoBody>(headers, bytes, "{}")?;
            RolloutAction::Resume
        }
        RolloutVerb::Abort => {
            let body: RollbackBody = json(headers, bytes, r#"{"reason":"complaints"}"#)?;
            RolloutAction::Abort { reason: line(body.reason) }
        }
        RolloutVerb::Approve => {
            let body: ApproveBody = json(headers, bytes, r#"{"gate":"sre","by":"ada","comment":"looks good"}"#)?;
            RolloutAction::Approve { gate: line(body.gate), by: line(body.by), comment: line(body.comment) }
        }
    })
}

/// A body that may be left out.
fn json<T: DeserializeOwned + Default>(headers: &HeaderMap, bytes: &[u8], example: &str) -> Result<T, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { needed(headers, bytes, example) }
}

fn needed<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8], example: &str) -> Result<T, Problem> {
    let hint = format!("send `content-type: application/json` and a body like `{example}`");
    if !super::read::is_json(headers) {
        let status = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(
            status,
            "not-json",
            "The body must be JSON",
            "the call does not say that its body is JSON",
        )
        .hint(hint));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad_request(format!("the body does not fit: {error}")).hint(hint))
}

fn some(count: usize, what: &str) -> Result<(), Problem> {
    if count == 0 { Err(Problem::bad_request(format!("the body must name {what}"))) } else { Ok(()) }
}

/// `If-Match: "42"`; `*` fits whatever is live.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).trim().to_string();
    if text == "*" && values.next().is_none() {
        return Ok(None);
    }
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&text);
    match (bare.parse(), values.next()) {
        (Ok(number), None) => Ok(Some(number)),
        (Ok(_), Some(_)) | (Err(_), _) => {
            let detail = format!("`If-Match: {text}` does not name one generation");
            Err(Problem::bad_request(detail).hint("write it as in `If-Match: \"42\"`"))
        }
    }
}

/// With the generation as `ETag`, ready for the next `If-Match`.
pub fn tagged(mut response: Response, generation: u64) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{generation}\"")).expect("digits and quotes are visible ASCII");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

pub fn answer(result: Result<Receipt, Problem>) -> Response {
    match result {
        Ok(receipt) => tagged(body::json(&receipt), receipt.generation),
        Err(problem) => problem.into_response(),
    }
}

pub fn audit(caller: &Caller, action: String, result: &Result<Receipt, Problem>) -> AuditRecord {
    let (text, generation) = match result {
        Ok(receipt) if receipt.changed => ("done".to_string(), Some(receipt.generation)),
        Ok(receipt) => ("nothing to change".to_string(), Some(receipt.generation)),
        Err(problem) => (format!("refused ({}): {}", problem.status, problem.detail), None),
    };
    let author = caller.author().0;
    AuditRecord { at: unix_ms(), author, from: caller.from.clone(), action, result: text, generation }
}

/// As the command line would write it.
pub fn describe(change: &Change) -> String {
    // Names that exist nowhere are described as well: whatever was sent must not reach a terminal as it is.
    described(change).replace(char::is_control, " ")
}

fn described(change: &Change) -> String {
    let weights = |weights: &BTreeMap<String, u32>| {
        weights.iter().map(|(version, weight)| format!(" {version}={weight}")).collect::<String>()
    };
    let forced = |force: bool| if force { " --force" } else { "" };
    match change {
        Change::Apply { name, confirm_ms: None, .. } => format!("apply {name}"),
        Change::Apply { name, confirm_ms: Some(ms), .. } => format!("apply {name} --confirm {ms}ms"),
        Change::Reload => "reload".into(),
        Change::Switch { to, force } => {
            let to: String = to.iter().map(|(service, version)| format!(" {service}={version}")).collect();
            format!("switch{to}{}", forced(*force))
        }
        Change::Weights { to, force } => {
            let to: Vec<_> = to.iter().map(|(service, versions)| format!(" {service}{}", weights(versions))).collect();
            format!("weights{}{}", to.join(","), forced(*force))
        }
        Change::Rollback { service, reason: None } => format!("rollback {service}"),
        Change::Rollback { service, reason: Some(reason) } => format!("rollback {service}: {reason}"),
        Change::Drain { service, version } => format!("drain {service} {version}"),
        Change::Hold { service } => format!("hold {service}"),
        Change::Release { service } => format!("release {service}"),
        Change::Clear { service } => format!("clear {service}"),
        Change::Revert { generation } => format!("revert {generation}"),
        Change::Confirm { generation: Some(generation) } => format!("confirm {generation}"),
        Change::Confirm { generation: None } => "confirm".into(),
        Change::Rollout { service, action } => crate::control::rollouts::cause(service, action),
        Change::Report { service, version, kind } => format!("report {service} {version} {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    fn parsed(call: ChangeCall, query: &str, body: &str) -> Result<Change, u16> {
        let headers = headers(&[("content-type", "application/json; charset=utf-8")]);
        let mut query = Query::parse(Some(query)).unwrap();
        let change = parse(&call, &mut query, &headers, body.as_bytes()).map_err(|problem| problem.status)?;
        query.finish().map_err(|_| 400u16)?;
        Ok(change)
    }

    fn shop() -> String {
        "shop".into()
    }

    fn rollout(verb: RolloutVerb) -> ChangeCall {
        ChangeCall::Rollout { service: shop(), verb }
    }

    fn events() -> ChangeCall {
        ChangeCall::Events { service: shop() }
    }

    #[test]
    fn bodies_become_changes() {
        let cases = [
            (ChangeCall::Switch { service: Some(shop()) }, "", r#"{"to":"v2"}"#, "switch shop=v2"),
            (
                ChangeCall::Switch { service: None },
                "force=true",
                r#"{"shop":"v2","api":"green"}"#,
                "switch api=green shop=v2 --force",
            ),
            (ChangeCall::Weights { service: Some(shop()) }, "", r#"{"v1":90,"v2":10}"#, "weights shop v1=90 v2=10"),
            (ChangeCall::Weights { service: None }, "", r#"{"a":{"x":1},"b":{"y":2}}"#, "weights a x=1, b y=2"),
            (ChangeCall::Rollback { service: shop() }, "", "", "rollback shop"),
            (ChangeCall::Rollback { service: shop() }, "", r#"{"reason":"5xx"}"#, "rollback shop: 5xx"),
            (ChangeCall::Drain { service: shop() }, "", r#"{"version":"v1"}"#, "drain shop v1"),
            (ChangeCall::Hold { service: shop() }, "", "", "hold shop"),
            (ChangeCall::Release { service: shop() }, "", "{}", "release shop"),
            (ChangeCall::Clear { service: shop() }, "", "\n", "clear shop"),
            (ChangeCall::Revert { generation: 7 }, "", "", "revert 7"),
            (ChangeCall::Confirm, "", "", "confirm"),
            (ChangeCall::Confirm, "", r#"{"generation":40}"#, "confirm 40"),
            (ChangeCall::Reload, "", "", "reload"),
            (rollout(RolloutVerb::Start), "", "", "rollout start shop"),
            (rollout(RolloutVerb::Start), "", r#"{"to":"v2","again":true}"#, "rollout start shop v2 --again"),
            (rollout(RolloutVerb::Promote), "", "", "rollout promote shop"),
            (rollout(RolloutVerb::Pause), "", r#"{"reason":"a\u001b[31mb"}"#, "rollout pause shop: a [31mb"),
            (rollout(RolloutVerb::Resume), "", "{}", "rollout resume shop"),
            (rollout(RolloutVerb::Abort), "", "", "rollout abort shop"),
            (
                rollout(RolloutVerb::Approve),
                "",
                r#"{"gate":"sre","by":"ada","comment":"fine"}"#,
                "rollout approve shop sre by ada: fine",
            ),
            (events(), "", r#"{"version":"v2","kind":"restart"}"#, "report shop v2 restart"),
            (ChangeCall::Switch { service: Some(shop()) }, "", r#"{"to":"v\u001b2"}"#, "switch shop=v 2"),
            (ChangeCall::Apply, "confirm=5m&name=a.yaml", "schema: 1", "apply a.yaml --confirm 300000ms"),
        ];
        for (call, query, body, described) in cases {
            let change = parsed(call.clone(), query, body);
            assert_eq!(change.as_ref().map(describe), Ok(described.into()), "{call:?} {body}");
        }
    }

    #[test]
    fn bodies_that_do_not_fit_change_nothing() {
        let switch = || ChangeCall::Switch { service: Some(shop()) };
        let weights = || ChangeCall::Weights { service: Some(shop()) };
        for (call, query, body) in [
            (switch(), "", ""),
            (switch(), "", "{}"),
            (switch(), "", r#"{"to":2}"#),
            (switch(), "", r#"{"to":"v2","now":true}"#),
            (switch(), "forse=true", r#"{"to":"v2"}"#),
            (switch(), "force=maybe", r#"{"to":"v2"}"#),
            (ChangeCall::Switch { service: None }, "", "{}"),
            (weights(), "", "{}"),
            (weights(), "", r#"{"v1":-1}"#),
            (weights(), "", r#"{"v1":90,"v2":10,"v1":50}"#),
            (ChangeCall::Weights { service: None }, "", r#"{"a":{"x":1,"x":1}}"#),
            (ChangeCall::Weights { service: None }, "", r#"{"a":{"x":1},"a":{"x":1}}"#),
            (ChangeCall::Switch { service: None }, "", r#"{"a":"x","a":"y"}"#),
            (weights(), "", r#"{"v1":1.5}"#),
            (weights(), "", r#"{"v1":"90"}"#),
            (weights(), "", "[90,10]"),
            (ChangeCall::Hold { service: shop() }, "", r#"{"for":"5m"}"#),
            (rollout(RolloutVerb::Start), "", r#"{"force":true}"#),
            (rollout(RolloutVerb::Promote), "", r#"{"to":3}"#),
            (rollout(RolloutVerb::Abort), "", r#"{"why":"x"}"#),
            (rollout(RolloutVerb::Approve), "", r#"{"by":7}"#),
            (events(), "", ""),
            (events(), "", r#"{"version":"v2"}"#),
            (ChangeCall::Apply, "", ""),
            (ChangeCall::Apply, "confirm=soon", "schema: 1"),
            (ChangeCall::Apply, "confirm=0s", "schema: 1"),
            (ChangeCall::Apply, "confirm=25h", "schema: 1"),
            (ChangeCall::Apply, "confirm=18446744073709551615ms", "schema: 1"),
            (ChangeCall::Drain { service: shop() }, "", "not json"),
        ] {
            assert_eq!(parsed(call.clone(), query, body), Err(400), "{call:?} {query} {body}");
        }
    }

    #[test]
    fn a_body_must_say_that_it_is_json() {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            let call = ChangeCall::Switch { service: Some(shop()) };
            let headers = headers(&[("content-type", kind)]);
            let problem = parse(&call, &mut Query::default(), &headers, br#"{"to":"v2"}"#).unwrap_err();
            assert_eq!(problem.status, 415, "{kind}");
        }
    }

    #[test]
    fn if_match_names_one_generation() {
        for (value, wanted) in [("\"42\"", Some(42)), ("42", Some(42)), ("*", None)] {
            assert_eq!(if_match(&headers(&[("if-match", value)])), Ok(wanted), "{value}");
        }
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
        for value in ["", "\"\"", "W/\"42\"", "\"41\", \"42\"", "\"x\"", "-1"] {
            assert_eq!(if_match(&headers(&[("if-match", value)])).unwrap_err().status, 400, "{value}");
        }
    }

    #[test]
    fn a_caller_is_named_safely() {
        let caller = |user: &str| Caller::new(&headers(&[("x-switchback-user", user)]), "10.0.0.1".into(), "x".into());
        assert_eq!(caller("alice").author().0, "admin:alice@10.0.0.1");
        assert_eq!(caller("a b@c:d").author().0, "admin:a_b_c_d@10.0.0.1");
        assert_eq!(caller("").author().0, "admin:api@10.0.0.1");
        assert_eq!(caller(&"x".repeat(500)).user.len(), 64);
    }

    #[test]
    fn refused_calls_are_audited_with_their_reason() {
        let caller = Caller::new(&HeaderMap::new(), "unix".into(), "unix uid 1000".into());
        let record = audit(&caller, "switch shop=v9".into(), &Err(Problem::bad_request("no")));
        assert_eq!((&record.author[..], &record.from[..]), ("admin:api@unix", "unix uid 1000"));
        assert_eq!((&record.result[..], record.generation), ("refused (400): no", None));
    }
}
