//! Functions: how long they ran themselves, and with all that they called.

use super::Sums;
use super::frame::Frame;
use super::interner::Interner;

/// A function, wherever in it somebody was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    /// What it is called.
    pub(crate) title: String,
    /// Where it is.
    pub(crate) place: Option<String>,
}

/// What a function has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Without what it called.
    pub(crate) own: Sums,
    /// With what it called; once, also where it called itself.
    pub(crate) total: Sums,
    /// The last stack that was added to it.
    turn: u64,
}

/// All functions.
#[derive(Debug)]
pub(crate) struct Functions {
    functions: Interner<Function>,
    /// By the numbers of functions.
    usages: Vec<Usage>,
    /// The function of each frame, by their numbers.
    of_frames: Vec<usize>,
    turn: u64,
}

impl Default for Functions {
    fn default() -> Self {
        // There are no more functions than frames.
        Self { functions: Interner::new(usize::MAX), usages: Vec::new(), of_frames: Vec::new(), turn: 0 }
    }
}

impl Functions {
    /// Adds to the functions of a stack.
    pub(super) fn add(&mut self, frames: &Interner<Frame>, stack: &[u32], sums: Sums) {
        let Self { functions, usages, of_frames, turn } = self;
        of_frames.extend(frames.things().skip(of_frames.len()).filter_map(|frame| {
            let number = functions.number(Function { title: frame.title(), place: frame.place() })?;
            usize::try_from(number).ok()
        }));
        usages.resize_with(functions.things().len(), Usage::default);
        *turn += 1;
        for (depth, frame) in stack.iter().enumerate() {
            let function = usize::try_from(*frame).ok().and_then(|frame| of_frames.get(frame));
            let Some(usage) = function.and_then(|function| usages.get_mut(*function)) else { continue };
            if depth == 0 {
                usage.own.add(sums);
            }
            if std::mem::replace(&mut usage.turn, *turn) != *turn {
                usage.total.add(sums);
            }
        }
    }

    /// Each with what it has.
    pub(crate) fn usages(&self) -> impl Iterator<Item = (&Function, &Usage)> {
        self.functions.things().zip(&self.usages)
    }
}

#[cfg(test)]
mod tests {
    use crate::profile::tests::profile;

    #[test]
    fn what_calls_itself_is_counted_once() {
        let mut profile = profile();
        profile.watch_functions();
        crate::profile::tests::fill(&mut profile);
        let functions = profile.functions().expect("functions");
        let of = |title: &str| {
            let (_, usage) = functions.usages().find(|(function, _)| function.title == title).expect("a function");
            (usage.own.samples, usage.total.samples)
        };
        assert_eq!([of("fib"), of("main"), of("do_syscall_64")], [(37, 37), (0, 40), (3, 3)]);
    }
}
