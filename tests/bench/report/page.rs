//! docs/performance.md.

use std::fmt::Write as _;

use super::Measured;
use crate::rows::Row;

const HEAD: &str = "\
# Performance

What was promised, and what was measured: `make bench` writes this page. Every number is the median of several rounds, with
the least and the greatest; in each round all tools take their turn, so that a busy machine is fair to all of them. Compare
within a table, not between machines.

How it is measured is in `tests/bench`; all numbers are in [results.json](performance/results.json).
";

/// The page.
pub(super) fn page(rows: &[(&Row, &Measured)]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n| | goals reached |\n|---|---|\n");
    for (row, measured) in rows {
        let verdicts = measured.verdicts(row);
        let reached = verdicts.iter().filter(|verdict| verdict.is_reached).count();
        let anchor = row.title.to_lowercase().replace(',', "").replace(' ', "-");
        let _ = writeln!(page, "| [{}](#{anchor}) | {reached} of {} |", row.title, verdicts.len());
    }
    for (row, measured) in rows {
        section(&mut page, row, measured);
    }
    page
}

fn section(page: &mut String, row: &Row, measured: &Measured) {
    let _ = writeln!(page, "\n## {}\n\n{}\n", row.title, row.about);
    page.push_str("| goal | measured | |\n|---|---:|---|\n");
    for verdict in measured.verdicts(row) {
        let (word, value) = verdict.words();
        let _ = writeln!(page, "| {} | {value} | {word} |", verdict.text);
    }
    if !row.note.is_empty() {
        let _ = writeln!(page, "\n{}", row.note);
    }
    let _ = writeln!(page, "\n![{}: {}](performance/{}.svg)\n", row.title, row.plot, row.name);
    page.push_str(&measured.table.markdown());
    let _ = writeln!(page, "\n{}. To repeat it: `{}`", measured.machine, row.command());
}
