//! Processes that are made, and put into cgroups.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::exit;

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone};
use nix::sys::wait::waitpid;
use nix::unistd::execve;

use super::{c, in_child, log, refs};

pub(super) fn forks(count: usize, log_path: &str) {
    for _ in 0..count {
        in_child(|| {
            log(log_path, 0, &[]);
            exit(0)
        });
    }
}

pub(super) fn vforks(count: usize) {
    let mut stack = vec![0; 64 << 10];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    for _ in 0..count {
        // SAFETY: the child, on a stack of its own, does nothing but end, and this process waits meanwhile.
        let child = unsafe { clone(Box::new(|| 0), &mut stack, flags, Some(libc::SIGCHLD)) };
        waitpid(child.unwrap(), None).unwrap();
    }
}

pub(super) fn into(cgroup: &str, program: &[Vec<u8>]) {
    /// `struct clone_args` of linux/sched.h.
    #[derive(Default)]
    #[repr(C)]
    struct CloneArgs {
        flags: u64,
        before: [u64; 3],
        exit_signal: u64,
        between: [u64; 5],
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let argv: Vec<CString> = program.iter().map(|arg| c(arg)).collect();
    // On the heap: a constant's page may not be there yet in the child, and then nobody can read the argument.
    let step = [c(b"/missing"), c(b"step")];
    let directory = File::open(cgroup).unwrap();
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: directory.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork, and this process has no other threads; the kernel reads `args` only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid == 0 {
        let _ = execve::<&CStr, &CStr>(c"/missing", &refs(&step), &[]);
        let error = execve::<&CStr, &CStr>(&argv[0], &refs(&argv), &[]).unwrap_err();
        eprintln!("exec failed: {error}");
        exit(1);
    }
    assert!(pid > 0, "clone3: {}", Errno::last());
    waitpid(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), None).unwrap();
}

pub(super) fn nest(depth: usize, name: &str, program: &[Vec<u8>]) {
    for _ in 0..depth {
        let _ = fs::create_dir(name);
        std::env::set_current_dir(name).unwrap();
    }
    fs::write("cgroup.procs", std::process::id().to_string()).unwrap();
    let argv: Vec<CString> = program.iter().map(|arg| c(arg)).collect();
    let error = execve::<&CStr, &CStr>(&argv[0], &refs(&argv), &[]).unwrap_err();
    panic!("exec failed: {error}");
}
