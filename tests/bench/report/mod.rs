//! What people read: results as text, and in docs/performance as numbers, plots and a page.

mod page;
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::rows::{self, Row};
use crate::table::{Table, number};

/// What came of a row.
#[derive(Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Its name.
    row: String,
    /// Where.
    machine: Machine,
    /// The numbers, all of them.
    table: Table,
}

/// A goal, and what came of it.
struct Verdict {
    text: &'static str,
    value: Option<f64>,
    is_reached: bool,
    holds_everywhere: bool,
}

impl Verdict {
    /// In words.
    fn words(&self) -> (&'static str, String) {
        match self.value {
            None => ("not measured", "-".into()),
            Some(value) if self.is_reached => ("reached", number(value)),
            Some(value) => ("**missed**", number(value)),
        }
    }
}

impl Measured {
    /// What was measured now.
    pub(crate) fn new(row: &Row, machine: Machine, table: Table) -> Self {
        Self { row: row.name.to_owned(), machine, table }
    }

    fn verdicts(&self, row: &Row) -> Vec<Verdict> {
        let of = |goal: &crate::rows::Goal| {
            let value = (goal.value)(&self.table);
            let is_reached = value.is_some_and(|value| goal.is_reached(value));
            Verdict { text: goal.text, value, is_reached, holds_everywhere: goal.holds_everywhere }
        };
        row.goals.iter().map(of).collect()
    }

    /// Prints it.
    pub(crate) fn print(&self, row: &Row) {
        println!("\n{}\n\n{}", row.title, self.table.text());
        for verdict in self.verdicts(row) {
            let (word, value) = verdict.words();
            println!("  {}: {} ({value})", word.trim_matches('*'), verdict.text);
        }
    }

    /// The goals that are missed though no machine is too slow for them.
    pub(crate) fn wrong(&self, row: &Row) -> Vec<String> {
        let wrong = |verdict: &Verdict| verdict.holds_everywhere && !verdict.is_reached;
        let words = |verdict: &Verdict| format!("{}: {} ({})", row.name, verdict.text, verdict.words().1);
        self.verdicts(row).iter().filter(|verdict| wrong(verdict)).map(words).collect()
    }
}

/// Writes docs/performance.md and what belongs to it. Other rows stay as they were.
pub(crate) fn write(new: Measured) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let folder = docs.join("performance");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let results = folder.join("results.json");
    let mut all: Vec<Measured> = match fs::read(&results) {
        Ok(known) => serde_json::from_slice(&known).with_context(|| results.display().to_string())?,
        Err(_) => Vec::new(),
    };
    all.retain(|known| known.row != new.row);
    all.push(new);
    let place = |measured: &Measured| rows::all().position(|row| row.name == measured.row);
    all.retain(|measured| place(measured).is_some());
    all.sort_by_key(place);
    save(results, serde_json::to_string_pretty(&all)? + "\n")?;
    let known: Vec<(&Row, &Measured)> =
        all.iter().filter_map(|measured| Some((rows::all().nth(place(measured)?)?, measured))).collect();
    for (row, measured) in &known {
        save(folder.join(format!("{}.svg", row.name)), plot::svg(row, &measured.table)?)?;
    }
    save(docs.join("performance.md"), page::page(&known))
}

fn save(path: PathBuf, content: String) -> Result<()> {
    fs::write(&path, content).with_context(|| path.display().to_string())
}
