//! The choice of the channel.
//!
//! There is nothing to weigh yet: the first channel that is enabled carries
//! everything, unless the user pins another.

use crate::error::{Error, ErrorKind, Result};

/// Which of the `channels`, in order of preference, carries an operation; `pinned`
/// is the user's own choice, `absent` are channels that are enabled and not in this
/// build.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where no channel is enabled, or the pinned one is
/// not; [`ErrorKind::Arg`] where no channel has the pinned name.
pub(crate) fn choose(channels: &[&str], absent: &[&str], pinned: Option<&str>) -> Result<usize> {
    let Some(name) = pinned.or(absent.first().copied().filter(|_| channels.is_empty())) else {
        let none = || Error::new(ErrorKind::Unsupported, "no channel is enabled in the configuration");
        return if channels.is_empty() { Err(none()) } else { Ok(0) };
    };
    channels.iter().position(|channel| *channel == name).ok_or_else(|| unknown(channels, absent, name))
}

/// Channels of the library, in this build or another.
const KNOWN: [&str; 4] = ["Direct", "Memory", "Redis", "S3"];

/// The error that names a channel which is not among those enabled.
fn unknown(channels: &[&str], absent: &[&str], name: &str) -> Error {
    if absent.contains(&name) {
        return Error::new(
            ErrorKind::Unsupported,
            format!("the channel {name:?} is not in this build of FMI"),
        );
    }
    let kind = if KNOWN.contains(&name) { ErrorKind::Unsupported } else { ErrorKind::Arg };
    Error::new(kind, format!("the channel {name:?} is not enabled; enabled: {}", channels.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unless_another_is_pinned() {
        assert_eq!(choose(&["Memory", "Direct"], &["S3"], None).unwrap(), 0);
        assert_eq!(choose(&["Memory", "Direct"], &[], Some("Direct")).unwrap(), 1);
        let kind =
            |channels: &[&str], absent: &[&str], pinned| choose(channels, absent, pinned).unwrap_err().kind();
        assert_eq!(kind(&["Direct"], &[], Some("S3")), ErrorKind::Unsupported);
        assert_eq!(kind(&["Direct"], &["S3"], Some("S3")), ErrorKind::Unsupported);
        assert_eq!(kind(&["Direct"], &[], Some("direct")), ErrorKind::Arg);
        assert_eq!(kind(&[], &[], None), ErrorKind::Unsupported);
    }

    #[test]
    fn a_channel_that_is_enabled_and_not_built_is_named() {
        for pinned in [None, Some("Redis")] {
            let error = choose(&[], &["Redis"], pinned).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains("\"Redis\" is not in this build"), "{error}");
        }
    }
}
