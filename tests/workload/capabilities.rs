//! System calls that need a capability, and do nothing with it.

use nix::errno::Errno;

use super::{c, log};

/// Its capability, its name, and what makes it: with arguments that the kernel refuses once it has checked.
type Call = (&'static str, &'static str, fn() -> libc::c_long);

const CALLS: [Call; 5] = [
    ("CAP_SYS_BOOT", "reboot", || unchecked(libc::SYS_reboot, [0, 0])),
    ("CAP_SYS_ADMIN", "sethostname", || unchecked(libc::SYS_sethostname, [0, -1])),
    ("CAP_SETGID", "setgroups", || unchecked(libc::SYS_setgroups, [-1, 0])),
    ("CAP_SYS_PACCT", "acct", acct_missing),
    ("CAP_SYS_TIME", "settimeofday", || unchecked(libc::SYS_settimeofday, [0, 0])),
];

/// Two numbers, where null stands for no address.
fn unchecked(number: libc::c_long, args: [libc::c_long; 2]) -> libc::c_long {
    // SAFETY: no address among the arguments leads anywhere.
    unsafe { libc::syscall(number, args[0], args[1], 0) }
}

fn acct_missing() -> libc::c_long {
    // SAFETY: the kernel reads a string there.
    unsafe { libc::syscall(libc::SYS_acct, c(b"/missing/file").as_ptr()) }
}

/// What is written down is whether the kernel says that it was not permitted, the capability, and the call.
pub(super) fn checks(count: usize, log_path: &str) {
    for index in 0..count {
        let (capability, name, call) = CALLS[index % CALLS.len()];
        let is_refused = call() < 0 && Errno::last() == Errno::EPERM;
        let result = if is_refused { -libc::EPERM } else { 0 };
        log(log_path, result, &[capability.into(), name.into()]);
    }
}

/// In a thread that does nothing else, so that it can be told from the rest by its name.
pub(super) fn check_storm(count: usize) {
    let settimeofday = CALLS[4].2;
    std::thread::spawn(move || {
        nix::sys::prctl::set_name(c"storm").unwrap();
        (0..count).for_each(|_| _ = settimeofday());
    })
    .join()
    .unwrap();
}
