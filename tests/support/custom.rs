//! Channels of the user's own, of every family, between the threads of a test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fmi::{
    Channel, Collective, Communicator, Config, CustomChannel, Error, ErrorKind, Family, GatherBuffers,
    ReduceBuffers, Result, ScatterBuffers,
};

/// Longer than any test waits.
const HANGS: Duration = Duration::from_secs(60);

/// What is handed over between ranks: an object per (source, destination).
#[derive(Default)]
pub(crate) struct Table {
    places: Mutex<BTreeMap<(u32, u32), Vec<u8>>>,
    bell: Condvar,
}

/// A peer-to-peer channel without any buffer: a sender waits until the receiver has
/// everything.
pub(crate) struct HandOver {
    pub(crate) rank: u32,
    pub(crate) table: Arc<Table>,
}

impl CustomChannel for HandOver {
    fn family(&self) -> Family {
        Family::PeerToPeer { full_duplex: false }
    }

    fn send_object(&self, data: &[u8], dest: u32) -> Result<()> {
        let place = (self.rank, dest);
        let mut places = self.table.places.lock().unwrap();
        assert!(places.insert(place, data.to_vec()).is_none(), "an object has not been taken");
        self.table.bell.notify_all();
        let is_there = |places: &mut BTreeMap<_, _>| places.contains_key(&place);
        let (_places, waited) = self.table.bell.wait_timeout_while(places, HANGS, is_there).unwrap();
        if waited.timed_out() { Err(hangs()) } else { Ok(()) }
    }

    fn recv_object(&self, buffer: &mut [u8], src: u32) -> Result<()> {
        let place = (src, self.rank);
        let places = self.table.places.lock().unwrap();
        let is_missing = |places: &mut BTreeMap<_, _>| !places.contains_key(&place);
        let (mut places, _) = self.table.bell.wait_timeout_while(places, HANGS, is_missing).unwrap();
        let object = places.remove(&place).ok_or_else(hangs)?;
        self.table.bell.notify_all();
        assert_eq!(object.len(), buffer.len(), "calls do not match");
        buffer.copy_from_slice(&object);
        Ok(())
    }
}

/// Messages that lie ready, in order.
type Queue = VecDeque<Vec<u8>>;

/// Those of each pair of ranks.
#[derive(Default)]
pub(crate) struct Letters {
    queues: Mutex<BTreeMap<(u32, u32), Queue>>,
    bell: Condvar,
}

/// A peer-to-peer channel that keeps what has not been received yet.
pub(crate) struct Mailbox {
    pub(crate) rank: u32,
    pub(crate) letters: Arc<Letters>,
}

impl CustomChannel for Mailbox {
    fn family(&self) -> Family {
        Family::PeerToPeer { full_duplex: true }
    }

    fn send_object(&self, data: &[u8], dest: u32) -> Result<()> {
        let mut queues = self.letters.queues.lock().unwrap();
        queues.entry((self.rank, dest)).or_default().push_back(data.to_vec());
        self.letters.bell.notify_all();
        Ok(())
    }

    fn recv_object(&self, buffer: &mut [u8], src: u32) -> Result<()> {
        let pair = (src, self.rank);
        let queues = self.letters.queues.lock().unwrap();
        let is_empty = |queues: &mut BTreeMap<_, Queue>| queues.get(&pair).is_none_or(Queue::is_empty);
        let (mut queues, _) = self.letters.bell.wait_timeout_while(queues, HANGS, is_empty).unwrap();
        let object = queues.get_mut(&pair).and_then(Queue::pop_front).ok_or_else(hangs)?;
        assert_eq!(object.len(), buffer.len(), "calls do not match");
        buffer.copy_from_slice(&object);
        Ok(())
    }
}

fn hangs() -> Error {
    Error::new(ErrorKind::Timeout, "the other rank does not come")
}

/// What a store holds.
pub(crate) type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A client-server channel.
pub(crate) struct Shelf {
    pub(crate) objects: Objects,
}

impl CustomChannel for Shelf {
    fn family(&self) -> Family {
        Family::ClientServer { poll: Duration::from_micros(200) }
    }

    fn upload_object(&self, name: &str, data: &[u8]) -> Result<()> {
        assert!(name.len() <= 200 && !data.is_empty(), "{name}");
        self.objects.lock().unwrap().insert(name.to_owned(), data.to_vec());
        Ok(())
    }

    fn download_object(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        let objects = self.objects.lock().unwrap();
        let Some(object) = objects.get(name) else { return Ok(false) };
        let length = object.len().min(buffer.len());
        buffer[..length].copy_from_slice(&object[..length]);
        Ok(true)
    }

    fn delete_object(&self, name: &str) -> Result<()> {
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }

    fn list_objects(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        let names: Vec<String> = self.objects.lock().unwrap().keys().cloned().collect();
        names.iter().for_each(|name| visit(name));
        Ok(())
    }
}

/// A whole channel: everything goes to a communicator of its own.
pub(crate) struct Delegate(pub(crate) Communicator);

impl CustomChannel for Delegate {
    fn family(&self) -> Family {
        Family::Whole
    }

    fn send(&self, data: &[u8], dest: u32) -> Option<Result<()>> {
        Some(self.0.send(data, dest))
    }

    fn recv(&self, buffer: &mut [u8], src: u32) -> Option<Result<()>> {
        Some(self.0.recv(buffer, src))
    }

    fn collective(&self, collective: &mut Collective<'_>) -> Option<Result<()>> {
        Some(match collective {
            Collective::Bcast { buffer, root } => self.0.bcast(buffer, *root),
            Collective::Barrier => self.0.barrier(),
            Collective::Gather { buffers, root } => match buffers {
                GatherBuffers::Leaf(block) => self.0.gather(block, None, *root),
                GatherBuffers::Root { send, recv } => self.0.gather(send, Some(recv), *root),
                GatherBuffers::RootInPlace(all) => self.0.gather_in_place(all),
            },
            Collective::Scatter { buffers, root } => match buffers {
                ScatterBuffers::Leaf(block) => self.0.scatter(None, block, *root),
                ScatterBuffers::Root { send, recv } => self.0.scatter(Some(send), recv, *root),
                ScatterBuffers::RootInPlace(all) => self.0.scatter_in_place(all),
            },
            Collective::Reduce { .. } | Collective::Allreduce { .. } | Collective::Scan { .. } => {
                self.reduction(collective)
            }
        })
    }
}

impl Delegate {
    /// By gather, fold and bcast, as somebody would write it who has no better.
    fn reduction(&self, collective: &mut Collective<'_>) -> Result<()> {
        let (rank, size) = (self.0.rank(), self.0.size());
        let (buffers, reduction) = match collective {
            Collective::Reduce { buffers, reduction, .. }
            | Collective::Allreduce { buffers, reduction }
            | Collective::Scan { buffers, reduction } => (buffers, *reduction),
            _ => unreachable!("no reduction"),
        };
        let operand = match buffers {
            ReduceBuffers::Leaf(operand) | ReduceBuffers::Separate { send: operand, .. } => operand.to_vec(),
            ReduceBuffers::InPlace(buffer) => buffer.to_vec(),
        };
        let mut all = vec![0; operand.len() * size as usize];
        self.0.gather(&operand, (rank == 0).then_some(&mut all[..]), 0)?;
        self.0.bcast(&mut all, 0)?;
        let mut operands: Vec<Vec<u8>> = match operand.len() {
            0 => vec![Vec::new(); size as usize],
            length => all.chunks(length).map(<[u8]>::to_vec).collect(),
        };
        if let Collective::Scan { .. } = collective {
            operands.truncate(rank as usize + 1);
        }
        let mut rest = operands.split_off(1);
        let mut result = operands.swap_remove(0);
        for operand in &mut rest {
            reduction.apply(&mut result, operand)?;
        }
        match collective {
            Collective::Reduce { buffers, .. }
            | Collective::Allreduce { buffers, .. }
            | Collective::Scan { buffers, .. } => match buffers {
                ReduceBuffers::Leaf(_) => {}
                ReduceBuffers::Separate { recv, .. } | ReduceBuffers::InPlace(recv) => {
                    recv.copy_from_slice(&result);
                }
            },
            _ => unreachable!("no reduction"),
        }
        Ok(())
    }
}

/// The channel that a job uses, with what its ranks share.
#[derive(Clone)]
pub(crate) enum Custom {
    HandOver(Arc<Table>),
    Mailbox(Arc<Letters>),
    Shelf(Objects),
    Delegate,
}

impl Custom {
    pub(crate) fn hand_over() -> Self {
        Self::HandOver(Arc::default())
    }

    pub(crate) fn mailbox() -> Self {
        Self::Mailbox(Arc::default())
    }

    pub(crate) fn shelf() -> Self {
        Self::Shelf(Arc::default())
    }

    /// The channel of one rank.
    pub(crate) fn channel(&self, rank: u32, size: u32, job: &str) -> Channel {
        let made = match self {
            Self::HandOver(table) => {
                let channel = HandOver { rank, table: Arc::clone(table) };
                Channel::custom(channel, rank, size, job)
            }
            Self::Mailbox(letters) => {
                Channel::custom(Mailbox { rank, letters: Arc::clone(letters) }, rank, size, job)
            }
            Self::Shelf(objects) => Channel::custom(Shelf { objects: Arc::clone(objects) }, rank, size, job),
            Self::Delegate => {
                let mut config = Config::new();
                config.set("backends.Memory.enabled", "true").unwrap();
                let inner = Communicator::create(rank, size, &format!("{job} inside"), &config).unwrap();
                Channel::custom(Delegate(inner), rank, size, job)
            }
        };
        made.unwrap()
    }
}

/// A communicator that has no channel but `custom`.
pub(crate) fn communicator(custom: &Custom, rank: u32, size: u32, job: &str) -> Communicator {
    let mut config = Config::new();
    config.parse(r#"{"backends":{}}"#).unwrap();
    let comm = Communicator::create(rank, size, job, &config).unwrap();
    comm.register_channel("mine", &custom.channel(rank, size, job)).unwrap();
    comm
}

/// Runs `body` on every rank of a job over `custom`, each in a thread of its own.
pub(crate) fn job(custom: &Custom, size: u32, body: impl Fn(Communicator) + Send + Sync) {
    let name = super::job_name();
    super::ranks(size, |rank| body(communicator(custom, rank, size, &name)));
}
