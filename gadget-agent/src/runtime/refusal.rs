//! Why the kernel did not take an object: what libbpf and the verifier said, and what that means.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;

use libbpf_rs::{ErrorKind, PrintLevel};

use crate::host;

/// Lines of the verifier that an error shows; all of them are in [`Refusal::log`].
const LAST_LINES: usize = 3;

/// Why an object does not load, or does not attach.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// What was being done, as in "load the BPF program".
    doing: String,
    /// What the system said.
    error: String,
    /// What that means, as far as it can be told.
    cause: Option<String>,
    /// All that libbpf and the verifier had to say.
    pub(crate) log: Vec<String>,
}

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// libbpf prints through one callback of the process. Its warnings are kept for the error of the load that they belong
/// to: libbpf calls back on the thread that called it.
pub(super) fn start_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, |_, line| {
            let line = line.trim_end().trim_start_matches("libbpf: ").to_owned();
            tracing::debug!("libbpf: {line}");
            LOG.with_borrow_mut(|log| log.extend(line.lines().map(str::to_owned)));
        })));
    });
    LOG.with_borrow_mut(Vec::clear);
}

impl Refusal {
    /// What libbpf returned for what was being done since [`start_log`].
    pub(super) fn new(doing: impl Into<String>, error: &libbpf_rs::Error) -> Self {
        let log = LOG.with_borrow(Clone::clone);
        Self { doing: doing.into(), cause: cause(error.kind(), &log), error: format!("{error:#}"), log }
    }

    /// The object is not what it should be: a fault of the build.
    pub(super) fn of_object(doing: impl Into<String>, error: impl fmt::Display) -> Self {
        Self { doing: doing.into(), error: error.to_string(), cause: None, log: Vec::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: ", self.doing)?;
        if let Some(cause) = &self.cause {
            write!(f, "{cause}: ")?;
        }
        f.write_str(&self.error)?;
        // What libbpf adds says no more than a cause.
        let says_more = self.cause.is_none() || verifier(&self.log).is_some();
        let last = if says_more { last_lines(&self.log) } else { Vec::new() };
        if last.is_empty() { Ok(()) } else { write!(f, " ({})", last.join("; ")) }
    }
}

/// The verifier's lines, if it had a say.
fn verifier(log: &[String]) -> Option<&[String]> {
    let begin = log.iter().position(|line| line.contains("BEGIN PROG LOAD LOG"))?;
    let end = log.iter().position(|line| line.contains("END PROG LOAD LOG")).filter(|end| *end > begin);
    Some(&log[begin + 1..end.unwrap_or(log.len())])
}

/// The lines that say most: the verifier's last, else libbpf's.
fn last_lines(log: &[String]) -> Vec<&str> {
    let lines = verifier(log).unwrap_or(log);
    let telling = lines.iter().map(|line| line.trim()).filter(|line| {
        !line.is_empty()
            && !["processed ", "verification time", "stack depth"].iter().any(|idle| line.starts_with(idle))
    });
    let mut last: Vec<&str> = telling.rev().take(LAST_LINES).collect();
    last.reverse();
    last
}

/// What an error means, in words.
fn cause(kind: ErrorKind, log: &[String]) -> Option<String> {
    let word_after = |mark: &str| {
        let rest = log.iter().find_map(|line| Some(&line[line.find(mark)? + mark.len()..]))?;
        Some(rest.split([' ', '#', '\'', ':']).find(|word| !word.is_empty())?.to_owned())
    };
    let says = |text: &str| log.iter().any(|line| line.contains(text));
    if let Some(helper) = word_after("unknown func ") {
        return Some(format!("this kernel has no helper {helper}"));
    }
    if let Some(hook) = word_after("failed to find kernel BTF type ID of") {
        return Some(format!("this kernel has no {hook}"));
    }
    if says("CO-RE relocation") || says("invalid func unknown#195896080") {
        return Some("this kernel's structures lack something that the program reads".into());
    }
    if says("BPF program is too large") || matches!(kind, ErrorKind::TooBig) {
        return Some("the program is too much for this kernel's verifier".into());
    }
    match kind {
        ErrorKind::PermissionDenied if verifier(log).is_none_or(|lines| lines.is_empty()) => {
            Some(host::why_forbidden(says("perf event")))
        }
        ErrorKind::OutOfMemory => Some("there is not enough memory".into()),
        ErrorKind::NotFound if !host::has_tracefs() => {
            Some("this kernel has no such hook, or tracefs is not mounted".into())
        }
        ErrorKind::NotFound => Some("this kernel has no such hook".into()),
        _ => verifier(log).map(|_| "this kernel's verifier rejects the program".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    const HELPER: &str = "prog 'task_registers': BPF program load failed: Invalid argument\n\
        prog 'task_registers': -- BEGIN PROG LOAD LOG --\n\
        ; return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());\n\
        1: (85) call bpf_task_pt_regs#175\n\
        unknown func bpf_task_pt_regs#175\n\
        processed 2 insns (limit 1000000) max_states_per_insn 0\n\
        -- END PROG LOAD LOG --\n\
        prog 'task_registers': failed to load: -22";

    #[test]
    fn what_the_verifier_says_last_is_shown() {
        assert_eq!(
            last_lines(&lines(HELPER)),
            [
                "; return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());",
                "1: (85) call bpf_task_pt_regs#175",
                "unknown func bpf_task_pt_regs#175"
            ]
        );
        assert_eq!(last_lines(&lines("a\n\nb")), ["a", "b"]);
        assert!(last_lines(&[]).is_empty());
    }

    #[test]
    fn causes_are_told_in_words() {
        let cause = |kind, text: &str| cause(kind, &lines(text)).unwrap_or_default();
        assert_eq!(cause(ErrorKind::InvalidInput, HELPER), "this kernel has no helper bpf_task_pt_regs");
        let hook = "prog 'x': failed to find kernel BTF type ID of 'sched_gone': -3";
        assert_eq!(cause(ErrorKind::Other, hook), "this kernel has no sched_gone");
        assert!(cause(ErrorKind::NotFound, "").starts_with("this kernel has no such hook"));
        let large =
            "-- BEGIN PROG LOAD LOG --\nBPF program is too large. Processed 1000001 insn\n-- END PROG LOAD LOG --";
        assert!(cause(ErrorKind::TooBig, large).contains("too much for"));
        let rejected = "-- BEGIN PROG LOAD LOG --\nR1 invalid mem access 'scalar'\n-- END PROG LOAD LOG --";
        assert!(cause(ErrorKind::PermissionDenied, rejected).contains("rejects"));
        assert_eq!(super::cause(ErrorKind::InvalidInput, &[]), None);
    }
}
