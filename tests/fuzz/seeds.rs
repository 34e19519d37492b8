//! Where fuzzing begins: real inputs, written by the target itself. Chance hardly ever makes an ELF file.

use std::path::PathBuf;
use std::{env, fs};

/// Writes a target's first inputs into the folder that `FUZZ_SEEDS` names, if it names one.
pub fn write(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(folder) = env::var_os("FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (index, seed) in seeds().iter().enumerate() {
        fs::write(folder.join(format!("seed-{index}")), seed).expect("a folder that can be written to");
    }
}
