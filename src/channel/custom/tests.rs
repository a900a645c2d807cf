//! Runs over a store, with and without an identity; what no user of the public
//! interface could bring about alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Custom, CustomChannel, Family};
use crate::endpoint::{Deadline, Limits, Signals, Until};
use crate::error::{ErrorKind, Result};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct Shelf(Objects);

impl CustomChannel for Shelf {
    fn family(&self) -> Family {
        Family::ClientServer { poll: Duration::from_micros(100) }
    }

    fn upload_object(&self, name: &str, data: &[u8]) -> Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), data.to_vec());
        Ok(())
    }

    fn download_object(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        let objects = self.0.lock().unwrap();
        let Some(object) = objects.get(name) else { return Ok(false) };
        let length = object.len().min(buffer.len());
        buffer[..length].copy_from_slice(&object[..length]);
        Ok(true)
    }

    fn delete_object(&self, name: &str) -> Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }

    fn list_objects(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        let names: Vec<_> = self.0.lock().unwrap().keys().cloned().collect();
        names.iter().for_each(|name| visit(name));
        Ok(())
    }
}

fn within<T>(time: Duration, body: impl FnOnce(&Limits<'_>) -> Result<T>) -> Result<T> {
    let signals = Signals::new().unwrap();
    let mut deadline = Deadline::after(Some(time));
    body(&Limits::new(&mut deadline, &signals, None))
}

const LONG: Duration = Duration::from_secs(20);

/// Two ranks; the first sends `number`, and the second receives it, if it does.
fn run(objects: &Objects, job_id: Option<&str>, number: u8, receives: bool) {
    std::thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let custom = Custom::new(Box::new(Shelf(Arc::clone(objects))), rank, 2, "job", job_id);
                if rank == 0 {
                    within(LONG, |limits| custom.send(&[number], 1, limits)).unwrap();
                } else if receives {
                    let mut got = [0];
                    within(LONG, |limits| custom.recv(&mut got, 0, limits)).unwrap();
                    assert_eq!(got, [number]);
                } else {
                    // It joins, and no more.
                    within(LONG, |limits| custom.send(&[], 0, limits)).unwrap();
                }
                within(LONG, |limits| custom.leave(Until::Arrived, limits)).unwrap();
            });
        }
    });
}

#[test]
fn a_name_that_is_used_again_by_one_run_finds_nothing_of_its_former_use() {
    for job_id in [None, Some("run 7")] {
        let objects = Objects::default();
        run(&objects, job_id, 1, false);
        assert!(!objects.lock().unwrap().is_empty(), "the message was not read");
        for number in 2..5 {
            run(&objects, job_id, number, true);
        }
    }
}

#[test]
fn runs_with_different_identities_do_not_see_each_other() {
    let objects = Objects::default();
    std::thread::scope(|scope| {
        for (number, id) in [(1, "one"), (2, "two"), (3, "three")] {
            let objects = &objects;
            scope.spawn(move || run(objects, Some(id), number, true));
        }
    });
    let custom = Custom::new(Box::new(Shelf(Arc::clone(&objects))), 0, 2, "job", Some("four"));
    let error = within(Duration::from_millis(50), |limits| custom.send(&[1], 1, limits)).unwrap_err();
    assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
}

#[test]
fn a_leader_or_member_that_gave_up_leaves_nothing_and_the_next_ones_agree() {
    let objects = Objects::default();
    for rank in [0, 1, 0, 1] {
        let custom = Custom::new(Box::new(Shelf(Arc::clone(&objects))), rank, 2, "job", None);
        let other = 1 - rank;
        let error = within(Duration::from_millis(5), |limits| custom.send(&[1], other, limits)).unwrap_err();
        assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(other)), "{error}");
        within(LONG, |limits| custom.leave(Until::Arrived, limits)).unwrap();
        assert!(objects.lock().unwrap().is_empty());
    }
    run(&objects, None, 9, true);
    assert!(objects.lock().unwrap().is_empty());
}

#[test]
fn a_call_that_was_cut_off_while_joining_is_continued_by_the_next() {
    let objects = Objects::default();
    std::thread::scope(|scope| {
        for rank in 0..3 {
            let objects = &objects;
            scope.spawn(move || {
                let custom = Custom::new(Box::new(Shelf(Arc::clone(objects))), rank, 3, "job", None);
                std::thread::sleep(Duration::from_millis(10 * u64::from(rank)));
                loop {
                    match within(Duration::from_millis(2), |limits| custom.send(&[1], rank, limits)) {
                        Ok(()) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
                    }
                }
                let mut got = [0];
                let (next, previous) = ((rank + 1) % 3, (rank + 2) % 3);
                while within(Duration::from_millis(2), |limits| custom.send(&[rank as u8], next, limits))
                    .is_err()
                {}
                within(LONG, |limits| custom.recv(&mut got, previous, limits)).unwrap();
                assert_eq!(u32::from(got[0]), previous);
                within(LONG, |limits| custom.leave(Until::Read, limits)).unwrap();
            });
        }
    });
    assert!(objects.lock().unwrap().is_empty());
}
