//! `advise`: what follows from what pods were seen to do; at once, or from a recording.

mod network_policy;
mod seccomp;

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches as _, ValueHint};
use gadgets::catalogue::{Catalogue, Gadget, Report, ReportForm};
use gadgets::spec::RunSpec;

use self::network_policy::NetworkPolicyArgs;
use self::seccomp::SeccompArgs;
use super::cluster::ClusterArgs;
use super::gadget::capitalised;
use super::run::RunArgs;
use super::{block_on, print};
use crate::advise::capabilities::Capabilities;
use crate::advise::network_policy::NetworkPolicyAdvisor;
use crate::advise::seccomp::SeccompProfiles;
use crate::advise::{self, Advisor, recording};
use crate::cluster::Cluster;
use crate::exit::{End, Usage};
use crate::notice::notice;
use crate::output::columns::Columns;
use crate::output::{Format, Output};
use crate::peers::{Haste, Peers};

const MONITOR: &str = "monitor";
const REPORT: &str = "report";
/// Stands for standard input and output.
const STANDARD: &str = "-";

#[derive(Args)]
#[command(next_help_heading = "What is said")]
struct CapabilitiesArgs {
    /// Manifests, or an object a line
    #[arg(short, long, value_name = "FORMAT", value_parser = ["yaml", "json"], default_value = "yaml")]
    output: String,
}

pub(super) fn command(catalogue: Catalogue) -> Command {
    let advisors = catalogue.0.iter().filter_map(|gadget| Some(advisor_command(gadget, &gadget.report?)));
    Command::new("advise")
        .about("Write the policy or profile that lets pods do what they were seen to do, and no more")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(advisors)
}

/// `advise NAME`, and its two halves.
fn advisor_command(gadget: &'static Gadget, report: &Report) -> Command {
    let file = |name: &'static str, short: char, help: &'static str| {
        Arg::new(name)
            .short(short)
            .long(name)
            .value_name("FILE")
            .required(true)
            .help(help)
            .value_hint(ValueHint::FilePath)
    };
    let monitor = Command::new(MONITOR).about("Only watch, and write what is seen to a file").arg(file(
        "output",
        'o',
        "The file, which is written anew; - for standard output",
    ));
    let from_file = Command::new(REPORT).about("Say it of what was seen before").arg(file(
        "input",
        'i',
        "A file that monitor wrote, or the gadget with -o json; - for standard input",
    ));
    let about = capitalised(report.doc);
    let long = format!("{about}.\n\nIt watches as the gadget {} does, and says at the end what follows.", gadget.name);
    augment(RunArgs::augment_args(Command::new(report.name)), report.form)
        .about(about)
        .long_about(long)
        .args_conflicts_with_subcommands(true)
        .subcommand(RunArgs::augment_args(monitor))
        .subcommand(if report.form == ReportForm::NetworkPolicy {
            // What is in force may be asked for.
            ClusterArgs::augment_args(augment(from_file, report.form))
        } else {
            augment(from_file, report.form)
        })
}

/// Adds an advisor's own flags.
fn augment(command: Command, form: ReportForm) -> Command {
    match form {
        ReportForm::Capabilities => CapabilitiesArgs::augment_args(command),
        ReportForm::SeccompProfile => SeccompArgs::augment_args(command),
        ReportForm::NetworkPolicy => NetworkPolicyArgs::augment_args(command),
    }
}

/// What its flags say it should be, of these namespaces of a cluster.
async fn advisor(
    form: ReportForm,
    matches: &ArgMatches,
    place: Option<(&Cluster, &[String])>,
) -> anyhow::Result<Box<dyn Advisor>> {
    Ok(match form {
        ReportForm::Capabilities => {
            Box::new(Capabilities::new(CapabilitiesArgs::from_arg_matches(matches)?.output == "json"))
        }
        ReportForm::SeccompProfile => {
            Box::new(SeccompProfiles::new(SeccompArgs::from_arg_matches(matches)?.options()?))
        }
        ReportForm::NetworkPolicy => {
            let args = NetworkPolicyArgs::from_arg_matches(matches)?;
            Box::new(NetworkPolicyAdvisor::new(args.options(place).await?))
        }
    })
}

/// It as it is if nothing is said.
pub(super) fn usual(form: ReportForm, is_json: bool) -> Box<dyn Advisor> {
    match form {
        ReportForm::Capabilities => Box::new(Capabilities::new(is_json)),
        ReportForm::SeccompProfile => {
            use advise::seccomp::{Form, Options};
            let form = if is_json { Form::Json } else { Form::default() };
            Box::new(SeccompProfiles::new(Options { form, ..Options::default() }))
        }
        ReportForm::NetworkPolicy => {
            use advise::network_policy::{Form, Options};
            let form = if is_json { Form::Json } else { Form::default() };
            Box::new(NetworkPolicyAdvisor::new(Options { form, ..Options::default() }))
        }
    }
}

pub(super) fn run(catalogue: Catalogue, matches: &ArgMatches) -> anyhow::Result<End> {
    let (name, matches) = matches.subcommand().ok_or_else(|| Usage("advise what?".into()))?;
    let with_report = |gadget: &&'static Gadget| Some((*gadget, gadget.report?));
    let found = catalogue.0.iter().filter_map(with_report).find(|(_, report)| report.name == name);
    let (gadget, report) = found.ok_or_else(|| Usage(format!("no advice on {name:?}")))?;
    match matches.subcommand() {
        Some((MONITOR, matches)) => {
            let path: &String = matches.get_one("output").ok_or_else(|| Usage("no file to write".into()))?;
            let mut output = Output::new(Format::Json, gadget.name, Columns::usual(gadget, []), None);
            if path != STANDARD {
                output.write_to(File::create(path).with_context(|| format!("cannot write {path}"))?);
                notice(&format!("recording to {path} (Ctrl-C ends it)"));
            }
            watch(gadget, &report, matches, async |_| Ok(output))
        }
        Some((_, matches)) => from_file(gadget, &report, matches),
        None => {
            // Standard output is for the advice alone.
            let output = Output::new(Format::Table, gadget.name, Columns::usual(gadget, []), None);
            watch(gadget, &report, matches, async |place| {
                Ok(output.report(gadget.name, advisor(report.form, matches, place).await?))
            })
        }
    }
}

fn watch(
    gadget: &'static Gadget,
    report: &Report,
    matches: &ArgMatches,
    output: impl AsyncFnOnce(Option<(&Cluster, &[String])>) -> anyhow::Result<Output>,
) -> anyhow::Result<End> {
    let mut args = RunArgs::from_arg_matches(matches)?;
    if report.machinery {
        args.include_machinery();
    }
    let parameters = report.parameters.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect();
    let spec = RunSpec { gadget: gadget.name.to_owned(), parameters, ..RunSpec::default() };
    args.run(spec, async |place| {
        let place = place.map(|(cluster, selector)| (cluster, &selector.namespaces[..]));
        let mut output = output(place).await?;
        if let Some((cluster, namespaces)) = place {
            output.name_peers(Peers::of(cluster, namespaces.to_owned(), Haste::Thorough));
        }
        Ok(output)
    })
}

fn from_file(gadget: &Gadget, report: &Report, matches: &ArgMatches) -> anyhow::Result<End> {
    let path: &String = matches.get_one("input").ok_or_else(|| Usage("no file to read".into()))?;
    let input: Box<dyn BufRead> = match path.as_str() {
        STANDARD => Box::new(io::stdin().lock()),
        path => Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot read {path}"))?)),
    };
    let is_of_cluster =
        report.form == ReportForm::NetworkPolicy && NetworkPolicyArgs::from_arg_matches(matches)?.needs_cluster();
    let mut advisor = block_on(async {
        if !is_of_cluster {
            return advisor(report.form, matches, None).await;
        }
        let cluster = Cluster::connect(&ClusterArgs::from_arg_matches(matches)?).await?;
        advisor(report.form, matches, Some((&cluster, &[]))).await
    })?;
    let advice = recording::report(input, gadget.name, advisor.as_mut()).with_context(|| path.clone())?;
    print(advice.text.trim_end());
    advice.remarks.iter().for_each(|remark| notice(remark));
    Ok(if advice.is_refused { End::Refused } else { End::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command(gadgets::catalogue::CATALOGUE).debug_assert();
    }
}
