//! A run of a gadget that shows where time goes: its flags say by what stacks are told apart, and in which form they are shown.

use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;

use clap::{ArgMatches, Args, Command, FromArgMatches as _};
use gadgets::catalogue::{Gadget, Profiled};
use gadgets::schema::Kind;
use gadgets::spec::RunSpec;

use super::gadget::{as_spec, check_together, given_parameters};
use super::run::RunArgs;
use super::sample::told_apart_by;
use crate::exit::{End, Usage};
use crate::output::columns::{self, Columns};
use crate::output::profiling::{Shape, Wanted};
use crate::output::{Format, Output};
use crate::profile::{Column, Subject};

/// By what stacks are told apart if nobody says, as far as a gadget has it.
const USUAL: [&str; 3] = ["pod", "container", "comm"];
/// The same where labels cost no room.
const LABELS: [&str; 5] = ["node", "pod", "container", "comm", "pid"];
/// By nothing.
const NONE: &str = "none";
/// Stacks that a table has if nobody says.
const ROWS: usize = 10;
/// How often agents send what there is if nobody looks at it before the end, in ms: each time costs.
const UNSEEN_MS: u32 = 5000;

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct ProfileArgs {
    /// What it is shown as, at the end
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ProfileFormat,
    /// Tell stacks apart by these columns, too, as in pod, node or comm,pid; none puts all together [default: pod,container,comm]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    by: Vec<String>,
    /// So many stacks of the table, those with the most time [default: 10]
    #[arg(long, value_name = "NUMBER")]
    rows: Option<NonZeroUsize>,
    /// Show nothing on a terminal until the end
    #[arg(long)]
    plain: bool,
    // Who knows it from other gadgets gets to know what there is instead.
    #[arg(long, hide = true, allow_hyphen_values = true, value_parser = no_columns)]
    columns: Option<String>,
}

/// The values of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ProfileFormat {
    /// The stacks with the most time, and on a terminal, while it goes on, the functions
    #[default]
    Table,
    /// A line a stack, for tools that read stackcollapse's
    Folded,
    /// A picture (SVG), to be looked at in a browser
    Flamegraph,
    /// For pprof, and what else reads its format
    Pprof,
    /// One object a line, when it comes
    Json,
}

fn no_columns(_: &str) -> Result<String, String> {
    Err("a profile has no columns to choose; say with --by by which of them stacks are told apart".into())
}

/// With the flags of such a gadget.
pub(super) fn with_args(command: Command) -> Command {
    ProfileArgs::augment_args(command)
}

pub(super) fn run(gadget: &'static Gadget, profiled: Profiled, matches: &ArgMatches) -> anyhow::Result<End> {
    let run = RunArgs::from_arg_matches(matches)?;
    let args = ProfileArgs::from_arg_matches(matches)?;
    let given = given_parameters(gadget, matches, None);
    check_together(&given)?;
    let is_waiting = given.iter().any(|(parameter, _)| parameter.name == profiled.waiting);
    let is_terminal = io::stdout().is_terminal();
    let output = args.output(gadget, profiled, is_waiting, is_terminal)?;
    let spec = RunSpec {
        gadget: gadget.name.to_owned(),
        parameters: as_spec(&given),
        interval_ms: args.interval_ms(is_terminal),
        ..RunSpec::default()
    };
    run.run(spec, async |_| Ok(output))
}

impl ProfileArgs {
    /// Whether functions are shown while it goes on.
    fn is_live(&self, is_terminal: bool) -> bool {
        self.output == ProfileFormat::Table && !self.plain && is_terminal
    }

    /// In ms; `None` if it is the usual one.
    fn interval_ms(&self, is_terminal: bool) -> Option<u32> {
        let is_seen = self.output == ProfileFormat::Json || self.is_live(is_terminal);
        (!is_seen).then_some(UNSEEN_MS)
    }

    fn output(
        &self,
        gadget: &'static Gadget,
        profiled: Profiled,
        is_waiting: bool,
        is_terminal: bool,
    ) -> anyhow::Result<Output> {
        if self.rows.is_some() && self.output != ProfileFormat::Table {
            return Err(Usage("--rows: only the table has rows".into()).into());
        }
        let shape = match self.output {
            ProfileFormat::Json if !self.by.is_empty() => {
                return Err(Usage("--by: -o json shows each record with all that is known of it".into()).into());
            }
            ProfileFormat::Json => {
                return Ok(Output::new(Format::Json, gadget.name, Columns::usual(gadget, []), None));
            }
            ProfileFormat::Table => Shape::Table(self.rows.map_or(ROWS, NonZeroUsize::get)),
            ProfileFormat::Folded => Shape::Folded,
            ProfileFormat::Flamegraph => Shape::FlameGraph,
            ProfileFormat::Pprof => Shape::Pprof,
        };
        let file = match shape {
            Shape::FlameGraph => Some("svg"),
            Shape::Pprof => Some("pb.gz"),
            Shape::Table(_) | Shape::Folded => None,
        };
        if let Some(file) = file.filter(|_| is_terminal) {
            let text = format!("this is nothing for a terminal; write it to a file: > {}.{file}", gadget.name);
            return Err(Usage(text).into());
        }
        let waiting = gadget.parameters.iter().find(|parameter| parameter.name == profiled.waiting && !is_waiting);
        let hint = waiting.map(|parameter| format!(", where threads wait by --{}", parameter.name));
        let what = if is_waiting { "waited" } else { "ran" };
        Ok(Output::profile(Wanted {
            subject: Subject { gadget: gadget.name, is_waiting },
            columns: self.columns(gadget, profiled, shape)?,
            measures: profiled.measures,
            shape,
            live: self.is_live(is_terminal),
            if_empty: format!(
                "nothing was seen: of what was asked for nothing {what}, or no pod matches; what is outside of pods is shown by --host{}",
                hint.unwrap_or_default()
            ),
        }))
    }

    /// What stacks stand on.
    fn columns(&self, gadget: &Gadget, profiled: Profiled, shape: Shape) -> anyhow::Result<Vec<Column>> {
        let schema = gadget.schema()?;
        let field = |name: &str| schema.fields().find(|field| field.name == name);
        let usual: &[&str] = if shape == Shape::Pprof { &LABELS } else { &USUAL };
        let known = columns::names(gadget)?;
        let by = match self.by.as_slice() {
            [] => usual.iter().map(|name| (*name).to_owned()).filter(|name| known.contains(name)).collect(),
            [none] if none == NONE => Vec::new(),
            by => by.to_vec(),
        };
        let is_stack =
            |name: &&String| field(name).is_some_and(|field| matches!(field.kind, Kind::UserStack | Kind::KernelStack));
        if let Some(stack) = by.iter().find(is_stack) {
            return Err(Usage(format!("--by {stack}: stacks are told apart by their functions anyway")).into());
        }
        let columns = told_apart_by(gadget, profiled.measures, &by)?.into_iter().map(|name| {
            let kind = field(&name).map(|field| field.kind);
            let is_number = matches!(kind, Some(Kind::Unsigned | Kind::Signed | Kind::Pid | Kind::Uid));
            Column { name, is_number }
        });
        Ok(columns.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gadget() -> (&'static Gadget, Profiled) {
        let gadgets = gadgets::catalogue::CATALOGUE.0.iter();
        gadgets.filter_map(|gadget| Some((*gadget, gadget.shows.profile()?))).next().expect("one that shows profiles")
    }

    fn args(words: &[&str]) -> Result<ProfileArgs, clap::Error> {
        let command = with_args(Command::new("test").no_binary_name(true));
        ProfileArgs::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    fn columns(words: &[&str], shape: Shape) -> anyhow::Result<Vec<String>> {
        let (gadget, sampled) = gadget();
        Ok(args(words)?.columns(gadget, sampled, shape)?.into_iter().map(|column| column.name).collect())
    }

    #[test]
    fn stacks_stand_on_what_is_asked_for() {
        let table = Shape::Table(ROWS);
        assert_eq!(columns(&[], table).expect("the usual"), ["namespace", "pod", "container", "comm"]);
        assert_eq!(columns(&["--by", "none"], table).expect("nothing"), [""; 0]);
        assert_eq!(columns(&["--by", "pid,pod"], table).expect("two"), ["pid", "namespace", "pod"]);
        assert!(columns(&[], Shape::Pprof).expect("labels").contains(&"pid".to_owned()));
        let error = columns(&["--by", "pods"], table).expect_err("no column");
        assert!(error.to_string().contains("did you mean \"pod\"?"), "{error}");
        for wrong in ["time", "samples", "user_stack", "none,pod"] {
            assert!(columns(&["--by", wrong], table).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_nobody_looks_at_comes_seldom() {
        let interval = |words: &[&str], is_terminal| args(words).expect("flags").interval_ms(is_terminal);
        assert_eq!([interval(&[], true), interval(&["-o", "json"], false)], [None, None]);
        for (words, is_terminal) in [(&[][..], false), (&["--plain"], true), (&["-o", "folded"], true)] {
            assert_eq!(interval(words, is_terminal), Some(UNSEEN_MS), "{words:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let (gadget, sampled) = gadget();
        let error = |words: &[&str]| {
            let output = args(words).expect("flags").output(gadget, sampled, false, true);
            output.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(error(&["-o", "flamegraph"]).ends_with("> profile.svg"));
        assert!(error(&["-o", "pprof"]).ends_with("> profile.pb.gz"));
        assert!(error(&["-o", "folded", "--rows", "3"]).contains("--rows"));
        assert!(error(&["-o", "json", "--by", "pod"]).contains("--by"));
        assert_eq!([error(&[]), error(&["-o", "folded"]), error(&["-o", "json"])], ["", "", ""]);
        let columns = args(&["--columns", "-pid"]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(columns.contains("--by"), "{columns}");
    }
}
