//! Ranks that send, receive and leave in random schedules, over real sockets:
//! whatever a send accepted arrives, or the sender's close said otherwise; nobody
//! gets anything else, and nobody hangs.
//!
//! Everything but the timing follows from a seed, which is printed when a schedule
//! fails: `FMI_SEED=n` runs that one alone, `FMI_CLOSE_SEEDS` says how many there
//! are (200; `make soak` runs 10,000).

mod support;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fmi::{Communicator, ErrorKind, Op, Result};
use support::{Channel, config, milliseconds, server, watched};

/// A call that takes as long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than a socket takes that nobody reads.
const LARGEST: usize = 9 << 20;

/// Xorshift, seeded by splitmix.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, Debug)]
struct Message {
    from: u32,
    to: u32,
    length: usize,
    is_received: bool,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Sends, or receives, the message with this number.
    Send(usize),
    Receive(usize),
    /// Computes for so many microseconds.
    Compute(u64),
}

#[derive(Clone, Copy, Debug)]
enum Leave {
    Close(Duration),
    Destroy,
}

struct Schedule {
    channel: Channel,
    /// How the ranks begin: with links among all of them, or among few.
    begins_with_barrier: bool,
    messages: Vec<Message>,
    /// What each rank does, in order, and how it leaves then.
    ranks: Vec<(Vec<Act>, Leave)>,
}

impl Schedule {
    /// A message is received later than it is sent in one order of everything, so
    /// that no rank waits for another that waits for it.
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let channel = if random.chance(75) { Channel::Direct } else { Channel::Memory };
        let size = 2 + random.below(3) as u32;
        let is_flood = random.chance(3);
        let count = if is_flood { 1100 } else { random.below(25) };
        let lengths: &[usize] = match () {
            () if is_flood => &[0, 8],
            () if random.chance(10) => &[1 << 20, (1 << 20) + 1, 3 << 20, LARGEST],
            () => &[0, 1, 8, 100, 100, 5000, 5000, 60_000, 300_000],
        };
        let unread = random.pick(&[0, 0, 0, 20, 100]);
        let late = random.pick(&[0, 3, 30]);
        let mut messages = Vec::new();
        let mut timeline: Vec<(u64, u32, Act)> = Vec::new();
        for number in 0..count as usize {
            let from = random.below(size.into()) as u32;
            let to = (from + 1 + random.below(u64::from(size) - 1) as u32) % size;
            let length = random.pick(lengths);
            messages.push(Message { from, to, length, is_received: false });
            let now = 10 * number as u64;
            timeline.push((now, from, Act::Send(number)));
            if random.chance(10) && !is_flood {
                let rank = random.below(size.into()) as u32;
                timeline.push((now, rank, Act::Compute(random.pick(&[50, 1000, 5000]))));
            }
        }
        // What is never received is the end of a stream.
        let mut receives: Vec<Vec<usize>> = vec![Vec::new(); (size * size) as usize];
        for (number, message) in messages.iter().enumerate() {
            receives[(message.from * size + message.to) as usize].push(number);
        }
        for stream in &mut receives {
            if random.chance(unread) {
                stream.truncate(random.below(stream.len() as u64 + 1) as usize);
            }
            let mut after = 0;
            for &number in stream.iter() {
                messages[number].is_received = true;
                after = (10 * number as u64 + 1 + 10 * random.below(late + 1)).max(after);
                timeline.push((after, messages[number].to, Act::Receive(number)));
            }
        }
        timeline.sort_by_key(|(time, ..)| *time);
        let ranks = (0..size).map(|rank| {
            let mut acts: Vec<_> =
                timeline.iter().filter(|(_, who, _)| *who == rank).map(|(.., act)| *act).collect();
            if random.chance(30) {
                let time = if random.chance(2) { 1_200_000 } else { random.pick(&[100, 2000, 10_000]) };
                let at = random.below(acts.len() as u64 + 1) as usize;
                acts.insert(at, Act::Compute(time));
            }
            let leave = match random.below(10) {
                0..2 => Leave::Close(Duration::from_millis(1 + random.below(5))),
                2..6 => Leave::Destroy,
                _ => Leave::Close(PATIENCE * 2),
            };
            (acts, leave)
        });
        let ranks = ranks.collect();
        Self { channel, begins_with_barrier: random.chance(50), ranks, messages }
    }
}

/// What all messages are pieces of.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(0);
    (0..LARGEST + 10_000).map(|_| random.below(256) as u8).collect()
});

fn content(number: usize, length: usize) -> &'static [u8] {
    &BYTES[number..][..length]
}

/// What became of a rank's acts, and of its departure.
struct Record {
    sent: Vec<(usize, Result<()>)>,
    received: Vec<(usize, Result<()>)>,
    left: Result<()>,
}

fn live(comm: Communicator, schedule: &Schedule) -> Record {
    let (acts, leave) = &schedule.ranks[comm.rank() as usize];
    comm.set_timeout(Some(PATIENCE)).unwrap();
    // All join the same run of the job, before all others may have left it.
    match schedule.begins_with_barrier {
        true => comm.barrier().unwrap(),
        false => comm.reduce(&[1u8], Some(&mut [0]), &Op::SUM, 0).unwrap(),
    }
    let mut record = Record { sent: Vec::new(), received: Vec::new(), left: Ok(()) };
    for act in acts {
        let start = Instant::now();
        match *act {
            Act::Send(number) => {
                let Message { to, length, .. } = schedule.messages[number];
                record.sent.push((number, comm.send(content(number, length), to)));
            }
            Act::Receive(number) => {
                let Message { from, length, .. } = schedule.messages[number];
                let mut buffer = vec![0u8; length];
                let outcome = comm.recv(&mut buffer, from);
                let is_right = outcome.is_err() || buffer == content(number, length);
                assert!(is_right, "message {number} is not what was sent");
                record.received.push((number, outcome));
            }
            Act::Compute(time) => std::thread::sleep(Duration::from_micros(time)),
        }
        let hangs = start.elapsed() >= PATIENCE;
        assert!(!hangs, "{act:?} of rank {} hangs: {:?}", comm.rank(), comm.last_error());
    }
    let start = Instant::now();
    match *leave {
        Leave::Close(timeout) => record.left = comm.close(milliseconds(timeout.as_millis() as u64)),
        Leave::Destroy => drop(comm),
    }
    assert!(start.elapsed() < PATIENCE, "{leave:?} hangs: {:?}", record.left);
    record
}

fn check(schedule: &Schedule, records: &[Record]) {
    let gave_up = |rank: u32| records[rank as usize].left.is_err();
    for (rank, record) in records.iter().enumerate() {
        if let Err(error) = &record.left {
            let is_hasty = matches!(schedule.ranks[rank].1, Leave::Close(time) if time < PATIENCE);
            match error.kind() {
                ErrorKind::Timeout if is_hasty => {}
                // The other gave up, and could not even say goodbye.
                ErrorKind::PeerLost if gave_up(error.peer().unwrap()) => {}
                _ => panic!("rank {rank} leaves: {error}"),
            }
        }
        for (number, outcome) in &record.sent {
            let Message { to, is_received, .. } = schedule.messages[*number];
            let Err(error) = outcome else { continue };
            let is_gone =
                error.kind() == ErrorKind::PeerLeft || error.kind() == ErrorKind::PeerLost && gave_up(to);
            assert!(is_gone && !is_received, "message {number}, to be received: {is_received}: {error}");
        }
        for (number, outcome) in &record.received {
            let Message { from, .. } = schedule.messages[*number];
            let Err(error) = outcome else { continue };
            let is_gone = matches!(error.kind(), ErrorKind::PeerLeft | ErrorKind::PeerLost);
            assert!(
                is_gone && gave_up(from),
                "message {number} was sent, and rank {from} left in order: {error}"
            );
        }
    }
}

#[test]
fn whatever_was_accepted_arrives_or_close_says_otherwise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("FMI_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FMI_CLOSE_SEEDS").unwrap_or(200),
    };
    let limit = Duration::from_secs(60) + Duration::from_millis(300) * seeds.clone().count() as u32;
    watched(limit, move || {
        let server = server();
        let start = Instant::now();
        let mut gave_up = 0;
        for seed in seeds.clone() {
            let schedule = Schedule::new(seed);
            let size = schedule.ranks.len() as u32;
            let config = config(schedule.channel, Some(&server));
            let name = format!("schedule-{seed}");
            let told = TellSeed(seed);
            let records: Vec<Record> = std::thread::scope(|scope| {
                let ranks: Vec<_> = (0..size)
                    .map(|rank| {
                        let comm = Communicator::create(rank, size, &name, &config).unwrap();
                        let schedule = &schedule;
                        scope.spawn(move || live(comm, schedule))
                    })
                    .collect();
                let join = |rank: std::thread::ScopedJoinHandle<'_, Record>| rank.join();
                ranks.into_iter().map(join).collect::<std::thread::Result<_>>().expect("a rank fails")
            });
            check(&schedule, &records);
            drop(told);
            gave_up += records.iter().filter(|record| record.left.is_err()).count();
        }
        println!("{seeds:?} in {:?}; {gave_up} departures gave up", start.elapsed());
    });
}

/// Prints the seed of the schedule that panics.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with FMI_SEED={}", self.0);
        }
    }
}
