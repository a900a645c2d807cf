//! Proofs that somebody knows the job's secret: HMAC-SHA256 over what was said.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The HMAC over the parts in turn. All but the last must have a fixed length,
/// so that no two lists of parts run together to the same bytes.
pub(crate) fn transcript(secret: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}
