//! What a record says: of whom it is, and in which stacks they were.

use gadgets::wire::StackFrame;

use super::Sums;
use super::frame::Frame;

/// Some samples that are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample<'a> {
    /// A value for each column that stacks stand on.
    pub(crate) base: Vec<String>,
    pub(crate) program: ProgramStack<'a>,
    pub(crate) kernel: KernelStack<'a>,
    pub(crate) sums: Sums,
}

/// The stack of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProgramStack<'a> {
    /// There is none, or nobody asked.
    #[default]
    None,
    /// There was no room for it, or nobody has told what it is.
    NotKept,
    Known {
        /// Innermost first.
        frames: Vec<&'a StackFrame>,
        /// There are more than the kernel gives out.
        cut: bool,
        /// They end before where their thread began.
        short: bool,
        /// Why they have no names.
        problem: Option<&'a str>,
    },
}

/// The stack of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum KernelStack<'a> {
    /// There is none, or nobody asked.
    #[default]
    None,
    /// There was no room for it, or nobody has told what it is.
    NotKept,
    Known {
        /// Innermost first.
        frames: &'a [String],
        /// There may be more than the kernel gives out.
        cut: bool,
    },
}

/// Stands for a stack that is not known.
const NOT_KEPT: &str = "stack not kept";
/// Stands for a stack of which no frame is known.
const NO_FRAMES: &str = "unknown";

impl Sample<'_> {
    /// Its frames, innermost first, with words for what is not known. There is at least one.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame> {
        let kernel: Vec<Frame> = match self.kernel {
            KernelStack::None => Vec::new(),
            KernelStack::NotKept => vec![Frame::remark(NOT_KEPT)],
            KernelStack::Known { frames, .. } => frames.iter().map(|frame| Frame::of_kernel(frame)).collect(),
        };
        let program: Vec<Frame> = match &self.program {
            ProgramStack::None if kernel.is_empty() => vec![Frame::remark("no stack")],
            ProgramStack::None => Vec::new(),
            ProgramStack::NotKept => vec![Frame::remark(NOT_KEPT)],
            ProgramStack::Known { frames, .. } if frames.is_empty() => vec![Frame::remark(NO_FRAMES)],
            ProgramStack::Known { frames, .. } => {
                let mut frames: Vec<Frame> = frames.iter().map(|frame| Frame::of_program(frame)).collect();
                // Where a call comes from is always the same place; where the clock has struck is a different one each time.
                frames[0].offset = None;
                frames
            }
        };
        kernel.into_iter().chain(program)
    }
}
