//! The C API: what stands in `include/fmi.h`, one file per section of it.
//!
//! No logic lives here. Every function checks its pointers, converts, calls
//! the Rust API and maps the error; [`boundary`] has the means for that. The
//! documentation of the items is the documentation of the header: it is
//! written for the reader of C.

// cbindgen takes only `pub` items, and the linker exports them whatever their
// module is.
#![allow(unreachable_pub)]
// The names are those of C.
#![allow(non_camel_case_types)]

mod boundary;
mod channel;
mod channel_operations;
mod collective;
mod communicator;
#[allow(dead_code, reason = "constants of the header")]
mod config;
mod custom_channel;
#[allow(dead_code, reason = "constants of the header")]
mod datatype;
#[allow(dead_code, reason = "constants of the header")]
mod error;
mod op;
mod point_to_point;
#[allow(dead_code, reason = "constants of the header")]
mod status;
mod version;

#[cfg(test)]
mod tests;
