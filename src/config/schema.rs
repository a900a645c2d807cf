//! Every key of the configuration, once: its type, default, and meaning.
//!
//! Checking, the environment, [`Config::each`](super::Config::each) and the
//! table in `docs/configuration.md` all go by [`ROWS`].

use super::source::Literal;

/// The channels that FMI itself knows. Any other section is a custom channel.
pub(super) const CHANNELS: [&str; 4] = ["Direct", "Memory", "Redis", "S3"];

/// The largest number of milliseconds: the C API needs the one above for "never".
pub(super) const MAX_MILLISECONDS: u64 = u32::MAX as u64 - 1;

/// One key.
pub(super) struct Row {
    /// The dotted key; `*` stands for the name of any channel.
    pub(super) pattern: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// The environment variable, where its name does not follow from the key.
    variable: Option<&'static str>,
    /// One sentence for the documentation.
    #[cfg_attr(not(test), allow(dead_code, reason = "docs/configuration.md is made from it"))]
    pub(super) doc: &'static str,
}

/// What a key has when nothing sets it.
pub(super) enum Default {
    /// This value.
    Value(&'static str),
    /// What the sentence says: computed, or no value at all.
    #[cfg_attr(not(test), allow(dead_code, reason = "docs/configuration.md is made from it"))]
    Described(&'static str),
}

/// The type of a key. Every type may be given as a JSON string too.
pub(super) enum Kind {
    Bool,
    /// As the original reads it: true is true, and any other word or number is false.
    Switch,
    /// Text that is not empty.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number in a range; where `never` is set, the word "never" too.
    Integer {
        min: u64,
        max: u64,
        unit: &'static str,
        never: bool,
    },
    /// A finite number: positive, or where `zero` is set also 0.
    Number {
        zero: bool,
        unit: &'static str,
    },
}

/// A value that has been found to be of its key's type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Text(String),
    Integer(u64),
    Never,
    Number(f64),
}

use Default::{Described, Value as Fixed};

const MILLISECONDS: Kind = Kind::Integer { min: 1, max: MAX_MILLISECONDS, unit: "ms", never: false };
const PORT: Kind = Kind::Integer { min: 1, max: 65535, unit: "", never: false };
const PRICE_PER_GB: Kind = Kind::Number { zero: true, unit: "USD per GB of 1e9 bytes" };
const PRICE_PER_HOUR: Kind = Kind::Number { zero: true, unit: "USD per hour" };
const PRICE_PER_REQUEST: Kind = Kind::Number { zero: true, unit: "USD per request" };
const BANDWIDTH: Kind = Kind::Number { zero: false, unit: "MB/s of 1e6 bytes" };
const OVERHEAD: Kind = Kind::Number { zero: true, unit: "ms per message" };
const PER_HOUR: Kind = Kind::Number { zero: false, unit: "operations per hour" };

const fn row(pattern: &'static str, kind: Kind, default: Default, doc: &'static str) -> Row {
    Row { pattern, kind, default, variable: None, doc }
}

const fn row_with_variable(
    pattern: &'static str,
    kind: Kind,
    default: Default,
    variable: &'static str,
    doc: &'static str,
) -> Row {
    Row { pattern, kind, default, variable: Some(variable), doc }
}

/// All keys, in the order in which they are documented and visited. The model's
/// defaults are prices and measurements of AWS eu-central-1, as the original ships them.
pub(super) const ROWS: &[Row] = &[
    row(
        "timeout_ms",
        Kind::Integer { min: 1, max: MAX_MILLISECONDS, unit: "ms", never: true },
        Described("the channel's `max_timeout`, else 60000"),
        "How long a call may take, set-up included, over any channel: counts over `max_timeout`.",
    ),
    row(
        "wait",
        Kind::Choice(&["auto", "spin", "yield", "park"]),
        Fixed("auto"),
        "How a blocked call waits: by spinning, by polling and yielding the processor, or asleep.",
    ),
    row(
        "unexpected_limit",
        Kind::Integer { min: 0, max: i64::MAX as u64, unit: "bytes", never: false },
        Described("268435456, or a quarter of the memory limit where that is below 1 GiB"),
        "How many bytes of messages that nobody has asked for yet a process keeps before their senders wait.",
    ),
    row("job_id", Kind::Text, Described("none"), "Tells apart two runs of one job that are alive at once."),
    row(
        "log",
        Kind::Choice(&["off", "error", "warn", "info", "debug"]),
        Fixed("off"),
        "Which lines go to standard error.",
    ),
    row(
        "faas_memory_mib",
        Kind::Integer { min: 1, max: u32::MAX as u64, unit: "MiB", never: false },
        Fixed("128"),
        "The memory of one function: it prices the time that ranks wait, and sizes no buffer.",
    ),
    row(
        "secret_env",
        Kind::Text,
        Fixed("FMI_SECRET"),
        "The name of the environment variable that holds the job secret, of at least 16 bytes.",
    ),
    row(
        "backends.*.enabled",
        Kind::Switch,
        Described(
            "`true` for a section that is there, else `false`; `true` for Direct without any `backends` section",
        ),
        "Whether the channel may be used.",
    ),
    row(
        "backends.*.max_timeout",
        MILLISECONDS,
        Described("60000"),
        "How long a call over this channel may take.",
    ),
    row_with_variable(
        "backends.Direct.host",
        Kind::Text,
        Fixed("127.0.0.1"),
        "FMI_RENDEZVOUS",
        "The host of the rendezvous server.",
    ),
    row_with_variable(
        "backends.Direct.port",
        PORT,
        Fixed("10000"),
        "FMI_RENDEZVOUS",
        "The port of the rendezvous server.",
    ),
    row(
        "backends.Direct.protocol",
        Kind::Choice(&["auto", "1", "2"]),
        Fixed("auto"),
        "The protocol of the rendezvous server: 1 is TCPunch's, without secret, epochs or news of lost ranks; `auto` finds out.",
    ),
    row(
        "backends.Direct.punch_timeout",
        MILLISECONDS,
        Described("1000, or a third of the call's remaining time"),
        "How long two ranks that know each other's addresses try to connect before they start over; three times in all.",
    ),
    row_with_variable(
        "backends.Direct.congestion",
        Kind::Text,
        Described("chosen by the path"),
        "FMI_TCP_CONGESTION",
        "The TCP congestion control to ask the kernel for; `system` leaves the system's.",
    ),
    row("backends.Redis.host", Kind::Text, Fixed("127.0.0.1"), "The host of the Redis server."),
    row("backends.Redis.port", PORT, Fixed("6379"), "The port of the Redis server."),
    row(
        "backends.Redis.timeout",
        MILLISECONDS,
        Described("the channel's own"),
        "How long to wait between two looks for a value.",
    ),
    row(
        "backends.S3.bucket_name",
        Kind::Text,
        Described("none; needed where S3 is used"),
        "The bucket that messages pass through.",
    ),
    row(
        "backends.S3.s3_region",
        Kind::Text,
        Described("none; needed where S3 is used"),
        "The region of the bucket.",
    ),
    row(
        "backends.S3.timeout",
        MILLISECONDS,
        Described("the channel's own"),
        "How long to wait between two looks for an object.",
    ),
    row(
        "model.FaaS.gib_second_price",
        Kind::Number { zero: true, unit: "USD per GiB-second" },
        Fixed("0.0000166667"),
        "The price of function time.",
    ),
    row("model.Direct.bandwidth", BANDWIDTH, Fixed("400"), "The bandwidth between two ranks."),
    row("model.Direct.overhead", OVERHEAD, Fixed("0.34"), "The latency of a small message."),
    row("model.Direct.transfer_price", PRICE_PER_GB, Fixed("0"), "The price of moved data."),
    row("model.Direct.vm_price", PRICE_PER_HOUR, Fixed("0.0134"), "The price of the rendezvous server."),
    row(
        "model.Direct.requests_per_hour",
        PER_HOUR,
        Fixed("1000"),
        "Over how many operations the rendezvous server's price is spread.",
    ),
    row(
        "model.Direct.include_infrastructure_costs",
        Kind::Bool,
        Fixed("true"),
        "Whether operations bear a share of the rendezvous server's price.",
    ),
    row(
        "model.Redis.bandwidth_single",
        BANDWIDTH,
        Fixed("100"),
        "The bandwidth between one rank and the server.",
    ),
    row("model.Redis.bandwidth_multiple", BANDWIDTH, Fixed("400"), "The bandwidth of the server in all."),
    row("model.Redis.overhead", OVERHEAD, Fixed("5.2"), "The latency of a small message."),
    row("model.Redis.transfer_price", PRICE_PER_GB, Fixed("0"), "The price of moved data."),
    row("model.Redis.instance_price", PRICE_PER_HOUR, Fixed("0.0038"), "The price of the Redis server."),
    row(
        "model.Redis.requests_per_hour",
        PER_HOUR,
        Fixed("1000"),
        "Over how many operations the Redis server's price is spread.",
    ),
    row(
        "model.Redis.include_infrastructure_costs",
        Kind::Bool,
        Fixed("true"),
        "Whether operations bear a share of the Redis server's price.",
    ),
    row("model.S3.bandwidth", BANDWIDTH, Fixed("50"), "The bandwidth of one request."),
    row("model.S3.overhead", OVERHEAD, Fixed("40.4"), "The latency of a small message."),
    row("model.S3.transfer_price", PRICE_PER_GB, Fixed("0"), "The price of moved data."),
    row("model.S3.download_price", PRICE_PER_REQUEST, Fixed("0.00000043"), "The price of a GET."),
    row("model.S3.upload_price", PRICE_PER_REQUEST, Fixed("0.0000054"), "The price of a PUT."),
];

/// The row of a key, if FMI knows the key.
pub(super) fn find(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.matches(key))
}

/// Splits `backends.<channel>.<name>` and `model.<channel>.<name>` into section,
/// channel and name. Other keys stand at the top level.
pub(super) fn split(key: &str) -> Option<(&str, &str, &str)> {
    let (section, rest) = key.split_once('.')?;
    let (channel, name) = rest.split_once('.')?;
    matches!(section, "backends" | "model").then_some((section, channel, name))
}

impl Row {
    fn matches(&self, key: &str) -> bool {
        match (split(self.pattern), split(key)) {
            (Some((section, "*", name)), Some((own_section, _, own_name))) => {
                section == own_section && name == own_name
            }
            _ => self.pattern == key,
        }
    }

    /// The key for `channel`, where the pattern stands for that of every channel.
    pub(super) fn key(&self, channel: &str) -> String {
        self.pattern.replacen('*', channel, 1)
    }

    /// Whether the row stands for one key of every channel.
    pub(super) fn is_for_every_channel(&self) -> bool {
        self.pattern.contains('*')
    }

    /// The environment variable that overrides `key`, which is one of this row's.
    pub(super) fn variable(&self, key: &str) -> String {
        match self.variable {
            Some(name) => name.to_owned(),
            None => {
                let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
                format!("FMI_{}", key.chars().map(upper).collect::<String>())
            }
        }
    }
}

impl Kind {
    /// The checked value; `None` where `literal` is not of this type or out of range.
    pub(super) fn check(&self, literal: &Literal) -> Option<Value> {
        let text = match (self, literal) {
            (_, Literal::Text(text))
            | (Self::Integer { .. } | Self::Number { .. }, Literal::Number(text)) => text,
            (Self::Bool | Self::Switch, Literal::Bool(value)) => return Some(Value::Bool(*value)),
            (Self::Switch, Literal::Number(_)) => return Some(Value::Bool(false)),
            _ => return None,
        };
        match self {
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::Switch => Some(Value::Bool(text == "true")),
            Self::Text => (!text.is_empty()).then(|| Value::Text(text.clone())),
            Self::Choice(words) => words.contains(&text.as_str()).then(|| Value::Text(text.clone())),
            Self::Integer { never: true, .. } if text == "never" => Some(Value::Never),
            Self::Integer { min, max, .. } => {
                text.parse().ok().filter(|number| (min..=max).contains(&number)).map(Value::Integer)
            }
            // Rust also parses "inf" and "nan", which no price or speed can be.
            Self::Number { zero, .. } => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite() && (*number > 0.0 || (*zero && *number == 0.0)))
                .map(Value::Number),
        }
    }

    /// What a value should have been, for an error message.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Bool | Self::Switch => "true or false".to_owned(),
            Self::Text => "text that is not empty".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Integer { min, max, unit, never } => {
                let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
                let never = if *never { " or \"never\"" } else { "" };
                format!("an integer from {min} to {max}{unit}{never}")
            }
            Self::Number { zero: true, unit } => format!("a number, at least 0 ({unit})"),
            Self::Number { zero: false, unit } => format!("a number above 0 ({unit})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_row() {
        for row in ROWS {
            if let Fixed(text) = row.default {
                let literal = Literal::Text(text.to_owned());
                assert!(row.kind.check(&literal).is_some(), "{}: {text}", row.pattern);
            }
        }
    }

    #[test]
    fn every_key_has_one_row_and_a_variable_of_its_own() {
        let mut variables = std::collections::HashMap::new();
        for (index, row) in ROWS.iter().enumerate() {
            let key = row.key("Direct");
            assert_eq!(ROWS.iter().position(|other| other.matches(&key)), Some(index), "{key}");
            if let Some(other) = variables.insert(row.variable(&key), key.clone()) {
                assert_eq!(row.variable(&key), "FMI_RENDEZVOUS", "{key} and {other}");
            }
        }
    }

    #[test]
    fn variables_follow_from_keys() {
        for (key, variable) in [
            ("timeout_ms", "FMI_TIMEOUT_MS"),
            ("wait", "FMI_WAIT"),
            ("job_id", "FMI_JOB_ID"),
            ("log", "FMI_LOG"),
            ("faas_memory_mib", "FMI_FAAS_MEMORY_MIB"),
            ("backends.Direct.host", "FMI_RENDEZVOUS"),
            ("backends.Direct.congestion", "FMI_TCP_CONGESTION"),
            ("backends.Direct.max_timeout", "FMI_BACKENDS_DIRECT_MAX_TIMEOUT"),
            ("backends.my-own.enabled", "FMI_BACKENDS_MY_OWN_ENABLED"),
            ("model.FaaS.gib_second_price", "FMI_MODEL_FAAS_GIB_SECOND_PRICE"),
        ] {
            assert_eq!(find(key).unwrap().variable(key), variable);
        }
        assert!(find("backends.Direct.nonsense").is_none());
        assert!(find("nonsense").is_none());
        assert!(find("backends.*").is_none());
    }
}
