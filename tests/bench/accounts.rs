//! The kernel's own account of how long programs ran: cheap, and exact where what they add is too little to be seen in a load.

use std::fs;
use std::io::ErrorKind;
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
        let mut spent = None;
        for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            let info = match fs::read_to_string(descriptor?.path()) {
                // It was closed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                info => info?,
            };
            if info.lines().any(|line| line == of_clocks) {
                let ns = info.lines().find_map(|line| line.strip_prefix("run_time_ns:")).context("no account")?;
                spent = Some(spent.unwrap_or(Duration::ZERO) + Duration::from_nanos(ns.trim().parse()?));
            }
        }
        spent.with_context(|| format!("process {pid} has no program at a clock"))
    }
}
