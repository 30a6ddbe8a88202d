//! Certificates as operators see them.

use super::server::Server;
use crate::config::model::tls::ClientAuth;
use crate::control::api::{CertificateStatus, TlsStatus};
use crate::net::listeners::ListenerState;

pub fn status(server: &Server, state: &ListenerState) -> TlsStatus {
    let troubles = state.troubles.load();
    let mut mentioned = Vec::new();
    let certificates = server.tls.certificates.iter().enumerate().map(|(at, one)| {
        let (own, label) = (&one.material.own, one.label());
        let problem = troubles.get(&label).cloned();
        mentioned.push(label.clone());
        CertificateStatus {
            name: label,
            names: one.names().to_vec(),
            subject: own.subject.clone(),
            issuer: own.issuer.clone(),
            not_before: milliseconds(own.not_before),
            not_after: milliseconds(own.not_after),
            fingerprint: own.fingerprint_hex(),
            client_auth: client_auth(server.tls.client_auth(at)).into(),
            stapled: one.material.staple.is_some() && !server.lacks_staple,
            problem,
        }
    });
    let certificates: Vec<_> = certificates.collect();
    let others = troubles.iter().filter(|(label, _)| !mentioned.contains(label));
    TlsStatus {
        certificates,
        problems: others.map(|(label, why)| format!("{label}: {why}")).collect(),
        handshakes_open: state.gate.inside_now() as u64,
        handshakes: state
            .handshakes
            .counts()
            .into_iter()
            .map(|(result, version, count)| (result.into(), version.into(), count))
            .collect(),
    }
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn client_auth(auth: Option<&ClientAuth>) -> &'static str {
    match auth {
        None => "off",
        Some(auth) if auth.required => "required",
        Some(_) => "optional",
    }
}
