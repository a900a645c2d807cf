//! One suite for every channel: each operation, many sizes, roots and counts,
//! against a sequential oracle.

mod support;

use std::time::Duration;

use fmi::{Communicator, Op};
use support::custom::{self, Custom};
use support::{Channel, job, watched};

const SIZES: [u32; 7] = [1, 2, 3, 4, 5, 7, 8];

/// The value of element `index` of rank `rank`'s operand.
fn operand(rank: u32, index: usize) -> i32 {
    (rank as i32 + 1) * 1000 + index as i32 % 997
}

fn operands(rank: u32, count: usize) -> Vec<i32> {
    (0..count).map(|index| operand(rank, index)).collect()
}

fn counts(size: u32) -> Vec<usize> {
    let size = size as usize;
    let mut counts = vec![0, 1, size - 1, size, 1000, 100_000];
    counts.dedup();
    counts
}

fn roots(size: u32) -> Vec<u32> {
    if size == 1 { vec![0] } else { vec![0, size - 1] }
}

/// `2 * left + right`: not associative, so only a strict left fold gives the
/// right result.
fn strict() -> Op {
    Op::user(
        |left, right, count, _| {
            for index in 0..count {
                let at = index * 4..index * 4 + 4;
                let a = i32::from_ne_bytes(left[at.clone()].try_into().unwrap());
                let b = i32::from_ne_bytes(right[at.clone()].try_into().unwrap());
                left[at].copy_from_slice(&a.wrapping_mul(2).wrapping_add(b).to_ne_bytes());
            }
            Ok(())
        },
        false,
        false,
        None,
    )
}

fn folded(ranks: u32, count: usize, combine: impl Fn(i32, i32) -> i32) -> Vec<i32> {
    (0..count).map(|index| (0..ranks).map(|rank| operand(rank, index)).reduce(&combine).unwrap()).collect()
}

type Combine = fn(i32, i32) -> i32;

fn reductions() -> [(Op, Combine); 2] {
    [(Op::SUM, i32::wrapping_add), (strict(), |a, b| a.wrapping_mul(2).wrapping_add(b))]
}

/// Runs the suite on jobs that `job` makes of a size and what each rank does.
fn every_operation(sends_wait: bool, job: impl Fn(u32, &(dyn Fn(Communicator) + Sync)) + Send + 'static) {
    watched(Duration::from_secs(300), move || {
        for size in SIZES {
            job(size, &|comm| {
                for count in counts(size) {
                    barrier(&comm);
                    exchange(&comm, count);
                    if !sends_wait || size == 1 {
                        ring_of_sends(&comm, count);
                    }
                    for root in roots(size) {
                        bcast(&comm, count, root);
                        gather(&comm, count, root);
                        scatter(&comm, count, root);
                        reduce(&comm, count, root);
                    }
                    allreduce(&comm, count);
                    scan(&comm, count);
                }
            });
        }
    });
}

#[test]
fn every_operation_over_memory() {
    every_operation(false, |size, body| job(Channel::Memory, size, body));
}

#[test]
fn every_operation_over_direct() {
    every_operation(false, |size, body| job(Channel::Direct, size, body));
}

#[test]
fn every_operation_over_a_peer_to_peer_channel_of_the_users_whose_sends_wait() {
    every_operation(true, |size, body| custom::job(&Custom::hand_over(), size, body));
}

#[test]
fn every_operation_over_a_peer_to_peer_channel_of_the_users_that_keeps_messages() {
    every_operation(false, |size, body| custom::job(&Custom::mailbox(), size, body));
}

#[test]
fn every_operation_over_a_client_server_channel_of_the_users() {
    every_operation(false, |size, body| custom::job(&Custom::shelf(), size, body));
}

#[test]
fn every_operation_over_a_whole_channel_of_the_users() {
    every_operation(false, |size, body| custom::job(&Custom::Delegate, size, body));
}

fn barrier(comm: &Communicator) {
    comm.barrier().unwrap();
}

fn neighbours(comm: &Communicator) -> (u32, u32) {
    let (rank, size) = (comm.rank(), comm.size());
    ((rank + 1) % size, (rank + size - 1) % size)
}

fn exchange(comm: &Communicator, count: usize) {
    let (next, previous) = neighbours(comm);
    let own = operands(comm.rank(), count);
    let mut received = vec![0; count];
    comm.sendrecv(&own, next, &mut received, previous).unwrap();
    assert_eq!(received, operands(previous, count));
    assert_eq!(own, operands(comm.rank(), count));
}

/// Every send, also one to oneself, returns before its receive is posted.
fn ring_of_sends(comm: &Communicator, count: usize) {
    let (next, previous) = neighbours(comm);
    let own = operands(comm.rank(), count);
    let mut received = vec![0; count];
    comm.send(&own, next).unwrap();
    comm.recv(&mut received, previous).unwrap();
    assert_eq!(received, operands(previous, count));
    assert_eq!(own, operands(comm.rank(), count));
}

fn bcast(comm: &Communicator, count: usize, root: u32) {
    let mut buffer = operands(comm.rank(), count);
    comm.bcast(&mut buffer, root).unwrap();
    assert_eq!(buffer, operands(root, count));
}

fn gather(comm: &Communicator, count: usize, root: u32) {
    let (rank, size) = (comm.rank(), comm.size());
    let expected: Vec<i32> = (0..size).flat_map(|rank| operands(rank, count)).collect();
    let own = operands(rank, count);
    let mut all = vec![-1; if rank == root { count * size as usize } else { 0 }];
    comm.gather(&own, (rank == root).then_some(&mut all[..]), root).unwrap();
    assert_eq!(own, operands(rank, count));
    if rank == root {
        assert_eq!(all, expected);
        all.fill(-1);
        all[rank as usize * count..][..count].copy_from_slice(&own);
        comm.gather_in_place(&mut all).unwrap();
        assert_eq!(all, expected);
    } else {
        comm.gather(&own, None, root).unwrap();
    }
}

fn scatter(comm: &Communicator, count: usize, root: u32) {
    let (rank, size) = (comm.rank(), comm.size());
    let all: Vec<i32> = (0..size).flat_map(|rank| operands(rank, count)).collect();
    let mut own = vec![-1; count];
    comm.scatter((rank == root).then_some(&all[..]), &mut own, root).unwrap();
    assert_eq!(own, operands(rank, count));
    own.fill(-1);
    if rank == root {
        comm.scatter_in_place(&all).unwrap();
    } else {
        comm.scatter(None, &mut own, root).unwrap();
        assert_eq!(own, operands(rank, count));
    }
}

fn reduce(comm: &Communicator, count: usize, root: u32) {
    let (rank, size) = (comm.rank(), comm.size());
    for (op, combine) in reductions() {
        let expected = folded(size, count, combine);
        let own = operands(rank, count);
        let mut result = vec![-1; count];
        comm.reduce(&own, (rank == root).then_some(&mut result[..]), &op, root).unwrap();
        assert_eq!(own, operands(rank, count));
        if rank == root {
            assert_eq!(result, expected);
            let mut buffer = own;
            comm.reduce_in_place(&mut buffer, &op).unwrap();
            assert_eq!(buffer, expected);
        } else {
            comm.reduce(&own, None, &op, root).unwrap();
        }
    }
}

fn allreduce(comm: &Communicator, count: usize) {
    for (op, combine) in reductions() {
        let expected = folded(comm.size(), count, combine);
        let own = operands(comm.rank(), count);
        let mut result = vec![-1; count];
        comm.allreduce(&own, &mut result, &op).unwrap();
        assert_eq!(own, operands(comm.rank(), count));
        assert_eq!(result, expected);
        let mut buffer = own;
        comm.allreduce_in_place(&mut buffer, &op).unwrap();
        assert_eq!(buffer, expected);
    }
}

fn scan(comm: &Communicator, count: usize) {
    for (op, combine) in reductions() {
        let expected = folded(comm.rank() + 1, count, combine);
        let own = operands(comm.rank(), count);
        let mut result = vec![-1; count];
        comm.scan(&own, &mut result, &op).unwrap();
        assert_eq!(own, operands(comm.rank(), count));
        assert_eq!(result, expected);
        let mut buffer = own;
        comm.scan_in_place(&mut buffer, &op).unwrap();
        assert_eq!(buffer, expected);
    }
}
