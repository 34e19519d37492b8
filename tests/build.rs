//! Compiles the programs that exist only in the tests: a gadget, and what a gadget is measured beside.

use std::env;
use std::path::Path;

fn main() {
    if let Err(error) = compile() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn compile() -> Result<(), String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let include = here.join("../bpf/include");
    bpf::compile::compile_directory(&here.join("tiny"), &include)?;

    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let source = here.join("bench/classic.bpf.c");
    println!("cargo:rerun-if-changed={}", source.display());
    let object = Path::new(&variable("OUT_DIR")?).join("classic.bpf.o");
    bpf::compile::compile(&source, &object, &include, &variable("CARGO_CFG_TARGET_ARCH")?)
}
