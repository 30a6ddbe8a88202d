//! TLS of a listener: every file read, every pair proved, every name of one certificate only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::certificate::{Files, Material, Part, Roots, Unfit};
use super::super::decode::Field;
use super::super::found::{Found, Span};
use super::super::model::tls::{Alpn, Asks, Certificate, ClientAuth, ClientMode, Tls};
use super::super::raw;
use super::super::scalar::{Text, is_host_name};
use super::Around;

/// Certificates that expire within this are worth a warning: seven days.
const SOON: i64 = 7 * 24 * 3600;

pub fn tls(raw: &raw::Tls, field: &Field<raw::Tls>, around: &Around<'_>, found: &mut Found) -> Option<Tls> {
    let auth = |asks: Asks| match asks {
        Asks::AsListener | Asks::Nobody => None,
        Asks::Clients(auth) => Some(auth),
    };
    let client_auth = auth(client_auth(&raw.client_auth, around, found));
    let alpn = alpn(raw, found);
    let list = raw.certificates.get()?;
    if list.0.is_empty() {
        let span = raw.certificates.key().or(field.key()).unwrap_or_default();
        found
            .error(span, "there are no certificates")
            .why("TLS needs at least one")
            .hint("write `- { cert_file: …, key_file: … }` under `certificates`, or remove `tls` for plain HTTP");
    }
    let mut certificates = Vec::new();
    let mut taken = HashMap::new();
    for (raw, span) in list.good() {
        let asks = self::client_auth(&raw.client_auth, around, found);
        let Some(material) = material(raw, around, found) else { continue };
        let names = names(raw, &material, found);
        let path = |text: &Text, span| around.path(&text.0, span);
        let one = Certificate {
            cert_file: written(&raw.cert_file, path),
            key_file: written(&raw.key_file, path),
            ocsp_file: raw.ocsp_file.written().map(|(text, span)| path(text, span)),
            names,
            asks,
            material: Arc::new(material),
        };
        let place = raw.names.key().or(raw.cert_file.key()).unwrap_or(span);
        if one.material.own.names.is_empty() && !certificates.is_empty() {
            found
                .error(place, "the certificate is never shown")
                .why("it has no DNS name, and only the first is for clients that name none")
                .hint("put it first, or remove it");
        }
        for name in one.names() {
            if let Some(other) = taken.insert(name.clone(), one.cert_file.clone()) {
                found
                    .error(place, format!("two certificates are for `{name}`"))
                    .why(format!("the other is {}", other.display()))
                    .hint("say with `names` which one is for which");
                break;
            }
        }
        certificates.push(one);
    }
    let min_version = raw.min_version.value();
    (!certificates.is_empty()).then_some(Tls { certificates, client_auth, min_version, alpn })
}

fn written(field: &Field<Text>, path: impl Fn(&Text, Span) -> PathBuf) -> PathBuf {
    field.written().map(|(text, span)| path(text, span)).unwrap_or_default()
}

fn alpn(raw: &raw::Tls, found: &mut Found) -> Vec<Alpn> {
    let Some((list, span)) = raw.alpn.written() else { return Alpn::ALL.to_vec() };
    let mut alpn = Vec::new();
    for (one, span) in list.0.good() {
        if alpn.contains(one) {
            found.error(span, "this protocol is listed twice");
        } else {
            alpn.push(*one);
        }
    }
    if list.0.0.is_empty() {
        found.error(span, "no protocol is offered").hint("leave `alpn` out to offer all there are");
    }
    alpn
}

/// The content of the three files, if they belong together.
fn material(raw: &raw::TlsCertificate, around: &Around<'_>, found: &mut Found) -> Option<Material> {
    let (cert, cert_span) = raw.cert_file.written()?;
    let (key, key_span) = raw.key_file.written()?;
    let ocsp = raw.ocsp_file.written();
    let cert_bytes = read(cert, cert_span, around, found);
    let key_bytes = read(key, key_span, around, found);
    let ocsp_bytes = match ocsp {
        Some((name, span)) => Some(read(name, span, around, found)?),
        None => None,
    };
    let files = Files {
        cert: (&cert.0, &cert_bytes?),
        key: (&key.0, &key_bytes?),
        ocsp: ocsp.zip(ocsp_bytes.as_deref()).map(|((name, _), bytes)| (name.0.as_str(), bytes)),
    };
    let span_of = |part| match part {
        Part::Certificate => cert_span,
        Part::Key => key_span,
        Part::Staple => ocsp.map_or(cert_span, |(_, span)| span),
    };
    let mut read = Material::read(files, around.now);
    if let Err(unfit) = &read
        && unfit.part == Part::Staple
        && unfit.outdated
        && around.dates.forgive_staples()
    {
        found.warning(span_of(Part::Staple), unfit.what.clone()).why(unfit.why.clone()).hint(unfit.hint);
        read = Material::read(Files { ocsp: None, ..files }, around.now);
    }
    let material = match read {
        Ok(material) => material,
        Err(unfit) => {
            say(&unfit, span_of(unfit.part), found);
            return None;
        }
    };
    dates(&material, &cert.0, cert_span, around, found);
    Some(material)
}

/// Time alone must not stop a proxy, but what is new must be good.
pub fn dates(material: &Material, name: &str, span: Span, around: &Around<'_>, found: &mut Found) {
    match material.is_out_of_date(name, around.now) {
        Some(unfit) if around.dates.forgive(&material.own) => {
            found.warning(span, unfit.what).why(unfit.why).hint(unfit.hint);
        }
        Some(unfit) => say(&unfit, span, found),
        None if material.own.not_after - around.now < SOON => {
            found
                .warning(span, format!("the certificate in `{name}` expires soon"))
                .why(format!("it is good until {}", super::super::certificate::date(material.own.not_after)))
                .hint("renew it; the files are read again by themselves");
        }
        None => {}
    }
}

/// What is in a `ca_file`.
pub fn authorities(name: &Text, span: Span, around: &Around<'_>, found: &mut Found) -> Option<Roots> {
    let bytes = read(name, span, around, found)?;
    let roots = Roots::read(&name.0, &bytes).map_err(|unfit| say(&unfit, span, found)).ok()?;
    if let Some(ends) = roots.has_expired(around.now) {
        found
            .warning(span, format!("an authority in `{}` has expired", name.0))
            .why(format!("it was good until {}, and is believed all the same", super::super::certificate::date(ends)))
            .hint("take it out of the file, or put the renewed one in its place");
    }
    Some(roots)
}

pub fn say(unfit: &Unfit, span: Span, found: &mut Found) {
    found.error(span, unfit.what.clone()).why(unfit.why.clone()).hint(unfit.hint);
}

pub fn read(name: &Text, span: Span, around: &Around<'_>, found: &mut Found) -> Option<Vec<u8>> {
    match (around.read_bytes)(&around.path(&name.0, span)) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            found
                .error(span, format!("`{}` cannot be read", name.0))
                .why(why)
                .hint("the path is relative to this file; the user that runs switchback must be allowed to read it");
            None
        }
    }
}

/// The names as written, each one that the certificate was issued for.
fn names(raw: &raw::TlsCertificate, material: &Material, found: &mut Found) -> Option<Vec<String>> {
    let (list, span) = raw.names.written()?;
    if list.0.0.is_empty() {
        found.error(span, "the certificate is for no name").hint("leave `names` out to use those it was issued for");
    }
    let mut names = Vec::new();
    for (name, span) in list.0.good() {
        let name_lower = name.0.to_ascii_lowercase();
        let host = name_lower.strip_prefix("*.").unwrap_or(&name_lower);
        if !is_host_name(host) {
            found.error(span, format!("`{}` is not the name of a host", name.0)).hint("such as `shop.example.com`");
        } else if !material.is_issued_for(&name_lower) {
            found
                .error(span, format!("the certificate was not issued for `{}`", name.0))
                .why(match material.own.names.as_slice() {
                    [] => "it was issued for addresses only".into(),
                    names => format!("it was issued for {}", super::super::hint::list(names)),
                })
                .hint("clients would refuse it");
        } else if names.contains(&name_lower) {
            found.error(span, format!("`{}` is listed twice", name.0));
        } else {
            names.push(name_lower);
        }
    }
    Some(names)
}

fn client_auth(field: &Field<raw::ClientAuth>, around: &Around<'_>, found: &mut Found) -> Asks {
    let Some((raw, span)) = field.written() else { return Asks::AsListener };
    let mode = raw.mode.value();
    let span = field.key().unwrap_or(span);
    match (mode, raw.ca_file.written()) {
        (ClientMode::Off, None) => Asks::Nobody,
        (ClientMode::Off, Some((_, span))) => {
            found
                .error(span, "`ca_file` has no effect with `mode: off`")
                .hint("remove it, or write `required` or `optional`");
            Asks::Nobody
        }
        (ClientMode::Required | ClientMode::Optional, None) => {
            if raw.ca_file.is_missing() {
                found
                    .error(span, "`client_auth` needs the key `ca_file`")
                    .why("clients are checked against the authorities in it")
                    .hint("write `ca_file: clients-ca.pem`, or `mode: off`");
            }
            Asks::Nobody
        }
        (ClientMode::Required | ClientMode::Optional, Some((name, span))) => {
            match authorities(name, span, around, found) {
                Some(roots) => Asks::Clients(ClientAuth {
                    ca_file: around.path(&name.0, span),
                    required: mode == ClientMode::Required,
                    roots,
                }),
                None => Asks::Nobody,
            }
        }
    }
}
