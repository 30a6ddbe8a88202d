//! TLS in the configuration: what is read from the files, and every way in which they can be wrong.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use super::super::certificate::Dates;
use super::super::load::{Source, parse_dated};
use super::super::model::Config;
use super::super::model::tls::{Alpn, Asks, Tls, TlsVersion};
use super::super::problem::Severity;
use super::super::render::to_yaml;

/// A folder with pairs of files.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.pair("shop", &["shop.test", "*.shop.test"], |_| {});
        folder.pair("api", &["api.test"], |_| {});
        folder.pair("old", &["old.test"], |params| params.not_after = date_time_ymd(2020, 1, 1));
        folder.pair("next", &["next.test"], |params| params.not_before = date_time_ymd(3000, 1, 1));
        folder.pair("nobody", &[], |_| {});
        folder.pair("ca", &["ca.test"], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        folder.write("empty.pem", "");
        folder.write("text.pem", "no certificate\n");
        folder
            .write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub fn pair(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(3001, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn text(&self, tls: &str) -> String {
        format!(
            "listeners: {{ web: {{ bind: \"127.0.0.1:0\", tls: {tls} }} }}\n\
             routes: [{{ name: a, respond: {{ body: a }} }}]\n"
        )
    }

    fn read(&self, tls: &str, dates: &Dates) -> Result<(Tls, Vec<String>), Vec<String>> {
        let (config, said) = self.parse(&self.text(tls), dates)?;
        Ok((config.listeners["web"].tls.as_deref().expect("it was asked for").clone(), said))
    }

    /// With everything that is said, each as `place what | why | hint`.
    pub fn parse(&self, text: &str, dates: &Dates) -> Result<(Arc<Config>, Vec<String>), Vec<String>> {
        let source = Source { path: self.path().join("f.yaml"), text: text.into() };
        let said = |problems: super::Problems| -> Vec<String> {
            let one = |problem: super::super::Problem| {
                let place = problem.place.map_or("-".into(), |place| format!("{}:{}", place.line, place.column));
                let severity = if problem.severity == Severity::Error { "" } else { "warning " };
                let (why, hint) = (problem.why.unwrap_or_default(), problem.hint.unwrap_or_default());
                format!("{severity}{place} {} | {why} | {hint}", problem.what)
            };
            problems.0.into_iter().map(one).collect()
        };
        match parse_dated(vec![source], dates) {
            Ok(loaded) => Ok((loaded.config, said(loaded.warnings))),
            Err(problems) => Err(said(problems)),
        }
    }

    fn good(&self, tls: &str) -> Tls {
        self.read(tls, &Dates::Strict).unwrap_or_else(|said| panic!("{said:#?}")).0
    }
}

const SHOP: &str = "{ cert_file: shop.pem, key_file: shop.key }";
const API: &str = "{ cert_file: api.pem, key_file: api.key }";

#[test]
fn defaults_are_those_of_the_reference() {
    let folder = Folder::new();
    let tls = folder.good(&format!("{{ certificates: [{SHOP}] }}"));
    assert_eq!((tls.min_version, tls.alpn.as_slice(), tls.client_auth.is_none()), (TlsVersion::V12, Alpn::ALL, true));
    let one = &tls.certificates[0];
    assert_eq!(one.names(), ["shop.test", "*.shop.test"]);
    assert_eq!((one.asks.clone(), one.label()), (Asks::AsListener, "shop.test".into()));
    assert_eq!(one.key_file, folder.path().join("shop.key"), "relative to the file that names it");
}

#[test]
fn a_certificate_may_ask_its_clients_for_something_else() {
    let folder = Folder::new();
    let tls = folder.good(
        "{ certificates: [{ cert_file: shop.pem, key_file: shop.key },\n\
           { cert_file: api.pem, key_file: api.key, client_auth: { mode: off } },\n\
           { cert_file: ca.pem, key_file: ca.key, client_auth: { ca_file: ca.pem, mode: optional } }],\n\
           client_auth: { ca_file: ca.pem } }",
    );
    let asks: Vec<Option<bool>> = (0..3).map(|at| tls.client_auth(at).map(|auth| auth.required)).collect();
    assert_eq!(asks, [Some(true), None, Some(false)]);
}

#[test]
fn what_is_rendered_reads_back() {
    let folder = Folder::new();
    let tls = "{ certificates: [{ cert_file: shop.pem, key_file: shop.key, names: [shop.test, www.shop.test] },\n\
               { cert_file: api.pem, key_file: api.key, client_auth: { mode: off } }],\n\
               client_auth: { ca_file: ca.pem, mode: optional }, min_version: 1.3, alpn: [http/1.1] }";
    let source = Source { path: folder.path().join("f.yaml"), text: folder.text(tls) };
    let config = parse_dated(vec![source], &Dates::Strict).unwrap().config;
    let rendered = Source { path: "/somewhere/else.yaml".into(), text: to_yaml(&config) };
    let again = parse_dated(vec![rendered], &Dates::Strict).unwrap().config;
    assert_eq!(config, again);
    assert!(!to_yaml(&config).contains("PRIVATE"));
}

#[test]
fn a_mistake_is_named_where_it_was_made() {
    let folder = Folder::new();
    let pair = |cert: &str, key: &str| format!("[{{ cert_file: {cert}, key_file: {key} }}]");
    let both = |second: &str| format!("[{SHOP}, {second}]");
    let cases: Vec<(String, &str, &[&str])> = vec![
        (pair("gone.pem", "shop.key"), "1:77", &["`gone.pem` cannot be read", "no such file"]),
        (pair("shop.pem", "gone.key"), "1:97", &["`gone.key` cannot be read", "no such file"]),
        (pair("empty.pem", "shop.key"), "1:77", &["holds no certificate", "the file is empty"]),
        (pair("text.pem", "shop.key"), "1:77", &["holds no certificate", "BEGIN CERTIFICATE", "openssl x509"]),
        (pair("shop.key", "shop.key"), "1:77", &["holds no certificate"]),
        (pair("shop.pem", "shop.pem"), "1:97", &["holds no private key"]),
        (pair("shop.pem", "locked.key"), "1:97", &["is encrypted", "openssl pkey"]),
        (pair("shop.pem", "api.key"), "1:97", &["`api.key` does not belong", "`shop.pem`", "public keys differ"]),
        (pair("old.pem", "old.key"), "1:77", &["has expired", "2020-01-01", "renew it"]),
        (pair("next.pem", "next.key"), "1:77", &["not good yet", "3000-01-01", "clock"]),
        (pair("nobody.pem", "nobody.key"), "1:77", &["names no server", "subjectAltName"]),
        ("[]".into(), "1:49", &["there are no certificates", "at least one"]),
        (both(SHOP), "1:111", &["two certificates are for `shop.test`", "shop.pem", "`names`"]),
        (
            both("{ cert_file: api.pem, key_file: api.key, names: [api.test, shop.test] }"),
            "1:168",
            &["not issued for `shop.test`", "`api.test`"],
        ),
        (
            both("{ cert_file: api.pem, key_file: api.key, names: [\"a b\"] }"),
            "1:158",
            &["`a b` is not the name of a host"],
        ),
        (
            format!("[{API}], client_auth: {{ mode: required }}"),
            "1:108",
            &["`client_auth` needs the key `ca_file`", "mode: off"],
        ),
        (format!("[{API}], client_auth: {{ ca_file: ca.pem, mode: off }}"), "1:132", &["`ca_file` has no effect"]),
        (format!("[{API}], client_auth: {{ ca_file: text.pem }}"), "1:132", &["`text.pem` holds no certificate"]),
        (format!("[{API}], min_version: 1.1"), "1:121", &["`1.1` is not a version of TLS", "`1.2` and `1.3`"]),
        (format!("[{API}], alpn: [http/1.1, http/1.1]"), "1:125", &["listed twice"]),
        (format!("[{API}], alpn: [spdy]"), "1:115", &["`spdy` is not a protocol"]),
        (format!("[{API}], ciphers: [RC4]"), "1:108", &["unknown key `ciphers`"]),
    ];
    let mut missed = Vec::new();
    for (certificates, place, words) in cases {
        let said = folder.read(&format!("{{ certificates: {certificates} }}"), &Dates::Strict).unwrap_err();
        let named =
            |error: &String| error.starts_with(&format!("{place} ")) && words.iter().all(|word| error.contains(word));
        if !said.iter().any(named) {
            missed.push(format!("{certificates} at {place} with {words:?}, but:\n  {}", said.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn an_authority_of_clients_that_has_expired_is_spoken_of() {
    let folder = Folder::new();
    let (_, said) = folder
        .read(&format!("{{ certificates: [{SHOP}], client_auth: {{ ca_file: old.pem }} }}"), &Dates::Strict)
        .unwrap();
    assert!(said.iter().any(|one| one.contains("an authority in `old.pem` has expired")), "{said:?}");
}

#[test]
fn time_alone_stops_neither_a_start_nor_an_edit() {
    let folder = Folder::new();
    let old = "{ certificates: [{ cert_file: old.pem, key_file: old.key }] }";
    let (tls, said) = folder.read(old, &Dates::Starting).unwrap();
    assert!(said[0].starts_with("warning 1:77 the certificate in `old.pem` has expired"), "{said:?}");
    let served = Dates::Serving([tls.certificates[0].material.own.fingerprint].into());
    assert!(folder.read(old, &served).is_ok(), "it is served already");
    assert!(folder.read(old, &Dates::Serving(Default::default())).is_err(), "it would be new");
}
