//! The choice of the channel.
//!
//! There is nothing to weigh yet: the first channel that is enabled carries
//! everything, unless the user pins another.

use crate::error::{Error, ErrorKind, Result};

/// Which of the enabled `channels`, in order of preference, carries an
/// operation; `pinned` is the user's own choice.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where no channel is enabled, or the pinned one is
/// not; [`ErrorKind::Arg`] where no channel has the pinned name.
pub(crate) fn choose(channels: &[&str], pinned: Option<&str>) -> Result<usize> {
    if channels.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "no channel is enabled in the configuration"));
    }
    let Some(name) = pinned else { return Ok(0) };
    channels.iter().position(|channel| *channel == name).ok_or_else(|| unknown(channels, name))
}

/// Channels of the library, in this build or another.
const KNOWN: [&str; 4] = ["Direct", "Memory", "Redis", "S3"];

/// The error that names a channel which is not among those enabled.
pub(crate) fn unknown(channels: &[&str], name: &str) -> Error {
    let kind = if KNOWN.contains(&name) { ErrorKind::Unsupported } else { ErrorKind::Arg };
    Error::new(kind, format!("the channel {name:?} is not enabled; enabled: {}", channels.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unless_another_is_pinned() {
        assert_eq!(choose(&["Memory", "Direct"], None).unwrap(), 0);
        assert_eq!(choose(&["Memory", "Direct"], Some("Direct")).unwrap(), 1);
        assert_eq!(choose(&["Direct"], Some("S3")).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(choose(&["Direct"], Some("direct")).unwrap_err().kind(), ErrorKind::Arg);
        assert_eq!(choose(&[], None).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
