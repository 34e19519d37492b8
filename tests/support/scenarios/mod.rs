//! What each gadget must show of a workload that is known, on whatever kernel and in whatever containers.
//!
//! End to end they run on this kernel, in containerd's containers; in the kernel matrix on others. A gadget of the
//! catalogue that has none fails the tests of the architecture.

mod execsnoop;
mod forksnoop;
mod opensnoop;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use gadgets::diagnosis::Diagnosis;

use crate::{Client, Seen, agent_command, dist};

/// What makes containers, and removes them when it is dropped.
pub trait Containers {
    /// Starts a container in a pod, which is written NAMESPACE/NAME.
    fn start(&mut self, pod: &str, container: &str, command: &[&str]);
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
    /// Runs a workload of this size in one pod and another beside it, and checks that each event of the one is shown as
    /// it should be, once, and none of the other.
    exact: fn(&mut dyn Containers, &[&str], usize) -> Seen,
    /// A command of the workload that makes events.
    storm: Storm,
}

/// `workload NAME COUNT ARG…`
struct Storm {
    name: &'static str,
    count: u64,
    args: &'static [&'static str],
    /// Events beside COUNT: the container's own.
    others: u64,
}

/// One for every gadget.
pub static SCENARIOS: [&Scenario; 3] = [&execsnoop::EXECSNOOP, &forksnoop::FORKSNOOP, &opensnoop::OPENSNOOP];

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

    /// With its agent stopped, the gadget's ring runs full: what was shown and what was told to be lost is all there was.
    pub fn overload(&self, containers: &mut dyn Containers) {
        let pod = format!("storm-{}", self.gadget);
        let workload = provide_workload(containers);
        let go = format!("go-{}", self.gadget);
        let go_file = containers.shared_folder().join(&go);
        let _ = fs::remove_file(&go_file);
        let mut client = self.client(&["-p", &pod, "--buffer", "64KiB"]);
        let go = format!("/tmp/{go}");
        let count = self.storm.count.to_string();
        let command = [&[&workload, "after-one", &go, self.storm.name, &count], self.storm.args].concat();
        containers.start(&format!("storm/{pod}"), "app", &command);
        let before = 1 + self.storm.others;
        client.read_until_seen("the first events", |seen| {
            seen.iter().filter(|line| line["type"] == "event").count() as u64 == before
        });
        let frozen = client.freeze_agent();
        fs::write(&go_file, "").unwrap();
        containers.wait(&format!("storm/{pod}"), "app");
        drop(frozen);
        let seen = client.stop();

        let shown = seen.events().len() as u64;
        assert_eq!(shown + seen.lost(), self.storm.count + self.storm.others, "{}", seen.said);
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

/// Puts the workload where containers find it, and returns its path there.
fn provide_workload(containers: &dyn Containers) -> String {
    // A file that is being executed cannot be written.
    let name = format!("workload-{}", std::process::id());
    let place = containers.shared_folder().join(&name);
    if !place.exists() {
        let new = place.with_extension(format!("{:?}", std::thread::current().id()));
        fs::copy(dist("workload"), &new).unwrap();
        fs::rename(new, place).unwrap();
    }
    format!("/tmp/{name}")
}
