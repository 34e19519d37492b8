//! Where a row was measured, and when.

use std::fmt;
use std::fs;

use anyhow::Result;
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

/// A machine at a time.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    memory_mib: u64,
    date: String,
    rounds: usize,
}

impl Machine {
    /// This one, now.
    pub(crate) fn this(rounds: usize) -> Result<Self> {
        let value = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value("/proc/meminfo", "MemTotal");
        let processor = value("/proc/cpuinfo", "model name");
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            processor: if processor.is_empty() { std::env::consts::ARCH.into() } else { processor },
            processors: std::thread::available_parallelism()?.get(),
            memory_mib: memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10,
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            rounds,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, processors, memory_mib, date, rounds } = self;
        let gib = memory_mib.div_ceil(1024);
        write!(f, "{date}, Linux {kernel}, {processors} x {processor}, {gib} GiB, {rounds} rounds")
    }
}
