//! The proofs of the job secret: what each side says, and both nonces, under an
//! HMAC.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::fields::{put_join, put_joined, put_membership};
use super::{Hash, Join, Joined, Membership, Nonce, kind};
use crate::proof::transcript;

/// The client's proof that it knows `secret`, over all that its join says.
pub(crate) fn client_mac(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
) -> Hash {
    client_transcript(secret, client, server, join, membership).finalize().into_bytes().into()
}

/// Whether `mac` is that proof; takes the same time whatever it is.
pub(crate) fn client_mac_is_right(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
    mac: &Hash,
) -> bool {
    client_transcript(secret, client, server, join, membership).verify_slice(mac).is_ok()
}

/// The server's proof, over all that its answer says; `join_mac`, the proof of
/// the join that it answers, binds it to that.
pub(crate) fn server_mac(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
) -> Hash {
    server_transcript(secret, client, server, join_mac, joined).finalize().into_bytes().into()
}

/// Whether `mac` is that proof.
pub(crate) fn server_mac_is_right(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
    mac: &Hash,
) -> bool {
    server_transcript(secret, client, server, join_mac, joined).verify_slice(mac).is_ok()
}

fn client_transcript(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
) -> Hmac<Sha256> {
    let mut said = Vec::new();
    put_join(&mut said, join);
    if let Some(membership) = membership {
        put_membership(&mut said, membership);
    }
    let kind = if membership.is_some() { kind::REJOIN } else { kind::JOIN };
    transcript(secret, &[b"FMI rendezvous 2 client", &[kind], client, server, &said])
}

fn server_transcript(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
) -> Hmac<Sha256> {
    let mut said = Vec::new();
    put_joined(&mut said, joined);
    transcript(secret, &[b"FMI rendezvous 2 server", client, server, join_mac, &said])
}
