//! How long an endpoint says that it keeps its connection while nothing passes: the field Keep-Alive, as servers write it
//! (RFC 2068 section 19.7.1.1).

/// `timeout=5, max=100`: the seconds. What is not that says nothing.
pub fn timeout_of(field: &[u8]) -> Option<u32> {
    field.split(|byte| *byte == b',').find_map(|parameter| {
        let parameter = std::str::from_utf8(parameter).ok()?.trim();
        let (name, value) = parameter.split_once('=')?;
        if !name.trim_end().eq_ignore_ascii_case("timeout") {
            return None;
        }
        let value = value.trim().trim_matches('"');
        value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_seconds_are_a_time() {
        for (field, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100,Timeout = 60", Some(60)),
            ("timeout=\"7\"", Some(7)),
            ("timeout=0", Some(0)),
            ("timeout=-1", None),
            ("timeout=1.5", None),
            ("timeout=99999999999999999999", None),
            ("timeout=", None),
            ("timeout", None),
            ("300", None),
            ("", None),
        ] {
            assert_eq!(timeout_of(field.as_bytes()), seconds, "{field}");
        }
        assert_eq!(timeout_of(b"timeout=\xff"), None);
    }
}
