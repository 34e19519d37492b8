//! `gadget-agent probe`: looks at the host and says what it finds, for `kubectl gadget doctor`.
//!
//! It is a process of its own: it disturbs no agent that runs, and on a host works where none starts.
//!
//! - [`kernel`]: what the kernel is and allows
//! - [`containers`]: whether containers can be told apart, and have names
//! - [`hooks`]: how each gadget attaches, and who else is there

mod containers;
mod hooks;
mod kernel;

use gadgets::catalogue::Catalogue;
use gadgets::diagnosis::Diagnosis;

use crate::pods::bundle::Bundles;
use crate::pods::hierarchy::Hierarchy;
use crate::{clock, host};

/// All that is found on this host.
pub(crate) fn diagnose(catalogue: Catalogue, node: Option<String>, bundles: Bundles) -> Diagnosis {
    let began_ns = clock::boot_ns();
    let others = hooks::others(catalogue);
    let hierarchy = Hierarchy::find();
    let mut findings = kernel::look(hierarchy.as_ref().ok());
    findings.extend(containers::look(hierarchy.as_ref(), bundles));
    // Without a hierarchy it can still be tried what loads: the programs are the same.
    let ids = hierarchy.and_then(|hierarchy| hierarchy.kernel_ids()).unwrap_or_default();
    let variants = hooks::survey(catalogue, ids);
    findings.extend(hooks::look(catalogue, &variants));
    findings.push(others);
    let clock = clock::now();
    Diagnosis {
        node: node.unwrap_or_else(host::name),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host::kernel(),
        clock,
        took_ns: clock.boot_ns.saturating_sub(began_ns),
        findings,
        variants,
    }
}
