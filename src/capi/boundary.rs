//! Between C and Rust: pointer checks, conversions, the panic wall, and what
//! this thread's last failure was.
//!
//! Nothing here makes a Rust reference before the pointer behind it is known to
//! be neither null nor misaligned, and never are there two slices over one
//! memory of which one is mutable.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::status::{FMI_OK, fmi_status};
use super::version::FMI_TIMEOUT_NEVER;
use crate::communicator::Communicator;
use crate::descriptors::Generation;
use crate::error::{Error, ErrorKind, Result};

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// How many reduction functions of the user this thread is inside of.
    static IN_REDUCTION: Cell<u32> = const { Cell::new(0) };
}

/// The reference behind a handle, or the error that names the parameter.
macro_rules! handle {
    ($pointer:ident) => {
        $crate::capi::boundary::handle_named($pointer, stringify!($pointer))
    };
}

/// The place behind an output parameter, or the error that names it.
macro_rules! out {
    ($pointer:ident) => {
        $crate::capi::boundary::out_named($pointer, stringify!($pointer))
    };
}

/// A bytes slice from pointer and length; empty where the length is 0,
/// whatever the pointer is.
macro_rules! bytes {
    ($pointer:ident, $len:expr) => {
        $crate::capi::boundary::Span::new($pointer, $len, stringify!($pointer))
    };
}

/// The text behind a NUL-terminated string, or the error that names the
/// parameter.
macro_rules! text {
    ($pointer:ident) => {
        $crate::capi::boundary::text_named($pointer, stringify!($pointer))
    };
}

/// The function behind a pointer, or the error that names the parameter.
macro_rules! function {
    ($pointer:ident) => {
        $pointer.ok_or_else(|| {
            $crate::error::Error::new(
                $crate::error::ErrorKind::Null,
                // `fn` is a keyword: its parameter is a raw identifier.
                format!("parameter {} is NULL", stringify!($pointer).trim_start_matches("r#")),
            )
        })
    };
}

pub(super) use {bytes, function, handle, out, text};

/// Runs the body of a function that is no operation of a communicator: the
/// panic wall, and the refusal inside a reduction function.
pub(super) fn guarded(body: impl FnOnce() -> Result<()>) -> fmi_status {
    match walled(|| not_in_reduction().and_then(|()| body())) {
        Ok(()) => FMI_OK,
        Err(error) => fail(&error),
    }
}

/// As [`guarded`], for what may be asked also inside a reduction function.
pub(super) fn query(body: impl FnOnce() -> Result<()>) -> fmi_status {
    match walled(body) {
        Ok(()) => FMI_OK,
        Err(error) => fail(&error),
    }
}

/// What operations are called on: a communicator, or a channel by itself.
pub(super) trait Operated {
    /// The name of the parameter.
    const NAME: &'static str;

    /// Carries the operations out.
    ///
    /// # Errors
    /// Those of making it.
    fn communicator(&self) -> Result<&Communicator>;

    /// What the last call that failed returned.
    fn last_error(&self) -> &LastError;
}

/// The last error that a call on a handle returned.
pub(super) struct LastError {
    error: Mutex<Option<Error>>,
    generation: Generation,
}

impl LastError {
    pub(super) fn none() -> Self {
        Self { error: Mutex::new(None), generation: Generation::current() }
    }

    /// Keeps the error that a call is about to return.
    pub(super) fn note(&self, error: Error) {
        // A thread that a forked child has not may hold the lock for ever.
        if self.generation.check().is_ok() {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    pub(super) fn get(&self) -> Option<Error> {
        match self.generation.check() {
            Ok(()) => self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Err(error) => Some(error),
        }
    }
}

/// Runs the body of an operation. A failure becomes the handle's last error, a panic
/// poisons the communicator.
///
/// # Safety
/// `pointer` is null, misaligned (both are refused), or a live handle.
pub(super) unsafe fn on<T: Operated>(
    pointer: *const T,
    body: impl FnOnce(&Communicator) -> Result<()>,
) -> fmi_status {
    // SAFETY: the caller's promise.
    let handle = match unsafe { handle_named(pointer, T::NAME) } {
        Ok(handle) => handle,
        Err(error) => return fail(&error),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        not_in_reduction()?;
        let communicator = handle.communicator()?;
        communicator.check_process()?;
        body(communicator)
    }))
    .unwrap_or_else(|panic| {
        let error = panicked(panic.as_ref());
        // A second panic, in the poisoning itself, must not get out either.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if let Ok(communicator) = handle.communicator() {
                communicator.poison(error.clone());
            }
        }));
        Err(error)
    });
    match outcome {
        Ok(()) => FMI_OK,
        Err(error) => {
            let status = fail(&error);
            handle.last_error().note(error);
            status
        }
    }
}

/// Runs `body` and turns a panic into an error.
pub(super) fn walled<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown type");
    Error::new(ErrorKind::Internal, format!("a bug in FMI, please report it: panic: {text}"))
}

/// Makes `error` this thread's last failure and returns its status.
pub(super) fn fail(error: &Error) -> fmi_status {
    // Where thread-local storage is gone (a destructor at exit) the text is lost
    // and the status still tells.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = error.to_string();
        }
    });
    error.kind().status()
}

/// Gives this thread's last failure to `read`; the empty text where there is
/// none.
pub(super) fn with_last_error<T>(read: impl Fn(&str) -> T) -> T {
    LAST_ERROR
        .try_with(|last| last.try_borrow().map_or_else(|_| read(""), |last| read(&last)))
        .unwrap_or_else(|_| read(""))
}

/// Counts this thread as inside a reduction function while it lives.
pub(super) struct InReduction(());

impl InReduction {
    pub(super) fn enter() -> Self {
        let _ = IN_REDUCTION.try_with(|depth| depth.set(depth.get() + 1));
        Self(())
    }
}

impl Drop for InReduction {
    fn drop(&mut self) {
        let _ = IN_REDUCTION.try_with(|depth| depth.set(depth.get() - 1));
    }
}

/// The refusal where this thread is inside a reduction function.
///
/// # Errors
/// [`ErrorKind::Reentrant`].
pub(super) fn not_in_reduction() -> Result<()> {
    if IN_REDUCTION.try_with(Cell::get).unwrap_or(0) > 0 {
        return Err(Error::new(ErrorKind::Reentrant, "a reduction function called FMI, which it may not"));
    }
    Ok(())
}

fn check_pointer<T>(pointer: *const T, name: &'static str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::new(ErrorKind::Null, format!("parameter {name} is NULL")));
    }
    if !pointer.is_aligned() {
        return Err(Error::new(
            ErrorKind::Arg,
            format!("parameter {name} is misaligned: it is no pointer to what it should point to"),
        ));
    }
    Ok(())
}

/// See [`handle!`].
///
/// # Safety
/// `pointer` is null, misaligned, or points to a `T` that lives and is not
/// mutably borrowed for as long as the reference is used.
pub(super) unsafe fn handle_named<'a, T>(pointer: *const T, name: &'static str) -> Result<&'a T> {
    check_pointer(pointer, name)?;
    // SAFETY: not null, aligned; the rest is the caller's promise.
    Ok(unsafe { &*pointer })
}

/// A place that the caller wants filled.
pub(super) struct Out<T>(*mut T);

/// See [`out!`].
///
/// # Safety
/// `pointer` is null, misaligned, or valid for writes of a `T` until the
/// function returns.
pub(super) unsafe fn out_named<T>(pointer: *mut T, name: &'static str) -> Result<Out<T>> {
    check_pointer(pointer, name)?;
    Ok(Out(pointer))
}

impl<T> Out<T> {
    /// Fills the place, which may hold anything before.
    pub(super) fn set(&self, value: T) {
        // SAFETY: `out_named`'s caller promised that the place is valid for
        // writes.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// The place for a new handle: NULL until `set`, and so on failure.
    pub(super) fn cleared(self) -> Self {
        self.set(std::ptr::null_mut());
        self
    }
}

/// A caller's buffer whose pointer and length have been checked, but which is
/// no slice yet: two of them may overlap.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pointer: *const u8,
    len: usize,
}

impl Span {
    /// See [`bytes!`].
    pub(super) fn new<T>(pointer: *const T, len: usize, name: &'static str) -> Result<Self> {
        if len == 0 {
            return Ok(Self { pointer: std::ptr::NonNull::dangling().as_ptr(), len });
        }
        if pointer.is_null() {
            return Err(Error::new(ErrorKind::Null, format!("parameter {name} is NULL")));
        }
        if len > isize::MAX as usize || (pointer as usize).checked_add(len).is_none() {
            return Err(Error::new(
                ErrorKind::Arg,
                format!("parameter {name} has a length of {len} bytes, which no buffer can have"),
            ));
        }
        Ok(Self { pointer: pointer.cast(), len })
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    /// Whether `other` is exactly the part of this buffer at `offset`. Empty
    /// buffers are nowhere.
    pub(super) fn has_at(self, offset: usize, other: Self) -> bool {
        other.len > 0
            && offset.checked_add(other.len).is_some_and(|end| end <= self.len)
            && self.pointer as usize + offset == other.pointer as usize
    }

    /// Whether both buffers share a byte.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let (a, b) = (self.pointer as usize, other.pointer as usize);
        self.len > 0 && other.len > 0 && a < b + other.len && b < a + self.len
    }

    /// Refuses two buffers that share a byte.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`].
    pub(super) fn check_apart(self, other: Self, in_place: &str) -> Result<()> {
        if self.overlaps(other) {
            return Err(Error::new(ErrorKind::Arg, format!("parameters send and recv overlap{in_place}")));
        }
        Ok(())
    }

    /// # Safety
    /// The memory is valid for reads for `'a`, and nothing writes to it
    /// meanwhile.
    pub(super) unsafe fn as_slice<'a>(self) -> &'a [u8] {
        // SAFETY: checked in `new`: not null, at most isize::MAX bytes; bytes
        // have no alignment; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer, self.len) }
    }

    /// # Safety
    /// The memory is valid for reads and writes for `'a`, and nothing else
    /// reads or writes it meanwhile.
    pub(super) unsafe fn as_mut_slice<'a>(self) -> &'a mut [u8] {
        // SAFETY: as in `as_slice`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast_mut(), self.len) }
    }
}

/// `count` elements of `size` bytes, in bytes.
///
/// # Errors
/// [`ErrorKind::Arg`] where that overflows.
pub(super) fn length(count: usize, size: usize) -> Result<usize> {
    count.checked_mul(size).ok_or_else(|| {
        Error::new(ErrorKind::Arg, format!("{count} times {size} bytes is more than a buffer can have"))
    })
}

/// See [`text!`].
///
/// # Safety
/// `pointer` is null or points to a NUL-terminated string that stays unchanged
/// while the text is used.
pub(super) unsafe fn text_named<'a>(pointer: *const c_char, name: &'static str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(Error::new(ErrorKind::Null, format!("parameter {name} is NULL")));
    }
    // SAFETY: not null; NUL-terminated as the caller promised.
    let text = unsafe { CStr::from_ptr(pointer) };
    utf8(text.to_bytes(), name)
}

/// # Errors
/// [`ErrorKind::Arg`] where `bytes` is not UTF-8.
pub(super) fn utf8<'a>(bytes: &'a [u8], name: &'static str) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::Arg, format!("parameter {name} is not UTF-8: {error}")))
}

/// A timeout as C states it; `None` = never.
///
/// # Errors
/// [`ErrorKind::Arg`] for 0.
pub(super) fn timeout(milliseconds: u32) -> Result<Option<Duration>> {
    match milliseconds {
        0 => Err(Error::new(
            ErrorKind::Arg,
            "parameter timeout_ms is 0; for no limit ask with FMI_TIMEOUT_NEVER",
        )),
        FMI_TIMEOUT_NEVER => Ok(None),
        limited => Ok(Some(Duration::from_millis(limited.into()))),
    }
}

/// Copies `text` to a buffer of the caller as `snprintf` would: at most
/// `len - 1` bytes and a NUL. Returns the length of the whole text. Never
/// splits a character.
///
/// # Safety
/// `buf` is null or valid for writes of `len` bytes.
pub(super) unsafe fn copy_text(text: &str, buf: *mut c_char, len: usize) -> usize {
    if len > 0 && !buf.is_null() {
        let copied = text.floor_char_boundary(len - 1);
        // SAFETY: `copied` < `len`, and `buf` has `len` bytes; a text of ours
        // does not overlap a buffer of the caller's.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), copied);
            buf.add(copied).write(0);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use std::ptr::{null, null_mut};

    use super::*;
    use crate::capi::collective::fmi_barrier;
    use crate::capi::communicator::{fmi_comm, fmi_comm_create, fmi_comm_destroy};
    use crate::capi::error::fmi_last_error_message;
    use crate::capi::point_to_point::{fmi_recv, fmi_send};
    use crate::capi::status::{FMI_ERR_INTERNAL, FMI_ERR_POISONED};

    #[test]
    fn a_panic_stops_at_the_wall_and_poisons_the_communicator() {
        let config = cr#"{"backends":{"Memory":{"enabled":true}}}"#;
        let mut comm = null_mut();
        let mut text: [c_char; 200] = [0; 200];
        let (sent, mut received) = (7u8, 0u8);
        // SAFETY: the pointers are to live locals, and `comm` is live from its
        // creation to its destruction.
        unsafe {
            assert_eq!(fmi_comm_create(0, 1, config.as_ptr(), c"wall".as_ptr(), 0, &mut comm), FMI_OK);
            assert_eq!(on(comm, |_| panic!("on purpose")), FMI_ERR_INTERNAL);
            fmi_last_error_message(text.as_mut_ptr(), text.len());
            assert!(CStr::from_ptr(text.as_ptr()).to_str().unwrap().contains("on purpose"));
            assert_eq!(fmi_barrier(comm), FMI_ERR_POISONED);
            assert_eq!(fmi_send(comm, (&raw const sent).cast(), 1, 0), FMI_OK);
            assert_eq!(fmi_recv(comm, (&raw mut received).cast(), 1, 0), FMI_OK);
            fmi_comm_destroy(comm);
        }
        assert_eq!(received, sent);
        assert_eq!(guarded(|| panic!("on purpose")), FMI_ERR_INTERNAL);
        assert_eq!(query(|| panic!("on purpose")), FMI_ERR_INTERNAL);
        // SAFETY: a null handle is refused.
        assert_ne!(unsafe { on(null::<fmi_comm>(), |_| Ok(())) }, FMI_OK);
    }
}
