//! The names of a process's functions: what the reader is asked, and what is made of its answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use gadgets::wire::StackFrame;

use super::child::Child;
use super::harm::{Harm, Harmful};
use super::message::{Question, Silence, Source};
use super::process::{Process, Spot};

/// Addresses in a file that the reader is asked about at once: it answers in time.
const IN_FILE: usize = 32;
/// The same for a list of what a process has made, which is read from its beginning each time.
const IN_LIST: usize = 1024;
/// Bytes of names that are looked for together: what would be more has none.
const FOUND_BYTES: usize = 4 << 20;
/// Frames that a stack is given: what compilers have put into others may be any number.
const FRAMES: usize = 512;

/// Why functions have no names, said of their processes.
const REPLACED: &str = "a file that they run was removed or replaced since they began";
const UNREADABLE: &str = "a file that they run cannot be read as a program";
const DEAR: &str = "a file that they run takes too much memory or time to read";
const MADE: &str = "they run code that was made meanwhile, which no /tmp/perf-PID.map names";
const UNREAD: &str = "the agent could not start the process that reads files (kubectl gadget doctor)";
const NOWHERE: &str = "they ran code that is not there any more";

/// What is known of files, and who reads them: started when it is needed. Dropping it ends that.
#[derive(Default)]
pub(super) struct Lookup {
    reader: Option<Child>,
    harmful: Harmful,
}

/// What was found in a place: by address the functions; or why there are none.
type Found = Result<HashMap<u64, Vec<Arc<StackFrame>>>, &'static str>;

/// Some stacks of one process: where their frames are, and what was found there so far.
pub(super) struct Search {
    stacks: Vec<Vec<Spot>>,
    /// Addresses that are still to be asked about, by place.
    unasked: VecDeque<(Spot, Vec<u64>)>,
    found: HashMap<Rc<Source>, Found>,
    /// Bytes of that.
    size: usize,
}

/// The frames of a stack, innermost first.
pub(super) struct Frames {
    pub(super) frames: Vec<Arc<StackFrame>>,
    /// There were more.
    pub(super) cut: bool,
    /// Why none of them has a name, if that is known.
    pub(super) problem: Option<&'static str>,
}

impl Search {
    /// For the names of stacks of addresses, innermost first.
    pub(super) fn of<'a>(process: &Process, stacks: impl Iterator<Item = &'a [u64]>) -> Self {
        // All but the innermost are where a call will return to: the call is before that.
        let of_call = |(at, address): (usize, &u64)| if at == 0 { *address } else { address.saturating_sub(1) };
        let spots = |stack: &'a [u64]| -> Vec<Spot> {
            stack.iter().enumerate().map(of_call).map(|address| process.spot(address)).collect()
        };
        let stacks: Vec<Vec<Spot>> = stacks.map(spots).collect();
        let mut wanted: BTreeMap<Rc<Source>, (Spot, BTreeSet<u64>)> = BTreeMap::new();
        for spot in stacks.iter().flatten() {
            if let Some(source) = &spot.source {
                let place = || (spot.clone(), BTreeSet::new());
                wanted.entry(Rc::clone(source)).or_insert_with(place).1.insert(spot.address);
            }
        }
        let unasked = wanted.into_iter().flat_map(|(source, (place, addresses))| {
            let addresses: Vec<u64> = addresses.into_iter().collect();
            let at_once = match *source {
                Source::File { .. } => IN_FILE,
                Source::PerfMap { .. } => IN_LIST,
            };
            addresses.chunks(at_once).map(|some| (place.clone(), some.to_vec())).collect::<Vec<_>>()
        });
        Self { unasked: unasked.collect(), stacks, found: HashMap::new(), size: 0 }
    }

    /// For nothing.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self { stacks: Vec::new(), unasked: VecDeque::new(), found: HashMap::new(), size: 0 }
    }

    /// Whether there is nothing left to ask.
    pub(super) fn is_over(&self) -> bool {
        self.unasked.is_empty()
    }

    /// Asks about some more addresses. What the reader did not survive is asked again later, for less.
    pub(super) fn go_on(&mut self, lookup: &mut Lookup, process: &Process) {
        let Some((place, addresses)) = self.unasked.pop_front() else { return };
        let Some(source) = place.source.clone() else { return };
        let has_room = self.size < FOUND_BYTES;
        let answer = if has_room { lookup.ask(process, &source, &addresses) } else { Some(Err(DEAR)) };
        match answer {
            None => self.unasked.push_front((place, addresses)),
            Some(Ok(names)) => {
                self.size += names.iter().flatten().map(StackFrame::size).sum::<usize>();
                let frames = |(address, names)| (address, Spot { address, ..place.clone() }.frames(names));
                let named = addresses.into_iter().zip(names).filter(|(_, names)| !names.is_empty()).map(frames);
                if let Ok(found) = self.found.entry(source).or_insert_with(|| Ok(HashMap::new())) {
                    found.extend(named);
                }
            }
            Some(Err(why)) => {
                self.unasked.retain(|(other, _)| other.source.as_ref() != Some(&source));
                // What was found stays.
                self.found.entry(source).or_insert(Err(why));
            }
        }
    }

    /// The frames of each stack, as far as they were found.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frames> {
        self.stacks.iter().map(|spots| frames(spots, &self.found))
    }
}

impl Lookup {
    /// Asks the reader, for each address. `None` if it did not survive that: the next time it is asked for less, until that is nothing.
    fn ask(
        &mut self,
        process: &Process,
        source: &Rc<Source>,
        addresses: &[u64],
    ) -> Option<Result<Vec<Vec<StackFrame>>, &'static str>> {
        let Some(root) = process.root_id(source) else { return Some(Err(UNREADABLE)) };
        // Most of what it needs memory for are lines.
        let lines = match self.harmful.known(root, source) {
            None => true,
            Some(Harm::Lines) => false,
            Some(Harm::Names) => return Some(Err(DEAR)),
        };
        let question = Question { source: (**source).clone(), addresses: addresses.to_vec(), lines };
        let reader = match self.reader() {
            Ok(reader) => reader,
            Err(why) => return Some(Err(why)),
        };
        match reader.ask(process.root_of(source), &question) {
            Ok(answer) => Some(answer.map_err(|silence| {
                tracing::debug!("{source}: {silence:?}");
                reason(source, &silence)
            })),
            Err(error) => {
                tracing::warn!("the reader of symbols has ended with {source} (lines: {lines}): {error}");
                self.reader = None;
                let harm = if lines { Harm::Lines } else { Harm::Names };
                self.harmful.remember(root, source, harm);
                None
            }
        }
    }

    fn reader(&mut self) -> Result<&mut Child, &'static str> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => {
                let started = Child::start()
                    .inspect_err(|error| tracing::warn!("the reader of symbols cannot be started: {error}"));
                Ok(none.insert(started.map_err(|_| UNREAD)?))
            }
        }
    }
}

fn reason(source: &Source, silence: &Silence) -> &'static str {
    match (source, silence) {
        (Source::PerfMap { .. }, Silence::Missing) => MADE,
        (Source::File { .. }, Silence::Missing) => REPLACED,
        (_, Silence::Unreadable(_)) => UNREADABLE,
    }
}

fn frames(spots: &[Spot], found: &HashMap<Rc<Source>, Found>) -> Frames {
    let mut frames = Vec::new();
    let mut cut = false;
    for spot in spots {
        let found = spot.source.as_ref().and_then(|source| found.get(source)?.as_ref().ok()?.get(&spot.address));
        match found {
            Some(found) => frames.extend(found.iter().map(Arc::clone)),
            None => frames.extend(spot.frames(Vec::new())),
        }
        if frames.len() > FRAMES {
            frames.truncate(FRAMES);
            cut = true;
            break;
        }
    }
    let is_named = frames.iter().any(|frame| frame.function.is_some());
    let innermost = spots.first().filter(|_| !is_named);
    let problem = innermost.and_then(|spot| match &spot.source {
        Some(source) => match (found.get(source)?, &**source) {
            (Err(why), _) => Some(*why),
            (Ok(_), Source::PerfMap { .. }) => Some(MADE),
            (Ok(_), Source::File { .. }) => None,
        },
        None => spot.is_nowhere().then_some(NOWHERE),
    });
    Frames { frames, cut, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Rc<Source> {
        Rc::new(Source::File { path: "/app/hot".into(), device: "00:2d".into(), inode: 1 })
    }

    fn spot(source: &Rc<Source>, address: u64) -> Spot {
        Spot { source: Some(Rc::clone(source)), address, ..Spot::default() }
    }

    fn named(name: &str) -> Vec<Arc<StackFrame>> {
        vec![Arc::new(StackFrame { function: Some(name.into()), ..StackFrame::default() })]
    }

    #[test]
    fn why_there_are_no_names_is_said_only_if_there_are_none() {
        let (file, made) = (file(), Rc::new(Source::PerfMap { pid: 1 }));
        let found =
            [(Rc::clone(&file), Ok([(1, named("main"))].into())), (Rc::clone(&made), Ok(HashMap::new()))].into();
        let spots = [spot(&made, 7), spot(&file, 1)];
        let Frames { frames: all, problem, .. } = frames(&spots, &found);
        assert_eq!((all.len(), all[1].function.as_deref(), problem), (2, Some("main"), None));
        assert_eq!(frames(&spots[..1], &found).problem, Some(MADE));
        // A program without names is nothing out of the ordinary.
        assert_eq!(frames(&[spot(&file, 2)], &found).problem, None);
        assert_eq!(frames(&[Spot::default()], &found).problem, Some(NOWHERE));
        let found = [(Rc::clone(&file), Err(REPLACED))].into();
        assert_eq!(frames(&[spot(&file, 1)], &found).problem, Some(REPLACED));
    }

    #[test]
    fn no_stack_has_more_frames_than_many() {
        let file = file();
        let inlined = std::iter::repeat_with(|| named("f").remove(0)).take(60).collect();
        let found = [(Rc::clone(&file), Ok([(1, inlined)].into()))].into();
        let of = |depth| frames(&vec![spot(&file, 1); depth], &found);
        assert_eq!((of(8).frames.len(), of(8).cut), (480, false));
        assert_eq!((of(127).frames.len(), of(127).cut), (FRAMES, true));
    }
}
