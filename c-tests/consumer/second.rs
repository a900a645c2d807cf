//! Somebody else's static library in Rust: with the standard library's allocator, threads, formatting and
//! unwinding in it, as in FMI's.

use std::ffi::{CString, c_char};
use std::panic::{catch_unwind, resume_unwind};
use std::thread;

/// `add` is the C program's.
unsafe extern "C" {
    fn add(a: i32, b: i32) -> i32;
}

/// The sum of 1 to `n`, by as many threads; -1 if one of them panicked.
#[unsafe(no_mangle)]
pub extern "C" fn second_sum(n: i32) -> i32 {
    let threads: Vec<_> = (1..=n).map(|i| thread::spawn(move || i)).collect();
    // SAFETY: the program defines it, for all integers.
    threads.into_iter().map(|thread| thread.join().unwrap_or(-1)).fold(0, |a, b| unsafe { add(a, b) })
}

/// 1 if an unwinding that began in this library was caught in it.
#[unsafe(no_mangle)]
pub extern "C" fn second_catches() -> i32 {
    catch_unwind(|| resume_unwind(Box::new("caught"))).is_err().into()
}

/// A text that [`second_free`] frees.
#[unsafe(no_mangle)]
pub extern "C" fn second_text(number: i32) -> *mut c_char {
    CString::new(format!("number {number}")).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// # Safety
/// The text is one of [`second_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_free(text: *mut c_char) {
    // SAFETY: what the caller promises.
    drop(unsafe { CString::from_raw(text) });
}
