//! What the result does not show, or not as it was: counted, and said at the end.

use std::collections::BTreeMap;

use gadgets::format::span;

use super::Sums;
use super::sample::{KernelStack, ProgramStack, Sample};

/// Reasons that are told apart.
const REASONS: usize = 10;
/// Stands for the others.
const OTHER_REASONS: &str = "other reasons";

/// How much of all there is of what is not as it should be.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    whole: Sums,
    /// Stacks that are missing.
    not_kept: Sums,
    /// Stacks whose outermost frames are missing.
    cut: Sums,
    /// Stacks that end before where their thread began.
    short: Sums,
    /// Stacks without any name.
    unnamed: Sums,
    /// The same, if somebody knows why.
    problems: BTreeMap<String, Sums>,
    /// What the result leaves out.
    left_out: Sums,
}

impl Remarks {
    pub(super) fn add(&mut self, sample: &Sample<'_>) {
        let sums = sample.sums;
        self.whole.add(sums);
        if sample.program == ProgramStack::NotKept || sample.kernel == KernelStack::NotKept {
            self.not_kept.add(sums);
        }
        let is_cut = matches!(sample.kernel, KernelStack::Known { cut: true, .. });
        if is_cut || matches!(sample.program, ProgramStack::Known { cut: true, .. }) {
            self.cut.add(sums);
        }
        let ProgramStack::Known { frames, cut, short, problem } = &sample.program else { return };
        if let Some(problem) = problem {
            let is_known = self.problems.len() < REASONS || self.problems.contains_key(*problem);
            let reason = if is_known { problem } else { OTHER_REASONS };
            self.problems.entry(reason.to_owned()).or_default().add(sums);
        } else if frames.iter().all(|frame| frame.function.is_none()) {
            self.unnamed.add(sums);
        }
        if *short && !cut {
            self.short.add(sums);
        }
    }

    /// There was no room for a stack.
    pub(super) fn leave_out(&mut self, sums: Sums) {
        self.left_out.add(sums);
    }

    /// In words.
    pub(super) fn said(&self, is_waiting: bool) -> Vec<String> {
        let part = |sums: &Sums| {
            let (part, whole) = match is_waiting {
                true => (span(sums.time), span(self.whole.time)),
                false => (sums.samples.to_string(), self.whole.samples.to_string()),
            };
            let unit = if is_waiting { "of waiting" } else { "samples" };
            let percent = sums.percent_of(self.whole);
            // Little is not nothing.
            let decimals = usize::from(percent < 1.0);
            format!("{part} of {whole} {unit} ({percent:.decimals$}%)")
        };
        let mut said = Vec::new();
        let mut say = |sums: &Sums, text: &str| {
            if *sums != Sums::default() {
                said.push(format!("{} {text}", part(sums)));
            }
        };
        say(&self.left_out, "are not shown: there are more different stacks than are kept");
        say(&self.not_kept, "have a stack that was not kept: there was no room for it");
        for (reason, sums) in &self.problems {
            say(sums, &format!("have functions without names: {reason}"));
        }
        say(&self.unnamed, "have functions without names: their programs are stripped");
        say(
            &self.cut,
            "have stacks that are cut: the kernel gives out no more than 127 frames, and 512 functions are shown of these",
        );
        say(
            &self.short,
            "have stacks that end before where their thread began: their programs, or libraries, were built without frame \
             pointers (-fno-omit-frame-pointer)",
        );
        said
    }
}

#[cfg(test)]
mod tests {
    use gadgets::wire::StackFrame;

    use super::*;
    use crate::profile::frame::tests::named;

    fn said(frames: &[StackFrame], [cut, short]: [bool; 2], problem: Option<&str>) -> Vec<String> {
        let mut remarks = Remarks::default();
        let sums = |samples| Sums { samples, time: samples };
        let program = ProgramStack::Known { frames: frames.iter().collect(), cut, short, problem };
        remarks.add(&Sample { program, sums: sums(31), ..Sample::default() });
        remarks.add(&Sample { sums: sums(459), ..Sample::default() });
        remarks.said(false)
    }

    #[test]
    fn stacks_that_end_too_early_are_counted() {
        let short = said(&[named("read"), named("main")], [false, true], None);
        assert!(short[0].starts_with("31 of 490 samples (6%) have stacks that end before"), "{short:?}");
        let nothing: [String; 0] = [];
        assert_eq!(said(&[named("main"), named("_start")], [false, false], None), nothing);
        assert!(said(&[named("f"), named("main")], [true, false], None)[0].contains("127 frames"));
        assert!(said(&[StackFrame::default()], [false, false], None)[0].contains("stripped"));
        // One has nothing to do with the other.
        for (marks, text) in [([true, false], "127 frames"), ([false, true], "end before")] {
            let both = said(&[StackFrame::default()], marks, None);
            assert!(both.len() == 2 && both[0].contains("stripped") && both[1].contains(text), "{both:?}");
        }
        let mut remarks = Remarks::default();
        let kernel = KernelStack::Known { frames: &["read+0x1".to_owned()], cut: true };
        remarks.add(&Sample { kernel, sums: Sums { samples: 1, time: 1 }, ..Sample::default() });
        assert!(remarks.said(false)[0].contains("127 frames"));
        assert!(
            said(&[StackFrame::default()], [false, false], Some("the process had ended"))[0]
                .ends_with(": the process had ended")
        );
    }

    #[test]
    fn reasons_do_not_grow_without_bound() {
        let mut remarks = Remarks::default();
        for number in 0..1000 {
            let problem = number.to_string();
            let program = ProgramStack::Known { frames: Vec::new(), cut: false, short: false, problem: Some(&problem) };
            remarks.add(&Sample { program, sums: Sums { time: 1, samples: 1 }, ..Sample::default() });
        }
        assert_eq!(remarks.problems.len(), REASONS + 1);
        assert_eq!(remarks.problems[OTHER_REASONS].samples, 1000 - REASONS as u64);
    }
}
