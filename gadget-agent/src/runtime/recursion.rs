//! Runs of programs that the kernel left out, since the same program was running on that CPU already: see `bpf/include/nested.h`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{bpf_prog_get_info_by_fd, bpf_prog_info};
use libbpf_rs::{MapHandle, Object, Program};

use super::load;

/// How the names of second programs end, and where it is counted how often they did the work.
const NESTED: &str = "_nested";
const NESTING: &str = "gadget_nesting";

/// What the kernel counts of an object's programs.
#[derive(Default)]
pub(crate) struct Recursion {
    /// Those that are called first.
    programs: Vec<OwnedFd>,
    nesting: Option<MapHandle>,
}

impl Recursion {
    /// That of an object that was loaded.
    ///
    /// # Errors
    /// If there is no descriptor left to ask the kernel by.
    pub(crate) fn of(object: &Object) -> io::Result<Self> {
        let is_loaded = |program: &Program<'_>| program.as_fd().as_raw_fd() >= 0;
        let is_first = |program: &Program<'_>| !program.name().to_string_lossy().ends_with(NESTED);
        let programs = object.progs().filter(is_loaded).filter(is_first);
        Ok(Self {
            programs: programs.map(|program| program.as_fd().try_clone_to_owned()).collect::<io::Result<_>>()?,
            nesting: load::map(object, NESTING).ok(),
        })
    }

    /// How many runs were left out so far where an interrupt or another task came in between (5.12), and no second program stepped
    /// in. Nobody knows what they would have seen.
    pub(crate) fn missed_runs(&self) -> u64 {
        let missed: u64 = self.programs.iter().map(misses).sum();
        // Read afterwards: what steps in meanwhile was counted as missed before. `struct gadget_nesting` begins with it.
        let stepped_in = self.nesting.as_ref().map_or(0, |nesting| load::count(nesting, 0));
        missed.saturating_sub(stepped_in)
    }
}

/// The kernel's count for one program. Not out of `/proc`, which takes several times as long: it is asked for twice a second.
fn misses(program: &OwnedFd) -> u64 {
    let mut info = bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: the kernel writes numbers, no more than `size` bytes of them, and no arrays: their places and lengths are 0.
    let failed = unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    if failed == 0 { info.recursion_misses } else { 0 }
}
