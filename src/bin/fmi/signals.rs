//! Signals as something to wait for, with who sent them.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// What the launcher passes on to its ranks.
const FORWARDED: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Signals are blocked, and read from a descriptor instead.
pub(crate) struct Blocked {
    fd: OwnedFd,
    /// The mask before, for the ranks.
    before: libc::sigset_t,
}

/// One signal that has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    /// The kernel sent it on behalf of the terminal, to the whole foreground
    /// process group.
    pub(crate) from_terminal: bool,
    /// For SIGCHLD the child. Where several end before it is read, the first.
    pub(crate) pid: i32,
}

impl Blocked {
    /// Blocks the signals that are forwarded, SIGTSTP and SIGCHLD, on this
    /// thread and on those that it starts. One that was ignored before (nohup,
    /// a shell's background job) stays ignored.
    pub(crate) fn new() -> io::Result<Self> {
        let mut set = empty_set();
        for signal in FORWARDED.into_iter().chain([libc::SIGTSTP]) {
            if !is_ignored(signal)? {
                // SAFETY: `set` is initialised.
                unsafe { libc::sigaddset(&mut set, signal) };
            }
        }
        // SAFETY: as above.
        unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
        // An inherited "ignore" would make the kernel reap the ranks.
        // SAFETY: all zero is a valid sigaction: the default disposition.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = libc::SA_NOCLDSTOP;
        // SAFETY: `action` is valid; the old one is not asked for.
        check(unsafe { libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()) })?;
        let mut before = empty_set();
        // SAFETY: both sets are initialised.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialised.
        let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, before })
    }

    /// The mask as it was.
    pub(crate) fn before(&self) -> libc::sigset_t {
        self.before
    }

    /// Inside a runtime the signals can be waited for.
    pub(crate) fn watch(self) -> io::Result<Signals> {
        // SAFETY: the descriptor is owned, so that it stays open and the same.
        let fd = unsafe { AsyncFd::register(self.fd) }?;
        Ok(Signals { fd })
    }
}

/// The signals that come.
pub(crate) struct Signals {
    fd: AsyncFd<OwnedFd>,
}

impl Signals {
    /// The next one. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&self) -> io::Result<Signal> {
        loop {
            let mut guard = self.fd.readable().await?;
            if let Ok(result) = guard.try_io(|fd| read(fd.get_ref())) {
                return result;
            }
        }
    }
}

fn read(fd: &OwnedFd) -> io::Result<Signal> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of_val(&info);
    // SAFETY: `info` has room for `size` bytes.
    let length = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    assert_eq!(length as usize, size, "a signalfd yields whole records");
    // SAFETY: the kernel has filled it.
    let info = unsafe { info.assume_init() };
    Ok(Signal {
        number: info.ssi_signo as i32,
        from_terminal: info.ssi_code == libc::SI_KERNEL,
        pid: info.ssi_pid as i32,
    })
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` is a valid place for the result.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) })?;
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The name of a signal, such as `SIGKILL`.
pub(crate) fn name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
