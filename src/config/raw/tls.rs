//! The `tls:` section of a listener as written.

use crate::config::decode::{List, OneOrMany};
use crate::config::keys::keys;
use crate::config::model::tls::{Alpn, ClientMode, TlsVersion};
use crate::config::scalar::Text;

keys! {
    /// TLS on a listener. Files that change are read again by themselves; see `docs/tls.md`.
    Tls {
        /// What is shown to clients, chosen by the name they ask for. The first is for everybody else.
        certificates: List<TlsCertificate> = required,
        /// Which clients must show a certificate, for every name that does not say something else.
        client_auth: ClientAuth = optional,
        /// The oldest version spoken: `1.2` or `1.3`.
        min_version: TlsVersion = default("1.2"),
        /// Protocols offered, best first. Without it, all there are.
        alpn: OneOrMany<Alpn> = optional,
    }
}

keys! {
    /// One certificate with its key.
    TlsCertificate {
        /// PEM: the server's own certificate, then its chain. Relative to this file, as all names here.
        cert_file: Text = required,
        /// PEM: its private key, not encrypted.
        key_file: Text = required,
        /// An OCSP answer in DER, stapled while it is fresh.
        ocsp_file: Text = optional,
        /// The names it is shown for, `*.example.com` for any one label in front. Without it, those it was issued
        /// for.
        names: OneOrMany<Text> = optional,
        /// Which clients of these names must show a certificate. Without it, as the listener says.
        client_auth: ClientAuth = optional,
    }
}

keys! {
    /// Which clients must show a certificate.
    ClientAuth {
        /// PEM: the authorities that issue client certificates. Not with `mode: off`.
        ca_file: Text = optional,
        /// `required`; `optional`: those who have one show it; `off`: nobody is asked.
        mode: ClientMode = default("required"),
    }
}
