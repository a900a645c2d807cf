//! Messages between two ranks.

use zerocopy::IntoBytes;

use super::{Carrier, Communicator, Route};
use crate::datatype::Element;
use crate::endpoint::Deadline;
use crate::error::Result;
use crate::operation::Operation;

impl Communicator {
    /// Sends `buffer` to `dest`. Returns when the buffer may be reused, which
    /// may be before `dest` has received.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn send<T: Element>(&self, buffer: &[T], dest: u32) -> Result<()> {
        let data = buffer.as_bytes();
        self.point_to_point(Operation::Send, dest, |route, deadline| match &route.carrier {
            Carrier::Endpoint(endpoint) => endpoint.send(data, dest, deadline),
            Carrier::Custom(custom) => custom.send(data, dest, &self.limits(deadline)),
        })
    }

    /// Receives exactly `buffer.len()` elements from `src`. Messages of one rank
    /// arrive in the order in which they were sent.
    ///
    /// # Errors
    /// [`ErrorKind::SizeMismatch`](crate::ErrorKind::SizeMismatch) if the message is
    /// longer or shorter; it is used up, and the next one is received as it should
    /// be. After [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) the message is
    /// still to come: the call may be repeated. See the [type](Self#errors).
    pub fn recv<T: Element>(&self, buffer: &mut [T], src: u32) -> Result<()> {
        let buffer = buffer.as_mut_bytes();
        self.point_to_point(Operation::Recv, src, |route, deadline| match &route.carrier {
            Carrier::Endpoint(endpoint) => endpoint.recv(buffer, src, deadline),
            Carrier::Custom(custom) => custom.recv(buffer, src, &self.limits(deadline)),
        })
    }

    /// Sends to `dest` and receives from `src` at once.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`recv`](Self::recv).
    pub fn sendrecv<T: Element>(&self, send: &[T], dest: u32, recv: &mut [T], src: u32) -> Result<()> {
        let (data, buffer) = (send.as_bytes(), recv.as_mut_bytes());
        self.point_to_point(Operation::Sendrecv, dest.max(src), |route, deadline| match &route.carrier {
            Carrier::Endpoint(endpoint) => endpoint.sendrecv(data, dest, buffer, src, deadline),
            Carrier::Custom(custom) => custom.sendrecv(data, dest, buffer, src, &self.limits(deadline)),
        })
    }

    fn point_to_point(
        &self,
        operation: Operation,
        peer: u32,
        body: impl FnOnce(&Route, &mut Deadline) -> Result<()>,
    ) -> Result<()> {
        let run = || {
            self.check_rank(peer)?;
            let route = self.choose()?;
            self.over(&route, |deadline| body(&route, deadline))
        };
        self.keep_error(operation, run())
    }
}
