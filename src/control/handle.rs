//! How the rest of the program talks to control: a cheap, cloneable handle.

use std::sync::Arc;

use super::api::{AuditRecord, Explanation, GenerationInfo, Plan, Receipt, Refused, Request, Status};
use super::live::Live;
use crate::telemetry::Events;

#[derive(Debug, Clone)]
pub struct Handle {
    live: Arc<Live>,
    events: Events,
}

/// The request that `explain` is asked about.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub method: String,
    /// Absolute (`http://host/path?query`) or just a path.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// For `sticky: client_ip`.
    pub client: Option<std::net::IpAddr>,
}

impl Handle {
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }
    pub fn events(&self) -> &Events {
        &self.events
    }
    /// Carries one change out. Answers after the new generation is live.
    pub async fn request(&self, _request: Request) -> Result<Receipt, Refused> {
        unimplemented!()
    }
    /// What `text` (or, with `None`, the configuration on disk) would change. Changes nothing.
    pub async fn plan(&self, _text: Option<(String, String)>) -> Result<Plan, Refused> {
        unimplemented!()
    }
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    pub fn explain(&self, _question: &Question) -> Result<Explanation, Refused> {
        unimplemented!()
    }
    /// The effective configuration as YAML, with intent, overlay and owner as comments.
    pub fn effective(&self) -> String {
        unimplemented!()
    }
    /// Newest first.
    pub fn generations(&self) -> Vec<GenerationInfo> {
        unimplemented!()
    }
    /// Newest first.
    pub fn audit(&self, _limit: usize) -> Vec<AuditRecord> {
        unimplemented!()
    }
    pub fn record_audit(&self, _record: AuditRecord) {
        unimplemented!()
    }
}
