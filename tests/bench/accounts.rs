//! The kernel's own account of how long programs ran: cheap, and exact where what they add is too little to be seen in a load.

use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
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
        // SAFETY: it takes a number, and returns a descriptor or an error.
        let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
        Errno::result(fd).context("have the kernel keep account of programs")?;
        // SAFETY: the kernel has just made it, and nobody else has it.
        Ok(Self { _kept: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// How long those that processors' clocks call have run, of a process that has them loaded.
    pub(crate) fn at_clocks(&self, pid: Pid) -> Result<Duration> {
        let of_clocks = format!("prog_type:\t{BPF_PROG_TYPE_PERF_EVENT}");
        let mut spent = Duration::ZERO;
        for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // It may have been closed meanwhile.
            let info = fs::read_to_string(descriptor?.path()).unwrap_or_default();
            if info.lines().any(|line| line == of_clocks) {
                let ns = info.lines().find_map(|line| line.strip_prefix("run_time_ns:")).context("no account")?;
                spent += Duration::from_nanos(ns.trim().parse()?);
            }
        }
        Ok(spent)
    }
}
