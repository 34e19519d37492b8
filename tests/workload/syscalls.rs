//! System calls that no program makes by chance.

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::{append, line, log};

/// More than there are processes.
const NOBODY: libc::c_long = 1 << 30;

const CALLS: [(&str, libc::c_long); 6] = [
    ("getppid", libc::SYS_getppid),
    ("getpgid", libc::SYS_getpgid),
    ("sched_yield", libc::SYS_sched_yield),
    ("getitimer", libc::SYS_getitimer),
    ("sync", libc::SYS_sync),
    ("vhangup", libc::SYS_vhangup),
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 2] = ["x86_64", "x86"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [&str; 2] = ["aarch64", "arm"];

/// Makes each so many times, and writes down once that it did, with the architecture whose call it is.
pub(super) fn syscalls(count: usize, log_path: &str) {
    for (name, number) in CALLS {
        for _ in 0..count {
            // SAFETY: no address is among the arguments; sync takes none, and vhangup is refused or hangs up a terminal
            // that a container has not.
            unsafe { libc::syscall(number, 0, 0, 0) };
        }
        log(log_path, 0, &[ARCHITECTURES[0].into(), name.into()]);
    }
    if makes_compat_calls() {
        log(log_path, 0, &[ARCHITECTURES[1].into(), b"getppid".to_vec()]);
    }
}

/// What is written down, when all are made, is the process, the call, its first argument, and as the result its error. It makes as
/// many calls each time: threads would wait for each other now and then.
pub(super) fn calls(count: usize, log_path: &str) {
    for child in 0..2 {
        // SAFETY: there are no other threads.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                failing_calls(NOBODY + child * (1 << 20), count, log_path);
                // SAFETY: it ends the process at once.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))),
        }
    }
}

fn failing_calls(first: libc::c_long, count: usize, log_path: &str) {
    let pid = std::process::id();
    let mut lines = String::new();
    for number in first..first + libc::c_long::try_from(count).unwrap() {
        for (name, call) in [("getpgid", libc::SYS_getpgid), ("dup", libc::SYS_dup)] {
            // SAFETY: takes a number, of a process or descriptor that is not there.
            let result = unsafe { libc::syscall(call, number) };
            assert_eq!(result, -1);
            let words = [pid.to_string(), name.to_owned(), format!("{number:#x}")];
            lines.push_str(&line(-Errno::last_raw(), &words.map(String::into_bytes)));
        }
    }
    append(log_path, &lines);
}

/// Has a child make getppid as a program of 32 bits does. Where the kernel has no such programs it ends the child.
#[cfg(target_arch = "x86_64")]
fn makes_compat_calls() -> bool {
    const GETPPID: i32 = 64;
    // SAFETY: the child does nothing but the call, and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: getppid takes no arguments and touches no memory.
            unsafe { std::arch::asm!("int 0x80", inout("eax") GETPPID => _) };
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))),
    }
}

/// There it takes another program.
#[cfg(target_arch = "aarch64")]
fn makes_compat_calls() -> bool {
    false
}
