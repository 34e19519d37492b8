//! Compiles every `*.bpf.c` of this directory and lists the objects for `src/lib.rs` to embed.

#[path = "src/compile.rs"]
#[allow(unreachable_pub, reason = "it is public in the library")]
mod compile;

use std::path::Path;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Err(error) = compile::compile_directory(here, &here.join("include")) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
