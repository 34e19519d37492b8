//! The hot stacks, for people: those with the most time first, each with its frames below it.
//!
//! Stacks of the same functions are one, wherever in them somebody was; the lines are those that most time was spent at.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};

use gadgets::format::{escaped, span};

use super::frame::{Frame, Origin};
use super::{NOTHING, Profile, Stack, Sums};

/// How lines below a row begin.
const BELOW: &str = "        ";
/// Beyond this a cell pushes its own line to the right, but no other.
const WIDEST: usize = 60;

/// Writes so many of the stacks, and a line with how many there are.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(profile: &Profile, rows: usize, out: &mut dyn Write) -> io::Result<()> {
    let stacks = merged(profile);
    if stacks.is_empty() {
        return Ok(());
    }
    let shown = &stacks[..rows.min(stacks.len())];
    let said = said_columns(shown, profile.columns.len());
    let measures = [&profile.subject.unit().to_uppercase(), "SHARE", "TIME"].map(str::to_owned);
    let header = measures.into_iter().chain(said.iter().map(|column| profile.columns[*column].name.to_uppercase()));
    let row = |stack: &Stack<'_>| {
        let Sums { samples, time } = stack.sums;
        let share = format!("{:.1}%", stack.sums.percent_of(profile.whole));
        let base = said.iter().map(|column| stack.base[*column].clone());
        [samples.to_string(), share, span(time)].into_iter().chain(base).collect()
    };
    let lines: Vec<Vec<String>> = [header.collect()].into_iter().chain(shown.iter().map(row)).collect();
    let mut lines = aligned(&lines).into_iter();
    if let Some(line) = lines.next() {
        writeln!(out, "{line}")?;
    }
    for (line, stack) in lines.zip(shown) {
        writeln!(out, "{line}")?;
        aligned(&frames(stack)).iter().try_for_each(|frame| writeln!(out, "{BELOW}{frame}"))?;
    }
    writeln!(out, "{}", sum(profile, shown, stacks.len()))
}

/// How many stacks there are, and how much those have that are shown.
fn sum(profile: &Profile, shown: &[Stack<'_>], all: usize) -> String {
    let Sums { samples, time } = profile.whole;
    let whole = format!("{samples} {}, {}", profile.subject.unit(), span(time));
    if shown.len() == all {
        let stacks = if all == 1 { "stack" } else { "stacks" };
        return format!("{all} {stacks}, {whole}");
    }
    let mut sums = Sums::default();
    shown.iter().for_each(|stack| sums.add(stack.sums));
    let share = sums.percent_of(profile.whole);
    format!("{} of {all} stacks, with {share:.1}% of {whole}; more: --rows {all}, or -o flamegraph", shown.len())
}

/// The stacks, those of the same functions put together; the most time first.
fn merged(profile: &Profile) -> Vec<Stack<'_>> {
    let mut places = HashMap::new();
    let mut merged: Vec<Stack<'_>> = Vec::new();
    // The first of each has the most.
    for stack in profile.hottest() {
        let functions: Vec<_> = stack.frames.iter().map(|frame| (frame.origin, frame.title(), &frame.module)).collect();
        let place = *places.entry((stack.base, functions)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => known.sums.add(stack.sums),
            None => merged.push(stack),
        }
    }
    merged.sort_by_key(|stack| Reverse(stack.sums));
    merged
}

/// The columns that say something of any of these stacks.
fn said_columns(stacks: &[Stack<'_>], columns: usize) -> Vec<usize> {
    let says =
        |column: &usize| stacks.iter().any(|stack| stack.base.get(*column).is_some_and(|value| value != NOTHING));
    (0..columns).filter(says).collect()
}

/// What is shown of the frames. Those of a function that calls itself are one.
fn frames(stack: &Stack<'_>) -> Vec<Vec<String>> {
    let cells: Vec<_> = stack.frames.iter().map(|frame| cells(frame)).collect();
    let runs = cells.chunk_by(PartialEq::eq).filter_map(|run| {
        let mut cells = run.first()?.clone();
        if let (Some(title), 2..) = (cells.first_mut(), run.len()) {
            title.push_str(&format!(" ({} times)", run.len()));
        }
        Some(cells)
    });
    runs.collect()
}

/// What is shown of a frame.
fn cells(frame: &Frame) -> Vec<String> {
    let mut title = escaped(&frame.title());
    if frame.origin == Origin::Inlined {
        title.push_str(" (inlined)");
    }
    // Where it is called by that, it need not be said again.
    let place =
        frame.place().filter(|_| frame.function.is_some() || frame.origin == Origin::Kernel).unwrap_or_default();
    vec![title, escaped(&place), escaped(&frame.source().unwrap_or_default())]
}

/// Lines of cells, each as wide as the widest of its column.
fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let widths = lines.iter().filter_map(|line| Some(line.get(column)?.chars().count()));
        widths.filter(|width| *width <= WIDEST).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{filled, hostile, waiting};

    fn table(profile: &Profile, rows: usize) -> String {
        let mut out = Vec::new();
        write(profile, rows, &mut out).expect("it is written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_hottest_come_first() {
        assert_eq!(
            table(&filled(), 10),
            "\
SAMPLES SHARE TIME    NAMESPACE POD   COMM
37      92.5% 755.1ms shop      web-0 app
        fib (inlined) (2 times) app main.c:12
        compute                 app main.c:30
        main                    app
        [libc.so.6+0x29d90]
3       7.5%  61.2ms  -         -     sh
        do_syscall_64     [kernel]
        nf_hook           [nf_tables]
        [JIT] Main::run() [jit]
        main              app
2 stacks, 40 samples, 816.3ms
"
        );
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let table = table(&waiting(), 10);
        assert_eq!(
            table,
            "WAITS SHARE  TIME\n2     100.0% 1.5ms\n        schedule [kernel]\n1 stack, 2 waits, 1.5ms\n"
        );
        assert!(super::tests::table(&hostile(), 1).starts_with("SAMPLES SHARE  TIME   COMM\n"));
    }

    #[test]
    fn what_is_not_shown_is_said() {
        let table = table(&filled(), 1);
        assert!(
            table.ends_with("\n1 of 2 stacks, with 92.5% of 40 samples, 816.3ms; more: --rows 2, or -o flamegraph\n"),
            "{table}"
        );
    }

    #[test]
    fn hostile_names_stay_on_their_lines() {
        let table = table(&hostile(), 10);
        assert!(!table.chars().any(|character| character.is_control() && character != '\n'), "{table:?}");
        assert!(table.contains("a\\e[2J\\n;b 7"), "{table}");
    }
}
