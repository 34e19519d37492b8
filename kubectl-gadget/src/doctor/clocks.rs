//! Whether the nodes' clocks agree: rows of different nodes are put in order by them.

use gadgets::diagnosis::Finding;

use super::nodes::Answer;

/// How far clocks may differ, in ns: what a row waits for those of other nodes.
const TOLERATED: i128 = 80_000_000;

/// Tells each node how far its clock is from the middle one. With fewer than two nodes there is nothing to compare.
pub(super) fn compare(answers: &mut [Answer]) -> Option<Finding> {
    let mut known: Vec<(i128, i128)> = answers.iter().filter_map(|answer| answer.clock).collect();
    known.sort_unstable();
    let (middle, middles_doubt) = *known.get(known.len() / 2).filter(|_| known.len() > 1)?;
    let clocks = answers.iter_mut().filter_map(|answer| Some((answer.clock?, &mut answer.report)));
    let mut worst = 0;
    for ((ahead, doubt), report) in clocks {
        let (finding, off) = judge(ahead - middle, doubt + middles_doubt);
        report.findings.push(finding);
        worst = worst.max(off);
    }
    let found = format!("the clocks of {} nodes", known.len());
    Some(if worst > TOLERATED {
        Finding::degraded(
            "clocks",
            format!("{found} differ by {} ms at least", worst / 1_000_000),
            "rows of different nodes may be in the wrong order",
            "see the nodes below",
        )
    } else {
        Finding::ok("clocks", format!("{found} agree"))
    })
}

/// What a node's clock is worth, and by how much it is off for certain.
fn judge(ahead: i128, doubt: i128) -> (Finding, i128) {
    let off = (ahead.abs() - doubt).max(0);
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let [ms, doubt_ms] = [ahead.abs(), doubt].map(|ns| ns / 1_000_000);
    let found = format!("{ms} ms {side} the others (± {doubt_ms} ms)");
    let finding = if off > TOLERATED {
        let cost = "its rows may be in the wrong order among those of other nodes";
        Finding::degraded("clock", found, cost, "timedatectl set-ntp true, on the node")
    } else {
        Finding::ok("clock", found)
    };
    (finding, off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::NodeReport;
    use gadgets::diagnosis::Verdict;

    fn answer(clock: Option<(i128, i128)>) -> Answer {
        Answer { report: NodeReport::default(), clock }
    }

    #[test]
    fn only_what_is_certain_counts() {
        const MS: i128 = 1_000_000;
        let mut agree = [answer(Some((0, 100 * MS))), answer(Some((150 * MS, 100 * MS))), answer(None)];
        assert_eq!(compare(&mut agree).map(|finding| finding.verdict), Some(Verdict::Ok));
        let mut differ = [answer(Some((0, MS))), answer(Some((MS, MS))), answer(Some((-5000 * MS, 100 * MS)))];
        let finding = compare(&mut differ).expect("a finding");
        assert_eq!((finding.verdict, finding.found.contains("4899 ms")), (Verdict::Degraded, true), "{finding:?}");
        assert_eq!(differ[2].report.findings[0].verdict, Verdict::Degraded);
        assert!(differ[2].report.findings[0].found.starts_with("5000 ms behind"));
        assert_eq!(compare(&mut [answer(Some((0, 0))), answer(None)]), None);
    }
}
