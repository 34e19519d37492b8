//! What a worker does with a recorder: gives out what was recorded, to whom it belongs or to whoever asks for it.

use std::collections::HashMap;
use std::sync::Arc;

use gadgets::record::{Header, records};
use gadgets::spec::{Past, Selector};
use gadgets::wire::{self, Gap, Stage};
use libbpf_rs::Link;

use crate::clock;
use crate::loss::OVERWRITTEN;
use crate::member::Member;
use crate::pods::cgroup::Cgroup;
use crate::pods::selection::{Verdict, verdict};
use crate::pods::slots;
use crate::pods::tracker::Tracker;
use crate::runtime::recorder::Recorder;
use crate::runtime::sample;

const UNKEPT: &str = "of containers that the recorder had no place for";
/// Gaps that are remembered.
const MAX_GAPS: usize = 64;

/// What an instance has recorded.
pub(crate) struct Recording {
    recorder: Recorder,
    /// What says what is underway, and not recorded yet.
    underway: Vec<Link>,
    /// Whose calls are recorded for whoever asks, until somebody says that it is enough. Else it is a session's own.
    keeper: Option<Selector>,
    /// Records of which nothing was kept at all.
    unkept: u64,
    gaps: Vec<Gap>,
}

impl Recording {
    pub(crate) fn new(recorder: Recorder, underway: Vec<Link>) -> Self {
        Self { recorder, underway, keeper: None, unkept: 0, gaps: Vec::new() }
    }

    /// Takes note of what came in place of a record. Returns whether it is that.
    pub(crate) fn take(&mut self, header: &Header, notice: &[u8], tracker: &Tracker) -> bool {
        self.recorder.note(header, notice, tracker)
    }

    /// From now on it goes on without sessions; with `None` no longer.
    pub(crate) fn keep(&mut self, selector: Option<Selector>) {
        self.keeper = selector;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// What is missing from now on for whoever asks later.
    pub(crate) fn note(&mut self, lost: u64, gaps: &[Gap]) {
        self.unkept += lost;
        let room = MAX_GAPS.saturating_sub(self.gaps.len());
        self.gaps.extend(gaps.iter().take(room).cloned());
    }

    /// Whose records are wanted: those of who looks at somebody else's are there, or not.
    pub(crate) fn wanted(&self, members: &[Member]) -> Vec<Selector> {
        let of_members = members.iter().filter(|member| member.past.is_none()).map(|member| &member.selector);
        self.keeper.iter().chain(of_members).cloned().collect()
    }

    /// Sees to it that there is a place for each that is wanted.
    pub(crate) fn expect(&mut self, tracker: &Tracker, members: &[Member]) {
        self.recorder.expect(tracker.count_wanted(&self.wanted(members)));
    }

    /// Looks where memory is needed.
    pub(crate) fn look_after(&mut self, tracker: &Tracker, members: &[Member]) {
        let wanted = self.wanted(members);
        let may_want = |cgroup: Option<&Cgroup>| wanted.iter().any(|one| verdict(one, cgroup) != Verdict::Unwanted);
        self.recorder.remember(tracker, may_want);
        self.recorder.look_after();
    }

    /// Moves some memory to where it is needed. Returns whether there may be more to do.
    pub(crate) fn relieve(&mut self) -> bool {
        self.recorder.relieve()
    }

    /// Begins to give out what was recorded, to those who want no more than that, and to those who want nothing else.
    pub(crate) fn begin_replays(&mut self, members: &mut [Member]) {
        for member in members.iter_mut().filter(|member| member.replay.is_none()) {
            match &member.past {
                Some(past) => {
                    let mut replay = self.recorder.begin_replay(past);
                    if !past.follow {
                        member.unread = Some(0);
                        replay.end_with(underway(&self.underway));
                    }
                    member.replay = Some(replay);
                    self.gaps.iter().for_each(|gap| member.tell_gap(gap));
                    member.tell_loss(Stage::KernelMap, UNKEPT, None, self.recorder.began_ns, self.unkept);
                }
                None if member.unread.is_some() => {
                    self.recorder.stop();
                    let mut replay = self.recorder.begin_replay(&Past::default());
                    replay.end_with(underway(&self.underway));
                    member.replay = Some(replay);
                }
                None => {}
            }
        }
    }

    /// Goes on for those who want to see what comes.
    pub(crate) fn follow(&mut self, members: &mut [Member]) {
        for member in members.iter_mut().filter(|member| member.follows() && !member.is_replaying()) {
            let Some(former) = member.replay.take() else { continue };
            let (replay, missed) = self.recorder.go_on(&former);
            member.replay = Some(replay);
            for (cgroup, to_ns) in missed {
                let Some(cgroup) = self.recorder.cgroup(cgroup).filter(|cgroup| is_wanted(member, Some(cgroup))) else {
                    continue;
                };
                let reason = format!("calls of {} were written over before they were shown", cgroup.full_name());
                member.tell_gap(&Gap { from_ns: former.given_to_ns(), to_ns, reason });
            }
        }
    }

    /// Hands out what can be had and taken by now.
    pub(crate) fn replay(&mut self, members: &mut [Member], tracker: &Tracker) {
        let mut known = HashMap::new();
        let find = |id: u64| tracker.get(id).or_else(|| self.recorder.cgroup(id));
        let mut cgroup = |header: &Header| -> Option<Arc<Cgroup>> {
            if header.slot == slots::HOST {
                return None;
            }
            known.entry(header.cgroup).or_insert_with(|| find(header.cgroup)).clone()
        };
        let mut chunk = Vec::new();
        for member in members {
            let Some(mut replay) = member.replay.take() else { continue };
            while !replay.is_over() && !member.is_congested() {
                chunk.clear();
                self.recorder.replay(&mut replay, &mut chunk, |header| {
                    !cgroup(header).is_some_and(|cgroup| cgroup.is_pending())
                });
                for record in records(&chunk).map_while(Result::ok) {
                    member.take(&record.header, record.bytes, cgroup(&record.header).as_ref(), &[]);
                }
                member.flush();
                if chunk.is_empty() {
                    // The next one's container has no name yet.
                    break;
                }
            }
            if replay.is_over() {
                for (id, count) in replay.take_lost() {
                    let cgroup = find(id);
                    if is_wanted(member, cgroup.as_deref()) {
                        let began_ns = self.recorder.began_ns;
                        member.tell_loss(Stage::Recorder, OVERWRITTEN, cgroup.as_deref(), began_ns, count);
                    }
                }
            }
            member.replay = Some(replay);
        }
    }

    /// Up to when a member has got everything.
    pub(crate) fn complete_to(&self, member: &Member) -> u64 {
        member.replay.as_ref().map_or(self.recorder.began_ns, |replay| replay.given_to_ns())
    }

    /// What there is, as far as the recorder knows: the rest is for whoever keeps the list.
    pub(crate) fn describe(&self) -> wire::Recording {
        let clock = clock::now();
        // Of a pod its sandbox is recorded as well.
        let is_meant = |cgroup: Option<&Cgroup>| {
            self.keeper.as_ref().is_some_and(|selector| verdict(selector, cgroup) != Verdict::Unwanted)
        };
        let recorded = self.recorder.recorded().into_iter().filter(|recorded| is_meant(recorded.cgroup.as_deref()));
        let recorded = recorded.map(|recorded| wire::Recorded {
            container: recorded.cgroup.map(|cgroup| wire::CgroupEntry { labels: [].into(), ..cgroup.entry() }),
            bytes: recorded.bytes,
            kept: recorded.kept,
            overwritten: recorded.overwritten,
            first_wall_ns: recorded.between_ns.map(|(first_ns, _)| clock.wall(first_ns)),
            last_wall_ns: recorded.between_ns.map(|(_, last_ns)| clock.wall(last_ns)),
            is_gone: recorded.is_gone,
            end: recorded.end,
        });
        let forgotten = self.recorder.forgotten;
        wire::Recording {
            began_wall_ns: clock.wall(self.recorder.began_ns),
            containers: recorded.collect(),
            forgotten_containers: forgotten.cgroups,
            forgotten: forgotten.records,
            lost: self.unkept,
            gaps: self.gaps.clone(),
            ..wire::Recording::default()
        }
    }
}

/// Records of what has begun and is not recorded yet.
fn underway(lists: &[Link]) -> Vec<u8> {
    let mut records = Vec::new();
    for list in lists {
        if let Err(error) = sample::read(list, &mut records) {
            tracing::warn!("the kernel did not give out all that is underway: {error}");
        }
    }
    records
}

fn is_wanted(member: &Member, cgroup: Option<&Cgroup>) -> bool {
    verdict(&member.selector, cgroup) == Verdict::Wanted
}
