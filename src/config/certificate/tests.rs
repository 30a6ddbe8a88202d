use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};

use super::*;

struct Made {
    cert: String,
    key: String,
    der: Vec<u8>,
}

fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 1);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    Made { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().to_vec() }
}

/// 2025-06-01.
const NOW: i64 = 1_748_736_000;

fn read(cert: &str, key: &str) -> Result<Material, Unfit> {
    let files = Files { cert: ("a.pem", cert.as_bytes()), key: ("a.key", key.as_bytes()), ocsp: None };
    Material::read(files, NOW)
}

#[test]
fn a_pair_is_described() {
    let one = made(&["Shop.test", "*.shop.test", "10.0.0.1"], |params| {
        params.distinguished_name.push(DnType::CommonName, "Shop");
        params.distinguished_name.push(DnType::OrganizationName, "Ada, Co");
    });
    let material = read(&one.cert, &one.key).unwrap();
    assert_eq!(material.own.names, ["shop.test", "*.shop.test"]);
    assert!(material.own.has_addresses);
    assert_eq!(material.own.alternatives, "DNS:shop.test,DNS:*.shop.test,IP:10.0.0.1");
    assert!(material.own.subject.contains("CN=Shop") && material.own.subject.contains("O=Ada\\, Co"));
    assert_eq!(date(material.own.not_after), "2026-01-01T00:00:00Z");
    assert!(material.is_out_of_date("a.pem", NOW).is_none());
    assert_eq!(material.own.fingerprint, fingerprint(&one.der));
    assert!(!format!("{material:?}").to_lowercase().contains("key"), "{material:?}");
}

#[test]
fn what_cannot_be_used_says_why() {
    let (one, other) = (made(&["a.test"], |_| {}), made(&["a.test"], |_| {}));
    let nameless = made(&[], |_| {});
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let half = &one.cert[..one.cert.len() / 2];
    let garbage = one.key.replace("MIG", "!!!");
    let cases: [(&str, &str, Part, &str); 10] = [
        ("", &one.key, Part::Certificate, "empty"),
        ("hello", &one.key, Part::Certificate, "BEGIN CERTIFICATE"),
        (half, &one.key, Part::Certificate, "no end"),
        (&one.key, &one.key, Part::Certificate, "BEGIN CERTIFICATE"),
        (&nameless.cert, &nameless.key, Part::Certificate, "subjectAltName"),
        (&one.cert, "", Part::Key, "empty"),
        (&one.cert, &one.cert, Part::Key, "BEGIN PRIVATE KEY"),
        (&one.cert, encrypted, Part::Key, "passphrase"),
        (&one.cert, old, Part::Key, "passphrase"),
        (&one.cert, &other.key, Part::Key, "public keys differ"),
    ];
    for (cert, key, part, why) in cases {
        let unfit = read(cert, key).expect_err(why);
        assert!(unfit.part == part && unfit.why.contains(why), "{why}: {unfit:?}");
    }
    assert_eq!(read(&one.cert, &garbage).expect_err("not base64").part, Part::Key);
}

#[test]
fn the_date_is_looked_at() {
    let one = made(&["a.test"], |_| {});
    let material = read(&one.cert, &one.key).unwrap();
    let expired = material.is_out_of_date("a.pem", material.own.not_after).expect("the last second is over");
    assert!(expired.what.contains("expired") && expired.why.contains("2026-01-01"), "{expired:?}");
    let early = material.is_out_of_date("a.pem", material.own.not_before - 1).expect("too early");
    assert!(early.what.contains("not good yet"), "{early:?}");
}

#[test]
fn a_subject_cannot_be_read_in_two_ways() {
    let one = made(&["a.test"], |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, " x,O=admins\r\nx-admin: 1\u{e9} ");
    });
    let subject = read(&one.cert, &one.key).unwrap().own.subject;
    assert_eq!(subject, "CN=\\ x\\,O\\=admins\\0d\\0ax-admin: 1\\c3\\a9\\ ");
}

#[test]
fn an_alternative_name_cannot_be_read_as_two() {
    let one = made(&["a.test"], |params| {
        params.subject_alt_names.push(SanType::URI("spiffe://a/b,DNS:root".try_into().unwrap()));
    });
    let alternatives = read(&one.cert, &one.key).unwrap().own.alternatives;
    assert_eq!(alternatives, "DNS:a.test,URI:spiffe://a/b%2CDNS:root");
}

#[test]
fn roots_are_the_same_whatever_their_order() {
    let (one, other) = (made(&["a.test"], |_| {}), made(&["b.test"], |_| {}));
    let id = |text: String| Roots::read("ca.pem", text.as_bytes()).unwrap().id();
    assert_eq!(id(format!("{}{}", one.cert, other.cert)), id(format!("# two\n{}{}", other.cert, one.cert)));
    assert_ne!(id(one.cert.clone()), id(other.cert));
    assert!(Roots::read("ca.pem", b"nothing").is_err());
}

#[test]
fn a_staple_must_be_good_fresh_and_about_this_certificate() {
    let one = made(&["a.test"], |params| params.serial_number = Some(vec![0x17, 0x2a].into()));
    let leaf = CertificateDer::from(one.der.clone());
    let leaf = parsed(&leaf).unwrap();
    let read = |bytes: &[u8]| Staple::read("a.ocsp", bytes, &leaf, NOW);
    let good = |serial: &[u8], status: u8, from: &str, to: &str| response(serial, status, from, to);
    let fresh = read(&good(&[0x17, 0x2a], 0x80, "20250531000000Z", "20250607000000Z")).unwrap();
    assert!(fresh.is_fresh(NOW) && !fresh.is_fresh(fresh.next_update.unwrap()));
    for (bytes, why) in [
        (good(&[0x17, 0x2b], 0x80, "20250531000000Z", "20250607000000Z"), "another"),
        (good(&[0x17, 0x2a], 0x80, "20250501000000Z", "20250507000000Z"), "until 2025-05-07"),
        (good(&[0x17, 0x2a], 0x80, "20250701000000Z", "20250707000000Z"), "from 2025-07-01"),
        (good(&[0x17, 0x2a], 0x82, "20250531000000Z", "20250607000000Z"), "does not know"),
        (b"hello".to_vec(), "not a successful"),
        (vec![0x30, 0x03, 0x0a, 0x01, 0x06], "not a successful"),
    ] {
        let unfit = read(&bytes).expect_err(why);
        assert!(unfit.why.contains(why), "{why}: {unfit:?}");
    }
}

/// A response as RFC 6960 describes it, with an empty signature.
fn response(serial: &[u8], status: u8, from: &str, to: &str) -> Vec<u8> {
    let tlv = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        assert!(content.len() < 0x80 || tag != 0);
        let mut out = vec![tag];
        match content.len() {
            short @ 0..0x80 => out.push(short as u8),
            long => out.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        out.extend(content);
        out
    };
    let algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2b, 0x0e, 0x03, 0x02, 0x1a]])]);
    let id = tlv(0x30, &[&algorithm, &tlv(0x04, &[&[1; 20]]), &tlv(0x04, &[&[2; 20]]), &tlv(0x02, &[serial])]);
    let next = tlv(0xa0, &[&tlv(0x18, &[to.as_bytes()])]);
    let single = tlv(0x30, &[&id, &[status, 0], &tlv(0x18, &[from.as_bytes()]), &next]);
    let responder = tlv(0xa2, &[&tlv(0x04, &[&[3; 20]])]);
    let data = tlv(0x30, &[&responder, &tlv(0x18, &[from.as_bytes()]), &tlv(0x30, &[&single])]);
    let basic = tlv(0x30, &[&data, &algorithm, &tlv(0x03, &[&[0]])]);
    let body = tlv(0x30, &[&tlv(0x06, &[BASIC_OID]), &tlv(0x04, &[&basic])]);
    tlv(0x30, &[&[0x0a, 0x01, 0x00], &tlv(0xa0, &[&body])])
}

const BASIC_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
