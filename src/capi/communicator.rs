//! Communicators: making, closing, asking, setting.

use std::ffi::c_char;

use super::boundary::{
    LastError, Operated, fail, handle, not_in_reduction, on, out, query, text, timeout, walled,
};
use super::config::fmi_config;
use super::status::fmi_status;
use crate::communicator::{Communicator, Hint};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// A group of ranks and the operations among them. See fmi_comm_create().
///
/// One thread at a time may be inside a call on a communicator; a second one
/// gets FMI_ERR_BUSY. Different communicators are independent of each other.
pub struct fmi_comm {
    pub(super) communicator: Communicator,
    last_error: LastError,
}

// A C program may use a communicator from any thread.
const _: () = {
    const fn usable_from_any_thread<T: Send + Sync>() {}
    usable_from_any_thread::<fmi_comm>();
};

impl fmi_comm {
    fn into_handle(communicator: Communicator) -> *mut Self {
        Box::into_raw(Box::new(Self { communicator, last_error: LastError::none() }))
    }
}

impl Operated for fmi_comm {
    const NAME: &'static str = "comm";

    fn communicator(&self) -> Result<&Communicator> {
        Ok(&self.communicator)
    }

    fn last_error(&self) -> &LastError {
        &self.last_error
    }
}

/// What the choice of channel and algorithm goes by: FMI_HINT_CHEAP or
/// FMI_HINT_FAST.
pub type fmi_hint = i32;

/// Least price. The default.
pub const FMI_HINT_CHEAP: fmi_hint = 1;
/// Least latency.
pub const FMI_HINT_FAST: fmi_hint = 2;

/// Makes a communicator. Does no network I/O: an absent server shows at the
/// first operation.
///
/// @param rank             this rank, from 0 to size - 1.
/// @param size             the number of ranks of the job.
/// @param config_path      path of the configuration file, NUL-terminated UTF-8; or text that starts
///                         with '{': the configuration itself, as JSON; or NULL or "": environment and
///                         defaults only.
/// @param name             name of the job, NUL-terminated UTF-8, the same on all its ranks; may be
///                         empty.
/// @param faas_memory_mib  memory of the function in MiB, for prices; 0 = what the configuration says.
/// @param out              the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where rank is not less than size, or a text is not UTF-8;
///         FMI_ERR_CONFIG; FMI_ERR_NOMEM; FMI_ERR_IO; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_create(
    rank: u32,
    size: u32,
    config_path: *const c_char,
    name: *const c_char,
    faas_memory_mib: u32,
    out: *mut *mut fmi_comm,
) -> fmi_status {
    query(|| {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        // SAFETY: NUL-terminated, as the header demands.
        let config_path = if config_path.is_null() { "" } else { unsafe { text!(config_path) }? };
        // SAFETY: NUL-terminated, as the header demands.
        let name = unsafe { text!(name) }?;
        let mut config = Config::from_path_or_json(config_path)?;
        if faas_memory_mib > 0 {
            config.set_faas_memory_mib(faas_memory_mib)?;
        }
        out.set(fmi_comm::into_handle(Communicator::create(rank, size, name, &config)?));
        Ok(())
    })
}

/// Makes a communicator of a configuration object. Does no network I/O.
///
/// @param rank    this rank, from 0 to size - 1.
/// @param size    the number of ranks of the job.
/// @param name    name of the job, NUL-terminated UTF-8, the same on all its ranks; may be empty.
/// @param config  the configuration; stays the caller's, later changes have no effect.
/// @param out     the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
/// @return as fmi_comm_create().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_create_with(
    rank: u32,
    size: u32,
    name: *const c_char,
    config: *const fmi_config,
    out: *mut *mut fmi_comm,
) -> fmi_status {
    query(|| {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        // SAFETY: NUL-terminated, as the header demands.
        let name = unsafe { text!(name) }?;
        // SAFETY: a live configuration, as the header demands.
        let config = unsafe { handle!(config) }?.snapshot();
        out.set(fmi_comm::into_handle(Communicator::create(rank, size, name, &config)?));
        Ok(())
    })
}

/// Makes a communicator of what the environment says: rank, size and the rest
/// as `fmi run` hands them to each process (FMI_RANK, FMI_SIZE, FMI_JOB_ID,
/// FMI_RENDEZVOUS, FMI_SECRET, ...), or rank and size as PMI, Open MPI and
/// Slurm state them. Does no network I/O.
///
/// @param name  name of the job, NUL-terminated UTF-8, the same on all its ranks; may be empty.
/// @param out   the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
/// @return as fmi_comm_create(); FMI_ERR_CONFIG also where the environment states no rank and size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_create_from_env(
    name: *const c_char,
    out: *mut *mut fmi_comm,
) -> fmi_status {
    query(|| {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        // SAFETY: NUL-terminated, as the header demands.
        let name = unsafe { text!(name) }?;
        out.set(fmi_comm::into_handle(Communicator::from_env(name)?));
        Ok(())
    })
}

/// Leaves the job in order, and tells what fmi_comm_destroy() cannot: whether the
/// peers have read everything that was sent to them. A peer that leaves too has
/// chosen not to read the rest; one that computes outside of FMI calls does not say
/// what it has read. However it ends, later calls on the communicator return
/// FMI_ERR_CLOSED; it must still be destroyed.
///
/// @param comm        the communicator.
/// @param timeout_ms  how long to wait for the peers, in ms; FMI_TIMEOUT_NEVER = no limit.
/// @return FMI_OK; FMI_ERR_TIMEOUT where a peer has not read all, FMI_ERR_PEER_LOST where it was lost
///         before it had: the message says who, and what is left; FMI_ERR_MISMATCH where a peer sent
///         what no call of ours asked for; FMI_ERR_INTERRUPTED; FMI_ERR_ABORTED; FMI_ERR_ARG where
///         timeout_ms is 0; FMI_ERR_CLOSED where it is closed already; FMI_ERR_NULL; FMI_ERR_BUSY;
///         FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_close(comm: *mut fmi_comm, timeout_ms: u32) -> fmi_status {
    // SAFETY: a live communicator, as the header demands.
    unsafe { on(comm, |comm| comm.close(timeout(timeout_ms)?)) }
}

/// Leaves the job, unless fmi_comm_close() did, and frees the communicator.
/// Never fails; waits until what was sent is with the hosts of its receivers,
/// within the communicator's timeout, and then up to a second for the peers to
/// hear of the departure. In a process forked after the communicator was made,
/// it only frees memory. Must not be called while another thread is inside a
/// call on the communicator, and does nothing inside a reduction function.
///
/// @param comm  the communicator; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_destroy(comm: *mut fmi_comm) {
    if comm.is_null() {
        return;
    }
    let freed = walled(|| {
        // The call that the reduction function belongs to still uses a communicator, perhaps this.
        not_in_reduction()?;
        // SAFETY: as below; this only refuses what cannot be a communicator.
        unsafe { handle!(comm) }?;
        // SAFETY: made by `Box::into_raw` in `into_handle`, and not used any more, as the header
        // demands.
        drop(unsafe { Box::from_raw(comm) });
        Ok(())
    });
    if let Err(error) = freed {
        fail(&error);
    }
}

/// The write end of a non-blocking pipe, for a signal handler or another
/// thread: a byte written to it interrupts a call that is blocked on the
/// communicator; see fmi_config_set_interrupt(). A call that begins later does
/// not see the byte.
///
/// @param comm  the communicator, which keeps the descriptor: do not close it.
/// @return the descriptor, or a negative status: FMI_ERR_NULL; FMI_ERR_UNSUPPORTED; FMI_ERR_IO;
///         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_wakeup_fd(comm: *mut fmi_comm) -> i32 {
    let mut descriptor = -1;
    // SAFETY: a live communicator, as the header demands.
    let status = unsafe {
        on(comm, |comm| {
            descriptor = comm.wakeup_fd();
            Ok(())
        })
    };
    if status < 0 { status } else { descriptor }
}

/// Ends the job's collectives. All ranks are told; their collectives, and one
/// that another thread is blocked in here, return FMI_ERR_ABORTED. May be called
/// from any thread at any time.
///
/// @param comm  the communicator.
/// @param code  a number of your own, which the messages of the other ranks mention.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_abort(comm: *mut fmi_comm, code: i32) -> fmi_status {
    // SAFETY: a live communicator, as the header demands.
    unsafe { on(comm, |comm| comm.abort(code)) }
}

/// This rank. May be asked from any thread at any time, and from a reduction
/// function.
///
/// @param comm  the communicator.
/// @param out   the rank, from 0 to size - 1; untouched on failure.
/// @return FMI_OK; FMI_ERR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_rank(comm: *const fmi_comm, out: *mut u32) -> fmi_status {
    query(|| {
        // SAFETY: a live communicator and a place for the result, as the header demands.
        let (comm, out) = unsafe { (handle!(comm)?, out!(out)?) };
        out.set(comm.communicator.rank());
        Ok(())
    })
}

/// The number of ranks. May be asked from any thread at any time, and from a
/// reduction function.
///
/// @param comm  the communicator.
/// @param out   the number, at least 1; untouched on failure.
/// @return FMI_OK; FMI_ERR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_size(comm: *const fmi_comm, out: *mut u32) -> fmi_status {
    query(|| {
        // SAFETY: a live communicator and a place for the result, as the header demands.
        let (comm, out) = unsafe { (handle!(comm)?, out!(out)?) };
        out.set(comm.communicator.size());
        Ok(())
    })
}

/// Sets what the choice of channel and algorithm goes by.
///
/// @param comm  the communicator.
/// @param hint  FMI_HINT_CHEAP (the default) or FMI_HINT_FAST; the same on all ranks.
/// @return FMI_OK; FMI_ERR_ARG for any other number; FMI_ERR_NULL; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_set_hint(comm: *mut fmi_comm, hint: fmi_hint) -> fmi_status {
    // SAFETY: a live communicator, as the header demands.
    unsafe { on(comm, |comm| comm.set_hint(known_hint(hint)?)) }
}

fn known_hint(hint: fmi_hint) -> Result<Hint> {
    match hint {
        FMI_HINT_CHEAP => Ok(Hint::Cheap),
        FMI_HINT_FAST => Ok(Hint::Fast),
        _ => Err(Error::new(
            ErrorKind::Arg,
            format!("parameter hint is {hint}, which is neither FMI_HINT_CHEAP nor FMI_HINT_FAST"),
        )),
    }
}

/// Sets how long a call may take, connecting included. Wins over the
/// configuration; the default is 60 s.
///
/// @param comm        the communicator.
/// @param timeout_ms  the time in ms; FMI_TIMEOUT_NEVER = no limit.
/// @return FMI_OK; FMI_ERR_ARG where timeout_ms is 0; FMI_ERR_NULL; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_set_timeout(comm: *mut fmi_comm, timeout_ms: u32) -> fmi_status {
    // SAFETY: a live communicator, as the header demands.
    unsafe { on(comm, |comm| comm.set_timeout(timeout(timeout_ms)?)) }
}

/// Pins the channel that carries the operations.
///
/// @param comm  the communicator.
/// @param name  the channel's name, such as "Direct", NUL-terminated UTF-8, the same on all ranks;
///              NULL = the policy chooses.
/// @return FMI_OK; FMI_ERR_ARG where there is no such channel, or name is not UTF-8;
///         FMI_ERR_UNSUPPORTED where it is not enabled; FMI_ERR_NULL; FMI_ERR_FORKED;
///         FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_set_channel(comm: *mut fmi_comm, name: *const c_char) -> fmi_status {
    // SAFETY: a live communicator and, unless NULL, a NUL-terminated text, as the header demands.
    unsafe {
        on(comm, |comm| {
            let name = if name.is_null() { None } else { Some(text!(name)?) };
            comm.set_channel(name)
        })
    }
}
