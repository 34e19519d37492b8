//! A frame of a stack: a function, and where it was in it.

use gadgets::wire::StackFrame;

/// Stands for a function of which nothing is known.
const UNKNOWN: &str = "[unknown]";

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// A program's or a library's.
    Program,
    /// The same, put by the compiler into the frame that follows.
    Inlined,
    /// Made while the program ran.
    Jit,
    Kernel,
    /// Nobody's: it says what is known instead of frames.
    Remark,
}

/// A frame. Those of a function that differ only in where in it they were are the same, unless that is known by line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frame {
    pub(crate) origin: Origin,
    pub(crate) function: Option<String>,
    /// The file of a program's code, or the kernel's module.
    pub(crate) module: Option<String>,
    /// Where in that file; of a function that has no name only.
    pub(crate) offset: Option<u64>,
    /// The source file.
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

impl Frame {
    /// That of a program.
    pub(crate) fn of_program(frame: &StackFrame) -> Self {
        let StackFrame { function, module, offset, file, line, inlined, jit } = frame.clone();
        let origin = match (inlined, jit) {
            (true, _) => Origin::Inlined,
            (false, true) => Origin::Jit,
            (false, false) => Origin::Program,
        };
        let function = function.filter(|name| !name.trim().is_empty());
        let offset = offset.filter(|_| function.is_none() && module.is_some());
        Self { origin, function, module, offset, file, line }
    }

    /// That of the kernel, written as `FUNCTION+OFFSET`, and `[MODULE]` if it is in one.
    pub(crate) fn of_kernel(text: &str) -> Self {
        let (place, module) = match text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
            Some((place, module)) => (place, Some(module.to_owned())),
            None => (text, None),
        };
        let function = place.rsplit_once("+0x").map_or(place, |(function, _)| function);
        let function = Some(function).filter(|name| !name.is_empty() && *name != UNKNOWN).map(str::to_owned);
        Self { origin: Origin::Kernel, function, module, offset: None, file: None, line: None }
    }

    /// What is known instead of frames.
    pub(crate) fn remark(text: &str) -> Self {
        let function = Some(format!("[{text}]"));
        Self { origin: Origin::Remark, function, module: None, offset: None, file: None, line: None }
    }

    /// What it is called: the function, or where it is, as in `[libc.so.6+0x1234]`.
    pub(crate) fn title(&self) -> String {
        if let Some(function) = &self.function {
            return function.clone();
        }
        match (self.short_module(), self.offset) {
            (Some(module), Some(offset)) => format!("[{}+{offset:#x}]", module.trim_matches(['[', ']'])),
            (Some(module), None) => format!("[{}]", module.trim_matches(['[', ']'])),
            (None, _) => UNKNOWN.to_owned(),
        }
    }

    /// Where the function is: the name of the file, `[kernel]`, or the kernel's module as in `[ext4]`.
    pub(crate) fn place(&self) -> Option<String> {
        match self.origin {
            Origin::Kernel => Some(format!("[{}]", self.module.as_deref().unwrap_or("kernel"))),
            Origin::Jit => Some("[jit]".to_owned()),
            _ => self.short_module().map(str::to_owned),
        }
    }

    /// The place in the source, as in `main.c:12`.
    pub(crate) fn source(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
    }

    /// The module's last name.
    fn short_module(&self) -> Option<&str> {
        let module = self.module.as_deref()?;
        module.rsplit('/').find(|name| !name.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame of a program that has a name.
    pub(crate) fn named(function: &str) -> StackFrame {
        StackFrame { function: Some(function.into()), module: Some("/usr/bin/app".into()), ..StackFrame::default() }
    }

    #[test]
    fn frames_of_the_kernel_are_taken_apart() {
        let both = |text| {
            let frame = Frame::of_kernel(text);
            (frame.title(), frame.place())
        };
        assert_eq!(both("do_syscall_64+0x71"), ("do_syscall_64".into(), Some("[kernel]".into())));
        assert_eq!(both("ext4_read+0x1d [ext4]"), ("ext4_read".into(), Some("[ext4]".into())));
        assert_eq!(both("[unknown]"), ("[unknown]".into(), Some("[kernel]".into())));
        assert_eq!(both("").0, "[unknown]");
    }

    #[test]
    fn what_has_no_name_is_called_by_its_place() {
        let title = |frame: StackFrame| Frame::of_program(&frame).title();
        let module = Some("/lib/libfoo.so".to_owned());
        assert_eq!(title(named("main")), "main");
        assert_eq!(
            title(StackFrame { module: module.clone(), offset: Some(0x1234), ..StackFrame::default() }),
            "[libfoo.so+0x1234]"
        );
        assert_eq!(title(StackFrame { module: Some("[vdso]".into()), ..StackFrame::default() }), "[vdso]");
        assert_eq!(title(StackFrame { function: Some(" ".into()), module, ..StackFrame::default() }), "[libfoo.so]");
        assert_eq!(title(StackFrame::default()), "[unknown]");
    }

    #[test]
    fn one_function_is_one_frame_wherever_it_was() {
        let at = |offset, line| {
            Frame::of_program(&StackFrame {
                offset: Some(offset),
                line: Some(line),
                file: Some("a.c".into()),
                ..named("f")
            })
        };
        assert_eq!(at(1, 7), at(2, 7));
        assert_ne!(at(1, 7), at(1, 8));
        assert_eq!(at(1, 7).source().as_deref(), Some("a.c:7"));
    }
}
