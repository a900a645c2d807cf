//! Forks: a child that gives up what it inherited neither hangs nor disturbs the
//! parent, whatever the parent's other threads were doing.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fmi::{Communicator, ErrorKind};
use support::{Channel, config, watched};

/// Waits for `child`: whether it ended within ten seconds with status 0.
fn ends_well(child: i32) -> bool {
    let start = Instant::now();
    let mut status = 1;
    // SAFETY: the child is ours, the status is an int.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > Duration::from_secs(10) {
            // SAFETY: the child is ours, and has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &mut status, 0) };
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    status == 0
}

/// Another thread of the parent is at any moment inside the Memory channel.
#[test]
fn a_child_takes_no_lock_of_its_parents_threads() {
    watched(Duration::from_secs(60), || {
        let config = config(Channel::Memory, None);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = Communicator::create(0, 200, "busy", &config).unwrap();
                }
            });
            let well = (0..300).all(|_| {
                let comm = Communicator::create(0, 2, "forked", &config).unwrap();
                // SAFETY: the child frees what it inherited, and ends by `_exit`.
                match unsafe { libc::fork() } {
                    0 => {
                        let told = comm.barrier().is_err_and(|error| error.kind() == ErrorKind::Forked);
                        drop(comm);
                        // SAFETY: ends the child at once.
                        unsafe { libc::_exit(if told { 0 } else { 1 }) };
                    }
                    child => ends_well(child),
                }
            });
            stop.store(true, Ordering::Relaxed);
            assert!(well, "a child hangs, or is not told");
        });
    });
}
