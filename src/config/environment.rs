//! What the surroundings of the process say: environment variables, and how
//! much memory there is.
//!
//! An environment variable that is empty counts as not set, for shells make
//! such easily; only an empty secret is an error, because it was meant to
//! protect.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::source::{Literal, config_error};
use crate::error::Result;
use crate::proof::MIN_SECRET;

/// Which variables hold rank and size: ours, those of PMI (MPICH, Intel MPI and
/// others), of Open MPI, of Slurm. The first pair that is there counts.
const RANK_AND_SIZE: [(&str, &str); 4] = [
    ("FMI_RANK", "FMI_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
];

/// The port of a rendezvous server whose address names none.
pub(super) const RENDEZVOUS_PORT: u16 = 10000;

/// How the surroundings are asked, so that tests can answer.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The memory limit of the process's cgroup, in bytes.
    pub(super) cgroup_memory: &'a dyn Fn() -> Option<u64>,
}

impl Environment<'_> {
    /// The surroundings of this process.
    pub(super) fn of_process() -> Environment<'static> {
        Environment { variable: &|name| std::env::var_os(name), cgroup_memory: &cgroup_memory }
    }

    /// The value of a variable; `None` where it is not set or empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        match (self.variable)(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(wrong_variable(name, "UTF-8 text", "other bytes")),
            },
        }
    }

    /// Rank and size, if the environment states them.
    pub(super) fn rank_and_size(&self) -> Result<Option<(u32, u32)>> {
        for (rank_name, size_name) in RANK_AND_SIZE {
            let (rank, size) = match (self.text(rank_name)?, self.text(size_name)?) {
                (Some(rank), Some(size)) => (rank, size),
                (None, None) => continue,
                // Half a pair of another launcher may be a leftover; of ours it is a mistake.
                (rank, _) if rank_name == "FMI_RANK" => {
                    let (there, missing) =
                        if rank.is_some() { (rank_name, size_name) } else { (size_name, rank_name) };
                    return Err(config_error(format!(
                        "environment variable {missing}: not set, but {there} is: both are needed"
                    )));
                }
                _ => continue,
            };
            let size = match size.parse() {
                Ok(number) if number > 0 => number,
                _ => return Err(wrong_variable(size_name, "an integer above 0", Literal::Text(size))),
            };
            return match rank.parse() {
                Ok(number) if number < size => Ok(Some((number, size))),
                _ => {
                    let expected = format!("an integer from 0 to {}, for {size_name} is {size}", size - 1);
                    Err(wrong_variable(rank_name, expected, Literal::Text(rank)))
                }
            };
        }
        Ok(None)
    }

    /// Host and port of `FMI_RENDEZVOUS`.
    pub(super) fn rendezvous(&self) -> Result<Option<(String, u16)>> {
        let Some(text) = self.text("FMI_RENDEZVOUS")? else { return Ok(None) };
        match split_address(&text) {
            Some(address) => Ok(Some(address)),
            None => {
                let expected = "host, host:port or [IPv6 address]:port, with a port from 1 to 65535";
                Err(wrong_variable("FMI_RENDEZVOUS", expected, Literal::Text(text)))
            }
        }
    }

    /// The secret that the variable `name` holds. It need not be text. No error shows it.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(secret) = (self.variable)(name) else { return Ok(None) };
        let secret = secret.into_vec();
        if secret.len() < MIN_SECRET {
            return Err(wrong_variable(
                name,
                format!("a secret of at least {MIN_SECRET} bytes"),
                format!("one of {}", secret.len()),
            ));
        }
        Ok(Some(secret))
    }

    /// How much memory the process may use, in bytes, where a limit is known.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        // The variable is Lambda's, not ours: what is odd in it is no error of our user.
        let lambda = (self.variable)("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
            .and_then(|text| text.to_str()?.parse::<u64>().ok())
            .and_then(|mib| mib.checked_mul(1 << 20))
            .filter(|bytes| *bytes > 0);
        [lambda, (self.cgroup_memory)()].into_iter().flatten().min()
    }
}

fn wrong_variable(
    name: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> crate::error::Error {
    config_error(format!("environment variable {}: expected {expected}, found {found}", name.escape_debug()))
}

/// Splits `host`, `host:port`, `[v6]:port`, `[v6]` or a bare IPv6 address.
fn split_address(text: &str) -> Option<(String, u16)> {
    // A scope such as %eth0 is the resolver's business.
    let is_v6 =
        |host: &str| host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        if !is_v6(host) {
            return None;
        }
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else if is_v6(text) {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return None,
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => RENDEZVOUS_PORT,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The smallest `memory.max` of the process's cgroup (version 2) and those around it.
fn cgroup_memory() -> Option<u64> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    smallest_memory_max(Path::new("/sys/fs/cgroup"), own)
}

fn smallest_memory_max(root: &Path, own: &str) -> Option<u64> {
    Path::new(own)
        .ancestors()
        .filter_map(|path| {
            // The file says "max" where there is no limit.
            std::fs::read_to_string(root.join(path).join("memory.max")).ok()?.trim().parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn with<T>(variables: &[(&str, &str)], ask: impl FnOnce(Environment<'_>) -> T) -> T {
        ask(Environment {
            variable: &|name| {
                variables.iter().find(|(own, _)| *own == name).map(|(_, value)| OsString::from(value))
            },
            cgroup_memory: &|| None,
        })
    }

    #[test]
    fn rank_and_size_come_from_the_first_whole_pair() {
        let found = |variables: &[(&str, &str)]| with(variables, |env| env.rank_and_size()).unwrap();
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("FMI_RANK", "1"), ("FMI_SIZE", "4")]), Some((1, 4)));
        assert_eq!(
            found(&[("PMI_RANK", "2"), ("PMI_SIZE", "3"), ("FMI_RANK", "0"), ("FMI_SIZE", "9")]),
            Some((0, 9))
        );
        assert_eq!(found(&[("PMI_RANK", "2"), ("PMI_SIZE", "3")]), Some((2, 3)));
        assert_eq!(
            found(&[("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "6"), ("PMI_RANK", "1")]),
            Some((5, 6))
        );
        assert_eq!(found(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]), Some((0, 1)));
        assert_eq!(found(&[("SLURM_PROCID", "0")]), None);
        assert_eq!(found(&[("FMI_RANK", ""), ("FMI_SIZE", "")]), None);
    }

    #[test]
    fn a_wrong_rank_or_size_names_its_variable() {
        for (variables, culprit) in [
            (&[("FMI_RANK", "0")][..], "FMI_SIZE"),
            (&[("FMI_SIZE", "2")], "FMI_RANK"),
            (&[("FMI_SIZE", "2"), ("FMI_RANK", ""), ("PMI_RANK", "0"), ("PMI_SIZE", "2")], "FMI_RANK"),
            (&[("FMI_RANK", "x"), ("FMI_SIZE", "2")], "FMI_RANK"),
            (&[("FMI_RANK", "2"), ("FMI_SIZE", "2")], "FMI_RANK"),
            (&[("FMI_RANK", "-1"), ("FMI_SIZE", "2")], "FMI_RANK"),
            (&[("FMI_RANK", "0"), ("FMI_SIZE", "0")], "FMI_SIZE"),
            (&[("FMI_RANK", "0"), ("FMI_SIZE", "4294967296")], "FMI_SIZE"),
            (&[("PMI_RANK", "0"), ("PMI_SIZE", "two")], "PMI_SIZE"),
            (&[("OMPI_COMM_WORLD_RANK", "0x1"), ("OMPI_COMM_WORLD_SIZE", "2")], "OMPI_COMM_WORLD_RANK"),
            (&[("SLURM_PROCID", "1 "), ("SLURM_NTASKS", "2")], "SLURM_PROCID"),
        ] {
            let error = with(variables, |env| env.rank_and_size()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().starts_with(&format!("environment variable {culprit}: ")), "{error}");
        }
    }

    #[test]
    fn addresses_are_split() {
        for (text, host, port) in [
            ("server", "server", 10000),
            ("server:1", "server", 1),
            ("192.0.2.1:65535", "192.0.2.1", 65535),
            ("[::1]:5", "::1", 5),
            ("[fe80::1%eth0]:5", "fe80::1%eth0", 5),
            ("[::1]", "::1", 10000),
            ("::1", "::1", 10000),
            ("2001:db8::7:80", "2001:db8::7:80", 10000),
        ] {
            assert_eq!(split_address(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in [
            ":1",
            "server:",
            "server:0",
            "server:65536",
            "server:x",
            "a:b:1",
            "[server]:1",
            "[::1",
            "[::1]5",
            "[]:1",
        ] {
            assert_eq!(split_address(text), None, "{text}");
            let error = with(&[("FMI_RENDEZVOUS", text)], |env| env.rendezvous()).unwrap_err();
            assert!(error.message().contains("FMI_RENDEZVOUS"), "{error}");
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_never_shown() {
        let secret = |text| with(&[("S", text)], |env| env.secret("S"));
        assert_eq!(secret("0123456789abcdef").unwrap().unwrap(), b"0123456789abcdef");
        assert_eq!(with(&[], |env| env.secret("S")).unwrap(), None);
        for short in ["", "0123456789abcde"] {
            let error = secret(short).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains("environment variable S: "), "{error}");
            assert!(short.is_empty() || !error.message().contains(short), "{error}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_names_its_variable() {
        let env = Environment {
            variable: &|_| Some(OsString::from_vec(vec![b'a', 0xff])),
            cgroup_memory: &|| None,
        };
        let error = env.text("FMI_JOB_ID").unwrap_err();
        assert_eq!(
            error.message(),
            "environment variable FMI_JOB_ID: expected UTF-8 text, found other bytes"
        );
    }

    #[test]
    fn the_memory_limit_is_the_smallest_known() {
        let limit = |lambda: Option<&str>, cgroup| {
            Environment {
                variable: &|name| {
                    assert_eq!(name, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
                    lambda.map(OsString::from)
                },
                cgroup_memory: &|| cgroup,
            }
            .memory_limit()
        };
        assert_eq!(limit(None, None), None);
        assert_eq!(limit(Some("128"), None), Some(128 << 20));
        assert_eq!(limit(Some("128"), Some(5)), Some(5));
        assert_eq!(limit(Some("junk"), Some(7)), Some(7));
        assert_eq!(limit(Some("0"), None), None);
        assert_eq!(limit(Some("18446744073709551615"), None), None);
    }

    #[test]
    fn a_limit_of_an_outer_cgroup_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(smallest_memory_max(root.path(), "a/b"), None);
        std::fs::write(root.path().join("a/memory.max"), "4096\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "8192\n").unwrap();
        assert_eq!(smallest_memory_max(root.path(), "a/b"), Some(4096));
        assert_eq!(smallest_memory_max(root.path(), ""), Some(8192));
    }
}
