//! Gadgets that run: each is loaded once for all sessions that asked for the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytesize::ByteSize;
use gadgets::catalogue::Gadget;
use gadgets::schema::{Field, Kind};
use gadgets::spec::{RING_BYTES_MIN, Selector};
use gadgets::tasks::TaskFilter;
use gadgets::wire::{self, Frame, GadgetStatus, Gap};

use crate::calls::{self, Calls};
use crate::clock;
use crate::error::AgentError;
use crate::loss::{self, KernelLoss};
use crate::member::{Member, Wish};
use crate::pods::hierarchy::KernelIds;
use crate::pods::slots;
use crate::pods::tracker::Tracker;
use crate::runtime::attach::{Attached, attach};
use crate::runtime::load::Plan;
use crate::runtime::recorder;
use crate::runtime::ring::Alarm;
use crate::runtime::signatures;
use crate::runtime::stacks::Stacks;
use crate::sizes;
use crate::sums::Sums;
use crate::symbols::Symbols;
use crate::sync::lock;
use crate::tasks;
use crate::worker::Worker;

/// Instances that may run at once: the bits of a mask.
const MAX_INSTANCES: u32 = 64;
/// How long an instance may take to say what it has recorded.
const PATIENCE: Duration = Duration::from_secs(10);
const GONE: &str = "the instance that was just started is gone";

/// What makes two runs the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) gadget: &'static str,
    pub(crate) constants: BTreeMap<&'static str, u64>,
    pub(crate) tasks: TaskFilter,
    pub(crate) calls: Calls,
    pub(crate) variants: BTreeMap<String, String>,
    pub(crate) ring_bytes: u32,
    /// Of a sampled gadget; of another 0.
    pub(crate) interval_ms: u32,
    pub(crate) owner: Owner,
}

/// Whose an instance is: nobody else can join it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Everybody,
    /// Of a gadget that begins anew for each session: the one for which it did, and those that go on from it.
    Session(u64),
    /// The recording of this id.
    Recording(String),
}

impl Key {
    /// A gadget as it is if nobody asks for anything, with the smallest ring.
    pub(crate) fn plain(gadget: &'static Gadget) -> Result<Self, AgentError> {
        let constants = gadget.constants(&BTreeMap::new())?;
        let (tasks, calls, variants) = (TaskFilter::default(), Calls::Any, BTreeMap::new());
        let (ring_bytes, interval_ms, owner) = (RING_BYTES_MIN, 0, Owner::Everybody);
        Ok(Self { gadget: gadget.name, constants, tasks, calls, variants, ring_bytes, interval_ms, owner })
    }

    /// How to load it, with maps of its own.
    pub(crate) fn plan(&self, gadget: &'static Gadget, bit: u32, hierarchy: KernelIds) -> Plan<'static> {
        let mut constants = self.constants.clone();
        constants.extend(hierarchy.constants());
        constants.extend(tasks::constants(&self.tasks));
        if gadget.shows.is_past() {
            constants.extend([calls::constant(&self.calls)]);
        }
        if self.constants.contains_key("gadget_frequency") {
            constants.insert("gadget_tick_ns", clock::tick_ns());
        }
        constants.insert("gadget_instance", 1 << bit);
        constants.insert("gadget_lost_total", u64::from(loss::KERNEL_TOTAL));
        // Of a recorded gadget the bytes are for the recorder.
        let ring_bytes = if gadget.shows.is_past() { RING_BYTES_MIN } else { self.ring_bytes };
        constants.insert("gadget_ring_bytes", ring_bytes.into());
        Plan {
            object: (gadget.object)(),
            constants,
            entries: [
                ("events", ring_bytes),
                ("gadget_backlogs", slots::COUNT),
                ("gadget_stacks", sizes::stacks(&self.constants)),
                ("gadget_user_stacks", sizes::stacks(&self.constants)),
                ("gadget_user_programs", sizes::stacks(&self.constants)),
                ("waits", sizes::waits(&self.constants)),
                ("waits_told", sizes::waits(&self.constants)),
                ("calls_begun", sizes::calls_begun(&self.constants)),
                ("socket_owners", sizes::socket_owners(hierarchy)),
                ("socket_listeners", sizes::socket_owners(hierarchy)),
            ]
            .into_iter()
            .chain(recorder::entries(self.ring_bytes))
            .chain(KernelLoss::maps().map(|map| (map, loss::KERNEL_COUNTERS)))
            .collect(),
            sets: [(tasks::VALUES, tasks::values(&self.tasks)), (calls::CHOSEN, calls::values(&self.calls))].into(),
            contents: [(signatures::SHAPES, signatures::shapes as _)].into(),
            ..Plan::default()
        }
    }
}

/// How a running instance came to be, for the sessions' Hello.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) variants: BTreeMap<String, String>,
    pub(crate) degraded: Vec<String>,
}

/// What a worker works with.
pub(crate) struct Parts {
    pub(crate) attached: Attached,
    pub(crate) stacks: Stacks,
    /// Of a gadget whose records are added up.
    pub(crate) sums: Option<Sums>,
}

/// All instances of this agent.
pub(crate) struct Instances {
    tracker: Arc<Tracker>,
    /// Bytes that rings and queues may take.
    budget: Option<u64>,
    /// What names the stacks of programs, once somebody wants to see some.
    symbols: Mutex<Option<Symbols>>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    by_key: HashMap<Key, Handle>,
    bits: u64,
    last_member: u64,
    /// Gadgets that were tried out.
    tried: HashMap<&'static str, GadgetStatus>,
}

struct Handle {
    commands: Sender<Command>,
    alarm: Alarm,
    about: About,
    kernel_bytes: u64,
    /// Which joined last.
    last_member: u64,
    /// Each session holds it, too.
    sessions: Arc<()>,
}

impl Handle {
    fn session_count(&self) -> u64 {
        Arc::strong_count(&self.sessions) as u64 - 1
    }
}

impl Running {
    /// Whether there is room for another session that needs this.
    fn check_budget(&self, key: &Key, budget: u64) -> Result<(), AgentError> {
        let rings: u64 = self.by_key.values().map(|handle| handle.kernel_bytes).sum();
        let queues = self.by_key.values().map(|handle| handle.session_count() * sizes::SESSION).sum::<u64>();
        let ring = if self.by_key.contains_key(key) { 0 } else { key.ring_bytes.into() };
        let free = budget.saturating_sub(rings + queues);
        if ring + sizes::SESSION <= free {
            return Ok(());
        }
        Err(AgentError::Busy(format!(
            "{} are free of the {} that runs on this node may take ({} have rings, {} queues), and this one needs {}: end \
             some, or use a smaller --buffer",
            ByteSize(free),
            ByteSize(budget),
            ByteSize(rings),
            ByteSize(queues),
            ByteSize(ring + sizes::SESSION)
        )))
    }

    /// Whose an instance is that nobody else may join: a new session's, or that of the one from which it goes on.
    fn owner(&self, key: &Key, resumed: Option<u64>) -> Owner {
        let goes_on = |known: &Key, handle: &Handle| {
            Some(handle.last_member) == resumed && Key { owner: known.owner.clone(), ..key.clone() } == *known
        };
        let former = self.by_key.iter().find(|(known, handle)| goes_on(known, handle));
        former.map_or(Owner::Session(self.last_member + 1), |(known, _)| known.owner.clone())
    }

    fn free_bit(&self) -> Result<u32, AgentError> {
        let bit = self.bits.trailing_ones();
        if bit < MAX_INSTANCES {
            return Ok(bit);
        }
        Err(AgentError::Busy(format!("{MAX_INSTANCES} gadgets run here already: end some first")))
    }
}

/// What a worker is told.
pub(crate) enum Command {
    /// A session begins.
    Join(Box<Member>),
    /// Records these from now on for whoever asks, with or without sessions. What was before may be missing in such times.
    Keep { selector: Box<Selector>, gaps: Vec<Gap> },
    /// No longer.
    Release,
    /// What is recorded?
    Describe(Sender<wire::Recording>),
    /// A session ends; with `finish`, after everything that happened until now and a trailer.
    Leave { member: u64, finish: bool },
}

/// A session's part in an instance. Dropping it ends it without a trailer.
pub(crate) struct Membership {
    member: u64,
    commands: Sender<Command>,
    alarm: Alarm,
    _counted: Arc<()>,
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

/// An instance that goes on without sessions. Dropping it ends that.
pub(crate) struct Kept {
    commands: Sender<Command>,
    alarm: Alarm,
}

impl Kept {
    /// What it has recorded.
    ///
    /// # Errors
    /// If it does not say so.
    pub(crate) fn describe(&self) -> Result<wire::Recording, AgentError> {
        let (answer, described) = channel();
        self.tell(Command::Describe(answer));
        described.recv_timeout(PATIENCE).map_err(|error| AgentError::internal("ask about a recording", error))
    }

    fn tell(&self, command: Command) {
        // If the instance has ended there is nothing to tell.
        let _ = self.commands.send(command);
        self.alarm.ring();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tell(Command::Release);
    }
}

impl Instances {
    pub(crate) fn new(tracker: Arc<Tracker>, budget: Option<u64>) -> Arc<Self> {
        // No agent that ran here before has come so far.
        let running = Running { last_member: clock::now().wall_ns, ..Running::default() };
        Arc::new(Self { tracker, budget, symbols: Mutex::default(), running: Mutex::new(running) })
    }

    /// Joins the instance for this key, which is started if it does not run. The frames of `greet` are sent as soon as
    /// every event that follows will be seen; they are told what runs, and the session's id.
    ///
    /// # Errors
    /// If the gadget cannot be loaded, or too many run.
    pub(crate) fn join(
        self: &Arc<Self>,
        gadget: &'static Gadget,
        mut key: Key,
        wish: Wish,
        greet: impl FnOnce(&About, u64) -> Vec<Frame>,
    ) -> Result<Membership, AgentError> {
        // Held while the gadget loads: a second session with the same wish finds it running.
        let mut running = self.lock();
        if key.owner == Owner::Everybody && gadget.begins_anew(&key.constants) {
            key.owner = running.owner(&key, wish.resumed.map(|resumed| resumed.session));
        }
        self.provide(&mut running, gadget, &key)?;
        running.last_member += 1;
        let id = running.last_member;
        let Some(handle) = running.by_key.get_mut(&key) else {
            return Err(AgentError::Internal(GONE.into()));
        };
        handle.last_member = id;
        let member = Member::new(id, wish, greet(&handle.about, id));
        let membership = Membership {
            member: id,
            commands: handle.commands.clone(),
            alarm: handle.alarm.clone(),
            _counted: Arc::clone(&handle.sessions),
        };
        // An instance removes itself from `by_key` under this lock before it ends, so this one still listens.
        let _ = handle.commands.send(Command::Join(Box::new(member)));
        handle.alarm.ring();
        Ok(membership)
    }

    /// Starts an instance that records these, with or without sessions, until what is returned is dropped.
    ///
    /// # Errors
    /// If the gadget cannot be loaded, or too many run.
    pub(crate) fn keep(
        self: &Arc<Self>,
        gadget: &'static Gadget,
        key: &Key,
        selector: Selector,
        gaps: Vec<Gap>,
    ) -> Result<Kept, AgentError> {
        let mut running = self.lock();
        self.provide(&mut running, gadget, key)?;
        let Some(handle) = running.by_key.get(key) else { return Err(AgentError::Internal(GONE.into())) };
        let kept = Kept { commands: handle.commands.clone(), alarm: handle.alarm.clone() };
        kept.tell(Command::Keep { selector: Box::new(selector), gaps });
        Ok(kept)
    }

    /// Sees to it that the instance for this key runs.
    fn provide(self: &Arc<Self>, running: &mut Running, gadget: &'static Gadget, key: &Key) -> Result<(), AgentError> {
        if let Some(budget) = self.budget {
            running.check_budget(key, budget)?;
        }
        if !running.by_key.contains_key(key) {
            let bit = running.free_bit()?;
            let handle = self.start(gadget, key.clone(), bit)?;
            running.bits |= 1 << bit;
            running.by_key.insert(key.clone(), handle);
        }
        Ok(())
    }

    /// What runs now.
    pub(crate) fn running(&self) -> Vec<wire::Running> {
        let describe = |(key, handle): (&Key, &Handle)| wire::Running {
            gadget: key.gadget.to_owned(),
            parameters: key.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            tasks: key.tasks.clone(),
            ring_bytes: key.ring_bytes,
            kernel_bytes: handle.kernel_bytes,
            sessions: handle.session_count(),
        };
        self.lock().by_key.iter().map(describe).collect()
    }

    /// How a gadget attaches on this kernel. The first time this is asked it is loaded and unloaded.
    pub(crate) fn try_out(&self, gadget: &'static Gadget) -> GadgetStatus {
        let mut running = self.lock();
        if let Some(known) = running.tried.get(gadget.name) {
            return known.clone();
        }
        let name = gadget.name.to_owned();
        let attached = Key::plain(gadget).and_then(|key| self.attach(gadget, &key, running.free_bit()?));
        match attached {
            Ok(Attached { variants, degraded, .. }) => {
                let status = GadgetStatus { name, variants, degraded, error: None };
                running.tried.insert(gadget.name, status.clone());
                status
            }
            // It may be for now only.
            Err(error) => GadgetStatus { name, error: Some(error.to_string()), ..GadgetStatus::default() },
        }
    }

    fn attach(&self, gadget: &'static Gadget, key: &Key, bit: u32) -> Result<Attached, AgentError> {
        let filter = &self.tracker.filter;
        attach(gadget, &key.variants, &Plan { shared: filter.maps(), ..key.plan(gadget, bit, filter.hierarchy) })
    }

    fn start(self: &Arc<Self>, gadget: &'static Gadget, key: Key, bit: u32) -> Result<Handle, AgentError> {
        let schema = gadget.schema().map_err(|error| AgentError::internal("read the gadget's schema", error))?;
        let attached = self.attach(gadget, &key, bit)?;
        let about = About { variants: attached.variants.clone(), degraded: attached.degraded.clone() };
        let kernel_bytes = attached.kernel_bytes;
        let (commands, inbox) = channel();
        let is_of_program = |field: &Field| field.kind == Kind::UserStack;
        let symbols = if schema.fields().any(is_of_program) { Some(self.symbols()?) } else { None };
        let sums = gadget.shows.profile().map(|profiled| Sums::new(&schema, profiled));
        let stacks = Stacks::of(&attached.object, &schema, symbols);
        let parts = Parts { attached, stacks, sums };
        let worker = Worker::new(Arc::clone(self), Arc::clone(&self.tracker), parts, &schema, key, bit, inbox)?;
        let handle =
            Handle { commands, alarm: worker.alarm(), about, kernel_bytes, last_member: 0, sessions: Arc::default() };
        std::thread::Builder::new()
            .name(gadget.name.chars().take(15).collect())
            .spawn(move || worker.run())
            .map_err(|error| AgentError::internal("start a thread", error))?;
        Ok(handle)
    }

    /// What names the stacks of programs.
    fn symbols(&self) -> Result<Symbols, AgentError> {
        let mut symbols = lock(&self.symbols);
        match &*symbols {
            Some(symbols) => Ok(symbols.clone()),
            None => Ok(symbols.insert(Symbols::start()?).clone()),
        }
    }

    /// Takes an instance out of the list if it may go. While `may_go` is asked nobody can join.
    pub(crate) fn remove_if(&self, key: &Key, bit: u32, may_go: impl FnOnce() -> bool) -> bool {
        let mut running = self.lock();
        if !may_go() {
            return false;
        }
        self.tracker.set_interest(bit, None);
        running.by_key.remove(key);
        running.bits &= !(1 << bit);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }
}
