//! `doctor`: what is well and what is not, what that costs, and what mends it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches as _, ValueHint};
use gadgets::diagnosis::{Finding, VariantStatus, Verdict};
use gadgets::format::escaped;

use super::cluster::ClusterArgs;
use super::{Format, block_on, print};
use crate::cluster::Cluster;
use crate::doctor::{NodeReport, Report, look_at_cluster, look_at_host};
use crate::exit::End;
use crate::run::connection::Local;

#[derive(Args)]
struct DoctorArgs {
    /// Look at this host, without a cluster
    #[arg(long)]
    local: bool,
    /// The agent to start, with --local; else the one beside this program, or in PATH
    #[arg(long, value_name = "FILE", env = "KUBECTL_GADGET_AGENT", value_hint = ValueHint::FilePath)]
    agent: Option<PathBuf>,
    /// Also all that the kernel's verifier said of what it refused
    #[arg(long)]
    log: bool,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn command() -> Command {
    DoctorArgs::augment_args(
        Command::new("doctor").about("Find out what does not work here, what that costs, and what mends it"),
    )
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<End> {
    let args = DoctorArgs::from_arg_matches(matches)?;
    let report = block_on(async {
        if args.local {
            look_at_host(&Local { agent: args.agent, socket: None }).await
        } else {
            Ok(look_at_cluster(&Cluster::connect(&args.cluster).await?).await)
        }
    })?;
    let end = print(&match args.output {
        Format::Json => serde_json::to_string_pretty(&report)?,
        Format::Text => text(&report, args.log),
    });
    match report.count(Verdict::Failed) {
        0 => Ok(end),
        1 => anyhow::bail!("one thing does not work"),
        failed => anyhow::bail!("{failed} things do not work"),
    }
}

fn text(report: &Report, log: bool) -> String {
    let mut text = String::new();
    if !report.cluster.is_empty() {
        text.push_str("Cluster\n");
        report.cluster.iter().for_each(|finding| add(&mut text, finding));
    }
    for NodeReport { node, findings, variants } in &report.nodes {
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, escaped(node));
        findings.iter().for_each(|finding| add(&mut text, finding));
        if log {
            variants.iter().filter(|status| !status.log.is_empty()).for_each(|status| add_log(&mut text, status));
        }
    }
    let (degraded, failed) = (report.count(Verdict::Degraded), report.count(Verdict::Failed));
    let _ = write!(text, "\n{} ok, {degraded} degraded, {failed} failed", report.count(Verdict::Ok));
    text
}

/// Agents and nodes chose much of it.
fn add(text: &mut String, finding: &Finding) {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Degraded => "degraded",
        Verdict::Failed => "failed",
    };
    let _ = writeln!(text, "  {verdict:<8}  {:<18}  {}", escaped(&finding.check), escaped(&finding.found));
    for (title, line) in [("costs", &finding.cost), ("mend", &finding.mend)] {
        if !line.is_empty() {
            let _ = writeln!(text, "{:32}{title}: {}", "", escaped(line));
        }
    }
}

fn add_log(text: &mut String, status: &VariantStatus) {
    let _ = writeln!(text, "\n  {} {}, {}:", escaped(&status.gadget), escaped(&status.hook), escaped(&status.variant));
    for line in &status.log {
        let _ = writeln!(text, "    {}", escaped(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_is_told_with_its_cost_and_cure() {
        let broken = Finding::failed("btf", "it is \u{1b}[31mmissing", "no gadget loads", "another kernel");
        let findings = vec![Finding::ok("kernel", "6.1"), broken];
        let log = vec!["R1 invalid mem access".to_owned()];
        let variants = vec![VariantStatus { gadget: "execsnoop".into(), log, ..VariantStatus::default() }];
        let report = Report { cluster: Vec::new(), nodes: vec![NodeReport { node: "a".into(), findings, variants }] };
        let short = text(&report, false);
        assert!(short.starts_with("a\n  ok        kernel"), "{short}");
        assert!(short.contains("costs: no gadget loads\n") && short.contains("mend: another kernel\n"), "{short}");
        assert!(!short.contains('\u{1b}') && !short.contains("R1 invalid"), "{short}");
        assert!(short.ends_with("1 ok, 0 degraded, 1 failed"), "{short}");
        assert!(text(&report, true).contains("    R1 invalid mem access"));
    }
}
