//! What each gadget must show of a workload that is known, on whatever kernel and in whatever containers.
//!
//! End to end they run on this kernel, in containerd's containers; in the kernel matrix on others. A gadget of the
//! catalogue that has none fails the tests of the architecture.

pub mod bcc;
mod bindsnoop;
mod calls;
mod capabilities;
mod execsnoop;
pub mod families;
mod flows;
mod forksnoop;
mod opensnoop;
pub mod profile;
mod snapshot_file;
mod snapshot_process;
mod snapshot_socket;
mod syscalls;
mod tcpstates;
mod tcptop;
mod tcptracer;
pub mod traceloop;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gadgets::diagnosis::Diagnosis;

use crate::{Client, Seen, agent_command, dist};

/// What makes containers, and removes them when it is dropped.
pub trait Containers {
    /// Starts a container in a pod, which is written NAMESPACE/NAME.
    fn start(&mut self, pod: &str, container: &str, command: &[&str]);
    /// The same in a network of its own, in which there is only loopback.
    fn start_alone(&mut self, pod: &str, container: &str, command: &[&str]);
    /// Waits until a container has ended.
    fn wait(&mut self, pod: &str, container: &str);
    /// What the containers have as /tmp.
    fn shared_folder(&self) -> PathBuf;
}

/// What a gadget is held to.
pub struct Scenario {
    /// The gadget's name.
    pub gadget: &'static str,
    /// The client that knows it.
    client: &'static str,
    /// The agent that knows it.
    pub agent: &'static str,
    /// Its events are sockets', whose owners it records where the kernel does not keep them.
    pub of_sockets: bool,
    /// Runs a workload of this size in one pod and another beside it, and checks that each event of the one is shown as
    /// it should be, once, and none of the other.
    exact: fn(&mut dyn Containers, &[&str], usize) -> Seen,
    /// A command of the workload that makes events; none if nobody could make too many.
    storm: Option<Storm>,
}

/// `workload NAME COUNT ARG…`
struct Storm {
    name: &'static str,
    count: u64,
    args: &'static [&'static str],
    /// Events of each of COUNT.
    each: u64,
    /// Events beside COUNT: the container's own. None if nobody knows how many.
    others: Option<u64>,
    /// What else the gadget is told.
    options: &'static [&'static str],
}

/// One for every gadget.
pub static SCENARIOS: [&Scenario; 15] = [
    &bindsnoop::BINDSNOOP,
    &capabilities::CAPABILITIES,
    &execsnoop::EXECSNOOP,
    &flows::FLOWS,
    &forksnoop::FORKSNOOP,
    &opensnoop::OPENSNOOP,
    &profile::PROFILE,
    &snapshot_file::SNAPSHOT_FILE,
    &snapshot_process::SNAPSHOT_PROCESS,
    &snapshot_socket::SNAPSHOT_SOCKET,
    &syscalls::SYSCALLS,
    &tcpstates::TCPSTATES,
    &tcptop::TCPTOP,
    &tcptracer::TCPTRACER,
    &traceloop::TRACELOOP,
];

/// Those of the gadgets that GADGETS names in the environment, if it does; else all.
pub fn chosen() -> impl Iterator<Item = &'static Scenario> {
    let names = std::env::var("GADGETS").ok();
    let is_chosen = move |scenario: &&Scenario| {
        names.as_ref().is_none_or(|names| names.split(',').any(|name| name == scenario.gadget))
    };
    SCENARIOS.into_iter().filter(is_chosen)
}

impl Scenario {
    /// That of a gadget.
    pub fn of(gadget: &str) -> &'static Self {
        let found = SCENARIOS.iter().find(|scenario| scenario.gadget == gadget);
        found.unwrap_or_else(|| panic!("{gadget} has no scenario: add one to tests/support/scenarios"))
    }

    /// What the agent that knows the gadget finds on this kernel.
    pub fn diagnose(&self) -> Diagnosis {
        let output = agent_command(self.agent).arg("probe").stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{} probe: {}", self.agent, output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Each event of a workload, once, and none of another. Returns for each hook the variant that was used.
    pub fn exact(&self, containers: &mut dyn Containers, options: &[&str], size: usize) -> BTreeMap<String, String> {
        let seen = (self.exact)(containers, options, size);
        let variants = serde_json::from_value(seen.lines[0]["variants"].clone()).unwrap();
        if let Some(at) = options.iter().position(|option| *option == "--variant") {
            let (hook, wanted) = options[at + 1].split_once('=').unwrap();
            let variants: &BTreeMap<String, String> = &variants;
            assert_eq!(variants[hook], wanted);
        }
        variants
    }

    /// Whether its ring can run full.
    pub fn can_lose(&self) -> bool {
        self.storm.is_some()
    }

    /// With its agent stopped, the gadget's ring runs full: what was shown and what was told to be lost is all there was.
    pub fn overload(&self, containers: &mut dyn Containers) {
        let storm = self.storm.as_ref().expect("a gadget whose ring can run full");
        let pod = format!("storm-{}", self.gadget);
        let workload = provide_workload(containers);
        let go = format!("go-{}", self.gadget);
        let go_file = containers.shared_folder().join(&go);
        let _ = fs::remove_file(&go_file);
        let mut client = self.client(&[&["-p", &pod, "--buffer", "64KiB"], storm.options].concat());
        let go = format!("/tmp/{go}");
        let count = storm.count.to_string();
        let command = [&[&workload, "after-one", &go, storm.name, &count], storm.args].concat();
        containers.start(&format!("storm/{pod}"), "app", &command);
        client.read_until_seen("the first events", |seen| {
            let seen: u64 = seen.iter().filter(|line| line["type"] == "event").map(events_of).sum();
            storm.others.map_or(seen >= storm.each, |others| seen == storm.each + others)
        });
        let frozen = client.freeze_agent();
        fs::write(&go_file, "").unwrap();
        containers.wait(&format!("storm/{pod}"), "app");
        drop(frozen);
        let seen = client.stop();

        let shown: u64 = seen.events().into_iter().map(events_of).sum();
        let (all, of_storm) = (shown + seen.lost(), storm.count * storm.each);
        match storm.others {
            Some(others) => assert_eq!(all, of_storm + others, "{}", seen.said),
            None => assert!((of_storm..2 * of_storm).contains(&all), "{shown} and {} of {of_storm}", seen.lost()),
        }
        assert!(seen.lost() > 0, "the storm was too weak to prove anything");
        for loss in seen.of_type("loss") {
            assert_eq!((&loss["stage"], &loss["pod"]), (&"kernel_ring".into(), &pod.as_str().into()), "{loss}");
        }
        assert_eq!((&seen.summary()["lost"], &seen.summary()["complete"]), (&seen.lost().into(), &true.into()));
    }

    /// The gadget, running.
    fn client(&self, options: &[&str]) -> Client {
        Client::start_with(self.client, &[&[self.gadget], options].concat())
    }
}

/// How many a line stands for: profile's are sums.
fn events_of(event: &serde_json::Value) -> u64 {
    event["samples"].as_u64().unwrap_or(1)
}

/// Many pods, one after the other: each program is its own pod's, and nothing is seen of those that nobody watches.
pub fn crowd(containers: &mut dyn Containers, options: &[&str], pods: usize) {
    let workload = provide_workload(containers);
    let client = execsnoop::EXECSNOOP.client(&[&["-n", "crowd"], options].concat());
    for number in 0..pods {
        let namespace = if number % 2 == 0 { "crowd" } else { "others" };
        let (pod, token) = (format!("{namespace}/pod-{number}"), format!("token-{number}"));
        containers.start(&pod, "app", &[&workload, "report", "/tmp/crowd.log", &token]);
        containers.wait(&pod, "app");
    }
    let seen = client.stop();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let rows: Vec<_> = seen.events().iter().map(|event| (text(&event["pod"]), text(&event["args"][3]))).collect();
    let expected: Vec<_> =
        (0..pods).step_by(2).map(|number| (format!("pod-{number}"), format!("token-{number}"))).collect();
    assert_eq!(rows, expected);
    assert_eq!(seen.lost(), 0);
}

/// A line of the workload's log: what came of an attempt, and what belongs to it.
struct Attempt {
    /// 0 or more, or minus the error.
    result: i64,
    args: Vec<Vec<u8>>,
}

impl Attempt {
    /// All that were written down.
    fn read_all(log: &Path) -> Vec<Self> {
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let result = words.next().unwrap().parse().unwrap();
            Self { result, args: words.map(|word| BASE64_STANDARD.decode(word).unwrap()).collect() }
        };
        fs::read_to_string(log).unwrap().lines().map(parse).collect()
    }

    /// One of its arguments.
    fn text(&self, index: usize) -> String {
        String::from_utf8(self.args[index].clone()).unwrap()
    }
}

/// Puts the workload where containers find it, and returns its path there.
fn provide_workload(containers: &dyn Containers) -> String {
    provide(containers, "workload")
}

/// The same of any program of `make test-binaries`.
fn provide(containers: &dyn Containers, program: &str) -> String {
    // A file that is being executed cannot be written.
    let name = format!("{program}-{}", std::process::id());
    let place = containers.shared_folder().join(&name);
    if !place.exists() {
        let new = place.with_extension(format!("{:?}", std::thread::current().id()));
        fs::copy(dist(program), &new).unwrap();
        fs::rename(new, place).unwrap();
    }
    format!("/tmp/{name}")
}
