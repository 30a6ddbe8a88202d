//! Sockets: listeners and admin, and that no two of them want the same address.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::decode::Field;
use super::super::found::{Found, Span};
use super::super::model::{self, Listener, ListenerLimits, ListenerTimeouts, Name};
use super::super::raw::{self, Raw};
use super::super::scalar;
use super::Around;

pub fn listeners(raw: &Raw, around: &Around<'_>, found: &mut Found) -> BTreeMap<Name, Listener> {
    let mut listeners = BTreeMap::new();
    let Some(map) = raw.listeners.get() else { return listeners };
    if map.0.is_empty() {
        let nowhere = raw.listeners.key().map(|key| found.error(key, "there are no listeners"));
        let finding = match nowhere {
            Some(finding) => finding,
            None => found.error_nowhere("there are no listeners"),
        };
        finding.hint("add one: `listeners: { web: { bind: \"0.0.0.0:8080\" } }`");
    }
    let mut bound: HashMap<u16, Vec<(&str, SocketAddr)>> = HashMap::new();
    for entry in map.iter() {
        let Some(raw) = &entry.value else { continue };
        if let Some((bind, span)) = raw.bind.written() {
            let same_port = bound.entry(bind.0.port()).or_default();
            if let Some((other, _)) = same_port.iter().find(|(_, address)| overlap(*address, bind.0)) {
                found
                    .error(span, format!("listeners `{other}` and `{}` bind the same address", entry.key.value))
                    .why(format!("`{}` is taken by `{other}`", bind.0))
                    .hint("give one of them another port");
            }
            // One is enough to tell all that come after it.
            if same_port.len() < 64 {
                same_port.push((&entry.key.value, bind.0));
            }
        }
        listeners.insert(super::name(&entry.key.value), listener(raw, around, found));
    }
    listeners
}

pub fn admin(raw: &Raw, listeners: &BTreeMap<Name, Listener>, around: &Around<'_>, found: &mut Found) -> model::Admin {
    let placeholder =
        model::Admin { bind: model::AdminBind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), insecure: false };
    let Some(admin) = raw.admin.get() else { return placeholder };
    let insecure = admin.insecure.value().0;
    let (bind, span) = match &admin.bind {
        Field::Given { value, span, .. } => (value, *span),
        Field::Missing | Field::Bad => return placeholder,
    };
    let bind = match bind {
        scalar::AdminBind::Unix(path) => model::AdminBind::Unix(around.path(path, span)),
        scalar::AdminBind::Tcp(address) => {
            if !address.ip().is_loopback() && !insecure {
                found
                    .error(span, "the admin API would be open to other machines without encryption")
                    .why(format!("`{}` is not a loopback address", address.ip()))
                    .hint("bind 127.0.0.1 or `unix:/path`; or write `insecure: true` if the network is trusted");
            }
            if let Some((name, _)) = listeners.iter().find(|(_, it)| overlap(it.bind, *address)) {
                found
                    .error(span, format!("the admin API and listener `{name}` bind the same address"))
                    .hint("give one of them another port");
            }
            model::AdminBind::Tcp(*address)
        }
    };
    model::Admin { bind, insecure }
}

fn listener(raw: &raw::Listener, around: &Around<'_>, found: &mut Found) -> Listener {
    let timeouts = raw.timeouts.get();
    let time = |pick: fn(&raw::ListenerTimeouts) -> &Field<scalar::Time<1>>| timeouts.map(|it| pick(it).value().0);
    let limits = raw.limits.get();
    let limits = ListenerLimits {
        connections: limits.map_or(0, |it| it.connections.value().0 as usize),
        handshakes: limits.map_or(0, |it| it.handshakes.value().0 as usize),
        header_bytes: limits.map_or(0, |it| it.header_bytes.value().0 as usize),
        header_fields: limits.map_or(0, |it| it.header_fields.value().0 as usize),
        target_bytes: limits.map_or(0, |it| it.target_bytes.value().0 as usize),
    };
    if let Some(raw) = raw.limits.get() {
        let written = |span: Option<Span>| span.filter(|_| raw.header_bytes.get().is_some());
        let span = written(raw.target_bytes.written().map(|it| it.1).or(raw.header_bytes.written().map(|it| it.1)));
        if let (Some(span), true, true) =
            (span, raw.target_bytes.get().is_some(), limits.target_bytes > limits.header_bytes)
        {
            found
                .error(span, "`target_bytes` is larger than `header_bytes`")
                .why("the request target is part of the head")
                .hint("raise `header_bytes`, or lower `target_bytes`");
        }
    }
    Listener {
        bind: raw.bind.value().0,
        tls: raw.tls.get().and_then(|tls| super::tls::tls(tls, &raw.tls, around, found)).map(Arc::new),
        timeouts: ListenerTimeouts {
            handshake: time(|it| &it.handshake).unwrap_or_default(),
            header: time(|it| &it.header).unwrap_or_default(),
            idle: time(|it| &it.idle).unwrap_or_default(),
            body: time(|it| &it.body).unwrap_or_default(),
            write: time(|it| &it.write).unwrap_or_default(),
        },
        limits,
        policy: super::policy::listener(raw, found),
        http2: super::http2::http2(raw),
    }
}

/// Would the kernel refuse the second? Port 0 is a fresh port each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let same_family = a.is_ipv4() == b.is_ipv4();
    one.port() != 0
        && one.port() == other.port()
        && (a == b || (same_family && (a.is_unspecified() || b.is_unspecified())))
}
