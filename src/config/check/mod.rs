//! Raw to [`Config`]: what the keys mean together. Every problem is reported, none stops the rest.
//!
//! Pure: files, environment and places are handed in. A value that was reported is replaced by a
//! placeholder, so that the checks after it still run; a configuration with errors is never returned.

mod dns;
mod endpoints;
mod expect;
mod guardrails;
mod headers;
mod health;
mod http2;
mod listeners;
mod notices;
mod paths;
mod policy;
mod resilience;
mod rollout;
mod routes;
mod secret;
mod services;
mod stages;
mod tls;
mod upgrade;
mod upstream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::certificate::{Dates, Roots};
use super::decode::Field;
use super::found::{Found, Span};
use super::hint;
use super::model::{self, Config, Name};
use super::raw::Raw;
use super::scalar;

/// What the checks need from outside.
pub struct Around<'a> {
    /// The directory that relative paths of a source file (by number) start from.
    pub bases: &'a [PathBuf],
    /// Reads a small text file; the error is for people.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The same for a page that clients are shown.
    pub read_page: &'a dyn Fn(&Path) -> Result<String, String>,
    /// Reads a file of certificates or keys.
    pub read_bytes: &'a dyn Fn(&Path) -> Result<Vec<u8>, String>,
    /// Whom the system trusts; the error is for people.
    pub system_roots: &'a dyn Fn() -> Result<Roots, String>,
    /// Seconds since the Unix epoch.
    pub now: i64,
    /// Which certificates may be out of date.
    pub dates: &'a Dates,
    /// `file:line` of a span. Asked in file order.
    pub place: &'a mut dyn FnMut(Span) -> String,
}

impl Around<'_> {
    /// A path as written, from the directory of its file on.
    fn path(&self, path: impl AsRef<Path>, span: Span) -> PathBuf {
        // Through components, which drops `./`.
        self.bases[span.file as usize].join(path).components().collect()
    }
}

/// The configuration, valid only if `found` has no errors afterwards.
pub fn check(raw: &Raw, around: &mut Around<'_>, found: &mut Found) -> Config {
    let listeners = listeners::listeners(raw, around, found);
    let admin = listeners::admin(raw, &listeners, around, found);
    let gates = notices::gates(raw, found);
    let notifications = notices::notifications(raw, around, found);
    let known = notices::Known::of(raw);
    let services: BTreeMap<Name, model::Service> = raw
        .services
        .get()
        .into_iter()
        .flat_map(|map| map.iter())
        .filter_map(|entry| {
            let raw = entry.value.as_ref()?;
            Some((name(&entry.key.value), services::service(&entry.key, raw, &known, around, found)))
        })
        .collect();
    let names = Names::of(raw);
    let routes = routes::routes(raw, &names, found);
    let expect = expect::expect(raw, &names, around, found);
    unused(raw, found);
    notices::unused(raw, found);
    rollout::groups(raw, found);
    Config {
        state_dir: raw.state_dir.written().map(|(path, span)| around.path(&path.0, span)),
        listeners,
        admin,
        expose: model::Expose { response_headers: raw.expose.get().is_some_and(|it| it.response_headers.value().0) },
        access_log: access_log(raw, around),
        request_id: policy::request_id(raw, found),
        shutdown: shutdown(raw, found),
        upgrade: upgrade::upgrade(raw, found),
        dns: dns::dns(raw, found),
        routes,
        services,
        gates,
        notifications,
        expect,
    }
}

/// Everything that can be named, found in one step: files may have a hundred thousand of each.
struct Names<'r> {
    services: Vec<&'r str>,
    versions: HashMap<&'r str, Vec<&'r str>>,
    routes: Vec<&'r str>,
    routes_known: HashSet<&'r str>,
    any_version: HashSet<&'r str>,
    /// The services could be read at all; without that nothing can be said about names.
    complete: bool,
}

impl<'r> Names<'r> {
    fn of(raw: &'r Raw) -> Self {
        let entries = || raw.services.get().into_iter().flat_map(|map| map.iter());
        let versions: HashMap<&str, Vec<&str>> = entries()
            .map(|entry| {
                let versions = entry.value.as_ref().and_then(|service| service.versions.get());
                let names = versions.into_iter().flat_map(|map| map.iter()).map(|it| it.key.value.as_str());
                (entry.key.value.as_str(), names.collect())
            })
            .collect();
        let routes = raw.routes.get().into_iter().flat_map(|list| list.good());
        let routes: Vec<&str> = routes.filter_map(|(route, _)| route.name.get()).map(|name| name.0.as_str()).collect();
        Self {
            services: entries().map(|entry| entry.key.value.as_str()).collect(),
            any_version: versions.values().flatten().copied().collect(),
            versions,
            routes_known: routes.iter().copied().collect(),
            routes,
            complete: raw.services.get().is_some(),
        }
    }

    /// Says so if there is no such service.
    fn service(&self, service: &scalar::Name, span: Span, found: &mut Found) {
        if self.complete && !self.versions.contains_key(service.0.as_str()) {
            unknown_name("service", &service.0, &self.services, "the services are", span, found);
        }
    }

    /// Says so if there is no such route.
    fn route(&self, route: &scalar::Name, span: Span, found: &mut Found) {
        if !self.routes_known.contains(route.0.as_str()) {
            unknown_name("route", &route.0, &self.routes, "the routes are", span, found);
        }
    }
}

/// "service `api` has no version `gren`", with what there is and what was meant.
fn known_version(service: &str, version: &str, versions: &[&str], span: Span, found: &mut Found) {
    if versions.contains(&version) {
        return;
    }
    found
        .error(span, format!("service `{service}` has no version `{version}`"))
        .why(format!("its versions are {}", few(versions)))
        .maybe_hint(hint::nearest(version, versions.iter().copied()).map(|near| format!("did you mean `{near}`?")));
}

fn unknown_name(kind: &str, wrong: &str, names: &[&str], lead: &str, span: Span, found: &mut Found) {
    if found.is_full() {
        found.error(span, format!("there is no {kind} `{wrong}`"));
        return;
    }
    found
        .error(span, format!("there is no {kind} `{wrong}`"))
        .why(format!("{lead} {}", few(names)))
        .maybe_hint(hint::nearest(wrong, names.iter().copied()).map(|near| format!("did you mean `{near}`?")));
}

fn few(names: &[&str]) -> String {
    match names {
        [first @ .., _, _] if first.len() > 8 => format!("`{}` and {} more", names[..8].join("`, `"), names.len() - 8),
        [..] => hint::list(names),
    }
}

/// Services that no route names: probably forgotten, so a warning.
fn unused(raw: &Raw, found: &mut Found) {
    let named: HashSet<&str> = raw
        .routes
        .get()
        .into_iter()
        .flat_map(|routes| routes.good())
        .filter_map(|(route, _)| route.service.get())
        .map(|service| service.0.as_str())
        .collect();
    let Some(services) = raw.services.get() else { return };
    for entry in services.iter().filter(|entry| !named.contains(entry.key.value.as_str())) {
        found
            .warning(entry.key.span, format!("service `{}` gets no requests", entry.key.value))
            .why("no route names it");
    }
}

fn access_log(raw: &Raw, around: &Around<'_>) -> model::AccessLog {
    let Some(log) = raw.access_log.get() else {
        return model::AccessLog { to: model::AccessLogTarget::Off, buffer: 0 };
    };
    let to = match &log.to {
        Field::Given { value: scalar::LogTarget::Stdout, .. } => model::AccessLogTarget::Stdout,
        Field::Given { value: scalar::LogTarget::File(path), span, .. } => {
            model::AccessLogTarget::File(around.path(path, *span))
        }
        Field::Given { value: scalar::LogTarget::Off, .. } | Field::Missing | Field::Bad => model::AccessLogTarget::Off,
    };
    model::AccessLog { to, buffer: log.buffer.value().0 as usize }
}

fn shutdown(raw: &Raw, found: &mut Found) -> model::Shutdown {
    let Some(it) = raw.shutdown.get() else {
        return model::Shutdown { pre_drain: Duration::ZERO, linger: Duration::ZERO, timeout: Duration::ZERO };
    };
    let shutdown = model::Shutdown {
        pre_drain: it.pre_drain.value().0,
        linger: it.linger.value().0,
        timeout: it.timeout.value().0,
    };
    let complete = it.pre_drain.get().is_some() && it.linger.get().is_some() && it.timeout.get().is_some();
    if complete && shutdown.pre_drain + shutdown.linger > shutdown.timeout {
        let spans =
            [it.timeout.written().map(|w| w.1), it.pre_drain.written().map(|w| w.1), it.linger.written().map(|w| w.1)];
        let span = spans.into_iter().flatten().next().unwrap_or_default();
        found
            .error(span, "`shutdown.timeout` is shorter than `pre_drain` and `linger` together")
            .why(format!(
                "{} is less than {} + {}",
                scalar::write_time(shutdown.timeout),
                scalar::write_time(shutdown.pre_drain),
                scalar::write_time(shutdown.linger)
            ))
            .hint("raise `timeout`, or lower the other two");
    }
    shutdown
}

fn name(text: &str) -> Name {
    Arc::from(text)
}
