//! One request's decision with every step that leads to it, without sending anything.

use super::api::Explanation;
use super::ask::{self, Question};
use super::live::Snapshot;
use super::overlay::weights_text;
use super::{history, status};
use crate::config::model::{Action, PathMatch};
use crate::evidence::Beside;
use crate::routing::table::CompiledRoute;
use crate::routing::{Choice, Client, Met, Ready, Reason, ServiceIdx, Thread, VersionIdx, choose, choose_anyway};

pub(crate) fn explain(live: &Snapshot, question: &Question) -> Result<Explanation, String> {
    let table = &live.generation.table;
    let asked = ask::ask(table, question)?;
    let mut explanation = Explanation {
        generation: live.generation.number(),
        method: question.method.clone(),
        host: asked.host.clone(),
        path: asked.path.clone(),
        route: asked.route_name(table),
        action: "none".into(),
        service: asked.service_name(table),
        version: None,
        reason: None,
        bucket: None,
        endpoints: Vec::new(),
        forwarded_path: None,
        status: asked.status(table),
        steps: asked.steps.clone(),
    };
    let Some(route) = asked.route(table) else { return Ok(explanation) };
    match &route.route.action {
        Action::Redirect { to, status } => {
            explanation.action = "redirect".into();
            explanation.steps.push(format!("redirect {status} to {to}"));
        }
        Action::Respond { status, .. } => {
            explanation.action = "respond".into();
            explanation.steps.push(format!("the proxy answers {status} itself"));
        }
        Action::Forward { .. } => {
            explanation.action = "forward".into();
            explanation.forwarded_path = Some(forwarded(route, &asked.path, asked.query.as_deref()));
            if let Some(service) = asked.service {
                choose_version(live, service, &asked, &mut explanation);
            }
        }
    }
    Ok(explanation)
}

fn choose_version(live: &Snapshot, at: ServiceIdx, asked: &ask::Asked, explanation: &mut Explanation) {
    let service = live.generation.table.service(at);
    let runtime = live.runtime.service(at);
    // A split of its own: asking must not take a turn away from real requests.
    let shares = live.generation.split(at).shares().to_vec();
    let splits = history::splits_of(&live.generation);
    let weights = splits.get(&*service.name).map(weights_text).unwrap_or_default();
    explanation.steps.push(format!("service `{}` runs {weights}", service.name));
    for (name, version) in service.versions.iter().zip(&runtime.versions) {
        if !version.has_ready() {
            explanation.steps.push(format!("version `{name}` has no ready endpoint"));
        }
    }
    if runtime.core.held.load(std::sync::atomic::Ordering::Relaxed) {
        explanation.steps.push("the service is held: a request would wait for `release`".into());
    }
    let split = crate::routing::compile::split_from(service, shares, 1);
    let mut client = asked.client.clone();
    if let Some(pinned) = client
        .pinned
        .filter(|pinned| runtime.version(*pinned).core.pins_ended.load(std::sync::atomic::Ordering::Relaxed))
    {
        explanation.steps.push(format!("the drain of `{}` is over: its clients move on", service.version_name(pinned)));
        client.pinned = None;
    }
    match_stage(live, at, asked, &mut client, &mut explanation.steps);
    let ready = |version: VersionIdx| match runtime.version(version).has_ready() {
        true => Ready::Yes,
        false => Ready::No,
    };
    let chosen = choose(&split, service.salt, &client, Thread(0), ready);
    let Choice { version, reason, bucket } = chosen.unwrap_or_else(|| {
        explanation.steps.push(
            "nothing is ready: a request waits (`hold`) and then gets 503 or, if all are down, is tried anyway".into(),
        );
        choose_anyway(&split, service.salt, &client, Thread(0))
    });
    let name = service.version_name(version).to_string();
    explanation.steps.push(match reason {
        Reason::Force => format!("version `{name}`: forced by the request"),
        Reason::DrainPin => format!("version `{name}`: it is draining and the client was on it"),
        Reason::Match => format!("version `{name}`: the stage of its rollout matches the request"),
        Reason::Sticky => format!("version `{name}`: the client's bucket belongs to it"),
        Reason::Weight => format!("version `{name}`, for example: the next request may get another by weight"),
        Reason::FallbackUnhealthy => format!("version `{name}`: the one that was due has no ready endpoint"),
        Reason::Panic => format!("version `{name}`: no version has a ready endpoint"),
    });
    explanation.version = Some(name);
    explanation.reason = Some(reason.as_str().into());
    explanation.bucket = bucket.map(|bucket| bucket.0);
    explanation.endpoints = runtime.version(version).endpoints().iter().map(|it| status::endpoint(it)).collect();
    let candidates = explanation.endpoints.len();
    let ready = runtime.version(version).endpoints().iter().filter(|endpoint| endpoint.is_ready()).count();
    explanation.steps.push(format!("{ready} of its {candidates} endpoints can take it"));
}

/// What a rollout does beside the split.
fn match_stage(live: &Snapshot, at: ServiceIdx, asked: &ask::Asked, client: &mut Client, steps: &mut Vec<String>) {
    let Some(stamped) = live.trial(at) else { return };
    let canary = live.generation.table.service(at).version_name(stamped.canary);
    match &stamped.beside {
        Beside::Nothing => {}
        Beside::Mirror(bp) => {
            let percent = f64::from(*bp) / 100.0;
            steps.push(format!(
                "the rollout of `{canary}` is in a mirror stage: it gets copies of {percent} % of the requests"
            ));
        }
        Beside::Match(matched) => match matched.met(&asked.headers) {
            Some(met) => {
                let what = match met {
                    Met::Header(name) => format!("header `{name}`"),
                    Met::Cookie(name) => format!("cookie `{name}`"),
                    Met::User(name) => format!("the user that `{name}` names"),
                };
                steps.push(format!("the rollout of `{canary}` is in a match stage, and {what} matches"));
                client.matched = Some(stamped.canary);
            }
            None => {
                steps.push(format!("the rollout of `{canary}` is in a match stage that does not match the request"))
            }
        },
    }
}

/// What the endpoint would be asked.
fn forwarded(route: &CompiledRoute, path: &str, query: Option<&str>) -> String {
    let mut to = path.to_string();
    if let (Action::Forward { rewrite, .. }, PathMatch::Prefix(prefix)) =
        (&route.route.action, &route.route.matcher.path)
        && let Some(with) = &rewrite.path_prefix
        && let Some(rest) = path.strip_prefix(prefix.trim_end_matches('/'))
    {
        to = format!("{}/{}", with.trim_end_matches('/'), rest.trim_start_matches('/'));
    }
    match query {
        Some(query) => format!("{to}?{query}"),
        None => to,
    }
}
