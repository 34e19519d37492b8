//! Numbers of several rounds, by who watched and what was measured.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A table of measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    /// What was measured.
    pub(crate) columns: Vec<Column>,
    /// Who was.
    pub(crate) lines: Vec<Line>,
}

/// A quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Column {
    /// What it is.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: String,
}

/// The measurements of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Whose.
    pub(crate) name: String,
    /// One a column, each with one number a round; empty if it was not measured.
    pub(crate) cells: Vec<Samples>,
}

/// The same, measured several times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// The number in the middle, if there is one.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
        Some(f64::midpoint(*low, *high))
    }

    /// The least and the greatest.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let least = self.0.iter().copied().min_by(f64::total_cmp)?;
        Some((least, self.0.iter().copied().max_by(f64::total_cmp)?))
    }

    /// "5 (4-7)", or "-" for none.
    fn text(&self) -> String {
        match (self.median(), self.range()) {
            (Some(median), Some((least, greatest))) if least < greatest => {
                format!("{} ({}-{})", number(median), number(least), number(greatest))
            }
            (Some(median), _) => number(median),
            _ => "-".into(),
        }
    }
}

/// With as many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.trim_start_matches('-').len() <= 4 { text } else { grouped(&text) }
}

/// Thousands apart.
fn grouped(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let mut grouped = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

impl Table {
    /// An empty one with these columns, each a name and a unit.
    pub(crate) fn new(columns: &[(&str, &str)]) -> Self {
        let column = |(name, unit): &(&str, &str)| Column { name: (*name).to_owned(), unit: (*unit).to_owned() };
        Self { columns: columns.iter().map(column).collect(), lines: Vec::new() }
    }

    /// Adds one number, of one round.
    pub(crate) fn push(&mut self, line: &str, column: &str, value: f64) {
        let at = self.lines.iter().position(|known| known.name == line).unwrap_or_else(|| {
            self.lines.push(Line { name: line.to_owned(), cells: vec![Samples::default(); self.columns.len()] });
            self.lines.len() - 1
        });
        match self.columns.iter().position(|known| known.name == column) {
            Some(place) => self.lines[at].cells[place].0.push(value),
            None => unreachable!("no column {column}"),
        }
    }

    /// What was measured in all rounds, in the first line whose name begins so.
    fn cell(&self, line: &str, column: &str) -> Option<&Samples> {
        let place = self.columns.iter().position(|known| known.name == column)?;
        self.lines.iter().find(|known| known.name.starts_with(line))?.cells.get(place)
    }

    /// The number in the middle of that.
    pub(crate) fn median(&self, line: &str, column: &str) -> Option<f64> {
        self.cell(line, column)?.median()
    }

    /// The greatest of a column, in any line whose name begins so.
    pub(crate) fn worst(&self, line: &str, column: &str) -> Option<f64> {
        let place = self.columns.iter().position(|known| known.name == column)?;
        let lines = self.lines.iter().filter(|known| known.name.starts_with(line));
        lines.filter_map(|line| Some(line.cells[place].range()?.1)).max_by(f64::total_cmp)
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let rows = self.rows();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let _ = write!(text, "  {:<1$}", row[0], widths[0]);
            row[1..].iter().zip(&widths[1..]).for_each(|(cell, width)| _ = write!(text, "  {cell:>width$}"));
            text.push('\n');
        }
        text
    }

    /// For a page.
    pub(crate) fn markdown(&self) -> String {
        let rows = self.rows();
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.columns.len()));
        [line(&rows[0]), rule, rows[1..].iter().map(line).collect()].concat()
    }

    /// The header and the lines, as texts.
    fn rows(&self) -> Vec<Vec<String>> {
        let title = |column: &Column| {
            if column.unit.is_empty() { column.name.clone() } else { format!("{}, {}", column.name, column.unit) }
        };
        let header = std::iter::once(String::new()).chain(self.columns.iter().map(title)).collect();
        let row =
            |line: &Line| std::iter::once(line.name.clone()).chain(line.cells.iter().map(Samples::text)).collect();
        std::iter::once(header).chain(self.lines.iter().map(row)).collect()
    }
}
