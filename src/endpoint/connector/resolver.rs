//! Looking up host names.
//!
//! The C library offers no way that does not block, for minutes at worst: a
//! lookup runs in a thread of its own, which outlives the call and the
//! communicator that gave up waiting for it. So that such threads do not pile up,
//! all endpoints of the process that ask for one name share one lookup, and
//! there are a few at a time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::descriptors::PerProcess;

/// How many lookups run at a time. A job has one server: more names than one in
/// a process are rare.
const MAX_THREADS: usize = 4;

/// Enough for the C library's lookup, which is made for threads of any size.
const STACK: usize = 256 << 10;

/// The addresses of a host, or why there are none.
pub(super) type Answer = Result<Vec<IpAddr>, String>;

type Cell = Arc<OnceLock<Answer>>;

/// The lookups of a process that are running, by name.
#[derive(Default)]
struct Running(Mutex<BTreeMap<String, Cell>>);

static RUNNING: PerProcess<Running> = PerProcess::new();

/// The wish for a host's addresses.
pub(super) struct Lookup {
    host: String,
    answer: Option<Cell>,
}

impl Lookup {
    pub(super) fn new(host: &str) -> Self {
        let host = host.trim_matches(['[', ']']).to_owned();
        let answer = host.parse().ok().map(|address| Arc::new(OnceLock::from(Ok(vec![address]))));
        Self { host, answer }
    }

    /// The answer, once it is there. To be asked now and then.
    pub(super) fn poll(&mut self) -> Option<Answer> {
        self.poll_in(RUNNING.get(), look_up)
    }

    fn poll_in(&mut self, running: &'static Running, look_up: fn(&str) -> Answer) -> Option<Answer> {
        if self.answer.is_none() {
            self.answer = running.join(&self.host, look_up);
        }
        self.answer.as_ref()?.get().cloned()
    }
}

impl Running {
    /// The lookup of `host` that is running, or a new one; `None` where there
    /// can be no more just now.
    fn join(&'static self, host: &str, look_up: fn(&str) -> Answer) -> Option<Cell> {
        let mut running = self.lock();
        if let Some(cell) = running.get(host) {
            return Some(Arc::clone(cell));
        }
        if running.len() >= MAX_THREADS {
            return None;
        }
        let cell = Cell::default();
        let (name, answer) = (host.to_owned(), Arc::clone(&cell));
        let work = move || {
            let _ = answer.set(look_up(&name));
            self.lock().remove(&name);
        };
        let builder = std::thread::Builder::new().name("fmi-resolve".into()).stack_size(STACK);
        with_signals_blocked(|| builder.spawn(work)).ok()?;
        running.insert(host.to_owned(), Arc::clone(&cell));
        Some(cell)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Cell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look_up(host: &str) -> Answer {
    let addresses = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    let addresses: Vec<_> = addresses.map(|address| address.ip()).collect();
    if addresses.is_empty() { Err("the host name has no address".into()) } else { Ok(addresses) }
}

/// Runs `start`: a thread that it starts takes no signal that the host process
/// waits for.
fn with_signals_blocked<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: both sets are filled before they are read; the calls touch only
    // this thread's mask.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        started
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    fn wait_for(gate: &AtomicBool) {
        while !gate.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn answer(lookup: &mut Lookup, running: &'static Running, look_up: fn(&str) -> Answer) -> Answer {
        let start = Instant::now();
        loop {
            if let Some(answer) = lookup.poll_in(running, look_up) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn running() -> &'static Running {
        Box::leak(Box::default())
    }

    #[test]
    fn an_address_needs_no_lookup() {
        for (host, address) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("::1", "::1")] {
            let answer = Lookup::new(host).poll_in(running(), |_| unreachable!());
            assert_eq!(answer, Some(Ok(vec![address.parse().unwrap()])));
        }
    }

    #[test]
    fn a_slow_name_has_one_thread_however_many_ask() {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        static GATE: AtomicBool = AtomicBool::new(false);
        fn slow(_: &str) -> Answer {
            STARTED.fetch_add(1, Ordering::Relaxed);
            wait_for(&GATE);
            Err("slow".into())
        }
        let running = running();
        for _ in 0..100 {
            assert_eq!(Lookup::new("slow.invalid").poll_in(running, slow), None);
        }
        let mut last = Lookup::new("slow.invalid");
        assert_eq!(last.poll_in(running, slow), None);
        GATE.store(true, Ordering::Relaxed);
        assert_eq!(answer(&mut last, running, slow), Err("slow".into()));
        assert_eq!(STARTED.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_name_that_finds_no_room_comes_later() {
        static GATE: AtomicBool = AtomicBool::new(false);
        fn slow(host: &str) -> Answer {
            wait_for(&GATE);
            Err(host.into())
        }
        let running = running();
        let mut lookups: Vec<_> =
            (0..3 * MAX_THREADS).map(|n| Lookup::new(&format!("h{n}.invalid"))).collect();
        for lookup in &mut lookups {
            assert_eq!(lookup.poll_in(running, slow), None);
        }
        assert_eq!(running.lock().len(), MAX_THREADS);
        GATE.store(true, Ordering::Relaxed);
        for (number, lookup) in lookups.iter_mut().enumerate() {
            assert_eq!(answer(lookup, running, slow), Err(format!("h{number}.invalid")));
        }
    }

    #[test]
    fn the_mask_of_signals_is_given_back_and_the_thread_takes_none() {
        fn mask() -> libc::sigset_t {
            // SAFETY: the set is filled by the call.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
                set
            }
        }
        // SAFETY: the set is a valid one.
        let takes = |set: &libc::sigset_t| unsafe { libc::sigismember(set, libc::SIGUSR1) == 0 };
        assert!(takes(&mask()));
        let thread = with_signals_blocked(|| std::thread::Builder::new().spawn(mask)).unwrap();
        assert!(!takes(&thread.join().unwrap()));
        assert!(takes(&mask()));
    }
}
