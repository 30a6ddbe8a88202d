//! The budgets of the pure part: a decision takes the same time with ten routes and with a hundred
//! thousand, an endpoint is chosen among a thousand as fast as among three, and a new split is made in microseconds.
//!
//! `cargo bench --bench micro`, or with a filter: `cargo bench --bench micro -- decision`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use switchback::analysis::Arm;
use switchback::config::load::{Source, parse};
use switchback::config::model::*;
use switchback::endpoints::budget::Budget;
use switchback::endpoints::{Ask, Runtime, VersionRuntime, pick};
use switchback::evidence::{FailedRequest, RequestId, Trial};
use switchback::limits::{PerClient, Rates, Who};
use switchback::rollout::{Bad, Failure, Judge};
use switchback::routing::compile::{compile, intended_shares, split_from};
use switchback::routing::matcher::RequestView;
use switchback::routing::*;

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// How the routes of a table differ.
#[derive(Clone, Copy)]
enum Shape {
    Hosts,
    Prefixes,
}

impl Shape {
    const ALL: [Shape; 2] = [Shape::Hosts, Shape::Prefixes];

    fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Prefixes => "prefixes",
        }
    }

    fn route(self, at: usize) -> Route {
        let (host, path) = match self {
            Self::Hosts => (format!("app-{at}.shop.example.com"), "/".to_owned()),
            Self::Prefixes => ("shop.example.com".to_owned(), format!("/api/v1/service-{at}")),
        };
        Route {
            name: format!("route-{at}").into(),
            matcher: Match { host: HostMatch::Exact(host), path: PathMatch::Prefix(path), ..Match::default() },
            policy: RoutePolicy::default(),
            action: Action::Forward { service: "service-0".into(), rewrite: Rewrite::default() },
        }
    }

    fn request(self, at: usize) -> (String, String) {
        match self {
            Self::Hosts => (format!("app-{at}.shop.example.com"), "/cart/items/42".to_owned()),
            Self::Prefixes => ("shop.example.com".to_owned(), format!("/api/v1/service-{at}/items/42")),
        }
    }
}

fn service(intent: Intent) -> Service {
    let secs = Duration::from_secs;
    let address = |text: &str| EndpointAddress::Ip(text.parse().expect("an address"));
    let version = |name: &str, text| (name.into(), Version { endpoints: vec![address(text).into()], revision: None });
    Service {
        versions: BTreeMap::from([
            version("v1", "10.0.0.1:80"),
            version("v2", "10.0.0.2:80"),
            version("v3", "10.0.0.3:80"),
        ]),
        intent,
        rollout: None,
        sticky: None,
        force: None,
        balance: Balance::default(),
        health: None,
        outlier: None,
        panic_below_bp: 0,
        circuit: None,
        retry: Retry::default(),
        timeouts: Timeouts {
            connect: secs(2),
            request: secs(60),
            idle: secs(75),
            upgrade_idle: secs(3600),
            total: None,
        },
        limits: Limits { body: None, in_flight: None },
        upstream: Upstream { keepalive_idle: secs(4), ..Upstream::default() },
        drain: Drain { requests: secs(30), streams: secs(600), sessions: secs(600), reconnect_spread: secs(30) },
        hold: Hold { max_wait: secs(5), max_requests: 1024 },
        policy: ServicePolicy::default(),
    }
}

fn config(shape: Shape, routes: usize, services: usize) -> Arc<Config> {
    let weights = BTreeMap::from([("v1".into(), 90), ("v2".into(), 10)]);
    let named = |at| (format!("service-{at}").into(), service(Intent::Split(weights.clone())));
    Arc::new(Config {
        state_dir: None,
        listeners: BTreeMap::new(),
        admin: Admin { bind: AdminBind::Tcp("127.0.0.1:9900".parse().expect("an address")), insecure: false },
        expose: Expose::default(),
        access_log: AccessLog { to: AccessLogTarget::Off, buffer: 8192 },
        request_id: None,
        upgrade: Default::default(),
        dns: Default::default(),
        shutdown: Shutdown {
            pre_drain: Duration::from_secs(2),
            linger: Duration::from_secs(1),
            timeout: Duration::from_secs(9),
        },
        routes: (0..routes).map(|at| shape.route(at)).collect(),
        services: (0..services).map(named).collect(),
        gates: BTreeMap::new(),
        notifications: BTreeMap::new(),
        expect: Vec::new(),
    })
}

fn generation(config: Arc<Config>) -> Generation {
    let table = compile(config).expect("the routes compile");
    let splits = table.services.iter().map(|service| split_from(service, intended_shares(service), 4)).collect();
    let stamp = Stamp { number: 1, hash: "".into(), author: "bench".into(), cause: "start".into(), at_ms: 0 };
    Generation { stamp, table: Arc::new(table), splits }
}

/// Requests for routes all over the table, so that the caches hold no more of it than they would in production.
fn requests(shape: Shape, routes: usize) -> Vec<(String, String)> {
    (0..4096_usize).map(|at| shape.request(at.wrapping_mul(0x9E37_79B1) % routes)).collect()
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match");
    let (method, headers) = (Method::GET, HeaderMap::new());
    for shape in Shape::ALL {
        for size in SIZES {
            let table = compile(config(shape, size, 1)).expect("the routes compile");
            let requests = requests(shape, size);
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(shape.name(), size), |bencher| {
                bencher.iter(|| {
                    let (host, path) = &requests[turn % requests.len()];
                    turn += 1;
                    let view = RequestView { method: &method, host, path, query: None, headers: &headers };
                    table.route(black_box(&view)).expect("every request has a route")
                });
            });
        }
    }
}

fn choosing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choose");
    let names: Vec<Name> = (0..12).map(|at| format!("v{at}").into()).collect();
    for weights in [&[1][..], &[9_500, 500], &[9_000, 700, 300], &[9_989, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
        let versions = weights.len();
        let shares = weights.iter().map(|&weight| Share::Weight(weight)).collect();
        let split = Split::new(&names[..versions], shares, 1, 1);
        group.bench_function(BenchmarkId::new("weight", versions), |bencher| bencher.iter(|| split.next(Thread(0))));
        let mut id = 0;
        group.bench_function(BenchmarkId::new("sticky", versions), |bencher| {
            bencher.iter(|| {
                id += 1;
                let client = Client { key: Some(ClientKey(id)), ..Client::default() };
                choose(&split, 7, black_box(&client), Thread(0), |_| Ready::Yes)
            });
        });
    }
}

/// Everything between the parsed request head and the version: normal forms, route, version, tally.
fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision");
    let (method, headers) = (Method::GET, HeaderMap::new());
    for shape in Shape::ALL {
        for size in [10, 100_000] {
            let generation = generation(config(shape, size, 1));
            let requests = requests(shape, size);
            for (kind, sticky) in [("weight", false), ("sticky", true)] {
                let mut turn = 0;
                group.bench_function(BenchmarkId::new(format!("{}/{kind}", shape.name()), size), |bencher| {
                    bencher.iter(|| {
                        let (host, path) = &requests[turn % requests.len()];
                        turn += 1;
                        let host = host::normalise(host.as_bytes()).expect("a host");
                        let path = path::normalise(path).expect("a path");
                        let (host, path) = (&*host, &*path);
                        let view = RequestView { method: &method, host, path, query: None, headers: &headers };
                        let route = generation.table.route(black_box(&view)).expect("every request has a route");
                        let idx = generation.table.route_at(route).service.expect("every route forwards");
                        let split = generation.split(idx);
                        let key = sticky.then_some(ClientKey(turn as u64));
                        let client = Client { key, ..Client::default() };
                        let salt = generation.table.service(idx).salt;
                        let choice = choose(split, salt, &client, Thread(0), |_| Ready::Yes).expect("all are ready");
                        split.tally(Thread(0), choice.version, choice.bucket);
                        choice
                    });
                });
            }
        }
    }
}

fn changing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(10);
    for shape in Shape::ALL {
        for size in [10_000, 100_000] {
            let config = config(shape, size, 1);
            group.bench_function(BenchmarkId::new(format!("compile/{}", shape.name()), size), |bencher| {
                bencher.iter_batched(|| config.clone(), compile, BatchSize::PerIteration);
            });
        }
    }
    let before = generation(config(Shape::Hosts, 1_000, 1_000));
    let service = before.table.service_named("service-500").expect("it is there");
    group.bench_function(BenchmarkId::new("one split", 1_000), |bencher| {
        bencher.iter(|| {
            let shares = vec![Share::Weight(50), Share::Weight(50), Share::Off];
            let split = split_from(before.table.service(service), shares, 4);
            before.with_splits(Stamp { number: 2, ..before.stamp.clone() }, [(service, split)])
        });
    });
}

/// A rollout as its defaults are, with nothing known yet.
fn trial(threads: usize) -> Trial<Judge> {
    let text = "listeners: { web: { bind: 127.0.0.1:80 } }\n\
                routes: [{ name: all, service: shop }]\n\
                services: { shop: { versions: { v1: { endpoints: [127.0.0.1:81] }, v2: { endpoints: [127.0.0.1:82] } }, \
                active: v1, rollout: { stages: [5%, 100%] } } }";
    let loaded = parse(vec![Source { path: "bench.yaml".into(), text: text.into() }]).expect("the text is valid");
    let plan = loaded.config.services.values().find_map(|service| service.rollout.clone()).expect("it is in the text");
    let trial = Trial::new(Judge::new(&plan), threads, Arc::default());
    trial.judge(|judge| judge.enter((&plan, &plan.guardrails), 0.05, 0, |_| false));
    trial
}

/// What a request costs that a rollout is judged by: 60 ns if it went well, 3 us if not, and no more if
/// others do the same at the same time.
fn evidence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evidence");
    // Few and long samples: new threads begin on one core, and a short sample would measure that.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::new("success", threads), |bencher| {
            bencher.iter_custom(|rounds| {
                let trial = trial(threads);
                together(threads, |thread| {
                    for at in 0..rounds {
                        let arm = if at % 20 == 0 { Arm::Canary } else { Arm::Stable };
                        trial.answered(thread, arm, Some(black_box(Duration::from_micros(900 + at % 512))));
                    }
                })
            });
        });
        // Stable fails as the canary does, so that nothing is decided and all is computed each time.
        let request = FailedRequest {
            id: RequestId::sent(b"4bf92f35-77b3-4da6-a3ce-929d0e0e4736").expect("not empty"),
            at: 1_764_038_400_000,
            status: 500,
            endpoint: None,
        };
        group.bench_function(BenchmarkId::new("failure", threads), |bencher| {
            bencher.iter_custom(|rounds| {
                let trial = trial(threads);
                let took = together(threads, |thread| {
                    for at in 0..rounds {
                        let arm = if at % 20 == 0 { Arm::Canary } else { Arm::Stable };
                        trial.answered(thread, arm, None);
                        trial.note(arm, request);
                        trial.failed(
                            black_box(Failure { arm, pi: 0.05, bucket: None, status: 500, bad: Bad::FAILED }),
                            at,
                        );
                    }
                });
                // What was dropped costs nothing; this is the price of judging each one.
                let meters = trial.judge(|judge| judge.meters());
                assert_eq!(meters.canary.failed + meters.stable.failed, rounds * threads as u64);
                took
            });
        });
    }
}

/// What a request costs that is limited by its client's address, when threads share the table: many clients, and one
/// that all threads ask for; and what it costs to ask whether an address is in 65 536 networks.
fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let number = |number| NonZeroU32::new(number).expect("not zero");
    let policy = RateLimit {
        key: RateKey::ClientIp,
        count: number(1_000_000),
        per: Duration::from_secs(1),
        burst: number(1_000_000),
    };
    let who = |at: u64| Who::of(std::net::Ipv4Addr::from(at as u32).into());
    for threads in [1, 2] {
        for (what, clients) in [("rate, 10 000 clients", 10_000), ("rate, one client", 1)] {
            group.bench_function(BenchmarkId::new(what, threads), |bencher| {
                bencher.iter_custom(|rounds| {
                    let rates = Rates::new(&policy);
                    together(threads, |thread| {
                        for at in 0..rounds {
                            let client = who((at * 31 + u64::from(thread.0) * 7) % clients);
                            let _ = black_box(rates.ask(black_box(client), |_| None));
                        }
                    })
                });
            });
        }
        group.bench_function(BenchmarkId::new("in flight, 10 000 clients", threads), |bencher| {
            bencher.iter_custom(|rounds| {
                let table = Arc::new(PerClient::default());
                together(threads, |thread| {
                    for at in 0..rounds {
                        black_box(table.try_enter(who((at * 31 + u64::from(thread.0) * 7) % 10_000), 100));
                    }
                })
            });
        });
    }
    let networks = |count: u32| -> Networks {
        let network = |at: u32| format!("{}.{}.{}.0/25", at % 200 + 1, at / 200 % 250, at / 50_000);
        (0..count).map(|at| network(at).parse().expect("a network")).collect()
    };
    for count in [16, 65_536] {
        let list = networks(count);
        let mut at = 0_u32;
        group.bench_function(BenchmarkId::new("networks", count), |bencher| {
            bencher.iter(|| {
                at = at.wrapping_add(0x9e37_79b9);
                list.contains(black_box(std::net::Ipv4Addr::from(at).into()))
            });
        });
    }
}

/// What a request costs whose client is asked for at all, and one that may be asked again.
fn policies(criterion: &mut Criterion) {
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Networks>();
    let mut group = criterion.benchmark_group("access");
    let open = Access::default();
    let closed = Access {
        allow: Some(networks(&["10.0.0.0/8", "192.168.0.0/16", "2001:db8::/32"])),
        deny: networks(&["10.66.0.0/16"]),
    };
    for (what, access) in [("open", open), ("three allowed, one denied", closed)] {
        let mut at = 0_u32;
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                at = at.wrapping_add(0x9e37_79b9);
                let access = black_box(&access);
                access.is_open() || access.admits(black_box(std::net::Ipv4Addr::from(at).into()))
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("retry budget");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for threads in [1, 2] {
        for (what, again) in [("request", false), ("request and one more try", true)] {
            group.bench_function(BenchmarkId::new(what, threads), |bencher| {
                bencher.iter_custom(|rounds| {
                    let budget = Budget::new(threads);
                    together(threads, |thread| {
                        for at in 0..rounds {
                            let now_ms = 1_000 + at / 64;
                            budget.request(thread, black_box(now_ms));
                            if again {
                                black_box(budget.take(thread, black_box(now_ms), 2_000));
                            }
                        }
                    })
                });
            });
        }
    }
}

/// One version with so many endpoints.
fn version(by: &BalanceBy, count: u16, threads: usize) -> Arc<VersionRuntime> {
    let endpoint = |at: u16| Endpoint::from(EndpointAddress::Ip(([10, 0, (at >> 8) as u8, at as u8], 80).into()));
    let mut service = service(Intent::Active("v1".into()));
    let version = Version { endpoints: (0..count).map(endpoint).collect(), revision: None };
    service.versions = BTreeMap::from([("v1".into(), version)]);
    service.balance = Balance { by: by.clone(), ..Balance::default() };
    let mut config = Arc::unwrap_or_clone(config(Shape::Hosts, 1, 0));
    config.services = BTreeMap::from([("service-0".into(), service)]);
    let runtime = Runtime::build(&compile(Arc::new(config)).expect("it compiles"), None, threads);
    runtime.services[0].versions[0].clone()
}

/// What is there before the bench asks.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// Every other endpoint has an exchange of somebody else.
    Half,
    /// Exchanges of one key, two for each endpoint, and it is that key that is asked for again.
    OneKey,
}

/// What choosing an endpoint costs, with the exchange that begins and ends there: by method, endpoints and threads.
fn balancing(criterion: &mut Criterion) {
    let hashed = || BalanceBy::ConsistentHash(HashKey::Path);
    let cases = [
        ("round_robin", BalanceBy::RoundRobin, Before::Half),
        ("least_request", BalanceBy::LeastRequest, Before::Half),
        ("peak_ewma", BalanceBy::PeakEwma, Before::Half),
        ("consistent_hash, idle", hashed(), Before::Nothing),
        ("consistent_hash", hashed(), Before::Half),
        ("consistent_hash, one key", hashed(), Before::OneKey),
    ];
    let mut group = criterion.benchmark_group("balancing");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, by, before) in cases {
        for count in [10, 100, 1_000] {
            for threads in [1, 2] {
                let version = version(&by, count, threads);
                occupy(&version, before);
                group.bench_function(BenchmarkId::new(format!("{name}/{count}"), threads), |bencher| {
                    bencher.iter_custom(|rounds| {
                        together(threads, |thread| {
                            let mut luck = u64::from(thread.0);
                            for at in 0..rounds {
                                luck = luck.wrapping_add(0x9e37_79b9_7f4a_7c15);
                                let key = Some(if matches!(before, Before::OneKey) { HOT } else { luck });
                                let ask = Ask { key, ..Ask::new(thread, 1_000 + at / 1_024, luck) };
                                let endpoint = pick(&version, black_box(&ask)).expect("all are ready").endpoint;
                                endpoint.begin(thread);
                                if matches!(by, BalanceBy::PeakEwma) {
                                    endpoint.latency.answered(900 + at % 512, ask.now_ms);
                                }
                                endpoint.end(thread);
                            }
                        })
                    });
                });
            }
        }
    }
}

const HOT: u64 = 42;

fn occupy(version: &VersionRuntime, before: Before) {
    let endpoints = version.endpoints();
    match before {
        Before::Nothing => {}
        Before::Half => {
            for endpoint in endpoints.iter().step_by(2) {
                endpoint.begin(Thread(0));
                endpoint.latency.answered(1_000, 1_000);
            }
        }
        Before::OneKey => {
            for luck in 0..2 * endpoints.len() as u64 {
                let ask = Ask { key: Some(HOT), ..Ask::new(Thread(0), 1_000, luck) };
                pick(version, &ask).expect("all are ready").endpoint.begin(Thread(0));
            }
        }
    }
}

/// How long the slowest of the threads takes.
fn together(threads: usize, work: impl Fn(Thread) + Sync) -> Duration {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = |thread: usize| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                let begun = Instant::now();
                work(Thread(thread as u16));
                begun.elapsed()
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|it| it.join().expect("no bench panics")).max().unwrap_or_default()
    })
}

criterion_group!(benches, matching, choosing, decision, changing, evidence, limits, policies, balancing);
criterion_main!(benches);
