//! What operations are predicted to take, in milliseconds, and to cost, in US
//! dollars.
//!
//! A [`Model`] answers for a *simple exchange*, in which each of some producers
//! has one message for all of some consumers. Every algorithm states in a [`Cost`]
//! of which exchanges it is made: latency and price both follow from that.
//!
//! For p producers, c consumers, and messages of s bytes, the library's channels
//! ([`ChannelModel`]) say:
//!
//! ```text
//!          latency = ceil(log2(p + c)) * alpha + transfer
//!          alpha              transfer
//! Direct   overhead           p c s / bandwidth
//! Redis    overhead           p c s / min(p c bandwidth_single, bandwidth_multiple)
//! S3       overhead + wait    s / bandwidth; every request has its own
//!
//!          price
//! Direct   2 p c s transfer_price + share
//! Redis    (1 + c) p s transfer_price + share
//! S3       p upload_price + gets download_price + (p + p c) s transfer_price
//! ```
//!
//! where *share* is an operation's part of what the server costs, which it bears
//! once, of however many exchanges it is made. Memory takes and costs nothing.
//!
//! All ranks must make the same choice, so they must predict the same bits on
//! whatever processor: there is nothing here but the four operations of IEEE 754
//! and comparisons, and the logarithm is that of an integer, rounded up, which
//! is the number of rounds in which p + c ranks reach each other.

/// The parameters of everything that is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// USD per GiB-second of function time.
    pub(crate) gib_second_price: f64,
    pub(crate) direct: DirectParameters,
    pub(crate) redis: RedisParameters,
    pub(crate) s3: S3Parameters,
}

/// The parameters of Direct.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DirectParameters {
    /// MB/s, between two ranks.
    pub(crate) bandwidth: f64,
    /// ms per message.
    pub(crate) overhead: f64,
    /// USD per GB.
    pub(crate) transfer_price: f64,
    /// The rendezvous server.
    pub(crate) server: ServerParameters,
}

/// The parameters of Redis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RedisParameters {
    /// MB/s, between one rank and the server.
    pub(crate) bandwidth_single: f64,
    /// MB/s, of the server in all.
    pub(crate) bandwidth_multiple: f64,
    /// ms per message.
    pub(crate) overhead: f64,
    /// USD per GB.
    pub(crate) transfer_price: f64,
    /// The Redis server.
    pub(crate) server: ServerParameters,
}

/// The parameters of a server that is paid by the hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ServerParameters {
    /// USD per hour.
    pub(crate) price: f64,
    /// Over how many operations an hour's price is spread.
    pub(crate) requests_per_hour: f64,
    /// Whether operations bear it at all.
    pub(crate) is_included: bool,
}

impl ServerParameters {
    /// The part of one operation, in USD.
    fn share(&self) -> f64 {
        if self.is_included { self.price / self.requests_per_hour } else { 0.0 }
    }
}

/// The parameters of S3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct S3Parameters {
    /// MB/s, of one request.
    pub(crate) bandwidth: f64,
    /// ms per message.
    pub(crate) overhead: f64,
    /// USD per GB.
    pub(crate) transfer_price: f64,
    /// USD per GET.
    pub(crate) download_price: f64,
    /// USD per PUT.
    pub(crate) upload_price: f64,
    /// How its readers wait.
    pub(crate) waiting: Waiting,
}

/// What comes of looking for an object again and again until it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waiting {
    /// ms from when an object is there to the look that finds it.
    pub(crate) delay: f64,
    /// GETs per object and reader, the one that finds it included.
    pub(crate) gets: f64,
}

impl Waiting {
    /// A reader who starts together with the writer and looks every 50 ms, as the
    /// original's configuration has it: the first look comes too early, the second
    /// finds the object, which has been there for half a pause on average.
    /// Provisional: the S3 channel will state how it waits.
    pub(crate) const POLLING: Self = Self { delay: 25.0, gets: 2.0 };
}

/// Predicts exchanges over one channel.
pub(crate) trait Model {
    /// The latency of a simple exchange, in ms.
    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64;

    /// Its price, in USD, where it is an operation of its own.
    fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64;

    /// Its price where it is a part of an operation: without the
    /// [share](Self::share).
    fn price_of_part(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.price(producers, consumers, bytes)
    }

    /// What every operation costs beyond its parts.
    fn share(&self) -> f64 {
        0.0
    }

    /// The latency of an operation, in ms.
    fn operation_latency(&self, cost: &Cost) -> f64 {
        cost.latency(&|producers, consumers, bytes| self.latency(producers, consumers, bytes))
    }

    /// The price of an operation over the channel, in USD. The function time is
    /// priced by [`time_price`].
    fn operation_price(&self, cost: &Cost) -> f64 {
        let share = if *cost == Cost::NOTHING { 0.0 } else { self.share() };
        share + cost.price(&|producers, consumers, bytes| self.price_of_part(producers, consumers, bytes))
    }
}

/// The model of one of the library's channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ChannelModel {
    Memory,
    Direct(DirectParameters),
    Redis(RedisParameters),
    S3(S3Parameters),
}

impl Model for ChannelModel {
    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        let rounds = f64::from(rounds(producers, consumers));
        let (one, all) = volumes(producers, consumers, bytes);
        match self {
            Self::Memory => 0.0,
            Self::Direct(direct) => rounds * direct.overhead + transfer_time(all, direct.bandwidth),
            Self::Redis(redis) => {
                // The slower of one connection and the whole server: the same as
                // by the lesser bandwidth, and never less for more messages.
                let single = transfer_time(one, redis.bandwidth_single);
                let multiple = transfer_time(all, redis.bandwidth_multiple);
                rounds * redis.overhead + single.max(multiple)
            }
            Self::S3(s3) => rounds * (s3.overhead + s3.waiting.delay) + transfer_time(one, s3.bandwidth),
        }
    }

    fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.share() + self.price_of_part(producers, consumers, bytes)
    }

    fn price_of_part(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        let (one, all) = volumes(producers, consumers, bytes);
        let (producers, consumers) = (f64::from(producers), f64::from(consumers));
        match self {
            Self::Memory => 0.0,
            // It leaves one rank and enters another.
            Self::Direct(direct) => transfer_price(2.0 * all, direct.transfer_price),
            Self::Redis(redis) => transfer_price(producers * one + all, redis.transfer_price),
            Self::S3(s3) => {
                let gets = producers * consumers * s3.waiting.gets;
                producers * s3.upload_price
                    + gets * s3.download_price
                    + transfer_price(producers * one + all, s3.transfer_price)
            }
        }
    }

    fn share(&self) -> f64 {
        match self {
            Self::Memory | Self::S3(_) => 0.0,
            Self::Direct(direct) => direct.server.share(),
            Self::Redis(redis) => redis.server.share(),
        }
    }
}

/// The logarithm to base 2 of the number of ranks in an exchange, rounded up.
fn rounds(producers: u32, consumers: u32) -> u32 {
    let ranks = u64::from(producers) + u64::from(consumers);
    u64::BITS - ranks.saturating_sub(1).leading_zeros()
}

/// The bytes of one message and of all, in an exchange; 0 where nobody sends or
/// nobody receives.
fn volumes(producers: u32, consumers: u32, bytes: usize) -> (f64, f64) {
    let messages = f64::from(producers) * f64::from(consumers);
    if messages == 0.0 { (0.0, 0.0) } else { (bytes as f64, messages * bytes as f64) }
}

/// The ms that `bytes` take. The bandwidth is in MB/s of 1e6 bytes: 1e3 bytes per ms.
fn transfer_time(bytes: f64, bandwidth: f64) -> f64 {
    bytes / (bandwidth * 1e3)
}

/// The USD that `bytes` cost at a price per GB of 1e9 bytes.
fn transfer_price(bytes: f64, price: f64) -> f64 {
    bytes * price / 1e9
}

/// The price, in USD, of the function time of `ranks` ranks with `memory_mib` MiB
/// each that wait for `latency` ms: every one of them is billed.
pub(crate) fn time_price(ranks: u32, latency: f64, memory_mib: u32, gib_second_price: f64) -> f64 {
    f64::from(ranks) * (latency / 1000.0) * (f64::from(memory_mib) / 1024.0) * gib_second_price
}

/// Exchanges that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchanges {
    pub(crate) count: u64,
    pub(crate) producers: u32,
    pub(crate) consumers: u32,
    /// Bytes of each message.
    pub(crate) bytes: usize,
}

impl Exchanges {
    const NONE: Self = Self { count: 0, producers: 0, consumers: 0, bytes: 0 };
}

fn sum(all: impl Iterator<Item = Exchanges>, exchange: &impl Fn(u32, u32, usize) -> f64) -> f64 {
    all.fold(0.0, |sum, Exchanges { count, producers, consumers, bytes }| {
        sum + count as f64 * exchange(producers, consumers, bytes)
    })
}

/// A part of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    /// The exchanges that come one after the other.
    path: Exchanges,
    /// All exchanges, of all ranks.
    all: Exchanges,
}

impl Phase {
    const NONE: Self = Self { path: Exchanges::NONE, all: Exchanges::NONE };
}

/// What an algorithm states about itself: the exchanges on its critical path,
/// which make its latency, and all of them, which make its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// One after the other. No algorithm has more yet.
    phases: [Phase; 2],
}

impl Cost {
    /// No exchange at all.
    pub(crate) const NOTHING: Self = Self { phases: [Phase::NONE; 2] };

    /// One exchange.
    pub(crate) fn exchange(producers: u32, consumers: u32, bytes: usize) -> Self {
        if producers == 0 || consumers == 0 {
            return Self::NOTHING;
        }
        let one = Exchanges { count: 1, producers, consumers, bytes };
        Self { phases: [Phase { path: one, all: one }, Phase::NONE] }
    }

    /// `rounds` rounds, in each of which a rank has one message of `bytes` bytes
    /// at a time to send, to receive, or both; `messages` messages in all.
    pub(crate) fn rounds(rounds: u32, messages: u64, bytes: usize) -> Self {
        if messages == 0 {
            return Self::NOTHING;
        }
        let exchanges = |count| Exchanges { count, producers: 1, consumers: 1, bytes };
        let phase = Phase { path: exchanges(u64::from(rounds)), all: exchanges(messages) };
        Self { phases: [phase, Phase::NONE] }
    }

    /// This, then `next`; each is one of the above.
    pub(crate) fn then(self, next: Self) -> Self {
        let ([first, none], [second, none_either]) = (self.phases, next.phases);
        debug_assert!(none == Phase::NONE && none_either == Phase::NONE);
        if first == Phase::NONE { next } else { Self { phases: [first, second] } }
    }

    /// The exchanges on the critical path.
    pub(crate) fn path(&self) -> impl Iterator<Item = Exchanges> {
        self.phases.into_iter().map(|phase| phase.path).filter(|exchanges| exchanges.count > 0)
    }

    /// All exchanges.
    pub(crate) fn all(&self) -> impl Iterator<Item = Exchanges> {
        self.phases.into_iter().map(|phase| phase.all).filter(|exchanges| exchanges.count > 0)
    }

    /// The latency, where `exchange(producers, consumers, bytes)` is that of one.
    pub(crate) fn latency(&self, exchange: &impl Fn(u32, u32, usize) -> f64) -> f64 {
        sum(self.path(), exchange)
    }

    /// The price, where `exchange(producers, consumers, bytes)` is that of one.
    pub(crate) fn price(&self, exchange: &impl Fn(u32, u32, usize) -> f64) -> f64 {
        sum(self.all(), exchange)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The original's figures, with prices for moved data, of which it has none.
    fn direct() -> DirectParameters {
        let server = ServerParameters { price: 0.0134, requests_per_hour: 1000.0, is_included: true };
        DirectParameters { bandwidth: 400.0, overhead: 0.34, transfer_price: 0.01, server }
    }

    fn redis() -> RedisParameters {
        RedisParameters {
            bandwidth_single: 100.0,
            bandwidth_multiple: 400.0,
            overhead: 5.2,
            transfer_price: 0.01,
            server: ServerParameters { price: 0.0038, requests_per_hour: 1000.0, is_included: true },
        }
    }

    fn s3() -> S3Parameters {
        S3Parameters {
            bandwidth: 50.0,
            overhead: 40.4,
            transfer_price: 0.01,
            download_price: 4.3e-7,
            upload_price: 5.4e-6,
            waiting: Waiting { delay: 10.0, gets: 1.5 },
        }
    }

    const MB: usize = 1_000_000;

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} for {expected}");
    }

    #[test]
    fn direct_by_hand() {
        let model = ChannelModel::Direct(direct());
        // An empty message is one overhead.
        assert_near(model.latency(1, 1, 0), 0.34);
        // 400 MB at 400 MB/s are 1000 ms.
        assert_near(model.latency(1, 1, 400 * MB), 1000.34);
        // 4 ranks: 2 rounds. 3 messages of 1 MB: 7.5 ms.
        assert_near(model.latency(3, 1, MB), 2.0 * 0.34 + 7.5);
        // 5 ranks: 3 rounds.
        assert_near(model.latency(2, 3, MB), 3.0 * 0.34 + 15.0);
        // 1 GB leaves at 0.01 USD, and enters at 0.01 USD; the server costs 0.0134 USD / 1000.
        assert_near(model.price(1, 1, 1000 * MB), 0.02 + 1.34e-5);
        assert_near(model.price(2, 3, 1000 * MB), 0.12 + 1.34e-5);
        assert_near(model.price_of_part(2, 3, 1000 * MB), 0.12);
        let mut free = direct();
        free.server.is_included = false;
        assert_near(ChannelModel::Direct(free).price(1, 1, 1000 * MB), 0.02);
    }

    #[test]
    fn redis_by_hand() {
        let model = ChannelModel::Redis(redis());
        assert_near(model.latency(1, 1, 0), 5.2);
        // One connection: 100 MB/s. Four: the server's 400. Six: still 400.
        assert_near(model.latency(1, 1, 100 * MB), 5.2 + 1000.0);
        assert_near(model.latency(2, 2, 100 * MB), 2.0 * 5.2 + 1000.0);
        assert_near(model.latency(2, 3, 100 * MB), 3.0 * 5.2 + 1500.0);
        // Each of two producers puts 1 GB once; each of three consumers gets both.
        assert_near(model.price(2, 3, 1000 * MB), (2.0 + 6.0) * 0.01 + 3.8e-6);
    }

    #[test]
    fn s3_by_hand() {
        let model = ChannelModel::S3(s3());
        assert_near(model.latency(1, 1, 0), 50.4);
        // Every request has its own 50 MB/s.
        assert_near(model.latency(2, 3, 50 * MB), 3.0 * 50.4 + 1000.0);
        // 2 PUTs, 6 objects to get with 1.5 GETs each; 2 GB up, 6 GB down.
        assert_near(model.price(2, 3, 1000 * MB), 2.0 * 5.4e-6 + 9.0 * 4.3e-7 + 8.0 * 0.01);
    }

    #[test]
    fn memory_takes_and_costs_nothing() {
        assert_eq!(ChannelModel::Memory.latency(3, 4, MB), 0.0);
        assert_eq!(ChannelModel::Memory.price(3, 4, MB), 0.0);
    }

    #[test]
    fn nobody_moves_nothing() {
        for model in [ChannelModel::Direct(direct()), ChannelModel::Redis(redis()), ChannelModel::S3(s3())] {
            for (producers, consumers) in [(0, 0), (0, 1), (1, 0)] {
                assert_eq!(model.latency(producers, consumers, MB), 0.0);
            }
            assert_eq!(model.price(0, 0, MB), model.share());
        }
    }

    #[test]
    fn the_logarithm_is_rounded_up() {
        let expected =
            [((1, 1), 1), ((2, 1), 2), ((3, 1), 2), ((4, 1), 3), ((5, 3), 3), ((u32::MAX, u32::MAX), 33)];
        for ((producers, consumers), number) in expected {
            assert_eq!(rounds(producers, consumers), number);
        }
    }

    #[test]
    fn function_time_by_hand() {
        // Four functions of half a GiB, each for 2 s: 4 GiB-seconds.
        assert_near(time_price(4, 2000.0, 512, 0.0000166667), 4.0 * 0.0000166667);
    }

    /// The original calculates otherwise in each of these.
    #[test]
    fn the_mistakes_of_the_original_are_not_made() {
        // It adds seconds of transfer to milliseconds of overhead.
        let model = ChannelModel::Direct(direct());
        assert!(model.latency(1, 1, 400 * MB) > 1000.0, "not 0.34 + 1");
        // It bills milliseconds as seconds, and one rank instead of all.
        let billed = time_price(4, 1000.0, 1024, 1.0);
        assert_near(billed, 4.0);
        assert_ne!(billed, 4000.0);
        assert_ne!(billed, 1.0);
        // It prices a scan by latencies.
        let mut free = direct();
        free.transfer_price = 0.0;
        free.server.is_included = false;
        let scan = Cost::rounds(3, 7, MB);
        assert_eq!(ChannelModel::Direct(free).operation_price(&scan), 0.0);
        // It divides the numbers of polls as integers: 1.5 GETs become 1.
        let mut gets_alone = s3();
        (gets_alone.upload_price, gets_alone.transfer_price) = (0.0, 0.0);
        assert_near(ChannelModel::S3(gets_alone).price(1, 1, MB), 1.5 * 4.3e-7);
    }

    #[test]
    fn an_operation_is_the_sum_of_its_exchanges_and_one_share() {
        let model = ChannelModel::Direct(direct());
        // 3 producers to one consumer; then 2 rounds, of 3 messages in all.
        let cost = Cost::exchange(3, 1, MB).then(Cost::rounds(2, 3, MB));
        let latency = model.latency(3, 1, MB) + 2.0 * model.latency(1, 1, MB);
        assert_near(model.operation_latency(&cost), latency);
        // 6 messages, each of which leaves and enters.
        assert_near(model.operation_price(&cost), 6.0 * 2.0 * 1e-3 * 0.01 + 1.34e-5);
        assert_eq!(model.operation_latency(&Cost::NOTHING), 0.0);
        assert_eq!(model.operation_price(&Cost::NOTHING), 0.0);
    }

    #[test]
    fn a_channel_of_the_users_has_functions_of_its_own() {
        struct Pigeon;
        impl Model for Pigeon {
            fn latency(&self, _producers: u32, _consumers: u32, bytes: usize) -> f64 {
                3.6e6 + bytes as f64
            }

            fn price(&self, producers: u32, _consumers: u32, _bytes: usize) -> f64 {
                f64::from(producers)
            }
        }
        let cost = Cost::rounds(2, 5, 100);
        assert_eq!(Pigeon.operation_latency(&cost), 2.0 * 3_600_100.0);
        assert_eq!(Pigeon.operation_price(&cost), 5.0);
    }

    fn models() -> impl Strategy<Value = ChannelModel> {
        let price = || prop_oneof![Just(0.0), 1e-9..10.0];
        let speed = || 1e-3..1e6;
        let overhead = || 0.0..1e4;
        let server =
            (price(), 1.0..1e6, any::<bool>()).prop_map(|(price, requests_per_hour, is_included)| {
                ServerParameters { price, requests_per_hour, is_included }
            });
        prop_oneof![
            Just(ChannelModel::Memory),
            (speed(), overhead(), price(), server.clone()).prop_map(
                |(bandwidth, overhead, transfer_price, server)| {
                    ChannelModel::Direct(DirectParameters { bandwidth, overhead, transfer_price, server })
                }
            ),
            (speed(), speed(), overhead(), price(), server).prop_map(
                |(bandwidth_single, bandwidth_multiple, overhead, transfer_price, server)| {
                    ChannelModel::Redis(RedisParameters {
                        bandwidth_single,
                        bandwidth_multiple,
                        overhead,
                        transfer_price,
                        server,
                    })
                }
            ),
            (speed(), overhead(), price(), price(), price()).prop_map(
                |(bandwidth, overhead, transfer_price, download_price, upload_price)| {
                    let waiting = Waiting::POLLING;
                    ChannelModel::S3(S3Parameters {
                        bandwidth,
                        overhead,
                        transfer_price,
                        download_price,
                        upload_price,
                        waiting,
                    })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn more_bytes_and_more_ranks_never_take_or_cost_less(
            model in models(),
            (producers, more_producers) in (0u32..70_000, 0u32..1000),
            (consumers, more_consumers) in (0u32..70_000, 0u32..1000),
            (bytes, more_bytes) in (0usize..1 << 50, 0usize..1 << 30),
        ) {
            let more = (producers + more_producers, consumers + more_consumers, bytes + more_bytes);
            let latency = model.latency(producers, consumers, bytes);
            let price = model.price(producers, consumers, bytes);
            prop_assert!(latency >= 0.0 && latency.is_finite());
            prop_assert!(price >= 0.0 && price.is_finite());
            prop_assert!(model.latency(more.0, more.1, more.2) >= latency);
            prop_assert!(model.price(more.0, more.1, more.2) >= price);
        }
    }
}
