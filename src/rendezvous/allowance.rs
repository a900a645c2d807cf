//! What a server remembers for ranks that have not proved a secret: counted in
//! bytes, by where they come from, so that nobody can fill its memory. Ranks
//! that have proved one are known to belong together, and are not counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The most for one source. A job of 1,024 ranks behind one address, all of
/// which want all others at once, takes two thirds of it.
const PER_SOURCE: usize = 32 << 20;
/// The most for all of them.
const IN_ALL: usize = 256 << 20;

/// Who is counted as one: an address, or for IPv6 the /64 that a host can
/// choose its addresses from.
pub(crate) fn source_of(peer: SocketAddr) -> IpAddr {
    match peer.ip() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// What each source has taken.
pub(crate) struct Allowances {
    taken: HashMap<IpAddr, usize>,
    in_all: usize,
    per_source_limit: usize,
    limit: usize,
}

impl Default for Allowances {
    fn default() -> Self {
        Self::new(PER_SOURCE, IN_ALL)
    }
}

impl Allowances {
    pub(crate) fn new(per_source_limit: usize, limit: usize) -> Self {
        Self { taken: HashMap::new(), in_all: 0, per_source_limit, limit }
    }

    /// Takes `bytes` for `source`; false if that is too much.
    pub(crate) fn take(&mut self, source: IpAddr, bytes: usize) -> bool {
        let taken = self.taken.get(&source).copied().unwrap_or(0);
        if taken + bytes > self.per_source_limit || self.in_all + bytes > self.limit {
            return false;
        }
        if bytes > 0 {
            self.taken.insert(source, taken + bytes);
            self.in_all += bytes;
        }
        true
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, source: IpAddr, bytes: usize) {
        let Some(taken) = self.taken.get_mut(&source) else {
            debug_assert_eq!(bytes, 0, "only what was taken");
            return;
        };
        debug_assert!(*taken >= bytes && self.in_all >= bytes, "only what was taken");
        *taken -= bytes;
        self.in_all -= bytes;
        if *taken == 0 {
            self.taken.remove(&source);
        }
    }

    /// How many bytes are taken, by all.
    #[cfg(test)]
    pub(crate) fn in_all(&self) -> usize {
        self.in_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_all_together_have_a_limit() {
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let mut allowances = Allowances::new(10, 15);
        assert!(allowances.take(a, 10) && !allowances.take(a, 1));
        assert!(allowances.take(b, 5) && !allowances.take(c, 1));
        allowances.give_back(a, 3);
        assert!(!allowances.take(c, 4) && allowances.take(c, 3));
        for (source, bytes) in [(a, 7), (b, 5), (c, 3)] {
            allowances.give_back(source, bytes);
        }
        assert!(allowances.in_all() == 0 && allowances.taken.is_empty());
    }

    #[test]
    fn a_source_of_ipv6_is_a_network() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::2]:2"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
    }
}
