//! What was probably meant: near names, names of other tools, keys of other places.

/// Names that other proxies use, and ours.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["backends", "backend", "upstreams", "clusters", "cluster", "pools", "pool", "apps", "applications"],
        "here it is called `services`",
    ),
    (
        &["servers", "server", "targets", "target", "hosts", "addresses", "nodes", "loadBalancer", "load_assignment"],
        "here it is called `endpoints`, under a version: `versions: { v1: { endpoints: [\"10.0.0.1:3000\"] } }`",
    ),
    (&["frontends", "frontend", "entryPoints", "entrypoints", "listen", "ports"], "here it is called `listeners`"),
    (&["routers", "rules", "locations", "location", "virtual_hosts", "ingress"], "here it is called `routes`"),
    (&["traffic", "setWeight", "percent", "percentage", "share"], "here it is called `weight`"),
    (&["weights", "weighted", "weight", "traffic", "weighted_clusters"], "here it is called `split`"),
    (&["subsets", "subset", "variants", "releases", "deployments"], "here it is called `versions`"),
    (&["health_check", "healthcheck", "healthCheck", "check", "probe"], "here it is called `health`"),
    (&["session_affinity", "affinity", "stickiness", "session_persistence", "stick"], "here it is called `sticky`"),
    (&["outlier_detection"], "here it is called `outlier`"),
    (&["circuit_breaker", "circuit_breakers", "circuitBreaker"], "here it is called `circuit`"),
    (&["healthy_panic_threshold", "panic_threshold"], "here it is called `panic_below`"),
    (&["base_ejection_time", "baseEjectionTime"], "here it is called `eject_for`, under `outlier`"),
    (&["prefix", "pathPrefix", "path_begins"], "here it is called `path_prefix`"),
    (&["regex", "pathRegexp"], "here it is called `path_regex`"),
    (&["methods"], "here it is called `method`, and takes one or a list"),
    (&["address", "addr", "port"], "here it is called `bind` for a listener, `endpoints` for a version"),
    (&["hostname", "domain", "domains"], "here it is called `host`"),
    (&["canary", "progressive", "deployment"], "here it is called `rollout`"),
    (&["steps"], "here it is called `stages`"),
    (&["analysis", "metrics", "thresholds"], "here it is called `guardrails`"),
    (&["pause", "duration", "dwell", "bake"], "here it is called `hold`"),
    (&["alerts", "notifiers", "notify"], "here it is called `notifications`"),
    (&["whitelist", "blacklist", "ip_allow", "ip_deny", "acl", "rbac"], "here it is called `access`"),
    (&["set_real_ip_from", "trusted_ips", "trustedIPs", "forwardedHeaders"], "here it is called `trusted_proxies`"),
    (&["ratelimit", "rateLimit", "limit_req", "throttle"], "here it is called `rate_limit`"),
    (&["requestId", "correlation_id", "trace_id"], "here it is called `request_id`"),
    (&["gzip", "brotli", "compress", "encode", "compressor"], "here it is called `compression`"),
    (&["restarts"], "here it is called `crashes`"),
    (&["interval"], "here it is called `every`"),
    (&["num_retries", "numRetries", "max_retries", "tries"], "here it is called `attempts`, under `retry`"),
    (&["retry_on", "retryOn", "retriable_status_codes"], "here it is called `on`, under `retry`"),
    (&["perTryTimeout", "try_timeout"], "here it is called `per_try_timeout`, under `retry`"),
    (
        &["insecure_skip_verify", "insecureSkipVerify", "ssl_verify", "proxy_ssl_verify", "verify_peer"],
        "here it is called `verify`, and `off` needs `insecure: true` beside it",
    ),
    (&["ca", "ca_cert", "trusted_ca", "proxy_ssl_trusted_certificate", "rootCAs"], "here it is called `ca_file`"),
    (&["server_name", "serverName", "proxy_ssl_name"], "here it is called `sni`"),
    (&["cert", "certificate"], "here it is called `cert_file`"),
    (&["resolver", "resolvers", "nameservers", "dns_lookup_family"], "here it is called `dns`"),
    (&["send_proxy", "send-proxy", "send-proxy-v2", "proxyProtocol"], "here it is called `proxy_protocol`"),
    (&["hedge_policy", "hedging", "hedgingPolicy"], "here it is called `hedge`, under `retry`"),
    (&["hedgingDelay", "hedging_delay", "delay"], "here it is called `after`, under `hedge`"),
    (&["url"], "name the method: `get: \"https://shop.example.com/\"`"),
    (&["token", "secret"], "secrets are not written in the file: give `token_file`"),
];

/// Keys of the format that this version cannot act on: refused rather than ignored.
const LATER: &[&str] = &["mirror", "fleet", "tracing", "include"];

/// Where keys belong that are easily put a level too high or too low.
const PLACES: &[(&str, &[&str])] = &[
    (
        "a service",
        &[
            "versions",
            "split",
            "active",
            "rollout",
            "sticky",
            "force",
            "balance",
            "slow_start",
            "health",
            "outlier",
            "retry",
            "timeouts",
            "limits",
            "upstream",
            "drain",
            "hold",
            "access",
            "rate_limit",
            "maintenance",
            "panic_below",
            "circuit",
        ],
    ),
    ("a version", &["endpoints", "revision"]),
    ("a service's `retry`", &["hedge", "per_try_timeout"]),
    (
        "a service's `rollout`",
        &["strategy", "stages", "group", "shield", "guardrails", "promote_when", "keep_idle", "webhooks", "freeze"],
    ),
    ("a rollout's `guardrails`", &["errors", "error_window", "latency", "crashes", "custom"]),
    ("a rollout's `promote_when`", &["errors_below", "promote_on_time"]),
    ("a stage", &["min_requests", "approve"]),
    ("a route", &["match", "service", "rewrite", "redirect", "respond"]),
    ("a route's `match`", &["host", "path", "path_prefix", "path_regex", "method", "headers", "query"]),
    ("a service's `upstream`", &["protocol", "keepalive", "ping", "tls"]),
    ("`tls` of a service's `upstream`", &["sni", "verify"]),
    ("a listener", &["bind", "proxy_protocol", "trusted_proxies", "certificates", "client_auth"]),
    (
        "the top level",
        &[
            "listeners",
            "routes",
            "services",
            "admin",
            "expose",
            "shutdown",
            "upgrade",
            "dns",
            "state_dir",
            "access_log",
            "request_id",
            "gates",
            "notifications",
        ],
    ),
];

/// Longer words are no typos of ours.
const LONGEST: usize = 64;

/// A hint for an unknown key among the known ones.
pub fn for_key(key: &str, known: &[&'static str]) -> Option<String> {
    if key == "<<" {
        return Some("merge keys are off; write the values out, or alias the whole value with `*name`".into());
    }
    if LATER.contains(&key) {
        return Some(format!("this version of switchback does not have `{key}` yet; remove it"));
    }
    if let Some(file) = known.iter().find(|name| is_file_of(name, key)) {
        return Some(format!("secrets are not written in the file: give `{file}`"));
    }
    if let Some(hint) = elsewhere(key, known) {
        return Some(hint.into());
    }
    misplaced(key).or_else(|| nearest(key, known.iter().copied()).map(|name| format!("did you mean `{name}`?")))
}

/// `token_file` is where a `token` comes from.
fn is_file_of(name: &str, key: &str) -> bool {
    name.strip_suffix("_file") == Some(key)
}

/// What another tool's name is called here: rather something that is known in this place.
fn elsewhere(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let hints = || ELSEWHERE.iter().filter(|(names, _)| names.contains(&key)).map(|(_, hint)| *hint);
    let here = hints().find(|hint| known.iter().any(|name| hint.contains(&format!("`{name}`"))));
    here.or_else(|| hints().next())
}

/// A hint for a key of another place.
pub fn misplaced(key: &str) -> Option<String> {
    let (place, _) = PLACES.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(format!("`{key}` belongs to {place}: check the indentation"))
}

/// The name that was probably meant, if one is near enough.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if wrong.len() > LONGEST {
        return None;
    }
    let lower = wrong.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1.max(name.chars().count().max(lower.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "`a`, `b` and `c`".
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The known key that an unknown one was probably meant to be, by spelling or by another tool's name.
pub fn meant(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if let Some(file) = known.iter().copied().find(|name| is_file_of(name, key)) {
        return Some(file);
    }
    match elsewhere(key, known) {
        Some(hint) => known.iter().copied().find(|name| hint.contains(&format!("`{name}`"))),
        None => nearest(key, known.iter().copied()),
    }
}
