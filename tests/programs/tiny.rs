//! The catalogue of the gadgets that exist only in the tests.

use gadgets::catalogue::{Catalogue, Gadget, Hook, KPROBES, Parameter, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, Variant};

static OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// All of them.
pub(crate) static CATALOGUE: Catalogue = Catalogue(&[&FORKSNOOP, &TCPSTATES]);

fn object(name: &str) -> &'static [u8] {
    OBJECTS.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes).unwrap()
}

static FORKSNOOP: Gadget = Gadget {
    name: "forksnoop",
    aliases: &[],
    summary: "processes that make others",
    description: "One row for each process that is made.",
    object: || object("forksnoop"),
    parameters: &[Parameter::flag("threads", "threads", "Show threads too")],
    columns: &["pid", "child", "comm"],
    shows: Shows::Events,
    report: None,
    hooks: &[Hook {
        name: "fork",
        without: None,
        variants: &[
            Variant {
                name: "tp_btf",
                programs: &["forked"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each fork of the node",
                lacks: None,
            },
            Variant {
                name: "fentry",
                programs: &["child_wakes"],
                requires: &[&TRAMPOLINES],
                cost: "each fork of the node",
                lacks: None,
            },
            Variant {
                name: "kprobe",
                programs: &["child_wakes_slowly"],
                requires: &[&KPROBES],
                cost: "each fork of the node, more",
                lacks: None,
            },
        ],
    }],
};

static TCPSTATES: Gadget = Gadget {
    name: "tcpstates",
    aliases: &[],
    summary: "what becomes of TCP sockets",
    description: "One row for each change of a socket's state.",
    object: || object("tcpstates"),
    parameters: &[],
    columns: &["old", "new", "port"],
    shows: Shows::Events,
    report: None,
    hooks: &[Hook {
        name: "state",
        without: None,
        variants: &[Variant {
            name: "tp_btf",
            programs: &["state_set", "state_set_nested"],
            requires: &[&TYPED_TRACEPOINTS],
            cost: "each change of a socket's state",
            lacks: None,
        }],
    }],
};
