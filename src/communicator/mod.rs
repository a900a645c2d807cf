//! The communicator: a group of ranks and the operations among them.
//!
//! It chooses the channel of each operation, sets the operation's deadline, and
//! keeps errors; [`over_endpoint`] and [`over_custom`] carry operations out.

mod channel;
mod collective;
mod over_custom;
mod over_endpoint;
mod point_to_point;

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{Config, InterruptFunction, Settings};
use crate::descriptors::{self, Generation};
use crate::endpoint::{Deadline, EndpointConfig, Limits, Signals, TransportConfig, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::policy;
use crate::rendezvous::protocol::MAX_SIZE;

pub use channel::Channel;
use over_custom::OverCustom;
use over_endpoint::OverEndpoint;

/// How long a call may take where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// In `Communicator::timeout_ms`: nothing set; no limit.
const UNSET: u64 = 0;
const NEVER: u64 = u64::MAX;

/// What the choice of channel and algorithm goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Hint {
    /// Least price.
    #[default]
    Cheap = 1,
    /// Least latency.
    Fast = 2,
}

/// A group of ranks and the operations among them.
///
/// All operations block the calling thread, up to the timeout (60 s unless set
/// otherwise). One thread at a time may be inside an operation; a second one
/// gets [`ErrorKind::Busy`]. All ranks call the same collectives in the same
/// order; where they do not, [`ErrorKind::Mismatch`].
///
/// # Errors
///
/// Every operation may return
///
/// * [`ErrorKind::Arg`]: a rank or a length is out of range; nothing was sent;
/// * [`ErrorKind::Timeout`]: the deadline passed;
/// * [`ErrorKind::Connect`]: the rendezvous server or a peer cannot be reached;
/// * [`ErrorKind::PeerLost`], [`ErrorKind::PeerLeft`]: a rank that is needed is
///   gone; [`Error::peer`] names it;
/// * [`ErrorKind::Busy`], [`ErrorKind::Closed`], [`ErrorKind::Forked`]: not now,
///   no more, not in this process;
/// * [`ErrorKind::Interrupted`], [`ErrorKind::Aborted`].
///
/// A collective that fails after something of it has moved poisons the
/// communicator: the other ranks are told, and every later collective returns
/// [`ErrorKind::Poisoned`] with the first cause. Sends and receives go on.
/// Something has moved once a byte of this rank's part has left, or a message of
/// the call has met one of its receives; what has come and not been met yet does
/// not count. Where nothing has moved, the call counts as not called: nobody is
/// told, and it is to be made again. Another collective in its place would be a
/// mismatch.
///
/// Dropping a communicator leaves the job in order, and waits for what was sent
/// to reach the other hosts, within the timeout; [`close`](Self::close) also waits
/// for it to be read, and says whether it was.
pub struct Communicator {
    rank: u32,
    size: u32,
    routing: Mutex<Routing>,
    hint: AtomicI32,
    timeout_ms: AtomicU64,
    signals: Arc<Signals>,
    interrupt: Option<Arc<InterruptFunction>>,
    last_error: Mutex<Option<Error>>,
    generation: Generation,
}

/// Where operations may go.
struct Routing {
    /// In order of preference.
    routes: Vec<Arc<Route>>,
    /// Channels that are enabled, and not in this build.
    absent: Vec<&'static str>,
    /// The user's own choice.
    pinned: Option<String>,
}

/// A channel as one communicator uses it.
struct Route {
    name: Arc<str>,
    timeout: Duration,
    carrier: Carrier,
}

/// What carries operations out.
#[allow(clippy::large_enum_variant, reason = "it is on the heap with its route")]
enum Carrier {
    Endpoint(OverEndpoint),
    Custom(OverCustom),
}

impl Communicator {
    /// Makes rank `rank` of `size` of the job `name`. All ranks of a job give
    /// the same name and size. No network I/O: an absent server shows at the
    /// first operation.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] if `rank` is not below `size`, or `size` is above
    /// 65,536; [`ErrorKind::Config`]; [`ErrorKind::Io`] if descriptors are
    /// short.
    pub fn create(rank: u32, size: u32, name: &str, config: &Config) -> Result<Self> {
        config.settings().and_then(|settings| Self::build(rank, size, name, settings)).map_err(creating)
    }

    /// As [`create`](Self::create), with everything from the environment: rank
    /// and size from `FMI_RANK` and `FMI_SIZE`, or the variables of PMI, Open
    /// MPI or Slurm.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); [`ErrorKind::Config`] if no rank or
    /// size is stated.
    pub fn from_env(name: &str) -> Result<Self> {
        let settings = Config::new().settings().map_err(creating)?;
        let (Some(rank), Some(size)) = (settings.rank, settings.size) else {
            let text =
                "neither FMI_RANK and FMI_SIZE nor another launcher's variables say which rank this is";
            return Err(creating(Error::new(ErrorKind::Config, text)));
        };
        Self::build(rank, size, name, settings).map_err(creating)
    }

    fn build(rank: u32, size: u32, name: &str, settings: Settings) -> Result<Self> {
        check_rank_and_size(rank, size)?;
        descriptors::watch_forks()?;
        let signals = Arc::new(Signals::new()?);
        let mut routes = Vec::new();
        for kind in BuiltIn::ALL.into_iter().filter(|kind| kind.is_enabled(&settings)) {
            let opened = Route::open(kind.name(), kind, &settings, rank, size, name, &signals)?;
            routes.push(Arc::new(opened));
        }
        Ok(Self {
            rank,
            size,
            routing: Mutex::new(Routing { routes, absent: settings.absent, pinned: None }),
            hint: AtomicI32::new(Hint::default() as i32),
            timeout_ms: AtomicU64::new(UNSET),
            signals,
            interrupt: settings.interrupt,
            last_error: Mutex::new(None),
            generation: Generation::current(),
        })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Sets what the choice of channel and algorithm goes by. All ranks must
    /// set the same.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`].
    pub fn set_hint(&self, hint: Hint) -> Result<()> {
        self.check_process()?;
        self.hint.store(hint as i32, Ordering::Relaxed);
        Ok(())
    }

    /// Sets how long a call may take; `None` = for ever. It wins over the
    /// configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] for less than a millisecond; [`ErrorKind::Forked`].
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        self.check_process()?;
        let milliseconds = match timeout {
            None => NEVER,
            Some(time) => u64::try_from(time.as_millis()).unwrap_or(NEVER - 1),
        };
        if milliseconds == UNSET {
            return Err(argument("a timeout of zero: no call could succeed".into()));
        }
        self.timeout_ms.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Pins the channel by its name; `None` = the policy chooses. All ranks must
    /// set the same.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where that channel is not enabled,
    /// [`ErrorKind::Arg`] where there is none of that name; [`ErrorKind::Forked`].
    pub fn set_channel(&self, name: Option<&str>) -> Result<()> {
        self.check_process()?;
        let mut routing = lock(&self.routing);
        if name.is_some() {
            routing.choose(name)?;
        }
        routing.pinned = name.map(str::to_owned);
        Ok(())
    }

    /// Has operations use `channel` under the name `name`, from the next one on. It
    /// replaces a channel of that name, be it built in, which is left in order. A
    /// channel of the user's own may be registered with several communicators: each
    /// finalizes it. All ranks must register alike.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where rank or size of the channel are not the
    /// communicator's, or `name` is empty; [`ErrorKind::Unsupported`] where the
    /// channel is not in this build; [`ErrorKind::Config`], [`ErrorKind::Io`] as for
    /// [`create`](Self::create); [`ErrorKind::Forked`].
    pub fn register_channel(&self, name: &str, channel: &Channel) -> Result<()> {
        self.check_process()?;
        if name.is_empty() {
            return Err(argument("a channel needs a name".into()));
        }
        if (channel.rank(), channel.size()) != (self.rank, self.size) {
            return Err(argument(format!(
                "the channel is of rank {} of {}, the communicator of rank {} of {}",
                channel.rank(),
                channel.size(),
                self.rank,
                self.size
            )));
        }
        let route = channel.route(name, &self.signals)?;
        // Not under the lock: it takes its time, and may call the user's functions.
        if let Some(route) = self.add_route(route) {
            let _ = self.leave(&route, Until::Arrived, &mut Deadline::after(self.timeout(&route)));
        }
        Ok(())
    }

    /// Adds a route, or puts it in the place of that of its name, which it returns.
    fn add_route(&self, route: Route) -> Option<Arc<Route>> {
        let routes = &mut lock(&self.routing).routes;
        let route = Arc::new(route);
        match routes.iter_mut().find(|known| known.name == route.name) {
            Some(place) => Some(std::mem::replace(place, route)),
            None => {
                routes.push(route);
                None
            }
        }
    }

    /// A descriptor: a byte written to it interrupts a blocked call, or runs the
    /// interrupt function of the configuration. It may be written from a signal
    /// handler, never blocks, and is closed with the communicator.
    pub fn wakeup_fd(&self) -> i32 {
        self.signals.write_end()
    }

    /// Ends the collectives of all ranks, from any thread: a call that is
    /// blocked on this communicator returns [`ErrorKind::Aborted`], and so do
    /// the running or next collectives of the other ranks, which hear of it over
    /// their links and from the rendezvous server. `code` is handed on in the
    /// message.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], [`ErrorKind::Forked`].
    pub fn abort(&self, code: i32) -> Result<()> {
        for route in self.routes() {
            match route.abort(code, self.rank) {
                // The thread that is inside does it.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.signals.request_abort(code);
                    self.abort_if_asked(&route);
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Leaves the job in order, however it ends; later calls return
    /// [`ErrorKind::Closed`]. Waits up to `timeout` (`None` = without limit) for
    /// what was sent to be read by the peers, or for their own departure: whoever
    /// leaves has chosen not to receive what it has not received. A peer that
    /// computes, outside of calls, does not say what it has read. Where nothing is
    /// left, it waits up to a second for the peers to hear of the departure.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where a peer has not read all, or
    /// [`ErrorKind::PeerLost`] where it was lost before it had: the error names the
    /// peer and what is left. What has reached the peer's host can still be
    /// received there. [`ErrorKind::Mismatch`] where a rank called a collective that
    /// this one did not; [`ErrorKind::Interrupted`], [`ErrorKind::Aborted`];
    /// [`ErrorKind::Busy`].
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let mut outcome = Ok(());
        for route in self.routes() {
            let left = self.leave(&route, Until::Read, &mut Deadline::after(timeout));
            outcome = outcome.and(left);
        }
        self.keep_error(Operation::Close, outcome)
    }

    fn leave(&self, route: &Route, until: Until, deadline: &mut Deadline) -> Result<()> {
        let left = match &route.carrier {
            Carrier::Endpoint(endpoint) => endpoint.leave(until, deadline),
            Carrier::Custom(custom) => custom.leave(until, &self.limits(deadline)),
        };
        left.map_err(|error| route.locate(error, deadline))
    }

    /// The last error that a call on this communicator returned.
    pub fn last_error(&self) -> Option<Error> {
        if let Err(error) = self.check_process() {
            return Some(error);
        }
        lock(&self.last_error).clone()
    }

    /// Refuses a child of the process that made the communicator, which may hold
    /// its locks for ever: a thread that is not in the child had them.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.generation.check()
    }

    /// Fails the collectives because of a fault outside of them, such as a panic
    /// that was caught.
    #[cfg(feature = "capi")]
    pub(crate) fn poison(&self, error: Error) {
        for route in self.routes() {
            route.poison(&error);
        }
        *lock(&self.last_error) = Some(error);
    }
}

/// Carrying operations out.
impl Communicator {
    /// The route of the next operation.
    fn choose(&self) -> Result<Arc<Route>> {
        self.check_process()?;
        let routing = lock(&self.routing);
        routing.choose(routing.pinned.as_deref()).cloned()
    }

    fn routes(&self) -> Vec<Arc<Route>> {
        lock(&self.routing).routes.clone()
    }

    /// Runs an operation over `route`, within the deadline.
    fn over(&self, route: &Route, body: impl FnOnce(&mut Deadline) -> Result<()>) -> Result<()> {
        let mut deadline = Deadline::after(self.timeout(route));
        let outcome = body(&mut deadline).map_err(|error| route.locate(error, &deadline));
        self.abort_if_asked(route);
        outcome
    }

    fn limits(&self, deadline: &mut Deadline) -> Limits<'_> {
        Limits::new(deadline, &self.signals, self.interrupt.as_deref())
    }

    fn timeout(&self, route: &Route) -> Option<Duration> {
        match self.timeout_ms.load(Ordering::Relaxed) {
            UNSET => Some(route.timeout).filter(|time| *time != Duration::MAX),
            NEVER => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        }
    }

    /// Does what another thread asked the last call for, and the call did not do
    /// any more.
    fn abort_if_asked(&self, route: &Route) {
        if self.signals.has_abort()
            && let Some(code) = self.signals.take_abort()
            && route.abort(code, self.rank).is_err()
        {
            // Another call is inside by now.
            self.signals.request_abort(code);
        }
    }

    /// A collective over one channel has failed, and with it those over all.
    fn poison_others(&self, failed: &Route, error: &Error) {
        let routes = self.routes();
        if routes.len() > 1 && failed.is_poisoned() {
            for route in routes.iter().filter(|route| !std::ptr::eq(&***route, failed)) {
                route.poison(error);
            }
        }
    }

    /// Names the operation in a failed call's error, and keeps the error.
    fn keep_error<T>(&self, operation: Operation, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let error = error.with_operation(operation);
            if self.check_process().is_ok() {
                *lock(&self.last_error) = Some(error.clone());
            }
            error
        })
    }

    fn check_rank(&self, rank: u32) -> Result<()> {
        if rank < self.size {
            return Ok(());
        }
        Err(argument(format!("rank {rank} is not in a communicator of size {}", self.size)))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        for route in self.routes() {
            let _ = self.leave(&route, Until::Arrived, &mut Deadline::after(self.timeout(&route)));
        }
    }
}

impl Routing {
    fn choose(&self, pinned: Option<&str>) -> Result<&Arc<Route>> {
        match (&self.routes[..], pinned) {
            ([only], None) => Ok(only),
            (routes, pinned) => {
                let names: Vec<&str> = routes.iter().map(|route| &*route.name).collect();
                Ok(&routes[policy::choose(&names, &self.absent, pinned)?])
            }
        }
    }
}

impl Route {
    /// Makes the endpoint of a built-in channel. No network I/O.
    fn open(
        name: &str,
        kind: BuiltIn,
        settings: &Settings,
        rank: u32,
        size: u32,
        job: &str,
        signals: &Arc<Signals>,
    ) -> Result<Self> {
        let (transport, max_timeout) = kind.transport(settings)?;
        let endpoint = OverEndpoint::new(EndpointConfig {
            rank,
            size,
            name: job.to_owned(),
            job_id: settings.job_id.clone(),
            fingerprint: settings.fingerprint,
            transport,
            wait: settings.wait,
            unexpected_limit: settings.unexpected_limit,
            logger: settings.logger.clone(),
            interrupt: settings.interrupt.clone(),
            signals: Arc::clone(signals),
        })?;
        let timeout = settings.timeout.or(max_timeout).unwrap_or(DEFAULT_TIMEOUT);
        Ok(Self { name: name.into(), timeout, carrier: Carrier::Endpoint(endpoint) })
    }

    fn locate(&self, error: Error, deadline: &Deadline) -> Error {
        error.with_channel(self.name.to_string()).with_waited(deadline.waited())
    }

    fn abort(&self, code: i32, rank: u32) -> Result<()> {
        match &self.carrier {
            Carrier::Endpoint(endpoint) => endpoint.abort(code),
            Carrier::Custom(custom) => custom.poison(&aborted(code, rank)),
        }
    }

    fn poison(&self, error: &Error) {
        // It is busy, closed or not of this process: then nobody is deceived.
        let _ = match &self.carrier {
            Carrier::Endpoint(endpoint) => endpoint.poison(error),
            Carrier::Custom(custom) => custom.poison(error),
        };
    }

    fn is_poisoned(&self) -> bool {
        match &self.carrier {
            Carrier::Endpoint(endpoint) => endpoint.is_poisoned(),
            Carrier::Custom(custom) => custom.is_poisoned(),
        }
    }
}

/// The channels that this build has, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BuiltIn {
    Memory,
    Direct,
}

impl BuiltIn {
    const ALL: [Self; 2] = [Self::Memory, Self::Direct];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "Memory",
            Self::Direct => "Direct",
        }
    }

    fn is_enabled(self, settings: &Settings) -> bool {
        match self {
            Self::Memory => settings.memory.is_some(),
            Self::Direct => settings.direct.is_some(),
        }
    }

    fn transport(self, settings: &Settings) -> Result<(TransportConfig, Option<Duration>)> {
        match self {
            Self::Memory => {
                settings.memory.as_ref().map(|memory| (TransportConfig::Memory, memory.max_timeout))
            }
            Self::Direct => settings
                .direct
                .as_ref()
                .map(|direct| (TransportConfig::Direct(direct.clone()), direct.max_timeout)),
        }
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{} is not configured", self.name())))
    }
}

fn check_rank_and_size(rank: u32, size: u32) -> Result<()> {
    if size == 0 || size > MAX_SIZE {
        return Err(argument(format!("a job has 1 to {MAX_SIZE} ranks, not {size}")));
    }
    if rank >= size {
        return Err(argument(format!("rank {rank} is not in a job of size {size}")));
    }
    Ok(())
}

/// The error of what ends because this rank aborted the job.
fn aborted(code: i32, rank: u32) -> Error {
    Error::new(ErrorKind::Aborted, format!("this rank aborted the job with code {code}"))
        .with_cause(ErrorKind::Aborted, Some(rank))
}

fn creating(error: Error) -> Error {
    error.with_operation(Operation::Create)
}

fn argument(text: String) -> Error {
    Error::new(ErrorKind::Arg, text)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
