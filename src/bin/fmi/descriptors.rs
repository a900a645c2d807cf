//! The limit on open descriptors: the soft one is often 1024 although the hard
//! one allows far more connections.

/// Raises the soft limit to the hard one; returns what was in force before,
/// where that is known.
pub(crate) fn raise_limit() -> Option<libc::rlimit> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `before` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut before) } != 0 {
        return None;
    }
    set_limit(&libc::rlimit { rlim_cur: before.rlim_max, ..before });
    Some(before)
}

/// Sets the limit, if that is allowed. Async-signal-safe.
pub(crate) fn set_limit(limit: &libc::rlimit) {
    // SAFETY: `limit` is valid.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) };
}
