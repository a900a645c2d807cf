//! The job's secret, and proofs that somebody knows it: HMAC-SHA256 over what was
//! said.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, ErrorKind, Result};

/// The least length of a secret, in bytes. Below 128 bits it can be guessed from
/// what the wire shows of it.
pub(crate) const MIN_SECRET: usize = 16;

/// Refuses a secret that is too short.
///
/// # Errors
///
/// [`ErrorKind::Config`].
pub(crate) fn check_secret(secret: &[u8]) -> Result<()> {
    if secret.len() >= MIN_SECRET {
        return Ok(());
    }
    let text = format!("the job secret (FMI_SECRET) has fewer than {MIN_SECRET} bytes");
    Err(Error::new(ErrorKind::Config, text))
}

/// The HMAC over the parts in turn. All but the last must have a fixed length,
/// so that no two lists of parts run together to the same bytes.
pub(crate) fn transcript(secret: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}
