use super::*;
use crate::routing::compile::{intended_shares, split_from};
use crate::routing::diff::{EndpointsDifference, Policy, RoutePart, Setting, ShareDifference};

fn generation(config: Config) -> Generation {
    let table = compile(Arc::new(config)).expect("compiles");
    let splits = table.services.iter().map(|service| split_from(service, intended_shares(service), 1)).collect();
    let stamp = Stamp { number: 1, hash: "".into(), author: "file".into(), cause: "test".into(), at_ms: 0 };
    Generation { stamp, table: Arc::new(table), splits }
}

fn base() -> Config {
    let mut shop = service(&["v1", "v2"], split("v1=90 v2=10"));
    shop.sticky = Some(Sticky::ClientIp);
    let routes = vec![forward("shop", "shop"), route("old", "*", PathMatch::Exact("/old".to_owned()))];
    config(routes, vec![("shop", shop), ("api", service(&["blue", "green"], active("blue")))])
}

fn forward(name: &str, service: &str) -> Route {
    let action = Action::Forward { service: service.into(), rewrite: Rewrite::default() };
    Route { action, ..route(name, "shop.test", PathMatch::Any) }
}

/// What `change` makes of the base configuration.
fn after(change: impl FnOnce(&mut Config)) -> Difference {
    let mut config = base();
    change(&mut config);
    Difference::between(&generation(base()), &generation(config))
}

fn shop(config: &mut Config) -> &mut Service {
    config.services.get_mut("shop").expect("it is there")
}

#[test]
fn nothing_changed() {
    assert!(after(|_| {}).is_empty());
    let one = generation(base());
    assert!(Difference::between(&one, &one.clone()).is_empty());
}

#[test]
fn a_flip_changes_shares_and_what_leaves_must_drain() {
    let difference = after(|config| config.services.get_mut("api").expect("api").intent = active("green"));
    let [api] = &*difference.services else { panic!("{difference:?}") };
    assert_eq!(api.intent, Some((active("blue"), active("green"))));
    let blue = ShareDifference { version: "blue".into(), from: Share::Weight(1), to: Share::Off };
    let green = ShareDifference { version: "green".into(), from: Share::Off, to: Share::Weight(1) };
    assert_eq!(api.shares, [blue.clone(), green]);
    assert_eq!(api.leaving().collect::<Vec<_>>(), [&blue]);
    assert_eq!(api.buckets_moved, 0, "its clients are not sticky");
    assert_eq!(difference, Difference { services: difference.services.clone(), ..Difference::default() });
}

#[test]
fn a_new_split_of_the_same_table_moves_clients() {
    let before = generation(base());
    let at = before.table.service_named("shop").expect("shop");
    let shares = vec![Share::Weight(50), Share::Weight(50)];
    let split = split_from(before.table.service(at), shares, 1);
    let after = before.with_splits(Stamp { number: 2, ..before.stamp.clone() }, [(at, split)]);
    let difference = Difference::between(&before, &after);
    let [shop] = &*difference.services else { panic!("{difference:?}") };
    assert_eq!((shop.shares.len(), &shop.intent), (2, &None));
    assert!((3700..4300).contains(&shop.buckets_moved), "40 % of them: {}", shop.buckets_moved);
}

#[test]
fn versions_and_endpoints_come_and_go() {
    let difference = after(|config| {
        let shop = shop(config);
        let v2 = shop.versions.remove("v2").expect("v2");
        shop.versions.insert("v3".into(), v2);
        shop.versions.get_mut("v1").expect("v1").endpoints = vec![endpoint("10.0.0.9:80")];
        shop.intent = split("v1=90 v3=10");
    });
    let [shop] = &*difference.services else { panic!("{difference:?}") };
    assert_eq!((&*shop.versions_added, &*shop.versions_removed), (&["v3".into()][..], &["v2".into()][..]));
    let endpoints = EndpointsDifference {
        version: "v1".into(),
        added: vec![endpoint("10.0.0.9:80")],
        removed: vec![endpoint("10.0.0.1:80")],
    };
    assert_eq!(shop.endpoints, [endpoints]);
    assert_eq!(shop.leaving().map(|share| &*share.version).collect::<Vec<_>>(), ["v2"]);
}

#[test]
fn every_policy_is_named() {
    let difference = after(|config| {
        let shop = shop(config);
        shop.sticky = None;
        shop.hold.max_requests = 1;
        shop.timeouts.connect = Duration::from_millis(1);
    });
    assert_eq!(difference.services[0].policies, [Policy::Sticky, Policy::Timeouts, Policy::Hold]);
    assert!(difference.services[0].shares.is_empty());
}

#[test]
fn services_routes_listeners_and_settings_are_matched_by_name() {
    let difference = after(|config| {
        config.services.remove("api");
        config.services.insert("cart".into(), service(&["v1"], active("v1")));
        config.routes[0] = forward("shop", "cart");
        config.routes[1].matcher.path = PathMatch::Exact("/older".to_owned());
        config.routes[1].action = Action::Respond { status: 404, headers: vec![], body: String::new() };
        config.routes.push(route("new", "*", PathMatch::Any));
        config.expose.response_headers = true;
    });
    assert_eq!((difference.services_added, difference.services_removed), (vec!["cart".into()], vec!["api".into()]));
    assert_eq!((difference.routes_added, difference.routes_removed), (vec!["new".into()], vec![]));
    let parts: Vec<_> = difference.routes.iter().map(|route| (&*route.route, &*route.parts)).collect();
    let expected: [(&str, &[RoutePart]); 2] =
        [("shop", &[RoutePart::Target]), ("old", &[RoutePart::Match, RoutePart::Treatment])];
    assert_eq!(parts, expected);
    assert_eq!(difference.settings, [Setting::Expose]);
    assert!(!difference.routes_reordered);
    assert!(after(|config| config.routes.swap(0, 1)).routes_reordered);
}

#[test]
fn who_may_come_in_is_a_difference() {
    let only = || Access {
        allow: Some(["10.0.0.0/8".parse().expect("a network")].into_iter().collect()),
        ..Access::default()
    };
    let difference = after(|config| shop(config).policy.access = only());
    assert_eq!(difference.services[0].policies, [Policy::Access]);
    let difference = after(|config| config.routes[0].policy.access = only());
    assert_eq!(difference.routes[0].parts, [RoutePart::Treatment]);
}
