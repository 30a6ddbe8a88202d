//! Clients that show a certificate: asked for by name, told to endpoints, and not to be got around.

use crate::harness::tls::{Authority, Pair, TlsKind, replace};
use crate::harness::*;
use crate::tls_certificates::serving;

/// `open.test` asks nobody, `staff.test` demands, `maybe.test` asks.
async fn three_names(world: &mut World, ca: &Authority, staff: &Authority) -> Origin {
    for name in ["open", "staff", "maybe"] {
        ca.issue(&[&format!("{name}.test")]).write(world.dir.path(), name);
    }
    std::fs::write(world.path("staff-ca.pem"), &staff.pem).unwrap();
    let list = "{ cert_file: open.pem, key_file: open.key }, \
                { cert_file: staff.pem, key_file: staff.key, client_auth: { ca_file: staff-ca.pem } }, \
                { cert_file: maybe.pem, key_file: maybe.key, client_auth: { ca_file: staff-ca.pem, mode: optional } }";
    serving(world, list, "").await
}

#[tokio::test]
async fn a_name_that_demands_a_certificate_gets_one_and_tells_the_endpoint() {
    let mut world = World::new();
    let (ca, staff) = (Authority::new("ca"), Authority::new("staff"));
    let v1 = three_names(&mut world, &ca, &staff).await;
    let ada = staff.issue(&["ada.staff.test"]);
    let stranger = Authority::new("staff").issue(&["ada.staff.test"]);

    let seen = TlsKind::showing(&ada).get(world.web(), "staff.test", "/").await.unwrap().1;
    assert_eq!(seen.status, 200);
    let headers = v1.last().headers;
    let field = |name: &str| wire::field(&headers, name).map(String::from);
    assert_eq!(field("x-client-cert-subject").as_deref(), Some("CN=ada.staff.test"));
    assert_eq!(field("x-client-cert-issuer").as_deref(), Some("CN=staff"));
    assert_eq!(field("x-client-cert-san").as_deref(), Some("DNS:ada.staff.test"));
    assert_eq!(field("x-client-cert-fingerprint").map(|hex| hex.len()), Some(64));

    // Nobody, and somebody that others vouch for. In TLS 1.3 the client learns of it with its first read.
    let refused = |kind: TlsKind, name: &'static str| {
        let web = world.web();
        async move { kind.get(web, name, "/").await.map_or(true, |(_, seen)| seen.outcome != Outcome::Ok) }
    };
    v1.forget();
    assert!(refused(TlsKind::new(), "staff.test").await);
    assert!(refused(TlsKind::showing(&stranger), "staff.test").await);
    assert!(refused(TlsKind::showing(&stranger), "maybe.test").await);
    assert!(refused(TlsKind::only(&rustls::version::TLS12), "staff.test").await);
    assert_eq!(v1.received().len(), 0);

    // Who may show none, shows none or a good one.
    let (none, some) = (TlsKind::new(), TlsKind::showing(&ada));
    assert_eq!(none.get(world.web(), "maybe.test", "/").await.unwrap().1.status, 200);
    assert_eq!(wire::field(&v1.last().headers, "x-client-cert-subject"), None);
    assert_eq!(some.get(world.web(), "maybe.test", "/").await.unwrap().1.status, 200);
    assert_eq!(wire::field(&v1.last().headers, "x-client-cert-subject"), Some("CN=ada.staff.test"));
}

#[tokio::test]
async fn a_host_cannot_be_reached_by_another_name() {
    let mut world = World::new();
    let (ca, staff) = (Authority::new("ca"), Authority::new("staff"));
    let v1 = three_names(&mut world, &ca, &staff).await;
    let ada = staff.issue(&["ada.staff.test"]);
    for (shows, name, host, status) in [
        (false, "open.test", "staff.test", 421),
        (false, "open.test", "STAFF.test:443", 421),
        (false, "open.test", "staff.test.", 421),
        (false, "open.test", "maybe.test", 421),
        (false, "maybe.test", "staff.test", 421),
        (true, "maybe.test", "staff.test", 421),
        (true, "staff.test", "open.test", 421),
        (true, "staff.test", "staff.test", 200),
        (false, "open.test", "unknown.test", 200),
        (false, "unknown.test", "open.test", 200),
        (true, "staff.test", "unknown.test", 421),
    ] {
        v1.forget();
        let kind = if shows { TlsKind::showing(&ada) } else { TlsKind::new() };
        let mut connection = kind.connect(world.web(), name).await.unwrap();
        assert_eq!(connection.get(host, "/").await.status, status, "{name}, then Host: {host}");
        assert_eq!(v1.received().len(), usize::from(status == 200), "{name}, then Host: {host}");
        // The same with an absolute target, whose authority counts.
        let mut connection = kind.connect(world.web(), name).await.unwrap();
        let seen = connection.get(name, &format!("http://{host}/")).await;
        assert_eq!(seen.status, status, "{name}, then http://{host}/");
    }
}

#[tokio::test]
async fn a_client_cannot_say_who_it_is_by_itself() {
    let mut world = World::new();
    let (ca, staff) = (Authority::new("ca"), Authority::new("staff"));
    let v1 = three_names(&mut world, &ca, &staff).await;
    let lies = "X-Client-Cert-Subject: CN=root\r\nx_client_cert_subject: CN=root\r\nX-Client_Cert-San: DNS:root\r\n\
                X-Client-Cert-Fingerprint: 00\r\nX-Client-Cert-Verified: yes\r\nClient-Cert: :AAAA:\r\n\
                Client-Cert-Chain: :AAAA:\r\n";
    for name in ["open.test", "maybe.test"] {
        let mut connection = TlsKind::new().connect(world.web(), name).await.unwrap();
        assert_eq!(connection.get_with(name, "/", lies).await.status, 200);
        let told: Vec<String> = v1.last().headers.iter().map(|(name, _)| name.replace('_', "-")).collect();
        assert!(!told.iter().any(|name| name.contains("client-cert")), "{told:?}");
    }
    let ada = staff.issue(&["ada.staff.test"]);
    let mut connection = TlsKind::showing(&ada).connect(world.web(), "staff.test").await.unwrap();
    assert_eq!(connection.get_with("staff.test", "/", lies).await.status, 200);
    let headers = v1.last().headers;
    assert_eq!(wire::fields(&headers, "x-client-cert-subject"), ["CN=ada.staff.test"]);
    assert_eq!(wire::field(&headers, "x-client-cert-verified"), None);
}

#[tokio::test]
async fn the_authorities_change_with_their_file() {
    let mut world = World::new();
    let (ca, staff, others) = (Authority::new("ca"), Authority::new("staff"), Authority::new("others"));
    let _v1 = three_names(&mut world, &ca, &staff).await;
    let (ada, bob) = (staff.issue(&["ada.test"]), others.issue(&["bob.test"]));
    let web = world.web();
    let enters = |pair: &Pair| {
        let kind = TlsKind::showing(pair);
        async move { kind.get(web, "staff.test", "/").await.is_ok_and(|(_, seen)| seen.status == 200) }
    };
    assert!(enters(&ada).await && !enters(&bob).await);
    replace(&world.path("staff-ca.pem"), &others.pem);
    until("the other authority counts", || enters(&bob)).await;
    assert!(!enters(&ada).await);
}
