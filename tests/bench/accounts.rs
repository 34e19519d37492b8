//! The kernel's own account of how long programs ran: cheap, and exact where what they add is too little to be seen in a load.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libbpf_rs::libbpf_sys::{BPF_PROG_TYPE_PERF_EVENT, BPF_STATS_RUN_TIME, bpf_enable_stats};
use nix::errno::Errno;
use nix::unistd::Pid;

/// The kernel keeps account of all programs, until this is dropped.
pub(crate) struct Accounts {
    _kept: OwnedFd,
}

impl Accounts {
    /// Has it begin.
    pub(crate) fn keep() -> Result<Self> {
        // SAFETY: it takes a number, and returns a descriptor, or an error as a negative number.
        let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(Errno::from_raw(-fd)).context("have the kernel keep account of programs");
        }
        // SAFETY: the kernel has just made it, and nobody else has it.
        Ok(Self { _kept: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// How long those that processors' clocks call have run, of a process that has them loaded: it must have one.
    pub(crate) fn at_clocks(&self, pid: Pid) -> Result<Duration> {
        let of_clocks = format!("prog_type:\t{BPF_PROG_TYPE_PERF_EVENT}");
        // By program: a process may have several descriptors of one.
        let mut spent = BTreeMap::new();
        for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            let info = match fs::read_to_string(descriptor?.path()) {
                // It was closed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                info => info?,
            };
            if info.lines().any(|line| line == of_clocks) {
                let number = |name: &str| -> Result<u64> {
                    let text = info.lines().find_map(|line| line.strip_prefix(name)).context("no account")?;
                    Ok(text.trim().parse()?)
                };
                spent.insert(number("prog_id:")?, number("run_time_ns:")?);
            }
        }
        ensure!(!spent.is_empty(), "process {pid} has no program at a clock");
        Ok(Duration::from_nanos(spent.values().sum()))
    }
}
