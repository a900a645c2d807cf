//! What the tests of the collectives share: schedules carried out on symbols,
//! and a channel in memory that delivers late and in random order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::reduction::{Action, Side};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::datatype::Datatype;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cost, Exchanges};
use crate::op::{Op, Order};

/// (from, to, step): two messages of one call must not share it.
type Edge = (Rank, Rank, Step);

/// The sends and receives of a schedule.
#[derive(Default)]
pub(super) struct Edges {
    sends: BTreeSet<Edge>,
    receives: BTreeSet<Edge>,
}

impl Edges {
    pub(super) fn send(&mut self, from: Rank, to: Rank, step: Step) {
        assert!(self.sends.insert((from, to, step)), "two messages from {from} to {to} in step {step}");
    }

    pub(super) fn recv(&mut self, from: Rank, to: Rank, step: Step) {
        assert!(self.receives.insert((from, to, step)), "two receives at {to} from {from} in step {step}");
    }

    /// Every send has its receive at the same step.
    pub(super) fn assert_paired(&self) {
        assert_eq!(self.sends, self.receives);
    }
}

/// Carries out the schedules of `size` ranks on symbols: operand 3 is `3`, and
/// a combination of it with operand 4 is `(3 4)`. Returns what each rank ends
/// with.
pub(super) fn simulate<A: Iterator<Item = Action>>(size: u32, schedule: impl Fn(Rank) -> A) -> Vec<String> {
    let mut edges = Edges::default();
    let mut under_way: HashMap<Edge, String> = HashMap::new();
    let mut results: Vec<String> = (0..size).map(|rank| rank.to_string()).collect();
    let mut schedules: Vec<_> = (0..size).map(|rank| schedule(rank).peekable()).collect();
    let mut exchanging = vec![false; size as usize];
    loop {
        let mut progress = false;
        for rank in 0..size {
            let (result, exchanging) = (&mut results[rank as usize], &mut exchanging[rank as usize]);
            while let Some(&action) = schedules[rank as usize].peek() {
                let (to, from) = match action {
                    Action::Send { to, step } => (Some((rank, to, step)), None),
                    Action::Replace { from, step } | Action::Merge { from, step, .. } => {
                        (None, Some((from, rank, step)))
                    }
                    Action::Exchange { to, from, step, .. } => {
                        (Some((rank, to, step)), Some((from, rank, step)))
                    }
                };
                if let Some(edge) = to
                    && !*exchanging
                {
                    edges.send(edge.0, edge.1, edge.2);
                    under_way.insert(edge, result.clone());
                    progress = true;
                }
                if let Some(edge) = from {
                    let Some(operand) = under_way.remove(&edge) else {
                        *exchanging = to.is_some();
                        break;
                    };
                    edges.recv(edge.0, edge.1, edge.2);
                    *result = match action {
                        Action::Merge { side: Side::Left, .. }
                        | Action::Exchange { side: Side::Left, .. } => {
                            format!("({operand} {result})")
                        }
                        Action::Merge { .. } | Action::Exchange { .. } => format!("({result} {operand})"),
                        Action::Replace { .. } | Action::Send { .. } => operand,
                    };
                }
                *exchanging = false;
                progress = true;
                schedules[rank as usize].next();
            }
        }
        if !progress {
            break;
        }
    }
    assert!(schedules.iter_mut().all(|schedule| schedule.peek().is_none()), "a rank waits for ever");
    edges.assert_paired();
    results
}

/// The ranks in the result of a simulation, from left to right.
pub(super) fn ranks_in(result: &str) -> Vec<Rank> {
    result.split(['(', ')', ' ']).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
}

/// The numbers of ranks to run with: all small ones, around a power of two, and
/// one with more rounds.
pub(super) fn sizes() -> impl Iterator<Item = u32> {
    (1..=17).chain([33, 64])
}

/// The roots to run with: all if they are few.
pub(super) fn roots(size: u32) -> impl Iterator<Item = Rank> {
    (0..size).filter(move |root| size <= 17 || [0, 31, size - 1].contains(root))
}

/// Those sizes, each with those roots.
pub(super) fn sizes_and_roots() -> impl Iterator<Item = (u32, Rank)> {
    sizes().flat_map(|size| roots(size).map(move |root| (size, root)))
}

/// A number of ranks of at most `most`, and a root.
pub(super) fn size_and_root(most: u32) -> impl Strategy<Value = (u32, Rank)> {
    (1..=most).prop_flat_map(|size| (Just(size), 0..size))
}

/// The numbers of elements to run with.
pub(super) fn counts(size: u32) -> BTreeSet<usize> {
    BTreeSet::from([0, 1, size as usize - 1, size as usize, 1000])
}

/// SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// `length` bytes that are the same for every call with this seed.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next() as u8).collect()
}

/// An operation with its definition, written without [`Op`].
pub(super) struct Reduction {
    pub(super) name: &'static str,
    pub(super) op: Op,
    pub(super) datatype: Datatype,
    /// Makes an element of random bits.
    element: fn(u64) -> u64,
    combine: fn(u64, u64) -> u64,
}

impl Reduction {
    fn user(name: &'static str, associative: bool, datatype: Datatype, combine: fn(u64, u64) -> u64) -> Self {
        let function = move |inout: &mut [u8], input: &[u8], count: usize, datatype: Datatype| {
            assert_eq!(inout.len(), count * datatype.size());
            inout.copy_from_slice(&elementwise(datatype, inout, input, combine));
            Ok(())
        };
        let op = Op::user(function, false, associative, None);
        Self { name, op, datatype, element: |bits| bits, combine }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.op.order() == Order::Strict
    }

    /// The operands of `size` ranks.
    pub(super) fn operands(&self, size: u32, count: usize) -> Vec<Vec<u8>> {
        let operand = |rank| {
            let mut random = Random(u64::from(rank) << 32);
            buffer_of(self.datatype, (0..count).map(|_| (self.element)(random.next())))
        };
        (0..size).map(operand).collect()
    }

    /// `x0`, `x0 x1`, `(x0 x1) x2`, and so on: what a scan gives, and at the end
    /// what a reduction does.
    pub(super) fn prefixes(&self, operands: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut prefixes = vec![operands[0].clone()];
        for operand in &operands[1..] {
            let prefix = elementwise(self.datatype, prefixes.last().unwrap(), operand, self.combine);
            prefixes.push(prefix);
        }
        prefixes
    }
}

fn elementwise(datatype: Datatype, left: &[u8], right: &[u8], combine: fn(u64, u64) -> u64) -> Vec<u8> {
    let size = datatype.size();
    let elements = left.chunks_exact(size).zip(right.chunks_exact(size));
    buffer_of(datatype, elements.map(|(left, right)| combine(to_bits(left), to_bits(right))))
}

/// The bits of an element of 4 or 8 bytes.
fn to_bits(element: &[u8]) -> u64 {
    match element.try_into() {
        Ok(bytes) => u64::from(u32::from_ne_bytes(bytes)),
        Err(_) => u64::from_ne_bytes(element.try_into().unwrap()),
    }
}

fn buffer_of(datatype: Datatype, elements: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(elements.size_hint().0 * datatype.size());
    for bits in elements {
        match datatype.size() {
            4 => buffer.extend((bits as u32).to_ne_bytes()),
            _ => buffer.extend(bits.to_ne_bytes()),
        }
    }
    buffer
}

/// One operation for each order of operands. All calculate modulo 2^32, with
/// nothing that a wrong order could leave unchanged.
pub(super) fn reductions() -> [Reduction; 3] {
    let sum = Reduction {
        name: "sum",
        op: Op::SUM,
        datatype: Datatype::Int32,
        element: |bits| bits,
        combine: |left, right| left + right,
    };
    // An element is the function x -> a x + b; first the left one is applied.
    let compose = |left: u64, right: u64| {
        let ((a, b), (c, d)) = ((left as u32, (left >> 32) as u32), (right as u32, (right >> 32) as u32));
        u64::from(a.wrapping_mul(c)) | u64::from(b.wrapping_mul(c).wrapping_add(d)) << 32
    };
    let mut composition = Reduction::user("composition", true, Datatype::UInt64, compose);
    // An even factor would wipe out what stands to its left.
    composition.element = |bits| bits | 1;
    let lopsided = |left: u64, right: u64| 3 * left + right;
    [sum, composition, Reduction::user("lopsided", false, Datatype::UInt32, lopsided)]
}

/// A sum whose last bits depend on the order, with NaNs of many kinds in it.
pub(super) fn float_sum() -> Reduction {
    Reduction {
        name: "float sum",
        op: Op::SUM,
        datatype: Datatype::Float,
        element: |bits| {
            let float = match bits % 200 {
                0 => f32::from_bits(0x7f80_0001 | bits as u32),
                1 => f32::INFINITY.copysign(bits as i32 as f32),
                _ => (bits >> 32) as i32 as f32 * ((bits % 31) as f32).exp2(),
            };
            u64::from(float.to_bits())
        },
        combine: |_, _| unreachable!("the definition leaves the brackets open"),
    }
}

/// A message under way.
struct Message {
    data: Vec<u8>,
    /// How many messages, this one included, had to come one after the other.
    chain: usize,
}

/// The messages that a call sent.
#[derive(Default)]
pub(super) struct Traffic {
    /// With their lengths.
    sent: HashMap<Edge, usize>,
    /// The most that had to come one after the other.
    longest_chain: usize,
}

impl Traffic {
    /// Asserts that these are the messages of which `cost` speaks.
    pub(super) fn assert_is(&self, cost: Cost) {
        let messages = |of: Exchanges| of.count * u64::from(of.producers) * u64::from(of.consumers);
        let bytes = cost.all().map(|of| messages(of) * of.bytes as u64).sum::<u64>();
        assert_eq!(cost.all().map(messages).sum::<u64>(), self.sent.len() as u64, "messages of {cost:?}");
        assert_eq!(bytes, self.sent.values().sum::<usize>() as u64, "bytes of {cost:?}");
        let path = cost
            .path()
            .flat_map(|of| (0..of.count).map(move |_| (of.producers, of.consumers, of.bytes)))
            .collect::<Vec<_>>();
        assert_eq!(path, self.path(), "{cost:?}");
    }

    /// The exchanges that had to come one after the other: one for each step,
    /// from the most messages that a rank gets in it to the most that it sends.
    fn path(&self) -> Vec<(u32, u32, usize)> {
        let mut steps: BTreeMap<Step, Vec<(Rank, Rank, usize)>> = BTreeMap::new();
        for (&(from, to, step), &length) in &self.sent {
            steps.entry(step).or_default().push((from, to, length));
        }
        let most = |ranks: Vec<Rank>| {
            let mut counts = HashMap::new();
            ranks.into_iter().for_each(|rank| *counts.entry(rank).or_insert(0) += 1);
            counts.into_values().max().unwrap_or(0)
        };
        let mut path: Vec<_> = steps
            .into_values()
            .map(|messages| {
                let producers = most(messages.iter().map(|message| message.1).collect());
                let consumers = most(messages.iter().map(|message| message.0).collect());
                (producers, consumers, messages.iter().map(|message| message.2).max().unwrap_or(0))
            })
            .collect();
        // The messages of a chain may share a step, each with another rank.
        if let [only] = path[..] {
            path = vec![only; self.longest_chain];
        }
        path
    }
}

/// Calls of one collective between ranks in one thread.
///
/// Every second seed makes a network that buffers; the others complete a send
/// only when its receive has been started. Which rank goes on, and which
/// transfer that could complete does so, is random.
struct Network {
    size: u32,
    buffers: bool,
    random: Random,
    messages: HashMap<Edge, Message>,
    traffic: Traffic,
    awaited: HashSet<Edge>,
    /// Polls since the last that completed anything.
    idle: u32,
}

/// More idle polls than bad luck explains: each has an even chance.
const DEADLOCK: u32 = 100_000;

/// One rank's call.
pub(super) struct Call {
    network: Rc<RefCell<Network>>,
    rank: Rank,
    /// The longest chain of messages that has led to this rank.
    chain: Cell<usize>,
}

impl Call {
    /// Does nothing for a while.
    pub(super) async fn pause(&self) {
        self.complete(|_| Some(())).await;
    }

    /// Completes sometime after `transfer` could.
    fn complete<T>(&self, mut transfer: impl FnMut(&mut Network) -> Option<T>) -> impl Future<Output = T> {
        poll_fn(move |_| {
            let mut network = self.network.borrow_mut();
            let lucky = network.random.next() & 1 == 0;
            match lucky.then(|| transfer(&mut network)).flatten() {
                Some(outcome) => {
                    network.idle = 0;
                    Poll::Ready(outcome)
                }
                None => {
                    network.idle += 1;
                    assert!(network.idle < DEADLOCK, "deadlock; unread: {:?}", network.messages.keys());
                    Poll::Pending
                }
            }
        })
    }
}

impl PeerToPeer for Call {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.network.borrow().size
    }

    fn send<'a>(&'a self, to: Rank, step: Step, data: &'a [u8]) -> impl Future<Output = Result<()>> + 'a {
        let edge = (self.rank, to, step);
        let mut network = self.network.borrow_mut();
        assert!(to < network.size);
        assert!(network.traffic.sent.insert(edge, data.len()).is_none(), "two messages {edge:?}");
        let chain = self.chain.get() + 1;
        network.traffic.longest_chain = network.traffic.longest_chain.max(chain);
        network.messages.insert(edge, Message { data: data.to_vec(), chain });
        drop(network);
        self.complete(move |network| (network.buffers || network.awaited.contains(&edge)).then_some(Ok(())))
    }

    fn recv<'a>(
        &'a self,
        from: Rank,
        step: Step,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a {
        let edge = (from, self.rank, step);
        assert!(self.network.borrow_mut().awaited.insert(edge), "two receives {edge:?}");
        self.complete(move |network| {
            let Message { data, chain } = network.messages.remove(&edge)?;
            self.chain.set(self.chain.get().max(chain));
            if data.len() != buffer.len() {
                return Some(Err(Error::new(ErrorKind::Mismatch, "lengths differ").with_peer(from)));
            }
            buffer.copy_from_slice(&data);
            Some(Ok(()))
        })
    }
}

/// Runs one call on each of `size` ranks, in an order that `seed` decides, and
/// returns what each gives back. No message may be left over.
pub(super) fn run<T, F: Future<Output = T>>(size: u32, seed: u64, start: impl Fn(Call) -> F) -> Vec<T> {
    run_recorded(size, seed, start).0
}

/// Runs one call on each of `size` ranks, and returns what it sent.
pub(super) fn traffic<F: Future<Output = Result<()>>>(size: u32, start: impl Fn(Call) -> F) -> Traffic {
    let (results, traffic) = run_recorded(size, 0, start);
    results.into_iter().for_each(Result::unwrap);
    traffic
}

fn run_recorded<T, F: Future<Output = T>>(
    size: u32,
    seed: u64,
    start: impl Fn(Call) -> F,
) -> (Vec<T>, Traffic) {
    let network = Rc::new(RefCell::new(Network {
        size,
        buffers: seed.is_multiple_of(2),
        random: Random(seed),
        messages: HashMap::new(),
        traffic: Traffic::default(),
        awaited: HashSet::new(),
        idle: 0,
    }));
    let mut running: Vec<_> = (0..size)
        .map(|rank| (rank, Box::pin(start(Call { network: network.clone(), rank, chain: Cell::new(0) }))))
        .collect();
    let mut results: Vec<Option<T>> = (0..size).map(|_| None).collect();
    while !running.is_empty() {
        let chosen = (network.borrow_mut().random.next() % running.len() as u64) as usize;
        let (rank, future) = &mut running[chosen];
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            results[*rank as usize] = Some(result);
            running.swap_remove(chosen);
        }
    }
    let mut network = network.borrow_mut();
    assert!(network.messages.is_empty(), "unread: {:?}", network.messages.keys());
    (results.into_iter().flatten().collect(), mem::take(&mut network.traffic))
}
