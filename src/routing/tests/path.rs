use std::borrow::Cow;

use proptest::prelude::*;

use crate::routing::path::{PathProblem, normalise};

/// What the path means when read by hand: decode, cut at slashes, walk. `None`: above the root.
fn walk(path: &str) -> Option<(Vec<String>, bool)> {
    let mut stack = Vec::new();
    let mut folder = false;
    for segment in path.split('/').skip(1) {
        let text = decode(segment);
        folder = matches!(text.as_str(), "" | "." | "..");
        match text.as_str() {
            "" | "." => {}
            ".." => drop(stack.pop()?),
            _ => stack.push(text),
        }
    }
    Some((stack, folder))
}

fn decode(segment: &str) -> String {
    let mut out = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at(2);
            out.push(u8::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("hex"));
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        ".",
        "..",
        "a",
        "B",
        "%2e",
        "%2E",
        "%41",
        "%7e",
        "%c3%a9",
        "é",
        ";",
        "%3b",
        "%20",
        "%25",
        "{",
        "@",
        "%2f",
        "%5C",
        "%00",
        "%c0%ae",
        "%C0%AF",
        "%e0%80%ae",
        "%1f",
        "\\",
        " ",
        "%",
        "%4",
        "#",
        "\u{1}",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_normal_form_is_its_own_normal_form_and_means_the_same(path in paths()) {
        match normalise(&path) {
            Ok(normal) => {
                prop_assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)), "{}", path);
                prop_assert_eq!(walk(&path), walk(&normal), "{} -> {}", path, normal);
                prop_assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()), "{}", normal);
                prop_assert!(!normal.contains("//") && !normal.contains("/./") && !normal.contains("/../"));
            }
            Err(PathProblem::AboveRoot) => prop_assert_eq!(walk(&path), None, "{}", path),
            Err(PathProblem::NotAbsolute) => prop_assert!(false, "{} begins with a slash", path),
            Err(PathProblem::Ambiguous) => {
                let lower = path.to_lowercase();
                let hidden = ["%2f", "%5c", "%00", "%1f", ".;", ".%3b", "%2e;", "%2e%3b", "%c0%", "%e0%80"];
                prop_assert!(hidden.iter().any(|part| lower.contains(part)), "{}", path);
            }
            Err(PathProblem::Parameters) => prop_assert!(false, "only a table says that"),
            Err(PathProblem::BadEscape) => prop_assert!(path.contains('%'), "{}", path),
            Err(PathProblem::BadCharacter) => {
                prop_assert!(path.contains(['\\', ' ', '#', '\u{1}']), "{}", path);
            }
        }
    }

    #[test]
    fn no_input_panics(path in "\\PC{0,40}") {
        let _ = normalise(&path);
        let _ = crate::routing::host::normalise(path.as_bytes());
        prop_assert_eq!(crate::routing::StickyCookie::parse(&path), None);
    }
}

/// How software behind a proxy reads a path: it must not come to a place that another route guards.
mod endpoints {
    use proptest::prelude::*;

    use crate::routing::matcher::RequestView;
    use crate::routing::path::{PathProblem, normalise};
    use crate::routing::table::Table;
    use crate::routing::tests::table;

    /// The route of a path in normal form.
    fn request(table: &Table, path: &str) -> Result<String, PathProblem> {
        let (method, headers) = (http::Method::GET, http::HeaderMap::new());
        let view = RequestView { method: &method, host: "", path, query: None, headers: &headers };
        let route = table.route_path(&view)?.expect("every path has a route");
        Ok(table.route_at(route).route.name.to_string())
    }

    fn byte(escape: &[u8]) -> Option<u8> {
        let digits = std::str::from_utf8(escape.get(1..3)?).ok()?;
        u8::from_str_radix(digits, 16).ok()
    }

    fn decode(path: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < path.len() {
            match byte(&path[at..]).filter(|_| path[at] == b'%') {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(path[at]);
                    at += 1;
                }
            }
        }
        out
    }

    /// Overlong sequences as the character that they stand for, as old decoders did.
    fn lenient_utf8(path: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < path.len() {
            let rest = &path[at..];
            let (character, taken) = match *rest {
                [0xc0..=0xc1, two, ..] => (u32::from(rest[0] & 0x1f) << 6 | u32::from(two & 0x3f), 2),
                [0xe0, two, three, ..] => (u32::from(two & 0x3f) << 6 | u32::from(three & 0x3f), 3),
                [0xf0, two, three, four, ..] => {
                    (u32::from(two & 0x3f) << 12 | u32::from(three & 0x3f) << 6 | u32::from(four & 0x3f), 4)
                }
                _ => (u32::from(rest[0]), 1),
            };
            match u8::try_from(character) {
                Ok(byte) => out.push(byte),
                Err(_) => out.extend(&rest[..taken]),
            }
            at += taken;
        }
        out
    }

    /// Walks dot segments and merges slashes; nothing above the root.
    fn walk(path: &[u8], separators: &[u8]) -> Vec<Vec<u8>> {
        let mut stack: Vec<Vec<u8>> = Vec::new();
        for segment in path.split(|byte| separators.contains(byte)) {
            match segment {
                b"" | b"." => {}
                b".." => drop(stack.pop()),
                _ => stack.push(segment.to_vec()),
            }
        }
        stack
    }

    fn cut_parameters(path: &[u8]) -> Vec<u8> {
        let bare = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
        path.split(|byte| *byte == b'/').map(bare).collect::<Vec<_>>().join(&b'/')
    }

    /// Each with its name: the segments that it serves.
    fn readings(path: &str) -> Vec<(&'static str, Vec<Vec<u8>>)> {
        let raw = path.as_bytes();
        let until_nul = |path: Vec<u8>| path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        vec![
            ("as it is", raw.split(|byte| *byte == b'/').skip(1).map(<[u8]>::to_vec).collect()),
            ("walks, does not decode", walk(raw, b"/")),
            ("nginx: decodes, merges, walks", walk(&decode(raw), b"/")),
            ("walks, then decodes", walk(raw, b"/").iter().map(|segment| decode(segment)).collect()),
            ("Tomcat: cuts parameters, decodes, walks", walk(&decode(&cut_parameters(raw)), b"/")),
            ("decodes, cuts parameters, walks", walk(&cut_parameters(&decode(raw)), b"/")),
            ("walks, then cuts parameters", walk(&cut_parameters(&walk(raw, b"/").join(&b'/')), b"/")),
            ("Windows: backslashes are slashes", walk(&decode(raw), b"/\\")),
            ("C: ends at a zero byte", walk(&until_nul(decode(raw)), b"/")),
            ("decodes overlong UTF-8", walk(&lenient_utf8(&decode(raw)), b"/")),
        ]
    }

    fn spellings() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/",
            "/",
            "/",
            "/",
            "admin",
            "admin",
            "adm",
            "in",
            "x",
            ".",
            "..",
            ";",
            ";y=1",
            "%3b",
            "%3B",
            "%2e",
            "%2E%2e",
            "%61dmin",
            "adm%69n",
            "%41",
            "%2f",
            "%5c",
            "\\",
            "%00",
            "%c0%ae",
            "%c0%af",
            "%e0%80%af",
            "%20",
            "?",
            "%3f",
            "%23",
            "@",
            "%25",
            "%252e",
        ]);
        prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn nothing_that_goes_to_the_open_route_is_read_as_the_guarded_one(spelling in spellings()) {
            let table = table("* /* -> open\n* /admin* -> guarded");
            let path = spelling.split('?').next().unwrap_or_default();
            let Ok(normal) = normalise(path) else { return Ok(()) };
            let Ok(route) = request(&table, &normal) else { return Ok(()) };
            if route == "open" {
                // What was matched is what is forwarded.
                for (who, segments) in readings(&normal) {
                    prop_assert!(segments.first().is_none_or(|first| first != b"admin"), "{} is read as guarded by: {}", path, who);
                }
            }
        }
    }

    /// The property can fail: without the second reading it does.
    #[test]
    fn a_servlet_container_reads_parameters_away() {
        let read = readings("/admin;x=1/users");
        assert!(read.iter().any(|(who, segments)| who.starts_with("Tomcat") && segments[0] == b"admin"));
        let table = table("* /* -> open\n* /admin* -> guarded\n* /shop* -> shop");
        for (path, route) in [
            ("/admin;x=1/users", Err(())),
            ("/;/admin", Err(())),
            ("/admin%3Bx", Err(())),
            ("/admin/users;x=1", Ok("guarded")),
            ("/shop/cart;jsessionid=1", Ok("shop")),
            ("/x;admin", Ok("open")),
        ] {
            assert_eq!(request(&table, path).map_err(|_| ()).as_deref(), route.as_deref(), "{path}");
        }
    }
}
