//! The `expect:` cases of a configuration, run against its own table before it is published.

use super::ask::{self, Asked, Question};
use super::overlay::carries_traffic;
use crate::config::model::Expect;
use crate::config::{Place, Problem, Problems, Severity};
use crate::routing::compile::{intended_shares, split_from};
use crate::routing::{Share, Table, VersionIdx};

/// Every case that does not hold, in the order of the file.
pub(crate) fn check(table: &Table) -> Result<(), Problems> {
    let problems: Vec<Problem> = table.config.expect.iter().filter_map(|case| broken(table, case)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

fn broken(table: &Table, case: &Expect) -> Option<Problem> {
    let headers = case
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let question =
        Question { method: case.method.to_string(), url: case.url.clone(), headers: headers.collect(), client: None };
    let asked = match ask::ask(table, &question) {
        Ok(asked) => asked,
        Err(reason) => return Some(problem(case, format!("the request cannot be made: {reason}"))),
    };
    let found = differences(table, case, &asked);
    (!found.is_empty()).then(|| problem(case, found.join(", ")))
}

fn differences(table: &Table, case: &Expect, asked: &Asked) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, want: Option<&str>, got: Option<String>| {
        if let Some(want) = want
            && got.as_deref() != Some(want)
        {
            let got = got.map_or("none".into(), |got| format!("`{got}`"));
            found.push(format!("{what} is {got}, not `{want}`"));
        }
    };
    let want = &case.want;
    compare("the route", want.route.as_deref(), asked.route_name(table));
    compare("the service", want.service.as_deref(), asked.service_name(table));
    compare("the version", want.version.as_deref(), want.version.as_ref().and_then(|_| version(table, asked)));
    if let Some(status) = want.status {
        compare("the status", Some(&status.to_string()), asked.status(table).map(|status| status.to_string()));
    }
    found
}

/// The version that the file's own split gives this request, or those that share it.
fn version(table: &Table, asked: &Asked) -> Option<String> {
    let service = table.service(asked.service?);
    if let Some(forced) = asked.client.force {
        return Some(service.version_name(forced).to_string());
    }
    let shares = intended_shares(service);
    let with_weight: Vec<usize> = (0..shares.len()).filter(|at| matches!(shares[*at], Share::Weight(_))).collect();
    if let (Some(key), true) = (asked.client.key, with_weight.len() > 1 && carries_traffic(&shares)) {
        let of_client = split_from(service, shares, 1).of_client(key.bucket(service.salt));
        return Some(service.version_name(of_client).to_string());
    }
    let names: Vec<&str> = with_weight.iter().map(|at| &**service.version_name(VersionIdx(*at as u16))).collect();
    Some(names.join(" or "))
}

fn problem(case: &Expect, why: String) -> Problem {
    Problem {
        severity: Severity::Error,
        what: format!("expected case does not hold: {} {}", case.method, case.url),
        place: place(&case.place),
        why: Some(why),
        hint: Some("change the case or the routes; `switchback explain` shows each step of the decision".into()),
    }
}

/// `file:line`.
fn place(at: &str) -> Option<Place> {
    let (file, line) = at.rsplit_once(':')?;
    let line = line.parse().ok()?;
    Some(Place { file: file.into(), line, column: 1, width: 1, snippet: String::new() })
}
