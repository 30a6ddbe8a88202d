//! What the first bytes of an answer say, before anybody reads it as HTTP.

/// Version and status; `d` is a digit.
const SHAPE: &[u8; 12] = b"HTTP/1.d ddd";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed.
    Short,
    /// It begins as an answer with a status below 500 does.
    Fine,
    /// It has a status from 500 on, or is no answer at all.
    Failed,
}

pub fn opening(bytes: &[u8]) -> Opening {
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if !bytes.iter().zip(SHAPE).all(fits) {
        return Opening::Failed;
    }
    match bytes.get(..SHAPE.len()) {
        None => Opening::Short,
        Some([.., b'1'..=b'4', _, _]) => Opening::Fine,
        Some(_) => Opening::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_enough() {
        for (bytes, wanted) in [
            ("", Opening::Short),
            ("H", Opening::Short),
            ("HTTP/1.1 20", Opening::Short),
            ("HTTP/1.1 50", Opening::Short),
            ("HTTP/1.1 200", Opening::Fine),
            ("HTTP/1.0 404 Not Found\r\n", Opening::Fine),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", Opening::Fine),
            ("HTTP/1.1 304\r\n", Opening::Fine),
            ("HTTP/1.1 500", Opening::Failed),
            ("HTTP/1.1 503 Service Unavailable\r\n", Opening::Failed),
            ("HTTP/1.1 999", Opening::Failed),
            ("HTTP/1.1 000", Opening::Failed),
            ("HTTP/2.0 200", Opening::Failed),
            ("HTTP/1.1  200", Opening::Failed),
            ("HTTP/1.1 2x", Opening::Failed),
            ("http/1.1 200", Opening::Failed),
            ("\r\nHTTP/1.1 200", Opening::Failed),
            ("SSH-2.0-OpenSSH_9", Opening::Failed),
        ] {
            assert_eq!(opening(bytes.as_bytes()), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn more_bytes_never_change_a_verdict() {
        for text in ["HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody", "HTTP/1.1 503 No\r\n\r\n", "garbage of some length"] {
            let verdicts: Vec<Opening> = (0..=text.len()).map(|end| opening(&text.as_bytes()[..end])).collect();
            let known = verdicts.iter().skip_while(|it| **it == Opening::Short);
            assert!(known.clone().all(|it| *it == *verdicts.last().unwrap()), "{verdicts:?}");
        }
    }
}
