use super::*;
use crate::routing::compile::{CompileError, intended_shares, split_from};

#[test]
fn the_intent_becomes_shares() {
    use Share::*;
    for (intent, shares) in [
        (active("v2"), [Off, Weight(1), Off]),
        (split("v1=90 v2=10"), [Weight(90), Weight(10), Off]),
        (split("v1=0 v3=5"), [Draining, Off, Weight(5)]),
    ] {
        let config = config(vec![], vec![("shop", service(&["v1", "v2", "v3"], intent.clone()))]);
        let table = compile(Arc::new(config)).expect("compiles");
        assert_eq!(intended_shares(table.service(ServiceIdx(0))), shares, "{intent:?}");
    }
}

#[test]
fn names_become_indices() {
    let mut to_shop = route("a", "*", PathMatch::Any);
    to_shop.action = Action::Forward { service: "shop".into(), rewrite: Rewrite::default() };
    let services = vec![("shop", service(&["green", "blue"], active("blue"))), ("api", service(&["v1"], active("v1")))];
    let table = compile(Arc::new(config(vec![to_shop, route("b", "*", PathMatch::Any)], services))).expect("compiles");
    let shop = table.service_named("shop").expect("it is there");
    assert_eq!(shop, ServiceIdx(1), "in name order");
    assert_eq!(table.service_named("shopp"), None);
    assert_eq!(table.route_at(RouteIdx(0)).service, Some(shop));
    assert_eq!(table.route_at(RouteIdx(1)).service, None);
    assert_eq!(table.service(shop).version_named("blue"), Some(VersionIdx(0)));
    assert_eq!(&**table.service(shop).version_name(VersionIdx(1)), "green");
    assert_ne!(table.service(shop).salt, table.service(ServiceIdx(0)).salt);
}

#[test]
fn a_regex_that_is_too_large_names_its_route() {
    for regex in [r"\w{500}{500}", "("] {
        let routes = vec![route("big", "*", PathMatch::Regex(regex.to_owned()))];
        match compile(Arc::new(config(routes, vec![]))) {
            Err(CompileError::Regex { route, .. }) => assert_eq!(route, "big"),
            other => panic!("{regex}: {other:?}"),
        }
    }
}

#[test]
fn another_split_of_a_service_has_another_order() {
    let config = config(vec![], vec![("shop", service(&["v1", "v2"], active("v1")))]);
    let table = compile(Arc::new(config)).expect("compiles");
    let order = |a, b| {
        let split = split_from(table.service(ServiceIdx(0)), vec![Share::Weight(a), Share::Weight(b)], 1);
        (0..200).map(|_| split.next(Thread(0))).collect::<Vec<_>>()
    };
    assert_eq!(order(1, 9), order(1, 9));
    assert_ne!(order(1, 9), order(100, 900), "the same proportion, written otherwise");
}
