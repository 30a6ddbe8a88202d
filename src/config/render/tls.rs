//! The `tls:` section of a listener, with every value written out.

use serde_json::{Map, Value, json};

use super::super::model::tls::{Asks, ClientAuth, ClientMode, Tls};
use super::super::scalar::Word;
use super::text;

pub fn tls(tls: &Tls) -> Value {
    let certificates = tls.certificates.iter().map(|one| {
        let mut out = Map::new();
        out.insert("cert_file".into(), text(&one.cert_file.to_string_lossy()));
        out.insert("key_file".into(), text(&one.key_file.to_string_lossy()));
        if let Some(file) = &one.ocsp_file {
            out.insert("ocsp_file".into(), text(&file.to_string_lossy()));
        }
        if let Some(names) = &one.names {
            out.insert("names".into(), names.iter().map(|name| text(name)).collect());
        }
        match &one.asks {
            Asks::AsListener => {}
            Asks::Nobody => drop(out.insert("client_auth".into(), json!({ "mode": ClientMode::Off.word() }))),
            Asks::Clients(auth) => drop(out.insert("client_auth".into(), client_auth(auth))),
        }
        Value::Object(out)
    });
    let mut out = json!({
        "certificates": certificates.collect::<Vec<_>>(),
        "min_version": tls.min_version.word(),
        "alpn": tls.alpn.iter().map(|alpn| alpn.word()).collect::<Vec<_>>(),
    });
    if let Some(auth) = &tls.client_auth {
        out["client_auth"] = client_auth(auth);
    }
    out
}

fn client_auth(auth: &ClientAuth) -> Value {
    let mode = if auth.required { ClientMode::Required } else { ClientMode::Optional };
    json!({ "ca_file": text(&auth.ca_file.to_string_lossy()), "mode": mode.word() })
}
