//! What control needs from the rest of the process to carry a publish out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api::{DrainStatus, ListenerStatus};
use super::live::Snapshot;
use crate::config::model::{Listener, Name};

/// Sockets that are bound but not yet accepted on. Dropping it closes what was newly bound.
pub type Prepared = Box<dyn std::any::Any + Send>;

/// The client side: listeners that come and go with the configuration.
pub trait Listeners: Send + Sync {
    /// Binds every address that is not open yet, without accepting. On an error everything stays as it
    /// was; the message names the listener, the address and the reason.
    fn prepare(&self, wanted: &BTreeMap<Name, Listener>) -> Result<Prepared, String>;
    /// Begins to accept on what is new and drains what is gone. Cannot fail.
    fn commit(&self, prepared: Prepared);
    fn status(&self) -> Vec<ListenerStatus>;
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
