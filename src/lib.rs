//! FMI, the FaaS Message Interface: MPI-style message passing for serverless
//! functions and anything else that can open a socket.
//!
//! N processes each know their rank and the size of the job; a
//! [`Communicator`] moves their data. See `README.md` for the C API and the
//! `fmi` command, `ARCHITECTURE.md` for the parts.

#[cfg(not(target_os = "linux"))]
compile_error!("FMI runs on Linux");

mod channel;
mod collective;
mod communicator;
mod config;
mod datatype;
mod descriptors;
mod endpoint;
mod engine;
mod error;
mod link;
mod log;
#[allow(dead_code, reason = "for the choice of the channel, which is to come")]
mod model;
mod op;
mod operation;
mod poison;
mod policy;
mod proof;
pub mod rendezvous;
mod scratch;

#[cfg(feature = "capi")]
mod capi;

pub use channel::custom::{CustomChannel, Family};
pub use collective::{Collective, GatherBuffers, ReduceBuffers, Reduction, ScatterBuffers};
pub use communicator::{Channel, Communicator, Hint};
pub use config::{Config, WaitMode};
pub use datatype::{ALL_DATATYPES, Datatype, Element};
pub use error::{ALL_KINDS, Error, ErrorKind, Result};
pub use log::LogLevel;
pub use op::{BuiltinOp, CallbackFailure, Op, Order, UserFunction};
pub use operation::Operation;
