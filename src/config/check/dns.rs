//! How names are looked up.

use super::super::found::Found;
use super::super::model;
use super::super::raw::Raw;

pub fn dns(raw: &Raw, found: &mut Found) -> model::Dns {
    let Some(it) = raw.dns.get() else { return model::Dns::default() };
    if let (Some(min), Some(max)) = (it.ttl_min.get(), it.ttl_max.get())
        && min.0 > max.0
    {
        let written = it.ttl_min.written().map(|it| it.1).or(it.ttl_max.written().map(|it| it.1));
        found
            .error(written.unwrap_or_default(), "`ttl_min` is longer than `ttl_max`")
            .why("no answer could be used for that long")
            .hint("lower `ttl_min`, or raise `ttl_max`");
    }
    let mut servers = Vec::new();
    if let Some((list, span)) = it.servers.written() {
        if list.0.is_empty() {
            found.error(span, "there are no DNS servers").hint("leave `servers` out to use those of /etc/resolv.conf");
        }
        for (server, span) in list.good() {
            match servers.contains(&server.0) {
                true => drop(found.error(span, "this DNS server is given twice")),
                false => servers.push(server.0),
            }
        }
    }
    model::Dns { servers, ttl_min: it.ttl_min.value().0, ttl_max: it.ttl_max.value().0, family: it.family.value() }
}
