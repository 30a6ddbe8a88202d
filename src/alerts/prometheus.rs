//! Prometheus as a witness: `GET /api/v1/query`, again and again, for as long as a rollout wants to know.
//!
//! What it says is handed on as it is: a number, no data, or a problem. What follows from that is not decided
//! here. Of several series the largest counts. A series of NaN (0/0: no requests) is no data, because it says nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Ask, Client};
use super::delivery::readable;
use super::payload;

/// For one query, unless it is asked more often than that.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Thousands of series; a query that answers with more is not what was meant.
const ANSWER_MAX: usize = 1024 * 1024;

/// A query of a guardrail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Address of the API.
    pub url: String,
    pub query: String,
    pub every: Duration,
}

/// What came of it: the largest value, `None` without data; or why nothing is known.
pub type Reading = Result<Option<f64>, String>;

/// Who wants to know: service, canary, name of the guardrail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    pub service: String,
    pub canary: String,
    pub rule: String,
}

/// Queries that are asked, each by a task of its own.
#[derive(Debug)]
pub struct Polls {
    runtime: tokio::runtime::Handle,
    client: Client,
    running: BTreeMap<Asker, (Query, AbortOnDropHandle<()>)>,
    /// The newest that was not taken yet.
    readings: Arc<Mutex<BTreeMap<Asker, Reading>>>,
}

impl Polls {
    pub fn new(runtime: tokio::runtime::Handle, client: Client) -> Polls {
        Polls { runtime, client, running: BTreeMap::new(), readings: Arc::default() }
    }

    /// From now on these and no others. One that runs and did not change goes on.
    pub fn want(&mut self, wanted: BTreeMap<Asker, Query>) {
        self.running.retain(|asker, (query, _)| wanted.get(asker) == Some(query));
        self.readings.lock().expect("no holder panics").retain(|asker, _| self.running.contains_key(asker));
        for (asker, query) in wanted {
            if self.running.contains_key(&asker) {
                continue;
            }
            let task = poll(self.client.clone(), asker.clone(), query.clone(), self.readings.clone());
            self.running.insert(asker, (query, AbortOnDropHandle::new(self.runtime.spawn(task))));
        }
    }

    /// What came in since the last call.
    pub fn take(&self) -> BTreeMap<Asker, Reading> {
        std::mem::take(&mut *self.readings.lock().expect("no holder panics"))
    }
}

async fn poll(client: Client, asker: Asker, query: Query, readings: Arc<Mutex<BTreeMap<Asker, Reading>>>) {
    let mut turns = tokio::time::interval(query.every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let reading = ask(&client, &query).await;
        readings.lock().expect("no holder panics").insert(asker.clone(), reading);
    }
}

/// Asks once.
pub async fn ask(client: &Client, query: &Query) -> Reading {
    let address = payload::join(&query.url, "/api/v1/query");
    let ask = Ask {
        method: Method::GET,
        url: format!("{address}?query={}", encoded(&query.query)),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        answer_max: ANSWER_MAX,
    };
    let problem = |wrong: String| format!("{}: {wrong}", payload::shown(&address));
    let answer = client.ask(&ask, query.every.min(TIMEOUT)).await.map_err(problem)?;
    if !answer.whole {
        return Err(problem(format!("its answer is larger than {ANSWER_MAX} bytes")));
    }
    match answer.status.is_success() {
        true => largest(&answer.body).map_err(problem),
        // An error has a body that says more.
        false => Err(problem(match error_of(&answer.body) {
            Some(error) => error,
            None => format!("it answered {}: {}", answer.status, readable(&answer.body)),
        })),
    }
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

fn error_of(body: &[u8]) -> Option<String> {
    let envelope: Envelope =
        serde_json::from_slice(body).ok().filter(|envelope: &Envelope| envelope.status == "error")?;
    Some(format!("{}: {}", readable(envelope.error_type.as_bytes()), readable(envelope.error.as_bytes())))
}

/// The largest number of an answer.
fn largest(body: &[u8]) -> Reading {
    if let Some(error) = error_of(body) {
        return Err(error);
    }
    let garbage = || format!("its answer is not that of Prometheus: {}", readable(body));
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| garbage())?;
    let data = envelope.data.filter(|_| envelope.status == "success").ok_or_else(garbage)?;
    let values: Vec<&Value> = match &*data.result_type {
        "scalar" => vec![&data.result],
        "vector" => data.result.as_array().ok_or_else(garbage)?.iter().map(|series| &series["value"]).collect(),
        other => return Err(format!("the query answers with a {}, not with numbers", readable(other.as_bytes()))),
    };
    let mut largest = None;
    for value in values {
        // `[time, "0.5"]`; a number may be `+Inf`, `-Inf` and `NaN`.
        let number: f64 = value[1].as_str().and_then(|text| text.parse().ok()).ok_or_else(garbage)?;
        if !number.is_nan() {
            largest = Some(largest.map_or(number, |known: f64| known.max(number)));
        }
    }
    Ok(largest)
}

/// By RFC 3986, for a value in a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, closed, reply};
    use super::*;

    fn vector(values: &[&str]) -> String {
        let series: Vec<String> = values
            .iter()
            .map(|value| format!(r#"{{"metric":{{"job":"a"}},"value":[1795600800.123,"{value}"]}}"#))
            .collect();
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, series.join(","))
    }

    #[test]
    fn the_largest_series_counts_and_nan_is_no_data() {
        for (body, want) in [
            (vector(&["0.5"]), Ok(Some(0.5))),
            (vector(&["0.5", "NaN", "2e3", "-1"]), Ok(Some(2_000.0))),
            (vector(&["+Inf"]), Ok(Some(f64::INFINITY))),
            (vector(&["NaN"]), Ok(None)),
            (vector(&[]), Ok(None)),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]},"warnings":["w"]}"#.into(),
                Ok(Some(7.0)),
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"1:3: parse\nerror"}"#.into(),
                Err("bad_data: 1:3: parse error".into()),
            ),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
                Err("the query answers with a matrix, not with numbers".into()),
            ),
        ] {
            assert_eq!(largest(body.as_bytes()), want, "{body}");
        }
        for garbage in ["", "<html>no</html>", "{}", "[]", r#"{"status":"success"}"#, &vector(&["many"])] {
            let wrong = largest(garbage.as_bytes()).unwrap_err();
            assert!(wrong.starts_with("its answer is not that of Prometheus"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_query_is_sent_as_documented() {
        let server = Server::start(vec![reply(200, &vector(&["0.25"]))]).await;
        let query = r#"sum(rate(errors{service="shop"}[5m])) / 2"#;
        let query = Query { url: format!("{}/", server.url("")), query: query.into(), every: Duration::from_secs(15) };
        assert_eq!(ask(&Client::default(), &query).await, Ok(Some(0.25)));
        let asked = server.received().remove(0);
        assert_eq!(
            asked.line,
            "GET /api/v1/query?query=sum%28rate%28errors%7Bservice%3D%22shop%22%7D%5B5m%5D%29%29%20%2F%202 HTTP/1.1"
        );
    }

    #[tokio::test]
    async fn a_prometheus_that_is_down_hangs_errs_or_talks_too_much_is_a_problem_and_never_a_number() {
        let error = r#"{"status":"error","errorType":"execution","error":"found duplicate series"}"#;
        for (replies, want) in [
            (vec![reply(422, error)], "execution: found duplicate series"),
            (vec![reply(503, "maintenance")], "it answered 503 Service Unavailable: maintenance"),
            (vec![reply(302, &vector(&["1"]))], "it answered 302 Found"),
            (vec![reply(200, &"x".repeat(ANSWER_MAX + 1))], "larger than 1048576 bytes"),
            (vec![None], "no answer within 300ms"),
            (vec![Some("SSH-2.0-OpenSSH_9.2\r\n\r\n".into())], "invalid HTTP"),
        ] {
            let server = Server::start(replies).await;
            let query = Query { url: server.url(""), query: "up".into(), every: Duration::from_millis(300) };
            let wrong = ask(&Client::default(), &query).await.unwrap_err();
            assert!(
                wrong.contains(want) && wrong.starts_with(&server.url("/api/v1/query")),
                "{wrong} instead of {want}"
            );
        }
        let query = Query { url: closed().await, query: "up".into(), every: Duration::from_secs(1) };
        let wrong = ask(&Client::default(), &query).await.unwrap_err();
        assert!(wrong.contains("refused"), "{wrong}");
    }

    #[tokio::test]
    async fn what_is_wanted_is_asked_again_and_again_and_nothing_else() {
        let server =
            Server::start(vec![reply(200, &vector(&["1"])), reply(200, &vector(&["2"])), reply(500, "")]).await;
        let asker = Asker { service: "shop".into(), canary: "v2".into(), rule: "queue".into() };
        let query = Query { url: server.url(""), query: "depth".into(), every: Duration::from_millis(100) };
        let mut polls = Polls::new(tokio::runtime::Handle::current(), Client::default());
        let wanted = BTreeMap::from([(asker.clone(), query)]);
        polls.want(wanted.clone());
        let mut seen = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), async {
            while !matches!(seen.last(), Some(Err(_))) {
                // As often as one likes: it is the same query.
                polls.want(wanted.clone());
                seen.extend(polls.take().into_values());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("three answers in time");
        assert_eq!(seen[..2], [Ok(Some(1.0)), Ok(Some(2.0))], "{seen:?}");
        polls.want(BTreeMap::new());
        assert!(polls.take().is_empty(), "what nobody wants to know any more is not said");
    }
}
