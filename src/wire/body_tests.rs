use proptest::prelude::*;

use super::*;

/// What one body is, read naively from all its bytes at once: its length on the wire and its payload.
/// `Ok(None)`: not complete.
fn reference(bytes: &[u8]) -> Result<Option<(usize, u64)>, ()> {
    let mut at = 0;
    let mut data = 0;
    let line = |at: usize| -> Result<Option<&[u8]>, ()> {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0x00..=0x08 | 0x0b..=0x1f | 0x7f));
        match end {
            None => Ok(None),
            Some(end) if rest[end] != b'\r' => Err(()),
            Some(end) if rest.len() == end + 1 => Ok(None),
            Some(end) if rest[end + 1] == b'\n' => Ok(Some(&rest[..end])),
            Some(_) => Err(()),
        }
    };
    loop {
        let Some(size_line) = line(at)? else { return Ok(None) };
        let digits = size_line.split(|byte| *byte == b';').next().unwrap();
        let text = std::str::from_utf8(digits).map_err(|_| ())?;
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let size = u64::from_str_radix(text, 16).map_err(|_| ())?;
        if size > i64::MAX as u64 {
            return Err(());
        }
        at += size_line.len() + 2;
        if size == 0 {
            break;
        }
        let Some(end) =
            usize::try_from(size).ok().and_then(|size| at.checked_add(size)).filter(|end| end + 2 <= bytes.len())
        else {
            return Ok(None);
        };
        if &bytes[end..end + 2] != b"\r\n" {
            return Err(());
        }
        data += size;
        at = end + 2;
    }
    loop {
        let Some(field) = line(at)? else { return Ok(None) };
        at += field.len() + 2;
        if field.is_empty() {
            return Ok(Some((at, data)));
        }
        let colon = field.iter().position(|byte| *byte == b':').ok_or(())?;
        let name = &field[..colon];
        let forbidden = ["content-length", "transfer-encoding", "host"];
        if !crate::wire::token::is_token(name) || forbidden.iter().any(|bad| name.eq_ignore_ascii_case(bad.as_bytes()))
        {
            return Err(());
        }
    }
}

/// Admitted bytes, payload, and whether the body ended, over pieces of this size.
fn follow(bytes: &[u8], piece: usize) -> Result<(usize, u64, bool), BadChunk> {
    let mut body = BodyTracker::new(RequestBody::Chunked);
    let mut admitted = 0;
    for part in bytes.chunks(piece) {
        let taken = body.admit(part)?;
        admitted += taken;
        if taken < part.len() {
            assert!(body.is_done());
            assert_eq!(body.admit(&part[taken..]), Ok(0), "nothing more after the end");
            break;
        }
    }
    Ok((admitted, body.data_bytes(), body.is_done()))
}

#[test]
fn a_length_is_counted_to_its_last_byte() {
    let mut body = BodyTracker::new(RequestBody::Length(5));
    assert_eq!((body.admit(b"hel"), body.is_done()), (Ok(3), false));
    assert_eq!((body.admit(b"loGET / HTTP/1.1"), body.is_done(), body.data_bytes()), (Ok(2), true, 5));
    let mut none = BodyTracker::new(RequestBody::None);
    assert!(none.is_done());
    assert_eq!(none.admit(b"GET"), Ok(0));
}

#[test]
fn good_chunked_bodies_end_where_they_end_at_any_split() {
    let bodies: &[(&str, u64)] = &[
        ("0\r\n\r\n", 0),
        ("5\r\nhello\r\n0\r\n\r\n", 5),
        ("05\r\nhello\r\n1;a=\"b\";c\r\n!\r\n000\r\n\r\n", 6),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0;last\r\n\r\n", 20),
        ("1\r\nx\r\n0\r\nx-sum: 1\r\nhost-name: ok\r\nx:\r\n\r\n", 1),
        ("2\r\n\r\n\r\n0\r\n\r\n", 2),
        ("0000000000000001\r\nx\r\n0\r\n\r\n", 1),
    ];
    for (body, data) in bodies {
        let sent = format!("{body}GET /hidden HTTP/1.1\r\n");
        for piece in 1..=sent.len() {
            assert_eq!(follow(sent.as_bytes(), piece), Ok((body.len(), *data, true)), "{body:?} by {piece}");
        }
    }
}

#[test]
fn framing_with_two_readings_is_refused_at_any_split() {
    let bodies = [
        "\r\n\r\n",
        ";ext\r\n\r\n",
        "5\r\nhello\r\n\r\n\r\n",
        "5\r\nhello\r\n;x\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "g\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nx : y\r\n\r\n",
        "0\r\n x: y\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\nx: y\r\n z\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer-ENCODING: chunked\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
    ];
    for body in bodies {
        for piece in 1..=body.len() {
            assert!(follow(body.as_bytes(), piece).is_err(), "{body:?} by {piece}");
        }
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(4095));
    assert!(follow(extension.as_bytes(), 7).is_ok());
    let extension = format!("1;{}\r\nx\r\n1;\r\nx\r\n0\r\n\r\n", "e".repeat(4095));
    assert!(follow(extension.as_bytes(), 7).is_err(), "over all chunks together");
    assert!(follow(format!("0\r\n{}\r\n", "x: y\r\n".repeat(64)).as_bytes(), 7).is_ok());
    assert!(follow(format!("0\r\n{}\r\n", "x: y\r\n".repeat(65)).as_bytes(), 7).is_err());
    assert!(follow(format!("0\r\nx: {}\r\n\r\n", "y".repeat(16 * 1024)).as_bytes(), 4096).is_err());
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "0",
        "1",
        "5",
        "a",
        "F",
        "\r\n",
        "\r",
        "\n",
        ";",
        "x",
        "x: y\r\n",
        "hello",
        "5\r\nhello\r\n",
        "0\r\n",
        "0\r\n\r\n",
        " ",
        "1\r\nz\r\n",
        "Host: a\r\n",
        "\0",
        ";a=b",
        "7fffffffffffffff",
        "3\r\n\r\n0\r\n",
    ]);
    let noise = prop::collection::vec(pieces, 0..16).prop_map(|pieces| pieces.concat());
    let good = prop::collection::vec("[a-z\r\n0]{1,20}", 0..5)
        .prop_map(|chunks| chunks.iter().map(|data| format!("{:x}\r\n{data}\r\n", data.len())).collect::<String>());
    (good, noise).prop_map(|(good, noise)| (good + &noise).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn never_a_byte_beyond_the_end_and_never_a_second_reading(bytes in hostile(), piece in 1usize..40) {
        let followed = follow(&bytes, piece);
        match reference(&bytes) {
            Ok(Some((len, data))) => prop_assert_eq!(followed, Ok((len, data, true))),
            Ok(None) => if let Ok((admitted, _, done)) = followed {
                prop_assert!(!done && admitted == bytes.len());
            },
            Err(()) => prop_assert!(!matches!(followed, Ok((_, _, true))), "{:?}", followed),
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..20) {
        let _ = follow(&bytes, piece);
    }
}
