//! Listening sockets by name: bound before a generation is published, accepted on by every data thread,
//! removed without losing a connection that the kernel has already taken.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};

use super::entrance::{Closed, Entrance};
use super::tls;
use super::tls::gate::Gate;
use super::tls::handshake::Handshakes;
use super::tls::tickets::TicketKeys;
use crate::config::certificate::Fingerprint;
use crate::config::load;
use crate::config::model::tls::Tls;
use crate::config::model::{Listener, Name};
use crate::control::api::ListenerStatus;
use crate::control::ports::{Listeners, Prepared};
use crate::sockets::{Claim, Direct, Key, Sockets};

/// What the connections of one listener share.
#[derive(Debug)]
pub struct ListenerState {
    pub name: Name,
    /// Limits and timeouts; changed by a reload for connections that are open already.
    pub config: ArcSwap<Listener>,
    /// What new connections are encrypted with; `None`: plain HTTP.
    pub tls: ArcSwapOption<tls::Server>,
    pub gate: Arc<Gate>,
    pub handshakes: Handshakes,
    /// Files that cannot be used as they are on disk, by what they are for.
    pub troubles: ArcSwap<BTreeMap<String, String>>,
    /// Connections, and places that accept loops keep ready for the next one.
    open: AtomicUsize,
    accepted: AtomicUsize,
    draining: AtomicBool,
    closed_one: Notify,
    pub entrance: Entrance,
}

/// A place for a connection, kept for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection {
    state: Arc<ListenerState>,
    accepted: bool,
}

impl OpenConnection {
    /// There is a connection in it now.
    pub fn accepted(mut self) -> OpenConnection {
        self.accepted = true;
        self.state.accepted.fetch_add(1, Ordering::AcqRel);
        self
    }
}

impl ListenerState {
    fn new(name: Name, listener: Listener) -> ListenerState {
        ListenerState {
            name,
            config: ArcSwap::from_pointee(listener),
            tls: ArcSwapOption::const_empty(),
            gate: Arc::default(),
            handshakes: Handshakes::default(),
            troubles: ArcSwap::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            closed_one: Notify::new(),
            entrance: Entrance::default(),
        }
    }

    /// The process tries itself on it: what is refused there is no client's.
    pub fn is_trial(&self) -> bool {
        *self.name == *TRIAL
    }

    /// `None` while the listener has as many connections as it may have.
    pub fn try_open(self: &Arc<Self>) -> Option<OpenConnection> {
        let max = self.config.load().limits.connections;
        if self.open.fetch_add(1, Ordering::AcqRel) >= max {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(OpenConnection { state: self.clone(), accepted: false })
    }

    /// Connections that are open.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// Resolves when a connection was closed since this future was created.
    pub async fn closed_one(&self) {
        self.closed_one.notified().await;
    }

    /// Puts `next` in the place of `from`. `false`: there is another by now.
    pub fn swap_tls(&self, from: &Arc<tls::Server>, next: Arc<tls::Server>) -> bool {
        let before = self.tls.compare_and_swap(from, Some(next));
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, from))
    }

    /// The listener is gone from the configuration: each answer is the last on its connection.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::AcqRel);
        if self.accepted {
            self.state.accepted.fetch_sub(1, Ordering::AcqRel);
        }
        self.state.closed_one.notify_one();
    }
}

/// A socket that is accepted on.
#[derive(Debug, Clone)]
pub struct Open {
    pub state: Arc<ListenerState>,
    pub socket: Arc<TcpListener>,
    pub address: SocketAddr,
    bind: SocketAddr,
}

pub type OpenSet = BTreeMap<Name, Open>;

/// Owns the sockets; data threads follow [`Manager::subscribe`].
#[derive(Debug)]
pub struct Manager {
    sockets: Arc<dyn Sockets>,
    open: watch::Sender<Arc<OpenSet>>,
    /// Those of `open`. A socket is given up before its queue is emptied: nothing may follow what was in it.
    claims: Mutex<Claims>,
    /// What is accepted on: `open`, or nothing before the process is ready.
    accepting: watch::Sender<Arc<OpenSet>>,
    closed: AtomicBool,
    tickets: Arc<TicketKeys>,
    /// Listeners that are gone, while they have connections left. Their sockets are not kept.
    leaving: Mutex<Vec<Leaving>>,
}

#[derive(Debug)]
struct Leaving {
    state: Arc<ListenerState>,
    address: SocketAddr,
    bind: SocketAddr,
    since: Instant,
}

/// No name that a configuration can give.
const TRIAL: &str = "(trial)";

/// How long data threads may take to empty the queue of a socket that was given up, and close it.
const CLOSING: Duration = Duration::from_millis(500);

type Claims = BTreeMap<Key, Arc<Claim>>;

/// Sockets that were given up, while data threads take what is in their queues.
#[must_use]
#[derive(Debug)]
pub struct Emptying(Vec<Weak<TcpListener>>);

impl Emptying {
    /// Returns when each queue is empty and what was in it counts as a connection; at the latest after half a second.
    pub async fn over(self) {
        let end = Instant::now() + CLOSING;
        while self.0.iter().any(|socket| socket.strong_count() > 0) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Ready {
    wanted: OpenSet,
    configs: BTreeMap<Name, Listener>,
    claims: Claims,
    servers: BTreeMap<Name, Arc<tls::Server>>,
}

impl Manager {
    /// Binds by itself and accepts at once. Fails only if the system has no randomness.
    pub fn new() -> io::Result<Arc<Manager>> {
        let manager = Manager::closed(Arc::new(Direct::new()))?;
        manager.accept();
        Ok(manager)
    }

    /// Nothing is accepted before [`Manager::accept`].
    pub fn closed(sockets: Arc<dyn Sockets>) -> io::Result<Arc<Manager>> {
        Ok(Arc::new(Manager {
            sockets,
            open: watch::Sender::new(Arc::default()),
            claims: Mutex::default(),
            accepting: watch::Sender::new(Arc::default()),
            closed: AtomicBool::new(true),
            tickets: TicketKeys::new()?,
            leaving: Mutex::default(),
        }))
    }

    /// Accepts on a private address only, for the process to try itself before anybody else does.
    pub fn accept_on_trial(&self, listener: Listener) -> io::Result<SocketAddr> {
        let bind = listener.bind;
        let (fd, _) = crate::sockets::bind(&crate::sockets::Address::Tcp(bind))?;
        let socket = TcpListener::from(fd);
        let address = socket.local_addr()?;
        let state = Arc::new(ListenerState::new(TRIAL.into(), listener));
        let open = Open { state, socket: Arc::new(socket), address, bind };
        self.accepting.send_replace(Arc::new(OpenSet::from([(TRIAL.into(), open)])));
        Ok(address)
    }

    /// From now on, whatever is open is accepted on.
    pub fn accept(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.accepting.send_replace(self.open.borrow().clone());
    }

    pub fn tickets(&self) -> &Arc<TicketKeys> {
        &self.tickets
    }

    /// What is accepted on, for data threads.
    pub fn subscribe(&self) -> watch::Receiver<Arc<OpenSet>> {
        self.accepting.subscribe()
    }

    /// What the configuration has open, accepted on already or not.
    pub fn opened(&self) -> watch::Receiver<Arc<OpenSet>> {
        self.open.subscribe()
    }

    /// Stops accepting everywhere; the sockets are closed once their queues are empty, unless another process has
    /// them too.
    pub fn close_all(&self) -> Emptying {
        self.claims.lock().expect("no holder panics").clear();
        let open = self.open.send_replace(Arc::default());
        self.accepting.send_replace(Arc::default());
        Emptying(open.values().map(|open| Arc::downgrade(&open.socket)).collect())
    }

    /// An address that was given up a moment ago is waited for.
    fn bind(&self, key: &Key, address: SocketAddr) -> io::Result<(TcpListener, Claim)> {
        loop {
            match Claim::take(&self.sockets, key.clone()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.is_closing(address) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                bound => return bound.map(|(fd, claim)| (fd.into(), claim)),
            }
        }
    }

    /// What is the same stays the same object.
    fn server(&self, open: Option<&Open>, tls: &Arc<Tls>) -> Result<Arc<tls::Server>, String> {
        match open.and_then(|open| open.state.tls.load_full()) {
            Some(have) if have.tls == *tls => Ok(have),
            Some(_) | None => tls::Server::build(tls.clone(), &self.tickets, load::now()).map(Arc::new),
        }
    }

    fn is_closing(&self, address: SocketAddr) -> bool {
        let leaving = self.leaving.lock().expect("no holder panics");
        leaving.iter().any(|left| left.bind == address && left.since.elapsed() < CLOSING)
    }

    /// Where a listener really is (after a bind to port 0).
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.open.borrow().get(name).map(|open| open.address)
    }
}

impl Listeners for Manager {
    fn prepare(&self, wanted: &BTreeMap<Name, Listener>) -> Result<Prepared, String> {
        let open = self.open.borrow().clone();
        let held = self.claims.lock().expect("no holder panics").clone();
        let mut claims = Claims::new();
        let mut next = OpenSet::new();
        let mut servers = BTreeMap::new();
        for (name, listener) in wanted {
            let key = Key::tcp(listener.bind, name);
            if let Some(claim) = held.get(&key) {
                claims.insert(key.clone(), claim.clone());
            }
            if let Some(tls) = &listener.tls {
                servers.insert(
                    name.clone(),
                    self.server(open.get(name), tls).map_err(|why| format!("listener `{name}`: {why}"))?,
                );
            }
            let same_name = open.get(name).filter(|have| have.bind == listener.bind);
            let entry = match same_name {
                Some(have) => have.clone(),
                None => {
                    // The same address under another name keeps its socket and the queue behind it.
                    let same_socket =
                        open.values().find(|have| have.bind == listener.bind && listener.bind.port() != 0);
                    let socket = match same_socket {
                        Some(have) => have.socket.clone(),
                        None => {
                            let (socket, claim) =
                                self.bind(&key, listener.bind).map_err(|error| explain(name, listener.bind, &error))?;
                            claims.insert(key, Arc::new(claim));
                            Arc::new(socket)
                        }
                    };
                    let address = socket.local_addr().map_err(|error| explain(name, listener.bind, &error))?;
                    let state = Arc::new(ListenerState::new(name.clone(), listener.clone()));
                    Open { state, socket, address, bind: listener.bind }
                }
            };
            next.insert(name.clone(), entry);
        }
        Ok(Box::new(Ready { wanted: next, configs: wanted.clone(), claims, servers }))
    }

    fn settle(&self, prepared: &Prepared) {
        let Some(ready) = prepared.downcast_ref::<Ready>() else {
            unreachable!("control hands back what prepare gave it");
        };
        for (name, open) in &ready.wanted {
            open.state.tls.store(ready.servers.get(name).cloned());
            if **open.state.config.load() != ready.configs[name] {
                open.state.config.store(Arc::new(ready.configs[name].clone()));
                // A raised limit lets the next one in at once.
                open.state.closed_one.notify_waiters();
                open.state.closed_one.notify_one();
            }
        }
    }

    fn commit(&self, prepared: Prepared) {
        let Ok(ready) = prepared.downcast::<Ready>() else {
            unreachable!("control hands back what prepare gave it");
        };
        let before = self.open.borrow().clone();
        let mut leaving = self.leaving.lock().expect("no holder panics");
        leaving.retain(|left| left.state.accepted() > 0 || left.since.elapsed() < CLOSING);
        for (name, open) in before.iter() {
            if !ready.wanted.get(name).is_some_and(|kept| Arc::ptr_eq(&kept.state, &open.state)) {
                open.state.draining.store(true, Ordering::Release);
                let since = Instant::now();
                leaving.push(Leaving { state: open.state.clone(), address: open.address, bind: open.bind, since });
            }
        }
        *self.claims.lock().expect("no holder panics") = ready.claims;
        let wanted = Arc::new(ready.wanted);
        self.open.send_replace(wanted.clone());
        if !self.closed.load(Ordering::SeqCst) {
            self.accepting.send_replace(wanted);
        }
    }

    fn status(&self) -> Vec<ListenerStatus> {
        let line = |state: &ListenerState, address: SocketAddr, draining| ListenerStatus {
            name: state.name.to_string(),
            address: address.to_string(),
            connections: state.accepted() as u64,
            draining,
            refused: Closed::ALL.map(|why| (why.as_str().to_string(), state.entrance.refused(why))).into(),
            tls: state.tls.load().as_ref().map(|server| tls::status::status(server, state)),
        };
        let open = self.open.borrow().clone();
        let mut lines: Vec<ListenerStatus> = open.values().map(|open| line(&open.state, open.address, false)).collect();
        let leaving = self.leaving.lock().expect("no holder panics");
        let left = leaving.iter().map(|left| line(&left.state, left.address, true));
        lines.extend(left.filter(|line| line.connections > 0));
        lines
    }

    fn certificates(&self) -> HashSet<Fingerprint> {
        let open = self.open.borrow();
        let servers = open.values().filter_map(|open| open.state.tls.load_full());
        servers.flat_map(|server| server.fingerprints()).collect()
    }

    fn difference(&self, wanted: &BTreeMap<Name, Listener>) -> (Vec<String>, Vec<String>) {
        let open = self.open.borrow();
        let text = |name: &Name, bind: &SocketAddr| format!("{name} ({bind})");
        let bound = wanted
            .iter()
            .filter(|(_, listener)| !open.values().any(|have| have.bind == listener.bind))
            .map(|(name, listener)| text(name, &listener.bind))
            .collect();
        let closed = open
            .iter()
            .filter(|(_, have)| !wanted.values().any(|listener| listener.bind == have.bind))
            .map(|(name, have)| text(name, &have.bind))
            .collect();
        (bound, closed)
    }
}

fn explain(name: &str, address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "another process listens there (`ss -ltnp sport = :{port}` shows which); stop it or choose another port"
            )
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; use a higher port or grant the capability".to_string()
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_string(),
        _ => "check the address".to_string(),
    };
    format!("listener `{name}` cannot bind {address}: {error}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{ListenerLimits, ListenerTimeouts};

    fn listener(bind: &str, connections: usize) -> Listener {
        let second = Duration::from_secs(1);
        Listener {
            bind: bind.parse().expect("a literal address"),
            tls: None,
            timeouts: ListenerTimeouts { handshake: second, header: second, idle: second, body: second, write: second },
            limits: ListenerLimits {
                connections,
                handshakes: 10,
                header_bytes: 1024,
                header_fields: 10,
                target_bytes: 100,
            },
            policy: Default::default(),
            http2: crate::config::model::Http2::default(),
        }
    }

    fn adopt(manager: &Manager, prepared: Prepared) {
        manager.settle(&prepared);
        manager.commit(prepared);
    }

    fn wanted(entries: &[(&str, &str)]) -> BTreeMap<Name, Listener> {
        entries.iter().map(|(name, bind)| (Name::from(*name), listener(bind, 10))).collect()
    }

    #[test]
    fn a_port_that_is_taken_changes_nothing_and_says_so() {
        let manager = Manager::new().expect("randomness");
        adopt(&manager, manager.prepare(&wanted(&[("web", "127.0.0.1:0")])).expect("a free port"));
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound").to_string();
        let refused = manager.prepare(&wanted(&[("web", "127.0.0.1:0"), ("more", &address)]));
        let message = refused.expect_err("the port is taken");
        assert!(message.contains("`more`") && message.contains(&address) && message.contains("in use"), "{message}");
        assert_eq!(manager.status().len(), 1);
    }

    #[test]
    fn a_renamed_listener_keeps_its_socket() {
        let manager = Manager::new().expect("randomness");
        let address = {
            let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
            probe.local_addr().expect("bound").to_string()
        };
        adopt(&manager, manager.prepare(&wanted(&[("a", &address)])).expect("free again"));
        let before = manager.open.borrow()["a"].socket.clone();
        adopt(&manager, manager.prepare(&wanted(&[("b", &address)])).expect("its own socket"));
        assert!(Arc::ptr_eq(&before, &manager.open.borrow()["b"].socket));
    }

    #[test]
    fn limits_change_without_a_new_socket() {
        let manager = Manager::new().expect("randomness");
        let mut first = wanted(&[("web", "127.0.0.1:0")]);
        adopt(&manager, manager.prepare(&first).expect("a free port"));
        let state = manager.open.borrow()["web"].state.clone();
        let held = state.try_open().expect("room");
        first.get_mut("web").expect("listed").limits.connections = 1;
        adopt(&manager, manager.prepare(&first).expect("nothing to bind"));
        assert!(state.try_open().is_none(), "the new limit holds at once");
        drop(held);
        assert!(state.try_open().is_some());
    }
}
