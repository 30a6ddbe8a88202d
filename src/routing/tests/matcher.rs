use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::routing::matcher::RequestView;

/// `[METHOD] HOST PATH[?QUERY] [H:V]…` → name of the route, `-` for none.
fn ask(table: &Table, request: &str) -> String {
    let mut words = request.split_whitespace().peekable();
    let method = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let method: Method = method.unwrap_or("GET").parse().expect("a method");
    let host = words.next().expect("a host");
    let target = words.next().expect("a path");
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for header in words {
        let (name, value) = header.split_once(':').expect("a header");
        headers.append(http::HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"));
    }
    let found = table.route(&RequestView { method: &method, host, path, query, headers: &headers });
    found.map_or("-".to_owned(), |idx| table.route_at(idx).route.name.to_string())
}

#[track_caller]
fn check(routes: &str, cases: &[(&str, &str)]) {
    let table = table(routes);
    for (request, name) in cases {
        assert_eq!(ask(&table, request), *name, "{request}");
    }
}

#[test]
fn the_longest_prefix_wins_and_ends_at_a_slash() {
    check(
        "shop.test /* -> web
         shop.test /api* -> api
         shop.test /api/v2* -> v2
         shop.test /files/* -> files",
        &[
            ("shop.test /", "web"),
            ("shop.test /api", "api"),
            ("shop.test /api/", "api"),
            ("shop.test /api/7", "api"),
            ("shop.test /apiary", "web"),
            ("shop.test /api/v2", "v2"),
            ("shop.test /api/v2/x/y/z", "v2"),
            ("shop.test /api/v20", "api"),
            ("shop.test /files", "web"),
            ("shop.test /files/", "files"),
            ("shop.test /files/a", "files"),
            ("other.test /", "-"),
        ],
    );
}

#[test]
fn a_longer_host_pattern_wins_over_any_path() {
    check(
        "* /deep/path -> any
         *.test /deep* -> wide
         *.shop.test * -> narrow
         a.shop.test /* -> exact",
        &[
            ("a.shop.test /deep/path", "exact"),
            ("b.shop.test /deep/path", "narrow"),
            ("x.y.shop.test /", "narrow"),
            ("shop.test /deep/path", "wide"),
            ("shop.test /", "-"),
            ("test /deep/path", "any"),
            ("org /deep/path", "any"),
        ],
    );
}

#[test]
fn a_request_without_host_meets_only_routes_for_any_host() {
    let table = table("shop.test /* -> shop\n * /* -> any");
    let (method, headers) = (Method::GET, HeaderMap::new());
    let view = RequestView { method: &method, host: "", path: "/", query: None, headers: &headers };
    assert_eq!(table.route(&view), Some(RouteIdx(1)));
}

#[test]
fn exact_before_regex_before_prefix_before_any() {
    check(
        "h.test * -> any
         h.test /v1* -> prefix
         h.test ~^/v[0-9]+$ -> regex
         h.test /v1 -> exact",
        &[("h.test /v1", "exact"), ("h.test /v2", "regex"), ("h.test /v1/x", "prefix"), ("h.test /w", "any")],
    );
}

#[test]
fn regexes_go_by_matchers_then_by_file() {
    let mut lines = String::from(
        "h.test ~^/a -> first
         h.test ~b$ -> second
         POST h.test ~b$ -> post\n",
    );
    let cases = [("h.test /ab", "first"), ("h.test /xb", "second"), ("POST h.test /ab", "post"), ("h.test /x", "-")];
    check(&lines, &cases);
    // So many that they are tried as a set.
    for at in 0..20 {
        lines.push_str(&format!("h.test ~^/only/{at}$ -> only{at}\n"));
    }
    check(&lines, &cases);
    check(&lines, &[("h.test /only/13", "only13")]);
}

#[test]
fn more_matchers_win_and_ties_go_to_the_first() {
    check(
        "h.test /* -> plain
         h.test /* header:x-tier=gold -> gold
         GET h.test /* header:x-tier=gold -> get-gold
         h.test /* ?beta=1 -> beta
         h.test /* -> never",
        &[
            ("h.test /", "plain"),
            ("POST h.test / x-tier:gold", "gold"),
            ("h.test / x-tier:gold", "get-gold"),
            ("POST h.test /?beta=1 x-tier:gold", "gold"),
            ("h.test /?beta=1", "beta"),
            ("h.test /?beta=2", "plain"),
            ("h.test / x-tier:silver", "plain"),
            ("POST h.test / x-tier:silver x-tier:gold", "gold"),
        ],
    );
}

#[test]
fn a_candidate_whose_matchers_fail_gives_way_to_the_next_path_and_host() {
    check(
        "POST a.shop.test /api/orders -> orders
         a.shop.test /api* header:x-internal -> internal
         *.shop.test /api* -> shared
         DELETE *.shop.test /* -> delete
         * * -> any",
        &[
            ("POST a.shop.test /api/orders", "orders"),
            ("GET a.shop.test /api/orders", "shared"),
            ("GET a.shop.test /api/orders x-internal:1", "internal"),
            ("DELETE a.shop.test /", "delete"),
            ("GET a.shop.test /", "any"),
        ],
    );
}

#[test]
fn a_pattern_is_brought_into_the_form_of_requests() {
    check(
        "Shop.TEST /caf%c3%a9* -> cafe\nshop.test //x/./y -> xy",
        &[("shop.test /caf%C3%A9/1", "cafe"), ("shop.test /x/y", "xy")],
    );
}

#[test]
fn prefixes_longer_than_any_request_and_requests_longer_than_any_prefix() {
    let deep = "/a".repeat(200);
    let table = table(&format!("h.test {deep}* -> deep\nh.test /a/a* -> shallow"));
    assert_eq!(ask(&table, &format!("h.test {deep}")), "deep");
    assert_eq!(ask(&table, &format!("h.test {deep}{deep}{deep}")), "deep");
    assert_eq!(ask(&table, &format!("h.test {deep}x")), "shallow");
    assert_eq!(ask(&table, "h.test /a"), "-");
}

/// The rules read aloud, one route after the other.
fn naive(table: &Table, request: &RequestView<'_>) -> Option<RouteIdx> {
    let rank = |at: usize, route: &Route| {
        let host = match &route.matcher.host {
            HostMatch::Exact(host) => (host == request.host).then_some(1000)?,
            HostMatch::Wildcard(parent) => {
                request.host.strip_suffix(parent.as_str())?.strip_suffix('.').filter(|labels| !labels.is_empty())?;
                1 + parent.len()
            }
            HostMatch::Any => 0,
        };
        let path = match &route.matcher.path {
            PathMatch::Exact(path) => (path == request.path).then_some(2000)?,
            PathMatch::Regex(regex) => regex::Regex::new(regex).ok()?.is_match(request.path).then_some(1000)?,
            PathMatch::Prefix(prefix) => {
                let rest = request.path.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then_some(1 + prefix.len())?
            }
            PathMatch::Any => 0,
        };
        let wanted = |wanted: &ValueMatch, have: &str| match wanted {
            ValueMatch::Present => true,
            ValueMatch::Exact(value) => value == have,
        };
        let method = route.matcher.methods.is_empty() || route.matcher.methods.contains(request.method);
        let headers = route.matcher.headers.iter().all(|(name, value)| {
            request.headers.get_all(name).iter().any(|have| wanted(value, have.to_str().expect("ASCII")))
        });
        let query = route.matcher.query.iter().all(|(name, value)| {
            let mut pairs = request.query.into_iter().flat_map(|query| query.split('&'));
            pairs.any(|pair| pair.split_once('=').is_some_and(|(have, v)| have == name && wanted(value, v)))
        });
        let matchers =
            usize::from(!route.matcher.methods.is_empty()) + route.matcher.headers.len() + route.matcher.query.len();
        (method && headers && query).then_some((host, path, matchers, std::cmp::Reverse(at)))
    };
    let ranked = table.routes.iter().enumerate().filter_map(|(at, route)| Some((rank(at, &route.route)?, at)));
    ranked.max().map(|(_, at)| RouteIdx(at as u32))
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop::sample::select(vec!["*", "a.test", "b.a.test", "*.a.test", "*.test", "*.b.a.test"]);
    let text = prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")));
    let path = prop_oneof![
        text.clone().prop_map(PathMatch::Exact),
        text.clone().prop_map(PathMatch::Prefix),
        text.prop_map(|text| PathMatch::Prefix(if text == "/" { text } else { text + "/" })),
        prop::sample::select(vec!["^/a", "b$", "^/a/.*b", "ab"]).prop_map(|regex| PathMatch::Regex(regex.to_owned())),
        Just(PathMatch::Any),
    ];
    let value = || prop_oneof![Just(ValueMatch::Present), Just(ValueMatch::Exact("1".to_owned()))];
    let some = |name: &'static str| prop::option::weighted(0.2, value()).prop_map(move |v| v.map(|v| (name, v)));
    let method = prop::option::weighted(0.3, prop::sample::select(vec![Method::GET, Method::POST]));
    (host, path, method, some("x-h"), some("q")).prop_map(|(host, path, method, header, query)| {
        let mut route = route("r", host, path);
        route.matcher.methods.extend(method);
        route.matcher.headers.extend(header.map(|(name, value)| (http::HeaderName::from_static(name), value)));
        route.matcher.query.extend(query.map(|(name, value)| (name.to_owned(), value)));
        route
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_index_answers_as_reading_every_route_does(
        routes in prop::collection::vec(any_route(), 0..40),
        requests in prop::collection::vec((
            prop::sample::select(vec!["", "a.test", "b.a.test", "c.b.a.test", "z.test", "test"]),
            prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 0..5),
            any::<bool>(),
            prop::sample::select(vec![Method::GET, Method::POST, Method::PUT]),
            prop::option::of(prop::sample::select(vec!["1", "2"])),
            prop::option::of(prop::sample::select(vec!["q=1", "q=2", "x=1&q=1", "q2=1"])),
        ), 1..30),
    ) {
        let table = compile(Arc::new(config(routes, vec![]))).expect("the routes compile");
        for (host, segments, slash, method, header, query) in requests {
            let mut path = format!("/{}", segments.join("/"));
            if slash && path != "/" {
                path.push('/');
            }
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert("x-h", value.parse().expect("a value"));
            }
            let request = RequestView { method: &method, host, path: &path, query, headers: &headers };
            prop_assert_eq!(table.route(&request), naive(&table, &request), "{} {} {:?}", host, path, query);
        }
    }
}
