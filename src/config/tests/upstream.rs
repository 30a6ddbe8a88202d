//! Connections to endpoints in the configuration: what is read from files, and every way in which they can be wrong.

use std::sync::Arc;

use super::super::certificate::Dates;
use super::super::model::{Protocol, Trust, UpstreamTls};
use super::super::render::to_yaml;
use super::tls::Folder;

fn text(endpoint: &str, tls: &str) -> String {
    format!(
        "listeners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nroutes: [{{ name: a, service: s }}]\nservices:\n  s:\n    \
         versions: {{ v1: {{ endpoints: [\"{endpoint}\"] }} }}\n    active: v1\n    upstream: {{ tls: {tls} }}\n"
    )
}

fn read(folder: &Folder, endpoint: &str, tls: &str) -> Result<(Arc<UpstreamTls>, Vec<String>), Vec<String>> {
    let (config, said) = folder.parse(&text(endpoint, tls), &Dates::Strict)?;
    Ok((config.services["s"].upstream.tls.clone().expect("it was asked for"), said))
}

fn good(folder: &Folder, endpoint: &str, tls: &str) -> Arc<UpstreamTls> {
    read(folder, endpoint, tls).unwrap_or_else(|said| panic!("{said:#?}")).0
}

#[test]
fn who_is_believed_is_in_a_file_or_in_the_system() {
    let folder = Folder::new();
    let named = good(&folder, "shop.internal:443", "{ ca_file: ca.pem }");
    let Trust::File { path, roots } = &named.trust else { panic!("{named:?}") };
    assert_eq!((path, roots.store.len()), (&folder.path().join("ca.pem"), 1));
    assert!(named.sni.is_none() && named.identity.is_none());
    assert_eq!(named, good(&folder, "shop.internal:443", "{ ca_file: ca.pem }"), "the same content is the same");
    folder.pair("ca", &["ca.test"], |params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert_ne!(named, good(&folder, "shop.internal:443", "{ ca_file: ca.pem }"), "another authority, the same name");
    match read(&folder, "shop.internal:443", "{}") {
        Ok((system, _)) => assert!(matches!(system.trust, Trust::System(_)), "{system:?}"),
        // A machine may trust nobody.
        Err(said) => assert!(said[0].contains("the system trusts nobody") && said[0].contains("ca_file"), "{said:?}"),
    }
}

#[test]
fn we_may_have_a_certificate_without_a_name() {
    let folder = Folder::new();
    let tls = good(&folder, "10.0.0.1:443", "{ ca_file: ca.pem, cert_file: nobody.pem, key_file: nobody.key }");
    let identity = tls.identity.as_ref().expect("given");
    assert_eq!(identity.key_file, folder.path().join("nobody.key"));
    assert!(!format!("{tls:?}").contains("PRIVATE"), "{tls:?}");
}

#[test]
fn not_to_verify_takes_two_words_and_is_warned_of() {
    let folder = Folder::new();
    let (tls, said) = read(&folder, "unix:/run/x.sock", "{ verify: off, insecure: true }").unwrap();
    assert_eq!(tls.trust, Trust::Blind);
    assert!(
        said.iter().any(|one| one.starts_with("warning 7:32 endpoints of this service are not verified")),
        "{said:?}"
    );
}

#[test]
fn what_is_rendered_reads_back() {
    let folder = Folder::new();
    for tls in [
        "{ ca_file: ca.pem, sni: shop.test, cert_file: shop.pem, key_file: shop.key }",
        "{ verify: off, insecure: true, sni: \"10.0.0.1\" }",
    ] {
        let (config, _) = folder.parse(&text("shop.internal:443", tls), &Dates::Strict).unwrap();
        let (again, _) = folder.parse(&to_yaml(&config), &Dates::Strict).unwrap();
        assert_eq!(config.services, again.services, "{tls}");
    }
}

#[test]
fn a_mistake_is_named_where_it_was_made() {
    let folder = Folder::new();
    let pair = |cert: &str, key: &str| format!("{{ ca_file: ca.pem, cert_file: {cert}, key_file: {key} }}");
    let cases: Vec<(&str, String, &str, &[&str])> = vec![
        ("a:1", "{ ca_file: gone.pem }".into(), "7:33", &["`gone.pem` cannot be read", "no such file"]),
        ("a:1", "{ ca_file: empty.pem }".into(), "7:33", &["`empty.pem` holds no certificate", "the file is empty"]),
        ("a:1", "{ ca_file: text.pem }".into(), "7:33", &["holds no certificate", "BEGIN CERTIFICATE"]),
        ("a:1", "{ ca_file: shop.key }".into(), "7:33", &["holds no certificate"]),
        ("a:1", pair("gone.pem", "shop.key"), "7:52", &["`gone.pem` cannot be read"]),
        ("a:1", pair("shop.pem", "gone.key"), "7:72", &["`gone.key` cannot be read"]),
        ("a:1", pair("text.pem", "shop.key"), "7:52", &["holds no certificate"]),
        ("a:1", pair("shop.pem", "shop.pem"), "7:72", &["holds no private key"]),
        ("a:1", pair("shop.pem", "locked.key"), "7:72", &["is encrypted", "openssl pkey"]),
        ("a:1", pair("shop.pem", "api.key"), "7:72", &["`api.key` does not belong", "public keys differ"]),
        ("a:1", pair("old.pem", "old.key"), "7:52", &["has expired", "2020-01-01", "renew it"]),
        ("a:1", pair("next.pem", "next.key"), "7:52", &["not good yet", "3000-01-01"]),
        ("a:1", "{ ca_file: ca.pem, cert_file: shop.pem }".into(), "7:41", &["`cert_file` needs `key_file`"]),
        ("a:1", "{ ca_file: ca.pem, key_file: shop.key }".into(), "7:41", &["`key_file` needs `cert_file`"]),
        (
            "a:1",
            "{ ca_file: ca.pem, sni: \"a b\" }".into(),
            "7:46",
            &["`a b` is not the name of a server", "without port"],
        ),
        (
            "unix:/x",
            "{ ca_file: ca.pem }".into(),
            "7:17",
            &["`unix:/x` of version `v1` has no name", "sni: shop.internal"],
        ),
        (
            "a:1",
            "{ verify: off }".into(),
            "7:32",
            &["`verify: off` alone is not enough", "insecure: true", "passwords"],
        ),
        ("a:1", "{ verify: off, insecure: true, ca_file: ca.pem }".into(), "7:62", &["`ca_file` has no effect"]),
        ("a:1", "{ ca_file: ca.pem, insecure: true }".into(), "7:51", &["`insecure: true` has no effect"]),
        ("a:1", "{ verify: no }".into(), "7:32", &["`full` and `off`"]),
        ("a:1", "{ insecure_skip_verify: true }".into(), "7:24", &["unknown key `insecure_skip_verify`", "`verify`"]),
        ("a:1", "{ ca: x.pem }".into(), "7:24", &["unknown key `ca`", "`ca_file`"]),
    ];
    let mut missed = Vec::new();
    for (endpoint, tls, place, words) in cases {
        let said = read(&folder, endpoint, &tls).err().unwrap_or_default();
        let named =
            |error: &String| error.starts_with(&format!("{place} ")) && words.iter().all(|word| error.contains(word));
        if !said.iter().any(named) {
            missed.push(format!("{tls} at {place} with {words:?}, but:\n  {}", said.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn http2_without_tls_has_no_tls() {
    let folder = Folder::new();
    let text = text("a:1", "{ ca_file: ca.pem }").replace("upstream: {", "upstream: { protocol: h2c,");
    let said = folder.parse(&text, &Dates::Strict).unwrap_err();
    assert!(said[0].starts_with("7:27 `h2c` is HTTP/2 without TLS"), "{said:?}");
    let said = folder.parse(&text.replace(", tls: { ca_file: ca.pem }", "").replace("h2c", "h2"), &Dates::Strict);
    assert!(said.unwrap_err()[0].starts_with("7:27 `h2` is HTTP/2 over TLS, and there is no `tls`"));
    let (config, _) = folder.parse(&text.replace("h2c", "h2"), &Dates::Strict).unwrap();
    assert_eq!(config.services["s"].upstream.protocol, Protocol::H2);
}

#[test]
fn an_authority_that_has_expired_is_believed_and_spoken_of() {
    let folder = Folder::new();
    let (_, said) = read(&folder, "a:1", "{ ca_file: old.pem }").unwrap();
    assert!(
        said[0].starts_with("warning 7:33 an authority in `old.pem` has expired | it was good until 2020"),
        "{said:?}"
    );
    assert!(!read(&folder, "a:1", "{ ca_file: ca.pem }").unwrap().1.iter().any(|one| one.contains("authority")));
}

#[test]
fn time_alone_stops_neither_a_start_nor_an_edit() {
    let folder = Folder::new();
    let old = text("a:1", "{ ca_file: ca.pem, cert_file: old.pem, key_file: old.key }");
    let (config, said) = folder.parse(&old, &Dates::Starting).unwrap();
    assert!(
        said.iter().any(|one| one.starts_with("warning 7:52 the certificate in `old.pem` has expired")),
        "{said:?}"
    );
    let tls = config.services["s"].upstream.tls.as_ref().unwrap();
    let used = tls.identity.as_ref().unwrap().material.own.fingerprint;
    assert!(folder.parse(&old, &Dates::Serving([used].into())).is_ok(), "it is used already");
}
