//! Gadgets that run: each is loaded once for all sessions that asked for the same, and its records are handed out to
//! those that want them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gadgets::catalogue::Gadget;
use gadgets::record::{FLAG_SETUP, Header};
use gadgets::spec::Selector;
use gadgets::wire::{Dictionary, Frame, Heartbeat, Stage, Trailer};

use crate::clock;
use crate::error::AgentError;
use crate::loss::{self, KernelLoss, Ledger};
use crate::outbox::Outbox;
use crate::pods::cgroup::{Cgroup, Naming};
use crate::pods::selection::{Verdict, slot_is_wanted, verdict};
use crate::pods::slots;
use crate::pods::tracker::Tracker;
use crate::runtime::attach::{Attached, attach};
use crate::runtime::load::{self, Plan};
use crate::runtime::ring::{Alarm, Ring};

/// Instances that may run at once: the bits of a mask.
const MAX_INSTANCES: u32 = 64;
/// A batch is sent when it has this many bytes, or when the ring is empty.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes of records that are held back until their container has a name.
const HELD_BYTES: usize = 8 << 20;
/// How long records may gather in the ring while they keep coming.
const NAP: Duration = Duration::from_millis(10);
/// How often losses are read and heartbeats are sent.
const TICK: Duration = Duration::from_millis(500);
/// A record's time is taken a moment before it can be read. What is older than this has arrived.
const SETTLED_NS: u64 = 10_000_000;
/// Names in one dictionary frame.
const ENTRIES: usize = 100;

/// What makes two runs the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) gadget: &'static str,
    pub(crate) constants: BTreeMap<&'static str, u64>,
    pub(crate) variants: BTreeMap<String, String>,
    pub(crate) ring_bytes: u32,
}

/// How a running instance came to be, for the sessions' Hello.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) variants: BTreeMap<String, String>,
    pub(crate) degraded: Vec<String>,
}

/// All instances of this agent.
pub(crate) struct Instances {
    tracker: Arc<Tracker>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    by_key: HashMap<Key, Handle>,
    bits: u64,
    members: u64,
}

struct Handle {
    commands: Sender<Command>,
    alarm: Alarm,
    about: About,
    bit: u32,
}

enum Command {
    Join(Box<Member>),
    Leave { member: u64, finish: bool },
}

/// A session's part in an instance. Dropping it ends it without a trailer.
pub(crate) struct Membership {
    member: u64,
    commands: Sender<Command>,
    alarm: Alarm,
}

impl Membership {
    /// Asks for what has happened until now, the trailer, and the end.
    pub(crate) fn finish(&self) {
        self.leave(true);
    }

    fn leave(&self, finish: bool) {
        // If the instance has ended there is nothing to leave.
        let _ = self.commands.send(Command::Leave { member: self.member, finish });
        self.alarm.ring();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(false);
    }
}

impl Instances {
    pub(crate) fn new(tracker: Arc<Tracker>) -> Arc<Self> {
        Arc::new(Self { tracker, running: Mutex::default() })
    }

    /// Joins the instance for this key, which is started if it does not run. The frames of `greet` are sent as soon as
    /// every event that follows will be seen.
    ///
    /// # Errors
    /// If the gadget cannot be loaded, or too many run.
    pub(crate) fn join(
        self: &Arc<Self>,
        gadget: &'static Gadget,
        key: Key,
        selector: Selector,
        outbox: &Arc<Outbox>,
        greet: impl FnOnce(&About) -> Vec<Frame>,
    ) -> Result<Membership, AgentError> {
        // Held while the gadget loads: a second session with the same wish finds it running.
        let mut running = self.lock();
        if !running.by_key.contains_key(&key) {
            let bit = running.bits.trailing_ones();
            if bit >= MAX_INSTANCES {
                return Err(AgentError::Busy(format!("{MAX_INSTANCES} gadgets run here already: end some first")));
            }
            let handle = self.start(gadget, key.clone(), bit)?;
            running.bits |= 1 << bit;
            running.by_key.insert(key.clone(), handle);
        }
        running.members += 1;
        let id = running.members;
        let Some(handle) = running.by_key.get(&key) else {
            return Err(AgentError::Internal("the instance that was just started is gone".into()));
        };
        let member = Member::new(id, selector, Arc::clone(outbox), greet(&handle.about));
        let membership = Membership { member: id, commands: handle.commands.clone(), alarm: handle.alarm.clone() };
        // An instance removes itself from `by_key` under this lock before it ends, so this one still listens.
        let _ = handle.commands.send(Command::Join(Box::new(member)));
        handle.alarm.ring();
        Ok(membership)
    }

    fn start(self: &Arc<Self>, gadget: &'static Gadget, key: Key, bit: u32) -> Result<Handle, AgentError> {
        let mut constants: BTreeMap<&str, u64> = key.constants.clone();
        constants.insert("gadget_instance", 1 << bit);
        constants.insert("gadget_lost_total", u64::from(loss::KERNEL_TOTAL));
        constants.insert("gadget_wakeup_bytes", u64::from(key.ring_bytes / 4));
        let maps = &self.tracker.maps;
        let schema = gadget.schema().map_err(|error| AgentError::internal("read the gadget's schema", error))?;
        let plan = Plan {
            object: (gadget.object)(),
            constants,
            entries: [("events", key.ring_bytes), ("gadget_lost", loss::KERNEL_COUNTERS)].into(),
            shared: [("cgroups", &maps.cgroups), ("masks", &maps.masks), ("entering", &maps.entering)].into(),
            programs: None,
        };
        let attached = attach(gadget, &key.variants, &plan)?;
        let map = |name| {
            load::map(&attached.object, name).map_err(|error| AgentError::internal("use the gadget's maps", error))
        };
        let ring = Ring::new(&map("events")?, map("gadget_reader")?)?;
        let kernel_loss = KernelLoss::new(map("gadget_lost")?);
        let about = About { variants: attached.variants.clone(), degraded: attached.degraded.clone() };
        let (commands, inbox) = channel();
        let handle = Handle { commands, alarm: ring.alarm(), about, bit };
        let worker = Worker {
            instances: Arc::clone(self),
            key,
            bit,
            inbox,
            ring,
            _attached: attached,
            stream_sizes: schema.streams.iter().map(|stream| (stream.id, stream.size)).collect(),
            kernel_loss,
            members: Vec::new(),
            cgroups: HashMap::new(),
            generation: 0,
            records: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            gaps_seen: self.tracker.gaps(u64::MAX).1,
        };
        std::thread::Builder::new()
            .name(gadget.name.chars().take(15).collect())
            .spawn(move || worker.run())
            .map_err(|error| AgentError::internal("start a thread", error))?;
        Ok(handle)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread of one instance: takes records out of its ring and hands them to its members.
struct Worker {
    instances: Arc<Instances>,
    key: Key,
    bit: u32,
    inbox: Receiver<Command>,
    ring: Ring,
    _attached: Attached,
    stream_sizes: HashMap<u16, u32>,
    kernel_loss: KernelLoss,
    members: Vec<Member>,
    /// What the tracker said, as of `generation`.
    cgroups: HashMap<u64, Option<Arc<Cgroup>>>,
    generation: u64,
    /// Records out of the ring, back to back.
    records: Vec<u8>,
    /// Records of containers whose names are not known yet.
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    gaps_seen: u64,
}

impl Worker {
    fn run(mut self) {
        let mut last_tick = Instant::now();
        loop {
            let drained_to = clock::boot_ns();
            let taken = self.drain();
            self.obey(drained_to);
            if self.members.is_empty() && self.end() {
                return;
            }
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                self.tick(drained_to);
            }
            if taken > 0 || !self.held.is_empty() {
                self.ring.nap(NAP);
            } else {
                self.ring.sleep(TICK);
            }
        }
    }

    /// Ends if nobody has joined meanwhile.
    fn end(&mut self) -> bool {
        let instances = Arc::clone(&self.instances);
        let mut running = instances.lock();
        while let Ok(command) = self.inbox.try_recv() {
            self.obey_one(command, clock::boot_ns());
        }
        if !self.members.is_empty() {
            return false;
        }
        self.instances.tracker.set_interest(self.bit, None);
        if let Some(handle) = running.by_key.remove(&self.key) {
            running.bits &= !(1 << handle.bit);
        }
        true
    }

    fn obey(&mut self, drained_to: u64) {
        while let Ok(command) = self.inbox.try_recv() {
            self.obey_one(command, drained_to);
        }
    }

    fn obey_one(&mut self, command: Command, drained_to: u64) {
        match command {
            Command::Join(member) => self.members.push(*member),
            Command::Leave { member, finish } => {
                if finish {
                    // All that happened before now is in the ring: once round, and what was lost, and it is complete.
                    self.drain();
                    self.tick(drained_to);
                }
                let Some(at) = self.members.iter().position(|candidate| candidate.id == member) else { return };
                let mut member = self.members.swap_remove(at);
                if finish {
                    member.report(&self.instances.tracker, None);
                    member.outbox.put(&Frame::Trailer(member.trailer()));
                }
                member.outbox.close();
            }
        }
        let wanted = self.members.iter().map(|member| member.selector.clone()).collect();
        self.instances.tracker.set_interest(self.bit, Some(wanted));
        self.members.iter_mut().for_each(Member::greet);
    }

    /// Hands out what is in the ring now. Returns how many records that were.
    fn drain(&mut self) -> usize {
        let generation = self.instances.tracker.generation();
        if generation != self.generation {
            self.generation = generation;
            self.cgroups.clear();
            self.members.iter_mut().for_each(|member| member.verdicts.clear());
        }
        self.hand_out_held();
        let mut total = 0;
        let mut records = std::mem::take(&mut self.records);
        loop {
            records.clear();
            let taken = self.ring.take(&mut records);
            self.hand_out(&records);
            total += taken;
            // A full round means that there is more; a ring that fills as fast as it is read must not keep commands
            // waiting for ever, so rounds are bounded by the ring itself.
            if taken == 0 || total * size_of::<u64>() > self.key.ring_bytes as usize {
                break;
            }
        }
        self.records = records;
        self.members.iter_mut().for_each(Member::flush);
        total
    }

    fn hand_out(&mut self, records: &[u8]) {
        let mut rest = records;
        while let Ok(header) = Header::read(rest) {
            let (record, tail) = rest.split_at(header.size as usize);
            rest = tail;
            if self.stream_sizes.get(&header.stream).is_none_or(|size| header.size < *size) {
                tracing::error!("{}: a record of stream {} is malformed", self.key.gadget, header.stream);
                continue;
            }
            let cgroup = self.cgroup(&header);
            if is_pending(cgroup.as_deref()) {
                self.hold(&header, record);
            } else {
                self.deliver(&header, record, cgroup.as_ref());
            }
        }
    }

    fn cgroup(&mut self, header: &Header) -> Option<Arc<Cgroup>> {
        if header.slot == slots::HOST {
            return None;
        }
        let tracker = &self.instances.tracker;
        self.cgroups.entry(header.cgroup).or_insert_with(|| tracker.get(header.cgroup)).clone()
    }

    fn deliver(&mut self, header: &Header, record: &[u8], cgroup: Option<&Arc<Cgroup>>) {
        for member in &mut self.members {
            member.take(header, record, cgroup);
        }
    }

    fn hold(&mut self, header: &Header, record: &[u8]) {
        if self.held_bytes + record.len() > HELD_BYTES {
            for member in &mut self.members {
                member.ledger.add(Stage::AgentQueue, "too many records of containers without a name", header.slot, 1);
            }
            return;
        }
        self.held_bytes += record.len();
        self.held.push_back(record.to_vec());
    }

    /// Hands out what was held back, as far as its containers are known by now.
    fn hand_out_held(&mut self) {
        self.held_bytes = 0;
        for record in std::mem::take(&mut self.held) {
            let Ok(header) = Header::read(&record) else { continue };
            let cgroup = self.cgroup(&header);
            if is_pending(cgroup.as_deref()) {
                self.held_bytes += record.len();
                self.held.push_back(record);
            } else {
                self.deliver(&header, &record, cgroup.as_ref());
            }
        }
    }

    /// Tells the members what was lost, and that the agent lives.
    fn tick(&mut self, drained_to: u64) {
        let tracker = &self.instances.tracker;
        for (slot, count) in self.kernel_loss.read() {
            let in_slot = tracker.in_slot(slot);
            for member in &mut self.members {
                if member.wants_slot(slot, &in_slot) {
                    member.ledger.add(Stage::KernelRing, "the ring was full", slot, count);
                }
            }
        }
        let (gaps, seen) = tracker.gaps(self.gaps_seen);
        self.gaps_seen = seen;
        let held_from = self.held.front().and_then(|record| Header::read(record).ok()).map(|header| header.time);
        let complete_to = drained_to.saturating_sub(SETTLED_NS).min(held_from.unwrap_or(u64::MAX));
        for member in &mut self.members {
            for gap in &gaps {
                member.gaps += 1;
                member.outbox.put(&Frame::Gap(gap.clone()));
            }
            member.report(tracker, Some(complete_to));
        }
    }
}

fn is_pending(cgroup: Option<&Cgroup>) -> bool {
    cgroup.is_some_and(|cgroup| matches!(cgroup.naming, Naming::Pending { .. }))
}

/// One session's share of an instance.
struct Member {
    id: u64,
    selector: Selector,
    outbox: Arc<Outbox>,
    /// The first frames, until they are sent.
    greeting: Vec<Frame>,
    /// Whether records of a cgroup are wanted; emptied when the tracker has news.
    verdicts: HashMap<u64, bool>,
    /// What the session knows of a cgroup.
    told: HashMap<u64, Arc<Cgroup>>,
    /// What it must know before the batch.
    untold: Vec<Arc<Cgroup>>,
    batch: Vec<u8>,
    in_batch: u64,
    sent: u64,
    lost: u64,
    gaps: u64,
    ledger: Ledger,
}

impl Member {
    fn new(id: u64, selector: Selector, outbox: Arc<Outbox>, greeting: Vec<Frame>) -> Self {
        Self {
            id,
            selector,
            outbox,
            greeting,
            verdicts: HashMap::new(),
            told: HashMap::new(),
            untold: Vec::new(),
            batch: Vec::with_capacity(BATCH_BYTES),
            in_batch: 0,
            sent: 0,
            lost: 0,
            gaps: 0,
            ledger: Ledger::new(),
        }
    }

    fn greet(&mut self) {
        self.greeting.drain(..).for_each(|frame| self.outbox.put(&frame));
    }

    /// Takes a record if it is wanted.
    fn take(&mut self, header: &Header, record: &[u8], cgroup: Option<&Arc<Cgroup>>) {
        if header.flags & FLAG_SETUP != 0 && !self.selector.machinery {
            return;
        }
        let id = cgroup.map_or(0, |cgroup| cgroup.id);
        let selector = &self.selector;
        let wanted =
            *self.verdicts.entry(id).or_insert_with(|| verdict(selector, cgroup.map(AsRef::as_ref)) == Verdict::Wanted);
        if !wanted {
            return;
        }
        if let Some(cgroup) = cgroup
            && self.told.get(&id).is_none_or(|told| !Arc::ptr_eq(told, cgroup))
        {
            self.told.insert(id, Arc::clone(cgroup));
            self.untold.push(Arc::clone(cgroup));
        }
        self.batch.extend_from_slice(record);
        self.in_batch += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Sends the batch, or counts its records as lost if the client does not keep up.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let dictionary = |cgroups: &[Arc<Cgroup>]| {
            Frame::Dictionary(Dictionary { cgroups: cgroups.iter().map(|cgroup| cgroup.entry()).collect() })
        };
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES));
        let mut frames: Vec<Frame> = self.untold.chunks(ENTRIES).map(dictionary).collect();
        frames.push(Frame::Batch(batch));
        if self.outbox.offer(&frames) {
            self.untold.clear();
            self.sent += self.in_batch;
        } else if let Some(Frame::Batch(batch)) = frames.pop() {
            let mut rest = batch.as_slice();
            while let Ok(header) = Header::read(rest) {
                self.ledger.add(Stage::AgentQueue, "the client reads too slowly", header.slot, 1);
                rest = &rest[header.size as usize..];
            }
        }
        self.in_batch = 0;
    }

    fn wants_slot(&self, slot: u32, in_slot: &[Arc<Cgroup>]) -> bool {
        match slot {
            slots::HOST => verdict(&self.selector, None) == Verdict::Wanted,
            _ => slot_is_wanted(&self.selector, in_slot.iter().map(AsRef::as_ref)),
        }
    }

    /// Tells of losses, and of being alive if `complete_to` is given.
    fn report(&mut self, tracker: &Tracker, complete_to: Option<u64>) {
        let owner = |slot| {
            let in_slot = tracker.in_slot(slot);
            let named = in_slot.iter().find(|cgroup| cgroup.names().is_some_and(|names| names.pod.is_some()));
            named.or(in_slot.first()).map(|cgroup| (**cgroup).clone())
        };
        for loss in self.ledger.settle(owner) {
            self.lost += loss.count;
            self.outbox.put(&Frame::Loss(loss));
        }
        if let Some(complete_to) = complete_to {
            // Not worth memory while the client does not read.
            let heartbeat = Heartbeat { clock: Some(clock::now()), complete_to_ns: Some(complete_to) };
            self.outbox.offer(&[Frame::Heartbeat(heartbeat)]);
        }
    }

    fn trailer(&self) -> Trailer {
        Trailer { records: self.sent, lost: self.lost, gaps: self.gaps }
    }
}
