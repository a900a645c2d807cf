//! The fields of frames, on their way out and in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Hash, Join, Joined, MAX_CANDIDATES, MAX_PRIVATE, MAX_TEXT, Membership, malformed};
use crate::engine::frame::AbortNotice;
use crate::error::{ErrorKind, Result};

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_option(out: &mut Vec<u8>, value: Option<&Hash>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        out.extend_from_slice(value);
    }
}

/// Text that is too long is cut: it is for people.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

pub(super) fn put_addresses(out: &mut Vec<u8>, addresses: &[SocketAddr]) {
    debug_assert!(addresses.len() <= MAX_CANDIDATES);
    out.push(addresses.len() as u8);
    for address in addresses {
        put_address(out, address);
    }
}

pub(super) fn put_join(out: &mut Vec<u8>, join: &Join) {
    out.extend_from_slice(&join.job);
    put_option(out, join.job_id.as_ref());
    put_u32(out, join.rank);
    put_u32(out, join.size);
    out.extend_from_slice(&join.host_id.to_le_bytes());
    out.extend_from_slice(&join.fingerprint.to_le_bytes());
    put_addresses(out, &join.private);
}

pub(super) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    out.extend_from_slice(&membership.epoch);
    out.extend_from_slice(&membership.token);
}

pub(super) fn put_joined(out: &mut Vec<u8>, joined: &Joined) {
    put_u32(out, joined.rank);
    put_address(out, &joined.public);
    put_membership(out, &joined.membership);
    put_u32(out, joined.ranks_on_host);
}

pub(super) fn put_notice(out: &mut Vec<u8>, notice: &AbortNotice) {
    out.extend_from_slice(&notice.context.to_le_bytes());
    out.extend_from_slice(&notice.cause.status().to_le_bytes());
    put_u32(out, notice.cause_rank);
    out.push(u8::from(notice.about.is_some()));
    if let Some(about) = notice.about {
        put_u32(out, about);
    }
    out.extend_from_slice(&notice.code.to_le_bytes());
    out.push(notice.operation);
}

/// Takes values from the front of a body.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("it has bytes after its end")) }
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed("neither yes nor no")),
        }
    }

    pub(super) fn option(&mut self) -> Result<Option<Hash>> {
        self.bool()?.then(|| self.array()).transpose()
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return Err(malformed("a text is too long"));
        }
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    pub(super) fn address(&mut self) -> Result<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(malformed("an address of an unknown family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    pub(super) fn addresses(&mut self, most: usize) -> Result<Vec<SocketAddr>> {
        let count = usize::from(self.u8()?);
        if count > most {
            return Err(malformed(format!("{count} addresses, where at most {most} are allowed")));
        }
        (0..count).map(|_| self.address()).collect()
    }

    pub(super) fn join(&mut self) -> Result<Join> {
        Ok(Join {
            job: self.array()?,
            job_id: self.option()?,
            rank: self.u32()?,
            size: self.u32()?,
            host_id: self.u64()?,
            fingerprint: self.u64()?,
            private: self.addresses(MAX_PRIVATE)?,
        })
    }

    pub(super) fn notice(&mut self) -> Result<AbortNotice> {
        Ok(AbortNotice {
            context: self.u64()?,
            // A kind that a newer version adds.
            cause: ErrorKind::from_status(self.i32()?).unwrap_or(ErrorKind::Aborted),
            cause_rank: self.u32()?,
            about: self.bool()?.then(|| self.u32()).transpose()?,
            code: self.i32()?,
            operation: self.u8()?,
        })
    }

    pub(super) fn membership(&mut self) -> Result<Membership> {
        Ok(Membership { epoch: self.array()?, token: self.array()? })
    }

    pub(super) fn joined(&mut self) -> Result<Joined> {
        Ok(Joined {
            rank: self.u32()?,
            public: self.address()?,
            membership: self.membership()?,
            ranks_on_host: self.u32()?,
        })
    }
}
