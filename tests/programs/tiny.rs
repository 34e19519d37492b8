//! The catalogue entry of the tiny gadget.

use gadgets::catalogue::{
    Catalogue, Gadget, Hook, KPROBES, Parameter, ParameterKind, TRAMPOLINES, TYPED_TRACEPOINTS, Variant,
};

static OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// A catalogue with the tiny gadget alone.
pub(crate) static CATALOGUE: Catalogue = Catalogue(&[&FORKSNOOP]);

static FORKSNOOP: Gadget = Gadget {
    name: "forksnoop",
    aliases: &[],
    summary: "processes that make others",
    description: "One row for each process that is made.",
    object: || OBJECTS[0].1,
    parameters: &[Parameter {
        name: "threads",
        constant: "threads",
        kind: ParameterKind::Flag,
        doc: "Show threads too",
    }],
    columns: &["pid", "child", "comm"],
    hooks: &[Hook {
        name: "fork",
        without: None,
        variants: &[
            Variant {
                name: "tp_btf",
                programs: &["forked"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each fork of the node",
            },
            Variant {
                name: "fentry",
                programs: &["child_wakes"],
                requires: &[&TRAMPOLINES],
                cost: "each fork of the node",
            },
            Variant {
                name: "kprobe",
                programs: &["child_wakes_slowly"],
                requires: &[&KPROBES],
                cost: "each fork of the node, more",
            },
        ],
    }],
};
