//! The signature of what webhooks are sent, so that they know who asks and when.
//!
//! `x-switchback-signature: t=SECONDS,v1=HEX`, where HEX is HMAC-SHA256 (RFC 2104) of `SECONDS.BODY` by the shared
//! secret. The time is part of it, so that an old request cannot be sent again by somebody else; whoever checks it
//! compares `t` with its own clock.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::hex;

pub const SIGNATURE: &str = "x-switchback-signature";
/// The same for every attempt of one delivery.
pub const DELIVERY: &str = "x-switchback-delivery";

pub fn signature(key: &str, unix_secs: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(unix_secs.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_secs},v1={}", hex(&mac.finalize().into_bytes()))
}

/// A name that no other delivery has.
pub fn delivery_id() -> String {
    let mut random = [0; 16];
    // Without randomness the id is only less unique; nothing depends on it.
    let _ = getrandom::fill(&mut random);
    hex(&random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_says() {
        // printf '1795600800.{"point":"before_stage"}' | openssl dgst -sha256 -hmac s3cr3t
        assert_eq!(
            signature("s3cr3t", 1_795_600_800, br#"{"point":"before_stage"}"#),
            "t=1795600800,v1=e1fd310293211a8c07f68493521d293c44aae6c5c85554a62cd6c8e166790b84"
        );
    }

    #[test]
    fn ids_differ() {
        let (one, other) = (delivery_id(), delivery_id());
        assert!(one.len() == 32 && one != other, "{one} {other}");
    }
}
