//! A route that guards a path cannot be walked around, whatever the path is spelled like.

use crate::harness::*;

#[tokio::test]
async fn no_spelling_walks_around_a_guarded_route() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let guarded = "routes:\n  - { name: guarded, match: { path_prefix: /admin }, service: shop, access: { deny: [0.0.0.0/0, \"::/0\"] } }\n";
    world.start(&one_service(&[&v1], "active: v1").replace("routes:\n", guarded)).await;
    for (path, status) in [
        ("/admin", 403),
        ("/admin/users", 403),
        ("/%61dmin/users", 403),
        ("//admin", 403),
        ("/x/../admin", 403),
        ("/x/%2e%2e/admin", 403),
        ("/./admin", 403),
        ("/admin/", 403),
        ("/admin/..", 200),
        ("/admin;x=1/users", 400),
        ("/admin%3Bx/users", 400),
        ("/;x/admin", 400),
        ("/x/..;/admin", 400),
        ("/x%2F..%2Fadmin", 400),
        ("/x\\..\\admin", 400),
        ("/x%5c..%5cadmin", 400),
        ("/admin%00", 400),
        ("/%c0%ae%c0%ae/admin", 400),
        ("/../admin", 400),
        ("/cart;jsessionid=1", 200),
        ("/administrator", 200),
        ("/Admin", 200),
        ("/%2561dmin", 200),
    ] {
        let before = v1.requests();
        let mut raw = world.raw().await;
        raw.write(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n").as_bytes()).await.unwrap();
        let seen = raw.answer().await;
        assert_eq!(seen.status, status, "{path}: {}", seen.text());
        assert_eq!(v1.requests() - before, u64::from(status == 200), "{path}");
    }
    // What was matched is what is forwarded, the query untouched.
    let mut client = world.client();
    for (path, forwarded) in [
        ("/a/./b//c/../%7Ed?x=/../%2e%2F//", "/a/b/~d?x=/../%2e%2F//"),
        ("/caf%c3%a9/[1]", "/caf%C3%A9/%5B1%5D"),
        ("/cart;jsessionid=1/x", "/cart;jsessionid=1/x"),
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
        assert_eq!(v1.last().target(), forwarded);
    }
    let explained = world.cli(&["explain", "GET", "http://shop.test/admin;x/users"]).await;
    assert!((explained.out + &explained.err).contains("leads elsewhere"), "explain reads it the same way");
}
