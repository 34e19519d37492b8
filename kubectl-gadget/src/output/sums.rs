//! What a sampled gadget shows: what has come in an interval, added up over all nodes.
//!
//! Agents sample at the ends of intervals by their clocks; what has come of that is shown a moment later. Rows are told apart
//! by the columns that are shown.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use gadgets::format::{self, TimeFormat};
use gadgets::interval::Interval;
use gadgets::record::{Record, Value};
use gadgets::schema::{Field, Kind};

use super::cell::{NOTHING, add_cell, add_member};
use super::context::Context;
use super::now;

/// How long samples may be underway: less than the shortest interval, more than merging holds them up.
const UNDERWAY: Duration = Duration::from_millis(200);
/// Rows of an interval that are kept.
const MOST: usize = 100_000;
/// Between the cells of a key, which have no such character.
const BETWEEN: char = '\0';

/// In which order rows are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// By this column; else by the sum of all bytes, the most first.
    pub(crate) column: Option<String>,
    /// Not as usual: sums have the greatest first, others the least.
    pub(crate) reversed: bool,
}

/// What is added up, and how it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) interval: Duration,
    /// The columns that say of what.
    pub(crate) keys: Vec<String>,
    /// The columns that are added up.
    pub(crate) measures: Vec<Field>,
    pub(crate) order: Order,
    /// The most rows that are shown of an interval.
    pub(crate) most: Option<usize>,
}

/// The interval that is underway.
pub(crate) struct Sums {
    plan: Plan,
    rows: HashMap<String, Row>,
    underway: Interval,
    time: TimeFormat,
    /// The key that is being looked up.
    key: String,
}

/// What an interval has shown.
pub(super) struct Sample {
    /// The end of the interval, in ns since 1970.
    pub(super) time: u64,
    pub(super) plan: Plan,
    pub(super) rows: Vec<Row>,
    /// Of all rows, also of those that are not shown.
    pub(super) totals: Vec<u64>,
    /// If what is added up is shown as its share of something: of what.
    pub(super) whole: Option<Whole>,
}

/// What sums are shares of.
pub(super) struct Whole {
    pub(super) sum: u64,
    /// In words.
    pub(super) said: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// Of the keys.
    pub(super) cells: Vec<String>,
    /// The same as members of a JSON object, each behind a comma.
    pub(super) json: Vec<u8>,
    /// Of the measures.
    pub(super) sums: Vec<u64>,
}

impl Plan {
    /// By what rows are put in order if nobody says: the bytes of all measures, or else the first.
    fn weight(&self, sums: &[u64]) -> u64 {
        let bytes = self.measures.iter().zip(sums).filter(|(field, _)| field.kind == Kind::Bytes);
        let bytes = bytes.map(|(_, sum)| *sum).reduce(u64::saturating_add);
        bytes.or(sums.first().copied()).unwrap_or_default()
    }

    fn compare(&self, a: &Row, b: &Row, order: &Order) -> Ordering {
        let measure = |name: &str| self.measures.iter().position(|field| field.name == name);
        let key = |name: &str| self.keys.iter().position(|key| key == name);
        let ordering = match order.column.as_deref().map(|name| (measure(name), key(name))) {
            Some((Some(at), _)) => b.sums[at].cmp(&a.sums[at]),
            Some((None, Some(at))) => compare_cells(&a.cells[at], &b.cells[at]),
            _ => self.weight(&b.sums).cmp(&self.weight(&a.sums)),
        };
        let ordering = if order.reversed { ordering.reverse() } else { ordering };
        // Of equal rows each keeps its place from one interval to the next.
        ordering.then_with(|| a.cells.cmp(&b.cells))
    }
}

/// Numbers first, as numbers; all else as text.
fn compare_cells(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        // Or 9 were before 10, 10 before 1a, and 1a before 9.
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl Sums {
    pub(crate) fn new(plan: Plan) -> Self {
        let underway = Interval::new(plan.interval, UNDERWAY, now());
        Self { plan, rows: HashMap::new(), underway, time: TimeFormat::rfc3339(), key: String::new() }
    }

    /// In which order rows are shown at first.
    pub(super) fn order(&self) -> Order {
        self.plan.order.clone()
    }

    /// How long it is until the interval is over, and has come.
    pub(super) fn due_in(&self) -> Duration {
        self.underway.due_in(now())
    }

    /// Adds a record. Returns whether there was room for its row.
    pub(super) fn add(&mut self, context: &Context, record: &Record<'_>) -> bool {
        let Some(stream) = context.stream(record) else { return true };
        let Self { plan, rows, time, key, .. } = self;
        key.clear();
        for name in &plan.keys {
            add_cell(name, context, stream, record, time, key);
            key.push(BETWEEN);
        }
        if !rows.contains_key(key.as_str()) {
            if rows.len() >= MOST {
                return false;
            }
            let mut json = Vec::new();
            plan.keys.iter().for_each(|name| add_member(name, context, stream, record, &mut json));
            let cells = key.split_terminator(BETWEEN).map(str::to_owned).collect();
            rows.insert(key.clone(), Row { cells, json, sums: vec![0; plan.measures.len()] });
        }
        let Some(row) = rows.get_mut(key.as_str()) else { return false };
        for (measure, sum) in plan.measures.iter().zip(&mut row.sums) {
            let value = stream.field(&measure.name).and_then(|field| record.value(field).ok());
            if let Some(Value::Unsigned(number)) = value {
                *sum = sum.saturating_add(number);
            }
        }
        true
    }

    /// What has come in the interval; the next one begins.
    pub(super) fn take(&mut self) -> Sample {
        let time = self.underway.end().min(now());
        self.underway.pass(now());
        let rows: Vec<Row> = std::mem::take(&mut self.rows).into_values().collect();
        let mut totals = vec![0; self.plan.measures.len()];
        for row in &rows {
            totals.iter_mut().zip(&row.sums).for_each(|(total, sum)| *total = u64::saturating_add(*total, *sum));
        }
        let mut sample = Sample { time, plan: self.plan.clone(), rows, totals, whole: None };
        sample.sort(&self.plan.order);
        sample.rows.truncate(self.plan.most.unwrap_or(usize::MAX));
        sample
    }
}

impl Sample {
    pub(super) fn sort(&mut self, order: &Order) {
        let Self { plan, rows, .. } = self;
        rows.sort_unstable_by(|a, b| plan.compare(a, b, order));
    }

    /// Adds what a column shows of a row to a line.
    pub(super) fn add_cell(&self, row: &Row, name: &str, time: &mut TimeFormat, line: &mut String) {
        if name == "time" {
            line.push_str(time.of(self.time));
        } else if let Some((sum, field)) = self.sum(row, name) {
            format::cell(&Value::Unsigned(sum), field, line);
        } else {
            let cell = self.plan.keys.iter().position(|key| key == name).and_then(|at| row.cells.get(at));
            line.push_str(cell.map_or(NOTHING, String::as_str));
        }
    }

    /// What a column adds up, if it does.
    pub(super) fn sum(&self, row: &Row, name: &str) -> Option<(u64, &Field)> {
        let at = self.plan.measures.iter().position(|field| field.name == name)?;
        Some((*row.sums.get(at)?, &self.plan.measures[at]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn plan(order: Order) -> Plan {
        let measure = |name: &str, kind| Field {
            name: name.into(),
            offset: 0,
            size: 8,
            kind,
            values: Vec::new(),
            doc: String::new(),
        };
        Plan {
            interval: Duration::from_secs(1),
            keys: vec!["pid".into(), "comm".into()],
            measures: vec![
                measure("sent", Kind::Bytes),
                measure("received", Kind::Bytes),
                measure("again", Kind::Unsigned),
            ],
            order,
            most: None,
        }
    }

    fn row(pid: &str, comm: &str, sums: [u64; 3]) -> Row {
        Row { cells: vec![pid.into(), comm.into()], json: Vec::new(), sums: sums.into() }
    }

    /// A sample of rows with a pid, a comm, and bytes that were sent.
    pub(in crate::output) fn sample(rows: &[(&str, &str, u64)]) -> Sample {
        let rows = rows.iter().map(|(pid, comm, sent)| row(pid, comm, [*sent, 0, 0])).collect();
        Sample { time: 0, plan: plan(Order::default()), rows, totals: vec![0; 3], whole: None }
    }

    fn sorted(order: Order) -> Vec<String> {
        let rows = vec![row("10", "b", [1, 9, 0]), row("9", "c", [7, 1, 5]), row("100", "a", [3, 3, 9])];
        let mut sample = Sample { time: 0, plan: plan(order.clone()), rows, totals: Vec::new(), whole: None };
        sample.sort(&order);
        sample.rows.into_iter().map(|row| row.cells[0].clone()).collect()
    }

    fn by(column: &str, reversed: bool) -> Order {
        Order { column: Some(column.into()), reversed }
    }

    #[test]
    fn the_most_bytes_come_first_unless_somebody_says() {
        assert_eq!(sorted(Order::default()), ["10", "9", "100"]);
        assert_eq!(sorted(by("sent", false)), ["9", "100", "10"]);
        assert_eq!(sorted(by("again", true)), ["10", "9", "100"]);
        assert_eq!(sorted(by("pid", false)), ["9", "10", "100"]);
        assert_eq!(sorted(by("comm", false)), ["100", "10", "9"]);
        assert!(
            compare_cells("10", "1a").is_lt() && compare_cells("9", "1a").is_lt() && compare_cells("9", "10").is_lt()
        );
    }
}
