//! What the reader gives up: files by their paths, capabilities, memory, and all system calls but those that reading takes.
//!
//! Its root is the folder of its own descriptors, so that a path leads to what it has open already, whoever has made it up: files name others
//! that go with them, and what reads symbols looks for these.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use caps::CapSet;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::root;
use crate::sizes;

/// Files that it may have open.
const FILES: u64 = 512;

/// System calls that it may make, with any arguments.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_openat2,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[libc::c_long] = &[libc::SYS_readlink, libc::SYS_stat, libc::SYS_lstat];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[libc::c_long] = &[];

/// Confines this process, for good.
///
/// # Errors
/// If any of it cannot be done: then nothing is to be read.
pub(super) fn enter() -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot end with the agent")?;
    // It ends before anybody else if there is no memory. That it may not say so is no reason to read nothing.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::RLIMIT_DATA, sizes::READER),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
    ] {
        setrlimit(resource, limit, limit).with_context(|| format!("cannot limit {resource:?}"))?;
    }
    chroot(root::DESCRIPTORS).and_then(|()| chdir("/")).context("cannot lock itself in, which takes CAP_SYS_CHROOT")?;
    prctl::set_no_new_privs().context("cannot give up new rights")?;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).with_context(|| format!("cannot give up the {set:?} capabilities"))?;
    }
    seccompiler::apply_filter(&filter()?).context("cannot give up system calls")
}

/// Whatever it may not do fails.
fn filter() -> anyhow::Result<BpfProgram> {
    let changes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();
    // The third argument are the flags: none of those that change anything (0 is O_RDONLY).
    let only_reads = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(changes.into()), 0)?;
    // To end itself.
    let only_own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, std::process::id().into())?;
    // Nothing that has the kernel send a signal to whom it likes when something comes (F_SETOWN, F_SETSIG).
    let command = |command: libc::c_int| {
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command.cast_unsigned().into())
    };
    let any = CALLS.iter().chain(OLD_CALLS).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<_, _> = any.collect();
    for (call, condition) in [
        (libc::SYS_openat, only_reads),
        (libc::SYS_tgkill, only_own),
        (libc::SYS_fcntl, command(libc::F_DUPFD_CLOEXEC)?),
        (libc::SYS_fcntl, command(libc::F_GETFD)?),
        (libc::SYS_fcntl, command(libc::F_GETFL)?),
    ] {
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    Ok(SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?)
}
