//! Active checks: one way of asking, and times that make sense together.

use super::super::decode::Field;
use super::super::found::{Found, Span};
use super::super::model::{self, HealthCheck};
use super::super::raw;
use super::super::scalar::StatusRange;

/// More would make two checks meet, and none for twice the time.
const JITTER_MAX_BP: u32 = 5_000;

pub fn health(raw: &raw::Health, field: &Field<raw::Health>, found: &mut Found) -> Option<model::Health> {
    let at = field.key().unwrap_or_default();
    if let Some((_, span)) = raw.tcp.written().filter(|(flag, _)| !flag.0) {
        found.error(span, "`tcp` can only be `true`").hint("leave it out to check by `path` or `grpc`");
    }
    let check = check(raw, at, found);
    if let (Some(timeout), Some(every)) = (raw.timeout.get(), raw.every.get())
        && timeout.0 > every.0
    {
        let span = [raw.timeout.written().map(|it| it.1), raw.every.written().map(|it| it.1)];
        let span = span.into_iter().flatten().next().unwrap_or(at);
        found.warning(span, "a check may take longer than the time between two").hint("lower `timeout`");
    }
    let jitter_bp = raw.jitter.value().0;
    if let Some((_, span)) = raw.jitter.written().filter(|_| jitter_bp > JITTER_MAX_BP) {
        found.error(span, "`jitter` is above 50%").why("two checks would come together, and then none for long");
    }
    if let (Some((damping, span)), Some(every)) = (raw.damping.written(), raw.every.get())
        && !damping.0.is_zero()
        && damping.0 < every.0
    {
        found.warning(span, "`damping` is shorter than the time between two checks").hint("write `0s` to turn it off");
    }
    Some(model::Health {
        check,
        every: raw.every.value().0,
        timeout: raw.timeout.value().0,
        pass: raw.pass.value().0 as u32,
        fail: raw.fail.value().0 as u32,
        jitter_bp,
        damping: raw.damping.value().0,
    })
}

fn check(raw: &raw::Health, at: Span, found: &mut Found) -> HealthCheck {
    let tcp = raw.tcp.value().0;
    let ways = [(!raw.path.is_missing(), "`path`"), (!raw.grpc.is_missing(), "`grpc`"), (tcp, "`tcp`")];
    let ways: Vec<&str> = ways.into_iter().filter(|(is_there, _)| *is_there).map(|(_, way)| way).collect();
    match ways.as_slice() {
        [] if raw.tcp.written().is_none() => {
            found
                .error(at, "`health` does not say what to check")
                .hint("add `path: /healthz`, `grpc: {}`, or `tcp: true`");
        }
        [first, second, ..] => {
            found.error(at, format!("{first} and {second} cannot be used together")).hint("keep one");
        }
        [] | [_] => {}
    }
    if raw.path.is_missing() {
        for key in [raw.status.key(), raw.instance_header.key()].into_iter().flatten() {
            found.error(key, "this has no meaning without `path`").hint("check by `path`, or remove it");
        }
    }
    if let Some(key) = raw.host.key().filter(|_| tcp) {
        found.error(key, "this has no meaning when only connecting").hint("check by `path`, or remove it");
    }
    let host = raw.host.written().map(|(text, span)| {
        if text.0.parse::<http::uri::Authority>().is_err() || text.0.contains('@') {
            found.error(span, format!("`{}` is not a Host", text.0));
        }
        text.0.clone()
    });
    if let Some(grpc) = raw.grpc.get() {
        let service = grpc.service.value().0;
        if let Some((_, span)) = grpc.service.written().filter(|_| service.len() > 256) {
            found.error(span, "the name of the service is longer than 256 bytes");
        }
        return HealthCheck::Grpc { service, host };
    }
    if tcp {
        return HealthCheck::Tcp;
    }
    let path = raw.path.written().map(|(text, span)| {
        let target = text.0.parse::<http::uri::PathAndQuery>();
        if !text.0.starts_with('/') || target.is_err() {
            found.error(span, format!("`{}` is not a path to ask for", text.0)).why("it must begin with `/`");
        }
        text.0.clone()
    });
    let status = raw.status.get().into_iter().flat_map(|many| many.0.good());
    let status: Vec<_> = status.map(|(StatusRange(range), _)| range.clone()).collect();
    if let Some((_, span)) = raw.status.written().filter(|(many, _)| many.0.0.is_empty()) {
        found.error(span, "`status` is empty").why("no check could pass");
    }
    let instance = raw.instance_header.get().map(|header| header.0.clone());
    HealthCheck::Http { path: path.unwrap_or_default(), host, status, instance }
}
