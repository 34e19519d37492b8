//! capabilities: what the kernel checks them for.

use super::{CAPABILITY_TRACEPOINT, Gadget, Hook, KPROBES, Parameter, Report, ReportForm, Shows, TRAMPOLINES, Variant};

pub(super) static CAPABILITIES: Gadget = Gadget {
    name: "capabilities",
    aliases: &["cap", "capable"],
    summary: "capabilities that the kernel checks, and whether the process has them",
    description: "One row for each check. RET is 0 if the process has the capability in that user namespace, else EPERM. Many \
                  checks mean little: where AUDIT is no, the kernel only tries whether it may do more, and goes on without; \
                  --audit-only leaves them out. Where the hook is the tracepoint of newer kernels nobody knows which they \
                  are: AUDIT is unknown, and all are shown. What a security module refuses after the check is not seen.",
    object: || bpf::object("capabilities").unwrap_or_default(),
    parameters: &[
        Parameter::flag("failed", "failed_only", "Show only capabilities that a process lacks"),
        Parameter::flag("audit-only", "audit_only", "Leave out checks that are known to be mere attempts"),
        Parameter::flag("unique", "unique", "Show each capability with each result once for each container").for_once(),
        Parameter::flag(
            "quiet-noise",
            "quiet_noise",
            "Leave out what all programs ask for without needing it: CAP_SYS_ADMIN for memory",
        ),
        Parameter::flag(
            "stack",
            "gadget_wants_stacks",
            "Show below each check which functions of the kernel led to it",
        )
        .with_column("stack"),
    ],
    columns: &["pid", "comm", "uid", "capability", "ret", "syscall", "audit"],
    shows: Shows::Events,
    report: Some(Report {
        name: "capabilities",
        doc: "what each container needs, as its securityContext",
        form: ReportForm::Capabilities,
        parameters: &["quiet-noise"],
        machinery: false,
    }),
    hooks: &[Hook {
        name: "check",
        without: None,
        variants: &[
            Variant {
                name: "fexit",
                programs: &["cap_capable_returned"],
                requires: &[&TRAMPOLINES],
                cost: "each check of the node",
                lacks: None,
            },
            Variant {
                name: "tp_btf",
                programs: &["cap_capable_traced"],
                requires: &[&CAPABILITY_TRACEPOINT],
                cost: "each check of the node; AUDIT is unknown",
                lacks: None,
            },
            Variant {
                name: "kprobe",
                programs: &["cap_capable_called", "cap_capable_answered"],
                requires: &[&KPROBES],
                cost: "each check of the node, twice through a breakpoint",
                lacks: None,
            },
        ],
    }],
};
