//! What people get wrong, and where they are told.

use proptest::prelude::*;

use super::{errors, good};

/// A configuration that is good as it is; the cases below change one thing in it.
const GOOD: &str = r#"schema: 1
listeners:
  web: { bind: "127.0.0.1:8080" }
routes:
  - name: shop
    match: { host: shop.test, path_prefix: / }
    service: shop
  - name: api
    match: { host: api.test }
    service: api
services:
  shop:
    versions:
      v1: { endpoints: ["127.0.0.1:3001"] }
      v2: { endpoints: ["127.0.0.1:3002"] }
    split: { v1: 90, v2: 10 }
    health: { path: /healthz, every: 2s }
  api:
    versions:
      blue: { endpoints: ["127.0.0.1:4001"] }
      green: { endpoints: ["127.0.0.1:4002"] }
    active: blue
expect:
  - { get: "http://shop.test/cart", service: shop }
"#;

/// Replace this by that in [`GOOD`]: where the error is, and words of it.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("    active: blue\n", "    active: blue\n    upstream: { protocol: h3 }\n", "23:27", &["`h3`", "`h1`, `h2c` and `h2`"]),
    ("    active: blue\n", "    active: blue\n    upstream: { protocol: h2c }\n    rollout: { stages: [{ mirror: 10% }, 100%], promote_when: { hold: 1h } }\n", "23:27", &["mirror", "HTTP/1.1"]),
    // Keys.
    ("services:\n", "service:\n", "11:1", &["unknown key `service`", "belongs to a route"]),
    ("services:\n", "backends:\n", "11:1", &["unknown key `backends`", "here it is called `services`"]),
    ("services:\n", "clusters:\n", "11:1", &["here it is called `services`"]),
    ("    active: blue", "    activ: blue", "22:5", &["unknown key `activ`", "did you mean `active`?"]),
    ("endpoints: [\"127.0.0.1:4001\"]", "servers: [\"127.0.0.1:4001\"]", "20:15", &["unknown key `servers`", "`endpoints`"]),
    ("    active: blue", "    active: blue\n    balance: roundrobin", "23:14", &["`roundrobin` is not a way to balance", "did you mean `round_robin`?"]),
    ("    active: blue", "    active: blue\n    balance: consistent_hash", "23:14", &["needs to know what to hash", "header: x-user"]),
    ("    active: blue", "    active: blue\n    balance: { consistent_hash: {} }", "23:16", &["does not say what to hash"]),
    ("    active: blue", "    active: blue\n    balance: { consistent_hash: { path: true, client_ip: true } }", "23:16", &["takes one key"]),
    ("    active: blue", "    active: blue\n    balance: { consistent_hash: { path: false } }", "23:41", &["can only be `true`"]),
    ("    active: blue", "    active: blue\n    slow_start: 30", "23:17", &["not a duration", "`30s`"]),
    ("\"127.0.0.1:4001\"", "{ address: \"127.0.0.1:4001\", weight: 0 }", "20:64", &["`0` is not a weight", "1 to 1000", "left out of the list"]),
    ("\"127.0.0.1:4001\"", "{ address: \"127.0.0.1:4001\", weight: 99999999999999999999 }", "20:64", &["not a weight", "1 to 1000"]),
    ("\"127.0.0.1:4001\"", "{ weight: 2 }", "20:27", &["needs the key `address`"]),
    ("\"127.0.0.1:4001\"", "{ address: \"127.0.0.1:4001\", max_connections: 0 }", "20:73", &["max_connections"]),
    ("\"127.0.0.1:4001\"", "\"127.0.0.1:4001\", { address: \"127.0.0.1:4001\", weight: 2 }", "20:45", &["given twice", "weight: 2"]),
    ("\"127.0.0.1:4001\"", "\"unix:\"", "20:27", &["not an endpoint", "`unix:/run/shop.sock`"]),
    ("\"127.0.0.1:4001\"", "\"https://127.0.0.1:4001\"", "20:27", &["not an endpoint", "no scheme here"]),
    ("    active: blue", "    active: blue\n    mirror: {}", "23:5", &["does not have `mirror` yet"]),
    ("    active: blue", "    active: blue\n    stages: [5%, 100%]", "23:5", &["unknown key `stages`", "belongs to a service's `rollout`"]),
    ("{ bind: \"127.0.0.1:8080\" }", "{ bind: \"127.0.0.1:8080\", tls: {} }", "3:39", &["`tls` needs the key `certificates`"]),
    ("    active: blue", "  active: blue", "22:11", &["`active` must be a map", "`active` belongs to a service: check the indentation"]),
    ("    active: blue", "    active: blue\n    active: green", "23:5", &["`active` is given twice", "line 22"]),
    ("  api:\n", "  shop:\n", "18:3", &["`shop` is given twice", "line 12"]),
    ("    active: blue", "     active: blue", "22:6", &["not valid YAML", "indentation"]),
    ("    active: blue", "\tactive: blue", "22:2", &["tab"]),
    ("    split: {", "    <<: {", "16:5", &["unknown key `<<`", "merge keys are off"]),
    ("schema: 1", "schema: 2", "1:9", &["`2` is not a schema number", "schema: 1"]),
    ("    active: blue", "    active: !ref blue", "22:13", &["tag"]),
    ("    active: blue", "    active: blue\n---\na: 1", "23:1", &["second YAML document"]),
    ("    active: blue", "    active: *nothing", "22:13", &["nothing"]),
    ("    active: blue", "    ? [a]\n    : blue", "22:7", &["a key must be a name"]),
    // Values.
    ("every: 2s", "every: 2", "17:38", &["`2` is not a duration", "did you mean `2s`?"]),
    ("every: 2s", "every: 2 fortnights", "17:38", &["not a duration", "`250ms`"]),
    ("every: 2s", "every: [2s]", "17:38", &["must be a duration, not a list"]),
    ("v2: 10 }", "v2: 10% }", "16:26", &["`10%` is not a weight", "write `10`"]),
    ("v2: 10 }", "v2: -1 }", "16:26", &["`-1` is not a weight", "0 (draining)"]),
    ("v2: 10 }", "v2: 1.5 }", "16:26", &["`1.5` is not a weight"]),
    ("v2: 10 }", "v2: }", "16:24", &["has no value"]),
    ("\"127.0.0.1:4001\"", "\"127.0.0.1\"", "20:27", &["not an endpoint", "the port is missing"]),
    ("\"127.0.0.1:4001\"", "\"http://127.0.0.1:4001\"", "20:27", &["not an endpoint", "write `127.0.0.1:4001`"]),
    ("[\"127.0.0.1:4001\"]", "\"127.0.0.1:4001\"", "20:26", &["must be a list"]),
    ("bind: \"127.0.0.1:8080\"", "bind: 8080", "3:16", &["not an address", "`0.0.0.0:8080`"]),
    ("bind: \"127.0.0.1:8080\"", "bind: localhost:8080", "3:16", &["`127.0.0.1:8080`"]),
    ("listeners:\n  web: { bind: \"127.0.0.1:8080\" }", "listeners: []", "2:12", &["must be a map, not a list"]),
    ("  web: { bind", "  we b: { bind", "3:3", &["`we b` is not a name"]),
    ("web: { bind: \"127.0.0.1:8080\" }", "web: {}", "3:8", &["`web` needs the key `bind`"]),
    ("schema: 1", "expose: { response_headers: yes }", "1:29", &["`yes`", "did you mean `true`?"]),
    ("schema: 1", "state_dir: ${NOWHERE}", "1:12", &["`NOWHERE` is not set", "give a default"]),
    ("schema: 1", "state_dir: \"${NO\"", "1:12", &["`${` is not closed"]),
    ("schema: 1", "admin: { bind: \"0.0.0.0:9900\" }", "1:16", &["open to other machines", "insecure: true"]),
    ("schema: 1", "admin: { bind: \"127.0.0.1:8080\" }", "1:16", &["listener `web` bind the same address"]),
    ("schema: 1", "access_log: { to: stdot }", "1:19", &["did you mean `stdout`?"]),
    ("schema: 1", "access_log: stdout", "1:13", &["must be a map"]),
    ("schema: 1", "shutdown: { timeout: 1s }", "1:22", &["shorter than `pre_drain` and `linger`"]),
    ("schema: 1", "upgrade: { drain: 1s }", "1:19", &["`upgrade.drain` is shorter than `linger`", "10s"]),
    ("schema: 1", "upgrade: { ready_timeout: 10ms }", "1:27", &["ready_timeout"]),
    ("{ bind: \"127.0.0.1:8080\" }", "{ bind: \"127.0.0.1:8080\", limits: { target_bytes: 64KiB } }", "3:58", &["`target_bytes` is larger"]),
    ("  web: { bind: \"127.0.0.1:8080\" }\n", "  web: { bind: \"127.0.0.1:80\" }\n  two: { bind: \"0.0.0.0:80\" }\n", "4:16", &["bind the same address"]),
    // Routes.
    ("    service: api", "    service: apo", "10:14", &["there is no service `apo`", "did you mean `api`?"]),
    ("  - name: api", "  - name: shop", "8:11", &["two routes are named `shop`"]),
    ("    service: api", "    service: api\n    respond: {}", "11:5", &["`service` and `respond` cannot be used together"]),
    ("    service: api", "", "8:11", &["route `api` does nothing"]),
    ("{ host: api.test }", "{ path: /a, path_prefix: /b }", "9:24", &["`path` and `path_prefix` cannot be used together"]),
    ("{ host: api.test }", "{ path_regex: \"(\" }", "9:26", &["not a regular expression", "unclosed group"]),
    ("{ host: api.test }", "{ path_regex: \"a(?=b)\" }", "9:26", &["look-around"]),
    ("{ host: api.test }", "{ path: api }", "9:20", &["paths begin with `/`", "`/api`"]),
    ("{ host: api.test }", "{ path: /a/../b }", "9:20", &["no request matches it"]),
    ("{ host: api.test }", "{ path: \"/api/*\" }", "9:20", &["write `path_prefix: /api/`"]),
    ("{ host: api.test }", "{ host: \"api.test:80\" }", "9:20", &["ports are not matched", "`api.test`"]),
    ("{ host: api.test }", "{ host: \"a.*.test\" }", "9:20", &["`*`"]),
    ("{ host: api.test }", "{ method: get }", "9:22", &["did you mean `GET`?"]),
    ("{ host: api.test }", "{ headers: { \"x y\": a } }", "9:25", &["not a header name"]),
    ("{ host: api.test }", "{ headers: { host: a } }", "9:25", &["matched by `host`"]),
    ("    service: api", "    redirect: { to: \"shop.test\", status: 308 }", "10:21", &["not a place to redirect to"]),
    ("    service: api", "    redirect: { to: /x, status: 304 }", "10:33", &["not a status to redirect with"]),
    ("    service: api", "    service: api\n    rewrite: { path_prefix: / }", "11:16", &["no prefix to replace"]),
    ("    service: api", "    service: api\n    rewrite: { request_headers: { set: { Connection: close } } }", "11:42", &["`connection` cannot be changed"]),
    ("    service: api", "    service: api\n    rewrite: { request_headers: { remove: [host] } }", "11:44", &["`host` cannot be changed", "rewrite: { host"]),
    ("    service: api", "    service: api\n    rewrite: { response_headers: { add: { x: \"a\\nb\" } } }", "11:46", &["not a header value"]),
    ("    service: api", "    respond: { headers: { transfer-encoding: chunked } }", "10:27", &["`transfer-encoding` cannot be changed"]),
    ("    service: api", "    respond: { status: 204, body: x }", "10:35", &["has no body"]),
    // Services.
    ("    active: blue", "    active: gren", "22:13", &["service `api` has no version `gren`", "`blue` and `green`", "did you mean `green`?"]),
    ("    active: blue", "", "18:3", &["does not say which version is live", "active: blue"]),
    ("    active: blue", "    active: blue\n    split: { blue: 1 }", "23:5", &["both `active` and `split`"]),
    ("{ v1: 90, v2: 10 }", "{ v1: 0, v2: 0 }", "16:5", &["no version of service `shop` gets traffic"]),
    ("{ v1: 90, v2: 10 }", "{ v1: 90, v3: 10 }", "16:22", &["service `shop` has no version `v3`"]),
    ("{ v1: 90, v2: 10 }", "{ v1: 99999, v2: 1 }", "16:5", &["too fine", "add up to 100000"]),
    ("[\"127.0.0.1:4001\"]", "[]", "20:7", &["version `blue` of service `api` has no endpoints"]),
    ("[\"127.0.0.1:4001\"]", "[\"a:1\", \"A:1\"]", "20:34", &["given twice"]),
    ("health: { path: /healthz,", "health: { path: /healthz, tcp: true,", "17:5", &["`path` and `tcp` cannot be used together"]),
    ("health: { path: /healthz,", "health: {", "17:5", &["does not say what to check"]),
    ("health: { path: /healthz,", "health: { path: /healthz, status: 299-200,", "17:39", &["not a status", "`200-299`"]),
    ("    active: blue", "    active: blue\n    sticky: { cookie: { name: \"a b\" } }", "23:31", &["not the name of a cookie"]),
    ("    active: blue", "    active: blue\n    sticky: { cookie: { name: __Host-a } }", "23:31", &["attribute Secure"]),
    ("    active: blue", "    active: blue\n    sticky: cookie", "23:13", &["not a way to be sticky", "client_ip"]),
    ("    active: blue", "    active: blue\n    sticky: {}", "23:5", &["`sticky` is empty"]),
    ("    active: blue", "    active: blue\n    force: { header: x-v, token_file: /nowhere/at/all }", "23:39", &["cannot be read", "no such file"]),
    ("    active: blue", "    active: blue\n    force: { header: x-v, token: secret }", "23:27", &["unknown key `token`", "token_file"]),
    ("    active: blue", "    active: blue\n    limits: { body: 64MB }", "23:21", &["`64MB` is not a size", "`64MiB`"]),
    ("    active: blue", "    active: blue\n    outlier: { max_ejected: 50 }", "23:29", &["not a percentage", "`50%`"]),
    ("health: { path: /healthz,", "health: { grpc: {}, tcp: true,", "17:5", &["`grpc` and `tcp` cannot be used together"]),
    ("health: { path: /healthz,", "health: { grpc: {}, status: 200,", "17:25", &["no meaning without `path`"]),
    ("health: { path: /healthz,", "health: { path: /healthz, jitter: 60%,", "17:39", &["above 50%"]),
    ("    active: blue", "    active: blue\n    outlier: { eject_for: 10m }", "23:27", &["longer than `eject_for_max`"]),
    ("    active: blue", "    active: blue\n    outlier: { success_rate: { below_peers_by: 0% } }", "23:48", &["every endpoint but the best"]),
    ("    active: blue", "    active: blue\n    outlier: { latency: { max_ratio: 1.2 } }", "23:38", &["not between 2 and 1000"]),
    ("    active: blue", "    active: blue\n    circuit: { in_flight: 0 }", "23:27", &["`0`"]),
    ("    active: blue", "    active: blue\n    panic_below: 150%", "23:18", &["not a percentage"]),
    ("    active: blue", "    active: blue\n    retry: { on: [connect, 5xx] }", "23:28", &["`5xx` is not a reason to retry", "list the statuses"]),
    ("    active: blue", "    active: blue\n    retry: { on: [rset] }", "23:19", &["did you mean `reset`?"]),
    ("    active: blue", "    active: blue\n    retry: { on: [404] }", "23:19", &["only statuses from 500 to 599"]),
    ("    active: blue", "    active: blue\n    retry: { on: [] }", "23:18", &["`on` is empty", "attempts: 0"]),
    ("    active: blue", "    active: blue\n    retry: { on: timeout }", "23:18", &["`timeout` needs `per_try_timeout`"]),
    ("    active: blue", "    active: blue\n    retry: { per_try_timeout: 1s }", "23:31", &["would do nothing", "add `timeout` to `on`"]),
    ("    active: blue", "    active: blue\n    retry: { on: timeout, per_try_timeout: 60s }", "23:44", &["can never be reached"]),
    ("    active: blue", "    active: blue\n    retry: { budget: 0% }", "23:22", &["allows none of the retries"]),
    ("    active: blue", "    active: blue\n    retry: { hedge: {} }", "23:21", &["needs the key `after`"]),
    ("    active: blue", "    active: blue\n    retry: { hedge: { after: 0ms } }", "23:30", &["1ms"]),
    ("    active: blue", "    active: blue\n    retry: { hedge: 50ms }", "23:21", &["a map"]),
    ("    active: blue", "    active: blue\n    hedge: { after: 50ms }", "23:5", &["`hedge` belongs to a service's `retry`"]),
    ("    active: blue", "    active: blue\n    retry: { hedge: { after: 60s } }", "23:30", &["can never be reached", "`timeouts.request`"]),
    ("    active: blue", "    active: blue\n    retry: { on: timeout, per_try_timeout: 1s, hedge: { after: 1s } }", "23:64", &["can never be reached", "`per_try_timeout`"]),
    ("    active: blue", "    active: blue\n    retry: { on: connect, budget: 0%, hedge: { after: 1s } }", "23:35", &["allows no hedge"]),
    ("    active: blue", "    active: blue\n    upstream: { protocol: h2c }\n    retry: { hedge: { after: 1s } }", "24:14", &["needs endpoints that speak HTTP/1.1"]),
    ("    active: blue", "    active: blue\n    upstream: { proxy_protocol: v1 }\n    retry: { hedge: { after: 1s } }", "23:17", &["cannot go with `upstream.proxy_protocol`"]),
    ("    active: blue", "    active: blue\n    upstream: { tls: {} }\n    retry: { hedge: { after: 1s } }", "23:17", &["cannot go with `upstream.tls`"]),
    ("[\"127.0.0.1:4002\"] }\n    active: blue", "[\"unix:/run/x.sock\"] }\n    active: blue\n    retry: { hedge: { after: 1s } }", "21:28", &["reached over TCP", "remove `hedge`"]),
    ("    active: blue", "    active: blue\n    retry: { methods: all }", "23:23", &["`safe` and `idempotent`"]),
    ("    active: blue", "    active: blue\n    timeouts:\n    limits: {}", "23:13", &["nothing under it"]),
    // Expectations.
    ("service: shop }", "service: shp }", "24:46", &["there is no service `shp`", "`shop`"]),
    (", service: shop }", " }", "24:5", &["expects nothing"]),
    ("get: \"http://shop.test/cart\"", "get: /cart", "24:12", &["not a whole URL"]),
    ("get: \"http://shop.test/cart\", ", "", "24:5", &["no request"]),
    ("service: shop }", "service: shop, version: v9 }", "24:61", &["no version `v9`"]),
    ("service: shop }", "route: shoop }", "24:44", &["there is no route `shoop`", "`shop`"]),
    // Files.
    ("schema: 1", "schema: 1\0", "1:10", &["not a text file", "NUL"]),
];

#[test]
fn a_mistake_is_named_where_it_was_made() {
    good(GOOD);
    let mut missed = Vec::new();
    for (this, that, place, words) in CASES {
        let text = GOOD.replacen(this, that, 1);
        assert_ne!(text, GOOD, "{this}: the case changes nothing");
        let errors = errors(&text);
        let named =
            |error: &String| error.starts_with(&format!("{place} ")) && words.iter().all(|word| error.contains(word));
        if !errors.iter().any(named) {
            missed.push(format!("{that:?} at {place} with {words:?}, but:\n  {}", errors.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn all_mistakes_of_a_file_are_named_in_one_run() {
    let text = GOOD
        .replace("bind: \"127", "bnd: \"127")
        .replace("service: api\n", "service: apo\n")
        .replace("v2: 10 }", "v2: 10% }")
        .replace("every: 2s", "every: 2")
        .replace("active: blue", "active: blu")
        .replace("service: shop }", "service: shap }");
    let lines: Vec<String> =
        errors(&text).iter().map(|error| error.split([':', ' ']).next().unwrap_or_default().to_owned()).collect();
    assert_eq!(lines, ["3", "10", "16", "17", "22", "24"]);
}

#[test]
fn a_truncated_file_never_passes_as_a_smaller_one_with_a_dangling_name() {
    // Cut after every tenth: whatever is accepted must be complete in itself.
    for tenth in 1..10 {
        let text = &GOOD[..GOOD.len() * tenth / 10];
        let accepted = super::parse(text).is_ok();
        let errors = errors(text);
        assert_eq!(accepted, errors.is_empty(), "{text}");
        assert!(!accepted || !text.contains("service:") || text.contains("active: blue"), "{text}");
    }
}

#[test]
fn nothing_to_read_is_said() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "null\n"] {
        assert!(errors(text)[0].contains("is empty"), "{text:?}: {:?}", errors(text));
    }
    assert!(errors("just text")[0].starts_with("1:1 the configuration must be a map"));
    assert!(errors("{}")[0].contains("no listeners"));
}

/// What this thread has worked so far; how busy the machine is does not matter.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps it");
    let nanos: u64 = stat.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds come first");
    nanos as f64 / 1e9
}

#[test]
fn bombs_are_refused_quickly() {
    let deep = "[".repeat(200_000);
    let aliases = format!(
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n{}",
        (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect::<String>()
    );
    let recursive = "a: &a [*a]\n".to_owned();
    let keys: String = (0..50_000).map(|n| format!("k{n}: 1\n")).collect();
    let twice = "k: 1\n".repeat(50_000);
    for (name, text) in
        [("deep", deep), ("aliases", aliases), ("recursive", recursive), ("keys", keys), ("twice", twice)]
    {
        let start = cpu_seconds();
        assert!(!errors(&text).is_empty(), "{name}");
        let took = cpu_seconds() - start;
        assert!(took < 10.0, "{name} took {took} s of this thread");
    }
}

/// What refers to names is looked up, not searched: a hundred thousand of each is an hour otherwise.
#[test]
fn many_names_are_checked_quickly() {
    let mut text = String::from("listeners: { web: { bind: \"127.0.0.1:0\" } }\nservices:\n");
    let n = 20_000;
    for at in 0..n {
        text.push_str(&format!("  s{at}: {{ versions: {{ v: {{ endpoints: [\"h:1\"] }} }}, active: v }}\n"));
    }
    text.push_str("routes:\n");
    for at in 0..n {
        text.push_str(&format!("  - {{ name: r{at}, match: {{ path: /{at} }}, service: s{at} }}\n"));
    }
    text.push_str("expect:\n");
    for at in 0..n {
        text.push_str(&format!("  - {{ get: \"http://x/{at}\", route: r{at}, service: s{at}, version: v }}\n"));
    }
    let start = cpu_seconds();
    let loaded = super::parse(&text).expect("the file is valid");
    assert_eq!(loaded.config.expect.last().map(|case| case.place.as_str()), Some("f.yaml:60004"));
    let took = cpu_seconds() - start;
    assert!(took < 30.0, "{took} s of this thread");
}

#[test]
fn ten_megabytes_are_read() {
    let endpoints: Vec<String> = (0..40).map(|n| format!("\"10.0.{}.{}:3000\"", n / 250, n % 250)).collect();
    let mut text = String::from("listeners: { web: { bind: \"127.0.0.1:0\" } }\nroutes: []\nservices:\n");
    let mut n = 0;
    while text.len() < 10 << 20 {
        let list = endpoints.join(", ");
        text.push_str(&format!("  s{n}:\n    versions: {{ v1: {{ endpoints: [{list}] }} }}\n    active: v1\n"));
        n += 1;
    }
    let start = cpu_seconds();
    let loaded = super::parse(&text).expect("the file is valid");
    assert_eq!(loaded.config.services.len(), n);
    // The budget of two seconds is for an optimised build; unoptimised parsing is some 20 times slower.
    let budget = if cfg!(debug_assertions) { 60.0 } else { 2.0 };
    let took = cpu_seconds() - start;
    assert!(took < budget, "{took} s of this thread");
}

/// The text with some of it replaced by what breaks YAML, or by anything.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,4}",
        proptest::sample::select(vec![
            "\n", "  ", "\t", "{", "}", "[", "]", ": ", "- ", "&a ", "*a", "\"", "'", "|\n", "${", "é", "#", "null"
        ])
        .prop_map(String::from),
    ];
    let edit = (0.0..1.0_f64, 0..30_usize, piece);
    proptest::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text: Vec<char> = include_str!("every_key.yaml").chars().collect();
        for (at, len, piece) in edits {
            let start = (text.len() as f64 * at) as usize;
            let end = (start + len).min(text.len());
            text.splice(start..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn damage_is_accepted_whole_or_refused_with_places_inside_the_file(text in damaged()) {
        let lines = text.lines().count() as u64 + 1;
        if let Err(problems) = super::parse(&text) {
            prop_assert!(problems.has_errors());
            for place in problems.0.iter().filter_map(|problem| problem.place.as_ref()) {
                prop_assert!(place.line >= 1 && place.line <= lines && place.column >= 1 && place.width >= 1, "{:?}", place);
            }
            // Both texts are made without a panic, whatever the places.
            prop_assert!(problems.to_string().lines().count() >= problems.0.len());
            prop_assert_eq!(problems.render_github().lines().count(), problems.0.len());
        }
    }
}
