//! Rows as they come. A column is as wide as its widest cell so far, so nothing is ever cut.

use std::fmt::Write as _;
use std::io::{self, Write};

use gadgets::format::TimeFormat;
use gadgets::record::Record;
use jiff::tz::TimeZone;

use super::Form;
use super::cell::{NEXT_FRAME, add_cell};
use super::columns::Columns;
use super::context::Context;
use super::sums::Sample;

/// How lines below a row begin.
const BELOW: &str = "        ";
/// Beyond this a cell pushes its own row to the right, but no later one.
const WIDEST: usize = 40;

pub(super) struct Table {
    columns: Vec<String>,
    widths: Vec<usize>,
    time: TimeFormat,
    /// The row that is being written.
    line: String,
}

impl Table {
    pub(super) fn new(columns: Columns) -> Self {
        let widths = columns.0.iter().map(|name| first_width(name)).collect();
        Self { columns: columns.0, widths, time: TimeFormat::time_of_day(TimeZone::system()), line: String::new() }
    }

    /// Writes a row whose cells `add` adds to the line, one by one.
    fn write_row(
        &mut self,
        out: &mut dyn Write,
        mut add: impl FnMut(&str, &mut TimeFormat, &mut String),
    ) -> io::Result<()> {
        let Self { columns, widths, time, line } = self;
        let mut below = String::new();
        line.clear();
        for (index, (column, width)) in columns.iter().zip(&mut *widths).enumerate() {
            let start = line.len();
            add(column, time, line);
            if let Some(at) = line[start..].find(NEXT_FRAME) {
                below.extend(line[start + at..].lines().skip(1).flat_map(|frame| [BELOW, frame, "\n"]));
                line.truncate(start + at);
            }
            let length = line[start..].chars().count();
            *width = length.clamp(*width, WIDEST.max(*width));
            // Missing columns at the end need no padding.
            if index + 1 < columns.len() {
                let _ = write!(line, "{:1$}", "", width.saturating_sub(length) + 1);
            }
        }
        line.push('\n');
        line.push_str(&below);
        out.write_all(line.as_bytes())
    }
}

/// The usual width of what a column shows, so that most tables never have to widen.
fn first_width(name: &str) -> usize {
    let usual = match name {
        "node" | "time" => 12,
        "namespace" | "container" | "comm" | "pcomm" => 15,
        "pod" => 20,
        "pid" | "ppid" | "ret" => 7,
        "flags" => 18,
        "address" | "local" | "peer" => 21,
        "sent" | "received" => 10,
        "capability" => 20,
        "duration" => 8,
        _ => 0,
    };
    usual.max(name.len())
}

impl Form for Table {
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.write_row(out, |name, _, line| line.push_str(&name.to_uppercase()))
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        let Some(stream) = context.stream(record) else { return Ok(()) };
        self.write_row(out, |name, time, line| add_cell(name, context, stream, record, time, line))
    }

    fn sample(&mut self, sample: Sample, out: &mut dyn Write) -> io::Result<()> {
        for row in &sample.rows {
            self.write_row(out, |name, time, line| sample.add_cell(row, name, time, line))?;
        }
        Ok(())
    }
}
