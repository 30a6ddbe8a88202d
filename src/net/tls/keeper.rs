//! Keeps certificates as they are on disk. A changed file needs no edit of the configuration and no signal: once
//! the new content has come to rest and has been proved (the same proof as for a new configuration), the
//! listener gets a new [`Server`]. If it cannot be used, the one before goes on, and log, events, status and a
//! metric say so.
//!
//! Certificate and key are two files, and between the two writes they do not belong together. So what is wrong
//! is reported only when it stays wrong for [`GRACE`]; what is right is used at once.
//!
//! Time passes as well: certificates expire and staples go stale, which nobody's write tells.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::outbound;
use super::server::Server;
use crate::config::certificate::{Described, Files, Material, Part, Roots, Unfit, date};
use crate::config::model::Name;
use crate::config::model::tls::{Asks, Certificate, ClientAuth, Tls};
use crate::config::{digest, load};
use crate::control::Live;
use crate::control::eyes::Eyes;
use crate::control::trail::Trail;
use crate::endpoints::{Secure, SecureCell};
use crate::net::listeners::{ListenerState, Manager, OpenSet};
use crate::telemetry::{Event, Events, names};

/// From a hint to the first look, and between looks while files change.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long the content must have been the same.
const QUIET: Duration = Duration::from_millis(300);
/// How long files may not belong together before somebody is told.
const GRACE: Duration = Duration::from_millis(1500);
/// How long a writer that does not close a file is waited for.
const OPEN_FOR: Duration = Duration::from_secs(10);
/// Between two looks without a hint.
const POLL: Duration = Duration::from_secs(5);
/// Between two looks at dates and ticket keys.
const DATES: Duration = Duration::from_secs(60);
/// Seconds before the end of a certificate at which it is said.
const SOON: i64 = 7 * 24 * 3600;

/// What was read, by file; the error is for people.
pub(super) type Contents = HashMap<PathBuf, Result<Vec<u8>, String>>;

pub struct Keeper {
    manager: Arc<Manager>,
    live: Arc<Live>,
    events: Events,
    open: watch::Receiver<Arc<OpenSet>>,
    eyes: Eyes,
    /// Hash of the content that was dealt with.
    done: Option<[u8; 32]>,
    /// What was said about dates, by fingerprint.
    told: HashMap<[u8; 32], Dated>,
    ticket_trouble: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dated {
    Good,
    Soon,
    Expired,
}

/// What the files of one listener would make of it.
struct Verdict {
    /// Set if something is different and good.
    next: Option<Tls>,
    /// Labels of what is new.
    swapped: Vec<String>,
    /// By label, what cannot be used.
    troubles: BTreeMap<String, String>,
}

impl Keeper {
    pub fn new(manager: Arc<Manager>, live: Arc<Live>, events: Events) -> Keeper {
        let open = manager.opened();
        let eyes = Eyes::new(true, OPEN_FOR, "certificates");
        Keeper { manager, live, events, open, eyes, done: None, told: HashMap::new(), ticket_trouble: None }
    }

    /// Until dropped.
    pub async fn run(mut self) {
        let mut dates = tokio::time::interval(DATES);
        dates.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut published = self.live.subscribe();
        loop {
            self.settle().await;
            tokio::select! {
                changed = self.open.changed() => match changed {
                    // What was compiled may be older by now than what was swapped in meanwhile.
                    Ok(()) => self.done = None,
                    Err(_) => return,
                },
                changed = published.changed() => match changed {
                    Ok(()) => self.done = None,
                    Err(_) => return,
                },
                hinted = self.eyes.hinted(POLL) => if hinted { tokio::time::sleep(DEBOUNCE).await },
                _ = dates.tick() => self.look_at_dates(),
            }
        }
    }

    fn secured(&self) -> Vec<(Arc<ListenerState>, Arc<Server>)> {
        let open = self.open.borrow();
        let secured = open.values().filter_map(|open| Some((open.state.clone(), open.state.tls.load_full()?)));
        secured.collect()
    }

    /// Looks until what is on disk is what serves, or has been told to be unusable.
    async fn settle(&mut self) {
        let mut last: Option<([u8; 32], Instant)> = None;
        loop {
            let (secured, outbound) = (self.secured(), outbound::cells(&self.live));
            let mut files: Vec<PathBuf> =
                secured.iter().flat_map(|(_, server)| server.tls.files()).map(Path::to_path_buf).collect();
            for (_, cell) in &outbound {
                files.extend(cell.load().of.files().into_iter().map(Path::to_path_buf));
            }
            self.eyes.arm(Trail::of_files(files.iter().map(PathBuf::as_path)));
            if files.is_empty() {
                return;
            }
            let Ok((contents, hash)) = tokio::task::spawn_blocking(move || read(files)).await else { return };
            if self.done == Some(hash) {
                return;
            }
            let now = Instant::now();
            let since = last.filter(|(before, _)| *before == hash).map_or(now, |(_, since)| since);
            last = Some((hash, since));
            let quiet = if self.eyes.have_events() { QUIET } else { QUIET * 2 };
            // The first look after a change of the configuration compares only: its content was proved just now.
            if now - since >= quiet && !self.eyes.is_being_written() {
                let patient = now - since < GRACE;
                let inward = self.act(&secured, &contents, patient);
                if self.act_outward(&outbound, &contents, patient) && inward {
                    self.done = Some(hash);
                    return;
                }
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Whether everything was dealt with. `patient`: what is wrong may still become right.
    fn act(&mut self, secured: &[(Arc<ListenerState>, Arc<Server>)], contents: &Contents, patient: bool) -> bool {
        let mut finished = true;
        for (state, server) in secured {
            let verdict = judge(&server.tls, contents, load::now());
            if let Some(next) = verdict.next {
                finished &= self.swap(state, server, next, &verdict.swapped);
            }
            if verdict.troubles.is_empty() || !patient {
                self.say(state, verdict.troubles);
            } else {
                finished = false;
            }
        }
        finished
    }

    /// As [`Keeper::act`], for connections to endpoints.
    fn act_outward(&self, outbound: &[(Name, Arc<SecureCell>)], contents: &Contents, patient: bool) -> bool {
        let mut finished = true;
        for (service, cell) in outbound {
            let before = cell.trouble.load_full();
            match outbound::judge(&cell.load().of, contents, load::now()) {
                Ok(next) => {
                    if before.is_some() {
                        info!(%service, "the files for TLS to endpoints are good again");
                        cell.trouble.store(None);
                    }
                    let Some(next) = next else { continue };
                    metrics::counter!(names::TLS_CERTIFICATE_RELOADS_TOTAL, "result" => "ok").increment(1);
                    info!(%service, "files for TLS to endpoints swapped: new connections use them");
                    self.tell_of(
                        "certificate",
                        format!("service {service}: files for TLS to endpoints swapped"),
                        service,
                    );
                    cell.swap(Arc::new(next));
                }
                Err(_) if patient => finished = false,
                Err(why) if before.as_deref() == Some(&why) => {}
                Err(why) => {
                    metrics::counter!(names::TLS_CERTIFICATE_RELOADS_TOTAL, "result" => "failed").increment(1);
                    warn!(%service, why, "changed files cannot be used; what was read before goes on");
                    let message =
                        format!("service {service}: changed files for TLS to endpoints cannot be used: {why}");
                    self.tell_of("certificate_failed", message, service);
                    cell.trouble.store(Some(Arc::new(why)));
                }
            }
        }
        finished
    }

    /// `false`: another configuration came in between; look again.
    fn swap(&self, state: &ListenerState, from: &Arc<Server>, tls: Tls, swapped: &[String]) -> bool {
        let until: Vec<String> = tls
            .certificates
            .iter()
            .filter(|one| swapped.contains(&one.label()))
            .map(|one| format!("{} until {}", one.label(), date(one.material.own.not_after)))
            .collect();
        match Server::build(Arc::new(tls), self.manager.tickets(), load::now()) {
            Ok(server) => {
                if !state.swap_tls(from, Arc::new(server)) {
                    return false;
                }
                metrics::counter!(names::TLS_CERTIFICATE_RELOADS_TOTAL, "result" => "ok").increment(1);
                let what = if until.is_empty() { "authorities of clients".to_string() } else { until.join(", ") };
                info!(listener = %state.name, what, "certificates swapped");
                self.tell("certificate", format!("listener {}: swapped: {what}", state.name), &state.name);
            }
            Err(why) => {
                // The proof has overlooked something: the old one goes on.
                error!(listener = %state.name, why, "new certificates could not be used; the old ones go on");
            }
        }
        true
    }

    /// Says what is wrong, once, and that it is right again.
    fn say(&self, state: &ListenerState, troubles: BTreeMap<String, String>) {
        let before = state.troubles.load_full();
        if *before == troubles {
            return;
        }
        for (label, why) in troubles.iter().filter(|(label, why)| before.get(*label) != Some(why)) {
            metrics::counter!(names::TLS_CERTIFICATE_RELOADS_TOTAL, "result" => "failed").increment(1);
            warn!(listener = %state.name, certificate = label, why, "changed files cannot be used; what was read before goes on");
            let message = format!("listener {}: changed files of {label} cannot be used: {why}", state.name);
            self.tell("certificate_failed", message, &state.name);
        }
        for label in before.keys().filter(|label| !troubles.contains_key(*label)) {
            info!(listener = %state.name, certificate = label, "the files are good again");
        }
        state.troubles.store(Arc::new(troubles));
    }

    fn look_at_dates(&mut self) {
        let now = load::now();
        let secured = self.secured();
        let outbound: Vec<(Name, Arc<Secure>)> =
            outbound::cells(&self.live).into_iter().map(|(service, cell)| (service, cell.get())).collect();
        let ours = || outbound.iter().filter_map(|(service, secure)| Some((service, secure.of.identity.as_ref()?)));
        let served = |fingerprint: &[u8; 32]| {
            let all = secured.iter().flat_map(|(_, server)| &server.tls.certificates);
            let all = all.map(|one| &one.material).chain(ours().map(|(_, identity)| &identity.material));
            all.into_iter().any(|material| material.own.fingerprint == *fingerprint)
        };
        self.told.retain(|fingerprint, _| served(fingerprint));
        let troubled = |(_, cell): &(Name, Arc<SecureCell>)| cell.trouble.load().is_some();
        if secured.iter().any(|(state, _)| !state.troubles.load().is_empty())
            || outbound::cells(&self.live).iter().any(troubled)
        {
            // What was not good yet may be good by now, though nobody has written anything.
            self.done = None;
        }
        for (service, identity) in ours() {
            let label = shown(&identity.cert_file);
            if let Some(message) = self.look_at(&label, &identity.material.own, now) {
                self.tell_of("certificate_expiry", format!("service {service}: {message}"), service);
            }
        }
        for (state, server) in secured {
            for certificate in &server.tls.certificates {
                if let Some(message) = self.look_at(&certificate.label(), &certificate.material.own, now) {
                    self.tell("certificate_expiry", format!("listener {}: {message}", state.name), &state.name);
                }
            }
            // A staple that has gone stale is left out from now on.
            if !server.lacks_staple && server.tls.certificates.iter().any(|one| one.material.has_stale_staple(now)) {
                warn!(listener = %state.name, "an OCSP answer is not fresh any more and is not stapled");
                if let Ok(next) = Server::build(server.tls.clone(), self.manager.tickets(), now) {
                    // Lost only to a newer one, which will be looked at as well.
                    let _ = state.swap_tls(&server, Arc::new(next));
                }
            }
        }
        let trouble = self.manager.tickets().rotate(now).err();
        if let Some(why) = trouble.as_ref().filter(|why| self.ticket_trouble.as_ref() != Some(why)) {
            warn!(why, "ticket keys cannot be kept: clients of this process will not resume with the next one");
        }
        self.ticket_trouble = trouble;
    }

    /// What is to be told, once.
    fn look_at(&mut self, label: &str, own: &Described, now: i64) -> Option<String> {
        let dated = match own.not_after - now {
            ..=0 => Dated::Expired,
            1..SOON => Dated::Soon,
            _ => Dated::Good,
        };
        let before = self.told.insert(own.fingerprint, dated).unwrap_or(Dated::Good);
        if dated <= before {
            return None;
        }
        let until = date(own.not_after);
        match dated {
            Dated::Good => None,
            Dated::Soon => {
                warn!(certificate = label, until, "a certificate expires soon");
                Some(format!("the certificate for {label} expires at {until}"))
            }
            Dated::Expired => {
                error!(certificate = label, until, "a certificate has expired; it is still used");
                Some(format!("the certificate for {label} has expired at {until}"))
            }
        }
    }

    fn tell_of(&self, kind: &'static str, message: String, service: &str) {
        self.events.emit(Event { kind, service: Some(service.into()), message, ..Event::default() });
    }

    fn tell(&self, kind: &'static str, message: String, listener: &str) {
        self.events.emit(Event { kind, message, data: json!({ "listener": listener }), ..Event::default() });
    }
}

fn read(mut files: Vec<PathBuf>) -> (Contents, [u8; 32]) {
    files.sort();
    files.dedup();
    let read: Vec<_> = files.into_iter().map(|path| (load::read_certificates(&path), path)).collect();
    let parts = read.iter().flat_map(|(content, path)| {
        let (kind, bytes) = match content {
            Ok(bytes) => (&b"+"[..], bytes.as_slice()),
            Err(why) => (&b"-"[..], why.as_bytes()),
        };
        [path.as_os_str().as_encoded_bytes(), kind, bytes]
    });
    let hash = digest(parts);
    (read.into_iter().map(|(content, path)| (path, content)).collect(), hash)
}

fn judge(tls: &Tls, contents: &Contents, now: i64) -> Verdict {
    let mut next = tls.clone();
    let mut verdict = Verdict { next: None, swapped: Vec::new(), troubles: BTreeMap::new() };
    let mut changed = false;
    let listener_auth = next.client_auth.as_mut();
    let own_auth = next.certificates.iter_mut().filter_map(|one| match &mut one.asks {
        Asks::Clients(auth) => Some(auth),
        Asks::AsListener | Asks::Nobody => None,
    });
    for auth in listener_auth.into_iter().chain(own_auth) {
        match roots(auth, contents) {
            Ok(Some(new)) => {
                auth.roots = new;
                changed = true;
            }
            Ok(None) => {}
            Err(why) => drop(verdict.troubles.insert(shown(&auth.ca_file), why)),
        }
    }
    for one in &mut next.certificates {
        let label = one.label();
        match material(one, contents, now) {
            Ok((new, trouble)) => {
                if new != *one.material {
                    one.material = Arc::new(new);
                    verdict.swapped.push(label.clone());
                    changed = true;
                }
                if let Some(why) = trouble {
                    verdict.troubles.insert(label, why);
                }
            }
            Err(why) => drop(verdict.troubles.insert(label, why)),
        }
    }
    match next.clash() {
        Some(why) if changed => {
            for label in verdict.swapped.drain(..) {
                verdict.troubles.insert(label, why.clone());
            }
        }
        Some(_) | None if changed => verdict.next = Some(next),
        Some(_) | None => {}
    }
    verdict
}

fn roots(auth: &ClientAuth, contents: &Contents) -> Result<Option<Roots>, String> {
    let name = shown(&auth.ca_file);
    let new = Roots::read(&name, content(&auth.ca_file, contents)?).map_err(told)?;
    Ok((new != auth.roots).then_some(new))
}

/// With what is wrong besides: a certificate is good without its staple.
fn material(one: &Certificate, contents: &Contents, now: i64) -> Result<(Material, Option<String>), String> {
    let (cert_name, key_name) = (shown(&one.cert_file), shown(&one.key_file));
    let files = Files {
        cert: (&cert_name, content(&one.cert_file, contents)?),
        key: (&key_name, content(&one.key_file, contents)?),
        ocsp: None,
    };
    let staple = one.ocsp_file.as_ref().map(|path| (shown(path), content(path, contents)));
    let (material, trouble) = match &staple {
        None => (Material::read(files, now), None),
        Some((_, Err(why))) => (Material::read(files, now), Some(why.clone())),
        Some((name, Ok(bytes))) => match Material::read(Files { ocsp: Some((name, bytes)), ..files }, now) {
            Err(unfit) if unfit.part == Part::Staple => (Material::read(files, now), Some(told(unfit))),
            read => (read, None),
        },
    };
    let material = material.map_err(told)?;
    // What serves goes on whatever its date; what is new must be good.
    match material.is_out_of_date(&cert_name, now) {
        Some(unfit) if material.own.fingerprint != one.material.own.fingerprint => Err(told(unfit)),
        Some(_) | None => Ok((material, trouble)),
    }
}

pub(super) fn content<'c>(path: &Path, contents: &'c Contents) -> Result<&'c [u8], String> {
    match contents.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(why)) => Err(format!("{} cannot be read: {why}", path.display())),
        None => Err(format!("{} was not looked at", path.display())),
    }
}

pub(super) fn told(unfit: Unfit) -> String {
    unfit.to_string()
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
