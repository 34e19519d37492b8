//! forksnoop shows every process that a container makes, once, and nobody else's.

use std::collections::BTreeSet;
use std::fs;

use super::{Containers, Scenario, Storm, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static FORKSNOOP: Scenario = Scenario {
    gadget: "forksnoop",
    client: "tiny-client",
    agent: "tiny-agent",
    of_sockets: false,
    exact,
    storm: Some(Storm { name: "vforks", count: 1200, args: &[], each: 1, others: Some(0), options: &[] }),
};

fn exact(containers: &mut dyn Containers, options: &[&str], forks: usize) -> Seen {
    let log = containers.shared_folder().join("forks.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let client = FORKSNOOP.client(&[&["-p", "forking"], options].concat());
    containers.start("tiny/beside", "app", &[&workload, "forks", &forks.to_string(), "/dev/null"]);
    containers.start("tiny/forking", "app", &[&workload, "forks", &forks.to_string(), "/tmp/forks.log"]);
    containers.wait("tiny/forking", "app");
    containers.wait("tiny/beside", "app");
    let seen = client.stop();

    assert_eq!(seen.lost(), 0);
    // Each child has written a line.
    let count = fs::read_to_string(&log).unwrap().lines().count();
    assert_eq!(count, forks);
    let children: BTreeSet<_> = seen.events().iter().map(|event| event["child"].as_u64().unwrap()).collect();
    assert_eq!((seen.events().len(), children.len()), (forks, forks));
    for event in seen.events() {
        assert_eq!((&event["pod"], &event["container"]), (&"forking".into(), &"app".into()));
        assert_eq!((&event["comm"], &event["pid"]), (&seen.events()[0]["comm"], &seen.events()[0]["pid"]));
    }
    seen
}
