//! TLS on a listener: which certificate for which name, and which clients must show one.
//!
//! The content of the files is here, not only their names: what was proved is what serves.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::certificate::{Material, Roots};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one. The first is for clients that name no server or an unknown one.
    pub certificates: Vec<Certificate>,
    /// For every certificate that says [`Asks::AsListener`].
    pub client_auth: Option<ClientAuth>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// At least one, best first.
    pub alpn: Vec<Alpn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub ocsp_file: Option<PathBuf>,
    /// As written; `None`: those of the certificate.
    pub names: Option<Vec<String>>,
    pub asks: Asks,
    pub material: Arc<Material>,
}

/// Which clients of a certificate's names must show one of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    AsListener,
    Nobody,
    Clients(ClientAuth),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    pub ca_file: PathBuf,
    /// A client without a certificate is refused.
    pub required: bool,
    pub roots: Roots,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientMode {
    #[default]
    Required,
    Optional,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    V12,
    V13,
}

/// A protocol on top of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    Http11,
}

impl Alpn {
    /// What is offered if nothing is said, best first: the one place that says what the proxy speaks over TLS.
    pub const ALL: &'static [Alpn] = &[Alpn::Http11];

    /// As it stands in the handshake.
    pub fn wire(self) -> &'static [u8] {
        match self {
            Alpn::Http11 => b"http/1.1",
        }
    }
}

impl Tls {
    /// Whom the certificate with this number asks for one.
    pub fn client_auth(&self, at: usize) -> Option<&ClientAuth> {
        match &self.certificates[at].asks {
            Asks::AsListener => self.client_auth.as_ref(),
            Asks::Nobody => None,
            Asks::Clients(auth) => Some(auth),
        }
    }
}

impl Tls {
    /// Why the certificates cannot stand beside each other, after the content of a file has changed.
    pub fn clash(&self) -> Option<String> {
        let mut taken = HashMap::new();
        for certificate in &self.certificates {
            for name in certificate.names() {
                if !certificate.material.is_issued_for(name) {
                    return Some(format!("the certificate was not issued for `{name}`"));
                }
                if let Some(other) = taken.insert(name, &certificate.cert_file) {
                    return Some(format!("it is for `{name}`, and so is {}", other.display()));
                }
            }
        }
        None
    }

    /// Every file that something was read from.
    pub fn files(&self) -> BTreeSet<&Path> {
        let mut files = BTreeSet::new();
        files.extend(self.client_auth.iter().map(|auth| auth.ca_file.as_path()));
        for one in &self.certificates {
            files.extend([one.cert_file.as_path(), one.key_file.as_path()]);
            files.extend(one.ocsp_file.as_deref());
            if let Asks::Clients(auth) = &one.asks {
                files.insert(&auth.ca_file);
            }
        }
        files
    }
}

impl Certificate {
    /// What it is shown for.
    pub fn names(&self) -> &[String] {
        self.names.as_deref().unwrap_or(&self.material.own.names)
    }

    /// What it is called in status and metrics: the first of its names.
    pub fn label(&self) -> String {
        match self.names().first() {
            Some(name) => name.clone(),
            None => self.cert_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}
