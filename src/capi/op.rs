//! Reduction operations.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use super::boundary::{InReduction, function, guarded, not_in_reduction, out, query};
use super::config::Context;
use super::datatype::fmi_datatype;
use super::status::fmi_status;
use crate::datatype::Datatype;
use crate::error::{Error, ErrorKind, Result};
use crate::op::{BuiltinOp, Op};

/// A reduction operation: one of the constants from FMI_SUM to FMI_BXOR, or
/// what fmi_op_create() gave. Built-in ones are less than 256; the numbers are
/// fixed and never reused. 0 and negative numbers are no operations.
///
/// Integer sum and product wrap; minimum and maximum propagate NaN; the logical
/// operations are for integers and give 0 or 1; the bitwise ones are for
/// integers and FMI_BYTE. What is not defined for a type is FMI_ERR_ARG.
pub type fmi_op = i32;

/// Sum.
pub const FMI_SUM: fmi_op = 1;
/// Product.
pub const FMI_PROD: fmi_op = 2;
/// Minimum.
pub const FMI_MIN: fmi_op = 3;
/// Maximum.
pub const FMI_MAX: fmi_op = 4;
/// Logical and, of integers: 0 or 1.
pub const FMI_LAND: fmi_op = 5;
/// Logical or, of integers: 0 or 1.
pub const FMI_LOR: fmi_op = 6;
/// Logical exclusive or, of integers: 0 or 1.
pub const FMI_LXOR: fmi_op = 7;
/// Bitwise and, of integers and bytes.
pub const FMI_BAND: fmi_op = 8;
/// Bitwise or, of integers and bytes.
pub const FMI_BOR: fmi_op = 9;
/// Bitwise exclusive or, of integers and bytes.
pub const FMI_BXOR: fmi_op = 10;

/// Flag of fmi_op_create(): a . b equals b . a.
pub const FMI_OP_COMMUTATIVE: u32 = 1;
/// Flag of fmi_op_create(): (a . b) . c equals a . (b . c). Without it the
/// operands are combined strictly from left to right by rank.
pub const FMI_OP_ASSOCIATIVE: u32 = 2;
/// Flag of fmi_op_create(): the function treats every element alike and apart
/// from the others, so that it may be given pieces of a buffer. Without it, it
/// is given whole buffers only.
pub const FMI_OP_ELEMENTWISE: u32 = 4;

/// A reduction function: inout = inout . in for `count` elements of `type`.
///
/// Both buffers are aligned to 16 bytes (copied if need be) and do not overlap.
/// It runs on the thread that called the collective, during that call. It may
/// not call FMI, except to ask for rank, size, version and errors
/// (FMI_ERR_REENTRANT), and may not unwind (throw) or longjmp out.
///
/// @param user   what fmi_op_create() was given.
/// @param inout  the left operand (of the lower ranks), to be replaced by the result.
/// @param in     the right operand.
/// @param count  the number of elements of `type` in each.
/// @param type   what the collective was given.
/// @return 0; anything else = failed: the collective returns FMI_ERR_CALLBACK.
pub type fmi_reduce_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        inout: *mut c_void,
        r#in: *const c_void,
        count: usize,
        r#type: fmi_datatype,
    ) -> i32,
>;

/// Frees what a callback works on. Called exactly once, when FMI needs it no
/// more, also when the call that was given it fails; on any thread that is
/// inside an FMI call. May not unwind (throw).
///
/// @param user  what was registered with it.
pub type fmi_drop_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The operations that are alive. Handles count upwards and come round again
/// only after 2^31 - 256 creations: a handle is its own generation.
struct Table {
    ops: BTreeMap<fmi_op, Op>,
    next: fmi_op,
}

const FIRST_CREATED: fmi_op = 256;

static TABLE: RwLock<Table> = RwLock::new(Table { ops: BTreeMap::new(), next: FIRST_CREATED });

/// Keeps the table locked while its process forks: a child gets it whole, and
/// free, whatever other threads of the parent were about to do with it.
struct ForkLock(UnsafeCell<Option<RwLockWriteGuard<'static, Table>>>);

// SAFETY: the cell is touched only by the thread that holds the lock.
unsafe impl Sync for ForkLock {}

static FORK_LOCK: ForkLock = ForkLock(UnsafeCell::new(None));
static FORK_LOCK_IS_USED: AtomicBool = AtomicBool::new(false);

impl ForkLock {
    /// Has forks take it from now on.
    ///
    /// # Errors
    /// [`ErrorKind::NoMem`].
    fn use_once() -> Result<()> {
        // No lock: a child of another thread's fork would find it taken for ever.
        if FORK_LOCK_IS_USED.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the handlers only take and free a lock that nobody holds for
        // long, and that no thread holds while it calls what could fork.
        if unsafe { libc::pthread_atfork(Some(Self::lock), Some(Self::free), Some(Self::free)) } != 0 {
            FORK_LOCK_IS_USED.store(false, Ordering::Relaxed);
            return Err(Error::new(ErrorKind::NoMem, "there is no memory for a fork handler"));
        }
        Ok(())
    }

    extern "C" fn lock() {
        let table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this thread holds the lock.
        unsafe { *FORK_LOCK.0.get() = Some(table) };
    }

    extern "C" fn free() {
        // SAFETY: this thread holds the lock, or is the copy of the one that does.
        drop(unsafe { (*FORK_LOCK.0.get()).take() });
    }
}

impl Table {
    fn insert(&mut self, op: Op) -> fmi_op {
        while self.ops.contains_key(&self.next) {
            self.advance();
        }
        let handle = self.next;
        self.ops.insert(handle, op);
        self.advance();
        handle
    }

    fn advance(&mut self) {
        self.next = self.next.checked_add(1).unwrap_or(FIRST_CREATED);
    }
}

/// The operation behind a handle. The caller holds a reference to it: one that
/// is destroyed during a call lives until the end of the call.
///
/// # Errors
/// [`ErrorKind::Arg`] where there is none (any more).
pub(super) fn resolve(handle: fmi_op) -> Result<Op> {
    Ok(Op::Builtin(match handle {
        FMI_SUM => BuiltinOp::Sum,
        FMI_PROD => BuiltinOp::Prod,
        FMI_MIN => BuiltinOp::Min,
        FMI_MAX => BuiltinOp::Max,
        FMI_LAND => BuiltinOp::Land,
        FMI_LOR => BuiltinOp::Lor,
        FMI_LXOR => BuiltinOp::Lxor,
        FMI_BAND => BuiltinOp::Band,
        FMI_BOR => BuiltinOp::Bor,
        FMI_BXOR => BuiltinOp::Bxor,
        _ => {
            let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
            return table.ops.get(&handle).cloned().ok_or_else(|| no_operation(handle));
        }
    }))
}

fn no_operation(handle: fmi_op) -> Error {
    let why = if handle >= FIRST_CREATED { ", or one that was destroyed" } else { "" };
    Error::new(ErrorKind::Arg, format!("parameter op is {handle}, which is no operation{why}"))
}

/// Makes a reduction operation of your own. It belongs to the process: every
/// communicator and every thread may use it. A process forked later has a copy of
/// its own.
///
/// @param fn            the function; see fmi_reduce_fn.
/// @param user          passed to fn and drop.
/// @param drop          called with user exactly once: after fmi_op_destroy() when the last call that
///                      uses the operation has ended, or before this function returns if it fails; may
///                      be NULL.
/// @param flags         FMI_OP_COMMUTATIVE, FMI_OP_ASSOCIATIVE and FMI_OP_ELEMENTWISE, or-ed: what
///                      FMI may rely on. 0 is always right, and slowest.
/// @param element_size  with FMI_OP_ELEMENTWISE, the size of one element in bytes, where it is not
///                      that of the datatype: pieces of a buffer then begin and end at its multiples,
///                      and a buffer whose length is no multiple is FMI_ERR_ARG. 0 = that of the
///                      datatype. Without FMI_OP_ELEMENTWISE it is ignored.
/// @param out           the operation, to be freed with fmi_op_destroy(); 0 on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG for unknown flags; FMI_ERR_NOMEM; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_op_create(
    r#fn: fmi_reduce_fn,
    user: *mut c_void,
    drop: fmi_drop_fn,
    flags: u32,
    element_size: usize,
    out: *mut fmi_op,
) -> fmi_status {
    // First of all, so that whatever happens from here on drops it once.
    let context = Context::new(user, drop);
    query(move || {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?;
        out.set(0);
        not_in_reduction()?;
        let function = function!(r#fn)?;
        if flags & !(FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE) != 0 {
            return Err(Error::new(ErrorKind::Arg, format!("parameter flags has unknown bits: {flags:#x}")));
        }
        ForkLock::use_once()?;
        let call = move |inout: &mut [u8], input: &mut [u8], count: usize, datatype: Datatype| {
            let _inside = InReduction::enter();
            // SAFETY: the user's function, on buffers that hold `count` elements each.
            let failure = unsafe {
                function(
                    context.user(),
                    inout.as_mut_ptr().cast(),
                    input.as_mut_ptr().cast_const().cast(),
                    count,
                    datatype as fmi_datatype,
                )
            };
            if failure == 0 { Ok(()) } else { Err(failure) }
        };
        let op = Op::scribbling(
            call,
            flags & FMI_OP_COMMUTATIVE != 0,
            flags & FMI_OP_ASSOCIATIVE != 0,
            (flags & FMI_OP_ELEMENTWISE != 0).then_some(element_size),
        );
        out.set(TABLE.write().unwrap_or_else(PoisonError::into_inner).insert(op));
        Ok(())
    })
}

/// Gives an operation back. A call in another thread that uses it goes on
/// undisturbed; afterwards the number is no operation any more.
///
/// @param op  what fmi_op_create() gave.
/// @return FMI_OK; FMI_ERR_ARG where it is none, is destroyed already, or is built in;
///         FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub extern "C" fn fmi_op_destroy(op: fmi_op) -> fmi_status {
    guarded(|| {
        // The lock is free again when the user's drop function runs: that may make operations.
        let removed = TABLE.write().unwrap_or_else(PoisonError::into_inner).ops.remove(&op);
        removed.map(drop).ok_or_else(|| match resolve(op) {
            Ok(_) => Error::new(ErrorKind::Arg, format!("parameter op is {op}, which is built in")),
            Err(error) => error,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_round_and_skip_those_alive() {
        let mut table = Table { ops: BTreeMap::new(), next: fmi_op::MAX };
        assert_eq!(table.insert(Op::SUM), fmi_op::MAX);
        assert_eq!(table.insert(Op::SUM), FIRST_CREATED);
        table.next = fmi_op::MAX;
        assert_eq!(table.insert(Op::SUM), FIRST_CREATED + 1);
    }
}
