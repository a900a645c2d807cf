//! Rendezvous: how the ranks of a job find each other.
//!
//! A rank joins its job at the rendezvous server, names the peers it wants a
//! link to, and is told their addresses when both sides are ready. The server
//! carries no payload. The protocol (`protocol`) and both of its sides (the
//! `client` and the server's `registry`) own neither sockets nor a clock, nor
//! does the older protocol that the server also speaks (`tcpunch`); the
//! `server` puts them on the network.

#[cfg(feature = "cli")]
mod allowance;
pub(crate) mod client;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the server's half of the codec"))]
pub(crate) mod protocol;
#[cfg(feature = "cli")]
mod registry;
#[cfg(feature = "cli")]
mod server;
#[cfg(feature = "cli")]
mod session;
#[cfg(feature = "cli")]
mod tcpunch;

#[cfg(feature = "cli")]
pub use server::{Server, ServerOptions, ServerThread};
