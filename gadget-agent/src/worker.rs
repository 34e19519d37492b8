//! The thread of one instance: takes records out of its ring and hands them to its members.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use gadgets::record::{HEADER_SIZE, Header};
use gadgets::schema::Schema;
use gadgets::wire::{Gap, Stage};

use crate::clock;
use crate::error::AgentError;
use crate::held::Held;
use crate::instance::{Command, Instances, Key, Parts};
use crate::listing::Listing;
use crate::loss::{KernelLoss, Missed};
use crate::member::Member;
use crate::pods::cgroup::Cgroup;
use crate::pods::slots;
use crate::pods::tracker::Tracker;
use crate::recording::Recording;
use crate::runtime::attach::Attached;
use crate::runtime::recorder::Recorder;
use crate::runtime::ring::{Alarm, Ring};
use crate::runtime::sample::Sampler;
use crate::runtime::stacks::Stacks;
use crate::runtime::{load, memory};
use crate::sums::Sums;

/// How long records may gather in the ring while they keep coming.
const NAP: Duration = Duration::from_millis(10);
/// The same while stacks of programs come that had none: nobody waits for them, but processes that end take names with them.
const LONG_NAP: Duration = Duration::from_millis(50);
/// How often losses are read and heartbeats are sent, at least: also after each sample, and less often without one where records are added up.
const TICK: Duration = Duration::from_millis(500);
/// A record's time is taken a moment before it can be read. What is older than this has arrived.
const SETTLED_NS: u64 = 10_000_000;
/// How long who leaves waits for the names of what is on stacks.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was taken out of the ring.
struct Drained {
    records: usize,
    /// There was no more.
    is_all: bool,
}

/// Owns everything that an instance has loaded; dropping it unloads it.
pub(crate) struct Worker {
    instances: Arc<Instances>,
    tracker: Arc<Tracker>,
    key: Key,
    bit: u32,
    inbox: Receiver<Command>,
    ring: Ring,
    /// Its programs are loaded as long as this is kept.
    _attached: Attached,
    missed: Missed,
    stream_sizes: HashMap<u16, u32>,
    kernel_loss: Vec<KernelLoss>,
    stacks: Stacks,
    /// Since when somebody who leaves waits for stacks.
    waits_since: Option<Instant>,
    /// Of a gadget that gives something out at each interval.
    sampler: Option<Sampler>,
    /// Of one whose records are added up.
    sums: Option<Sums>,
    /// Of a recorded gadget: in the ring there are notices to it, and no records.
    recording: Option<Recording>,
    /// Of a gadget that shows what there is.
    listing: Option<Listing>,
    members: Vec<Member>,
    /// What the tracker said, as of `generation`.
    cgroups: HashMap<(u32, u64), Option<Arc<Cgroup>>>,
    generation: u64,
    /// Records out of the ring, back to back.
    records: Vec<u8>,
    /// Everything of before this was handed out or is held.
    drained_to: u64,
    held: Held,
    gaps_seen: u64,
}

impl Worker {
    /// The worker of an instance that was just attached.
    pub(crate) fn new(
        instances: Arc<Instances>,
        tracker: Arc<Tracker>,
        parts: Parts,
        schema: &Schema,
        key: Key,
        bit: u32,
        inbox: Receiver<Command>,
    ) -> Result<Self, AgentError> {
        let Parts { mut attached, stacks, sums } = parts;
        let map = |name| {
            load::map(&attached.object, name).map_err(|error| AgentError::internal("use the gadget's maps", error))
        };
        Ok(Self {
            ring: Ring::new(&map("events")?, map("gadget_reader")?)?,
            kernel_loss: KernelLoss::of(&attached.object),
            stacks,
            waits_since: None,
            sums,
            sampler: (key.interval_ms > 0).then(|| {
                Sampler::new(std::mem::take(&mut attached.samplers), Duration::from_millis(key.interval_ms.into()))
            }),
            recording: Recorder::of(&attached.object)?
                .map(|recorder| Recording::new(recorder, std::mem::take(&mut attached.lists))),
            listing: (!attached.lists.is_empty()).then(|| Listing::new(std::mem::take(&mut attached.lists))),
            gaps_seen: tracker.gaps(u64::MAX).1,
            instances,
            tracker,
            key,
            bit,
            inbox,
            missed: Missed::of(&attached.object)?,
            _attached: attached,
            stream_sizes: schema.streams.iter().map(|stream| (stream.id, stream.size)).collect(),
            members: Vec::new(),
            cgroups: HashMap::new(),
            generation: 0,
            records: Vec::new(),
            drained_to: clock::boot_ns(),
            held: Held::default(),
        })
    }

    /// What wakes it to look at its inbox.
    pub(crate) fn alarm(&self) -> Alarm {
        self.ring.alarm()
    }

    /// Works until nobody is a member any more.
    pub(crate) fn run(mut self) {
        let mut last_tick = Instant::now();
        let tick = if self.sums.is_some() { 4 * TICK } else { TICK };
        loop {
            let drained = self.drain();
            if let Some(recording) = &mut self.recording {
                recording.replay(&mut self.members, &self.tracker);
            }
            self.conclude(drained.is_all);
            self.obey();
            if self.is_idle() && self.end() {
                drop(self);
                return memory::give_back();
            }
            let is_due = self.sampler.as_ref().is_some_and(|sampler| sampler.due_in().is_zero());
            if is_due {
                self.sample(false);
            }
            if is_due || last_tick.elapsed() >= tick {
                last_tick = Instant::now();
                self.tick();
                self.members.retain(|member| !member.is_given_up());
            }
            // Who comes is in more of a hurry than who has much already.
            if self.list() || drained.records == 0 && self.recording.as_mut().is_some_and(Recording::relieve) {
                continue;
            }
            self.members.iter_mut().for_each(Member::flush);
            let due_in = self.sampler.as_ref().map_or(tick, Sampler::due_in);
            if self.is_congested() || self.members.iter().any(Member::is_replaying) {
                self.ring.pause(NAP);
            } else if self.sums.is_some() && (self.stacks.are_first() || self.waits_since.is_some()) {
                self.ring.nap(LONG_NAP.min(due_in));
            } else if self.sums.is_none() && (drained.records > 0 || !self.held.is_empty()) {
                self.ring.nap(NAP.min(due_in));
            } else {
                self.ring.sleep(tick.min(due_in));
            }
        }
    }

    /// Ends if nobody has joined meanwhile.
    fn end(&mut self) -> bool {
        let instances = Arc::clone(&self.instances);
        let (key, bit) = (self.key.clone(), self.bit);
        instances.remove_if(&key, bit, || {
            self.obey();
            self.is_idle()
        })
    }

    /// Whether nobody needs it any more.
    fn is_idle(&self) -> bool {
        self.members.is_empty() && !self.recording.as_ref().is_some_and(Recording::is_kept)
    }

    fn obey(&mut self) {
        let mut has_news = false;
        let mut curious = Vec::new();
        while let Ok(command) = self.inbox.try_recv() {
            has_news = true;
            // Who comes does not want what was before; who goes wants all that was, and is told what it cannot take.
            self.sample(matches!(command, Command::Leave { finish: true, .. }));
            match command {
                Command::Join(member) => self.join(*member),
                Command::Leave { member, finish } => {
                    let leaving = self.members.iter_mut().find(|candidate| candidate.id == member);
                    match leaving {
                        Some(leaving) if finish => leaving.unread = Some(self.key.ring_bytes as usize),
                        Some(leaving) => leaving.break_off(),
                        None => {}
                    }
                }
                Command::Keep { selector, gaps } => {
                    if let Some(recording) = &mut self.recording {
                        recording.note(0, &gaps);
                        recording.keep(Some(*selector));
                    }
                }
                Command::Release => {
                    if let Some(recording) = &mut self.recording {
                        recording.keep(None);
                    }
                }
                Command::Describe(answer) => curious.push(answer),
            }
        }
        if has_news {
            if let Some(recording) = &mut self.recording {
                recording.expect(&self.tracker, &self.members);
            }
            self.show_interest();
            // Not before: from here on every event is seen.
            self.members.iter_mut().for_each(|member| member.greet(&self.tracker));
            if let Some(recording) = &mut self.recording {
                recording.begin_replays(&mut self.members);
                if !curious.is_empty() {
                    recording.look_after(&self.tracker, &self.members);
                }
                // Whoever has asked may have given up.
                curious.iter().for_each(|answer| _ = answer.send(recording.describe()));
            }
            self.ring.alarm().ring();
        }
    }

    fn join(&mut self, mut member: Member) {
        if let Some(arrived) = member.resumed
            && let Some(at) = self.members.iter().position(|former| former.id == arrived.session)
        {
            member.go_on_from(self.members.swap_remove(at), &arrived);
        }
        self.members.push(member);
    }

    fn show_interest(&self) {
        let wanted = match &self.recording {
            Some(recording) => recording.wanted(&self.members),
            None => self.members.iter().map(|member| member.selector.clone()).collect(),
        };
        self.tracker.set_interest(self.bit, Some(wanted));
    }

    /// Whether all who are here have what they want, but for names: what comes now is nobody's.
    fn awaits_names_alone(&self) -> bool {
        self.waits_since.is_some() && self.members.iter().all(|member| member.unread == Some(0))
    }

    /// Ends the part of those who are leaving, once they have got what was in the ring when they said so.
    fn conclude(&mut self, is_all: bool) {
        let is_done =
            |member: &Member| member.unread.is_some_and(|unread| is_all || unread == 0) && !member.is_replaying();
        if !self.members.iter().any(is_done) {
            self.waits_since = None;
            return;
        }
        self.pass_on_sums();
        if self.stacks.are_open() && self.waits_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            self.members.iter_mut().filter(|member| is_done(member)).for_each(|member| member.unread = Some(0));
            return;
        }
        if self.waits_since.take().is_some() {
            self.stacks.give_up();
            self.hand_out_held();
        }
        self.tracker.look_for_gaps();
        self.tick();
        let (leaving, staying): (Vec<_>, _) = std::mem::take(&mut self.members).into_iter().partition(is_done);
        self.members = staying;
        for mut member in leaving {
            self.hand_out_unnamed(&mut member);
            member.conclude(&self.tracker);
        }
        self.show_interest();
    }

    /// Hands out what is in the ring now, unless it is better left there.
    fn drain(&mut self) -> Drained {
        let now = clock::boot_ns();
        let generation = self.tracker.generation();
        if generation != self.generation {
            self.generation = generation;
            self.cgroups.clear();
            self.members.iter_mut().for_each(|member| member.decide_again(&self.tracker));
        }
        self.hand_out_held();
        let mut drained = Drained { records: 0, is_all: false };
        let is_wanted = !self.awaits_names_alone();
        let most = self.key.ring_bytes as usize / HEADER_SIZE;
        let mut records = std::mem::take(&mut self.records);
        // The ring may fill as fast as it is read, and commands must not wait for ever.
        while !drained.is_all && drained.records <= most && !self.is_congested() {
            records.clear();
            let taken = self.ring.take(&mut records);
            if is_wanted {
                self.hand_out(&records);
            }
            for unread in self.members.iter_mut().filter_map(|member| member.unread.as_mut()) {
                *unread = unread.saturating_sub(records.len());
            }
            drained.records += taken;
            drained.is_all = taken == 0;
        }
        self.records = records;
        if drained.is_all {
            self.drained_to = now;
        }
        drained
    }

    /// Hands out what has come since the last sample. What nobody can take is in the next one, unless there is none.
    fn sample(&mut self, is_last: bool) {
        let is_unwanted = self.is_congested() || self.awaits_names_alone();
        let Some(sampler) = &mut self.sampler else { return };
        sampler.pass();
        if is_unwanted && !is_last {
            return;
        }
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let taken = sampler.take(&mut records);
        self.hand_out(&records);
        self.records = records;
        self.pass_on_sums();
        if let Err(error) = taken {
            self.tell_all_of_gap(format!("the kernel did not give out a sample: {error}"));
        }
    }

    /// Says that something is missing now.
    fn tell_all_of_gap(&mut self, reason: String) {
        let now = clock::boot_ns();
        let gap = Gap { from_ns: now, to_ns: now, reason };
        self.members.iter_mut().for_each(|member| member.tell_gap(&gap));
    }

    /// Gives out some of what there is, if that can be taken, and then the end. Returns whether there may be more to do.
    fn list(&mut self) -> bool {
        let Some(listing) = &mut self.listing else { return false };
        let is_wanted = self.members.iter().any(|member| member.unread.is_none());
        if !is_wanted || self.members.iter().any(Member::is_congested) {
            return false;
        }
        if listing.is_over() {
            self.members.iter_mut().for_each(|member| member.unread = Some(0));
            return true;
        }
        match listing.take() {
            Ok(records) => self.hand_out(&records),
            Err(error) => self.tell_all_of_gap(format!("the kernel did not give out all that there is: {error}")),
        }
        self.members.iter_mut().for_each(Member::flush);
        true
    }

    /// Whether no member can take anything: then nobody loses by it if records wait in the ring. Notices to a recorder must not.
    fn is_congested(&self) -> bool {
        self.recording.is_none() && !self.members.is_empty() && self.members.iter().all(Member::is_congested)
    }

    fn hand_out(&mut self, records: &[u8]) {
        let mut rest = records;
        while let Ok(header) = Header::read(rest) {
            let (record, tail) = rest.split_at(header.size as usize);
            rest = tail;
            if self.recording.as_mut().is_some_and(|recording| recording.take(&header, record, &self.tracker)) {
                continue;
            }
            if self.stream_sizes.get(&header.stream).is_none_or(|size| header.size < *size) {
                tracing::error!("{}: a record of stream {} is malformed", self.key.gadget, header.stream);
                continue;
            }
            if let Some(sums) = &mut self.sums {
                self.stacks.expect(&header, record);
                if sums.add(&header, record) {
                    continue;
                }
            }
            self.pass_on(record);
        }
        if self.stacks.are_many() {
            self.pass_on_sums();
        }
    }

    /// Hands out a record, or holds it back if it is not known yet what it is about.
    fn pass_on(&mut self, record: &[u8]) {
        let Ok(header) = Header::read(record) else { return };
        if !self.try_to_deliver(&header, record) && !self.held.admit(&header, record) {
            for member in self.members.iter_mut().filter(|member| !member.hides(&header)) {
                member.ledger.add(Stage::AgentQueue, "too many records of what has no name yet", header.slot, 1);
            }
        }
    }

    /// Hands out what was added up until now.
    fn pass_on_sums(&mut self) {
        let sums = self.sums.as_mut().map(Sums::take).unwrap_or_default();
        sums.iter().for_each(|record| self.pass_on(record));
    }

    /// Returns whether it is known what the record is about.
    fn try_to_deliver(&mut self, header: &Header, record: &[u8]) -> bool {
        let cgroup = self.cgroup(header);
        let is_known = self.stacks.knows(header, record) && !cgroup.as_deref().is_some_and(Cgroup::is_pending);
        if is_known {
            self.deliver(header, record, cgroup.as_ref());
        }
        is_known
    }

    fn cgroup(&mut self, header: &Header) -> Option<Arc<Cgroup>> {
        if header.slot == slots::HOST {
            return None;
        }
        let place = (header.slot, header.cgroup);
        self.cgroups.entry(place).or_insert_with(|| self.tracker.owner(header)).clone()
    }

    fn deliver(&mut self, header: &Header, record: &[u8], cgroup: Option<&Arc<Cgroup>>) {
        let stacks = self.stacks.in_record(header, record);
        for member in &mut self.members {
            member.take(header, record, cgroup, &stacks);
        }
    }

    /// Hands out what was held back, as far as it is known by now what it is about.
    fn hand_out_held(&mut self) {
        let mut is_all = false;
        while !is_all {
            is_all = self.stacks.collect();
            self.held.take().iter().for_each(|record| self.pass_on(record));
        }
    }

    /// Hands out what is held back to a member that ends: without names, as far as it is wanted without.
    fn hand_out_unnamed(&mut self, member: &mut Member) {
        let mut doubtful = 0;
        for record in self.held.iter() {
            let Ok(header) = Header::read(record) else { continue };
            let pending = self.tracker.owner(&header);
            let unnamed = pending.map(|cgroup| Arc::new(cgroup.without_names()));
            let stacks = self.stacks.in_record(&header, record);
            if !member.take(&header, record, unnamed.as_ref(), &stacks) {
                doubtful += 1;
            }
        }
        member.flush();
        if doubtful > 0 {
            let (from_ns, to_ns) = (clock::boot_ns(), clock::boot_ns());
            let reason = format!("{doubtful} events are of containers that had no name when the run ended");
            member.tell_gap(&Gap { from_ns, to_ns, reason });
        }
    }

    /// Tells the members what was lost, and that the agent lives.
    fn tick(&mut self) {
        let tracker = &self.tracker;
        let mut lost = 0;
        for loss in &mut self.kernel_loss {
            for (slot, count) in loss.read() {
                lost += count;
                let in_slot = tracker.in_slot(slot);
                for member in self.members.iter_mut().filter(|member| member.wants_slot(slot, &in_slot)) {
                    member.ledger.add(loss.stage, loss.reason, slot, count);
                }
            }
        }
        let (mut gaps, seen) = tracker.gaps(self.gaps_seen);
        self.gaps_seen = seen;
        gaps.extend(self.missed.tell());
        let unsent_from = self.held.oldest().into_iter().chain(self.sums.as_ref().and_then(Sums::oldest)).min();
        let complete_to = self.drained_to.saturating_sub(SETTLED_NS).min(unsent_from.unwrap_or(u64::MAX));
        if let Some(recording) = &mut self.recording {
            recording.note(lost, &gaps);
            recording.look_after(tracker, &self.members);
            recording.follow(&mut self.members);
        }
        for member in &mut self.members {
            gaps.iter().for_each(|gap| member.tell_gap(gap));
            let recorded_to = self.recording.as_ref().map_or(u64::MAX, |recording| recording.complete_to(member));
            member.report(tracker, Some(complete_to.min(recorded_to)));
        }
    }
}
