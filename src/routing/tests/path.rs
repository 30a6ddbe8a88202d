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
        "/", "/", "/", ".", "..", "a", "B", "%2e", "%2E", "%41", "%7e", "%c3%a9", "é", ";", "%3b", "%20", "%25", "{",
        "@", "%2f", "%5C", "%00", "%1f", "\\", " ", "%", "%4", "#", "\u{1}",
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
                let hidden = ["%2f", "%5c", "%00", "%1f", ".;", ".%3b", "%2e;", "%2e%3b"];
                prop_assert!(hidden.iter().any(|part| lower.contains(part)), "{}", path);
            }
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
