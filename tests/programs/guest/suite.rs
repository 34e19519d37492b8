//! Every gadget in every variant. What came of each is a line of JSON on standard output.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gadgets::catalogue::{REQUIREMENTS, Release};
use gadgets::diagnosis::{VariantState, VariantStatus};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tests::Daemon;
use tests::kernels::{Cell, Mode, Outcome, Report, last_lines};
use tests::scenarios::bcc::Witness;
use tests::scenarios::{self, Scenario, chosen};

use super::cgroups;
use super::pods::GuestPods;

/// How much a check makes happen: the guest's processors are emulated. Enough for each way in which the workloads differ.
const SIZE: usize = 18;
/// Pods of a node that has many.
const CROWD: usize = 200;
/// Lists that leave nobody out, for what they add to the programs.
const EVERY_TASK: [&str; 6] = ["--pid", "!1", "--uid", "!4242", "--comm", "!nobody"];
/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a failure is told.
const LAST_LINES: usize = 12;

pub(super) fn run() {
    let kernel = release();
    tell(&Report::Begin { kernel: kernel.clone() });
    let mut diagnoses: BTreeMap<&str, Vec<VariantStatus>> = BTreeMap::new();
    for mode in Mode::ALL {
        cgroups::mount_as(mode);
        for scenario in chosen() {
            // Hybrid hosts differ from those of version 2 in what is mounted beside: in how cgroups are told apart, and whose
            // sockets are.
            if mode != Mode::Hybrid || scenario.gadget == "execsnoop" || scenario.of_sockets {
                try_gadget(mode, scenario, &kernel, &mut diagnoses);
            }
        }
    }
    if cgroups::use_net_cls() {
        let scenario = Scenario::of("tcpstates");
        tell_cell(Mode::V2, scenario, "net_cls", exact(scenario, &[]));
    }
    tell(&Report::End);
}

fn try_gadget<'a>(
    mode: Mode,
    scenario: &'a Scenario,
    kernel: &str,
    diagnoses: &mut BTreeMap<&'a str, Vec<VariantStatus>>,
) {
    // One for all checks, as in a cluster; with the sysctls of the distribution at first.
    set_paranoia("3");
    let daemon = Daemon::start_with(scenario.agent, scenario.agent);
    let of_daemon = ["--socket", daemon.socket()];
    let tasks: &[&str] = if mode == Mode::V1 { &[] } else { &EVERY_TASK };
    let as_deployed = exact(scenario, &[&of_daemon[..], tasks].concat());
    tell_cell(mode, scenario, "as deployed", as_deployed.clone());
    // Debian's kernels refuse tracepoints and kprobes to all but CAP_SYS_ADMIN. Everybody else's take them.
    set_paranoia("2");
    let diagnosis = diagnoses.entry(scenario.gadget).or_insert_with(|| scenario.diagnose().variants);
    // What differs is whose an event is: for all variants in the same way, but where owners of sockets are recorded.
    if mode == Mode::V2 || mode == Mode::V1 && scenario.of_sockets {
        for status in diagnosis.iter().filter(|status| status.gadget == scenario.gadget) {
            let name = format!("{}={}", status.hook, status.variant);
            let is_deployed = |variants: &BTreeMap<String, String>| variants.get(&status.hook) == Some(&status.variant);
            let outcome = match (&as_deployed, status.state) {
                (Outcome::Pass { variants, .. }, _) if is_deployed(variants) => as_deployed.clone(),
                (_, VariantState::Best | VariantState::Works) => {
                    exact(scenario, &[&of_daemon[..], &["--variant", &name]].concat())
                }
                (_, VariantState::Unmet) => unmet(status, kernel),
                (_, VariantState::Refused) => Outcome::Fail(format!("{}\n{}", status.why, status.log.join("\n"))),
            };
            tell_cell(mode, scenario, &name, outcome);
        }
    }
    // The ring is the same, and so is what a witness sees.
    if mode == Mode::V2 {
        if scenario.can_lose() {
            tell_cell(mode, scenario, "loss", check(scenario, "loss", &[]));
        }
        if let Some(witness) = witness(scenario.gadget, kernel) {
            tell_cell(mode, scenario, &format!("bcc's {}", witness.tool[0]), check(scenario, "bcc", &[]));
        }
    }
    if scenario.gadget == "execsnoop" && mode != Mode::Hybrid {
        tell_cell(mode, scenario, "200 pods", check(scenario, "crowd", &[]));
    }
}

fn tell_cell(mode: Mode, scenario: &Scenario, check: &str, outcome: Outcome) {
    tell(&Report::Cell(Cell { mode, gadget: scenario.gadget.to_owned(), check: check.to_owned(), outcome }));
}

/// A kernel that preempts programs leaves out runs of one that is running on the same processor already. The agent says so:
/// then what is missing is told, and another attempt may find all.
fn exact(scenario: &Scenario, options: &[&str]) -> Outcome {
    let first = check(scenario, "exact", options);
    let is_told = matches!(&first, Outcome::Fail(why) if why.contains("left out"));
    if is_told { check(scenario, "exact", options) } else { first }
}

fn release() -> String {
    nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned()
}

fn witness(gadget: &str, kernel: &str) -> Option<&'static Witness> {
    Witness::of(gadget, Release::parse(kernel)?)
}

fn set_paranoia(level: &str) {
    fs::write("/proc/sys/kernel/perf_event_paranoid", level).unwrap();
}

/// Something is missing: that is well if the kernel is older than it, or too new for it.
fn unmet(status: &VariantStatus, kernel: &str) -> Outcome {
    let requirement = REQUIREMENTS.iter().find(|requirement| requirement.name == status.unmet);
    match requirement.zip(Release::parse(kernel)) {
        Some((requirement, release)) if !requirement.is_of(release) => Outcome::Unmet(requirement.to_string()),
        _ => Outcome::Fail(format!("this kernel should be able to: {}\n{}", status.why, status.log.join("\n"))),
    }
}

fn tell(report: &Report) {
    println!("{}", serde_json::to_string(report).unwrap());
}

/// Runs a check in a process of its own, which may fail as tests do.
fn check(scenario: &Scenario, check: &str, options: &[&str]) -> Outcome {
    let (result, said) = ("/tmp/result", "/tmp/said");
    let mut command = Command::new("/proc/self/exe");
    command.arg0("guest").args(["cell", scenario.gadget, check]).args(options).stdin(Stdio::null());
    command.process_group(0).stdout(File::create(result).unwrap()).stderr(File::create(said).unwrap());
    let mut process = command.spawn().unwrap();
    let begin = Instant::now();
    let mut in_time = true;
    while in_time && process.try_wait().unwrap().is_none() {
        in_time = begin.elapsed() < PATIENCE;
        std::thread::sleep(Duration::from_millis(20));
    }
    // With its client.
    let _ = killpg(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGKILL);
    let status = process.wait().unwrap();
    cgroups::clear();
    if status.success() {
        let variants = serde_json::from_slice(&fs::read(result).unwrap()).unwrap();
        Outcome::Pass { seconds: begin.elapsed().as_secs_f32(), variants }
    } else if in_time {
        Outcome::Fail(last_lines(Path::new(said), LAST_LINES))
    } else {
        Outcome::Fail(format!(
            "it takes longer than {PATIENCE:?}; it has said: {}",
            last_lines(Path::new(said), LAST_LINES)
        ))
    }
}

/// Prints the variants that were used.
pub(super) fn run_cell(gadget: &str, check: &str, options: &[&str]) {
    let scenario = Scenario::of(gadget);
    let mut pods = GuestPods::new();
    let variants = match check {
        "exact" => scenario.exact(&mut pods, options, SIZE),
        "crowd" => {
            scenarios::crowd(&mut pods, options, CROWD);
            BTreeMap::new()
        }
        "bcc" => {
            witness(gadget, &release()).unwrap().check(&mut pods);
            BTreeMap::new()
        }
        _ => {
            scenario.overload(&mut pods);
            BTreeMap::new()
        }
    };
    println!("{}", serde_json::to_string(&variants).unwrap());
}
