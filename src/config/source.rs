//! Where values come from, before they are checked against each other: JSON
//! text and single keys become a [`Layer`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::schema;
use crate::error::{Error, ErrorKind, Result};

/// No configuration comes near this; a path that leads to something else may.
pub(super) const MAX_JSON_BYTES: usize = 1 << 20;

/// What single keys set by the program are said to come from.
const SET: &str = "fmi_config_set";

/// How much of a wrong value an error message repeats, in characters.
const MAX_QUOTED: usize = 60;

/// A value as it was written. Numbers keep their digits: code that reads the
/// parameters of its own channel gets what stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Bool(bool),
    Number(String),
    /// Null, an array or an object, as JSON text.
    Other(String),
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) literal: Literal,
    pub(super) origin: Arc<str>,
}

/// Values of one precedence, by dotted key.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Whether there is a `backends` section, be it empty.
    pub(super) has_backends: bool,
    /// The channels that have a section in `backends`, be it empty.
    pub(super) channels: BTreeSet<String>,
}

impl Layer {
    /// Puts the values of `other` over those that are here.
    pub(super) fn merge(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.has_backends |= other.has_backends;
        self.channels.extend(other.channels);
    }

    /// Adds one key that the program sets.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        // A section's name alone, or one with an empty part, is no key.
        let is_section = match schema::split(key) {
            Some((_, channel, name)) => channel.is_empty() || name.is_empty(),
            None => matches!(key.split('.').next(), Some("" | "backends" | "model")),
        };
        if is_section {
            return Err(wrong(SET, key, "the full name of a key, such as backends.Direct.host", "that"));
        }
        self.add(key.to_owned(), Literal::Text(value.to_owned()), &Arc::from(SET))?;
        if let Some(("backends", channel, _)) = schema::split(key) {
            self.has_backends = true;
            self.channels.insert(channel.to_owned());
        }
        Ok(())
    }

    /// Reads JSON text; `origin` is what errors call it.
    pub(super) fn from_json(text: &str, origin: &str) -> Result<Self> {
        if text.len() > MAX_JSON_BYTES {
            return Err(config_error(format!("{origin}: longer than {MAX_JSON_BYTES} bytes")));
        }
        // The whole is parsed first, with a bound on its depth: every syntax
        // error is found here, with its place in the whole text.
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| {
            let (line, column, message) = (error.line(), error.column(), error.to_string());
            let message =
                message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
            config_error(format!("{origin}: malformed JSON at line {line}, column {column}: {message}"))
        })?;

        let shown = origin;
        let origin = Arc::from(origin);
        let mut layer = Self::default();
        let Some(top) = members(text) else {
            return Err(config_error(format!(
                "{shown}: expected an object, found {}",
                Literal::from_json(text)
            )));
        };
        for (key, value) in top {
            if key.starts_with("backends.") || key.starts_with("model.") {
                return Err(wrong(shown, &key, "sections within each other", "a key with dots"));
            }
            if !matches!(key.as_str(), "backends" | "model") {
                layer.add(key, Literal::from_json(value.get()), &origin)?;
                continue;
            }
            let section = key;
            layer.has_backends |= section == "backends";
            let object = |key: &str, text: &str| {
                members(text).ok_or_else(|| wrong(shown, key, "an object", Literal::from_json(text)))
            };
            for (channel, parameters) in object(&section, value.get())? {
                let prefix = format!("{section}.{channel}");
                if channel.is_empty() || channel.contains(['.', '\0']) {
                    return Err(wrong(shown, &prefix, "a channel name without dots and NUL bytes", "that"));
                }
                for (name, value) in object(&prefix, parameters.get())? {
                    layer.add(format!("{prefix}.{name}"), Literal::from_json(value.get()), &origin)?;
                }
                if section == "backends" {
                    layer.channels.insert(channel);
                }
            }
        }
        Ok(layer)
    }

    fn add(&mut self, key: String, literal: Literal, origin: &Arc<str>) -> Result<()> {
        if key.contains('\0') {
            return Err(wrong(origin, &key, "a key without NUL bytes", "one"));
        }
        let is_secret = match schema::split(&key) {
            Some((_, channel, name)) => name == "secret" && schema::CHANNELS.contains(&channel),
            None => key == "secret",
        };
        if is_secret {
            return Err(config_error(format!(
                "{origin}: {key}: a secret does not stand in a configuration; name the environment variable \
                 that holds it by secret_env"
            )));
        }
        if matches!(&literal, Literal::Text(text) if text.contains('\0')) {
            return Err(wrong(origin, &key, "text without NUL bytes", literal));
        }
        if let Some(row) = schema::find(&key)
            && row.kind.check(&literal).is_none()
        {
            return Err(wrong(origin, &key, row.kind.expected(), literal));
        }
        self.entries.insert(key, Entry { literal, origin: Arc::clone(origin) });
        Ok(())
    }
}

impl Literal {
    /// The literal that is written as `json`, which is known to be valid.
    fn from_json(json: &str) -> Self {
        let json = json.trim();
        match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str(json) {
                Ok(text) => Self::Text(text),
                Err(_) => Self::Other(json.to_owned()),
            },
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'-' | b'0'..=b'9') => Self::Number(json.to_owned()),
            _ => Self::Other(json.to_owned()),
        }
    }

    /// The text of a string, the JSON text of anything else.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) | Self::Other(text) => text,
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
        }
    }
}

impl fmt::Display for Literal {
    /// What an error message says was found.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shorten = |text: &str| match text.char_indices().nth(MAX_QUOTED) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.to_owned(),
        };
        match self {
            Self::Text(text) => write!(f, "{:?}", shorten(text)),
            Self::Other(json) if json.starts_with('[') => f.write_str("an array"),
            Self::Other(json) if json.starts_with('{') => f.write_str("an object"),
            _ => f.write_str(&shorten(self.text())),
        }
    }
}

/// The members of the object that is written as `json`; of members of one name
/// the last. `None` where it is no object.
fn members(json: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_str(json).ok()
}

pub(super) fn config_error(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// A value that is not what its key needs.
pub(super) fn wrong(origin: &str, key: &str, expected: impl fmt::Display, found: impl fmt::Display) -> Error {
    config_error(format!("{origin}: {}: expected {expected}, found {found}", key.escape_debug()))
}
