//! From a directory of `*.bpf.c` to embedded objects: what a crate with gadgets of its own calls from its `build.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Compiles every `NAME.bpf.c` in `directory` for the target's architecture and writes `objects.rs` into `OUT_DIR`:
/// one expression, a slice of `(NAME, object bytes)`, sorted, each object aligned to 8 bytes.
///
/// `include` is the folder of `gadget.h`. To be called from a build script.
///
/// # Errors
/// In words, if clang or llvm-strip cannot be run or refuse a file, or if a file cannot be read or written.
pub fn compile_directory(directory: &Path, include: &Path) -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: call this from a build script")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|_| "CARGO_CFG_TARGET_ARCH is not set")?;
    println!("cargo:rerun-if-changed={}", include.display());
    println!("cargo:rerun-if-changed={}", directory.display());

    let mut list = String::from("&[\n");
    for (name, source) in sources(directory)? {
        println!("cargo:rerun-if-changed={}", source.display());
        let object = out.join(format!("{name}.bpf.o"));
        compile(&source, &object, include, &arch)?;
        let _ = writeln!(list, "    ({name:?}, &Aligned(*include_bytes!({object:?})).0),");
    }
    list.push(']');
    let expression = format!("{{\n#[repr(C, align(8))]\nstruct Aligned<T>(T);\n{list}\n}}\n");
    let listing = out.join("objects.rs");
    fs::write(&listing, expression).map_err(|error| format!("cannot write {}: {error}", listing.display()))
}

/// The `NAME.bpf.c` in a directory, with their names, sorted.
///
/// # Errors
/// In words, if it cannot be read.
pub fn sources(directory: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut sources: Vec<(String, PathBuf)> = fs::read_dir(directory)
        .map_err(|error| format!("cannot read {}: {error}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(".bpf.c")?.to_owned(), path)))
        .collect();
    sources.sort();
    Ok(sources)
}

/// Compiles one file for an architecture, as Rust names it.
///
/// # Errors
/// In words, if clang or llvm-strip cannot be run or refuse it.
pub fn compile(source: &Path, object: &Path, include: &Path, arch: &str) -> Result<(), String> {
    // The name that libbpf's headers use for an architecture.
    let bpf_arch = match arch {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => return Err(format!("no BPF programs for architecture {other}: see bpf/include/compat.h")),
    };
    run(Command::new("clang")
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .arg(format!("-D__TARGET_ARCH_{bpf_arch}"))
        // Where Debian has the kernel's headers of an architecture, and those for cross-compilers.
        .arg(format!("-idirafter/usr/include/{arch}-linux-gnu"))
        .arg(format!("-idirafter/usr/{arch}-linux-gnu/include"))
        .arg("-I")
        .arg(include)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object))?;
    // DWARF goes, BTF stays.
    run(Command::new("llvm-strip").arg("-g").arg(object))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| {
        format!("cannot run {program}: {error}; install it (Debian: apt-get install clang llvm libbpf-dev)")
    })?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed: {command:?}")) }
}
