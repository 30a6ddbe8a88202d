//! What is rendered reads back as the same configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::model::*;
use super::super::render::to_yaml;
use super::rollout_values::{fit, gate, notification, rollout};
use super::{good, policies};

pub(super) fn name() -> impl Strategy<Value = Name> {
    // Names that YAML would read as something else are the point.
    prop_oneof![
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}".prop_map(|text| Arc::from(text.as_str())),
        select(vec!["null", "true", "no", "1.20", "1e3", "0x1F", "on", "y", "12:30", "2024-01-01"])
            .prop_filter("a name", |text| !text.contains(':'))
            .prop_map(Arc::from),
    ]
}

/// Text with everything that quoting must survive.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        "\\PC{0,10}",
        select(vec![
            "", " ", "${X}", "$${X}", "a\nb\n", "\n", "null", "~", "'", "\"", "# no", "a: b", "- a", "\t", "---"
        ])
        .prop_map(String::from),
    ]
}

pub(super) fn some_text() -> impl Strategy<Value = String> {
    text().prop_filter("not empty", |text| !text.is_empty())
}

pub(super) fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![1..5_000_u64, (1..100_u64).prop_map(|s| s * 1_000), (1..50_u64).prop_map(|h| h * 3_600_000)]
        .prop_map(Duration::from_millis)
}

pub(super) fn header() -> impl Strategy<Value = HeaderName> {
    "x-[a-z]{1,6}".prop_map(|text| HeaderName::from_bytes(text.as_bytes()).unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    "([!-~]([ -~]{0,12}[!-~])?)?".prop_map(|text| HeaderValue::from_str(&text).unwrap())
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let several = (header(), vec(header_value(), 1..3));
    vec(several, 0..3).prop_map(|groups| {
        let mut seen = std::collections::HashSet::new();
        let groups = groups.into_iter().filter(move |(name, _)| seen.insert(name.clone()));
        groups.flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value))).collect()
    })
}

fn single_headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    btree_map("x-[a-z]{1,6}", header_value(), 0..3).prop_map(|map| {
        map.into_iter().map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)).collect()
    })
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    (vec(header(), 0..3), single_headers(), headers()).prop_map(|(remove, set, add)| HeaderEdits { remove, set, add })
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z0-9:@-]{1,5}){1,3}"
}

pub(super) fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![Just(ValueMatch::Present), text().prop_map(ValueMatch::Exact)]
}

fn matcher() -> impl Strategy<Value = Match> {
    let host = prop_oneof![
        Just(HostMatch::Any),
        "[a-z]{1,8}\\.test".prop_map(HostMatch::Exact),
        "[a-z]{1,8}\\.test".prop_map(HostMatch::Wildcard),
    ];
    let path = prop_oneof![
        Just(PathMatch::Any),
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        select(vec!["^/v[0-9]+/", "\\.php$", "^/a{1,3}$"]).prop_map(|text| PathMatch::Regex(text.into())),
    ];
    let methods = prop_oneof![Just(vec![]), Just(vec![Method::GET]), Just(vec![Method::POST, Method::PUT])];
    let by_header = btree_map("x-[a-z]{1,6}", value_match(), 0..3).prop_map(|map| {
        map.into_iter().map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)).collect()
    });
    let query = btree_map("[a-z ?&]{1,6}", value_match(), 0..3).prop_map(|map| map.into_iter().collect());
    (host, path, methods, by_header, query).prop_map(|(host, path, methods, headers, query)| Match {
        host,
        path,
        methods,
        headers,
        query,
    })
}

fn health() -> impl Strategy<Value = Health> {
    let host = || of("[a-z]{1,8}(:80)?");
    let check = prop_oneof![
        Just(HealthCheck::Tcp),
        (of("[a-z]{1,8}(\\.[A-Z][a-z]{1,8})?"), host())
            .prop_map(|(service, host)| HealthCheck::Grpc { service: service.unwrap_or_default(), host }),
        (path(), host(), vec((200_u16..300, 300_u16..599), 1..3), of(header())).prop_map(
            |(path, host, ranges, instance)| {
                let status = ranges.into_iter().map(|(from, to)| from..=to).collect();
                HealthCheck::Http { path, host, status, instance }
            }
        ),
    ];
    let more = (0..=5_000_u32, 0..90_000_u64);
    (check, 100..5_000_u64, 10..5_000_u64, 1..9_u32, 1..9_u32, more).prop_map(
        |(check, every, timeout, pass, fail, (jitter_bp, damping))| Health {
            check,
            every: Duration::from_millis(every),
            timeout: Duration::from_millis(timeout),
            pass,
            fail,
            jitter_bp,
            damping: Duration::from_millis(damping),
        },
    )
}

fn outlier() -> impl Strategy<Value = Outlier> {
    let success = (1..=10_000_u32, 10..1_000_u64)
        .prop_map(|(below_peers_bp, min_requests)| SuccessRule { below_peers_bp, min_requests });
    let slow = (200..100_000_u32, time(), 10..1_000_u64).prop_map(|(max_ratio_hundredths, at_least, min_requests)| {
        SlowRule { max_ratio_hundredths, at_least, min_requests }
    });
    let times = (1_000..90_000_u64, time(), time());
    (1..100_u32, of(success), of(slow), times, 0..=10_000_u32).prop_map(
        |(consecutive_failures, success_rate, latency, (every, one, two), max_ejected_bp)| Outlier {
            consecutive_failures,
            success_rate,
            latency,
            every: Duration::from_millis(every),
            eject_for: one.min(two),
            eject_for_max: one.max(two),
            max_ejected_bp,
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let address = prop_oneof![
        (any::<[u8; 4]>(), 1..u16::MAX).prop_map(|(ip, port)| EndpointAddress::Ip(SocketAddr::from((ip, port)))),
        (any::<[u16; 8]>(), 1..u16::MAX).prop_map(|(ip, port)| EndpointAddress::Ip(SocketAddr::from((ip, port)))),
        ("[a-z]{1,6}(\\.[a-z]{1,4})?", 1..u16::MAX).prop_map(|(host, port)| EndpointAddress::Name { host, port }),
        "[a-z]{1,6}(/[a-z]{1,4})?".prop_map(|path| EndpointAddress::Unix(format!("/run/{path}").into())),
    ];
    (address, 1..1_000_u32, of(1..1_000_u32)).prop_map(|(address, weight, max_connections)| Endpoint {
        address,
        weight,
        max_connections,
    })
}

fn balance() -> impl Strategy<Value = Balance> {
    let by = prop_oneof![
        Just(BalanceBy::RoundRobin),
        Just(BalanceBy::LeastRequest),
        Just(BalanceBy::PeakEwma),
        header().prop_map(|name| BalanceBy::ConsistentHash(HashKey::Header(name))),
        "[a-z]{1,6}".prop_map(|name| BalanceBy::ConsistentHash(HashKey::Cookie(name))),
        Just(BalanceBy::ConsistentHash(HashKey::ClientIp)),
        Just(BalanceBy::ConsistentHash(HashKey::Path)),
    ];
    (by, time()).prop_map(|(by, slow_start)| Balance { by, slow_start })
}

fn retry() -> impl Strategy<Value = Retry> {
    let on = (any::<[bool; 3]>(), btree_set(500..600_u16, 0..3));
    let methods = prop_oneof![Just(RetryMethods::Safe), Just(RetryMethods::Idempotent)];
    (0..9_u32, on, methods, 1..=10_000_u32, of(40..200_u64), of(1..40_u64)).prop_map(
        |(attempts, ([connect, refused, reset], statuses), methods, budget_bp, per_try, hedge)| Retry {
            attempts,
            on: RetryOn {
                connect,
                refused,
                // Something must be.
                reset: reset || (!connect && !refused),
                timeout: per_try.is_some(),
                statuses: statuses.into_iter().collect(),
            },
            methods,
            budget_bp,
            per_try_timeout: per_try.map(Duration::from_millis),
            hedge_after: hedge.map(Duration::from_millis),
        },
    )
}

/// One attempt must be shorter than all of them.
fn shorter(mut retry: Retry, request: Duration) -> Retry {
    retry.per_try_timeout = retry.per_try_timeout.filter(|time| *time < request);
    retry.on.timeout = retry.per_try_timeout.is_some();
    retry.hedge_after = retry.hedge_after.filter(|time| *time < request);
    retry
}

/// What cannot be hedged is not.
fn plain_tcp(versions: &BTreeMap<Name, Version>, protocol: Protocol) -> bool {
    let mut endpoints = versions.values().flat_map(|version| &version.endpoints);
    protocol == Protocol::H1 && !endpoints.any(|endpoint| matches!(endpoint.address, EndpointAddress::Unix(_)))
}

fn service() -> impl Strategy<Value = Service> {
    let version = (vec(endpoint(), 1..4), of(some_text()));
    let versions = btree_map(name(), version, 1..4).prop_map(|versions| {
        let version = |(mut endpoints, revision): (Vec<Endpoint>, _)| {
            endpoints.sort();
            endpoints.dedup_by(|a, b| a.address == b.address);
            Version { endpoints, revision }
        };
        versions.into_iter().map(|(name, it)| (name, version(it))).collect()
    });
    let sticky = of(prop_oneof![
        Just(Sticky::ClientIp),
        header().prop_map(Sticky::Header),
        ("[a-z]{1,6}", of((1..90_000_u64).prop_map(Duration::from_secs)))
            .prop_map(|(name, ttl)| Sticky::Cookie { name, ttl }),
    ]);
    let outlier = (of(outlier().boxed()), 0..=10_000_u32, of(1..1_000_000_u64));
    let policies = (
        (retry().boxed(), time(), time(), time(), time(), of(time())),
        (of(0..1_u64 << 40), of(1..1_000_000_u64), time()),
        (time(), time(), time(), time()),
        (time(), 0..1_000_usize),
    );
    let force = of(header()).prop_map(|header| header.map(|header| Force { header, token: None, token_file: None }));
    (
        versions,
        any::<bool>(),
        vec(0..500_u32, 4),
        sticky,
        (force, balance()),
        (of(health().boxed()), of(rollout().boxed())),
        outlier,
        policies,
    )
        .prop_map(
            |(
                versions,
                active,
                weights,
                sticky,
                (force, balance),
                (health, rollout),
                (outlier, panic_below_bp, circuit),
                (one, two, three, four),
            )| {
                let versions: BTreeMap<Name, Version> = versions;
                let first = versions.keys().next().cloned().unwrap();
                let intent = if active {
                    Intent::Active(first)
                } else {
                    let mut split: BTreeMap<Name, u32> = versions.keys().cloned().zip(weights).collect();
                    split.insert(first, 1);
                    Intent::Split(split)
                };
                let (mut retry, connect, request, idle, upgrade_idle, total) = one;
                let (body, in_flight, keepalive_idle) = two;
                let protocol = if three.0 > three.1 { Protocol::H1 } else { Protocol::H2c };
                retry.hedge_after = retry.hedge_after.filter(|_| plain_tcp(&versions, protocol));
                let announces = three.0 > three.3 && retry.hedge_after.is_none();
                Service {
                    versions,
                    intent,
                    rollout: rollout.filter(|_| active),
                    sticky,
                    force,
                    balance,
                    health,
                    outlier,
                    panic_below_bp,
                    circuit,
                    retry: shorter(retry, request),
                    timeouts: Timeouts { connect, request, idle, upgrade_idle, total },
                    limits: Limits { body, in_flight },
                    upstream: Upstream {
                        protocol,
                        ping: (three.0 > three.2).then_some(three.2 + Duration::from_secs(1)),
                        keepalive_idle,
                        // Files are needed: `upstream.rs` beside this.
                        tls: None,
                        proxy_protocol: announces.then_some(ProxyHeader::V1),
                    },
                    drain: Drain { requests: three.0, streams: three.1, sessions: three.2, reconnect_spread: three.3 },
                    hold: Hold { max_wait: four.0, max_requests: four.1 },
                    policy: policies::service(connect, four.1 as u32),
                }
            },
        )
}

fn route_parts() -> impl Strategy<Value = (Match, u8, Rewrite, u16, Vec<(HeaderName, HeaderValue)>, String)> {
    let rewrite = (of(path()), of("[a-z]{1,8}(:80)?"), edits(), edits()).prop_map(
        |(path_prefix, host, request_headers, response_headers)| Rewrite {
            path_prefix,
            host: host.map(|host| HeaderValue::from_str(&host).unwrap()),
            request_headers,
            response_headers,
        },
    );
    (matcher(), 0..3_u8, rewrite, select(vec![200_u16, 404, 503]), headers(), text())
}

fn config() -> impl Strategy<Value = Config> {
    let listeners = btree_map(name(), (time(), 1..9_999_usize, 1..500_usize), 1..3);
    let services = (
        btree_map(name(), service().boxed(), 1..3),
        btree_map(name(), gate().boxed(), 0..3),
        btree_map(name(), notification().boxed(), 0..3),
    );
    (listeners, vec(route_parts().boxed(), 0..4), services, any::<bool>(), of(Just("/x/y"))).prop_map(
        |(listeners, routes, (mut services, gates, notifications), flag, dir)| {
            let (gate_names, told): (Vec<Name>, Vec<Name>) =
                (gates.keys().cloned().collect(), notifications.keys().cloned().collect());
            for service in services.values_mut() {
                let Some(rollout) = &mut service.rollout else { continue };
                fit(rollout, &gate_names, &told);
                if rollout.stages.iter().any(|stage| matches!(stage.traffic, StageTraffic::Mirror(_))) {
                    service.upstream.protocol = Protocol::H1;
                }
            }
            let first = services.keys().next().cloned().unwrap();
            let listeners = listeners.into_iter().map(|(name, (time, many, few))| {
                let timeouts =
                    ListenerTimeouts { handshake: time, header: time, idle: time * 2, body: time, write: time };
                let limits = ListenerLimits {
                    connections: many,
                    handshakes: few,
                    header_bytes: 1024 * few + 1024,
                    header_fields: few,
                    target_bytes: 1024 * few,
                };
                let policy = policies::listener(time, many as u32);
                let http2 = Http2 {
                    prior_knowledge: few % 2 == 0,
                    streams: few as u32,
                    window: (32_768 * few as u32).max(65_536),
                    resets: many as u32,
                    control_frames: 10 * few as u32,
                };
                (
                    name,
                    Listener {
                        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
                        tls: None,
                        timeouts,
                        limits,
                        http2,
                        policy,
                    },
                )
            });
            let routes: Vec<Route> = routes
                .into_iter()
                .enumerate()
                .map(|(at, (matcher, kind, mut rewrite, status, headers, body))| {
                    if !matches!(matcher.path, PathMatch::Prefix(_)) {
                        rewrite.path_prefix = None;
                    }
                    let action = match kind {
                        0 => Action::Forward { service: first.clone(), rewrite },
                        1 => Action::Redirect { to: "https://x.test/y?z=${A}".into(), status: 308 },
                        _ => Action::Respond { status, headers, body },
                    };
                    Route { name: Arc::from(format!("r{at}")), policy: policies::route(at), matcher, action }
                })
                .collect();
            let expect = routes.first().map(|route| Expect {
                method: Method::from_bytes(if flag { b"GET" } else { b"PROPFIND" }).unwrap(),
                url: "http://x.test/a?b=c".into(),
                headers: Vec::new(),
                want: Want {
                    route: Some(route.name.clone()),
                    service: Some(first.clone()),
                    version: None,
                    status: None,
                },
                place: String::new(),
            });
            Config {
                state_dir: dir.map(Into::into),
                listeners: listeners.collect(),
                admin: Admin { bind: AdminBind::Unix("/run/a.sock".into()), insecure: flag },
                expose: Expose { response_headers: flag },
                access_log: AccessLog {
                    to: if flag { AccessLogTarget::File("/var/log/a".into()) } else { AccessLogTarget::Stdout },
                    buffer: 7,
                },
                request_id: policies::request_id(flag),
                shutdown: Shutdown {
                    pre_drain: Duration::from_millis(1),
                    linger: Duration::ZERO,
                    timeout: Duration::from_secs(3),
                },
                dns: Dns {
                    servers: if flag { vec![SocketAddr::from(([10, 0, 0, 1], 53))] } else { Vec::new() },
                    family: if flag { AddressFamily::Both } else { AddressFamily::Ipv6 },
                    ..Dns::default()
                },
                upgrade: Upgrade {
                    ready_timeout: Duration::from_secs(5),
                    linger: Duration::from_millis(7),
                    drain: Duration::from_secs(9),
                },
                routes,
                services,
                gates,
                notifications,
                expect: expect.into_iter().collect(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn what_is_rendered_reads_back_the_same(config in config()) {
        let text = to_yaml(&config);
        prop_assert_eq!(good(&text), config, "{}", text);
    }
}

#[test]
fn the_examples_read_back_the_same() {
    for example in ["minimal", "blue-green", "canary", "full"] {
        let path = format!("{}/config/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
        let config = good(&std::fs::read_to_string(path).unwrap());
        assert_eq!(good(&to_yaml(&config)), config, "{example}");
    }
}
