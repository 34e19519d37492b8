//! Folded stacks, which many tools read: a line for each, its frames from the outermost to the innermost, and how much it has.
//!
//! The frames of the kernel end in `_[k]`, those that were inlined in `_[i]`, those made at run time in `_[j]`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use gadgets::format::escaped;

use super::frame::{Frame, Origin};
use super::{NOTHING, Profile, Stack, Sums};

/// Stands for a name that is empty.
const NAMELESS: &str = "[unknown]";

/// Writes the stacks in the order of their names.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    lines(profile).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines: of samples; or, of those who wait, of microseconds.
pub(super) fn lines(profile: &Profile) -> Vec<String> {
    let mut folded: BTreeMap<String, Sums> = BTreeMap::new();
    for stack in profile.stacks() {
        folded.entry(names(&stack)).or_default().add(stack.sums);
    }
    let weigh = |sums: Sums| if profile.subject.is_waiting { sums.time / 1000 } else { sums.samples };
    let weighed = folded.into_iter().map(|(names, sums)| (names, weigh(sums)));
    weighed.filter(|(_, weight)| *weight > 0).map(|(names, weight)| format!("{names} {weight}")).collect()
}

fn names(stack: &Stack<'_>) -> String {
    let frames = stack.frames.iter().rev().map(|frame| name(frame));
    base_names(stack.base).chain(frames).collect::<Vec<_>>().join(";")
}

/// What the stack stands on, but for what there is not.
pub(super) fn base_names(base: &[String]) -> impl Iterator<Item = String> {
    base.iter().filter(|value| *value != NOTHING).map(|value| plain(value))
}

/// What a frame is called.
pub(super) fn name(frame: &Frame) -> String {
    let suffix = match frame.origin {
        Origin::Program | Origin::Remark => "",
        Origin::Inlined => "_[i]",
        Origin::Jit => "_[j]",
        Origin::Kernel => "_[k]",
    };
    plain(&escaped(&frame.title())) + suffix
}

/// A name without what has a meaning in a line: a semicolon; a number at the end, behind a blank; a sign at the beginning that makes
/// it a comment; a suffix that is not ours.
fn plain(name: &str) -> String {
    let blank = |character: char| if character.is_whitespace() { ' ' } else { character };
    let name: String =
        name.chars().map(blank).map(|character| if character == ';' { ':' } else { character }).collect();
    let mut name = name.trim().to_owned();
    if let Some((_, last)) = name.rsplit_once(' ')
        && last.chars().all(|character| character.is_ascii_digit() || character == '.')
    {
        let at = name.len() - last.len() - 1;
        name.replace_range(at..=at, "_");
    }
    if name.starts_with("# ") {
        name.replace_range(1..2, "_");
    }
    if let Some(begin) = ["_[k]", "_[i]", "_[j]", "_[w]"].iter().find_map(|suffix| name.strip_suffix(suffix)) {
        let at = begin.len();
        name.replace_range(at..=at, "-");
    }
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{any_profile, filled, hostile, waiting};
    use proptest::prelude::*;

    #[test]
    fn stacks_are_folded() {
        assert_eq!(
            lines(&filled()),
            [
                "sh;main;[JIT] Main::run()_[j];nf_hook_[k];do_syscall_64_[k] 3",
                "shop;web-0;app;[libc.so.6+0x29d90];main;compute;fib_[i];fib_[i] 37",
            ]
        );
        assert_eq!(lines(&waiting()), ["schedule_[k] 1500"]);
    }

    #[test]
    fn names_keep_to_their_place() {
        assert_eq!(lines(&hostile()), ["#_x;</title><script>alert(1)</script>;a\\e[2J\\n:b_7;[app];evil-[k] 1"]);
        assert_eq!(["a 1.5", "12", "a\u{a0}3", " "].map(plain), ["a_1.5", "12", "a_3", "[unknown]"]);
    }

    proptest! {
        #[test]
        fn whatever_names_there_are_each_stack_has_a_line_and_keeps_its_frames(profile in any_profile()) {
            let lines = lines(&profile);
            let mut sum = 0;
            for line in &lines {
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
                let (names, weight) = line.rsplit_once(' ').expect("a weight");
                prop_assert!(names.split(';').all(|name| !name.is_empty() && name.trim() == name), "{line:?}");
                sum += weight.parse::<u64>().expect("a number");
            }
            prop_assert_eq!(sum, profile.whole().samples);
        }
    }
}
