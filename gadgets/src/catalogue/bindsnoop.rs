//! bindsnoop: sockets that are bound.

use super::{Gadget, Hook, Parameter, SYSCALL_TRACEPOINTS, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, Variant};

pub(super) static BINDSNOOP: Gadget = Gadget {
    name: "bindsnoop",
    aliases: &["bind"],
    summary: "sockets that are bound to an address, and attempts that failed",
    description: "One row for each bind of a socket of IP. ADDRESS is where the socket is bound, with the port that it really \
                  got where the kernel was to choose one; port 0 means that it will be chosen later \
                  (bind_address_no_port). Of an attempt that failed it is what was asked for. A program that connects or \
                  listens without bind gets its port unseen.",
    object: || bpf::object("bindsnoop").unwrap_or_default(),
    parameters: &[Parameter::flag("failed", "failed_only", "Show only attempts that failed")],
    columns: &["pid", "comm", "ret", "protocol", "address", "options"],
    shows: Shows::Events,
    report: None,
    hooks: &[Hook {
        name: "bind",
        without: None,
        variants: &[
            Variant {
                name: "fexit",
                programs: &["bind_returned"],
                requires: &[&TRAMPOLINES],
                cost: "each bind of the node",
                lacks: None,
            },
            Variant {
                name: "tracepoint",
                programs: &["bind_exited"],
                requires: &[&SYSCALL_TRACEPOINTS],
                cost: "each bind of the node, and a little each system call",
                lacks: None,
            },
            Variant {
                name: "tp_btf",
                programs: &["any_bind_exited"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each system call of the node",
                lacks: None,
            },
        ],
    }],
};
