//! The futures that wait for requests. Each keeps its buffer borrowed while the
//! engine has a pointer to it, and cancels the request when it is dropped.
//!
//! They are not leaked: nothing in this crate forgets a future.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Core;
use crate::engine::{Envelope, Received, RecvKey, Selector, SendKey, Withdrawal};
use crate::error::Result;

/// Waits until the last byte of a message is with the link.
pub(crate) struct SendFuture<'a> {
    core: &'a RefCell<Core>,
    key: Option<SendKey>,
    buffer: PhantomData<&'a [u8]>,
}

/// Waits for a message.
pub(crate) struct RecvFuture<'a> {
    core: &'a RefCell<Core>,
    key: Option<RecvKey>,
    buffer: PhantomData<&'a mut [u8]>,
}

impl<'a> SendFuture<'a> {
    /// Starts sending.
    pub(crate) fn start(core: &'a RefCell<Core>, peer: u32, envelope: Envelope, data: &'a [u8]) -> Self {
        let key = core.borrow_mut().post_send(peer, envelope, data.as_ptr(), data.len());
        Self { core, key: Some(key), buffer: PhantomData }
    }

    /// Withdraws the message; `true` = too late, it counts as sent.
    pub(crate) fn withdraw(mut self) -> bool {
        match self.key.take() {
            None => true,
            Some(key) => self.core.borrow_mut().engine.cancel_send(key) == Withdrawal::Sent,
        }
    }
}

impl<'a> RecvFuture<'a> {
    /// Starts receiving from `source`; `None` = from anyone.
    pub(crate) fn start(
        core: &'a RefCell<Core>,
        source: Option<u32>,
        selector: Selector,
        buffer: &'a mut [u8],
    ) -> Self {
        let key = core.borrow_mut().post_recv(source, selector, buffer.as_mut_ptr(), buffer.len());
        Self { core, key: Some(key), buffer: PhantomData }
    }
}

impl Future for SendFuture<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("polled after its end");
        let result = self.core.borrow_mut().engine.poll_send(key);
        if result.is_ready() {
            self.key = None;
        }
        result
    }
}

impl Future for RecvFuture<'_> {
    type Output = Result<Received>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("polled after its end");
        let result = self.core.borrow_mut().engine.poll_recv(key);
        if result.is_ready() {
            self.key = None;
        }
        result
    }
}

impl Drop for SendFuture<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.borrow_mut().engine.cancel_send(key);
        }
    }
}

impl Drop for RecvFuture<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.borrow_mut().engine.cancel_recv(key);
        }
    }
}
