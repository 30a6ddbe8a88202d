//! The whole state on one page.

use comfy_table::Cell;

use super::{Tone, ago, cell, counts, drain, paint, span, split, table, until};
use crate::control::api::{EndpointStatus, ServiceStatus, Status, TlsStatus, VersionStatus};
use crate::endpoints::Health;

pub fn status(status: &Status, now: u64, colour: bool) -> String {
    let mut out = String::new();
    head(&mut out, status, now, colour);
    for service in &status.services {
        out.push('\n');
        one_service(&mut out, service, now, colour);
    }
    if !status.draining.is_empty() {
        out.push_str("\ndraining\n");
        for drained in &status.draining {
            out.push_str(&format!("  {}\n", drain(drained, now)));
        }
    }
    for retired in &status.retired {
        let what = match retired.in_flight.is_empty() {
            true => format!("{} idle connections", retired.connections),
            false => counts(&retired.in_flight),
        };
        out.push_str(&format!("\nprocess {} from before an upgrade still has: {what}\n", retired.pid));
    }
    if let Some(at) = status.confirm_until {
        let when = until(at, now);
        let number = status.generation.number;
        let text = format!("generation {number} goes back {when} unless: switchback confirm {number}");
        out.push_str(&format!("\n{}\n", paint(&text, Tone::Attention, colour)));
    }
    for warning in &status.warnings {
        out.push_str(&format!("{}: {warning}\n", paint("warning", Tone::Attention, colour)));
    }
    out
}

/// Of many, the ones that end first.
const CERTIFICATES_SHOWN: usize = 8;

fn certificates(out: &mut String, tls: Option<&TlsStatus>, now: u64) {
    let mut all: Vec<_> = tls.into_iter().flat_map(|tls| &tls.certificates).collect();
    all.sort_by_key(|one| one.not_after);
    for one in all.iter().take(CERTIFICATES_SHOWN) {
        let more = if one.names.len() > 1 { format!(" and {} more", one.names.len() - 1) } else { String::new() };
        let asks = match &*one.client_auth {
            "off" => String::new(),
            mode => format!(", client certificate {mode}"),
        };
        let ends = if one.not_after > now { format!("ends {}", until(one.not_after, now)) } else { "EXPIRED".into() };
        out.push_str(&format!("  certificate {}{more}  {ends}{asks}\n", one.name));
    }
    if all.len() > CERTIFICATES_SHOWN {
        out.push_str(&format!("  and {} more certificates\n", all.len() - CERTIFICATES_SHOWN));
    }
}

fn head(out: &mut String, status: &Status, now: u64, colour: bool) {
    let tone = match &status.state[..] {
        "ready" => Tone::Good,
        "degraded" => Tone::Bad,
        _ => Tone::Attention,
    };
    let (version, uptime) = (&status.version, span(status.uptime_ms));
    let state = paint(&status.state, tone, colour);
    out.push_str(&format!("switchback {version}  {state}  pid {}  up {uptime}\n", status.pid));
    let live = &status.generation;
    let hash: String = live.hash.chars().take(12).collect();
    let when = ago(live.at, now);
    out.push_str(&format!("generation {}  {}  by {}, {when}  config {hash}\n", live.number, live.cause, live.author));
    if status.generations_live > 1 {
        out.push_str(&format!("  {} generations still carry requests\n", status.generations_live));
    }
    let config = &status.config;
    let reloaded = config.last_reload_at.map_or(String::new(), |at| format!(", read {}", ago(at, now)));
    let state = if config.last_reload_successful { ("ok", Tone::Good) } else { ("BROKEN", Tone::Bad) };
    out.push_str(&format!("config {}  {}{reloaded}\n", config.source, paint(state.0, state.1, colour)));
    if config.degraded {
        let text = "the file was broken at start: the last known good configuration serves";
        out.push_str(&format!("  {}\n", paint(text, Tone::Bad, colour)));
    }
    if let Some(why) = &config.unwatchable {
        out.push_str(&format!("  {}\n", paint(why, Tone::Attention, colour)));
    }
    if let Some(rendered) = &config.rendered {
        out.extend(rendered.trim_end().lines().map(|line| format!("  {line}\n")));
    }
    for listener in &status.listeners {
        let draining = if listener.draining { "  draining" } else { "" };
        let (name, address, connections) = (&listener.name, &listener.address, listener.connections);
        let scheme = if listener.tls.is_some() { "  tls" } else { "" };
        out.push_str(&format!("listener {name}  {address}{scheme}  {connections} connections{draining}\n"));
        certificates(out, listener.tls.as_ref(), now);
    }
}

fn one_service(out: &mut String, service: &ServiceStatus, now: u64, colour: bool) {
    out.push_str(&format!("service {}", service.name));
    if !service.sticky.is_empty() && service.sticky != "none" {
        out.push_str(&format!("  sticky {}", service.sticky));
    }
    if service.maintenance {
        out.push_str(&paint("  MAINTENANCE", Tone::Attention, colour));
    }
    if service.held {
        out.push_str(&paint(&format!("  HELD, {} waiting", service.waiting), Tone::Attention, colour));
    } else if service.waiting > 0 {
        out.push_str(&paint(&format!("  {} waiting", service.waiting), Tone::Attention, colour));
    }
    out.push('\n');
    if service.owner != "file" {
        let cause = service.owner_cause.as_ref().map_or(String::new(), |cause| format!(": {cause}"));
        let since = service.owner_since.map_or(String::new(), |at| format!(", {}", ago(at, now)));
        let text = format!("split owned by {}{cause}{since}; the file says {}", service.owner, split(&service.intent));
        out.push_str(&format!("  {}\n", paint(&text, Tone::Attention, colour)));
    }
    let header =
        ["version", "state", "weight", "target", "requests", "clients", "in flight", "healthy", "answered", "errors"];
    out.push_str(&table(&header, service.versions.iter().map(row).collect(), colour));
    if let Some(rollout) = &service.rollout {
        super::rollout::lines(out, rollout, now, colour);
    }
    let troubled = |version: &VersionStatus| {
        let name = version.name.clone();
        version.endpoints.clone().into_iter().filter(is_troubled).map(move |endpoint| (name.clone(), endpoint))
    };
    for (version, endpoint) in service.versions.iter().flat_map(troubled) {
        let (health, tone) = health(&endpoint);
        let why = if endpoint.last_change.is_empty() { "" } else { &format!(": {}", endpoint.last_change) };
        out.push_str(&format!("  {version} {} {}{why}\n", endpoint.address, paint(&health, tone, colour)));
    }
}

fn row(version: &VersionStatus) -> Vec<Cell> {
    let state = match &version.state[..] {
        "live" => Tone::Good,
        "draining" | "matched" | "mirrored" => Tone::Attention,
        "rejected" => Tone::Bad,
        _ => Tone::Quiet,
    };
    let ready = version.endpoints.iter().filter(|endpoint| !is_troubled(endpoint)).count();
    let all = version.endpoints.len();
    let healthy = match ready {
        ready if ready == all => Tone::Good,
        0 => Tone::Bad,
        _ => Tone::Attention,
    };
    let errors: Vec<_> =
        version.errors.iter().filter(|(_, n)| **n > 0).map(|(class, n)| format!("{n} {class}")).collect();
    let failed = if errors.is_empty() { Tone::Quiet } else { Tone::Bad };
    vec![
        cell(&version.name, Tone::Plain),
        cell(&version.state, state),
        cell(version.weight, Tone::Plain),
        cell(percent(version.target_share), Tone::Plain),
        cell(percent(version.realised_requests), Tone::Plain),
        cell(version.realised_clients.map_or("-".into(), percent), Tone::Plain),
        cell(counts(&version.in_flight), Tone::Plain),
        cell(format!("{ready}/{all}"), healthy),
        cell(version.requests, Tone::Plain),
        cell(if errors.is_empty() { "-".into() } else { errors.join(", ") }, failed),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn is_troubled(endpoint: &EndpointStatus) -> bool {
    let fit = match endpoint.health {
        Health::Unchecked | Health::Healthy => true,
        Health::Unknown | Health::Failing | Health::Down => false,
    };
    !fit || endpoint.ejected || endpoint.resolved.is_empty()
}

pub fn health(endpoint: &EndpointStatus) -> (String, Tone) {
    if endpoint.ejected {
        return ("ejected".into(), Tone::Bad);
    }
    if endpoint.resolved.is_empty() {
        return ("unresolved".into(), Tone::Bad);
    }
    let (text, tone) = match endpoint.health {
        Health::Unknown => ("not checked yet", Tone::Attention),
        Health::Unchecked => ("unchecked", Tone::Plain),
        Health::Healthy => ("healthy", Tone::Good),
        Health::Failing => ("failing", Tone::Bad),
        Health::Down => ("down", Tone::Bad),
    };
    (text.into(), tone)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, NOW};
    use super::*;
    use crate::control::api::CertificateStatus;

    #[test]
    fn a_quiet_instance_fits_a_few_lines() {
        let mut quiet = samples::status();
        quiet.services.truncate(1);
        quiet.services[0].owner = "file".into();
        quiet.services[0].versions.truncate(1);
        quiet.services[0].versions[0].endpoints.truncate(1);
        quiet.draining.clear();
        quiet.retired.clear();
        quiet.warnings.clear();
        quiet.confirm_until = None;
        quiet.generations_live = 1;
        insta::assert_snapshot!(status(&quiet, NOW, false), @r"
        switchback 0.1.0  ready  pid 4242  up 2h 5m
        generation 42  weights shop v1=90 v2=10  by admin:alice@127.0.0.1, 1m 5s ago  config 9f86d081884c
        config switchback.yaml  ok, read 1m 5s ago
        listener web  0.0.0.0:8080  64 connections

        service shop  sticky cookie
          version  state  weight  target  requests  clients  in flight            healthy  answered  errors
          v1       live   90      90.0 %  90.0 %    90.0 %   2 http, 1 websocket  1/1      1000      -
        ");
    }

    #[test]
    fn certificates_stand_below_their_listener_the_next_to_end_first() {
        let mut secure = samples::status();
        let one = |name: &str, names: usize, days: u64, asks: &str| CertificateStatus {
            name: name.into(),
            names: vec![name.into(); names],
            subject: format!("CN={name}"),
            issuer: "CN=ca".into(),
            not_before: 0,
            not_after: NOW + days * 86_400_000,
            fingerprint: "00".into(),
            client_auth: asks.into(),
            stapled: false,
            problem: None,
        };
        let certificates =
            vec![one("shop.test", 3, 60, "off"), one("staff.test", 1, 6, "required"), one("old.test", 1, 0, "off")];
        secure.listeners[0].tls =
            Some(TlsStatus { certificates, problems: vec![], handshakes_open: 0, handshakes: vec![] });
        let text = status(&secure, NOW, false);
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("listener")).take(4).collect();
        assert_eq!(
            lines.join("\n"),
            "\
            listener web  0.0.0.0:8080  tls  64 connections\n  \
              certificate old.test  EXPIRED\n  \
              certificate staff.test  ends in 6d 0h, client certificate required\n  \
              certificate shop.test and 2 more  ends in 60d 0h"
        );
    }

    #[test]
    fn a_rollout_stands_below_its_service() {
        let mut rolling = samples::status();
        rolling.services[0].rollout = Some(samples::rollout());
        let text = status(&rolling, NOW, false);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
        assert!(at("service shop") < at("  rollout v1 -> v2  staged") && at("30s of the hold left") < at("draining\n"));
        assert!(text.contains("canary v2") && text.contains("[######......] 14.2 of 200 to roll back"), "{text}");
    }

    #[test]
    fn everything_an_operator_must_see_is_there() {
        let mut busy = samples::status();
        busy.state = "degraded".into();
        busy.config.degraded = true;
        busy.config.last_reload_successful = false;
        busy.config.rendered = Some("error: service `api` has no version `gren`\n  --> switchback.yaml:31:13\n".into());
        busy.services[0].held = true;
        busy.services[0].waiting = 7;
        insta::assert_snapshot!(status(&busy, NOW, false), @r"
        switchback 0.1.0  degraded  pid 4242  up 2h 5m
        generation 42  weights shop v1=90 v2=10  by admin:alice@127.0.0.1, 1m 5s ago  config 9f86d081884c
          2 generations still carry requests
        config switchback.yaml  BROKEN, read 1m 5s ago
          the file was broken at start: the last known good configuration serves
          error: service `api` has no version `gren`
            --> switchback.yaml:31:13
        listener web  0.0.0.0:8080  64 connections

        service shop  sticky cookie  HELD, 7 waiting
          split owned by admin:alice@127.0.0.1: weights shop v1=90 v2=10, 1m 5s ago; the file says v1 100
          version  state     weight  target  requests  clients  in flight            healthy  answered  errors
          v1       live      90      90.0 %  90.0 %    90.0 %   2 http, 1 websocket  1/2      1000      -
          v2       live      10      10.0 %  10.0 %    10.0 %   2 http, 1 websocket  1/2      1000      3 connect
          v0       draining  0       0.0 %   0.0 %     -        2 http, 1 websocket  0/1      1000      -
          v1 10.0.0.2:3000 down: connection refused
          v2 10.0.0.2:3000 down: connection refused
          v0 shop-v0.internal:3000 unresolved

        draining
          shop/v0 is draining: 2 http, 1 websocket, for 12s, http cut in 18s, websocket cut in 9m 48s, pinned clients may return for 9m 48s, 1 cut so far

        process 4711 from before an upgrade still has: 1 sse, 2 websocket

        generation 42 goes back in 1m 30s unless: switchback confirm 42
        warning: v2 has one healthy endpoint of two
        ");
        assert!(status(&busy, NOW, true).contains('\x1b'));
    }
}
