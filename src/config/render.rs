//! [`Config`] as text with every value written out: what runs, in the words of the file.
//!
//! Reading it again gives the same configuration (only the places of `expect` cases differ). Paths are
//! absolute. A secret is never shown: its `token_file` is, so reading again needs the file to be there.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::env::escape;
use super::model::{
    AccessLogTarget, Action, AdminBind, Config, Expect, HeaderEdits, HostMatch, Intent, Listener, PathMatch, Route,
    Service, Sticky, ValueMatch,
};
use super::scalar::{write_percent, write_size, write_time};

mod dns;
mod endpoints;
mod http2;
mod policy;
mod resilience;
mod rollout;
mod tls;
mod upstream;

/// Every value, defaults filled in, as YAML.
pub fn to_yaml(config: &Config) -> String {
    serde_saphyr::to_string(&config_value(config)).expect("text, numbers, lists and maps can be written")
}

fn config_value(config: &Config) -> Value {
    let mut root = Map::new();
    root.insert("schema".into(), json!(1));
    if let Some(dir) = &config.state_dir {
        root.insert("state_dir".into(), text(&dir.to_string_lossy()));
    }
    root.insert("listeners".into(), by_name(config.listeners.iter(), listener));
    let bind = match &config.admin.bind {
        AdminBind::Tcp(address) => text(&address.to_string()),
        AdminBind::Unix(path) => text(&format!("unix:{}", path.to_string_lossy())),
    };
    root.insert("admin".into(), json!({ "bind": bind, "insecure": config.admin.insecure }));
    root.insert("expose".into(), json!({ "response_headers": config.expose.response_headers }));
    let to = match &config.access_log.to {
        AccessLogTarget::Off => json!("off"),
        AccessLogTarget::Stdout => json!("stdout"),
        AccessLogTarget::File(path) => text(&path.to_string_lossy()),
    };
    root.insert("access_log".into(), json!({ "to": to, "buffer": config.access_log.buffer }));
    if let Some(ids) = &config.request_id {
        root.insert("request_id".into(), policy::request_id(ids));
    }
    let shutdown = &config.shutdown;
    root.insert(
        "shutdown".into(),
        json!({
            "pre_drain": write_time(shutdown.pre_drain),
            "linger": write_time(shutdown.linger),
            "timeout": write_time(shutdown.timeout),
        }),
    );
    root.insert("dns".into(), dns::dns(&config.dns));
    let upgrade = &config.upgrade;
    root.insert(
        "upgrade".into(),
        json!({
            "ready_timeout": write_time(upgrade.ready_timeout),
            "linger": write_time(upgrade.linger),
            "drain": write_time(upgrade.drain),
        }),
    );
    root.insert("routes".into(), config.routes.iter().map(route).collect());
    root.insert("services".into(), by_name(config.services.iter(), service));
    if !config.gates.is_empty() {
        root.insert("gates".into(), by_name(config.gates.iter(), rollout::gate));
    }
    if !config.notifications.is_empty() {
        root.insert("notifications".into(), by_name(config.notifications.iter(), rollout::notification));
    }
    if !config.expect.is_empty() {
        root.insert("expect".into(), config.expect.iter().map(expect).collect());
    }
    Value::Object(root)
}

fn listener(listener: &Listener) -> Value {
    let (timeouts, limits) = (&listener.timeouts, &listener.limits);
    let mut out = json!({
        "bind": listener.bind.to_string(),
        "timeouts": {
            "handshake": write_time(timeouts.handshake),
            "header": write_time(timeouts.header),
            "idle": write_time(timeouts.idle),
            "body": write_time(timeouts.body),
            "write": write_time(timeouts.write),
        },
        "limits": {
            "connections": limits.connections,
            "handshakes": limits.handshakes,
            "header_bytes": write_size(limits.header_bytes as u64),
            "header_fields": limits.header_fields,
            "target_bytes": write_size(limits.target_bytes as u64),
        },
        "http2": http2::http2(&listener.http2),
    });
    if let Some(of) = &listener.tls {
        out["tls"] = tls::tls(of);
    }
    policy::listener(&listener.policy, out.as_object_mut().expect("it is a map"));
    out
}

fn route(route: &Route) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), text(&route.name));
    let mut matcher = Map::new();
    match &route.matcher.host {
        HostMatch::Any => {}
        HostMatch::Exact(host) => drop(matcher.insert("host".into(), text(host))),
        HostMatch::Wildcard(parent) => drop(matcher.insert("host".into(), text(&format!("*.{parent}")))),
    }
    match &route.matcher.path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => drop(matcher.insert("path".into(), text(path))),
        PathMatch::Prefix(path) => drop(matcher.insert("path_prefix".into(), text(path))),
        PathMatch::Regex(regex) => drop(matcher.insert("path_regex".into(), text(regex))),
    }
    if !route.matcher.methods.is_empty() {
        matcher.insert("method".into(), route.matcher.methods.iter().map(|it| text(it.as_str())).collect());
    }
    if !route.matcher.headers.is_empty() {
        let headers = route.matcher.headers.iter().map(|(name, value)| (name.to_string(), value_match(value)));
        matcher.insert("headers".into(), headers.collect::<Map<_, _>>().into());
    }
    if !route.matcher.query.is_empty() {
        let query = route.matcher.query.iter().map(|(name, value)| (name.clone(), value_match(value)));
        matcher.insert("query".into(), query.collect::<Map<_, _>>().into());
    }
    out.insert("match".into(), matcher.into());
    policy::route(&route.policy, &mut out);
    match &route.action {
        Action::Forward { service, rewrite } => {
            out.insert("service".into(), text(service));
            let mut edits = Map::new();
            if let Some(prefix) = &rewrite.path_prefix {
                edits.insert("path_prefix".into(), text(prefix));
            }
            if let Some(host) = &rewrite.host {
                edits.insert("host".into(), value(host));
            }
            header_edits(&mut edits, "request_headers", &rewrite.request_headers);
            header_edits(&mut edits, "response_headers", &rewrite.response_headers);
            if !edits.is_empty() {
                out.insert("rewrite".into(), edits.into());
            }
        }
        Action::Redirect { to, status } => {
            out.insert("redirect".into(), json!({ "to": text(to), "status": status }));
        }
        Action::Respond { status, headers: fields, body } => {
            let mut respond = Map::new();
            respond.insert("status".into(), json!(status));
            if !fields.is_empty() {
                respond.insert("headers".into(), headers(fields));
            }
            respond.insert("body".into(), text(body));
            out.insert("respond".into(), respond.into());
        }
    }
    out.into()
}

fn header_edits(into: &mut Map<String, Value>, key: &str, edits: &HeaderEdits) {
    let mut out = Map::new();
    if !edits.remove.is_empty() {
        out.insert("remove".into(), edits.remove.iter().map(|name| text(name.as_str())).collect());
    }
    if !edits.set.is_empty() {
        out.insert("set".into(), headers(&edits.set));
    }
    if !edits.add.is_empty() {
        out.insert("add".into(), headers(&edits.add));
    }
    if !out.is_empty() {
        into.insert(key.into(), out.into());
    }
}

fn service(service: &Service) -> Value {
    let mut out = Map::new();
    let versions = by_name(service.versions.iter(), |version| {
        let mut out = Map::new();
        out.insert("endpoints".into(), version.endpoints.iter().map(endpoints::endpoint).collect());
        if let Some(revision) = &version.revision {
            out.insert("revision".into(), text(revision));
        }
        out.into()
    });
    out.insert("versions".into(), versions);
    match &service.intent {
        Intent::Active(version) => out.insert("active".into(), text(version)),
        Intent::Split(weights) => out.insert("split".into(), by_name(weights.iter(), |weight| json!(weight))),
    };
    if let Some(it) = &service.rollout {
        out.insert("rollout".into(), rollout::rollout(it));
    }
    match &service.sticky {
        None => {}
        Some(Sticky::ClientIp) => drop(out.insert("sticky".into(), json!("client_ip"))),
        Some(Sticky::Header(name)) => drop(out.insert("sticky".into(), json!({ "header": text(name.as_str()) }))),
        Some(Sticky::Cookie { name, ttl: None }) => {
            out.insert("sticky".into(), json!({ "cookie": { "name": text(name) } }));
        }
        Some(Sticky::Cookie { name, ttl: Some(ttl) }) => {
            out.insert("sticky".into(), json!({ "cookie": { "name": text(name), "ttl": write_time(*ttl) } }));
        }
    }
    if let Some(force) = &service.force {
        let mut it = Map::new();
        it.insert("header".into(), text(force.header.as_str()));
        if let Some(file) = &force.token_file {
            it.insert("token_file".into(), text(&file.to_string_lossy()));
        }
        out.insert("force".into(), it.into());
    }
    endpoints::balance(&service.balance, &mut out);
    if let Some(it) = &service.health {
        out.insert("health".into(), resilience::health(it));
    }
    if let Some(it) = &service.outlier {
        out.insert("outlier".into(), resilience::outlier(it));
    }
    out.insert("panic_below".into(), write_percent(service.panic_below_bp).into());
    if let Some(requests) = service.circuit {
        out.insert("circuit".into(), json!({ "in_flight": requests }));
    }
    out.insert("retry".into(), resilience::retry(&service.retry));
    let it = &service.timeouts;
    let mut timeouts = Map::new();
    for (key, time) in
        [("connect", it.connect), ("request", it.request), ("idle", it.idle), ("upgrade_idle", it.upgrade_idle)]
    {
        timeouts.insert(key.into(), write_time(time).into());
    }
    if let Some(total) = it.total {
        timeouts.insert("total".into(), write_time(total).into());
    }
    out.insert("timeouts".into(), timeouts.into());
    let mut limits = Map::new();
    limits.insert("body".into(), service.limits.body.map_or("unlimited".into(), write_size).into());
    if let Some(requests) = service.limits.in_flight {
        limits.insert("in_flight".into(), requests.into());
    }
    out.insert("limits".into(), limits.into());
    out.insert("upstream".into(), upstream::upstream(&service.upstream));
    let drain = &service.drain;
    out.insert(
        "drain".into(),
        json!({
            "requests": write_time(drain.requests),
            "streams": write_time(drain.streams),
            "sessions": write_time(drain.sessions),
            "reconnect_spread": write_time(drain.reconnect_spread),
        }),
    );
    let hold = json!({ "max_wait": write_time(service.hold.max_wait), "max_requests": service.hold.max_requests });
    out.insert("hold".into(), hold);
    policy::service(&service.policy, &mut out);
    out.into()
}

fn expect(case: &Expect) -> Value {
    let mut out = Map::new();
    let method = case.method.as_str();
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
            out.insert(method.to_lowercase(), text(&case.url));
        }
        _ => drop(out.insert("request".into(), text(&format!("{method} {}", case.url)))),
    }
    if !case.headers.is_empty() {
        out.insert("headers".into(), headers(&case.headers));
    }
    for (key, name) in [("route", &case.want.route), ("service", &case.want.service), ("version", &case.want.version)] {
        if let Some(name) = name {
            out.insert(key.into(), text(name));
        }
    }
    if let Some(status) = case.want.status {
        out.insert("status".into(), status.into());
    }
    out.into()
}

fn by_name<'c, V: 'c>(
    entries: impl Iterator<Item = (&'c super::model::Name, &'c V)>,
    write: impl Fn(&V) -> Value,
) -> Value {
    entries.map(|(name, value)| (name.to_string(), write(value))).collect::<Map<_, _>>().into()
}

fn value_match(value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Present => json!({ "present": true }),
        ValueMatch::Exact(exact) => text(exact),
    }
}

/// One value as it is, several of one name as a list.
fn headers(fields: &[(HeaderName, HeaderValue)]) -> Value {
    let mut out = Map::new();
    for (name, field) in fields {
        match out.get_mut(name.as_str()) {
            None => drop(out.insert(name.to_string(), value(field))),
            Some(Value::Array(values)) => values.push(value(field)),
            Some(one) => *one = json!([one.take(), value(field)]),
        }
    }
    out.into()
}

fn value(value: &HeaderValue) -> Value {
    text(value.to_str().unwrap_or_default())
}

fn text(text: &str) -> Value {
    escape(text).into()
}
