//! Connections to endpoints.
//!
//! The content of the files is here, not only their names: what was proved is what is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::certificate::{Material, Roots};
use crate::config::model::Protocol;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstream {
    /// What endpoints are spoken to. Default HTTP/1.1.
    pub protocol: Protocol,
    /// How often a quiet HTTP/2 connection is asked whether it is still there. `None`: never.
    pub ping: Option<Duration>,
    /// Idle pooled connections are closed after this. Default 4 s: common servers close at 5 s.
    pub keepalive_idle: Duration,
    /// `None`: connections are not encrypted.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Connections begin with the client's address.
    pub proxy_protocol: Option<ProxyHeader>,
}

/// Which header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    V1,
    V2,
}

/// TLS to the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    pub trust: Trust,
    /// The name that endpoints are asked for and must prove. `None`: each its own, as written in the configuration.
    pub sni: Option<String>,
    /// Who we are to an endpoint that asks.
    pub identity: Option<Identity>,
}

/// Who vouches for endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The authorities in a file.
    File { path: PathBuf, roots: Roots },
    /// Those that the system trusts, as they were when the configuration was read.
    System(Roots),
    /// Nobody needs to: whoever answers is believed.
    Blind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub material: Arc<Material>,
}

/// How `verify` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    #[default]
    Full,
    Off,
}

impl UpstreamTls {
    /// Every file that something was read from, but for those of the system.
    pub fn files(&self) -> BTreeSet<&Path> {
        let mut files = BTreeSet::new();
        if let Trust::File { path, .. } = &self.trust {
            files.insert(path.as_path());
        }
        if let Some(identity) = &self.identity {
            files.extend([identity.cert_file.as_path(), identity.key_file.as_path()]);
        }
        files
    }
}
