//! Session tickets: clients come back without a full handshake, over swaps and restarts, and never as somebody
//! else.

use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;
use crate::tls_certificates::serving;

async fn shop(world: &mut World) -> Origin {
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    serving(world, "{ cert_file: shop.pem, key_file: shop.key }", "").await
}

async fn resumes(kind: &TlsKind, world: &World, name: &str) -> bool {
    let (tls, seen) = kind.get(world.web(), name, "/").await.expect("a handshake");
    assert_eq!(seen.status, 200);
    tls.resumed
}

#[tokio::test]
async fn both_versions_resume_over_a_restart_and_a_new_certificate() {
    let mut world = World::new();
    let _v1 = shop(&mut world).await;
    let kinds = [&rustls::version::TLS12, &rustls::version::TLS13].map(TlsKind::only);
    for (kind, version) in kinds.iter().zip([rustls::ProtocolVersion::TLSv1_2, rustls::ProtocolVersion::TLSv1_3]) {
        assert!(!resumes(kind, &world, "shop.test").await);
        let (tls, _) = kind.get(world.web(), "shop.test", "/").await.unwrap();
        assert_eq!((tls.resumed, tls.version), (true, version));
    }
    Authority::new("another").issue(&["shop.test"]).write(world.dir.path(), "shop");
    world.kill_9();
    world.restart().await;
    for kind in &kinds {
        assert!(resumes(kind, &world, "shop.test").await);
    }
    let resumed = |version: &'static str| {
        let labels = [("result", "resumed"), ("version", version)];
        let world = &world;
        async move { world.metric("switchback_tls_handshakes_total", &labels).await }
    };
    assert_eq!((resumed("1.2").await, resumed("1.3").await), (1.0, 1.0));
    let keys = std::fs::metadata(world.state_dir().join("tls-tickets.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&keys.permissions()) & 0o777, 0o600);
    // Other keys: a full handshake, and no failure.
    world.kill_9();
    std::fs::remove_file(world.state_dir().join("tls-tickets.key")).unwrap();
    world.restart().await;
    for kind in &kinds {
        assert!(!resumes(kind, &world, "shop.test").await);
    }
}

#[tokio::test]
async fn a_ticket_given_to_anybody_opens_nothing_that_asks_for_a_certificate() {
    let mut world = World::new();
    let staff = Authority::new("staff");
    let _v1 = shop(&mut world).await;
    std::fs::write(world.path("staff-ca.pem"), &staff.pem).unwrap();
    let kind = TlsKind::new();
    assert!(!resumes(&kind, &world, "shop.test").await);
    assert!(resumes(&kind, &world, "shop.test").await);
    // From now on the same name demands a certificate.
    let auth = "shop.key }], client_auth: { ca_file: staff-ca.pem }";
    world.edit_and_wait(|text| text.replace("shop.key }]", auth)).await;
    let again = kind.get(world.web(), "shop.test", "/").await;
    assert!(again.map_or(true, |(_, seen)| seen.outcome != Outcome::Ok));
    // Who shows one resumes with its own tickets, and is still known.
    let ada = TlsKind::showing(&staff.issue(&["ada.test"]));
    assert!(!resumes(&ada, &world, "shop.test").await);
    assert!(resumes(&ada, &world, "shop.test").await);
    assert_eq!(wire::field(&_v1.last().headers, "x-client-cert-subject"), Some("CN=ada.test"));
}

#[tokio::test]
async fn keys_that_others_may_read_are_not_used() {
    let mut world = World::new();
    let _v1 = shop(&mut world).await;
    world.kill_9();
    let path = world.state_dir().join("tls-tickets.key");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    world.restart().await;
    let kind = TlsKind::new();
    assert!(!resumes(&kind, &world, "shop.test").await);
    assert!(resumes(&kind, &world, "shop.test").await, "keys of this process");
    assert!(world.log().contains("others may read it"), "{}", world.log());
}
