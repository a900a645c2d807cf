//! Configuration objects, and the callbacks that stand in them.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::boundary::{
    bytes, fail, function, guarded, handle, not_in_reduction, out, query, text, utf8, walled,
};
use super::op::fmi_drop_fn;
use super::status::fmi_status;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLevel;

/// A configuration: what a file, the environment and the program say. See
/// fmi_config_create().
///
/// What the program sets wins over the environment, that over what was loaded,
/// that over the defaults, whatever the order of calls. An unknown key is a
/// warning that names it. Several threads may use one configuration at once.
pub struct fmi_config {
    config: Mutex<Config>,
}

/// Log level: nothing.
pub const FMI_LOG_OFF: i32 = 0;
/// Log level: what made a call fail.
pub const FMI_LOG_ERROR: i32 = 1;
/// Log level: also what is odd, such as an unknown configuration key.
pub const FMI_LOG_WARN: i32 = 2;
/// Log level: also one line per event: joined, linked, left.
pub const FMI_LOG_INFO: i32 = 3;
/// Log level: everything of interest to somebody who looks for a fault.
pub const FMI_LOG_DEBUG: i32 = 4;

/// What a callback of the user's works on: frees it when it is dropped.
pub(super) struct Context {
    user: *mut c_void,
    drop: fmi_drop_fn,
}

// SAFETY: FMI only hands the pointer back. The header says that callbacks and
// their drop functions run on whichever thread is inside the call.
unsafe impl Send for Context {}
// SAFETY: as above; one operation may be used by several threads at once, which
// the header says too.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn new(user: *mut c_void, drop: fmi_drop_fn) -> Self {
        Self { user, drop }
    }

    /// A method, so that a closure captures the whole and not the pointer alone.
    pub(super) fn user(&self) -> *mut c_void {
        self.user
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the user's function with the user's pointer, once.
            unsafe { drop(self.user) }
        }
    }
}

impl fmi_config {
    /// Waits for other threads. No code of the user's runs while it is locked, so
    /// that no thread waits for itself.
    fn lock(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn snapshot(&self) -> Config {
        self.lock().clone()
    }

    /// Changes the configuration. What the change replaces is dropped with the
    /// lock free again, since that may call back.
    fn change(&self, change: impl FnOnce(&mut Config) -> Result<()>) -> Result<()> {
        let before;
        let outcome;
        {
            let mut config = self.lock();
            before = config.clone();
            outcome = change(&mut config);
        }
        drop(before);
        outcome
    }
}

/// Makes a configuration of defaults and environment.
///
/// @param out  the configuration, to be freed with fmi_config_destroy(); NULL on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_create(out: *mut *mut fmi_config) -> fmi_status {
    query(|| {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        out.set(Box::into_raw(Box::new(fmi_config { config: Mutex::new(Config::new()) })));
        Ok(())
    })
}

/// Loads a configuration file (JSON).
///
/// @param config  the configuration; unchanged on failure.
/// @param path    the file's path, NUL-terminated UTF-8.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where path is not UTF-8; FMI_ERR_CONFIG where the file is
///         missing or malformed or holds a wrong value (the message names file, key and what was
///         expected); FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_load(config: *mut fmi_config, path: *const c_char) -> fmi_status {
    guarded(|| {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        // SAFETY: NUL-terminated, as the header demands.
        let path = unsafe { text!(path) }?;
        config.change(|config| config.load(path))
    })
}

/// Loads a configuration from text: what would stand in a file.
///
/// @param config  the configuration; unchanged on failure.
/// @param json    the text, UTF-8; it need not be NUL-terminated.
/// @param len     its length in bytes.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where the text is not UTF-8; FMI_ERR_CONFIG where it is
///         malformed or holds a wrong value; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_parse(
    config: *mut fmi_config,
    json: *const c_char,
    len: usize,
) -> fmi_status {
    guarded(|| {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        let json = bytes!(json, len)?;
        // SAFETY: `len` bytes that nobody changes during the call, as the header demands.
        let json = utf8(unsafe { json.as_slice() }, "json")?;
        config.change(|config| config.parse(json))
    })
}

/// Sets one value. It wins over environment and files.
///
/// @param config  the configuration; unchanged on failure.
/// @param key     the path of the key in the file, such as "backends.Direct.host", NUL-terminated
///                UTF-8.
/// @param value   the value as text, NUL-terminated UTF-8.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where a text is not UTF-8; FMI_ERR_CONFIG for a value
///         that the key cannot have; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_set(
    config: *mut fmi_config,
    key: *const c_char,
    value: *const c_char,
) -> fmi_status {
    guarded(|| {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        // SAFETY: NUL-terminated, as the header demands.
        let (key, value) = unsafe { (text!(key)?, text!(value)?) };
        config.change(|config| config.set(key, value))
    })
}

/// Calls a function for every key that has a value, with all sources merged.
/// The function may change the configuration: it is shown the values of before.
///
/// @param config  the configuration.
/// @param visit   called with user, a key such as "backends.Direct.host" and its value; both texts
///                are UTF-8 and live until it returns. Other than 0 ends the visit. May not unwind.
/// @param user    passed to visit.
/// @return FMI_OK; FMI_ERR_CALLBACK where visit returned other than 0; FMI_ERR_NULL;
///         FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_each(
    config: *const fmi_config,
    visit: Option<unsafe extern "C" fn(user: *mut c_void, key: *const c_char, value: *const c_char) -> i32>,
    user: *mut c_void,
) -> fmi_status {
    guarded(|| {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        let visit = function!(visit)?;
        config.snapshot().each(|key, value| show(visit, user, key, value))
    })
}

/// Calls a function for every key that is spelt out, in what was loaded or by
/// fmi_config_set(), with its value as it stands there: without environment and
/// defaults. The function may change the configuration: it is shown the values of
/// before.
///
/// @param config  the configuration.
/// @param visit   as in fmi_config_each().
/// @param user    passed to visit.
/// @return as fmi_config_each().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_each_given(
    config: *const fmi_config,
    visit: Option<unsafe extern "C" fn(user: *mut c_void, key: *const c_char, value: *const c_char) -> i32>,
    user: *mut c_void,
) -> fmi_status {
    guarded(|| {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        let visit = function!(visit)?;
        config.snapshot().each_given(|key, value| show(visit, user, key, value))
    })
}

/// A function that is shown keys and values.
type Visit = unsafe extern "C" fn(user: *mut c_void, key: *const c_char, value: *const c_char) -> i32;

fn show(visit: Visit, user: *mut c_void, key: &str, value: &str) -> Result<()> {
    // A NUL can come from JSON only (as \u0000); C sees the text up to it.
    let c_text = |text: &str| CString::new(text.split('\0').next().unwrap_or("")).unwrap_or_default();
    let (key, value) = (c_text(key), c_text(value));
    // SAFETY: the user's function; both texts outlive it.
    match unsafe { visit(user, key.as_ptr(), value.as_ptr()) } {
        0 => Ok(()),
        code => Err(Error::new(ErrorKind::Callback, format!("the visit function returned {code}"))),
    }
}

/// Sets the function that says whether a blocked call shall end, when a byte
/// was written to fmi_comm_wakeup_fd(). Without such a function the byte itself
/// ends the call.
///
/// @param config  the configuration; communicators that are made of it later use the function.
/// @param check   called on the thread that is inside the call: 0 = go on waiting, anything else =
///                the call returns FMI_ERR_INTERRUPTED. May not unwind.
/// @param user    passed to check and drop.
/// @param drop    called with user exactly once, when neither the configuration nor a communicator
///                needs it any more, also when this function fails; may be NULL.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_set_interrupt(
    config: *mut fmi_config,
    check: Option<unsafe extern "C" fn(user: *mut c_void) -> i32>,
    user: *mut c_void,
    drop: fmi_drop_fn,
) -> fmi_status {
    // First of all, so that whatever happens from here on drops it once.
    let context = Context::new(user, drop);
    guarded(move || {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        let check = function!(check)?;
        // SAFETY: the user's function with the user's pointer.
        let interrupt = move || unsafe { check(context.user()) != 0 };
        config.change(|config| {
            config.set_interrupt(interrupt);
            Ok(())
        })
    })
}

/// Sets the function that is given log lines. Without it nothing is printed,
/// unless the environment variable FMI_LOG (off, error, warn, info, debug) asks
/// for lines on standard error.
///
/// @param config  the configuration; communicators that are made of it later use the function.
/// @param level   one of the FMI_LOG_... constants: lines up to this level are given.
/// @param log     called on the thread that is inside a call, with user, the line's level and its
///                text, which is UTF-8 without line break and lives until it returns. May not unwind.
/// @param user    passed to log and drop.
/// @param drop    called with user exactly once, when neither the configuration nor a communicator
///                needs it any more, also when this function fails; may be NULL.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where there is no such level;
///         FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_set_log(
    config: *mut fmi_config,
    level: i32,
    log: Option<unsafe extern "C" fn(user: *mut c_void, level: i32, text: *const c_char)>,
    user: *mut c_void,
    drop: fmi_drop_fn,
) -> fmi_status {
    // First of all, so that whatever happens from here on drops it once.
    let context = Context::new(user, drop);
    guarded(move || {
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?;
        let log = function!(log)?;
        let level = LogLevel::from_code(level).ok_or_else(|| {
            Error::new(ErrorKind::Arg, format!("parameter level is {level}, which is no FMI_LOG_... level"))
        })?;
        let log = move |level: LogLevel, text: &str| {
            let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
            // SAFETY: the user's function; the text outlives it.
            unsafe { log(context.user(), level as i32, text.as_ptr()) }
        };
        config.change(|config| {
            config.set_log(level, log);
            Ok(())
        })
    })
}

/// Frees a configuration. Communicators made of it are not concerned.
///
/// @param config  the configuration; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_config_destroy(config: *mut fmi_config) {
    if config.is_null() {
        return;
    }
    let freed = walled(|| {
        // SAFETY: as below; this only refuses what cannot be a configuration.
        unsafe { handle!(config) }?;
        // SAFETY: made by `Box::into_raw` in `fmi_config_create`, and not used any more, as the
        // header demands.
        drop(unsafe { Box::from_raw(config) });
        Ok(())
    });
    if let Err(error) = freed {
        fail(&error);
    }
}
