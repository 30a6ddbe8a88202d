//! The few hash functions whose values are part of the contract: they decide which clients are on which
//! version, on every instance and over restarts, so they are written out here and never change.

/// Finaliser of splitmix64: every input bit moves every output bit.
pub(crate) const fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `turn`th number of the splitmix64 stream that `salt` names.
pub(crate) const fn stream(salt: u64, turn: u64) -> u64 {
    mix64(salt.wrapping_add(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

pub(crate) const fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        at += 1;
    }
    hash
}

/// A random 64-bit number scaled to `0..below`, without division.
pub(crate) const fn scale(random: u64, below: u64) -> u64 {
    ((random as u128 * below as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_values_of_both_functions_hold() {
        assert_eq!(fnv1a64(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_F739_67E8);
        assert_eq!(stream(0, 1), 0xE220_A839_7B1D_CDAF);
        assert_eq!(stream(0, 2), 0x6E78_9E6A_A1B9_65F4);
    }
}
