//! tcptracer: connections of TCP.

use super::{
    Gadget, Hook, Parameter, SOCKET_HOOKS, SYSCALL_TRACEPOINTS, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, Variant,
};

pub(super) static TCPTRACER: Gadget = Gadget {
    name: "tcptracer",
    aliases: &["tcp"],
    summary: "connections of TCP that are made, accepted and closed, and attempts that failed",
    description: "One row for each connect when it is answered, each accept, and each end of a connection, with the bytes each \
                  way, whoever closed it. RET of a connect is 0, or why it failed. An end has the process that connected or \
                  accepted; if it did so before the run, PID and DURATION are 0. It is seen when the kernel is done with the \
                  connection, which may be after the program is. --pid, --uid and --comm are about who connected or accepted.",
    object: || bpf::object("tcptracer").unwrap_or_default(),
    parameters: &[
        Parameter::flag("connect", "show_connect", "Show connects (with others of these: them, too)"),
        Parameter::flag("accept", "show_accept", "Show accepts"),
        Parameter::flag("close", "show_close", "Show ends of connections"),
        Parameter::flag("failed", "show_failed", "Show connects that failed"),
    ],
    columns: &["pid", "comm", "operation", "ret", "local", "peer", "duration", "sent", "received", "retransmits"],
    shows: Shows::Events,
    report: None,
    hooks: &[
        Hook {
            name: "state",
            without: None,
            variants: &[Variant {
                name: "tp_btf",
                programs: &["state_changes", "state_changes_nested"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each change of a TCP socket's state",
                lacks: None,
            }],
        },
        Hook {
            name: "calls",
            without: Some("accepts, and connects that fail before anything is sent, are not shown"),
            variants: &[
                Variant {
                    name: "fexit",
                    programs: &["connect_returned", "socket_grafted"],
                    requires: &[&TRAMPOLINES, &SOCKET_HOOKS],
                    cost: "each connect and accept of the node",
                    lacks: None,
                },
                Variant {
                    name: "tracepoint",
                    programs: &["connect_exited", "accept_exited", "accept4_exited"],
                    requires: &[&SYSCALL_TRACEPOINTS],
                    cost: "each connect and accept of the node, and a little each system call",
                    lacks: None,
                },
                Variant {
                    name: "tp_btf",
                    programs: &["any_call_exited"],
                    requires: &[&TYPED_TRACEPOINTS],
                    cost: "each system call of the node",
                    lacks: None,
                },
            ],
        },
    ],
};
