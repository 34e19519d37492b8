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
    let (out, arch) = (variable("OUT_DIR")?, variable("CARGO_CFG_TARGET_ARCH")?);
    let classic = here.join("bench/classic");
    println!("cargo:rerun-if-changed={}", classic.display());
    bpf::compile::sources(&classic)?.iter().try_for_each(|(name, source)| {
        let object = Path::new(&out).join(format!("classic-{name}.bpf.o"));
        bpf::compile::compile(source, &object, &include, &arch)
    })
}
