//! Whether containers can be told apart, and who says what they are called.

use std::collections::BTreeSet;

use gadgets::diagnosis::Finding;

use crate::error::AgentError;
use crate::pods::bundle::Bundles;
use crate::pods::hierarchy::{Hierarchy, Kind};
use crate::pods::kernel::Kernel;
use crate::pods::path::identify;

pub(super) fn look(hierarchy: Result<&Hierarchy, &AgentError>, mut bundles: Bundles) -> Vec<Finding> {
    let hierarchy = match hierarchy {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            let mend = "mount -t cgroup2 none /sys/fs/cgroup";
            return vec![Finding::failed("cgroups", error.to_string(), "containers cannot be told apart", mend)];
        }
    };
    let mut drivers = BTreeSet::new();
    let mut containers = BTreeSet::new();
    hierarchy.walk(&mut |cgroup| {
        if let Some(identity) = identify(cgroup.path) {
            if identity.pod_uid.is_some() {
                drivers.insert(if identity.unit.contains(".slice") { "systemd" } else { "cgroupfs" });
            }
            containers.extend(identity.container_id);
        }
    });
    vec![cgroups(hierarchy, &drivers), tracker(hierarchy), names(&containers, &mut bundles)]
}

fn cgroups(hierarchy: &Hierarchy, drivers: &BTreeSet<&str>) -> Finding {
    let drivers = match drivers.iter().copied().collect::<Vec<_>>().as_slice() {
        [] => "no pods".into(),
        drivers => format!("driver {}", drivers.join(" and ")),
    };
    let mount = hierarchy.mount().display();
    let kind = match hierarchy.kind() {
        Kind::Unified => "the unified hierarchy".into(),
        Kind::Controller(name) => format!("the hierarchy of {name} (cgroup v1)"),
    };
    let node = match hierarchy.root() {
        "/" => String::new(),
        root => format!(", the node is {root}"),
    };
    Finding::ok("cgroups", format!("{kind} at {mount}, {drivers}{node}"))
}

/// Whether new containers can be followed: tries the programs that do.
fn tracker(hierarchy: &Hierarchy) -> Finding {
    // Room for some: nothing is kept.
    match hierarchy.kernel_ids().and_then(|ids| Kernel::attach(1024, ids)) {
        Ok(_) => Finding::ok("tracker", "new containers are seen"),
        Err(error) => Finding::failed("tracker", error.to_string(), "no gadget runs", "see bpf, privileges and memory"),
    }
}

fn names(containers: &BTreeSet<String>, bundles: &mut Bundles) -> Finding {
    if containers.is_empty() {
        return Finding::ok("runtime", "no containers");
    }
    bundles.refresh();
    let named = containers.iter().filter(|id| bundles.names(id).is_some()).count();
    let found = format!("{named} of {} containers have a bundle that can be read", containers.len());
    if named == containers.len() {
        return Finding::ok("runtime", found);
    }
    let cost = "on a host the others are shown by their id; in a cluster by their pod, without the container's name";
    Finding::degraded("runtime", found, cost, "say where the runtime keeps its bundles: GADGET_BUNDLES")
}
