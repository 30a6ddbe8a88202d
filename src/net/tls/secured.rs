//! What is known of an encrypted connection, for as long as it lives.

use http::HeaderValue;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::server::Policy;
use crate::config::certificate::{self, Described};
use crate::config::model::tls::{Alpn, TlsVersion};

#[derive(Debug)]
pub struct Secured {
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// What is spoken on it. `None`: the client did not say.
    pub alpn: Option<Alpn>,
    pub version: TlsVersion,
    /// It came back with a ticket.
    pub resumed: bool,
    /// Who the client is, if it was asked and has shown a certificate.
    pub client: Option<Box<ClientCertificate>>,
    /// What kind of proof that was.
    pub policy: Policy,
}

/// A verified certificate of a client, as it is told to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// RFC 4514.
    pub subject: HeaderValue,
    pub issuer: HeaderValue,
    /// `None`: it has no alternative names.
    pub alternatives: Option<HeaderValue>,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: HeaderValue,
}

/// The client's certificate cannot be used although its issuer is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A ticket may be younger than the end of the certificate that it stands for.
    #[error("the client's certificate has expired since its first handshake")]
    Expired,
    #[error("the client's certificate cannot be told to endpoints")]
    Unspeakable,
}

/// Longest text that is told to endpoints: a name is not to fill their heads.
const LONGEST: usize = 4096;

impl Secured {
    /// Of a connection whose handshake is over.
    pub fn of(connection: &ServerConnection, policy: Policy, now: i64) -> Result<Secured, Unusable> {
        let client = match connection.peer_certificates().and_then(|chain| chain.first()) {
            Some(der) => {
                let parsed = certificate::parsed(der).ok_or(Unusable::Unspeakable)?;
                let described = certificate::describe(der, &parsed);
                if described.not_after < now {
                    return Err(Unusable::Expired);
                }
                Some(Box::new(ClientCertificate::of(&described)?))
            }
            None => None,
        };
        let spoken = connection.alpn_protocol();
        Ok(Secured {
            server_name: connection.server_name().map(Into::into),
            alpn: spoken.and_then(|wire| Alpn::ALL.iter().find(|alpn| alpn.wire() == wire)).copied(),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::V13,
                _ => TlsVersion::V12,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client,
            policy,
        })
    }
}

impl ClientCertificate {
    fn of(described: &Described) -> Result<ClientCertificate, Unusable> {
        let value = |text: &str| match HeaderValue::from_str(text) {
            Ok(value) if text.len() <= LONGEST => Ok(value),
            Ok(_) | Err(_) => Err(Unusable::Unspeakable),
        };
        Ok(ClientCertificate {
            subject: value(&described.subject)?,
            issuer: value(&described.issuer)?,
            alternatives: match described.alternatives.as_str() {
                "" => None,
                text => Some(value(text)?),
            },
            fingerprint: value(&described.fingerprint_hex())?,
        })
    }
}
