//! Where time goes: samples of stacks, added up, and written as people and other programs read them.
//!
//! - [`frame`]: what stacks consist of; [`interner`]: each of it is kept once; [`sample`]: what comes in
//! - [`remarks`]: what the result does not show
//! - [`functions`]: those that take most, while it goes on
//! - [`table`], [`folded`], [`flamegraph`], [`pprof`] (of [`messages`]): the forms of the result

pub(crate) mod flamegraph;
pub(crate) mod folded;
pub(crate) mod frame;
pub(crate) mod functions;
mod interner;
mod messages;
pub(crate) mod pprof;
mod remarks;
pub(crate) mod sample;
pub(crate) mod table;

use std::collections::HashMap;
use std::time::Duration;

use frame::Frame;
use functions::Functions;
use interner::Interner;
use remarks::Remarks;
use sample::Sample;

/// Stacks that are kept. What comes in others is counted, and not shown.
const STACKS: usize = 200_000;
/// Frames that are kept, of all stacks.
const FRAMES: usize = 500_000;
/// Stands for what a column does not have.
const NOTHING: &str = "-";

/// What was added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sums {
    /// In ns.
    pub(crate) time: u64,
    /// How many samples, or how many times somebody waited.
    pub(crate) samples: u64,
}

impl Sums {
    /// Adds to it. Agents may say any number.
    pub(crate) fn add(&mut self, other: Self) {
        self.time = self.time.saturating_add(other.time);
        self.samples = self.samples.saturating_add(other.samples);
    }

    /// How much of a whole it is, by the time.
    pub(crate) fn percent_of(self, whole: Self) -> f64 {
        if whole.time == 0 { 0.0 } else { self.time as f64 * 100.0 / whole.time as f64 }
    }
}

/// A column by which stacks are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its values are numbers.
    pub(crate) is_number: bool,
}

/// What a profile is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) gadget: &'static str,
    /// It is waiting that takes time, not running.
    pub(crate) is_waiting: bool,
}

impl Subject {
    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        if self.is_waiting { "waits" } else { "samples" }
    }
}

/// When and where it was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occasion {
    /// In ns since 1970.
    pub(crate) began: u64,
    pub(crate) took: Duration,
    pub(crate) nodes: usize,
}

/// Samples, added up by their stacks.
#[derive(Debug)]
pub(crate) struct Profile {
    subject: Subject,
    /// Those that stacks stand on.
    columns: Vec<Column>,
    /// A value for each column.
    bases: Interner<Vec<String>>,
    frames: Interner<Frame>,
    /// By the number of the base, and those of the frames, innermost first.
    stacks: HashMap<(u32, Box<[u32]>), Sums>,
    whole: Sums,
    remarks: Remarks,
    /// If somebody looks.
    functions: Option<Functions>,
}

/// A stack, and what it has.
#[derive(Debug, PartialEq, Eq)]
struct Stack<'a> {
    /// A value for each column.
    base: &'a [String],
    /// Innermost first.
    frames: Vec<&'a Frame>,
    sums: Sums,
}

impl Profile {
    /// An empty one.
    pub(crate) fn new(subject: Subject, columns: Vec<Column>) -> Self {
        Self {
            subject,
            columns,
            bases: Interner::new(STACKS),
            frames: Interner::new(FRAMES),
            stacks: HashMap::new(),
            whole: Sums::default(),
            remarks: Remarks::default(),
            functions: None,
        }
    }

    /// Also adds up by functions from now on.
    pub(crate) fn watch_functions(&mut self) {
        self.functions = Some(Functions::default());
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What stacks stand on.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, sample: Sample<'_>) {
        self.remarks.add(&sample);
        let numbers: Option<Box<[u32]>> = sample.frames().map(|frame| self.frames.number(frame)).collect();
        let key = self.bases.number(sample.base).zip(numbers);
        let has_room = |key: &_| self.stacks.len() < STACKS || self.stacks.contains_key(key);
        let Some(key) = key.filter(has_room) else { return self.remarks.leave_out(sample.sums) };
        if let Some(functions) = &mut self.functions {
            functions.add(&self.frames, &key.1, sample.sums);
        }
        self.stacks.entry(key).or_default().add(sample.sums);
        self.whole.add(sample.sums);
    }

    /// Whether nothing was seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }

    /// Of all samples.
    pub(crate) fn whole(&self) -> Sums {
        self.whole
    }

    /// Those functions that were added up.
    pub(crate) fn functions(&self) -> Option<&Functions> {
        self.functions.as_ref()
    }

    /// What a person should know about the result, a line each.
    pub(crate) fn remarks(&self) -> Vec<String> {
        self.remarks.said(self.subject.is_waiting)
    }

    /// The stacks, in no order.
    fn stacks(&self) -> impl Iterator<Item = Stack<'_>> {
        self.stacks.iter().filter_map(|((base, frames), sums)| {
            let base = self.bases.thing(*base)?;
            let frames = frames.iter().filter_map(|number| self.frames.thing(*number)).collect();
            Some(Stack { base, frames, sums: *sums })
        })
    }

    /// The stacks, those with the most time first.
    fn hottest(&self) -> Vec<Stack<'_>> {
        let mut stacks: Vec<_> = self.stacks().collect();
        // Of equal ones always the same is first.
        stacks.sort_unstable_by(|a, b| b.sums.cmp(&a.sums).then_with(|| (a.base, &a.frames).cmp(&(b.base, &b.frames))));
        stacks
    }
}

#[cfg(test)]
mod tests {
    use gadgets::wire::StackFrame;
    use proptest::prelude::*;

    use super::frame::tests::named;
    use super::sample::{KernelStack, ProgramStack};
    use super::*;

    pub(super) fn occasion() -> Occasion {
        Occasion { began: 1_795_248_000_000_000_000, took: Duration::from_secs(10), nodes: 2 }
    }

    fn column(name: &str) -> Column {
        Column { name: name.to_owned(), is_number: name == "pid" }
    }

    /// An empty one, by namespace, pod and comm.
    pub(super) fn profile() -> Profile {
        let subject = Subject { gadget: "profile", is_waiting: false };
        Profile::new(subject, ["namespace", "pod", "comm"].map(column).into())
    }

    /// One of a thread that waits, not told apart.
    pub(super) fn waiting() -> Profile {
        let mut profile = Profile::new(Subject { gadget: "profile", is_waiting: true }, Vec::new());
        let kernel = ["schedule+0x1".to_owned()];
        for time in [1_000_999, 499_001] {
            let sums = Sums { time, samples: 1 };
            profile.add(Sample {
                kernel: KernelStack::Known { frames: &kernel, cut: false },
                sums,
                ..Sample::default()
            });
        }
        profile
    }

    fn add(profile: &mut Profile, base: [&str; 3], kernel: &[&str], program: &[StackFrame], samples: u64) {
        let kernel: Vec<String> = kernel.iter().map(|frame| (*frame).to_owned()).collect();
        profile.add(Sample {
            base: base.map(str::to_owned).into(),
            kernel: if kernel.is_empty() {
                KernelStack::None
            } else {
                KernelStack::Known { frames: &kernel, cut: false }
            },
            program: ProgramStack::Known { frames: program.iter().collect(), cut: false, short: false, problem: None },
            sums: Sums { samples, time: samples * 20_408_163 },
        });
    }

    /// Two stacks: of one somebody was at two lines.
    pub(super) fn fill(profile: &mut Profile) {
        let at = |function: &str, line| StackFrame { file: Some("main.c".into()), line: Some(line), ..named(function) };
        let fib = |line| StackFrame { inlined: true, ..at("fib", line) };
        let libc = StackFrame { module: Some("/lib/libc.so.6".into()), offset: Some(0x29d90), ..StackFrame::default() };
        for (line, samples) in [(12, 30), (13, 7)] {
            let program = [fib(line), fib(12), at("compute", 30), named("main"), libc.clone()];
            add(profile, ["shop", "web-0", "app"], &[], &program, samples);
        }
        let jit = StackFrame { jit: true, module: None, ..named("[JIT] Main::run()") };
        let kernel = ["do_syscall_64+0x71", "nf_hook+0x1d [nf_tables]"];
        add(profile, ["-", "-", "sh"], &kernel, &[jit, named("main")], 3);
    }

    pub(super) fn filled() -> Profile {
        let mut profile = profile();
        fill(&mut profile);
        profile
    }

    /// One with names that somebody chose to do harm.
    pub(super) fn hostile() -> Profile {
        let mut profile = profile();
        let names = ["evil_[k]", "\t", "a\u{1b}[2J\n;b 7", "</title><script>alert(1)</script>"];
        add(&mut profile, ["-", "-", "# x"], &[], &names.map(named), 1);
        profile
    }

    /// Names that mean something to somebody, or nothing to anybody.
    fn any_name() -> impl Strategy<Value = String> {
        let words = ["", " 7", "# a", "x;y", "_[k]", "a\u{a0}1.5", "<!--", "]]>", "&lt;", "\u{ffff}", "\u{1b}[0m", "7"];
        prop_oneof![proptest::sample::select(words.to_vec()).prop_map(str::to_owned), any::<String>()]
    }

    fn any_frame() -> impl Strategy<Value = StackFrame> {
        let name = || proptest::option::of(any_name());
        let place = (any::<Option<u64>>(), any::<Option<u32>>(), any::<bool>(), any::<bool>());
        (name(), name(), name(), place).prop_map(|(function, module, file, (offset, line, inlined, jit))| StackFrame {
            function,
            module,
            offset,
            file,
            line,
            inlined,
            jit,
        })
    }

    pub(super) fn any_profile() -> impl Strategy<Value = Profile> {
        let frames = || proptest::collection::vec(any_frame(), 0..4);
        let kernel = || proptest::collection::vec(any_name(), 0..3);
        let base = || any_name().prop_map(|name| gadgets::format::escaped(&name));
        let samples = proptest::collection::vec((base(), kernel(), frames(), 1..100u64), 1..8);
        samples.prop_map(|samples| {
            let mut profile = profile();
            for (base, kernel, program, samples) in &samples {
                let kernel: Vec<&str> = kernel.iter().map(String::as_str).collect();
                add(&mut profile, [base, "-", "-"], &kernel, program, *samples);
            }
            profile
        })
    }

    #[test]
    fn equal_stacks_are_added_up() {
        let mut profile = filled();
        fill(&mut profile);
        let counts: Vec<u64> = profile.hottest().iter().map(|stack| stack.sums.samples).collect();
        assert_eq!((counts, profile.whole().samples), (vec![60, 14, 6], 80));
    }

    #[test]
    fn there_are_no_more_stacks_than_are_kept() {
        let mut profile = profile();
        for number in 0..=STACKS {
            add(&mut profile, ["-", "-", &number.to_string()], &["f"], &[], 1);
        }
        add(&mut profile, ["-", "-", "0"], &["f"], &[], 1);
        assert_eq!((profile.stacks.len(), profile.whole().samples), (STACKS, STACKS as u64 + 1));
        assert!(profile.remarks()[0].starts_with("1 of 200002 samples"), "{:?}", profile.remarks());
    }

    #[test]
    fn what_is_not_known_has_a_place_in_the_stack() {
        let mut profile = profile();
        let kernel = ["read+0x1".to_owned()];
        let sums = Sums { samples: 1, time: 1 };
        let sample = Sample { base: vec![NOTHING.to_owned(); 3], sums, ..Sample::default() };
        let known = KernelStack::Known { frames: &kernel, cut: false };
        profile.add(sample.clone());
        profile.add(Sample { program: ProgramStack::NotKept, kernel: known, ..sample.clone() });
        profile.add(Sample { kernel: KernelStack::NotKept, ..sample });
        let lines = folded::lines(&profile);
        assert_eq!(lines, ["[no stack] 1", "[stack not kept] 1", "[stack not kept];read_[k] 1"]);
    }
}
