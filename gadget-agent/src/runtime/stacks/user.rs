//! Stacks of programs: `bpf/include/user_stack.h`. What is at their addresses is looked up by [`crate::symbols`]: until there is an answer a
//! stack is open.
//!
//! What is known takes bounded memory, however deep stacks are and however long names: who makes programs may choose both.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use gadgets::wire::{FrameEntry, StackFrame, UserStackEntry};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object};

use super::recent::Recent;
use super::{FRAMES, Stack};
use crate::runtime::load;
use crate::symbols::{Named, ProgramId, Symbols, Unnamed};

/// Where `struct gadget_stack` has the number of frames; whose it is; and the frames.
const COUNT: usize = 8;
const PROGRAM: usize = 16;
const FRAMES_AT: usize = 48;
/// The maps.
const MAP: &str = "gadget_user_stacks";
const PROGRAMS: &str = "gadget_user_programs";
/// Stacks that may be learned, and bytes that they may take, before the oldest are forgotten: these are as many at most.
const KNOWN: usize = 8 << 10;
const KNOWN_BYTES: usize = 12 << 20;
/// Frames that are known by numbers, and bytes that they may take, before they get other ones.
const NUMBERED: usize = 32 << 10;
const NUMBERED_BYTES: usize = 8 << 20;
/// How often room is made where there was none: all that is kept is looked at.
const FULL: Duration = Duration::from_secs(1);

const BUSY: &str = "too many stacks were to be named at once";
const LATE: &str = "their names had not been found when the run ended";

/// Those of one gadget.
pub(super) struct User {
    stacks: MapHandle,
    /// How many were found in the map since room was made there.
    told: usize,
    /// When that was.
    made_room: Instant,
    /// There was none since then.
    is_full: bool,
    /// The programs that the kernel does not call for any more.
    programs: MapHandle,
    /// Those that have come since it was told to begin anew.
    called: HashSet<ProgramId>,
    /// Some have come since somebody asked.
    are_first: bool,
    /// `None` is open.
    known: Recent<Option<Arc<Stack>>>,
    open: usize,
    frames: Frames,
    symbols: Option<Symbols>,
    answers: (Sender<Named>, Receiver<Named>),
}

impl User {
    /// Those of a gadget that was loaded, if it has any.
    pub(super) fn of(object: &Object, symbols: Option<Symbols>) -> Option<Self> {
        let [stacks, programs] = [MAP, PROGRAMS].map(|name| load::map(object, name).ok());
        Some(Self {
            stacks: stacks?,
            told: 0,
            made_room: Instant::now(),
            is_full: false,
            programs: programs?,
            called: HashSet::new(),
            are_first: false,
            known: Recent::default(),
            open: 0,
            frames: Frames::default(),
            symbols,
            answers: channel(),
        })
    }

    /// The one with this number, if it is not open.
    pub(super) fn look(&mut self, number: u64) -> Option<Arc<Stack>> {
        if let Some(known) = self.known.get(number) {
            return known.clone();
        }
        match self.find(number) {
            Some(stack) => {
                self.are_first |= self.is_first(stack.program);
                self.ask(stack);
            }
            None => self.learn(number, Some(Stack::unknown_of_program(number)), 0),
        }
        self.known.get(number).cloned().flatten()
    }

    /// Takes in answers, and makes room for other stacks. Returns whether these were all.
    pub(super) fn collect(&mut self) -> bool {
        let mut taken = 0;
        while taken < KNOWN_BYTES / 2
            && let Ok(named) = self.answers.1.try_recv()
        {
            taken += self.name(named);
        }
        self.make_room();
        taken < KNOWN_BYTES / 2
    }

    /// Some found no room.
    pub(super) fn were_lost(&mut self) {
        self.is_full = true;
    }

    /// Whether programs have come since the last call that had no stacks before.
    pub(super) fn are_first(&mut self) -> bool {
        std::mem::take(&mut self.are_first)
    }

    /// Whether some have no names yet.
    pub(super) fn are_open(&self) -> bool {
        self.open > 0
    }

    /// Leaves those that have no names yet without.
    pub(super) fn give_up(&mut self) {
        let open: Vec<u64> = self.open_ones().collect();
        open.into_iter().for_each(|number| _ = self.name(Named::nothing(number, LATE)));
    }

    fn find(&mut self, number: u64) -> Option<Addresses> {
        let key = number.to_ne_bytes();
        let found = self.stacks.lookup(&key, MapFlags::ANY).ok().flatten()?;
        self.told += 1;
        Addresses::parse(&found)
    }

    /// Whether a program had no stacks before, as far as that is known.
    fn is_first(&mut self, program: ProgramId) -> bool {
        if self.called.len() >= self.programs.max_entries() as usize / 2 {
            // Also those whose stacks were lost.
            let called: Vec<Vec<u8>> = self.programs.keys().collect();
            called.iter().for_each(|key| _ = self.programs.delete(key));
            self.called.clear();
        }
        self.called.insert(program)
    }

    /// Takes away those that are known, if there may be too little room: also those that have come again since they were taken away before.
    fn make_room(&mut self) {
        let is_full = self.is_full && self.made_room.elapsed() >= FULL;
        if !is_full && self.told < self.stacks.max_entries() as usize / 2 {
            return;
        }
        let number = |key: &Vec<u8>| key.first_chunk().map(|key| u64::from_ne_bytes(*key));
        let is_known = |key: &Vec<u8>| number(key).is_some_and(|number| self.known.has(number));
        let known: Vec<_> = self.stacks.keys().filter(is_known).collect();
        known.iter().for_each(|key| _ = self.stacks.delete(key));
        (self.told, self.made_room, self.is_full) = (0, Instant::now(), false);
    }

    fn ask(&mut self, stack: Addresses) {
        let Addresses { number, program, addresses } = stack;
        self.learn(number, None, 0);
        self.open += 1;
        let question = Unnamed { number, program, addresses, answer: self.answers.0.clone() };
        if !self.symbols.as_ref().is_some_and(|symbols| symbols.ask(question)) {
            self.name(Named::nothing(number, BUSY));
        }
    }

    /// A stack is open no longer. Returns how many bytes it takes.
    fn name(&mut self, named: Named) -> usize {
        let Named { number, frames, cut, short, problem } = named;
        // It may have been given up.
        if !matches!(self.known.get(number), Some(None)) {
            return 0;
        }
        self.open -= 1;
        let cut = cut || frames.iter().filter(|frame| !frame.inlined).count() >= FRAMES;
        let short = short && !cut;
        let (frames, sizes): (Vec<_>, Vec<_>) = frames.into_iter().map(|frame| self.frames.number(frame)).unzip();
        let size = frames.len() * (size_of::<u64>() + size_of::<Arc<FrameEntry>>()) + sizes.iter().sum::<usize>();
        let entry =
            UserStackEntry { number, frames: frames.iter().map(|frame| frame.id).collect(), cut, short, problem };
        self.learn(number, Some(Stack::User(entry, frames)), size);
        size
    }

    fn learn(&mut self, number: u64, stack: Option<Stack>, size: usize) {
        if self.known.count() >= KNOWN || self.known.size() >= KNOWN_BYTES {
            self.forget_former();
        }
        self.known.insert(number, stack.map(Arc::new), size);
    }

    fn forget_former(&mut self) {
        // Somebody waits for these.
        let open: Vec<u64> = self.open_ones().collect();
        // What comes again is put there again.
        self.known.forget_former().for_each(|number| _ = self.stacks.delete(&number.to_ne_bytes()));
        open.into_iter().for_each(|number| self.known.insert(number, None, 0));
    }

    fn open_ones(&self) -> impl Iterator<Item = u64> {
        self.known.latest().filter(|(_, stack)| stack.is_none()).map(|(number, _)| number)
    }
}

/// The frames that sessions know by numbers.
#[derive(Default)]
struct Frames {
    numbered: HashMap<Arc<StackFrame>, Arc<FrameEntry>>,
    /// Bytes that these take.
    size: usize,
    last: u64,
}

impl Frames {
    /// A frame with its number, and how many bytes that takes which were not taken before.
    fn number(&mut self, frame: Arc<StackFrame>) -> (Arc<FrameEntry>, usize) {
        if let Some(known) = self.numbered.get(&frame) {
            return (Arc::clone(known), 0);
        }
        if self.numbered.len() >= NUMBERED || self.size >= NUMBERED_BYTES {
            self.numbered.clear();
            self.size = 0;
        }
        self.last += 1;
        let entry = Arc::new(FrameEntry { id: self.last, frame: (*frame).clone() });
        // Once as it came, and once with its number.
        let size = 2 * frame.size();
        self.size += size;
        self.numbered.insert(frame, Arc::clone(&entry));
        (entry, size)
    }
}

/// `struct gadget_stack` of a program.
#[derive(Debug, PartialEq, Eq)]
struct Addresses {
    number: u64,
    program: ProgramId,
    addresses: Vec<u64>,
}

impl Addresses {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let count = u32::from_ne_bytes(*bytes.get(COUNT..)?.first_chunk()?) as usize;
        let mut of_program = bytes.get(PROGRAM..FRAMES_AT)?.chunks_exact(8).map(number);
        let pid = u32::try_from(of_program.next()?).ok()?;
        let [started, stack_end, data_end] = [of_program.next()?, of_program.next()?, of_program.next()?];
        let program = ProgramId { pid, started, stack_end, data_end };
        let addresses = bytes.get(FRAMES_AT..)?.chunks_exact(8).take(count).map(number).collect();
        Some(Self { number: number(bytes), program, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_keeps_them() {
        let mut bytes = [&7u64.to_ne_bytes()[..], &2u32.to_ne_bytes(), &0u32.to_ne_bytes()].concat();
        bytes.extend([9, 10, 11, 12].into_iter().chain(1..=FRAMES as u64).flat_map(u64::to_ne_bytes));
        assert_eq!(
            Addresses::parse(&bytes),
            Some(Addresses {
                number: 7,
                program: ProgramId { pid: 9, started: 10, stack_end: 11, data_end: 12 },
                addresses: vec![1, 2]
            })
        );
        assert_eq!(Addresses::parse(&bytes[..12]), None);
    }

    #[test]
    fn frames_take_bounded_memory() {
        let named = |name: String| Arc::new(StackFrame { function: Some(name), ..StackFrame::default() });
        let mut frames = Frames::default();
        let (first, size) = frames.number(named("f".into()));
        assert!(size > 0);
        assert_eq!(frames.number(named("f".into())), (first, 0));
        let long = NUMBERED_BYTES / 100;
        for number in 0..1000 {
            frames.number(named(format!("{number}{}", "x".repeat(long))));
            assert!(frames.size <= NUMBERED_BYTES + 4 * long, "{}", frames.size);
        }
        // It was forgotten.
        assert_eq!((frames.number(named("f".into())).0.id, frames.last), (1002, 1002));
    }
}
