//! Hosts behind NATs, and a public host, in network namespaces.
//!
//! ```text
//!   host A1 --+                                            +-- host B1
//!             +-- router A --- 203.0.113.0/24 --- router B +
//!   host A2 --+      kind A          |           kind B
//!                              public host
//!                         203.0.113.1, `fmi serve`
//! ```
//!
//! Every namespace is named `fmi<pid>-<n>-...`, so that labs stand beside each
//! other. A lab is removed when it is dropped; what a killed process has left is
//! removed by the next one ([`available`]).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::distance::{Carrier, Device};
use crate::support::tcp_table;

/// Where the rendezvous server listens; kind egress lets only this port out.
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 10_000);

/// Where `ip netns` keeps the names.
const NAMESPACES: &str = "/run/netns";

static LABS: AtomicU32 = AtomicU32::new(0);

/// What a router does with TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No NAT: the hosts have public addresses, the router forwards everything.
    None,
    /// Keeps the port, and lets everybody in.
    Open,
    /// Keeps the port; drops what does not come from where the host has sent to,
    /// by address and port.
    Pr,
    /// As `Pr`, with another port, the same for every destination.
    Prnp,
    /// As `Pr`, but answers by RST what it drops.
    Rst,
    /// As `Pr`, but answers by ICMP what it drops.
    Icmp,
    /// A new random port for every destination; filters as `Pr`.
    Sym,
    /// As `Pr`, and lets nothing out but connections to the server's port.
    Egress,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] =
        [Self::None, Self::Open, Self::Pr, Self::Prnp, Self::Rst, Self::Icmp, Self::Sym, Self::Egress];

    /// Whether two hosts behind such routers can connect without a relay.
    pub(crate) fn is_direct_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Egress, _) | (_, Self::Egress) => false,
            (Self::Sym, other) | (other, Self::Sym) => matches!(other, Self::None | Self::Open),
            _ => true,
        }
    }

    /// Whether a host's public port is its own.
    pub(crate) fn keeps_ports(self) -> bool {
        !matches!(self, Self::Prnp | Self::Sym)
    }

    /// The rules of a router; each host has its own address and its public one.
    fn rules(self, hosts: &[Host]) -> String {
        if self == Self::None {
            return String::new();
        }
        let pairs = |from: fn(&Host) -> Ipv4Addr, to: fn(&Host) -> Ipv4Addr| {
            let pairs: Vec<_> = hosts.iter().map(|host| format!("{} : {}", from(host), to(host))).collect();
            pairs.join(", ")
        };
        let outward =
            format!("snat to ip saddr map {{ {} }}", pairs(|host| host.address, |host| host.public));
        let outward = match self {
            // Another port, and each its own: one bit of the number is changed.
            Self::Prnp => format!("snat to {} : tcp sport xor 0x100", hosts[0].public),
            Self::Sym => format!("{outward} fully-random"),
            _ => outward,
        };
        let inward = match self {
            Self::Open => format!(
                "iifname wan meta l4proto tcp dnat to ip daddr map {{ {} }}",
                pairs(|host| host.public, |host| host.address)
            ),
            _ => String::new(),
        };
        let leave = match self {
            Self::Egress => format!("iifname lan tcp dport {} accept", SERVER.port()),
            _ => "iifname lan accept".to_owned(),
        };
        let unsolicited = match self {
            Self::Open => "iifname wan ct status dnat accept",
            Self::Rst => "iifname wan meta l4proto tcp reject with tcp reset",
            Self::Icmp => "iifname wan reject",
            _ => "",
        };
        // What is neither a host's flow nor unsolicited is dropped. On the way in
        // too: were the router to take a SYN as its own, the kernel's connection
        // tracking would keep it, and move our own flow to another port.
        format!(
            "table ip nat {{
                chain outward {{
                    type nat hook postrouting priority srcnat
                    oifname wan meta l4proto tcp {outward}
                }}
                chain inward {{
                    type nat hook prerouting priority dstnat
                    {inward}
                }}
            }}
            table ip filter {{
                chain input {{
                    type filter hook input priority filter; policy drop
                    ct state established,related accept
                    {unsolicited}
                }}
                chain forward {{
                    type filter hook forward priority filter; policy drop
                    ct state established,related accept
                    {leave}
                    {unsolicited}
                }}
            }}"
        )
    }
}

/// A router and the hosts behind it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    kind: Kind,
    hosts: usize,
    has_own_addresses: bool,
    network: Option<Ipv4Addr>,
}

impl Site {
    /// One host.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, hosts: 1, has_own_addresses: false, network: None }
    }

    pub(crate) fn hosts(mut self, count: usize) -> Self {
        self.hosts = count;
        self
    }

    /// Every host gets a public address of its own.
    pub(crate) fn own_addresses(mut self) -> Self {
        self.has_own_addresses = true;
        self
    }

    /// The private network, of 256 addresses, where it is not to be one of the
    /// site's own.
    pub(crate) fn network(mut self, network: Ipv4Addr) -> Self {
        self.network = Some(network);
        self
    }
}

/// A host: a namespace, its address, and the one that the server sees.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) public: Ipv4Addr,
}

impl Host {
    /// Runs `body` in a thread whose sockets are this host's.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        enter(&self.namespace, body)
    }

    /// A command that will run on this host, and not outlive the calling thread.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        // SAFETY: prctl is a plain system call, as a child between fork and exec
        // may make it.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        command
    }

    /// The ports on which somebody listens on this host.
    pub(crate) fn listening_ports(&self) -> Vec<u16> {
        let table = self.enter(|| tcp_table("/proc/thread-self/net/tcp"));
        table.iter().filter(|socket| socket.listens).map(|socket| socket.local.port()).collect()
    }
}

/// The hosts and routers, and the server; removed on the way out.
pub(crate) struct Lab {
    prefix: String,
    public: Host,
    sites: Vec<Vec<Host>>,
    server: Option<Child>,
    carrier: Option<Carrier>,
}

impl Lab {
    /// A lab with one host behind a router of each kind.
    pub(crate) fn of_kinds(kinds: &[Kind]) -> Self {
        Self::new(&kinds.iter().map(|kind| Site::new(*kind)).collect::<Vec<_>>())
    }

    /// Builds the sites and starts the server.
    pub(crate) fn new(sites: &[Site]) -> Self {
        Self::build(sites, None).expect("the lab, of which the parts were seen to work")
    }

    /// As [`Lab::of_kinds`], with `distance` between any two of the routers and the
    /// public host.
    ///
    /// # Errors
    ///
    /// The kernel has no devices for it.
    pub(crate) fn distant(kinds: &[Kind], distance: Duration) -> Result<Self, String> {
        Self::build(&kinds.iter().map(|kind| Site::new(*kind)).collect::<Vec<_>>(), Some(distance))
    }

    fn build(sites: &[Site], distance: Option<Duration>) -> Result<Self, String> {
        let prefix = format!("fmi{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let public = Host { namespace: format!("{prefix}-pub"), address: *SERVER.ip(), public: *SERVER.ip() };
        let plans: Vec<Plan> =
            sites.iter().enumerate().map(|(index, site)| Plan::new(&prefix, index, site)).collect();
        // From here on, what was made is removed whatever happens.
        let hosts = plans.iter().map(|plan| plan.hosts.clone()).collect();
        let mut lab = Self { prefix, public, sites: hosts, server: None, carrier: None };
        lab.wire(&plans, distance)?;
        lab.start_server()?;
        lab.settle()?;
        Ok(lab)
    }

    /// The namespaces, cables, addresses, routes and rules.
    fn wire(&mut self, plans: &[Plan], distance: Option<Duration>) -> Result<(), String> {
        let public = &self.public.namespace;
        let mut cables = format!("netns add {public}\n");
        let mut network = String::new();
        if distance.is_none() {
            network += "link add net type bridge\n";
        }
        // A second address, so that there is another destination to compare with.
        let _ = writeln!(
            network,
            "link set lo up\nlink set net up\naddress add {}/24 dev net\naddress add {}/24 dev net",
            SERVER.ip(),
            second_address(),
        );
        for plan in plans {
            let (router, site) = (&plan.router, plan.letter);
            let _ = writeln!(cables, "netns add {router}");
            if distance.is_none() {
                let _ = writeln!(
                    cables,
                    "link add name wan netns {router} type veth peer name site{site} netns {public}"
                );
                let _ = writeln!(network, "link set site{site} master net up");
            }
            network += &plan.route_to().unwrap_or_default();
            for (index, Host { namespace, .. }) in plan.hosts.iter().enumerate() {
                let _ = writeln!(cables, "netns add {namespace}");
                let _ = writeln!(
                    cables,
                    "link add name eth0 netns {namespace} type veth peer name lan{index} netns {router}"
                );
            }
        }
        run(Command::new("ip").args(["-batch", "-"]), &cables)?;
        if let Some(distance) = distance {
            let device = |namespace: &str, name, networks| {
                enter(namespace, || Device::new(name, networks))
                    .map_err(|error| format!("a TUN device: {error}"))
            };
            let mut devices = vec![device(public, "net", vec![(*SERVER.ip(), 32), (second_address(), 32)])?];
            for plan in plans {
                devices.push(device(&plan.router, "wan", plan.networks())?);
            }
            self.carrier = Some(Carrier::new(devices, distance));
        }
        configure(public, &network)?;
        for plan in plans {
            let routes = plans.iter().filter(|other| other.router != plan.router).filter_map(Plan::route_to);
            configure(&plan.router, &(plan.router_network() + &routes.collect::<String>()))?;
            for host in &plan.hosts {
                configure(&host.namespace, &plan.host_network(host))?;
            }
            let script = "echo 1 >/proc/sys/net/ipv4/ip_forward && nft -f -";
            let mut command = Command::new("ip");
            run(
                command.args(["netns", "exec", &plan.router, "sh", "-c", script]),
                &plan.kind.rules(&plan.hosts),
            )?;
        }
        Ok(())
    }

    fn start_server(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("fmi serve: {error}");
        let mut server = self
            .public
            .command(env!("CARGO_BIN_EXE_fmi"))
            .args(["serve", "--log", "warn", "--listen", &SERVER.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut output = BufReader::new(server.stdout.take().expect("a pipe"));
        self.server = Some(server);
        let mut line = String::new();
        output.read_line(&mut line).map_err(failed)?;
        match line.contains("listening on") {
            true => Ok(()),
            false => Err(format!("fmi serve said {line:?}")),
        }
    }

    /// Waits until every host reaches the server: a cable takes a moment to be
    /// up, and a SYN that is lost there would cost the rank a second.
    fn settle(&self) -> Result<(), String> {
        let limit = Instant::now() + Duration::from_secs(5);
        for host in self.sites.iter().flatten() {
            let connect = || TcpStream::connect_timeout(&SERVER.into(), Duration::from_millis(50));
            while let Err(error) = host.enter(connect) {
                if Instant::now() > limit {
                    return Err(format!("{host:?} does not reach the server: {error}"));
                }
            }
        }
        Ok(())
    }

    /// The pid of the server.
    pub(crate) fn server(&self) -> u32 {
        self.server.as_ref().map_or(0, Child::id)
    }

    /// The host with the server.
    pub(crate) fn public(&self) -> &Host {
        &self.public
    }

    /// Host `index` of a site.
    pub(crate) fn host(&self, site: usize, index: usize) -> &Host {
        &self.sites[site][index]
    }

    /// From now on nothing passes between two sites, and nobody is told so.
    pub(crate) fn cut(&self, site: usize, other: usize) {
        let hosts = self.sites[other].iter();
        let rules = hosts.map(|host| format!("ip daddr {0} drop\nip saddr {0} drop\n", host.public));
        self.drop_at(site, &rules.collect::<String>());
    }

    /// From now on nothing passes between a site and all the others.
    pub(crate) fn cut_off(&self, site: usize) {
        self.drop_at(site, "drop");
    }

    /// From now on a connection between a site and others carries so many bytes,
    /// and then no more; but not those to the server.
    pub(crate) fn stall_after(&self, site: usize, bytes: u32) {
        let port = SERVER.port();
        self.drop_at(
            site,
            &format!("tcp dport {port} accept\ntcp sport {port} accept\nct bytes > {bytes} drop"),
        );
    }

    /// Ends what [`cut`](Self::cut) or another of its kind began.
    pub(crate) fn mend(&self, site: usize) {
        let router = router_name(&self.prefix, site_letter(site));
        run(Command::new("ip").args(["netns", "exec", &router, "nft", "delete", "table", "ip", "cut"]), "")
            .unwrap();
    }

    fn drop_at(&self, site: usize, rules: &str) {
        let table = format!(
            "table ip cut {{
                chain forward {{
                    type filter hook forward priority filter - 1
                    {rules}
                }}
            }}"
        );
        let router = router_name(&self.prefix, site_letter(site));
        run(Command::new("ip").args(["netns", "exec", &router, "nft", "-f", "-"]), &table).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        namespaces(&format!("{}-", self.prefix)).iter().for_each(|name| remove(name));
    }
}

/// Another address of the public host.
pub(crate) fn second_address() -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 2)
}

/// Names and addresses of a site, before anything of it is made.
struct Plan {
    kind: Kind,
    letter: char,
    router: String,
    /// The router's address in the site, and how many bits of it are the network's.
    gateway: Ipv4Addr,
    bits: u32,
    /// The public addresses, the router's own first.
    addresses: BTreeSet<Ipv4Addr>,
    hosts: Vec<Host>,
}

impl Plan {
    fn new(prefix: &str, index: usize, site: &Site) -> Self {
        let letter = site_letter(index);
        let number = index as u8;
        let (network, bits) = match (site.kind, site.network) {
            (Kind::None, _) => (Ipv4Addr::new(198, 51, 100, 16 * number), 28),
            (_, Some(network)) => (network, 24),
            _ => (Ipv4Addr::new(10, 77, number + 1, 0), 24),
        };
        let in_network = |number: usize| Ipv4Addr::from_bits(network.to_bits() + number as u32);
        let own = |number: usize| Ipv4Addr::new(203, 0, 113, 10 * (index + 1) as u8 + number as u8);
        let hosts: Vec<Host> = (0..site.hosts)
            .map(|host| {
                let address = in_network(2 + host);
                let public = match site.kind {
                    Kind::None => address,
                    _ => own(if site.has_own_addresses { host } else { 0 }),
                };
                Host { namespace: format!("{prefix}-h{letter}{host}"), address, public }
            })
            .collect();
        let mut addresses = BTreeSet::from([own(0)]);
        addresses.extend(hosts.iter().map(|host| host.public).filter(|_| site.kind != Kind::None));
        let router = router_name(prefix, letter);
        Self { kind: site.kind, letter, router, gateway: in_network(1), bits, addresses, hosts }
    }

    fn router_network(&self) -> String {
        let mut text =
            "link set lo up\nlink add lan type bridge\nlink set lan up\nlink set wan up\n".to_owned();
        let _ = writeln!(text, "address add {}/{} dev lan", self.gateway, self.bits);
        for index in 0..self.hosts.len() {
            let _ = writeln!(text, "link set lan{index} master lan up");
        }
        for address in &self.addresses {
            let _ = writeln!(text, "address add {address}/24 dev wan");
        }
        // What is for nobody, such as another site's private addresses, is lost
        // without a word, as it is outside: the public host does not forward.
        let _ = writeln!(text, "route add default via {}", SERVER.ip());
        text
    }

    fn host_network(&self, host: &Host) -> String {
        format!(
            "link set lo up\nlink set eth0 up\naddress add {}/{} dev eth0\nroute add default via {}\n",
            host.address, self.bits, self.gateway
        )
    }

    /// What the router's way out leads to.
    fn networks(&self) -> Vec<(Ipv4Addr, u32)> {
        let own = self.addresses.iter().map(|address| (*address, 32));
        own.chain((self.kind == Kind::None).then_some((self.gateway, self.bits))).collect()
    }

    /// How others come to hosts that have no NAT.
    fn route_to(&self) -> Option<String> {
        let mut addresses = self.addresses.iter();
        let network = Ipv4Addr::from_bits(self.gateway.to_bits() - 1);
        (self.kind == Kind::None)
            .then(|| format!("route add {network}/{} via {}\n", self.bits, addresses.next().unwrap()))
    }
}

fn site_letter(index: usize) -> char {
    char::from(b'A' + index as u8)
}

fn router_name(prefix: &str, letter: char) -> String {
    format!("{prefix}-n{letter}")
}

/// Runs `body` in a thread that stands in a namespace.
fn enter<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("{NAMESPACES}/{namespace}")).expect("the namespace");
    let inside = move || {
        // SAFETY: no pointers; the descriptor is open, and only this thread,
        // which ends with `body`, moves.
        let status = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(status, 0, "setns: {}", io::Error::last_os_error());
        body()
    };
    std::thread::scope(|scope| {
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives `commands` to `ip` in a namespace.
fn configure(namespace: &str, commands: &str) -> Result<(), String> {
    run(Command::new("ip").args(["-n", namespace, "-batch", "-"]), commands)
}

/// Runs a command that reads `input`; what it says is the error.
fn run(command: &mut Command, input: &str) -> Result<(), String> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    // A command that does not read to the end says why itself.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}", said.lines().collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The namespaces of this machine whose names begin with `prefix`.
fn namespaces(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// The namespaces of a process.
pub(crate) fn namespaces_of(pid: u32) -> Vec<String> {
    namespaces(&format!("fmi{pid}-"))
}

fn remove(namespace: &str) {
    let _ = run(Command::new("ip").args(["netns", "delete", namespace]), "");
}

/// Removes the labs of processes that are gone. Nothing of theirs runs any more:
/// their commands do not outlive them.
pub(crate) fn sweep() {
    for name in namespaces("fmi") {
        let owner = name["fmi".len()..].split_once('-');
        let Some(pid) = owner.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true) {
            remove(&name);
        }
    }
}

/// Whether a lab can be built here; else why not.
pub(crate) fn available() -> Result<(), &'static str> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    let trial = || {
        sweep();
        // The kinds between them use everything that the kernel has to offer.
        Lab::build(&Kind::ALL.map(Site::new), None).map(drop)
    };
    AVAILABLE.get_or_init(trial).as_ref().copied().map_err(String::as_str)
}
