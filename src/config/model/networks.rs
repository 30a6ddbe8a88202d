//! Networks of addresses, and whether an address is in one of them.
//!
//! Networks are kept as written, for people, and as sorted ranges that neither overlap nor touch, for the question: a
//! list of 65 536 is answered in sixteen comparisons. An IPv4 address that comes in IPv6 clothes (`::ffff:192.0.2.1`) is
//! the IPv4 address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// A list of networks; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Networks(Option<Arc<Lists>>);

#[derive(Debug)]
struct Lists {
    written: Box<[IpNet]>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last address of each, sorted.
type Ranges<T> = Box<[(T, T)]>;

impl Networks {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Networks {
        let written: Box<[IpNet]> = networks.into_iter().collect();
        if written.is_empty() {
            return Networks(None);
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &written {
            match network {
                IpNet::V4(network) => v4.push((u32::from(network.network()), u32::from(network.broadcast()))),
                IpNet::V6(network) => v6.push((u128::from(network.network()), u128::from(network.broadcast()))),
            }
        }
        let lists =
            Lists { v4: joined(v4, |last| last.checked_add(1)), v6: joined(v6, |last| last.checked_add(1)), written };
        Networks(Some(Arc::new(lists)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// As written.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter().flat_map(|lists| lists.written.iter())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let Some(lists) = &self.0 else { return false };
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&lists.v4, u32::from(address)),
            IpAddr::V6(address) => is_within(&lists.v6, u128::from(address)),
        }
    }
}

impl PartialEq for Networks {
    fn eq(&self, other: &Networks) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.written == other.written,
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Networks {}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Networks {
        Networks::new(networks)
    }
}

/// Sorted, and none overlaps or touches the next. `after`: the address behind the last of a range, if there is one.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Ranges<T> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            // Nothing lies behind the last address of all.
            Some((_, end)) if after(*end).is_none_or(|next| first <= next) => *end = (*end).max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined.into()
}

fn is_within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        let list = networks(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "0.0.0.0/32", "255.255.255.255/32"]);
        for (address, within) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("0.0.0.0", true),
            ("255.255.255.255", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            // IPv4 in other clothes.
            ("::ffff:10.1.2.3", true),
            ("::ffff:11.1.2.3", false),
            ("::10.1.2.3", false),
        ] {
            assert_eq!(list.contains(address.parse().expect("an address")), within, "{address}");
        }
        assert!(!Networks::default().contains(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(networks(&["::/0"]).contains(IpAddr::V6(Ipv6Addr::from(u128::MAX))));
        assert!(!networks(&["::/0"]).contains(IpAddr::V4(Ipv4Addr::LOCALHOST)), "the families are apart");
    }

    #[test]
    fn ranges_are_joined_where_they_touch() {
        let list = networks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "0.0.0.0/1", "128.0.0.0/1"]);
        let lists = list.0.expect("it is not empty");
        assert_eq!(*lists.v4, [(0, u32::MAX)]);
        assert_eq!(lists.written.len(), 5);
    }

    fn network() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            // Near each other, so that they overlap and touch.
            (0..64_u8, 0..=32_u8)
                .prop_map(|(low, prefix)| IpNet::new([10, 0, 0, low * 4].into(), prefix).expect("it is")),
            (any::<u32>(), 0..=32_u8).prop_map(|(ip, len)| IpNet::new(Ipv4Addr::from(ip).into(), len).expect("it is")),
            (any::<u128>(), 0..=128_u8)
                .prop_map(|(ip, len)| IpNet::new(Ipv6Addr::from(ip).into(), len).expect("it is")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_fast_answer_is_the_naive_one(
            list in prop::collection::vec(network(), 0..12), far in any::<u32>(), far6 in any::<u128>(), low in any::<u8>(),
        ) {
            let fast = Networks::new(list.clone());
            let mut asked: Vec<IpAddr> = vec![
                Ipv4Addr::from(far).into(), Ipv6Addr::from(far6).into(), [10, 0, 0, low].into(), [10, 0, 1, low].into(),
            ];
            // The edges of each network, and what lies just beyond them.
            for network in &list {
                match network {
                    IpNet::V4(network) => {
                        let (first, last) = (u32::from(network.network()), u32::from(network.broadcast()));
                        let around = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                        asked.extend(around.map(|ip| IpAddr::from(Ipv4Addr::from(ip))));
                    }
                    IpNet::V6(network) => {
                        let (first, last) = (u128::from(network.network()), u128::from(network.broadcast()));
                        let around = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                        asked.extend(around.map(|ip| IpAddr::from(Ipv6Addr::from(ip))));
                    }
                }
            }
            for address in asked {
                let address = address.to_canonical();
                let naive = list.iter().any(|network| network.contains(&address));
                prop_assert_eq!(fast.contains(address), naive, "{} in {:?}", address, list);
            }
        }
    }
}
