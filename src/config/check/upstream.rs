//! Connections to endpoints: TLS with every file read and every pair proved, so that a handshake finds nothing new.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::super::certificate::{Files, Material, Part};
use super::super::decode::Field;
use super::super::found::{Found, Span};
use super::super::model::upstream::Identity;
use super::super::model::{self, EndpointAddress, Name, Protocol, Trust, UpstreamTls, Verify, Version};
use super::super::raw;
use super::tls::{authorities, dates, read, say};
use super::{Around, http2};

pub fn upstream(
    raw: &raw::Service,
    versions: &BTreeMap<Name, Version>,
    around: &Around<'_>,
    found: &mut Found,
) -> model::Upstream {
    http2::no_mirror(raw, found);
    let Some(it) = raw.upstream.get() else { return model::Upstream::default() };
    let tls = it.tls.get().and_then(|tls| {
        let at = it.tls.key().unwrap_or_default();
        self::tls(tls, at, versions, around, found)
    });
    match (it.protocol.written(), it.tls.is_missing()) {
        (Some((Protocol::H2c, span)), false) => drop(
            found
                .error(span, "`h2c` is HTTP/2 without TLS, and there is `tls`")
                .why("one of the two is not meant")
                .hint("write `protocol: h2`, or remove `tls`"),
        ),
        (Some((Protocol::H2, span)), true) => drop(
            found
                .error(span, "`h2` is HTTP/2 over TLS, and there is no `tls`")
                .why("one of the two is not meant")
                .hint("add `tls: {}`, or write `protocol: h2c` for HTTP/2 without TLS"),
        ),
        (Some((Protocol::H1 | Protocol::H2c | Protocol::H2, _)) | None, _) => {}
    }
    model::Upstream {
        protocol: it.protocol.value(),
        ping: it.ping.get().map(|ping| ping.0),
        keepalive_idle: it.keepalive.get().map(|it| it.idle.value().0).unwrap_or_default(),
        tls: tls.map(Arc::new),
        proxy_protocol: it.proxy_protocol.get().copied(),
    }
}

fn tls(
    raw: &raw::UpstreamTls,
    at: Span,
    versions: &BTreeMap<Name, Version>,
    around: &Around<'_>,
    found: &mut Found,
) -> Option<UpstreamTls> {
    let trust = trust(raw, at, around, found);
    let verified = !matches!(trust, Some(Trust::Blind));
    let sni = sni(raw, at, verified, versions, found);
    let identity = identity(raw, around, found);
    Some(UpstreamTls { trust: trust?, sni, identity: identity? })
}

/// Whom to believe. Verification is off only if it is said twice.
fn trust(raw: &raw::UpstreamTls, at: Span, around: &Around<'_>, found: &mut Found) -> Option<Trust> {
    let verify = raw.verify.written();
    let insecure = raw.insecure.value().0;
    if raw.verify.value() == Verify::Off {
        let span = verify.map_or(at, |(_, span)| span);
        if !insecure {
            found
                .error(span, "`verify: off` alone is not enough")
                .why("whoever can answer at the address of an endpoint would get its requests, passwords included")
                .hint("name the authority with `ca_file`; or write `insecure: true` beside it if this is meant");
            return None;
        }
        if let Some((_, span)) = raw.ca_file.written() {
            found.error(span, "`ca_file` has no effect with `verify: off`").hint("remove one of the two");
            return None;
        }
        found
            .warning(span, "endpoints of this service are not verified")
            .why("whoever can answer at the address of an endpoint gets its requests, passwords included")
            .hint("name the authority with `ca_file`, and remove `verify: off`");
        return Some(Trust::Blind);
    }
    if let (true, Some((_, span))) = (insecure, raw.insecure.written()) {
        found.error(span, "`insecure: true` has no effect without `verify: off`").hint("remove it");
    }
    let Some((name, span)) = raw.ca_file.written() else {
        // Something was written that could not be read.
        if !raw.ca_file.is_missing() {
            return None;
        }
        return match (around.system_roots)() {
            Ok(roots) => Some(Trust::System(roots)),
            Err(why) => {
                found
                    .error(at, "the system trusts nobody, so no endpoint can be verified")
                    .why(why)
                    .hint("name the authority with `ca_file`, or install the package `ca-certificates`");
                None
            }
        };
    };
    let roots = authorities(name, span, around, found)?;
    Some(Trust::File { path: around.path(&name.0, span), roots })
}

/// The name that endpoints must prove; without it each endpoint must have one that can be proved.
fn sni(
    raw: &raw::UpstreamTls,
    at: Span,
    verified: bool,
    versions: &BTreeMap<Name, Version>,
    found: &mut Found,
) -> Option<String> {
    if let Some((name, span)) = raw.sni.written() {
        if ServerName::try_from(name.0.as_str()).is_err() {
            found
                .error(span, format!("`{}` is not the name of a server", name.0))
                .why("it is asked for in the handshake and compared with the certificate")
                .hint("write a host name or an IP address, without port: `sni: shop.internal`");
        }
        return Some(name.0.clone());
    }
    let endpoints = versions.iter().flat_map(|(name, version)| version.endpoints.iter().map(move |it| (name, it)));
    for (version, endpoint) in endpoints {
        let provable = match &endpoint.address {
            EndpointAddress::Ip(_) => true,
            EndpointAddress::Name { host, .. } => ServerName::try_from(host.as_str()).is_ok(),
            EndpointAddress::Unix(_) => !verified,
        };
        if !provable {
            found
                .error(at, format!("`{}` of version `{version}` has no name that could be verified", endpoint.address))
                .hint("say which name its certificate is for: `sni: shop.internal`");
            break;
        }
    }
    None
}

/// `None` if there is something wrong with it.
fn identity(raw: &raw::UpstreamTls, around: &Around<'_>, found: &mut Found) -> Option<Option<Identity>> {
    let alone = |field: &Field<_>, other: &Field<_>| !field.is_missing() && other.is_missing();
    for (field, other, what, why) in [
        (&raw.cert_file, &raw.key_file, "`cert_file` needs `key_file`", "a certificate is of no use without its key"),
        (&raw.key_file, &raw.cert_file, "`key_file` needs `cert_file`", "a key is of no use without its certificate"),
    ] {
        if alone(field, other) {
            found.error(field.key().unwrap_or_default(), what).why(why);
            return None;
        }
    }
    if raw.cert_file.is_missing() {
        return Some(None);
    }
    let (cert, cert_span) = raw.cert_file.written()?;
    let (key, key_span) = raw.key_file.written()?;
    let cert_bytes = read(cert, cert_span, around, found);
    let key_bytes = read(key, key_span, around, found);
    let files = Files { cert: (&cert.0, &cert_bytes?), key: (&key.0, &key_bytes?), ocsp: None };
    match Material::of_client(files, around.now) {
        Ok(material) => {
            dates(&material, &cert.0, cert_span, around, found);
            Some(Some(Identity {
                cert_file: around.path(&cert.0, cert_span),
                key_file: around.path(&key.0, key_span),
                material: Arc::new(material),
            }))
        }
        Err(unfit) => {
            say(&unfit, if unfit.part == Part::Key { key_span } else { cert_span }, found);
            None
        }
    }
}
