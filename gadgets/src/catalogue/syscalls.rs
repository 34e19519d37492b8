//! syscalls: which system calls containers make.

use super::{Gadget, Hook, Report, ReportForm, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static SYSCALLS: Gadget = Gadget {
    name: "syscalls",
    aliases: &[],
    summary: "system calls that containers make, each once",
    description: "One row when a container makes a system call for the first time since the run began, with the process that was \
                  the first. Calls that seccomp refuses are not seen. A call of a program of 32 bits is another than that of \
                  the same name of one of 64: ARCHITECTURE tells them apart. With --machinery, also what the runtime calls on \
                  the way into a container, as far as the container's filter has to allow it. `kubectl gadget advise \
                  seccomp-profile` makes profiles of it.",
    object: || bpf::object("syscalls").unwrap_or_default(),
    parameters: &[],
    columns: &["pid", "comm", "uid", "architecture", "syscall"],
    shows: Shows::Once,
    report: Some(Report {
        name: "seccomp-profile",
        doc: "a seccomp profile for each container, of the system calls that it made",
        form: ReportForm::SeccompProfile,
        parameters: &[],
        machinery: true,
    }),
    hooks: &[Hook {
        name: "calls",
        without: None,
        variants: &[Variant {
            name: "tp_btf",
            programs: &["call_enters"],
            requires: &[&TYPED_TRACEPOINTS],
            cost: "each system call of the node",
            lacks: None,
        }],
    }],
};
