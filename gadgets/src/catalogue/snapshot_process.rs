//! snapshot-process: the processes that there are.

use super::{Gadget, Hook, Parameter, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static SNAPSHOT_PROCESS: Gadget = Gadget {
    name: "snapshot-process",
    aliases: &[],
    summary: "processes that run now",
    description: "One row for each process that there is, in the order of their ids; with --threads for each thread. PPID is the parent, which \
                  may lie outside of the container; OWN_PID what the process itself takes for its id. A process that has ended and whose \
                  parent has not asked for it yet is a zombie.",
    object: || bpf::object("snapshot-process").unwrap_or_default(),
    parameters: &[Parameter::flag("threads", "each_thread", "Show each thread").with_column("tid")],
    columns: &["pid", "ppid", "own_pid", "uid", "threads", "state", "age", "comm"],
    shows: Shows::Present,
    report: None,
    hooks: &[Hook {
        name: "processes",
        without: None,
        variants: &[Variant {
            name: "iter",
            programs: &["list_processes"],
            requires: &[&TYPED_TRACEPOINTS],
            cost: "who asks",
            lacks: None,
        }],
    }],
};
