//! The two smallest grammars of HTTP: tokens and comma-separated lists. RFC 9110 sections 5.6.1 and 5.6.2.

/// Letters, digits and these, by byte: each byte of a name is asked about.
pub(super) const fn alphanumeric_or(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

const TCHARS: [bool; 256] = alphanumeric_or(b"!#$%&'*+-.^_`|~");

/// Whether this byte may stand in a method, a field name or a list member that is a token.
pub fn is_tchar(byte: u8) -> bool {
    TCHARS[usize::from(byte)]
}

pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

/// The members of a comma-separated list, trimmed; empty members are left out, as a recipient must.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Decimal digits and nothing else, in 63 bits: above that no two programs agree.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (value <= i64::MAX as u64).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_ignore_empty_members_and_spaces() {
        let members: Vec<_> = list(b" a,, b\t,c d,").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c d"]);
    }

    #[test]
    fn a_length_is_digits_only_and_fits() {
        for (text, value) in [("0", Some(0)), ("007", Some(7)), ("9223372036854775807", Some(i64::MAX as u64))] {
            assert_eq!(decimal(text.as_bytes()), value, "{text}");
        }
        for text in ["", "+5", "-1", "5 ", "0x5", "5,5", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}
