//! Engines against each other, without sockets and without a clock.
//!
//! Up to five engines are joined by pipes of bounded capacity. A scheduler picks
//! at random who acts, how many bytes move, which way they come in, which request
//! is polled or cancelled, and which link breaks. Everything follows from one
//! seed; it is printed when a run fails, and `FMI_SEED=n` runs that one alone.
//! `FMI_SEEDS` says how many there are in total.

mod buffer;
mod busy;
mod calls;
mod cancelling;
mod collectives;
mod hostile;
mod losing;
mod point_to_point;
mod random;
mod world;

/// Runs `scenario` for its share (in per mille) of the seeds.
fn for_each_seed(share: u64, scenario: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("FMI_SEED") {
        return scenario(seed);
    }
    let total = number("FMI_SEEDS").unwrap_or(if cfg!(miri) { 40 } else { 1500 });
    for seed in 0..(total * share).div_ceil(1000) {
        let told = TellSeed(seed);
        scenario(seed);
        drop(told);
    }
}

/// Prints the seed of the run that panics.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with FMI_SEED={}", self.0);
        }
    }
}
