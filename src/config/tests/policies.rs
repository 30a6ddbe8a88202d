//! Policies of listeners, services and routes: what is read back, and what is refused.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::super::model::policy::*;
use super::super::model::{Access, Networks};
use super::{errors, good};

fn networks(texts: &[&str]) -> Networks {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn access(seed: u32) -> Access {
    match seed % 4 {
        0 => Access::default(),
        1 => Access { allow: Some(networks(&["10.0.0.0/8", "::1/128"])), deny: networks(&["10.9.0.0/16"]) },
        2 => Access { allow: None, deny: networks(&["203.0.113.7/32", "2001:db8::/32", "203.0.113.0/24"]) },
        _ => Access { allow: Some(networks(&["0.0.0.0/0"])), deny: Networks::default() },
    }
}

/// Some policy of each kind, for the round trip.
pub fn listener(time: Duration, seed: u32) -> ListenerPolicy {
    let mode = if time.as_millis().is_multiple_of(2) { ProxyMode::Optional } else { ProxyMode::Required };
    ListenerPolicy {
        proxy_protocol: seed
            .is_multiple_of(3)
            .then(|| ProxyProtocol { mode, from: networks(&["10.0.0.0/8", "fd00::/8"]) }),
        trusted_proxies: if seed.is_multiple_of(2) { networks(&["192.0.2.0/24"]) } else { Networks::default() },
        access: access(seed),
        connections_per_client: (seed % 5 > 1).then_some(seed),
        min_body_rate: (seed % 7 > 2).then_some(u64::from(seed) * 512),
        min_send_rate: (seed % 7 > 4).then_some(u64::from(seed)),
    }
}

pub fn service(time: Duration, seed: u32) -> ServicePolicy {
    let page = Maintenance {
        enabled: seed.is_multiple_of(2),
        status: 503,
        body: "a: ${b}\n".into(),
        file: None,
        content_type: HeaderValue::from_static("text/html; charset=utf-8"),
        retry_after: Some(time + Duration::from_secs(1)).filter(|_| seed.is_multiple_of(5)),
        allow: if seed.is_multiple_of(7) { networks(&["192.0.2.0/24"]) } else { Networks::default() },
    };
    ServicePolicy {
        access: access(seed),
        rate_limit: rate_limit(seed),
        maintenance: (!seed.is_multiple_of(3)).then_some(page),
        compression: (seed % 4 > 1).then(|| Compression {
            codings: Coding::ALL[..1 + seed as usize % 3].into(),
            level: 1 + seed % 9,
            min_size: u64::from(seed) * 7,
            types: ["text/*", "application/x.y+json"].iter().filter_map(|text| MediaType::new(text)).collect(),
        }),
        in_flight_per_client: (seed % 4 > 2).then_some(seed),
    }
}

pub fn route(at: usize) -> RoutePolicy {
    RoutePolicy { access: access(at as u32), rate_limit: rate_limit(at as u32) }
}

fn rate_limit(seed: u32) -> Option<RateLimit> {
    let number = |number: u32| NonZeroU32::new(number + 1).unwrap();
    let key = match seed % 2 {
        0 => RateKey::ClientIp,
        _ => RateKey::Header(HeaderName::from_static("x-api-key")),
    };
    let per = Duration::from_secs([1, 60, 3600][seed as usize % 3]);
    (seed % 5 > 1).then(|| RateLimit { key, count: number(seed), per, burst: number(seed * 2) })
}

pub fn request_id(flag: bool) -> Option<RequestIds> {
    flag.then(|| RequestIds { header: HeaderName::from_static("x-trace"), trust: !flag, respond: flag })
}

/// A configuration with these keys of the listener, the route and the service.
fn with(listener: &str, route: &str, service: &str) -> String {
    format!(
        "listeners: {{ web: {{ bind: \"127.0.0.1:80\", {listener} }} }}\nroutes: [{{ name: r, service: s, {route} }}]\n\
         services: {{ s: {{ versions: {{ v: {{ endpoints: [\"127.0.0.1:1\"] }} }}, active: v, {service} }} }}\n"
    )
}

#[test]
fn policies_are_off_without_a_word() {
    let config = good(&with("", "", ""));
    assert_eq!(config.listeners["web"].policy, ListenerPolicy::default());
    assert_eq!(config.services["s"].policy, ServicePolicy::default());
    assert_eq!(config.routes[0].policy, RoutePolicy::default());
    assert_eq!(config.request_id, None);
    assert_eq!(good(&with("proxy_protocol: off", "", "")).listeners["web"].policy, ListenerPolicy::default());
}

#[test]
fn the_defaults_of_what_is_on() {
    let config =
        good(&(with("", "", "rate_limit: { rate: 10/m }, maintenance: {}, compression: {}") + "request_id: {}\n"));
    let policy = &config.services["s"].policy;
    let limit = policy.rate_limit.as_ref().unwrap();
    assert_eq!((&limit.key, limit.count, limit.per.as_secs()), (&RateKey::ClientIp, limit.burst, 60));
    let page = policy.maintenance.as_ref().unwrap();
    assert_eq!((page.enabled, page.status, page.body.as_str(), page.retry_after), (true, 503, "", None));
    let compression = policy.compression.as_ref().unwrap();
    assert_eq!((compression.codings.as_slice(), compression.level, compression.min_size), (&Coding::ALL[..], 4, 1024));
    assert!(compression.types.iter().any(|it| it.matches(b"application/json")));
    let ids = config.request_id.unwrap();
    assert_eq!((ids.header.as_str(), ids.trust, ids.respond), ("x-request-id", true, false));
}

#[test]
fn lists_that_mean_nothing_are_refused() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str)] = &[
        ("proxy_protocol: required", "", "", "`proxy_protocol` must be a map or `off`, not `required`"),
        ("proxy_protocol: { mode: required }", "", "", "needs the key `from`"),
        ("proxy_protocol: { from: [] }", "", "", "nobody could announce a client"),
        ("proxy_protocol: { from: [10.0.0.1/8] }", "", "", "did you mean `10.0.0.0/8`"),
        ("proxy_protocol: { mode: maybe, from: [10.0.0.0/8] }", "", "", "it is one of `required` and `optional`"),
        ("trusted_proxies: 10.0.0.0/8", "", "", "must be a list"),
        ("trusted_proxies: [everybody]", "", "", "`everybody` is not a network"),
        ("trusted_proxies: [\"::ffff:10.0.0.0/104\"]", "", "", "write `10.0.0.0/8`"),
        ("access: { allow: [] }", "", "", "nobody could come in"),
        ("access: { permit: [10.0.0.0/8] }", "", "", "unknown key `permit`"),
        ("access: { deny: [10.0.0.0/40] }", "", "", "the length of an IPv4 prefix is from 0 to 32"),
        ("limits: { min_body_rate: 0B }", "", "", "it must be from 1B"),
        ("limits: { min_send_rate: fast }", "", "", "is not a size"),
        ("", "rate_limit: { rate: 100 }", "", "did you mean `100/s`?"),
        ("", "", "rate_limit: { burst: 5 }", "needs the key `rate`"),
        ("", "", "rate_limit: { rate: 0/s }", "a number from 1 to 1000000"),
        ("", "", "rate_limit: { rate: 5/s, burst: 0 }", "a whole number from 1 to 1000000"),
        ("", "", "rate_limit: { rate: 5/s, key: cookie }", "write `client_ip`, or `{ header: x-api-key }`"),
        ("", "", "rate_limit: { rate: 5/s, key: { header: \"a b\" } }", "is not a header name"),
        ("", "", "limits: { in_flight_per_client: 0 }", "a whole number from 1 to 1000000"),
        ("", "", "maintenance: { body: a, file: b }", "`body` and `file` cannot be used together"),
        ("", "", "maintenance: { file: nowhere.html }", "`nowhere.html` cannot be read"),
        ("", "", "maintenance: { status: 204, body: a }", "an answer with status 204 has no body"),
        ("", "", "compression: { algorithms: [] }", "`algorithms` is empty"),
        ("", "", "compression: { algorithms: [gzip, gzip] }", "`gzip` is given twice"),
        ("", "", "compression: { algorithms: deflate }", "it is one of `gzip`, `br` and `zstd`"),
        ("", "", "compression: { level: 11 }", "a whole number from 1 to 9"),
        ("", "", "compression: { types: [text] }", "write type and subtype"),
        ("", "", "compression: { types: [\"text/html; charset=utf-8\"] }", "without parameters"),
        ("", "", "compression: true", "must be a map"),
        ("", "", "maintenance: { retry_after: 10ms }", "is not a duration"),
        ("limits: { connections_per_client: 0 }", "", "", "a whole number from 1 to 1000000"),
        ("", "access: { allow: [] }", "", "nobody could come in"),
        ("", "", "access: { allow: [] }", "nobody could come in"),
        ("", "", "access: { allow: [10.0.0.0/8], deny: [x] }", "`x` is not a network"),
    ];
    for (listener, route, service, words) in cases {
        let found = errors(&with(listener, route, service));
        assert!(found.len() == 1 && found[0].contains(words), "{listener}{route}{service}: {found:?}");
    }
}

#[test]
fn a_list_of_65536_networks_is_read_and_asked_quickly() {
    let list: Vec<String> =
        (0..65_536_u32).map(|nth| format!("{}.{}.{}.0/25", nth % 200 + 1, nth / 200 % 200, nth / 40_000)).collect();
    let text = with(&format!("access: {{ deny: [{}] }}", list.join(", ")), "", "");
    let config = good(&text);
    let access = &config.listeners["web"].policy.access;
    let began = std::time::Instant::now();
    let mut denied = 0;
    for nth in 0..100_000_u32 {
        denied += u32::from(!access.admits(std::net::Ipv4Addr::from(nth.wrapping_mul(0x9e37_79b9)).into()));
    }
    assert!(denied > 0 && began.elapsed() < Duration::from_secs(2), "{denied} in {:?}", began.elapsed());
}
