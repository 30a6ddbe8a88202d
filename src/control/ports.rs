//! What control needs from the rest of the process to carry a publish out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::api::{DrainStatus, ListenerStatus};
use super::live::Snapshot;
use crate::config::certificate::Fingerprint;
use crate::config::model::{AccessLog, Admin, Listener, Name};

/// Sockets that are bound but not yet accepted on. Dropping it closes what was newly bound.
pub type Prepared = Box<dyn std::any::Any + Send>;

/// The client side: listeners that come and go with the configuration.
pub trait Listeners: Send + Sync {
    /// Binds every address that is not open yet, without accepting. On an error everything stays as it
    /// was; the message names the listener, the address and the reason.
    fn prepare(&self, wanted: &BTreeMap<Name, Listener>) -> Result<Prepared, String>;
    /// What is prepared holds for connections that come from now on, where the address is open already. Called before
    /// the flip: whoever sees a generation meets its settings.
    fn settle(&self, prepared: &Prepared);
    /// Begins to accept on what is new and drains what is gone. Called after the flip: the table knows every listener
    /// that is open. Cannot fail.
    fn commit(&self, prepared: Prepared);
    fn status(&self) -> Vec<ListenerStatus>;
    /// The certificates that are shown to clients now.
    fn certificates(&self) -> HashSet<Fingerprint> {
        HashSet::new()
    }
    /// Names that `prepare` would bind and close.
    fn difference(&self, wanted: &BTreeMap<Name, Listener>) -> (Vec<String>, Vec<String>);
}

/// The endpoint side: health checks, name resolution, pooled connections.
pub trait Endpoints: Send + Sync {
    /// Called after every publish: starts checks of new endpoints, stops those of endpoints that are
    /// gone, keeps the rest running.
    fn reconcile(&self, live: &Arc<Snapshot>);
}

/// What still runs on versions that lost their place.
pub trait Drains: Send + Sync {
    /// Called after every publish with what was live before and what is live now. `rolled_back` versions
    /// keep no pinned clients.
    fn published(&self, before: &Arc<Snapshot>, now: &Arc<Snapshot>);
    fn status(&self) -> Vec<DrainStatus>;
}

/// The operator's side: one address that may change with the configuration.
pub trait AdminListener: Send + Sync {
    /// Binds the address unless it is the one in use. On an error everything stays as it was.
    fn prepare(&self, wanted: &Admin) -> Result<Prepared, String>;
    /// Begins to serve on what was prepared and closes the address before, letting running calls finish.
    fn commit(&self, prepared: Prepared);
    /// The address in use, as a person would write it.
    fn address(&self) -> Option<String>;
}

/// The access log's writer, which may change its target with the configuration.
pub trait LogTarget: Send + Sync {
    /// Opens the target. On an error (a directory that does not exist) everything stays as it was.
    fn prepare(&self, wanted: &AccessLog) -> Result<Prepared, String>;
    fn commit(&self, prepared: Prepared);
}

/// Everything control drives outside itself.
#[derive(Clone)]
pub struct Ports {
    pub listeners: Arc<dyn Listeners>,
    pub endpoints: Arc<dyn Endpoints>,
    pub drains: Arc<dyn Drains>,
    pub admin: Arc<dyn AdminListener>,
    pub access_log: Arc<dyn LogTarget>,
}
