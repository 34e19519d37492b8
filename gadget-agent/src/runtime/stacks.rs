//! Stacks: what is behind the numbers in a gadget's records. See `bpf/include/stack.h`.
//!
//! Functions of the kernel are named by the kernel, at once. Those of programs are looked up by [`crate::symbols`]: until there is an answer a
//! stack is open.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use gadgets::record::Header;
use gadgets::schema::{Kind, Schema};
use gadgets::wire::{FrameEntry, StackEntry, StackFrame, UserStackEntry};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, Object};

use super::load::{self, Plan};
use super::refusal::Refusal;
use super::sample;
use crate::symbols::{Named, ProgramId, Symbols, Unnamed};

/// `GADGET_STACK_NONE` and `GADGET_STACK_UNKEPT` of `gadget.h`.
const NONE: u64 = 0;
const UNKEPT: u64 = u64::MAX;
/// `STACK_FRAMES` of `stack.h`.
const FRAMES: usize = 127;
/// Where `struct gadget_stack` has the number of frames; whether it is named; whose it is; and the frames.
const COUNT: usize = 8;
const IS_NAMED: usize = 12;
const PROGRAM: usize = 16;
const FRAMES_AT: usize = 48;
/// The maps.
const KERNEL: &str = "gadget_stacks";
const USER: &str = "gadget_user_stacks";
const USER_PROGRAMS: &str = "gadget_user_programs";
/// Stacks that are known before the oldest are forgotten: no fewer than half of them.
const KNOWN: usize = 16 << 10;
/// Frames that are known by numbers, before they get other ones.
const NUMBERED: usize = 32 << 10;
/// How often room is made where there was none: all that is kept is looked at.
const FULL: Duration = Duration::from_secs(1);
/// What the names of some stacks fit into, in bytes.
const NAMES: usize = 8 << 10;
/// What a function is called that the kernel does not know.
const UNKNOWN: &str = "[unknown]";
/// How the names of functions begin through which the kernel comes to a BPF program.
const OWN: [&str; 5] = ["bpf_prog_", "bpf_trampoline_", "bpf_trace_run", "__bpf_trace_", "__traceiter_"];
/// What calls the tracepoint of the tick, in an interrupt.
const TICK: &str = "rcu_sched_clock_irq";
/// How the names of functions begin through which a processor comes from what it does to an interrupt.
const INTERRUPTS: [&str; 5] = ["asm_sysvec_", "el1h_64_irq", "el1_irq", "el0t_64_irq", "el0_irq"];

const BUSY: &str = "too many stacks were to be named at once";
const LATE: &str = "their names had not been found when the run ended";

/// A stack whose frames are known, as far as they can be.
#[derive(Debug)]
pub(crate) enum Stack {
    /// Of the kernel.
    Kernel(StackEntry),
    /// Of a program, and its frames.
    User(UserStackEntry, Vec<Arc<FrameEntry>>),
}

impl Stack {
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Kernel(entry) => entry.number,
            Self::User(entry, _) => entry.number,
        }
    }
}

/// Whose stacks a map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Kernel,
    User,
}

/// Stacks of the kernel, which are given out with their names.
struct Kernel {
    map: MapHandle,
    iterator: Link,
    /// How many were given out and are still in the map.
    told: usize,
}

/// Stacks of programs, which are looked up by their numbers.
struct User {
    stacks: MapHandle,
    /// How many were since room was made.
    told: usize,
    /// When that was.
    made_room: Instant,
    /// There was none since then.
    is_full: bool,
    /// The programs that the kernel does not call for any more.
    programs: MapHandle,
    /// Those that have come since it was told to begin anew.
    known: HashSet<ProgramId>,
}

/// The stacks of one gadget.
pub(crate) struct Stacks {
    /// Where records have their numbers: stream, and bytes from the record's start.
    places: Vec<(u16, usize, Of)>,
    kernel: Option<Kernel>,
    user: Option<User>,
    /// `None` is open.
    known: HashMap<u64, Option<Arc<Stack>>>,
    /// What was known before that.
    former: HashMap<u64, Option<Arc<Stack>>>,
    open: usize,
    /// Some were the first of their programs since somebody asked.
    are_first: bool,
    frames: HashMap<StackFrame, Arc<FrameEntry>>,
    last_frame: u64,
    symbols: Option<Symbols>,
    answers: (Sender<Named>, Receiver<Named>),
}

impl Stacks {
    /// Those of a gadget that was loaded. Those of programs have names if `symbols` gives them.
    pub(crate) fn of(object: &Object, schema: &Schema, symbols: Option<Symbols>) -> Self {
        let places = schema.streams.iter().flat_map(|stream| {
            let place = |field: &gadgets::schema::Field| match field.kind {
                Kind::KernelStack => Some((stream.id, field.offset as usize, Of::Kernel)),
                Kind::UserStack => Some((stream.id, field.offset as usize, Of::User)),
                _ => None,
            };
            stream.fields.iter().filter_map(place)
        });
        let mut stacks = Self {
            places: places.collect(),
            kernel: None,
            user: User::of(object),
            known: HashMap::new(),
            former: HashMap::new(),
            open: 0,
            are_first: false,
            frames: HashMap::new(),
            last_frame: 0,
            symbols,
            answers: channel(),
        };
        if stacks.places.iter().any(|(.., of)| *of == Of::Kernel) {
            match Kernel::of(object) {
                Ok(kernel) => stacks.kernel = Some(kernel),
                Err(error) => tracing::warn!("stacks of the kernel have no names: {error}"),
            }
        }
        stacks
    }

    /// Takes in answers, and makes room for other stacks.
    pub(crate) fn collect(&mut self) {
        while let Ok(named) = self.answers.1.try_recv() {
            self.name(named);
        }
        let Self { user: Some(user), known, former, .. } = self else { return };
        user.make_room(|number| known.contains_key(&number) || former.contains_key(&number));
    }

    /// Asks for what has names only as long as its process is there, if nobody has yet.
    pub(crate) fn expect(&mut self, header: &Header, record: &[u8]) {
        for (of, number) in self.places_in(header, record).collect::<Vec<_>>() {
            match (of, number) {
                (Of::User, UNKEPT) => self.user.iter_mut().for_each(|user| user.is_full = true),
                (Of::User, number) if number != NONE => _ = self.look(of, number),
                _ => {}
            }
        }
    }

    /// Whether it is known what a record's stacks are, as far as it can be.
    pub(crate) fn knows(&mut self, header: &Header, record: &[u8]) -> bool {
        let numbers = self.numbers(header, record);
        numbers.into_iter().fold(true, |known, (of, number)| self.look(of, number).is_some() && known)
    }

    /// Whether programs have come since the last call that had no stacks before.
    pub(crate) fn are_first(&mut self) -> bool {
        std::mem::take(&mut self.are_first)
    }

    /// Whether some have no names yet.
    pub(crate) fn are_open(&self) -> bool {
        self.open > 0
    }

    /// Leaves those that have no names yet without.
    pub(crate) fn give_up(&mut self) {
        let open: Vec<u64> =
            self.known.iter().filter(|(_, stack)| stack.is_none()).map(|(number, _)| *number).collect();
        open.into_iter().for_each(|number| self.name(Named::nothing(number, LATE)));
    }

    /// The stacks in a record. What nobody knows has no frames.
    pub(crate) fn in_record(&mut self, header: &Header, record: &[u8]) -> Vec<Arc<Stack>> {
        let numbers = self.numbers(header, record);
        let get = |(of, number)| self.look(of, number).unwrap_or_else(|| Arc::new(unknown(of, number)));
        numbers.into_iter().map(get).collect()
    }

    fn numbers(&self, header: &Header, record: &[u8]) -> Vec<(Of, u64)> {
        self.places_in(header, record).filter(|(_, number)| ![NONE, UNKEPT].contains(number)).collect()
    }

    fn places_in<'a>(&'a self, header: &Header, record: &'a [u8]) -> impl Iterator<Item = (Of, u64)> + 'a {
        let stream = header.stream;
        let in_stream = self.places.iter().filter(move |(of, ..)| *of == stream);
        in_stream.filter_map(|(_, at, of)| Some((*of, u64::from_ne_bytes(*record.get(*at..)?.first_chunk()?))))
    }

    /// A stack, if it is not open.
    fn look(&mut self, of: Of, number: u64) -> Option<Arc<Stack>> {
        if !self.known.contains_key(&number) {
            match self.former.remove(&number) {
                Some(former) => self.remember(number, former),
                None => self.learn(of, number),
            }
        }
        let nobody_knows = || Some(Arc::new(unknown(of, number)));
        self.known.entry(number).or_insert_with(nobody_knows).clone()
    }

    fn remember(&mut self, number: u64, stack: Option<Arc<Stack>>) {
        if self.known.len() >= KNOWN / 2 {
            self.former = std::mem::take(&mut self.known);
            // Somebody waits for these.
            let open = self.former.extract_if(|_, stack| stack.is_none());
            self.known.extend(open);
        }
        self.known.insert(number, stack);
    }

    /// Learns what a number means, and perhaps others.
    fn learn(&mut self, of: Of, number: u64) {
        match of {
            Of::Kernel => {
                let stacks = self.kernel.as_mut().map(Kernel::learn).unwrap_or_default();
                stacks.into_iter().for_each(|stack| self.remember(stack.number, Some(Arc::new(Stack::Kernel(stack)))));
            }
            Of::User => {
                let Some(user) = &mut self.user else { return };
                let Some(stack) = user.find(number) else { return };
                self.are_first |= user.is_first(stack.program);
                self.ask(stack);
            }
        }
    }

    fn ask(&mut self, stack: Addresses) {
        let Addresses { number, program, addresses } = stack;
        self.remember(number, None);
        self.open += 1;
        let question = Unnamed { number, program, addresses, answer: self.answers.0.clone() };
        if !self.symbols.as_ref().is_some_and(|symbols| symbols.ask(question)) {
            self.name(Named::nothing(number, BUSY));
        }
    }

    /// A stack is open no longer.
    fn name(&mut self, named: Named) {
        let Named { number, frames, short, problem } = named;
        // It may have been given up.
        if !matches!(self.known.get(&number), Some(None)) {
            return;
        }
        self.open -= 1;
        let cut = frames.iter().filter(|frame| !frame.inlined).count() >= FRAMES;
        let short = short && !cut;
        let frames: Vec<_> = frames.into_iter().map(|frame| self.frame(frame)).collect();
        let entry =
            UserStackEntry { number, frames: frames.iter().map(|frame| frame.id).collect(), cut, short, problem };
        self.known.insert(number, Some(Arc::new(Stack::User(entry, frames))));
    }

    fn frame(&mut self, frame: StackFrame) -> Arc<FrameEntry> {
        if self.frames.len() >= NUMBERED {
            self.frames.clear();
        }
        let Self { frames, last_frame, .. } = self;
        let numbered = |frame: &StackFrame| {
            *last_frame += 1;
            Arc::new(FrameEntry { id: *last_frame, frame: frame.clone() })
        };
        Arc::clone(frames.entry(frame).or_insert_with_key(numbered))
    }
}

fn unknown(of: Of, number: u64) -> Stack {
    match of {
        Of::Kernel => Stack::Kernel(StackEntry { number, frames: Vec::new() }),
        Of::User => Stack::User(UserStackEntry { number, ..UserStackEntry::default() }, Vec::new()),
    }
}

impl Kernel {
    /// That of a gadget that was loaded.
    fn of(object: &Object) -> Result<Self, Refusal> {
        let map = load::map(object, KERNEL)?;
        let plan = Plan {
            object: bpf::object("stacks").unwrap_or_default(),
            shared: [(KERNEL, &map)].into(),
            ..Plan::default()
        };
        let mut links = load::attach_all(&load::load(&plan)?)?;
        let iterator = links.pop().ok_or_else(|| Refusal::of_object("name stacks", "there is no program for that"))?;
        Ok(Self { map, iterator, told: 0 })
    }

    /// Those that have come since the last time.
    fn learn(&mut self) -> Vec<StackEntry> {
        let mut text = Vec::with_capacity(NAMES);
        // What has come is not written again.
        if let Err(error) = sample::read(&self.iterator, &mut text) {
            tracing::warn!("some stacks of the kernel have no names: {error}");
        }
        let stacks = parse(&String::from_utf8_lossy(&text));
        self.told += stacks.len();
        if self.told >= self.map.max_entries() as usize / 2 {
            self.make_room();
        }
        stacks
    }

    /// Takes out what was given out.
    fn make_room(&mut self) {
        let is_named = |key: &Vec<u8>| {
            let value = self.map.lookup(key, MapFlags::ANY).ok().flatten();
            value.and_then(|value| Some(u32::from_ne_bytes(*value.get(IS_NAMED..)?.first_chunk()?))) == Some(1)
        };
        let named: Vec<Vec<u8>> = self.map.keys().filter(is_named).collect();
        // Nobody else takes any out.
        named.iter().for_each(|key| _ = self.map.delete(key));
        self.told = 0;
    }
}

impl User {
    /// Those of a gadget that was loaded, if it has any.
    fn of(object: &Object) -> Option<Self> {
        let [stacks, programs] = [USER, USER_PROGRAMS].map(|name| load::map(object, name).ok());
        Some(Self {
            stacks: stacks?,
            told: 0,
            made_room: Instant::now(),
            is_full: false,
            programs: programs?,
            known: HashSet::new(),
        })
    }

    fn find(&mut self, number: u64) -> Option<Addresses> {
        let key = number.to_ne_bytes();
        let found = self.stacks.lookup(&key, MapFlags::ANY).ok().flatten()?;
        self.told += 1;
        Addresses::parse(&found)
    }

    /// Takes away those that are known, if there may be too little room: also those that have come again since they were taken away before.
    fn make_room(&mut self, is_known: impl Fn(u64) -> bool) {
        let is_full = self.is_full && self.made_room.elapsed() >= FULL;
        if !is_full && self.told < self.stacks.max_entries() as usize / 2 {
            return;
        }
        let number = |key: &Vec<u8>| key.first_chunk().map(|key| u64::from_ne_bytes(*key));
        let known: Vec<_> = self.stacks.keys().filter(|key| number(key).is_some_and(&is_known)).collect();
        known.iter().for_each(|key| _ = self.stacks.delete(key));
        (self.told, self.made_room, self.is_full) = (0, Instant::now(), false);
    }

    /// Whether a program had no stacks before, as far as that is known.
    fn is_first(&mut self, program: ProgramId) -> bool {
        if self.known.len() >= self.programs.max_entries() as usize / 2 {
            // Also those whose stacks were lost.
            let called: Vec<Vec<u8>> = self.programs.keys().collect();
            called.iter().for_each(|key| _ = self.programs.delete(key));
            self.known.clear();
        }
        self.known.insert(program)
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

/// Reads what `stacks.bpf.c` writes.
fn parse(text: &str) -> Vec<StackEntry> {
    let mut stacks: Vec<StackEntry> = Vec::new();
    for line in text.lines() {
        if let Some(number) = line.strip_prefix('#') {
            stacks.extend(number.parse().ok().map(|number| StackEntry { number, frames: Vec::new() }));
        } else if let Some(stack) = stacks.last_mut()
            && !(stack.frames.is_empty() && OWN.iter().any(|own| line.starts_with(own)))
        {
            stack.frames.push(frame(line));
        }
    }
    stacks.iter_mut().for_each(|stack| leave_tick(&mut stack.frames));
    stacks
}

/// Where a tick is looked at, what counts is what it has interrupted.
fn leave_tick(frames: &mut Vec<String>) {
    if frames.first().is_some_and(|innermost| innermost.starts_with(TICK))
        && let Some(entry) = frames.iter().position(|frame| INTERRUPTS.iter().any(|begin| frame.starts_with(begin)))
    {
        frames.drain(..=entry);
    }
}

/// Without the function's size. What has no name is an address, which is nobody's business.
fn frame(line: &str) -> String {
    if line.starts_with("0x") {
        return UNKNOWN.to_owned();
    }
    let (function, module) = line.split_once(' ').map_or((line, None), |(function, module)| (function, Some(module)));
    let function = function.split_once('/').map_or(function, |(function, _)| function);
    module.map_or_else(|| function.to_owned(), |module| format!("{function} {module}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_read_as_the_kernel_writes_them() {
        let text = "#7\nbpf_prog_c1b0_cap_capable_traced+0x1d/0x200\n__traceiter_cap_capable+0x3/0x60\ncap_capable+0x2d/0x60\n\
                    bpf_prog_get+0x9/0x20\n__x64_sys_reboot+0x10/0x1f0 [loaded]\n#x\n#8\n0xffff800012345678\n\
                    #9\nrcu_sched_clock_irq+0x10/0x20\nasm_sysvec_apic_timer_interrupt+0x1a/0x20\nclear_page+0x7/0x10\n";
        let stack = |number, frames: &[&str]| StackEntry {
            number,
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
        };
        let of_7 = stack(7, &["cap_capable+0x2d", "bpf_prog_get+0x9", "__x64_sys_reboot+0x10 [loaded]"]);
        assert_eq!(parse(text), [of_7, stack(8, &[UNKNOWN]), stack(9, &["clear_page+0x7"])]);
        assert_eq!(parse("a frame of nothing\n"), []);
    }

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
}
