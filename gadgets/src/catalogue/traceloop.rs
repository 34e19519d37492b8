//! traceloop: the last system calls of containers.

use super::{Gadget, Hook, Parameter, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static TRACELOOP: Gadget = Gadget {
    name: "traceloop",
    aliases: &[],
    summary: "the last system calls of containers, recorded and shown at the end",
    description: "Records every system call of the chosen containers, each where it returns, and shows at Ctrl-C those that are kept: the \
                  last ones, also of containers that have ended. --buffer is the memory for that on each node, which its \
                  containers share; older calls are written over, and counted. What has not returned by then comes last, without RET; END says how a process ended, and RET with which status or by which signal. ARGS \
                  are decoded by the kernel's own description of its calls, with the texts, buffers and addresses that they \
                  pointed to when the call returned.",
    object: || bpf::object("traceloop").unwrap_or_default(),
    parameters: &[Parameter::flag("durations", "durations", "Show how long each call took; each costs more then")
        .with_column("duration")
        .with_hook("begins")],
    columns: &["tid", "comm", "syscall", "ret", "end", "args"],
    shows: Shows::Past,
    report: None,
    hooks: &[
        Hook {
            name: "calls",
            without: None,
            variants: &[Variant {
                name: "tp_btf",
                programs: &["call_exits"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each system call of the node",
                lacks: None,
            }],
        },
        Hook {
            name: "begins",
            without: Some("how long calls take is not shown"),
            variants: &[Variant {
                name: "tp_btf",
                programs: &["call_enters"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each system call of the node, where it begins",
                lacks: None,
            }],
        },
        Hook {
            name: "ends",
            without: Some("how processes end is not shown"),
            variants: &[Variant {
                name: "tp_btf",
                programs: &["task_exits"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each thread that ends",
                lacks: None,
            }],
        },
        Hook {
            name: "underway",
            without: Some("calls that have not returned are not shown"),
            variants: &[Variant {
                name: "iter",
                programs: &["list_calls_underway"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "nothing, until somebody looks",
                lacks: None,
            }],
        },
    ],
};
