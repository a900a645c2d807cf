//! What a process keeps of communicators that are gone: nothing. The only test of
//! its program, because others open and close descriptors.

mod support;

use std::net::TcpListener;
use std::time::Duration;

use fmi::{Communicator, Config, Op};
use support::{Channel, config, server, watched};

/// What this process holds.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident_kib: usize,
}

fn holdings() -> Holdings {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib = line.split_whitespace().next().unwrap().parse().unwrap();
    Holdings { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task"), resident_kib }
}

fn fails(config: &Config, round: u32) {
    let comm = Communicator::create(0, 2, "fails", config).unwrap();
    comm.set_timeout(Some(Duration::from_millis(1 + u64::from(round % 3)))).unwrap();
    comm.barrier().unwrap_err();
}

fn succeeds(config: &Config) {
    std::thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let comm = Communicator::create(rank, 2, "succeeds", config).unwrap();
                let mut sum = vec![0; 50_000];
                comm.allreduce(&vec![1; 50_000], &mut sum, &Op::SUM).unwrap();
                assert!(sum.iter().all(|value| *value == 2));
            });
        }
    });
}

#[test]
fn nothing_is_kept() {
    watched(Duration::from_secs(60), || {
        let server = server();
        let good = config(Channel::Direct, Some(&server));
        let memory = config(Channel::Memory, None);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let bad = [silent.local_addr().unwrap(), refused].map(|address| {
            let mut config = Config::new();
            config.set("backends.Direct.host", "127.0.0.1").unwrap();
            config.set("backends.Direct.port", &address.port().to_string()).unwrap();
            config
        });
        let run = |failures, successes| {
            for round in 0..failures {
                let configs = [&bad[0], &bad[1], &good, &memory];
                fails(configs[round as usize % configs.len()], round);
            }
            for _ in 0..successes {
                succeeds(&good);
                succeeds(&memory);
            }
            // The server notices the last departures in its own time.
            std::thread::sleep(Duration::from_millis(500));
            holdings()
        };
        let before = run(40, 20);
        let after = run(300, 100);
        println!("{before:?} became {after:?}");
        assert!(after.descriptors <= before.descriptors + 2 && after.threads <= before.threads);
        assert!(after.resident_kib <= before.resident_kib + 16 * 1024);
    });
}
