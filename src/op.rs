//! Reduction operations: the built-in ones, and the user's.

use std::fmt;
use std::sync::Arc;

use crate::datatype::Datatype;
use crate::error::{Error, ErrorKind, Result};

/// The built-in operations. The numbers are those of the C API's `fmi_op`:
/// fixed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum BuiltinOp {
    /// Sum; of integers modulo 2^bits.
    Sum = 1,
    /// Product; of integers modulo 2^bits.
    Prod = 2,
    /// Minimum; NaN wins.
    Min = 3,
    /// Maximum; NaN wins.
    Max = 4,
    /// Logical and of integers: 0 or 1.
    Land = 5,
    /// Logical or of integers: 0 or 1.
    Lor = 6,
    /// Logical exclusive or of integers: 0 or 1.
    Lxor = 7,
    /// Bitwise and, of integers and bytes.
    Band = 8,
    /// Bitwise or, of integers and bytes.
    Bor = 9,
    /// Bitwise exclusive or, of integers and bytes.
    Bxor = 10,
}

/// In which order an operation allows its operands to be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Associative and commutative: any fixed schedule.
    Any,
    /// Associative only: operands in the order of ranks, any bracketing.
    Ranked,
    /// Not associative: strict left fold by rank, `((x0 . x1) . x2) ...`.
    Strict,
}

/// What a user's reduction says when it fails: any non-zero number of its own.
pub type CallbackFailure = i32;

/// The function of a user's operation: `inout = inout . input` for `count`
/// elements of `datatype`. Both slices have the same length and are aligned to
/// 16 bytes.
pub type UserFunction =
    dyn Fn(&mut [u8], &[u8], usize, Datatype) -> std::result::Result<(), CallbackFailure> + Send + Sync;

/// An operation supplied by the user.
pub struct UserOp {
    pub(crate) function: Box<UserFunction>,
    pub(crate) commutative: bool,
    pub(crate) associative: bool,
    /// `Some(bytes)` where the function works element by element, on elements
    /// of that size: only then may a buffer be split.
    pub(crate) elementwise: Option<usize>,
}

/// A reduction operation.
#[derive(Clone)]
pub enum Op {
    /// One of the built-in operations: element-wise, associative, commutative.
    Builtin(BuiltinOp),
    /// The user's.
    User(Arc<UserOp>),
}

impl Op {
    /// Sum; of integers modulo 2^bits.
    pub const SUM: Self = Self::Builtin(BuiltinOp::Sum);
    /// Product; of integers modulo 2^bits.
    pub const PROD: Self = Self::Builtin(BuiltinOp::Prod);
    /// Minimum; NaN wins.
    pub const MIN: Self = Self::Builtin(BuiltinOp::Min);
    /// Maximum; NaN wins.
    pub const MAX: Self = Self::Builtin(BuiltinOp::Max);
}
