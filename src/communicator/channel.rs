//! A channel by itself: to be registered with a communicator, or used without one.

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;

use super::{
    BuiltIn, Carrier, Communicator, DEFAULT_TIMEOUT, OverCustom, Route, argument, check_rank_and_size,
    creating,
};
use crate::channel::custom::{Custom, CustomChannel, Family};
use crate::collective::operation_cost;
use crate::config::{Config, Settings};
use crate::endpoint::Signals;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChannelModel, Model};
use crate::operation::Operation;

/// A channel for one rank of a job.
///
/// It is one of the library's, with parameters of its own, or the user's
/// ([`CustomChannel`]). [`Communicator::register_channel`] has a communicator use it;
/// [`communicator`](Self::communicator) are the operations over it alone.
pub struct Channel {
    rank: u32,
    size: u32,
    job: String,
    source: Source,
    settings: Settings,
    alone: OnceLock<Result<Communicator>>,
}

enum Source {
    BuiltIn(BuiltIn),
    /// A channel of the library that is not in this build.
    Absent(Absent),
    Custom(Arc<Custom>),
}

/// The channels that are not in this build, but in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    Redis,
    S3,
}

impl Absent {
    const ALL: [Self; 2] = [Self::Redis, Self::S3];

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::S3 => "S3",
        }
    }
}

impl Channel {
    /// The library's channel `kind` ("Direct", "Memory", "Redis", "S3") for rank
    /// `rank` of `size` of the job `job`. `params` and `model_params` are JSON objects
    /// with what stands in a configuration under `backends` and `model` for it; ""
    /// is `{}`. No network I/O. A channel that is not in this build can be asked for
    /// latency and price; operations are [`ErrorKind::Unsupported`].
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where there is no such kind, or `rank` and `size` are not
    /// possible; [`ErrorKind::Config`] for wrong parameters.
    pub fn built_in(
        kind: &str,
        params: &str,
        model_params: &str,
        rank: u32,
        size: u32,
        job: &str,
    ) -> Result<Self> {
        let make = || {
            check_rank_and_size(rank, size)?;
            let source = match BuiltIn::ALL.into_iter().find(|known| known.name() == kind) {
                Some(kind) => Source::BuiltIn(kind),
                None => match Absent::ALL.into_iter().find(|known| known.name() == kind) {
                    Some(kind) => Source::Absent(kind),
                    None => return Err(argument(format!("{kind:?} is no channel of the library"))),
                },
            };
            let (params, model_params) = (object("params", params)?, object("model_params", model_params)?);
            let mut config = Config::new();
            config.parse(&format!(
                r#"{{"backends":{{"{kind}":{params}}},"model":{{"{kind}":{model_params}}}}}"#
            ))?;
            config.set(&format!("backends.{kind}.enabled"), "true")?;
            Self::new(source, rank, size, job, config.settings()?)
        };
        make().map_err(creating)
    }

    /// The user's `channel` for rank `rank` of `size` of the job `job`.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where `rank` and `size` are not possible;
    /// [`ErrorKind::Config`] where the environment holds a wrong value.
    pub fn custom(channel: impl CustomChannel + 'static, rank: u32, size: u32, job: &str) -> Result<Self> {
        let make = || {
            check_rank_and_size(rank, size)?;
            let mut config = Config::new();
            config.parse(r#"{"backends":{}}"#)?;
            let settings = config.settings()?;
            let custom = Custom::new(Box::new(channel), rank, size, job, settings.job_id.as_deref());
            Self::new(Source::Custom(Arc::new(custom)), rank, size, job, settings)
        };
        make().map_err(creating)
    }

    fn new(source: Source, rank: u32, size: u32, job: &str, settings: Settings) -> Result<Self> {
        Ok(Self { rank, size, job: job.to_owned(), source, settings, alone: OnceLock::new() })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The operations over this channel alone.
    ///
    /// # Errors
    /// Those of [`Communicator::create`].
    pub fn communicator(&self) -> Result<&Communicator> {
        let alone = self.alone.get_or_init(|| {
            let communicator = Communicator::build(self.rank, self.size, &self.job, self.settings.clone())
                .map_err(creating)?;
            if let Source::Custom(custom) = &self.source {
                // One route: there is nothing to choose, and no name to choose by.
                communicator.add_route(self.custom_route(CUSTOM_NAME, custom));
            }
            Ok(communicator)
        });
        alone.as_ref().map_err(Clone::clone)
    }

    /// The channel as a communicator uses it, under the name `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where it is not in this build; [`ErrorKind::Io`].
    pub(super) fn route(&self, name: &str, signals: &Arc<Signals>) -> Result<Route> {
        match &self.source {
            Source::BuiltIn(kind) => {
                Route::open(name, *kind, &self.settings, self.rank, self.size, &self.job, signals)
            }
            Source::Absent(kind) => Err(not_built(kind.name())),
            Source::Custom(custom) => Ok(self.custom_route(name, custom)),
        }
    }

    fn custom_route(&self, name: &str, custom: &Arc<Custom>) -> Route {
        let timeout = self.settings.timeout.or(custom.channel().timeout()).unwrap_or(DEFAULT_TIMEOUT);
        Route { name: name.into(), timeout, carrier: Carrier::Custom(OverCustom::new(custom)) }
    }
}

/// What the model predicts; no server is asked.
impl Channel {
    /// How long it takes, in ms, until each of `consumers` ranks has `bytes` bytes of
    /// each of `producers`.
    pub fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.with_model(|model| model.latency(producers, consumers, bytes))
    }

    /// What that costs, in USD, without the time of the functions.
    pub fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.with_model(|model| model.price(producers, consumers, bytes))
    }

    /// How long `operation` takes, in ms, in which each rank passes `bytes` bytes;
    /// `left_to_right`: a reduction that is combined strictly in the order of ranks.
    pub fn operation_latency(&self, operation: Operation, bytes: usize, left_to_right: bool) -> f64 {
        let own = self
            .custom_channel()
            .and_then(|channel| channel.operation_latency(operation, bytes, left_to_right));
        own.unwrap_or_else(|| {
            let cost = operation_cost(operation, self.size, bytes, left_to_right);
            self.with_model(|model| model.operation_latency(&cost))
        })
    }

    /// What `operation` costs, in USD, without the time of the functions; the rest as
    /// in [`operation_latency`](Self::operation_latency).
    pub fn operation_price(&self, operation: Operation, bytes: usize, left_to_right: bool) -> f64 {
        let own = self
            .custom_channel()
            .and_then(|channel| channel.operation_price(operation, bytes, left_to_right));
        own.unwrap_or_else(|| {
            let cost = operation_cost(operation, self.size, bytes, left_to_right);
            self.with_model(|model| model.operation_price(&cost))
        })
    }

    fn custom_channel(&self) -> Option<&dyn CustomChannel> {
        match &self.source {
            Source::Custom(custom) => Some(custom.channel()),
            Source::BuiltIn(_) | Source::Absent(_) => None,
        }
    }

    fn with_model<T>(&self, ask: impl FnOnce(&dyn Model) -> T) -> T {
        let parameters = &self.settings.model;
        match &self.source {
            Source::BuiltIn(BuiltIn::Memory) => ask(&ChannelModel::Memory),
            Source::BuiltIn(BuiltIn::Direct) => ask(&ChannelModel::Direct(parameters.direct)),
            Source::Absent(Absent::Redis) => ask(&ChannelModel::Redis(parameters.redis)),
            Source::Absent(Absent::S3) => ask(&ChannelModel::S3(parameters.s3)),
            Source::Custom(custom) => ask(&CustomModel(custom.channel())),
        }
    }
}

/// The model of a channel of the user's own: its own functions.
struct CustomModel<'a>(&'a dyn CustomChannel);

impl Model for CustomModel<'_> {
    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.0.latency(producers, consumers, bytes)
    }

    fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        self.0.price(producers, consumers, bytes)
    }
}

/// The objects of a client-server channel, as they are.
impl Channel {
    /// Stores `data` under `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the channel is none that keeps objects, or
    /// is not in this build; [`ErrorKind::Busy`] where a call is inside; the channel's own.
    pub fn upload(&self, name: &str, data: &[u8]) -> Result<()> {
        self.with_store(|store| store.upload_object(name, data))
    }

    /// Copies as much of the object `name` as there is, and `buffer` can take;
    /// `false` = there is none.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn download(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        self.with_store(|store| store.download_object(name, buffer))
    }

    /// Removes the object `name`, if there is one.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn delete(&self, name: &str) -> Result<()> {
        self.with_store(|store| store.delete_object(name))
    }

    /// Calls `visit` with the name of every object.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn list(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.with_store(|store| store.list_objects(visit))
    }

    fn with_store<T>(&self, body: impl FnOnce(&dyn CustomChannel) -> Result<T>) -> Result<T> {
        match &self.source {
            Source::Absent(kind) => Err(not_built(kind.name())),
            Source::Custom(custom) if matches!(custom.channel().family(), Family::ClientServer { .. }) => {
                custom.alone(body)
            }
            _ => Err(Error::new(ErrorKind::Unsupported, "the channel keeps no objects")),
        }
    }
}

/// What a channel of the user's own is called where it is used by itself.
const CUSTOM_NAME: &str = "custom";

fn not_built(kind: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the channel {kind:?} is not in this build of FMI"))
}

/// JSON text that is an object.
fn object<'a>(parameter: &str, text: &'a str) -> Result<&'a str> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) if value.get().starts_with('{') => Ok(value.get()),
        _ => Err(Error::new(ErrorKind::Config, format!("{parameter} is not the text of a JSON object"))),
    }
}
