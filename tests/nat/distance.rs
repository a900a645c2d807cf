//! A network that takes time: what the public host and the routers of a lab send
//! to each other arrives after a while, as it does outside.
//!
//! The kernels that this is for have no netem. So each of them has a TUN device
//! for its way out, and a thread carries the packets.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where the kernel makes TUN devices.
const TUN: &str = "/dev/net/tun";

/// How long the thread sleeps where nothing comes: it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Whether this kernel has what it takes; else why not.
pub(crate) fn available() -> Result<(), String> {
    File::open(TUN).map(drop).map_err(|error| format!("{TUN}: {error}"))
}

/// A network device whose packets this process sends and receives.
pub(crate) struct Device {
    file: File,
    /// The network behind it, and how many bits of the address are the network's.
    networks: Vec<(Ipv4Addr, u32)>,
}

impl Device {
    /// Makes the device `name`, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel does not want to.
    pub(crate) fn new(name: &str, networks: Vec<(Ipv4Addr, u32)>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN)?;
        // SAFETY: a struct of plain numbers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *slot = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: the request is of the type that the call takes, and lives.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) } {
            0 => Ok(Self { file, networks }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn leads_to(&self, address: Ipv4Addr) -> bool {
        self.networks
            .iter()
            .any(|(network, bits)| (network.to_bits() ^ address.to_bits()) >> (32 - bits) == 0)
    }
}

/// The thread that carries packets; it ends when this is dropped.
pub(crate) struct Carrier {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Carries packets between the devices, each for the time of `delay`.
    pub(crate) fn new(devices: Vec<Device>, delay: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let thread = std::thread::spawn(move || carry(&devices, delay, &ends));
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().expect("joined once").join();
    }
}

fn carry(devices: &[Device], delay: Duration, is_over: &AtomicBool) {
    // All take the same time: the one that was sent first arrives first.
    let mut under_way: VecDeque<(Instant, &Device, Vec<u8>)> = VecDeque::new();
    let mut packet = [0; 1 << 16];
    while !is_over.load(Ordering::Relaxed) {
        let now = Instant::now();
        while under_way.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, device, packet) = under_way.pop_front().expect("the front");
            // A full queue loses packets, as a real one does.
            let _ = (&device.file).write(&packet);
        }
        for device in devices {
            loop {
                match (&device.file).read(&mut packet) {
                    Ok(count) if count >= 20 && packet[0] >> 4 == 4 => {
                        let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
                        if let Some(device) = devices.iter().find(|device| device.leads_to(to)) {
                            under_way.push_back((Instant::now() + delay, device, packet[..count].to_vec()));
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(_) => {}
                    // The namespace is gone.
                    Err(_) => return,
                }
            }
        }
        let due = under_way.front().map(|(due, ..)| due.saturating_duration_since(Instant::now()));
        wait(devices, due.unwrap_or(LOOK).min(LOOK));
    }
}

/// Waits until a packet comes, or `limit` has passed.
fn wait(devices: &[Device], limit: Duration) {
    let poll =
        |device: &Device| libc::pollfd { fd: device.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut fds: Vec<_> = devices.iter().map(poll).collect();
    let limit = libc::timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
    // SAFETY: the array and its length, and a time that lives.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &limit, std::ptr::null()) };
}
