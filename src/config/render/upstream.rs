//! `upstream:` of a service, with every value written out.

use serde_json::{Map, Value, json};

use super::super::model::{Trust, Upstream, UpstreamTls, Verify};
use super::super::scalar::{Word, write_time};
use super::text;

pub fn upstream(upstream: &Upstream) -> Value {
    let keepalive = json!({ "idle": write_time(upstream.keepalive_idle) });
    let mut out = json!({ "protocol": upstream.protocol.word(), "keepalive": keepalive });
    if let Some(ping) = upstream.ping {
        out["ping"] = write_time(ping).into();
    }
    if let Some(header) = upstream.proxy_protocol {
        out["proxy_protocol"] = header.word().into();
    }
    if let Some(of) = &upstream.tls {
        out["tls"] = tls(of);
    }
    out
}

fn tls(tls: &UpstreamTls) -> Value {
    let mut out = Map::new();
    let verify = match &tls.trust {
        Trust::File { path, .. } => {
            out.insert("ca_file".into(), text(&path.to_string_lossy()));
            Verify::Full
        }
        Trust::System(_) => Verify::Full,
        Trust::Blind => {
            out.insert("insecure".into(), true.into());
            Verify::Off
        }
    };
    out.insert("verify".into(), verify.word().into());
    if let Some(name) = &tls.sni {
        out.insert("sni".into(), text(name));
    }
    if let Some(identity) = &tls.identity {
        out.insert("cert_file".into(), text(&identity.cert_file.to_string_lossy()));
        out.insert("key_file".into(), text(&identity.key_file.to_string_lossy()));
    }
    out.into()
}
