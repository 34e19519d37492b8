//! A clock on each processor, which calls a program so and so many times a second.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr};
use libbpf_rs::{Link, ProgramMut};
use nix::libc;

use super::refusal::Refusal;

/// How often, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Times a second.
    pub(crate) frequency: u64,
    /// Also when a processor has nothing to do.
    pub(crate) idle: bool,
}

impl Default for Rate {
    fn default() -> Self {
        Self { frequency: 1, idle: false }
    }
}

/// Has the clock of each processor that there is now call a program.
pub(super) fn attach(program: &ProgramMut<'_>, rate: Rate) -> Result<Vec<Link>, Refusal> {
    let doing = "open a perf event";
    let online =
        fs::read_to_string("/sys/devices/system/cpu/online").map_err(|error| Refusal::of_object(doing, error))?;
    let on_processor = |processor| {
        let event = open(processor, rate).map_err(|error| Refusal::new(doing, &error.into()))?;
        // The link closes it.
        program.attach_perf_event(event.into_raw_fd()).map_err(|error| Refusal::new("attach to a perf event", &error))
    };
    numbers(&online).map(on_processor).collect()
}

/// Reads a list as in `0-3,8`.
fn numbers(list: &str) -> impl Iterator<Item = u32> {
    list.trim().split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => first..last + 1,
            _ => 0..0,
        }
    })
}

fn open(processor: u32, rate: Rate) -> io::Result<OwnedFd> {
    let mut wanted = perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config: PERF_COUNT_SW_CPU_CLOCK.into(),
        ..Default::default()
    };
    wanted.set_freq(1);
    wanted.__bindgen_anon_1.sample_freq = rate.frequency;
    wanted.set_exclude_idle(u64::from(!rate.idle));
    let (any_process, no_group) = (-1, -1);
    // SAFETY: the kernel reads `wanted`, which is as large as it says.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &wanted, any_process, processor, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    let event = i32::try_from(event).unwrap_or(-1);
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(event) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(numbers("0-2,5,7-8\n").collect::<Vec<_>>(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(numbers("0\n").collect::<Vec<_>>(), [0]);
        assert_eq!(numbers("").count(), 0);
    }
}
