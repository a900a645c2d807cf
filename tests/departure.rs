//! A rank that leaves in order: what it sent arrives, and the others are told
//! what has become of it.

mod support;

use std::time::Duration;

use fmi::{Communicator, ErrorKind};
use support::{Channel, both_channels, config, job, milliseconds, server, watched};

const LIMIT: Duration = Duration::from_secs(60);

/// The receiver is away for longer than a departure lingers, and writes before
/// it reads.
#[test]
fn what_was_sent_before_a_departure_survives_an_answer_to_the_departed() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for (length, away) in [(1, 300), (1 << 20, 300), (100_000, 1500), (20 << 20, 1500)] {
                job(channel, 2, |comm| {
                    comm.barrier().unwrap();
                    if comm.rank() == 0 {
                        comm.send(&vec![9u8; length], 1).unwrap();
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(away));
                    for _ in 0..3 {
                        let _ = comm.send(&[1u8; 100], 0);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    let mut buffer = vec![0u8; length];
                    comm.recv(&mut buffer, 0)
                        .unwrap_or_else(|error| panic!("{length} after {away}: {error}"));
                    assert!(buffer.iter().all(|byte| *byte == 9));
                });
            }
        });
    });
}

/// Whoever was never linked with a rank learns too that it has left.
#[test]
fn a_rank_that_left_without_a_word_has_left() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for early in [true, false] {
                let server = (channel == Channel::Direct).then(server);
                let config = config(channel, server.as_ref());
                let make = |rank| Communicator::create(rank, 3, "silent", &config).unwrap();
                let comms = [make(0), make(1), make(2)];
                // Over Direct a rank joins by its first call.
                std::thread::scope(|scope| {
                    scope.spawn(|| comms[1].send(&[1u8], 2).unwrap());
                    comms[2].recv(&mut [0u8], 1).unwrap();
                });
                let [stays, leaves, _third] = comms;
                stays.set_timeout(milliseconds(2000)).unwrap();
                let error = std::thread::scope(|scope| {
                    let leaver = scope.spawn(move || {
                        if !early {
                            std::thread::sleep(Duration::from_millis(300));
                        }
                        leaves.close(milliseconds(100))
                    });
                    if early {
                        let _ = leaver.join().unwrap();
                    }
                    stays.recv(&mut [0u8], 1).unwrap_err()
                });
                assert_eq!(
                    (error.kind(), error.peer()),
                    (ErrorKind::PeerLeft, Some(1)),
                    "early: {early}: {error}"
                );
            }
        });
    });
}
