use super::super::testing::compiled;
use super::*;

fn endpoint(runtime: &Runtime, service: &str, version: &str, port: u16) -> Arc<EndpointRuntime> {
    let version = runtime.named(service).and_then(|service| service.version_named(version)).expect("there");
    let address = EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
    version.endpoints_at(&address).remove(0)
}

fn core(runtime: &Runtime, service: &str, version: &str) -> Arc<VersionCore> {
    runtime.named(service).and_then(|service| service.version_named(version)).expect("there").core.clone()
}

#[test]
fn what_did_not_change_is_the_same_and_what_did_is_new() {
    let before = Runtime::of(&[compiled("shop", &[("v1", &[1, 2]), ("v2", &[3])], true)], None, 1);
    endpoint(&before, "shop", "v1", 1).set_health(Health::Healthy);
    let services = [compiled("api", &[("v1", &[1])], true), compiled("shop", &[("v1", &[1, 4]), ("v3", &[3])], true)];
    let after = Runtime::of(&services, Some(&before), 1);

    let (old, new) = (endpoint(&before, "shop", "v1", 1), endpoint(&after, "shop", "v1", 1));
    assert!(Arc::ptr_eq(&old, &new), "health, counters and connections are kept");
    assert!(Arc::ptr_eq(&core(&before, "shop", "v1"), &core(&after, "shop", "v1")));
    assert!(Arc::ptr_eq(&before.services[0].core, &after.named("shop").expect("there").core));
    assert_eq!(endpoint(&after, "shop", "v1", 4).health(), Health::Unknown);
    // The same address under another version or service is another endpoint.
    for other in [endpoint(&after, "shop", "v3", 3), endpoint(&after, "api", "v1", 1)] {
        assert!(before.endpoints().all(|before| before.incarnation != other.incarnation));
    }
}

#[test]
fn a_version_that_comes_back_while_something_runs_on_it_is_itself_again() {
    let with = [compiled("shop", &[("v1", &[1]), ("v2", &[2])], false)];
    let without = [compiled("shop", &[("v2", &[2])], false)];
    let first = Runtime::of(&with, None, 1);
    let (stream, address) = (core(&first, "shop", "v1"), endpoint(&first, "shop", "v1", 1));
    let second = Runtime::of(&without, Some(&first), 1);
    drop(first);
    let third = Runtime::of(&without, Some(&second), 1);
    let fourth = Runtime::of(&with, Some(&third), 1);
    assert!(Arc::ptr_eq(&stream, &core(&fourth, "shop", "v1")));
    assert_ne!(address.incarnation, endpoint(&fourth, "shop", "v1", 1).incarnation, "connections are not reused");

    // Once nothing holds it, it is forgotten.
    let slot = stream.slot;
    drop((stream, fourth));
    let fifth = Runtime::of(&without, Some(&third), 1);
    assert_ne!(core(&Runtime::of(&with, Some(&fifth), 1), "shop", "v1").slot, slot);
    assert_eq!(Runtime::of(&without, Some(&fifth), 1).gone.len(), 0);
}

#[test]
fn adding_a_check_takes_no_traffic_away_and_removing_it_gives_it_back() {
    let (checked, unchecked) = ([compiled("shop", &[("v1", &[1])], true)], [compiled("shop", &[("v1", &[1])], false)]);
    let first = Runtime::of(&unchecked, None, 1);
    let second = Runtime::of(&checked, Some(&first), 1);
    let endpoint = endpoint(&second, "shop", "v1", 1);
    assert_eq!((endpoint.health(), endpoint.is_ready()), (Health::Healthy, true));
    endpoint.set_health(Health::Down);
    let third = Runtime::of(&unchecked, Some(&second), 1);
    assert!(third.named("shop").expect("there").versions[0].has_ready());
}
