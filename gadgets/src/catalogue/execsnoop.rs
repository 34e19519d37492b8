//! execsnoop: programs that are started.

use super::{
    Gadget, Hook, Parameter, ParameterKind, SYSCALL_TRACEPOINTS, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, Variant,
};

pub(super) static EXECSNOOP: Gadget = Gadget {
    name: "execsnoop",
    aliases: &["exec"],
    summary: "programs that are started, and attempts that failed",
    description: "One row for each execve and execveat. Arguments are those of the program that runs now, as \
                  /proc/PID/cmdline shows them: for a script those of its interpreter. Attempts that failed have the \
                  error in RET and the arguments that were asked for. What is missing at the end, because arguments \
                  are long or could not be read, is marked by an ellipsis (in JSON by args_truncated).",
    object: || bpf::object("execsnoop").unwrap_or_default(),
    parameters: &[
        Parameter::flag("failed", "failed_only", "Show only attempts that failed"),
        Parameter::new(
            "args-bytes",
            "args_bytes",
            ParameterKind::Number { min: 0, max: 16384, default: 16384 },
            "Keep at most this many bytes of the arguments",
        ),
    ],
    columns: &["pid", "ppid", "comm", "pcomm", "uid", "ret", "args"],
    shows: Shows::Events,
    report: None,
    hooks: &[
        Hook {
            name: "start",
            without: None,
            variants: &[Variant {
                name: "tp_btf",
                programs: &["exec_started"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each exec of the node",
                lacks: None,
            }],
        },
        Hook {
            name: "failure",
            without: Some("attempts that failed are not shown"),
            variants: &[
                Variant {
                    name: "fexit",
                    programs: &["execve_returned", "execveat_returned"],
                    requires: &[&TRAMPOLINES],
                    cost: "each exec of the node",
                    lacks: None,
                },
                Variant {
                    name: "tracepoint",
                    programs: &["execve_exited", "execveat_exited"],
                    requires: &[&SYSCALL_TRACEPOINTS],
                    cost: "each exec of the node, and a little each system call",
                    lacks: None,
                },
                Variant {
                    name: "tp_btf",
                    programs: &["any_exec_failed"],
                    requires: &[&TYPED_TRACEPOINTS],
                    cost: "each system call of the node",
                    lacks: None,
                },
            ],
        },
    ],
};
