//! Certificates and keys from text to something a server can show: read, proved to belong together, and
//! described. Pure: bytes and the moment are handed in.
//!
//! What is proved here is what serves: the files are read once, and a [`Material`] carries their content on.
//! Not proved: that a client trusts the issuer, and the signature under a staple (clients check both).

mod describe;
mod ocsp;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::hashing::digest;
pub use describe::{Described, describe};
pub use ocsp::Staple;

/// SHA-256 of a certificate, or of everything that a [`Material`] was made from.
pub type Fingerprint = [u8; 32];

/// A certificate with its key, ready to be shown to clients.
#[derive(Clone)]
pub struct Material {
    /// The server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Arc<dyn SigningKey>,
    pub staple: Option<Staple>,
    pub own: Described,
    /// Over certificate, key and staple: equal materials are the same to every client.
    id: Fingerprint,
}

/// The key stays out of it.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("own", &self.own).field("staple", &self.staple).finish_non_exhaustive()
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Material) -> bool {
        self.id == other.id
    }
}

impl Eq for Material {}

/// Certificates of authorities that vouch for clients, or for endpoints. At least one.
#[derive(Clone)]
pub struct Roots {
    pub store: Arc<RootCertStore>,
    id: Fingerprint,
    /// When the first of them ends, Unix time, seconds; unknown for those of the system.
    ends: Option<i64>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.store.len())
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Roots) -> bool {
        self.id == other.id
    }
}

impl Eq for Roots {}

/// Which certificates may be out of date. Time alone must not stop a proxy: what serves already goes on, with a
/// warning, and so does what a starting process finds.
#[derive(Debug, Clone, Default)]
pub enum Dates {
    /// None: it is an error.
    #[default]
    Strict,
    /// All: a process starts.
    Starting,
    /// Those that are being served.
    Serving(HashSet<Fingerprint>),
}

impl Dates {
    /// Whether a staple that is not fresh any more is left out, rather than an error.
    pub fn forgive_staples(&self) -> bool {
        !matches!(self, Dates::Strict)
    }

    pub fn forgive(&self, own: &Described) -> bool {
        match self {
            Dates::Strict => false,
            Dates::Starting => true,
            Dates::Serving(known) => known.contains(&own.fingerprint),
        }
    }
}

/// Which of the files is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    Staple,
}

/// Why files cannot be used. The texts are for operators; `file` stands for what is wrong in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unfit {
    pub part: Part,
    pub what: String,
    pub why: String,
    pub hint: &'static str,
    /// Only because time has passed.
    pub outdated: bool,
}

/// The content of the files of one certificate, with their names as they are to be shown.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    pub cert: (&'a str, &'a [u8]),
    pub key: (&'a str, &'a [u8]),
    pub ocsp: Option<(&'a str, &'a [u8])>,
}

impl Material {
    /// Of a server. Everything that does not depend on the date; see [`Material::is_out_of_date`] for that.
    pub fn read(files: Files<'_>, now: i64) -> Result<Material, Unfit> {
        let material = Material::of_client(files, now)?;
        match material.own.names.is_empty() && !material.own.has_addresses {
            false => Ok(material),
            true => Err(Unfit {
                part: Part::Certificate,
                what: format!("the certificate in `{}` names no server", files.cert.0),
                why: "it has no DNS name or address in its subjectAltName, and clients do not look at the common name"
                    .into(),
                hint: "have it issued with a subjectAltName",
                outdated: false,
            }),
        }
    }

    /// As [`Material::read`], for somebody who need not have a name that a server could have.
    pub fn of_client(files: Files<'_>, now: i64) -> Result<Material, Unfit> {
        let (cert_name, cert) = files.cert;
        let chain = certificates(cert_name, cert)?;
        let leaf = parsed(&chain[0]).ok_or_else(|| Unfit {
            part: Part::Certificate,
            what: format!("the certificate in `{cert_name}` cannot be read"),
            why: "it is not X.509 version 3 in DER".into(),
            hint: "write the file again; it may have been cut short",
            outdated: false,
        })?;
        let own = describe(&chain[0], &leaf);
        let key = private_key(files.key.0, files.key.1)?;
        let pair = CertifiedKey::new(chain.clone(), key.clone());
        if let Err(error) = pair.keys_match() {
            return Err(Unfit {
                part: Part::Key,
                what: format!("the key in `{}` does not belong to the certificate in `{cert_name}`", files.key.0),
                why: match error {
                    rustls::Error::InconsistentKeys(_) => "their public keys differ".into(),
                    other => other.to_string(),
                },
                hint: "was one of the two replaced alone, or does the chain not begin with the server's own certificate?",
                outdated: false,
            });
        }
        let staple = match files.ocsp {
            None => None,
            Some((name, bytes)) => Some(Staple::read(name, bytes, &leaf, now)?),
        };
        let id = digest([cert, files.key.1, files.ocsp.map_or(b"", |(_, bytes)| bytes)]);
        Ok(Material { chain, key, staple, own, id })
    }

    /// Not yet good, or not good any more.
    pub fn is_out_of_date(&self, cert_name: &str, now: i64) -> Option<Unfit> {
        let (what, why, hint) = if self.own.not_after <= now {
            let what = format!("the certificate in `{cert_name}` has expired");
            (what, format!("it was good until {}", date(self.own.not_after)), "renew it")
        } else if self.own.not_before > now {
            let what = format!("the certificate in `{cert_name}` is not good yet");
            (what, format!("it is good from {}", date(self.own.not_before)), "wait, or correct the clock")
        } else {
            return None;
        };
        Some(Unfit { part: Part::Certificate, what, why, hint, outdated: true })
    }

    pub fn id(&self) -> Fingerprint {
        self.id
    }

    /// A wildcard covers one label; a wildcard asked for must be there as it is.
    pub fn is_issued_for(&self, name: &str) -> bool {
        let covered = |of: &String| match of.strip_prefix("*.") {
            Some(parent) => name.split_once('.').is_some_and(|(label, rest)| label != "*" && rest == parent),
            None => false,
        };
        self.own.names.iter().any(|of| of == name || covered(of))
    }

    /// It has a staple that clients would not accept any more.
    pub fn has_stale_staple(&self, now: i64) -> bool {
        self.staple.as_ref().is_some_and(|staple| !staple.is_fresh(now))
    }

    /// What a server shows: without a staple that has gone stale.
    pub fn shown(&self, now: i64) -> CertifiedKey {
        let mut shown = CertifiedKey::new(self.chain.clone(), self.key.clone());
        shown.ocsp = self.staple.as_ref().filter(|staple| staple.is_fresh(now)).map(|staple| staple.bytes.to_vec());
        shown
    }
}

impl Roots {
    /// The error is one clause: what is wrong with the file.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Roots, Unfit> {
        let all = certificates(name, bytes)?;
        let mut store = RootCertStore::empty();
        for one in &all {
            store.add(one.clone()).map_err(|error| Unfit {
                part: Part::Certificate,
                what: format!("a certificate in `{name}` cannot vouch for anybody"),
                why: error.to_string(),
                hint: "name a file with the certificates of the authorities that issue those which are to be believed",
                outdated: false,
            })?;
        }
        let ends = all.iter().filter_map(parsed).map(|one| one.validity().not_after.timestamp()).min();
        Ok(Roots { store: Arc::new(store), id: id_of(&all), ends })
    }

    /// The end of one of them, if it has passed. It vouches all the same: what makes somebody an authority is being in
    /// the file (RFC 5280 section 6.1.1 (d) knows no dates of trust anchors).
    pub fn has_expired(&self, now: i64) -> Option<i64> {
        self.ends.filter(|ends| *ends <= now)
    }

    /// Of certificates that somebody else has chosen: those that cannot be used are left out. `None`: nothing is left.
    pub fn of_system(certificates: &[CertificateDer<'static>]) -> Option<Roots> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        (!store.is_empty()).then(|| Roots { store: Arc::new(store), id: id_of(certificates), ends: None })
    }

    pub fn id(&self) -> Fingerprint {
        self.id
    }
}

/// The order of a bundle means nothing, and neither does what stands between its certificates.
fn id_of(certificates: &[CertificateDer<'_>]) -> Fingerprint {
    let mut ids: Vec<Fingerprint> = certificates.iter().map(|one| digest([&one[..]])).collect();
    ids.sort_unstable();
    ids.dedup();
    digest(ids.iter().map(|id| &id[..]))
}

/// SHA-256 of a certificate as other tools print it.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Sha256::digest(der).into()
}

pub fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// At least one.
fn certificates(name: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let bad = |why: String, hint| Unfit {
        part: Part::Certificate,
        what: format!("`{name}` holds no certificate that can be used"),
        why,
        hint,
        outdated: false,
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if all.is_empty() && bytes.is_empty() => {
            Err(bad("the file is empty".into(), "write the certificate and its chain there"))
        }
        Ok(all) if all.is_empty() => Err(bad(
            "there is no `-----BEGIN CERTIFICATE-----` in it".into(),
            "it must be PEM; DER is converted by `openssl x509 -inform der -in FILE -out FILE.pem`",
        )),
        Ok(all) => Ok(all),
        Err(error) => Err(bad(broken_pem(&error), "write the file again; it may have been cut short")),
    }
}

fn private_key(name: &str, bytes: &[u8]) -> Result<Arc<dyn SigningKey>, Unfit> {
    let bad = |what: String, why: String, hint| Unfit { part: Part::Key, what, why, hint, outdated: false };
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    if contains(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(bad(
            format!("the key in `{name}` is encrypted"),
            "nobody is there to type its passphrase".into(),
            "decrypt it with `openssl pkey -in FILE -out NEW`, and let only the user of switchback read it",
        ));
    }
    let der = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let hint = "it must be PEM: PKCS#8, PKCS#1 or SEC1; `openssl pkey -in FILE -out NEW` converts";
        let why = match error {
            pem::Error::NoItemsFound if bytes.is_empty() => "the file is empty".into(),
            pem::Error::NoItemsFound => "there is no `-----BEGIN PRIVATE KEY-----` in it".into(),
            other => broken_pem(&other),
        };
        bad(format!("`{name}` holds no private key that can be used"), why, hint)
    })?;
    rustls::crypto::ring::default_provider().key_provider.load_private_key(der).map_err(|error| {
        let hint = "keys are ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits";
        bad(format!("the key in `{name}` cannot be used"), error.to_string(), hint)
    })
}

fn broken_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".into(),
        pem::Error::IllegalSectionStart { .. } => "a section has a broken beginning".into(),
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64".into(),
        other => other.to_string(),
    }
}

/// For people: without milliseconds.
pub fn date(unix_seconds: i64) -> String {
    let text = super::scalar::rfc3339(u64::try_from(unix_seconds).unwrap_or(0).saturating_mul(1000));
    text.replace(".000Z", "Z")
}
