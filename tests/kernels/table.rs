//! docs/kernels.md.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tests::kernels::{Cell, Mode, Outcome};

use crate::guest::Run;

const HEAD: &str = "\
# Kernels

What runs on which kernel, as `make test-kernels` found it: Debian's kernels, each with cgroups mounted in three ways
(v1: controllers of version 1 alone; hybrid: beside the unified hierarchy; v2: the unified hierarchy alone). The agents
have the capabilities of [manifests/agent.yaml](../manifests/agent.yaml) and no others (before 5.11 also SYS_RESOURCE).

In each cell a workload in one pod, with another beside it, must be shown event by event, and nothing of the other:

- *as deployed*: with the variants that the agent chooses (named by hook in alphabetical order), with the sysctls of the
  distribution
- *hook: variant*: with that variant, unless the agent chose it anyway, and `kernel.perf_event_paranoid=2` (Debian's 3 refuses
  tracepoints and kprobes to all but CAP_SYS_ADMIN)
- *loss*: with a ring that runs full, what is shown and what is told to be lost is all there was (of profile, no fewer: threads wait
  for other reasons, too); where nothing can run full, there is no such check
- *200 pods*: one after the other, every second one watched; execsnoop's filter is that of all gadgets
- *bcc's …*: beside the tool of that name of libbpf-tools, which hangs on kprobes: both show the same rows (0.26
  knows no sockets of 6.6 and later)
- *net_cls*: the same as deployed, where net_cls is used: up to 5.14 the kernel then keeps no cgroup with a socket

A cell is `pass`, a number (see below), or a dash where the check has nothing new to say: the ring that runs full is the
same with any cgroups; hybrid hosts differ from those of v2 in what is mounted beside, which matters to how cgroups are told apart
and to sockets; and on v1 variants differ only if they record whose a socket is. What fails breaks the build.
This page is written by the run.
";

/// The page.
pub(crate) fn page(runs: &[Run]) -> String {
    let mut page = HEAD.to_owned();
    let mut reasons: Vec<String> = Vec::new();
    let gadgets: BTreeSet<&str> = runs.iter().flat_map(|run| &run.cells).map(|cell| cell.gadget.as_str()).collect();
    for gadget in gadgets {
        let checks = checks(runs, gadget);
        let titles: Vec<String> = checks.iter().map(|check| check.replace('=', ": ")).collect();
        let _ = writeln!(page, "\n## {gadget}\n\n| kernel | cgroups | {} |", titles.join(" | "));
        let _ = writeln!(page, "|---|---{}|", "|---".repeat(checks.len()));
        for (run, mode) in runs.iter().flat_map(|run| Mode::ALL.map(|mode| (run, mode))) {
            let cell = |check: &String| {
                let is_it = |cell: &&Cell| cell.mode == mode && cell.gadget == gadget && cell.check == *check;
                run.cells.iter().find(is_it)
            };
            if checks.iter().all(|check| cell(check).is_none()) {
                continue;
            }
            let texts: Vec<String> = checks.iter().map(|check| text(cell(check), &mut reasons)).collect();
            let _ = writeln!(page, "| {} | {} | {} |", run.release, mode.name(), texts.join(" | "));
        }
    }
    page.push('\n');
    for run in runs.iter().filter(|run| run.repeated) {
        let _ = writeln!(page, "{} did not come to its end at the first attempt.\n", run.release);
    }
    for (index, reason) in reasons.iter().enumerate() {
        let _ = writeln!(page, "{}. This kernel is too old for {reason}.", index + 1);
    }
    page
}

/// The checks of a gadget, in the order in which the guest that came furthest made them.
fn checks(runs: &[Run], gadget: &str) -> Vec<String> {
    let of_run = |run: &Run, mode| {
        let cells = run.cells.iter().filter(move |cell| cell.gadget == gadget && cell.mode == mode);
        cells.map(|cell| cell.check.clone()).collect::<Vec<_>>()
    };
    let all = runs.iter().flat_map(|run| Mode::ALL.map(|mode| of_run(run, mode)));
    all.max_by_key(Vec::len).unwrap_or_default()
}

fn text(cell: Option<&Cell>, reasons: &mut Vec<String>) -> String {
    match cell.map(|cell| (&cell.outcome, cell.check.contains('='))) {
        // Where the agent chose, what it chose.
        Some((Outcome::Pass { variants, .. }, false)) if !variants.is_empty() => {
            format!("pass ({})", variants.values().cloned().collect::<Vec<_>>().join(", "))
        }
        Some((Outcome::Pass { .. }, _)) => "pass".into(),
        Some((Outcome::Unmet(reason), _)) => number(reasons, reason).to_string(),
        Some((Outcome::Fail(_), _)) => "**fail**".into(),
        None => "–".into(),
    }
}

fn number(reasons: &mut Vec<String>, reason: &str) -> usize {
    let at = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
        reasons.push(reason.to_owned());
        reasons.len() - 1
    });
    at + 1
}
