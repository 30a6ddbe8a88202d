use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 5, target_bytes: 40 };

fn fields(of: &[(&'static str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in of {
        fields.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a field value"));
    }
    fields
}

fn ask(method: &str, uri: &str, of: &[(&'static str, &str)], ended: bool) -> Result<Head2, u16> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let uri: Uri = uri.parse().expect("a URI");
    check(&method, &uri, &fields(of), ended, &LIMITS).map_err(|refusal| refusal.status)
}

#[test]
fn the_host_is_said_once_and_is_one() {
    let host = |uri, of: &[(&'static str, &str)]| ask("GET", uri, of, true).map(|head| head.host);
    assert_eq!(host("http://shop.test/a", &[]).unwrap(), "shop.test");
    assert_eq!(host("http://shop.test:80/a", &[("host", "SHOP.test:80")]).unwrap(), "shop.test:80");
    assert_eq!(host("/a", &[("host", "shop.test")]).unwrap(), "shop.test");
    assert_eq!(host("http://[::1]:80/", &[]).unwrap(), "[::1]:80");
    for (uri, of) in [
        ("/a", &[][..]),
        ("http://shop.test/a", &[("host", "other.test")]),
        ("http://shop.test/a", &[("host", "shop.test:80")]),
        ("http://shop.test/a", &[("host", "")]),
        ("http://user@shop.test/a", &[]),
        ("http://shop.test:port/a", &[]),
        ("/a", &[("host", "a b")]),
        ("/a", &[("host", "")]),
        ("/a", &[("host", "shop.test"), ("host", "shop.test")]),
    ] {
        let Ok(_) = uri.parse::<Uri>() else { continue };
        assert_eq!(host(uri, of), Err(400), "{uri} {of:?}");
    }
}

#[test]
fn the_body_is_what_the_length_says() {
    let body = |of: &[(&'static str, &str)], ended| ask("POST", "http://a/", of, ended).map(|head| head.body);
    assert_eq!(body(&[], true), Ok(RequestBody::None));
    assert_eq!(body(&[], false), Ok(RequestBody::Chunked));
    assert_eq!(body(&[("content-length", "0")], true), Ok(RequestBody::None));
    assert_eq!(body(&[("content-length", "5")], false), Ok(RequestBody::Length(5)));
    for of in [
        &[("content-length", "5")][..],
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "5, 5")],
        &[("content-length", "+5")],
        &[("content-length", "")],
    ] {
        assert_eq!(body(of, true), Err(400), "{of:?}");
    }
    for of in [&[("content-length", "5"), ("content-length", "6")][..], &[("content-length", "0x5")]] {
        assert_eq!(body(of, false), Err(400), "{of:?}");
    }
}

#[test]
fn the_target_is_a_path_within_bounds() {
    assert!(ask("GET", "http://a/x?y=z", &[], true).is_ok());
    assert!(ask("OPTIONS", "*", &[("host", "a")], true).is_ok());
    for (method, uri, status) in [
        ("GET", "*", 400),
        ("CONNECT", "http://a/", 405),
        ("GET", "http://a/0123456789012345678901234567890123456789", 414),
        ("GET", "http://a/\u{e4}", 400),
        ("GET", "ftp://a/", 400),
    ] {
        assert_eq!(ask(method, uri, &[("host", "a")], true), Err(status), "{method} {uri}");
    }
}

#[test]
fn fields_are_counted_and_have_no_spaces_around_them() {
    let six = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1"), ("f", "1")];
    assert_eq!(ask("GET", "http://a/", &six, true), Err(431));
    assert!(ask("GET", "http://a/", &six[1..], true).is_ok());
    for value in [" x", "x ", "\tx", "x\t", " "] {
        assert_eq!(ask("GET", "http://a/", &[("a", value)], true), Err(400), "{value:?}");
    }
    assert_eq!(ask("POST", "http://a/", &[("expect", "magic")], true), Err(417));
    assert!(ask("POST", "http://a/", &[("expect", "100-Continue")], false).unwrap().expect_continue);
}

#[test]
fn cookies_become_one_field() {
    let mut fields = fields(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
    join_cookies(&mut fields);
    assert_eq!(fields.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    fields.remove("cookie");
    join_cookies(&mut fields);
    assert!(!fields.contains_key("cookie"));
}
