//! System calls that no program makes by chance.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execve, fork};

use super::{append, c, in_child, line, log, refs};

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
    calls_with_content();
}

/// Calls whose arguments point to something. `tests/support/scenarios/traceloop.rs` knows them.
fn calls_with_content() {
    let file = CString::new("/tmp/with \"content\"\n").unwrap();
    let text = "\x1b[31m0123456789".repeat(5);
    let mut back = [0u8; 8];
    // SAFETY: each is given memory that is there, and its size.
    unsafe {
        let fd = libc::openat(libc::AT_FDCWD, file.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o640);
        assert!(fd >= 0);
        assert_eq!(libc::write(fd, text.as_ptr().cast(), text.len()), text.len() as isize);
        assert_eq!(libc::pread(fd, back.as_mut_ptr().cast(), 8, 4), 8);
        assert_eq!(libc::close(fd), 0);
        // Another one of these may have done it.
        libc::unlink(file.as_ptr());
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 4711u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([10, 0, 0, 7]) },
            sin_zero: [0; 8],
        };
        // Nobody here has this address.
        assert_eq!(libc::bind(socket, (&raw const address).cast(), size_of_val(&address) as u32), -1);
        assert_eq!(libc::close(socket), 0);
    }
    // It knows no such command, and ends.
    let argv = ["workload", "no \"such\" command", ""].map(|arg| c(arg.as_bytes()));
    in_child(|| execve(&c(b"/proc/self/exe"), &refs(&argv), &[] as &[&CStr]).unwrap_err());
}

fn failing_calls(first: libc::c_long, count: usize, log_path: &str) {
    let pid = std::process::id();
    let mut lines = String::new();
    for number in first..first + libc::c_long::try_from(count).unwrap() {
        for (name, call) in [("getpgid", libc::SYS_getpgid), ("dup", libc::SYS_dup)] {
            // SAFETY: takes a number, of a process or descriptor that is not there.
            let result = unsafe { libc::syscall(call, number) };
            assert_eq!(result, -1);
            let words = [pid.to_string(), name.to_owned(), number.to_string()];
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
