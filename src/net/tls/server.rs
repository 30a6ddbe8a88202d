//! The certificates of one listener as rustls wants them, by the names that clients ask for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};

use super::tickets::{TicketKeys, Ticketer};
use crate::config::certificate::Fingerprint;
use crate::config::model::tls::{ClientAuth, Tls, TlsVersion};
use crate::routing::host;

/// What a client has proved about itself: nothing, or that one of certain authorities vouches for it.
pub type Policy = [u8; 32];

/// Of clients that are not asked for a certificate.
pub const NOBODY: Policy = [0; 32];

#[derive(Debug)]
pub struct Server {
    /// What it was made from.
    pub tls: Arc<Tls>,
    entries: Box<[Entry]>,
    names: Names,
    /// Every certificate asks its clients for the same.
    policy_of_all: Option<Policy>,
    /// A staple was left out because it is stale.
    pub lacks_staple: bool,
}

#[derive(Debug)]
pub struct Entry {
    pub config: Arc<ServerConfig>,
    pub policy: Policy,
}

impl Server {
    /// Fails only for what the checks of the configuration have not seen coming.
    pub fn build(tls: Arc<Tls>, keys: &Arc<TicketKeys>, now: i64) -> Result<Server, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut entries = Vec::with_capacity(tls.certificates.len());
        for at in 0..tls.certificates.len() {
            let policy = policy(tls.client_auth(at));
            let config = config(&tls, at, policy, keys, &provider, now).map_err(|error| {
                format!("the certificate for {} cannot be used: {error}", tls.certificates[at].label())
            })?;
            entries.push(Entry { config: Arc::new(config), policy });
        }
        let first = entries.first().map(|entry| entry.policy);
        Ok(Server {
            names: Names::of(&tls),
            policy_of_all: first.filter(|first| entries.iter().all(|entry| entry.policy == *first)),
            lacks_staple: tls.certificates.iter().any(|one| one.material.has_stale_staple(now)),
            entries: entries.into(),
            tls,
        })
    }

    /// Of what is shown to clients.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.tls.certificates.iter().map(|one| one.material.own.fingerprint).collect()
    }

    /// For a client that asks for this name, or for none.
    pub fn entry(&self, name: Option<&str>) -> &Entry {
        let at = name.and_then(|name| match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.names.find(&name.to_ascii_lowercase()),
            false => self.names.find(name),
        });
        &self.entries[at.unwrap_or(0)]
    }

    /// Whether requests to this host (as in `Host`) may come on a connection that has proved this. If not, the
    /// client must make another: what the host asks for is something else.
    pub fn admits(&self, proved: Policy, host: &[u8]) -> bool {
        match self.policy_of_all {
            Some(policy) => policy == proved,
            None => self.entry(host::normalise(host).as_deref()).policy == proved,
        }
    }
}

fn policy(auth: Option<&ClientAuth>) -> Policy {
    match auth {
        None => NOBODY,
        Some(auth) => {
            let mut hasher = Sha256::new();
            hasher.update([u8::from(auth.required)]);
            hasher.update(auth.roots.id());
            hasher.finalize().into()
        }
    }
}

fn config(
    tls: &Tls,
    at: usize,
    policy: Policy,
    keys: &Arc<TicketKeys>,
    provider: &Arc<CryptoProvider>,
    now: i64,
) -> Result<ServerConfig, String> {
    let versions = match tls.min_version {
        TlsVersion::V12 => &[&TLS13, &TLS12][..],
        TlsVersion::V13 => &[&TLS13][..],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match tls.client_auth(at) {
        None => builder.with_no_client_auth(),
        Some(auth) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(auth.roots.store.clone(), provider.clone());
            let verifier = if auth.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let shown = tls.certificates[at].material.shown(now);
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = tls.alpn.iter().map(|alpn| alpn.wire().to_vec()).collect();
    config.ticketer = Arc::new(Ticketer::new(keys.clone(), policy));
    // Tickets do all of it: nothing is remembered here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Which certificate is for a name.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<Box<str>, usize>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, usize>,
}

impl Names {
    fn of(tls: &Tls) -> Names {
        let mut names = Names::default();
        for (at, certificate) in tls.certificates.iter().enumerate() {
            for name in certificate.names() {
                match name.strip_prefix("*.") {
                    Some(parent) => names.wildcard.insert(parent.into(), at),
                    None => names.exact.insert(name.as_str().into(), at),
                };
            }
        }
        names
    }

    /// In lower case. A wildcard stands for exactly one label.
    fn find(&self, name: &str) -> Option<usize> {
        let by_wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(by_wildcard).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_wins_and_a_wildcard_is_one_label() {
        let names = Names {
            exact: [("a.test".into(), 1), ("www.b.test".into(), 2)].into(),
            wildcard: [("b.test".into(), 3)].into(),
        };
        for (asked, found) in [
            ("a.test", Some(1)),
            ("www.b.test", Some(2)),
            ("api.b.test", Some(3)),
            ("b.test", None),
            ("x.api.b.test", None),
            ("test", None),
            ("", None),
        ] {
            assert_eq!(names.find(asked), found, "{asked}");
        }
    }
}
