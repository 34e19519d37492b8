//! Compiles the gadget that exists only in the tests.

use std::path::Path;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Err(error) = bpf::compile::compile_directory(&here.join("tiny"), &here.join("../bpf/include")) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
