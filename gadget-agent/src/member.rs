//! One session's share of an instance: which records it wants, what it has been told, what it missed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::record::{FLAG_SETUP, Header};
use gadgets::spec::{Past, Selector};
use gadgets::wire::{Dictionary, Frame, FrameEntry, Gap, Heartbeat, Loss, Resume, Stage, Trailer};

use crate::clock;
use crate::loss::Ledger;
use crate::outbox::Outbox;
use crate::pods::cgroup::Cgroup;
use crate::pods::selection::{Verdict, slot_is_wanted, verdict};
use crate::pods::slots;
use crate::pods::tracker::Tracker;
use crate::runtime::replay::Replay;
use crate::runtime::stacks::Stack;

/// A batch is sent when it has this many bytes, or when the ring is empty.
const BATCH_BYTES: usize = 64 << 10;
/// Names in one dictionary frame.
const ENTRIES: usize = 32;
/// Frames of stacks in one: each has two kilobytes of text at most, of which JSON may make six times as much.
const STACK_FRAMES: usize = 64;
/// Stacks, and frames of them, that a session is told of before it is to forget them.
const TOLD: usize = 32 << 10;
/// Bytes of labels that a pod may have in it; Kubernetes has no limit of its own, a frame has.
const LABEL_BYTES: usize = 16 << 10;

/// How long a session that broke off is counted for, so that one that goes on from it can tell what it missed.
const LINGER: Duration = Duration::from_secs(5);
const TOO_SLOW: &str = "the client reads too slowly";
const BROKEN: &str = "the connection broke off";

/// What a session asks for.
pub(crate) struct Wish {
    pub(crate) selector: Selector,
    /// How long ago the user began to look, if what happened since counts.
    pub(crate) began: Option<Duration>,
    /// What it wants of a recording.
    pub(crate) past: Option<Past>,
    /// What arrived of the session that it goes on from.
    pub(crate) resumed: Option<Resume>,
    /// Where its frames go.
    pub(crate) outbox: Arc<Outbox>,
}

/// One session's share of an instance.
pub(crate) struct Member {
    pub(crate) id: u64,
    /// What it wants of a recording, which is somebody else's.
    pub(crate) past: Option<Past>,
    /// What was recorded, on its way here.
    pub(crate) replay: Option<Replay>,
    /// What arrived of the session that it goes on from.
    pub(crate) resumed: Option<Resume>,
    /// The client wants what has happened until now, and then the end: at most so many bytes of the ring are that.
    pub(crate) unread: Option<usize>,
    /// When it broke off. From then on its records are counted and not kept.
    broken: Option<Instant>,
    pub(crate) selector: Selector,
    pub(crate) outbox: Arc<Outbox>,
    /// The first frames, until they are sent.
    greeting: Vec<Frame>,
    /// When the user began to look, CLOCK_BOOTTIME ns.
    began_ns: u64,
    /// Cgroups of which it was told that nobody can decide about them.
    undecidable: HashSet<u64>,
    /// Whether records of a cgroup are wanted.
    verdicts: HashMap<u64, bool>,
    /// What the session knows of a cgroup.
    told: HashMap<u64, Arc<Cgroup>>,
    /// What it must know before the batch.
    untold: Vec<Arc<Cgroup>>,
    /// What it may forget.
    gone: Vec<u64>,
    /// Numbers of stacks that the session knows.
    told_stacks: HashSet<u64>,
    untold_stacks: Vec<Arc<Stack>>,
    /// Ids of frames of these.
    told_frames: HashSet<u64>,
    untold_frames: Vec<Arc<FrameEntry>>,
    /// It is to be told that it may forget the others.
    stacks_anew: bool,
    batch: Vec<u8>,
    in_batch: u64,
    sent: u64,
    lost: u64,
    gaps: u64,
    pub(crate) ledger: Ledger,
}

impl Member {
    pub(crate) fn new(id: u64, wish: Wish, greeting: Vec<Frame>) -> Self {
        let Wish { selector, began, past, resumed, outbox } = wish;
        let ago = |began: Duration| u64::try_from(began.as_nanos()).unwrap_or(u64::MAX);
        Self {
            id,
            past,
            replay: None,
            resumed,
            unread: None,
            broken: None,
            selector,
            outbox,
            greeting,
            began_ns: clock::boot_ns().saturating_sub(began.map(ago).unwrap_or_default()),
            undecidable: HashSet::new(),
            verdicts: HashMap::new(),
            told: HashMap::new(),
            untold: Vec::new(),
            gone: Vec::new(),
            told_stacks: HashSet::new(),
            untold_stacks: Vec::new(),
            told_frames: HashSet::new(),
            untold_frames: Vec::new(),
            stacks_anew: false,
            batch: Vec::with_capacity(BATCH_BYTES),
            in_batch: 0,
            sent: 0,
            lost: 0,
            gaps: 0,
            ledger: Ledger::new(),
        }
    }

    /// Sends the first frames, once; and which containers were started while the run was on its way here.
    pub(crate) fn greet(&mut self, tracker: &Tracker) {
        if self.greeting.is_empty() {
            return;
        }
        // Asked before the client knows of the run: whatever is started from then on is seen.
        let is_wanted = |cgroup: &&Arc<Cgroup>| verdict(&self.selector, Some(cgroup)) != Verdict::Unwanted;
        let made = tracker.made_after(self.began_ns);
        let missed: Vec<&Arc<Cgroup>> = made.iter().filter(is_wanted).collect();
        let known = clock::now();
        for mut frame in self.greeting.drain(..) {
            // Not before: what happened until now may have been missed.
            if let Frame::Hello(hello) = &mut frame
                && let Some(node) = &mut hello.node
            {
                node.clock = known;
            }
            self.outbox.put(&frame);
        }
        if let Some(from_ns) = missed.iter().filter_map(|cgroup| cgroup.made_ns).min() {
            let names: BTreeSet<String> = missed.iter().map(|cgroup| cgroup.full_name()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            let reason = format!("started before this run was known here: {names}");
            self.tell_gap(&Gap { from_ns, to_ns: known.boot_ns, reason });
        }
    }

    /// Takes a record if it is wanted. Returns whether the session has no further claim to it.
    pub(crate) fn take(
        &mut self,
        header: &Header,
        record: &[u8],
        cgroup: Option<&Arc<Cgroup>>,
        stacks: &[Arc<Stack>],
    ) -> bool {
        if self.hides(header) {
            return true;
        }
        let id = cgroup.map_or(0, |cgroup| cgroup.id);
        let wanted = match self.verdicts.get(&id) {
            Some(known) => *known,
            None => self.decide(id, cgroup),
        };
        if !wanted {
            return false;
        }
        if self.broken.is_some() {
            self.ledger.add(Stage::Stream, BROKEN, header.slot, 1);
            return true;
        }
        if let Some(cgroup) = cgroup
            && self.told.get(&id).is_none_or(|told| !Arc::ptr_eq(told, cgroup))
        {
            self.told.insert(id, Arc::clone(cgroup));
            self.untold.push(Arc::clone(cgroup));
        }
        if self.told_stacks.len().max(self.told_frames.len()) >= TOLD {
            // Nothing may be left that needs what is forgotten.
            self.flush();
            self.forget_told_stacks();
        }
        for stack in stacks {
            if !self.told_stacks.insert(stack.number()) {
                continue;
            }
            if let Stack::User(_, frames) = &**stack {
                let untold = frames.iter().filter(|frame| self.told_frames.insert(frame.id));
                self.untold_frames.extend(untold.map(Arc::clone));
            }
            self.untold_stacks.push(Arc::clone(stack));
        }
        let begin = self.batch.len();
        self.batch.extend_from_slice(record);
        if header.cgroup == 0 {
            Header::set_cgroup(&mut self.batch[begin..], id);
        }
        self.in_batch += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
        true
    }

    /// Has the session forget the stacks that it was told of: each is told of when it comes again.
    fn forget_told_stacks(&mut self) {
        self.untold_stacks.clear();
        self.untold_frames.clear();
        self.told_stacks.clear();
        self.told_frames.clear();
        self.stacks_anew = true;
    }

    fn decide(&mut self, id: u64, cgroup: Option<&Arc<Cgroup>>) -> bool {
        let verdict = verdict(&self.selector, cgroup.map(AsRef::as_ref));
        if let (Verdict::Undecidable, Some(cgroup)) = (verdict, cgroup)
            && self.undecidable.insert(id)
        {
            let (from_ns, to_ns) = (cgroup.made_ns.unwrap_or(self.began_ns), clock::boot_ns());
            let reason = format!("the API server has not told of this pod: {}", cgroup.full_name());
            self.tell_gap(&Gap { from_ns, to_ns, reason });
        }
        self.verdicts.insert(id, verdict == Verdict::Wanted);
        verdict == Verdict::Wanted
    }

    /// Whether a record is of the machinery, which this session does not want to see.
    pub(crate) fn hides(&self, header: &Header) -> bool {
        header.flags & FLAG_SETUP != 0 && !self.selector.machinery
    }

    /// Sends the batch, or counts its records as lost if the client does not keep up.
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES));
        let mut needed: Vec<Frame> = self.untold.chunks(ENTRIES).map(dictionary).collect();
        needed.extend(self.untold_frames.chunks(STACK_FRAMES).map(dictionary_of_frames));
        needed.extend(self.untold_stacks.chunks(ENTRIES).map(dictionary_of_stacks));
        if !self.gone.is_empty() || self.stacks_anew {
            let (gone, stacks_anew) = (self.gone.clone(), self.stacks_anew);
            needed.insert(0, Frame::Dictionary(Dictionary { gone, stacks_anew, ..Dictionary::default() }));
        }
        let offered = self.outbox.offer(&needed, batch);
        if offered.is_ok() {
            self.untold.clear();
            self.untold_stacks.clear();
            self.untold_frames.clear();
            self.gone.clear();
            self.stacks_anew = false;
        } else {
            self.forget_told_stacks();
        }
        let (Ok(refused) | Err(refused)) = offered;
        self.sent += self.in_batch - refused.values().sum::<u64>();
        let (stage, reason) =
            if self.outbox.is_open() { (Stage::AgentQueue, TOO_SLOW) } else { (Stage::Stream, BROKEN) };
        refused.into_iter().for_each(|(slot, count)| self.ledger.add(stage, reason, slot, count));
        self.in_batch = 0;
    }

    /// The connection is gone: what it would have sent from now on is only counted.
    pub(crate) fn break_off(&mut self) {
        self.flush();
        self.broken.get_or_insert_with(Instant::now);
    }

    /// Whether what it would get now can as well wait in the ring.
    pub(crate) fn is_congested(&self) -> bool {
        self.broken.is_none() && self.outbox.is_congested()
    }

    /// Whether it gets what was recorded just now.
    pub(crate) fn is_replaying(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| !replay.is_over())
    }

    /// Whether it wants what is recorded from now on as well.
    pub(crate) fn follows(&self) -> bool {
        self.unread.is_none() && self.past.as_ref().is_some_and(|past| past.follow)
    }

    /// Whether nobody has gone on from it in time.
    pub(crate) fn is_given_up(&self) -> bool {
        self.broken.is_some_and(|since| since.elapsed() > LINGER)
    }

    /// Goes on from a session that broke off: what that one was to tell is told here, and what did not arrive of it is lost.
    pub(crate) fn go_on_from(&mut self, mut former: Self, arrived: &Resume) {
        // It may not have noticed yet.
        former.outbox.break_off();
        former.break_off();
        let underway = (former.sent + former.lost).saturating_sub(arrived.records.saturating_add(arrived.lost));
        self.ledger.absorb(former.ledger);
        self.ledger.add(Stage::Stream, BROKEN, slots::SHARED, underway);
        self.unread = former.unread;
        // Nothing was missed in between.
        self.began_ns = clock::boot_ns();
    }

    /// Whether losses of a slot are its losses.
    pub(crate) fn wants_slot(&self, slot: u32, in_slot: &[Arc<Cgroup>]) -> bool {
        match slot {
            slots::HOST => verdict(&self.selector, None) == Verdict::Wanted,
            // Nobody knows whose they were: better told to one session too many.
            slots::SHARED => true,
            _ if in_slot.is_empty() => true,
            _ => slot_is_wanted(&self.selector, in_slot.iter().map(AsRef::as_ref)),
        }
    }

    /// Tells the rest, and the sums.
    pub(crate) fn conclude(&mut self, tracker: &Tracker) {
        self.report(tracker, None);
        self.outbox.put(&Frame::Trailer(Trailer { records: self.sent, lost: self.lost, gaps: self.gaps }));
        self.outbox.close();
    }

    /// Tells of records of a cgroup that are lost.
    pub(crate) fn tell_loss(&mut self, stage: Stage, reason: &str, cgroup: Option<&Cgroup>, from_ns: u64, count: u64) {
        if count == 0 || self.broken.is_some() {
            return;
        }
        let entry = cgroup.map(Cgroup::entry).unwrap_or_default();
        let (namespace, pod, to_ns) = (entry.namespace, entry.pod, clock::boot_ns());
        self.lost += count;
        self.outbox.put(&Frame::Loss(Loss { stage, reason: reason.to_owned(), namespace, pod, from_ns, to_ns, count }));
    }

    /// Tells of losses, and of being alive if `complete_to` is given.
    pub(crate) fn report(&mut self, tracker: &Tracker, complete_to: Option<u64>) {
        // First what this is said of.
        self.flush();
        // It is for whoever goes on from here to tell.
        if self.broken.is_some() {
            return;
        }
        let owner = |slot| {
            if slot == slots::SHARED {
                return None;
            }
            let in_slot = tracker.in_slot(slot);
            let named = in_slot.iter().find(|cgroup| cgroup.names().is_some_and(|names| names.pod.is_some()));
            named.or(in_slot.first()).map(|cgroup| (**cgroup).clone())
        };
        // While the client does not read, losses add up here instead of piling up there; the end tells all of them.
        if complete_to.is_none() || self.outbox.has_room() {
            for loss in self.ledger.settle(owner) {
                self.lost += loss.count;
                self.outbox.put(&Frame::Loss(loss));
            }
        }
        // Not worth memory while the client does not read.
        if let Some(complete_to) = complete_to.filter(|_| self.outbox.has_room()) {
            let heartbeat = Heartbeat { clock: Some(clock::now()), complete_to_ns: Some(complete_to), allowed: None };
            self.outbox.put(&Frame::Heartbeat(heartbeat));
        }
    }

    /// Forgets what was decided about cgroups: the tracker has news.
    pub(crate) fn decide_again(&mut self, tracker: &Tracker) {
        self.verdicts.clear();
        let gone: Vec<u64> = self.told.keys().copied().filter(|id| !tracker.remembers(*id)).collect();
        gone.iter().for_each(|id| _ = self.told.remove(id));
        self.undecidable.retain(|id| tracker.remembers(*id));
        self.gone.extend(gone);
    }

    /// Tells of a time in which records may be missing.
    pub(crate) fn tell_gap(&mut self, gap: &Gap) {
        self.gaps += 1;
        self.outbox.put(&Frame::Gap(gap.clone()));
    }
}

/// What is known of cgroups.
fn dictionary(cgroups: &[Arc<Cgroup>]) -> Frame {
    let entry = |cgroup: &Arc<Cgroup>| {
        let mut entry = cgroup.entry();
        if entry.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > LABEL_BYTES {
            entry.labels = [("labels".to_owned(), "too many to show".to_owned())].into();
        }
        entry
    };
    Frame::Dictionary(Dictionary { cgroups: cgroups.iter().map(entry).collect(), ..Dictionary::default() })
}

fn dictionary_of_frames(frames: &[Arc<FrameEntry>]) -> Frame {
    let frames = frames.iter().map(|frame| (**frame).clone()).collect();
    Frame::Dictionary(Dictionary { frames, ..Dictionary::default() })
}

fn dictionary_of_stacks(stacks: &[Arc<Stack>]) -> Frame {
    let mut dictionary = Dictionary::default();
    for stack in stacks {
        match &**stack {
            Stack::Kernel(entry) => dictionary.stacks.push(entry.clone()),
            Stack::User(entry, _) => dictionary.user_stacks.push(entry.clone()),
        }
    }
    Frame::Dictionary(dictionary)
}
