//! Rows as they come. A column is as wide as its widest cell so far, so nothing is ever cut.

use std::fmt::Write as _;
use std::io::{self, Write};

use gadgets::format::{self, TimeFormat};
use gadgets::record::Record;
use gadgets::schema::Stream;
use gadgets::wire::Loss;
use jiff::tz::TimeZone;

use super::columns::Columns;
use super::context::Context;
use super::{Form, Hole, Totals, summary, whose};
use crate::notice::notice;

/// Beyond this a cell pushes its own row to the right, but no later one.
const WIDEST: usize = 40;
/// Stands for what does not exist.
const NOTHING: &str = "-";

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
        line.clear();
        for (index, (column, width)) in columns.iter().zip(&mut *widths).enumerate() {
            let start = line.len();
            add(column, time, line);
            let length = line[start..].chars().count();
            *width = length.clamp(*width, WIDEST.max(*width));
            // Missing columns at the end need no padding.
            if index + 1 < columns.len() {
                let _ = write!(line, "{:1$}", "", width.saturating_sub(length) + 1);
            }
        }
        line.push('\n');
        out.write_all(line.as_bytes())
    }
}

/// Adds what a column shows of a record.
fn add_cell(
    name: &str,
    context: &Context,
    stream: &Stream,
    record: &Record<'_>,
    time: &mut TimeFormat,
    line: &mut String,
) {
    let entry = &context.owner(record.header.cgroup).entry;
    let mut text = |name: Option<&str>| format::escape(name.unwrap_or(NOTHING).as_bytes(), line);
    match name {
        "node" => text(Some(&context.node.name)),
        "namespace" => text(entry.namespace.as_deref()),
        "pod" => text(entry.pod.as_deref()),
        "container" => text(entry.container.as_deref()),
        "owner" => text(entry.owner.as_deref()),
        "labels" => {
            let labels: Vec<String> = entry.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text((!labels.is_empty()).then(|| labels.join(",")).as_deref())
        }
        "time" => line.push_str(time.of(context.clock.wall(record.header.time))),
        field => match stream.field(field).and_then(|field| Some((record.value(field).ok()?, field.kind))) {
            Some((value, kind)) => format::cell(&value, kind, line),
            None => line.push_str(NOTHING),
        },
    }
}

/// The usual width of what a column shows, so that most tables never have to widen.
fn first_width(name: &str) -> usize {
    let usual = match name {
        "node" | "time" => 12,
        "namespace" | "container" | "comm" | "pcomm" => 15,
        "pod" => 20,
        "pid" | "ppid" | "ret" => 7,
        _ => 0,
    };
    usual.max(name.len())
}

impl Form for Table {
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.write_row(out, |name, _, line| line.push_str(&name.to_uppercase()))
    }

    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        context.node.degraded.iter().for_each(|what| notice(&format!("node {}: {what}", context.node.name)));
        Ok(())
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        let Some(stream) = context.stream(record) else { return Ok(()) };
        self.write_row(out, |name, time, line| add_cell(name, context, stream, record, time, line))
    }

    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        let whose = whose(&loss.namespace, &loss.pod);
        let node = &context.node.name;
        notice(&format!("lost on node {node}: {} events{whose}, in the {} ({})", loss.count, loss.stage, loss.reason));
        Ok(())
    }

    fn gap(&mut self, context: &Context, hole: &Hole, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        let (from, to) = (self.time.of(hole.from).to_owned(), self.time.of(hole.to));
        let node = &context.node.name;
        notice(&format!("gap: events of node {node} may be missing from {from} to {to}: {}", hole.reason));
        Ok(())
    }

    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        summary(totals).iter().for_each(|line| notice(line));
        Ok(())
    }
}
