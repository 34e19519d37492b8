//! A run of a gadget: its flags are those of every gadget, and its own from the catalogue.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _, Subcommand as _};
use gadgets::catalogue::{Gadget, Parameter, ParameterKind, Report};
use gadgets::schema::Kind;
use gadgets::spec::RunSpec;
use gadgets::tasks::Choice;

use super::recording::{self, CallArgs, RecordingCommand};
use super::run::RunArgs;
use super::sample::SampleArgs;
use super::{advise, no_column, profile};
use crate::exit::{End, Usage};
use crate::output::columns::{self, Columns};
use crate::output::sums::Sums;
use crate::output::{Format, Output};
use crate::peers::{Haste, Peers};

const PARAMETERS: &str = "Parameters of this gadget";
/// What a flag of kubectl's has for a value if it is a gadget's.
const WITHOUT_VALUE: &str = "";
/// The flag for a gadget's report.
const SUMMARY: &str = "summary";

#[derive(Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// A table, or JSON: one object a line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Columns of the table: a list of names; or changes to the usual ones, as in +file,-pcomm
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    columns: Option<String>,
    /// Show peers as addresses, without asking the API server who they are
    #[arg(long)]
    numeric: bool,
}

/// The sub-command of a gadget.
pub(super) fn command(gadget: &'static Gadget) -> Command {
    let command = Command::new(gadget.name)
        .visible_aliases(gadget.aliases.iter().copied())
        .about(capitalised(gadget.summary))
        .long_about(format!("{}.\n\n{}", capitalised(gadget.summary), gadget.description));
    let command =
        if gadget.shows.profile().is_some() { profile::with_args(command) } else { OutputArgs::augment_args(command) };
    let mut command = RunArgs::augment_args(command);
    if gadget.shows.sums().is_some() {
        command = SampleArgs::augment_args(command);
    }
    if gadget.shows.is_past() {
        command = RecordingCommand::augment_subcommands(CallArgs::augment_args(command))
            .subcommand_required(false)
            .arg_required_else_help(false)
            .args_conflicts_with_subcommands(true);
    }
    if let Some(report) = &gadget.report {
        let help = format!("Show at the end {}, instead of events (see: advise {})", report.doc, report.name);
        let arg = Arg::new(SUMMARY).long(SUMMARY).help(help).action(ArgAction::SetTrue);
        command = command.arg(arg.help_heading("Output"));
    }
    if gadget.shows.is_past() {
        command = command.mut_subcommand(recording::START, |start| with_parameters(start, gadget));
    }
    with_parameters(command, gadget)
}

/// With a flag for each parameter of a gadget.
fn with_parameters(command: Command, gadget: &Gadget) -> Command {
    gadget.parameters.iter().fold(command, |command, parameter| {
        if is_kubectls(&command, parameter) {
            return command.mut_arg(parameter.name, |arg| shared(arg, parameter));
        }
        let arg = Arg::new(parameter.name).long(parameter.name).help_heading(PARAMETERS);
        command.arg(match parameter.kind {
            ParameterKind::Flag => arg.help(parameter.doc).action(ArgAction::SetTrue),
            ParameterKind::Number { min, max, default } => arg
                .help(format!("{} [{min} to {max}, default {default}]", parameter.doc))
                .value_name("NUMBER")
                .value_parser(move |text: &str| parameter.value(Some(text)).map(|_| text.to_owned())),
        })
    })
}

/// Whether there is a flag of this name already: one of kubectl's, which takes a value.
fn is_kubectls(command: &Command, parameter: &Parameter) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == parameter.name)
}

/// A flag of kubectl's that is a gadget's as well: without a value it is the gadget's.
fn shared(arg: Arg, parameter: &'static Parameter) -> Arg {
    let help =
        format!("{}; with =VALUE: {}", parameter.doc, arg.get_help().map(ToString::to_string).unwrap_or_default());
    arg.num_args(0..=1).require_equals(true).default_missing_value(WITHOUT_VALUE).help(help).help_heading(PARAMETERS)
}

pub(super) fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

pub(super) fn run(gadget: &'static Gadget, matches: &ArgMatches) -> anyhow::Result<End> {
    if let Some((name, of_command)) = matches.subcommand() {
        let given = if name == recording::START { given_parameters(gadget, of_command, None) } else { Vec::new() };
        return recording::run(gadget, RecordingCommand::from_arg_matches(matches)?, as_spec(&given));
    }
    if let Some(sampled) = gadget.shows.profile() {
        return profile::run(gadget, sampled, matches);
    }
    let mut args = RunArgs::from_arg_matches(matches)?;
    let OutputArgs { output: mut format, columns: list, numeric } = OutputArgs::from_arg_matches(matches)?;
    let report = gadget.report.filter(|_| matches.get_flag(SUMMARY));
    let given = given_parameters(gadget, matches, report.as_ref());
    check_together(&given)?;
    let usual = Columns::usual(gadget, given.iter().filter_map(|(parameter, _)| parameter.column));
    let sample = match gadget.shows.sums() {
        Some(sampled) => Some((sampled, SampleArgs::from_arg_matches(matches)?)),
        None => None,
    };
    let usual = match &sample {
        Some((sampled, sample)) => sample.usual(gadget, *sampled, usual)?,
        None => usual,
    };
    let shown = match &list {
        Some(list) => choose_columns(gadget, usual, list)?,
        None => usual,
    };
    let mut sums = None;
    if let Some((sampled, sample)) = &sample {
        // A program can do without what a person does not want to see.
        let is_for_all = format == Format::Json && sample.by.is_empty() && list.is_none();
        let mut plan = sample.plan(gadget, *sampled, (!is_for_all).then_some(&shown))?;
        if format == Format::Table && !sample.plain && io::stdout().is_terminal() {
            format = Format::Screen;
            plan.most = None;
        }
        sums = Some(Sums::new(plan));
    }
    let calls = if gadget.shows.is_past() { CallArgs::from_arg_matches(matches)?.choice()? } else { Choice::Any };
    let spec = RunSpec {
        gadget: gadget.name.to_owned(),
        is_present: gadget.shows.is_present(),
        calls,
        parameters: as_spec(&given),
        interval_ms: sample.as_ref().and_then(|(_, sample)| sample.interval_ms()),
        ..RunSpec::default()
    };
    let mut output = Output::new(format, gadget.name, shown, sums);
    if let Some(report) = report {
        output = output.report(gadget.name, advise::usual(report.form, format == Format::Json));
    }
    if report.is_some_and(|report| report.machinery) {
        args.include_machinery();
    }
    let schema = gadget.schema()?;
    let has_peers = schema.fields().any(|field| field.kind.is_peer());
    // What is there now does not run away.
    let is_thorough = gadget.shows.is_present() || schema.fields().any(|field| field.kind == Kind::PolicyPeer);
    let haste = if is_thorough { Haste::Thorough } else { Haste::Quick };
    args.run(spec, async |place| {
        if let Some((cluster, selector)) = place.filter(|_| has_peers && !numeric) {
            output.name_peers(Peers::of(cluster, selector.namespaces.clone(), haste));
        }
        Ok(output)
    })
}

/// The parameters that are set, on the command line or for a report, and to what.
pub(super) fn given_parameters(
    gadget: &Gadget,
    matches: &ArgMatches,
    report: Option<&Report>,
) -> Vec<(&'static Parameter, String)> {
    let is_for_report = |name| report.is_some_and(|report| report.parameters.contains(&name));
    let given = gadget.parameters.iter().filter_map(|parameter| {
        let value = match parameter.kind {
            ParameterKind::Flag => {
                (is_set(matches, parameter) || is_for_report(parameter.name)).then(|| "true".to_owned())
            }
            ParameterKind::Number { .. } => matches.get_one::<String>(parameter.name).cloned(),
        };
        Some((parameter, value?))
    });
    given.collect()
}

/// Whether a flag is given; if it is kubectl's, too, without a value.
fn is_set(matches: &ArgMatches, parameter: &Parameter) -> bool {
    match matches.try_get_one::<bool>(parameter.name) {
        Ok(given) => given.copied().unwrap_or_default(),
        Err(_) => matches.get_one::<String>(parameter.name).is_some_and(|value| value == WITHOUT_VALUE),
    }
}

/// Fails if two parameters make no sense together.
pub(super) fn check_together(given: &[(&Parameter, String)]) -> Result<(), Usage> {
    let is_given = |name: &str| given.iter().any(|(parameter, _)| parameter.name == name);
    let clash = given
        .iter()
        .find_map(|(parameter, _)| Some((parameter.name, parameter.excludes.filter(|name| is_given(name))?)));
    clash.map_or(Ok(()), |(one, other)| Err(Usage(format!("--{one} and --{other} exclude each other"))))
}

pub(super) fn as_spec(given: &[(&Parameter, String)]) -> BTreeMap<String, String> {
    given.iter().map(|(parameter, value)| (parameter.name.to_owned(), value.clone())).collect()
}

pub(super) fn choose_columns(gadget: &Gadget, usual: Columns, list: &str) -> anyhow::Result<Columns> {
    let known = columns::names(gadget)?;
    usual.parse(&known, list).map_err(|unknown| no_column(gadget, &unknown, &known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        for gadget in gadgets::catalogue::CATALOGUE.0 {
            let command = command(gadget);
            assert_eq!(command.get_about().map(ToString::to_string), Some(capitalised(gadget.summary)));
            command.debug_assert();
        }
    }
}
