//! Recordings as people see them.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use gadgets::format::escaped;
use gadgets::spec::{Host, Selector};
use gadgets::wire::{ProcessEnd, Recorded, Recording};

use super::recordings;
use crate::cli::table;
use crate::status::NodeStatus;

/// Recordings, and what they have of each container.
pub(super) fn of(answers: &[NodeStatus]) -> String {
    if recordings(answers).next().is_none() {
        return "Nothing is recorded.".to_owned();
    }
    let mut all = table(["ID", "NODE", "OF", "FOR", "MEMORY", "FORGOTTEN", "LOST", "REMARKS"]);
    let mut parts = table(["ID", "NODE", "CONTAINER", "MEMORY", "KEPT", "OVERWRITTEN", "FIRST", "LAST", "STATE"]);
    for (node, recording) in recordings(answers) {
        let Recording { id, forgotten, forgotten_containers, lost, .. } = recording;
        let forgotten = match forgotten_containers {
            0 => "-".to_owned(),
            containers => format!("{forgotten} of {containers} containers"),
        };
        let remarks: Vec<&str> = recording.gaps.iter().map(|gap| gap.reason.as_str()).collect();
        all.add_row([
            id,
            node,
            &of_whom(&recording.selector),
            &ago(Some(recording.began_wall_ns)),
            &ByteSize(recording.bytes).to_string(),
            &forgotten,
            &lost.to_string(),
            &remarks.join("; "),
        ]);
        for recorded in &recording.containers {
            let state = state(recorded);
            parts.add_row([
                id,
                node,
                &name(recorded),
                &ByteSize(recorded.bytes).to_string(),
                &recorded.kept.to_string(),
                &recorded.overwritten.to_string(),
                &ago(recorded.first_wall_ns),
                &ago(recorded.last_wall_ns),
                &state,
            ]);
        }
    }
    let text = format!("{}\n\n{}", all.trim_fmt(), parts.trim_fmt());
    // Pods, and agents, chose much of it.
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// What people call a container.
fn name(recorded: &Recorded) -> String {
    let Some(container) = &recorded.container else { return "-".to_owned() };
    let parts = [&container.namespace, &container.pod, &container.container];
    let name = parts.into_iter().flatten().cloned().collect::<Vec<_>>().join("/");
    if name.is_empty() { container.path.clone() } else { name }
}

/// Whether a container is there, and if not, why.
fn state(recorded: &Recorded) -> String {
    match recorded.end {
        Some(ProcessEnd::Exited(status)) => format!("exited with {status}"),
        Some(ProcessEnd::Killed(signal)) => format!("killed by signal {signal}"),
        Some(ProcessEnd::OutOfMemory) => "killed: out of memory".to_owned(),
        None if recorded.is_gone => "gone".to_owned(),
        None => "there".to_owned(),
    }
}

/// How long ago something was.
fn ago(wall_ns: Option<u64>) -> String {
    let Some(wall_ns) = wall_ns else { return "-".to_owned() };
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns);
    let seconds = then.elapsed().unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Whose calls a recording is of, in words.
fn of_whom(selector: &Selector) -> String {
    let Selector { namespaces, pods, labels, workloads, containers, cgroups, host, .. } = selector;
    let workloads: Vec<String> = workloads.iter().map(ToString::to_string).collect();
    let labels: Vec<String> = if labels.is_empty() { Vec::new() } else { vec![labels.to_string()] };
    let named = [
        ("namespace", namespaces),
        ("pod", pods),
        ("of", &workloads),
        ("with", &labels),
        ("container", containers),
        ("cgroup", cgroups),
    ];
    let mut parts: Vec<String> = named
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", names.join(",")))
        .collect();
    match host {
        Host::None => {}
        Host::All => parts.push("the node".into()),
        Host::Outside => parts.push("what is outside of containers".into()),
    }
    if parts.is_empty() { "every container".to_owned() } else { parts.join(" ") }
}
