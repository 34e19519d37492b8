//! Rows as they come. A column is as wide as its widest cell so far, so nothing is ever cut.

use std::io::{self, Write};

use gadgets::format;
use gadgets::wire::{Gap, Loss};
use jiff::tz::TimeZone;

use super::columns::Columns;
use super::{Context, Form, Row, Totals};

/// Beyond this a cell pushes its own row to the right, but no later one.
const WIDEST: usize = 40;
/// Stands for what does not exist.
const NOTHING: &str = "-";

pub(super) struct Table {
    columns: Vec<String>,
    widths: Vec<usize>,
    zone: TimeZone,
}

impl Table {
    pub(super) fn new(columns: Columns) -> Self {
        let widths = columns.0.iter().map(|name| first_width(name)).collect();
        Self { columns: columns.0, widths, zone: TimeZone::system() }
    }

    fn write_row(&mut self, cells: &[String], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        // Missing columns at the end need no padding.
        for (index, cell) in cells.iter().enumerate() {
            let length = cell.chars().count();
            let width = &mut self.widths[index];
            *width = length.clamp(*width, WIDEST.max(*width));
            line.push_str(cell);
            if index + 1 < cells.len() {
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(length) + 1));
            }
        }
        line.push('\n');
        out.write_all(line.as_bytes())
    }

    fn cell(&self, name: &str, row: &Row<'_>) -> String {
        let entry = row.context.cgroup(&row.record.header);
        let text = |name: Option<&str>| {
            let mut cell = String::new();
            format::escape(name.unwrap_or(NOTHING).as_bytes(), &mut cell);
            cell
        };
        match name {
            "node" => text(Some(&row.context.node.name)),
            "namespace" => text(entry.namespace.as_deref()),
            "pod" => text(entry.pod.as_deref()),
            "container" => text(entry.container.as_deref()),
            "time" => format::time_of_day(row.context.clock.wall(row.record.header.time), &self.zone),
            field => row
                .stream
                .field(field)
                .and_then(|field| Some(format::cell(&row.record.value(field).ok()?, field.kind)))
                .unwrap_or_else(|| NOTHING.to_owned()),
        }
    }
}

/// A line for standard error, with text that others chose.
fn notice(text: &str) {
    let mut line = String::new();
    format::escape(text.as_bytes(), &mut line);
    eprintln!("{line}");
}

/// The usual width of what a column shows, so that most tables never have to widen.
fn first_width(name: &str) -> usize {
    let usual = match name {
        "time" => 12,
        "namespace" | "container" | "comm" | "pcomm" => 15,
        "pod" => 20,
        "pid" | "ppid" | "ret" => 7,
        _ => 0,
    };
    usual.max(name.len())
}

impl Form for Table {
    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        context.node.degraded.iter().for_each(|what| notice(&format!("warning: {what}")));
        let header: Vec<String> = self.columns.iter().map(|name| name.to_uppercase()).collect();
        self.write_row(&header, out)
    }

    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        let cells: Vec<String> = self.columns.iter().map(|name| self.cell(name, row)).collect();
        self.write_row(&cells, out)
    }

    fn loss(&mut self, _: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        let whose = match (&loss.namespace, &loss.pod) {
            (Some(namespace), Some(pod)) => format!(" of {namespace}/{pod}"),
            _ => String::new(),
        };
        notice(&format!("lost: {} events{whose}, in the {} ({})", loss.count, loss.stage, loss.reason));
        Ok(())
    }

    fn gap(&mut self, _: &Context, gap: &Gap, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        notice(&format!("gap: events may be missing: {}", gap.reason));
        Ok(())
    }

    fn end(&mut self, _: &Context, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        let lost: Vec<String> = totals.lost_at.iter().map(|(stage, count)| format!("{count} in the {stage}")).collect();
        let lost =
            if lost.is_empty() { "none lost".to_owned() } else { format!("{} lost: {}", totals.lost, lost.join(", ")) };
        let gaps = match totals.gaps {
            0 => String::new(),
            gaps => format!(", {gaps} gaps"),
        };
        eprintln!("{} events, {lost}{gaps}", totals.events);
        Ok(())
    }
}
