//! Certificates: the right one for every name, swapped while everything runs, and the old one for as long as the
//! new one cannot be used.

use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::harness::tls::{Authority, Pair, TlsKind, replace};
use crate::harness::*;

/// `web` over TLS with these certificates (as the text of the list), and a plain listener beside it.
pub async fn serving(world: &mut World, certificates: &str, more: &str) -> Origin {
    let v1 = world.origin("v1").await;
    let tls = format!("8080\", tls: {{ certificates: [{certificates}]{more} }} }}");
    let text = world.preamble().replacen("8080\" }", &tls, 1) + &one_service(&[&v1], "active: v1");
    world.start_text(&text).await;
    v1
}

async fn shown(world: &World, name: &str) -> Vec<u8> {
    TlsKind::new().get(world.web(), name, "/").await.expect("a handshake").0.shown
}

async fn until_shown(world: &World, name: &str, pair: &Pair) {
    until(&format!("{name} shows the new certificate"), || async { shown(world, name).await == pair.der }).await;
}

#[tokio::test]
async fn every_name_gets_its_certificate_and_the_first_is_for_everybody_else() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let (shop, api, wild) = (ca.issue(&["shop.test"]), ca.issue(&["api.test"]), ca.issue(&["*.wild.test"]));
    for (pair, name) in [(&shop, "shop"), (&api, "api"), (&wild, "wild")] {
        pair.write(world.dir.path(), name);
    }
    let list = ["shop", "api", "wild"].map(|name| format!("{{ cert_file: {name}.pem, key_file: {name}.key }}"));
    let v1 = serving(&mut world, &list.join(", "), "").await;
    for (name, pair) in [
        ("shop.test", &shop),
        ("api.test", &api),
        ("API.Test", &api),
        ("one.wild.test", &wild),
        ("two.one.wild.test", &shop),
        ("wild.test", &shop),
        ("unknown.test", &shop),
    ] {
        assert_eq!(shown(&world, name).await, pair.der, "{name}");
    }
    // The endpoint learns that the client came encrypted.
    let request = v1.last();
    assert_eq!(wire::field(&request.headers, "x-forwarded-proto"), Some("https"));
    assert!(wire::field(&request.headers, "forwarded").unwrap().ends_with(";proto=https"));
    // Status and metrics know them.
    let status = world.status().await;
    let listed = &status["listeners"][0]["tls"]["certificates"];
    assert_eq!(listed[2]["names"][0], "*.wild.test", "{status}");
    let left = world.metric("switchback_tls_certificate_expiry_seconds", &[("name", "shop.test")]).await;
    assert!(left > 1e9, "{left}");
    let full = world.metric("switchback_tls_handshakes_total", &[("result", "full"), ("version", "1.3")]).await;
    assert!(full >= 7.0, "{full}");
}

#[tokio::test]
async fn changed_files_are_swapped_and_no_connection_notices() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let first = ca.issue(&["shop.test"]);
    first.write(world.dir.path(), "shop");
    let _v1 = serving(&mut world, "{ cert_file: shop.pem, key_file: shop.key }", "").await;
    let mut kept = TlsKind::new().connect(world.web(), "shop.test").await.unwrap();
    assert_eq!(kept.get("shop.test", "/").await.status, 200);
    let before = world.generation().await;

    let second = ca.issue(&["shop.test"]);
    second.write(world.dir.path(), "shop");
    until_shown(&world, "shop.test", &second).await;
    assert_eq!(kept.get("shop.test", "/").await.status, 200);
    assert_eq!(world.generation().await, before, "nothing was published");
    assert!(world.events().await.iter().any(|event| event["kind"] == "certificate"));
    assert_eq!(world.metric("switchback_tls_certificate_reloads_total", &[("result", "ok")]).await, 1.0);
}

#[tokio::test]
async fn a_mounted_secret_is_swapped_by_its_link() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let (first, second) = (ca.issue(&["shop.test"]), ca.issue(&["shop.test"]));
    // As Kubernetes mounts a secret: files are links into `..data`, which is a link to a folder.
    let secret = world.path("secret");
    for (nth, pair) in [&first, &second].into_iter().enumerate() {
        let dir = secret.join(format!("..{nth}"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("tls.crt"), &pair.cert).unwrap();
        std::fs::write(dir.join("tls.key"), &pair.key).unwrap();
    }
    symlink("..0", secret.join("..data")).unwrap();
    symlink("..data/tls.crt", secret.join("tls.crt")).unwrap();
    symlink("..data/tls.key", secret.join("tls.key")).unwrap();
    let _v1 = serving(&mut world, "{ cert_file: secret/tls.crt, key_file: secret/tls.key }", "").await;
    assert_eq!(shown(&world, "shop.test").await, first.der);
    symlink("..1", secret.join("..data_tmp")).unwrap();
    std::fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    std::fs::remove_dir_all(secret.join("..0")).unwrap();
    until_shown(&world, "shop.test", &second).await;
}

#[tokio::test]
async fn what_cannot_be_used_keeps_the_old_one_and_says_so() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let (first, second) = (ca.issue(&["shop.test"]), ca.issue(&["shop.test"]));
    first.write(world.dir.path(), "shop");
    let _v1 = serving(&mut world, "{ cert_file: shop.pem, key_file: shop.key }", "").await;
    // Only one of the two is replaced.
    replace(&world.path("shop.pem"), &second.cert);
    let problem = || async { world.status().await["listeners"][0]["tls"]["certificates"][0]["problem"].clone() };
    until("the mismatch is said", || async {
        problem().await.as_str().is_some_and(|why| why.contains("does not belong to the certificate"))
    })
    .await;
    assert_eq!(shown(&world, "shop.test").await, first.der);
    assert_eq!(world.metric("switchback_tls_certificate_files_good", &[("name", "shop.test")]).await, 0.0);
    assert!(world.log().contains("changed files cannot be used"), "{}", world.log());
    assert!(world.events().await.iter().any(|event| event["kind"] == "certificate_failed"));
    let warnings = world.status().await["warnings"].to_string();
    assert!(warnings.contains("the files on disk cannot be used"), "{warnings}");
    // Then the other one.
    replace(&world.path("shop.key"), &second.key);
    until_shown(&world, "shop.test", &second).await;
    until("it is said to be good", || async { problem().await.is_null() }).await;
    // Gone altogether, and expired.
    std::fs::remove_file(world.path("shop.key")).unwrap();
    until("its absence is said", || async {
        problem().await.as_str().is_some_and(|why| why.contains("cannot be read"))
    })
    .await;
    ca.issue_with(&["shop.test"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
        .write(world.dir.path(), "shop");
    until("its date is said", || async { problem().await.as_str().is_some_and(|why| why.contains("has expired")) })
        .await;
    assert_eq!(shown(&world, "shop.test").await, second.der);
}

#[tokio::test]
async fn tls_comes_and_goes_with_the_configuration() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let pair = ca.issue(&["shop.test"]);
    pair.write(world.dir.path(), "shop");
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    let mut plain = world.client();
    assert_eq!(plain.get("/").await.status, 200);
    let tls = "8080\", tls: { certificates: [{ cert_file: shop.pem, key_file: shop.key }] } }";
    world.edit_and_wait(|text| text.replacen("8080\" }", tls, 1)).await;
    // The socket is the same one; who is there stays as it came, who comes is encrypted.
    assert_eq!(shown(&world, "shop.test").await, pair.der);
    assert_eq!((plain.get("/").await.status, plain.opened), (200, 1));
    let mut encrypted = TlsKind::new().connect(world.web(), "shop.test").await.unwrap();
    world.edit_and_wait(|text| text.replacen(tls, "8080\" }", 1)).await;
    assert_eq!(world.get("/").await.status, 200);
    assert_eq!(encrypted.get("shop.test", "/").await.status, 200);
}

#[tokio::test]
async fn a_broken_certificate_in_an_edit_changes_nothing() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    ca.issue(&["shop.test"]).write(world.dir.path(), "shop");
    ca.issue(&["api.test"]).write(world.dir.path(), "api");
    let _v1 = serving(&mut world, "{ cert_file: shop.pem, key_file: shop.key }", "").await;
    let before = world.generation().await;
    world.edit_config(|text| text.replace("key_file: shop.key", "key_file: api.key"));
    until("it is refused", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    let status = world.status().await;
    let rendered = status["config"]["rendered"].as_str().unwrap();
    assert!(
        rendered.contains("does not belong to the certificate") && rendered.contains("switchback.yaml:4:"),
        "{rendered}"
    );
    assert_eq!(world.generation().await, before);
    assert!(TlsKind::new().get(world.web(), "shop.test", "/").await.unwrap().1.is_fine());
    // `check` says the same without a running proxy.
    let checked = world.cli(&["check", "-c", "switchback.yaml"]).await;
    assert_eq!(checked.code, Some(1));
    assert!(format!("{}{}", checked.out, checked.err).contains("their public keys differ"), "{checked:?}");
}

#[tokio::test]
async fn fifty_swaps_under_handshakes_fail_nothing() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let pairs: Vec<Pair> = (0..2).map(|_| ca.issue(&["shop.test"])).collect();
    pairs[0].write(world.dir.path(), "shop");
    ca.issue(&["shop.test"]).write(world.dir.path(), "other");
    let _v1 = serving(&mut world, "{ cert_file: shop.pem, key_file: shop.key }", "").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, web) = (stop.clone(), world.web());
            tokio::spawn(async move {
                let kind = TlsKind::new();
                let (mut full, mut resumed, mut failed) = (0, 0, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match kind.get(web, "shop.test", "/").await {
                        Ok((tls, seen)) if seen.is_fine() => *if tls.resumed { &mut resumed } else { &mut full } += 1,
                        Ok((_, seen)) => failed.push(format!("{seen:?}")),
                        Err(why) => failed.push(why.to_string()),
                    }
                }
                (full, resumed, failed)
            })
        })
        .collect();
    // Through the configuration, which swaps at once: files need to come to rest first.
    for nth in 0..50 {
        let (from, to) = if nth % 2 == 0 { ("shop", "other") } else { ("other", "shop") };
        let text = std::fs::read_to_string(world.config()).unwrap();
        let text = text.replace(&format!("{from}.pem"), &format!("{to}.pem"));
        let text = text.replace(&format!("{from}.key"), &format!("{to}.key"));
        let applied = world.post_config("apply", &text).await;
        assert_eq!(applied.status, 200, "{}", applied.text());
        std::fs::write(world.config(), text).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut full, mut resumed) = (0, 0);
    for client in clients {
        let (of_full, of_resumed, failed) = soon("a client ends", client).await.unwrap();
        assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
        (full, resumed) = (full + of_full, resumed + of_resumed);
    }
    // Only the very first of each client is a full one: tickets outlive certificates.
    assert_eq!(full, 3, "{resumed} resumed");
    assert!(resumed > 50, "{resumed}");
}

#[tokio::test]
async fn an_expired_certificate_starts_with_a_warning_and_stops_no_edit() {
    let mut world = World::new();
    let ca = Authority::new("ca");
    let old = ca.issue_with(&["shop.test"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    old.write(world.dir.path(), "shop");
    let _v1 = serving(&mut world, "{ cert_file: shop.pem, key_file: shop.key }", "").await;
    assert_eq!(shown(&world, "shop.test").await, old.der);
    let warnings = world.status().await["warnings"].to_string();
    assert!(warnings.contains("has expired"), "{warnings}");
    assert!(world.metric("switchback_tls_certificate_expiry_seconds", &[]).await < 0.0);
    within(Duration::from_secs(5), "the log says so", || async { world.log().contains("has expired") }).await;
    world.reload_with_route(1).await;
}

#[tokio::test]
async fn the_example_in_the_repository_holds() {
    let mut world = World::new();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/tls/switchback.yaml")).unwrap();
    let missing = text.replace("127.0.0.1:", &format!("{}:", world.ip));
    world.write_config(&format!("{missing}\nadmin: {{ bind: \"{}\" }}\n", world.admin()));
    let checked = world.cli(&["check", "-c", "switchback.yaml"]).await;
    assert!(checked.err.contains("`certs/shop.pem` cannot be read"), "{checked:?}");
    let certs = world.path("certs");
    std::fs::create_dir(&certs).unwrap();
    let (ca, staff) = (Authority::new("ca"), Authority::new("staff"));
    let shop = ca.issue(&["shop.localhost"]);
    shop.write(&certs, "shop");
    ca.issue(&["staff.localhost"]).write(&certs, "staff");
    std::fs::write(certs.join("staff-ca.pem"), &staff.pem).unwrap();
    world.cli(&["check", "-c", "switchback.yaml"]).await.ok();
    world.restart().await;
    let secure = std::net::SocketAddr::new(world.ip, 8443);
    assert_eq!(TlsKind::new().connect(secure, "shop.localhost").await.unwrap().tls.shown, shop.der);
}
