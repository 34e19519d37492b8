//! `status`: what the agents of the cluster are, what they run, and what else their kernels run.

use bytesize::ByteSize;
use clap::{ArgMatches, Args, Command, FromArgMatches as _};
use gadgets::format::escaped;
use gadgets::wire::{GadgetStatus, Node, Program, Status};
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::{Format, block_on, print, table};
use crate::cluster::Cluster;
use crate::exit::End;
use crate::run::conversation::Request;
use crate::status::{Answer, NodeStatus, ask_all};

#[derive(Args)]
struct StatusArgs {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn command() -> Command {
    StatusArgs::augment_args(
        Command::new("status").about("Show what the agents are, what they run, and what else does"),
    )
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<End> {
    let args = StatusArgs::from_arg_matches(matches)?;
    let nodes = block_on(async { ask_all(&Cluster::connect(&args.cluster).await?, &[], || Request::Status).await })?;
    if nodes.is_empty() {
        anyhow::bail!("kubectl gadget is not deployed in this cluster, or on none of its nodes: kubectl gadget deploy");
    }
    let end = match args.output {
        Format::Json => print(&serde_json::to_string_pretty(&nodes.iter().map(as_json).collect::<Vec<_>>())?),
        Format::Text => print(&as_text(&nodes)),
    };
    match nodes.iter().filter(|node| node.answer.is_err()).count() {
        0 => Ok(end),
        silent => anyhow::bail!("{silent} of {} agents cannot be asked", nodes.len()),
    }
}

fn as_json(node: &NodeStatus) -> Value {
    match &node.answer {
        Err(why) => json!({"node": node.node, "ready": false, "reason": why}),
        Ok(Answer { hello, status, .. }) => json!({
            "node": node.node,
            "ready": true,
            "version": hello.software,
            "protocol": hello.version,
            "kernel": hello.node.as_ref().map(|node| &node.kernel),
            "status": status,
        }),
    }
}

fn as_text(nodes: &[NodeStatus]) -> String {
    let answers = || nodes.iter().filter_map(|node| Some((node.node.as_str(), node.answer.as_ref().ok()?)));

    let mut agents = table(["NODE", "AGENT", "STATE", "KERNEL", "PODS", "CONTAINERS"]);
    for node in nodes {
        match &node.answer {
            Err(why) => agents.add_row([&node.node, "-", why, "-", "-", "-"]),
            Ok(Answer { hello, status, .. }) => {
                let Node { kernel, degraded, .. } = hello.node.clone().unwrap_or_default();
                let state = ["ready".to_owned()].into_iter().chain(degraded).collect::<Vec<_>>().join("; ");
                let pods = status.pods.map_or("-".to_owned(), |pods| pods.to_string());
                let containers = status.containers.to_string();
                agents.add_row([&node.node, &hello.software, &state, &kernel, &pods, &containers])
            }
        };
    }

    let mut gadgets = table(["NODE", "GADGET", "ATTACHES", "RUNS"]);
    for (node, Answer { status, .. }) in answers() {
        for gadget in &status.gadgets {
            gadgets.add_row([node, &gadget.name, &attaches(gadget), &runs(status, &gadget.name)]);
        }
    }

    let mut programs = table(["NODE", "ID", "TYPE", "NAME", "ATTACHED TO", "HELD BY"]);
    for (node, Answer { status, .. }) in answers() {
        for program in status.programs.iter().filter(|program| !program.own) {
            let Program { id, kind, name, hook, holder, .. } = program;
            programs.add_row([node, &id.to_string(), kind, or_none(name), or_none(hook), or_none(holder)]);
        }
        if let Some(error) = &status.programs_error {
            programs.add_row([node, "-", "-", error, "-", "-"]);
        }
    }
    let others = if programs.is_empty() {
        "No other BPF programs are loaded.".to_owned()
    } else {
        format!("Other BPF programs:\n\n{}", programs.trim_fmt())
    };
    let text = format!("{}\n\n{}\n\n{others}", agents.trim_fmt(), gadgets.trim_fmt());
    // Agents and nodes chose much of it.
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

fn attaches(gadget: &GadgetStatus) -> String {
    if let Some(error) = &gadget.error {
        return format!("cannot: {error}");
    }
    let hooks: Vec<String> =
        gadget.variants.iter().map(|(hook, variant)| format!("{hook}: {}", or_none(variant))).collect();
    [hooks.join(", ")].into_iter().chain(gadget.degraded.clone()).collect::<Vec<_>>().join("; ")
}

fn runs(status: &Status, gadget: &str) -> String {
    let running = status.running.iter().filter(|running| running.gadget == gadget);
    let runs: Vec<String> = running
        .map(|running| {
            let sessions = if running.sessions == 1 { "session" } else { "sessions" };
            let (ring, kernel) = (ByteSize(running.ring_bytes.into()), ByteSize(running.kernel_bytes));
            let tasks = if running.tasks.is_any() { String::new() } else { format!(" of {}", running.tasks) };
            format!("{} {sessions}{tasks}, ring of {ring}, {kernel} in the kernel", running.sessions)
        })
        .collect();
    or_none(&runs.join("; ")).to_owned()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::wire::{Hello, Running};

    fn nodes() -> Vec<NodeStatus> {
        let gadget = GadgetStatus {
            name: "execsnoop".into(),
            variants: [("exec".to_owned(), "tp_btf".to_owned()), ("failed".to_owned(), String::new())].into(),
            ..GadgetStatus::default()
        };
        let program = |id, holder: &str, own| Program {
            id,
            name: "prog".into(),
            kind: "tracing".into(),
            hook: String::new(),
            holder: holder.into(),
            own,
        };
        let status = Status {
            pods: Some(3),
            containers: 4,
            gadgets: vec![gadget],
            running: vec![Running {
                gadget: "execsnoop".into(),
                ring_bytes: 4 << 20,
                sessions: 1,
                ..Running::default()
            }],
            programs: vec![program(7, "gadget-agent[5]", true), program(8, "cilium\x1b[9]", false)],
            programs_error: None,
        };
        let hello = Hello {
            software: "0.1.0".into(),
            node: Some(Node { kernel: "6.1".into(), degraded: vec!["slots taken".into()], ..Node::default() }),
            ..Hello::default()
        };
        vec![
            NodeStatus { node: "a".into(), answer: Ok(Answer { hello, status, recordings: Vec::new() }) },
            NodeStatus { node: "b".into(), answer: Err("it is starting".into()) },
        ]
    }

    #[test]
    fn people_see_what_is_not_ours_and_who_does_not_answer() {
        let text = as_text(&nodes());
        for part in [
            "ready; slots taken",
            "exec: tp_btf, failed: -",
            "1 session, ring of 4.0 MiB",
            "cilium\\e[9]",
            "it is starting",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("gadget-agent["));
    }

    #[test]
    fn programs_get_everything() {
        let json: Vec<Value> = nodes().iter().map(as_json).collect();
        assert_eq!(json[0]["status"]["programs"].as_array().map(Vec::len), Some(2));
        assert_eq!((&json[1]["ready"], &json[1]["reason"]), (&json!(false), &json!("it is starting")));
    }
}
