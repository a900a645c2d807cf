//! What a failed collective leaves behind.

use crate::error::{Error, ErrorKind, Result};

/// Why the collectives of a communicator fail, if they do: the first failure
/// counts.
#[derive(Default)]
pub(crate) struct Poison {
    failure: Option<Error>,
    /// Whether a call has returned the failure as it is.
    reported: bool,
}

impl Poison {
    /// Lets a collective begin.
    ///
    /// # Errors
    /// The failure: as it is to the first call that meets it, as
    /// [`ErrorKind::Poisoned`] with that cause to the others.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(error) = &self.failure else { return Ok(()) };
        if !std::mem::replace(&mut self.reported, true) {
            return Err(error.clone());
        }
        Err(Error::new(
            ErrorKind::Poisoned,
            format!("an earlier collective of this communicator failed: {}", error.message()),
        )
        .with_cause(error.cause(), error.cause_rank().or(error.peer())))
    }

    /// Keeps the first failure; whether this is it.
    pub(crate) fn fail(&mut self, error: Error) -> bool {
        let first = self.failure.is_none();
        self.failure.get_or_insert(error);
        first
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// The failure need not be returned any more.
    pub(crate) fn mark_reported(&mut self) {
        self.reported = true;
    }

    /// A mismatch that has not been returned to the user, once.
    pub(crate) fn take_mismatch(&mut self) -> Option<Error> {
        let error =
            self.failure.as_ref().filter(|error| error.kind() == ErrorKind::Mismatch && !self.reported)?;
        self.reported = true;
        Some(error.clone())
    }
}
