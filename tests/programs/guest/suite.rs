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
const SIZE: usize = 17;
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
            // One for all checks, as in a cluster; with the sysctls of the distribution at first.
            set_paranoia("3");
            let daemon = Daemon::start_with(scenario.agent, scenario.agent);
            let of_daemon = ["--socket", daemon.socket()];
            let tell_cell = |name: &str, outcome: Outcome| {
                let (gadget, check) = (scenario.gadget.to_owned(), name.to_owned());
                tell(&Report::Cell(Cell { mode, gadget, check, outcome }));
            };
            tell_cell("as deployed", check(scenario, "exact", &[&of_daemon[..], &EVERY_TASK].concat()));
            // Debian's kernels refuse tracepoints and kprobes to all but CAP_SYS_ADMIN. Everybody else's take them.
            set_paranoia("2");
            let diagnosis = diagnoses.entry(scenario.gadget).or_insert_with(|| scenario.diagnose().variants);
            // What differs is whose an event is: for all variants in the same way, but where owners of sockets are recorded.
            // Hybrid hosts differ from those of version 2 in what is mounted beside.
            let tries_all = mode == Mode::V2 || mode == Mode::V1 && scenario.of_sockets;
            let is_tried = |status: &&VariantStatus| status.gadget == scenario.gadget && tries_all;
            for status in diagnosis.iter().filter(is_tried) {
                let name = format!("{}={}", status.hook, status.variant);
                let outcome = match status.state {
                    VariantState::Best | VariantState::Works => {
                        let check = || check(scenario, "exact", &[&of_daemon[..], &["--variant", &name]].concat());
                        // A kernel that preempts programs leaves out runs of one that hangs on every system call. The
                        // agent says so: then what is missing is told, and another attempt may find all.
                        let is_told =
                            |outcome: &Outcome| matches!(outcome, Outcome::Fail(why) if why.contains("left out"));
                        let first = check();
                        if is_told(&first) { check() } else { first }
                    }
                    VariantState::Unmet => unmet(status, &kernel),
                    VariantState::Refused => Outcome::Fail(format!("{}\n{}", status.why, status.log.join("\n"))),
                };
                tell_cell(&name, outcome);
            }
            // The ring is the same, and so is what a witness sees.
            if mode == Mode::V2 {
                tell_cell("loss", check(scenario, "loss", &[]));
                if let Some(witness) = witness(scenario.gadget, &kernel) {
                    tell_cell(&format!("bcc's {}", witness.tool[0]), check(scenario, "bcc", &[]));
                }
            }
            if scenario.gadget == "execsnoop" && mode != Mode::Hybrid {
                tell_cell("200 pods", check(scenario, "crowd", &[]));
            }
        }
    }
    if cgroups::use_net_cls() {
        let (gadget, check) = ("tcpstates".to_owned(), "net_cls".to_owned());
        let outcome = self::check(Scenario::of(&gadget), "exact", &[]);
        tell(&Report::Cell(Cell { mode: Mode::V2, gadget, check, outcome }));
    }
    tell(&Report::End);
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
