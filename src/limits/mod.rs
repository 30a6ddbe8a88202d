//! How much one client may have at once, and how often it may ask.
//!
//! A limit of this kind holds over all data threads, so they share its table. The table is cut into shards that are
//! locked for the few nanoseconds of one look-up; two threads meet only when they ask of the same shard at the same moment.
//! What has no limit has no table, and costs a comparison. See docs/decisions/0020-limits-per-client.md.

pub mod per_client;
mod rate;
mod refusals;
mod shards;
mod table;

use std::net::IpAddr;

pub use per_client::{Entered, PerClient};
pub use rate::{Rates, TooEarly};
pub use refusals::{Refusal, Refusals};
pub use table::{Limits, OfService};

/// A client as limits see it: an IPv4 address, or the /64 of an IPv6 address, of which one household has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Who(u64);

impl Who {
    pub fn of(address: IpAddr) -> Who {
        match address.to_canonical() {
            // No IPv6 client is in ::/32, where these lie.
            IpAddr::V4(address) => Who(u64::from(u32::from(address))),
            IpAddr::V6(address) => Who((u128::from(address) >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network() {
        let who = |text: &str| Who::of(text.parse().expect("an address"));
        assert_eq!(who("2001:db8:1:2::1"), who("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(who("2001:db8:1:2::1"), who("2001:db8:1:3::1"));
        assert_eq!(who("192.0.2.1"), who("::ffff:192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
    }
}
