//! Protocol 1, that of TCPunch, as a server sees it: clients are paired by
//! name. Without sockets and without a clock.
//!
//! ```text
//! client                                   server
//! name, 1 to 100 bytes               ->
//!                                    <-    the client's public endpoint
//!                                    <-    its partner's, once one has come; the end
//! ```
//!
//! An endpoint is an IPv4 address, a port, both in network order, and two
//! bytes of padding. A name has neither length nor terminator, but a client
//! sends it by one call, so that it is one segment on every network (IPv4's
//! least maximum is 536 bytes), and then waits for the answer. So a name is at
//! its end when nothing has come for [`QUIET`]; what comes later all the same
//! still belongs to it, unless it has found its partner.
//!
//! A name pairs two clients, and is free again from that moment: the third who
//! says it is a new first. Nothing is authenticated.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::registry::ConnectionId;

/// The longest name.
const MAX_NAME: usize = 100;
/// The silence after which a name is at its end. A second segment that the
/// client's kernel has made comes right behind the first; more would delay
/// every pair.
pub(crate) const QUIET: Duration = Duration::from_millis(10);
/// Bytes of an endpoint on the wire.
const ENDPOINT: usize = 8;

/// A client, and its name as far as it has come.
pub(crate) struct Caller {
    public: SocketAddrV4,
    name: Vec<u8>,
    /// Whether it has been told its own endpoint.
    answered: bool,
}

/// The name is longer than any client sends; what came is something else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The clients that wait for their partners, by name.
#[derive(Default)]
pub(crate) struct Waiting {
    first: HashMap<Vec<u8>, (ConnectionId, SocketAddrV4)>,
}

/// What a client whose name is at its end is to be sent, and whom it found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// The partner, and the bytes for it; both connections are to be closed.
    pub(crate) partner: Option<(ConnectionId, [u8; ENDPOINT])>,
}

impl Caller {
    /// `public` is where the server sees the client.
    pub(crate) fn new(public: SocketAddrV4) -> Self {
        Self { public, name: Vec::new(), answered: false }
    }

    /// Takes what the client sent. If it is among those that wait, let
    /// [`Waiting::withdraw`] go before.
    ///
    /// # Errors
    ///
    /// [`TooLong`]: the connection is to be closed.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.name.len() + bytes.len() > MAX_NAME {
            return Err(TooLong);
        }
        self.name.extend_from_slice(bytes);
        Ok(())
    }
}

impl Waiting {
    /// The name of `connection` is at its end: it finds its partner, or waits.
    pub(crate) fn enter(&mut self, connection: ConnectionId, caller: &mut Caller) -> Answer {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut caller.answered, true) {
            bytes.extend_from_slice(&endpoint(caller.public));
        }
        let partner = match self.first.remove(&caller.name) {
            Some((partner, public)) => {
                bytes.extend_from_slice(&endpoint(public));
                Some((partner, endpoint(caller.public)))
            }
            None => {
                self.first.insert(caller.name.clone(), (connection, caller.public));
                None
            }
        };
        Answer { bytes, partner }
    }

    /// `connection` waits no more, if it did.
    pub(crate) fn withdraw(&mut self, connection: ConnectionId, caller: &Caller) {
        if self.first.get(&caller.name).is_some_and(|(first, _)| *first == connection) {
            self.first.remove(&caller.name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }
}

fn endpoint(address: SocketAddrV4) -> [u8; ENDPOINT] {
    let mut bytes = [0; ENDPOINT];
    bytes[..4].copy_from_slice(&address.ip().octets());
    bytes[4..6].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(port: u16, name: &[u8]) -> Caller {
        let mut caller = Caller::new(SocketAddrV4::new([192, 0, 2, 7].into(), port));
        caller.receive(name).unwrap();
        caller
    }

    #[test]
    fn an_endpoint_is_address_port_and_padding() {
        assert_eq!(endpoint("192.0.2.7:258".parse().unwrap()), [192, 0, 2, 7, 1, 2, 0, 0]);
    }

    #[test]
    fn the_second_of_a_name_is_paired_with_the_first_and_the_third_is_a_first() {
        let mut waiting = Waiting::default();
        let mut callers: Vec<_> = (1..=4).map(|port| caller(port, b"name")).collect();
        let mut enter = |index: usize| waiting.enter(index as u64, &mut callers[index]);
        let told = |port: u8| [192, 0, 2, 7, 0, port, 0, 0];
        assert_eq!(enter(0), Answer { bytes: told(1).into(), partner: None });
        assert_eq!(enter(1), Answer { bytes: [told(2), told(1)].concat(), partner: Some((0, told(2))) });
        assert_eq!(enter(2).partner, None);
        assert_eq!(enter(3).partner, Some((2, told(4))));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn who_has_gone_is_nobodys_partner() {
        let mut waiting = Waiting::default();
        let (mut gone, mut first) = (caller(1, b"name"), caller(2, b"name"));
        waiting.enter(1, &mut gone);
        waiting.withdraw(1, &gone);
        assert_eq!(waiting.enter(2, &mut first).partner, None);
        waiting.withdraw(1, &gone);
        assert_eq!(waiting.len(), 1, "only its own entry");
    }

    #[test]
    fn what_comes_late_belongs_to_the_name_and_is_answered_once() {
        let mut waiting = Waiting::default();
        let (mut slow, mut other) = (caller(1, b"job0"), caller(2, b"job0_1"));
        waiting.enter(1, &mut slow);
        waiting.withdraw(1, &slow);
        slow.receive(b"_1").unwrap();
        assert_eq!(waiting.enter(1, &mut slow), Answer { bytes: Vec::new(), partner: None });
        assert_eq!(waiting.enter(2, &mut other).partner.map(|(partner, _)| partner), Some(1));
    }

    #[test]
    fn a_name_has_at_most_100_bytes() {
        let mut caller = caller(1, &[b'n'; 60]);
        assert_eq!(caller.receive(&[b'n'; 40]), Ok(()));
        assert_eq!(caller.receive(b"n"), Err(TooLong));
    }

    proptest! {
        /// Whoever comes, goes or says more: only clients that wait under
        /// equal names are paired, and nothing is left when all have gone.
        #[test]
        fn pairs_have_equal_names(
            steps in proptest::collection::vec((0usize..8, 0u8..4, proptest::collection::vec(0u8..2, 1..3)), 0..200),
        ) {
            let mut waiting = Waiting::default();
            let mut callers: Vec<_> = (0..8).map(|_| None::<Caller>).collect();
            let mut waits = [false; 8];
            for (index, what, bytes) in steps {
                match (&mut callers[index], what) {
                    (place @ None, _) => *place = Some(caller(index as u16, &bytes)),
                    (Some(caller), 0) => {
                        waiting.withdraw(index as u64, caller);
                        waits[index] = false;
                        callers[index] = None;
                    }
                    (Some(caller), 1) => {
                        waiting.withdraw(index as u64, caller);
                        waits[index] = false;
                        if caller.receive(&bytes) == Err(TooLong) {
                            callers[index] = None;
                        }
                    }
                    (Some(caller), _) if !waits[index] => {
                        let name = caller.name.clone();
                        let partner = waiting.enter(index as u64, caller).partner;
                        let expected =
                            (0..8).find(|other| waits[*other] && callers[*other].as_ref().is_some_and(|c| c.name == name));
                        prop_assert_eq!(partner.map(|(partner, _)| partner as usize), expected);
                        match expected {
                            Some(partner) => {
                                waits[partner] = false;
                                callers[partner] = None;
                                callers[index] = None;
                            }
                            None => waits[index] = true,
                        }
                    }
                    _ => {}
                }
            }
            for (index, caller) in callers.iter().enumerate() {
                if let Some(caller) = caller {
                    waiting.withdraw(index as u64, caller);
                }
            }
            prop_assert_eq!(waiting.len(), 0);
        }
    }
}
