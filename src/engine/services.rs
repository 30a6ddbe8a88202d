//! What every data thread needs of the rest of the process.

use std::sync::Arc;

use super::mirror::Mirror;
use crate::control::Live;
use crate::endpoints::Passive;
use crate::net::StageFlag;
use crate::sessions::connections::Connections;
use crate::telemetry::access_log::AccessLog;

#[derive(Debug, Clone)]
pub struct Services {
    pub live: Arc<Live>,
    pub connections: Arc<Connections>,
    pub passive: Passive,
    pub access_log: AccessLog,
    pub mirror: Mirror,
    pub stage: Arc<StageFlag>,
}
