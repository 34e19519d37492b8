//! The BPF programs: one C file is one gadget, beside the tracker that all gadgets share.
//!
//! The objects are compiled by clang when this crate is built, and embedded. Each describes itself through its BTF;
//! `include/gadget.h` says how.

pub mod compile;

static OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// The ELF object compiled from `NAME.bpf.c`, aligned to 8 bytes; `None` if there is no such file.
pub fn object(name: &str) -> Option<&'static [u8]> {
    OBJECTS.iter().find(|(candidate, _)| *candidate == name).map(|(_, bytes)| *bytes)
}
