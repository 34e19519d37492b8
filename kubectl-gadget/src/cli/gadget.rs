//! A run of a gadget: its flags are those of every gadget, and its own from the catalogue.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _, ValueHint};
use gadgets::catalogue::{Gadget, ParameterKind};
use gadgets::spec::{Limits, RING_BYTES_MAX, RING_BYTES_MIN, RunSpec, Selector};

use super::nearest;
use crate::connect::Local;
use crate::exit::{End, Usage};
use crate::output::columns::{self, Columns};
use crate::output::{Format, Output};
use crate::stream::{self, Run};

/// `RING_BYTES_DEFAULT`, as people write it.
const RING_DEFAULT: &str = "4MiB";
const PARAMETERS: &str = "Parameters of this gadget";

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Whose events")]
struct SelectorArgs {
    /// Pods of this namespace (repeat, or separate by commas)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<String>,
    /// The pod of this name (likewise)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pod: Vec<String>,
    /// Containers of this name (likewise)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    container: Vec<String>,
    /// A cgroup and all below it, by its path as in /proc/PID/cgroup; need not be a container's (repeat for more)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    cgroup: Vec<String>,
    /// Everything on the host, in containers and outside
    #[arg(long, conflicts_with_all = ["namespace", "pod", "container", "cgroup"])]
    host: bool,
    /// Also pods' sandboxes, and a runtime's own steps on the way into a container
    #[arg(long)]
    machinery: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Where")]
struct PlaceArgs {
    /// On this host, without a cluster
    #[arg(long)]
    local: bool,
    /// The agent to start for --local; else the one beside this program, or in PATH
    #[arg(long, value_name = "FILE", env = "KUBECTL_GADGET_AGENT", requires = "local")]
    agent: Option<PathBuf>,
    /// Share the agent that serves this socket (gadget-agent daemon), instead of starting one
    #[arg(long, value_name = "PATH", requires = "local")]
    socket: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// A table, or JSON: one object a line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Columns of the table: a list of names; or changes to the usual ones, as in +file,-pcomm
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    columns: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// End after this time, as in 30s or 5min
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Size of the ring that events pass through on each node, as in 64KiB or 16MiB
    #[arg(long, value_name = "SIZE", value_parser = ring_bytes, default_value = RING_DEFAULT)]
    buffer: ByteSize,
    /// Exit with code 3 if any event was lost, or may have been
    #[arg(long)]
    fail_on_loss: bool,
    /// Attach to a hook in this way only, as HOOK=VARIANT (see: kubectl gadget explain)
    #[arg(long, value_name = "HOOK=VARIANT", value_parser = variant)]
    variant: Vec<(String, String)>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 30s or 5min"))?;
    if duration.is_zero() { Err("it must be longer than nothing".into()) } else { Ok(duration) }
}

fn ring_bytes(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write it as in 64KiB or 16MiB"))?;
    // The kernel wants a power of two: the next one gives what was asked for.
    let bytes = size.as_u64().checked_next_power_of_two().unwrap_or(u64::MAX);
    if (u64::from(RING_BYTES_MIN)..=u64::from(RING_BYTES_MAX)).contains(&bytes) {
        return Ok(ByteSize(bytes));
    }
    Err(format!("it must be from {} to {}", ByteSize(RING_BYTES_MIN.into()), ByteSize(RING_BYTES_MAX.into())))
}

fn variant(text: &str) -> Result<(String, String), String> {
    let (hook, variant) = text.split_once('=').ok_or("write it as HOOK=VARIANT")?;
    Ok((hook.to_owned(), variant.to_owned()))
}

/// The sub-command of a gadget.
pub(super) fn command(gadget: &'static Gadget) -> Command {
    let command = RunArgs::augment_args(
        Command::new(gadget.name)
            .visible_aliases(gadget.aliases.iter().copied())
            .about(capitalised(gadget.summary))
            .long_about(format!("{}.\n\n{}", capitalised(gadget.summary), gadget.description)),
    );
    gadget.parameters.iter().fold(command, |command, parameter| {
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

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

pub(super) fn run(gadget: &'static Gadget, matches: &ArgMatches) -> anyhow::Result<End> {
    let args = RunArgs::from_arg_matches(matches)?;
    if !args.place.local {
        return Err(Usage(format!(
            "this version works on one host: add --local, as in: kubectl gadget {} --local",
            gadget.name
        ))
        .into());
    }
    let shown = match &args.output.columns {
        Some(list) => choose_columns(gadget, list)?,
        None => Columns::defaults(gadget),
    };
    let given = gadget.parameters.iter().filter_map(|parameter| {
        let value = match parameter.kind {
            ParameterKind::Flag => matches.get_flag(parameter.name).then(|| "true".to_owned()),
            ParameterKind::Number { .. } => matches.get_one::<String>(parameter.name).cloned(),
        };
        Some((parameter.name.to_owned(), value?))
    });
    let SelectorArgs { namespace, pod, container, cgroup, host, machinery } = args.selector;
    let spec = RunSpec {
        gadget: gadget.name.to_owned(),
        selector: Selector {
            namespaces: namespace,
            pods: pod,
            containers: container,
            cgroups: cgroup,
            host,
            machinery: machinery || host,
        },
        parameters: given.collect(),
        variants: args.limits.variant.into_iter().collect(),
        limits: Limits { ring_bytes: u32::try_from(args.limits.buffer.as_u64()).ok() },
    };
    let local = Local { agent: args.place.agent, socket: args.place.socket };
    let run = Run {
        spec,
        timeout: args.limits.timeout,
        fail_on_loss: args.limits.fail_on_loss,
        output: Output::new(args.output.output, shown),
    };
    stream::run(local, run)
}

fn choose_columns(gadget: &Gadget, list: &str) -> anyhow::Result<Columns> {
    let known = columns::names(gadget)?;
    Columns::parse(gadget, &known, list).map_err(|unknown| {
        let hint = nearest(&unknown, known.iter().map(String::as_str))
            .unwrap_or_else(|| format!("{} has: {}", gadget.name, known.join(", ")));
        Usage(format!("no column {unknown:?}; {hint}")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::spec::RING_BYTES_DEFAULT;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("1min 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("5").is_err() && duration("0s").is_err() && duration("soon").is_err());
        assert_eq!(ring_bytes("64KiB"), Ok(ByteSize::kib(64)));
        assert_eq!(ring_bytes(RING_DEFAULT), Ok(ByteSize(RING_BYTES_DEFAULT.into())));
        assert_eq!(ring_bytes("100KiB"), Ok(ByteSize::kib(128)));
        assert!(ring_bytes("1KiB").is_err() && ring_bytes("1GiB").is_err() && ring_bytes("much").is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        for gadget in gadgets::catalogue::CATALOGUE.0 {
            command(gadget).debug_assert();
        }
    }
}
