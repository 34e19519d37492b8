//! Flags of sampled gadgets: how long an interval is, and how what came in it is added up.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use gadgets::catalogue::{COMMON_COLUMNS, EXTRA_COLUMNS, Gadget, Sampled};
use gadgets::spec::{INTERVAL_MS_DEFAULT, INTERVAL_MS_MAX, INTERVAL_MS_MIN};

use super::no_column;
use crate::exit::Usage;
use crate::output::columns::{self, Columns};
use crate::output::sums::{Order, Plan};

/// Says when, not of what.
const TIME: &str = "time";

#[derive(Args)]
#[command(next_help_heading = "Intervals")]
pub(super) struct SampleArgs {
    /// Show what came in each interval of this length, as in 500ms or 5s
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    pub(super) interval: Duration,
    /// Add up by these columns instead of all, as in pod, node or pod,comm
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) by: Vec<String>,
    /// Put rows in order of this column (sums: the greatest first); with - in front, the other way round. Else those with the
    /// most bytes come first
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Print at most so many rows of each interval (a screen shows what it has room for)
    #[arg(long, value_name = "NUMBER")]
    rows: Option<NonZeroUsize>,
    /// Print rows on a terminal, too, instead of a screen that stays where it is
    #[arg(long)]
    pub(super) plain: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = super::run::duration(text)?;
    let given = Duration::from_millis(INTERVAL_MS_MIN.into())..=Duration::from_millis(INTERVAL_MS_MAX.into());
    if given.contains(&interval) {
        return Ok(interval);
    }
    let [least, most] = [*given.start(), *given.end()].map(humantime::format_duration);
    Err(format!("it must be from {least} to {most}"))
}

impl SampleArgs {
    /// In ms; `None` if it is the usual one.
    pub(super) fn interval_ms(&self) -> Option<u32> {
        u32::try_from(self.interval.as_millis()).ok().filter(|ms| *ms != INTERVAL_MS_DEFAULT)
    }

    /// The columns that are shown if nothing else is said.
    ///
    /// # Errors
    /// If one of `--by` is none, or is added up itself.
    pub(super) fn usual(&self, gadget: &Gadget, sampled: Sampled, usual: Columns) -> anyhow::Result<Columns> {
        if self.by.is_empty() {
            return Ok(usual);
        }
        let keys = told_apart_by(gadget, sampled.measures, &self.by)?;
        let measures =
            gadget.columns.iter().filter(|name| sampled.measures.contains(name)).map(|name| (*name).to_owned());
        Ok(Columns([TIME.to_owned()].into_iter().chain(keys).chain(measures).collect()))
    }

    /// What is added up. Rows are told apart by what is shown, or by everything if `shown` is not given.
    ///
    /// # Errors
    /// If the order is by a column that is not shown.
    pub(super) fn plan(&self, gadget: &Gadget, sampled: Sampled, shown: Option<&Columns>) -> anyhow::Result<Plan> {
        let schema = gadget.schema()?;
        let is_measure = |name: &str| sampled.measures.contains(&name);
        let all = || {
            let common = COMMON_COLUMNS.iter().chain(&EXTRA_COLUMNS).map(|(name, _)| *name);
            common.chain(schema.fields().map(|field| field.name.as_str())).map(str::to_owned).collect()
        };
        let keys: Vec<String> = shown.map_or_else(all, |shown| shown.0.clone());
        let keys: Vec<String> = keys.into_iter().filter(|name| !is_measure(name) && name != TIME).collect();
        let measure = |name: &&str| schema.fields().find(|field| field.name == *name).cloned();
        let measures = sampled.measures.iter().filter_map(measure).collect();
        let mut order = Order::default();
        if let Some(sort) = &self.sort {
            let name = sort.trim_start_matches('-');
            check(gadget, name)?;
            if !is_measure(name) && !keys.iter().any(|key| key == name) {
                return Err(Usage(format!("--sort {name}: that column is not shown")).into());
            }
            order = Order { column: Some(name.to_owned()), reversed: sort.starts_with('-') };
        }
        Ok(Plan { interval: self.interval, keys, measures, order, most: self.rows.map(NonZeroUsize::get) })
    }
}

/// The columns of `--by`, and those within which they mean something.
///
/// # Errors
/// If one is none, or is added up itself.
pub(super) fn told_apart_by(gadget: &Gadget, measures: &[&str], by: &[String]) -> anyhow::Result<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    for name in by {
        check(gadget, name)?;
        if measures.contains(&name.as_str()) || name == TIME {
            return Err(Usage(format!("--by {name}: rows cannot be told apart by what is added up")).into());
        }
        // Names mean something within others only.
        let within: &[&str] = match name.as_str() {
            "pod" | "owner" => &["namespace"],
            "container" => &["namespace", "pod"],
            _ => &[],
        };
        for name in within.iter().chain([&name.as_str()]) {
            if !columns.iter().any(|column| column == name) {
                columns.push((*name).to_owned());
            }
        }
    }
    Ok(columns)
}

/// Fails if a gadget has no such column.
fn check(gadget: &Gadget, name: &str) -> anyhow::Result<()> {
    let known = columns::names(gadget)?;
    if known.iter().any(|column| column == name) { Ok(()) } else { Err(no_column(gadget, name, &known)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    fn plan(words: &[&str]) -> anyhow::Result<(Columns, Plan)> {
        let command = SampleArgs::augment_args(Command::new("test").no_binary_name(true));
        let args = SampleArgs::from_arg_matches(&command.try_get_matches_from(words)?)?;
        let gadget = gadgets::catalogue::CATALOGUE.get("tcptop").expect("tcptop");
        let sampled = gadget.shows.sums().expect("a sampled gadget");
        let shown = args.usual(gadget, sampled, Columns::usual(gadget, std::iter::empty()))?;
        let plan = args.plan(gadget, sampled, Some(&shown))?;
        Ok((shown, plan))
    }

    #[test]
    fn rows_are_told_apart_by_what_is_shown() {
        let (shown, all) = plan(&[]).expect("the usual");
        assert!(shown.0.contains(&"peer".to_owned()) && all.keys.contains(&"peer".to_owned()));
        let (shown, by_pod) = plan(&["--by", "pod", "--sort", "-sent"]).expect("by pod");
        assert_eq!(by_pod.keys, ["namespace", "pod"]);
        assert_eq!(shown.0, ["time", "namespace", "pod", "sent", "received", "retransmits"]);
        assert_eq!(by_pod.order, Order { column: Some("sent".into()), reversed: true });
        assert_eq!(
            plan(&["--by", "container,comm"]).expect("by two").1.keys,
            ["namespace", "pod", "container", "comm"]
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        for wrong in [
            ["--by", "colour"],
            ["--by", "sent"],
            ["--sort", "colour"],
            ["--interval", "200ms"],
            ["--interval", "2h"],
            ["--rows", "0"],
        ] {
            assert!(plan(&wrong).is_err(), "{wrong:?}");
        }
        let error = plan(&["--by", "pod", "--sort", "peer"]).expect_err("peer is not shown");
        assert!(error.to_string().contains("peer"), "{error}");
    }
}
