//! Names of constants that system calls are given. Numbers are the kernel's, from its headers (`linux-raw-sys`); those here are
//! the same on x86-64 and arm64, whatever this runs on.

use linux_raw_sys::{general, ioctl, net, prctl, ptrace};

use super::open_flags::of_bits;

type Named = &'static [(&'static str, u64)];

/// What a number is put together from.
#[derive(Debug)]
pub(crate) struct Names {
    /// Bits that are one of several values.
    choice: u64,
    choices: Named,
    /// Each is a bit, or some; those of several bits come first.
    flags: Named,
}

impl Names {
    const fn one_of(choices: Named) -> Self {
        Self { choice: u64::MAX, choices, flags: &[] }
    }

    const fn flags(flags: Named) -> Self {
        Self { choice: 0, choices: &[], flags }
    }

    /// The name of one value.
    pub(crate) fn name(&self, number: u64) -> Option<&'static str> {
        self.choices.iter().find(|(_, value)| *value == number).map(|(name, _)| *name)
    }

    /// A number in names, with `|` between them; `None` if it has none.
    pub(crate) fn text(&self, number: u64) -> Option<String> {
        let chosen = self.name(number & self.choice).filter(|_| self.choice != 0 || number == 0);
        let (flags, rest) =
            of_bits(if chosen.is_some() { number & !self.choice } else { number }, self.flags.iter().copied());
        let names: Vec<&str> = chosen.into_iter().chain(flags).collect();
        let rest = (rest != 0).then(|| format!("{rest:#x}"));
        (!names.is_empty()).then(|| names.into_iter().map(str::to_owned).chain(rest).collect::<Vec<_>>().join("|"))
    }
}

macro_rules! named {
    ($($module:ident { $($name:ident)* })*) => { &[$($((stringify!($name), $module::$name as u64),)*)*] };
}

macro_rules! one_of {
    ($($names:ident = $($module:ident { $($name:ident)* })*;)*) => {$(
        static $names: Names = Names::one_of(named!($($module { $($name)* })*));
    )*};
}

macro_rules! flags {
    ($($names:ident = $($module:ident { $($name:ident)* })*;)*) => {$(
        static $names: Names = Names::flags(named!($($module { $($name)* })*));
    )*};
}

/// Families of sockets.
pub(crate) static FAMILIES: Names = Names::one_of(named!(net {
    AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_BRIDGE AF_INET6 AF_KEY AF_NETLINK AF_PACKET AF_RDS AF_LLC AF_CAN AF_TIPC
    AF_BLUETOOTH AF_RXRPC AF_ALG AF_NFC AF_VSOCK AF_KCM AF_QIPCRTR AF_SMC AF_XDP AF_MCTP
}));

const SIGNALS: Named = named!(general {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGSTKFLT
    SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
});
static SIGNAL: Names = Names::one_of(SIGNALS);

/// Those of clone come with the signal that tells of the child's end.
const NEW_TASK: Named = named!(general {
    CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_PIDFD CLONE_PTRACE CLONE_VFORK CLONE_PARENT CLONE_THREAD CLONE_NEWNS
    CLONE_SYSVSEM CLONE_SETTLS CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID CLONE_DETACHED CLONE_UNTRACED CLONE_CHILD_SETTID
    CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET CLONE_IO
});
static CLONE: Names = Names { choice: 0xff, choices: SIGNALS, flags: NEW_TASK };
static NAMESPACES: Names = Names { choice: 0, choices: &[], flags: NEW_TASK };

static PROTECTION: Names = Names {
    choice: 0,
    choices: named!(general { PROT_NONE }),
    flags: named!(general { PROT_READ PROT_WRITE PROT_EXEC PROT_SEM PROT_GROWSDOWN PROT_GROWSUP }),
};
static MAPPING: Names = Names {
    choice: general::MAP_TYPE as u64,
    choices: named!(general { MAP_SHARED MAP_PRIVATE MAP_SHARED_VALIDATE MAP_DROPPABLE }),
    flags: named!(general {
        MAP_FIXED MAP_ANONYMOUS MAP_GROWSDOWN MAP_DENYWRITE MAP_EXECUTABLE MAP_LOCKED MAP_NORESERVE MAP_POPULATE MAP_NONBLOCK
        MAP_STACK MAP_HUGETLB MAP_SYNC MAP_FIXED_NOREPLACE
    }),
};
static ACCESS: Names =
    Names { choice: 0, choices: named!(general { F_OK }), flags: named!(general { R_OK W_OK X_OK }) };
/// The same numbers as those of open, which arm64 does not change.
const SOCKET_FLAGS: Named =
    &[("SOCK_NONBLOCK", general::O_NONBLOCK as u64), ("SOCK_CLOEXEC", general::O_CLOEXEC as u64)];
static SOCKET_TYPE: Names = Names {
    choice: 0xf,
    choices: named!(net { SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET }),
    flags: SOCKET_FLAGS,
};
static ACCEPT: Names = Names::flags(SOCKET_FLAGS);
static SIGNAL_FILE: Names =
    Names::flags(&[("SFD_NONBLOCK", general::O_NONBLOCK as u64), ("SFD_CLOEXEC", general::O_CLOEXEC as u64)]);
static FUTEX: Names = Names {
    choice: general::FUTEX_CMD_MASK as u32 as u64,
    choices: named!(general {
        FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI
        FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI FUTEX_CMP_REQUEUE_PI FUTEX_LOCK_PI2
    }),
    flags: named!(general { FUTEX_PRIVATE_FLAG FUTEX_CLOCK_REALTIME }),
};
static REMOVE: Names = Names::flags(named!(general { AT_REMOVEDIR }));
static EFFECTIVE: Names = Names::flags(named!(general { AT_EACCESS AT_SYMLINK_NOFOLLOW AT_EMPTY_PATH }));
static CLOSE_RANGE: Names = Names::flags(&[("CLOSE_RANGE_UNSHARE", 2), ("CLOSE_RANGE_CLOEXEC", 4)]);
/// asm/prctl.h of x86.
static ARCHITECTURE: Names = Names::one_of(&[
    ("ARCH_SET_GS", 0x1001),
    ("ARCH_SET_FS", 0x1002),
    ("ARCH_GET_FS", 0x1003),
    ("ARCH_GET_GS", 0x1004),
    ("ARCH_GET_CPUID", 0x1011),
    ("ARCH_SET_CPUID", 0x1012),
]);
static INTERNET: Names = Names::one_of(&[
    ("IPPROTO_IP", 0),
    ("IPPROTO_ICMP", 1),
    ("IPPROTO_TCP", 6),
    ("IPPROTO_UDP", 17),
    ("IPPROTO_ICMPV6", 58),
    ("IPPROTO_SCTP", 132),
    ("IPPROTO_RAW", 255),
    ("IPPROTO_MPTCP", 262),
]);

one_of! {
    LEVEL = net { SOL_SOCKET SOL_IP SOL_TCP SOL_UDP SOL_IPV6 SOL_ICMPV6 SOL_RAW SOL_PACKET SOL_NETLINK SOL_SCTP SOL_TLS };
    SOCKET_OPTION = net {
        SO_DEBUG SO_REUSEADDR SO_TYPE SO_ERROR SO_DONTROUTE SO_BROADCAST SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE SO_PRIORITY
        SO_LINGER SO_REUSEPORT SO_PASSCRED SO_PEERCRED SO_RCVLOWAT SO_SNDLOWAT SO_RCVTIMEO_OLD SO_SNDTIMEO_OLD SO_BINDTODEVICE
        SO_ATTACH_FILTER SO_ACCEPTCONN SO_SNDBUFFORCE SO_RCVBUFFORCE SO_MARK SO_PROTOCOL SO_DOMAIN SO_COOKIE SO_PEERGROUPS
    };
    TCP_OPTION = net {
        TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_DEFER_ACCEPT TCP_INFO TCP_QUICKACK
        TCP_CONGESTION TCP_USER_TIMEOUT TCP_FASTOPEN
    };
    SHUTDOWN = net { SHUT_RD SHUT_WR SHUT_RDWR };
    WHENCE = general { SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE };
    MASKING = general { SIG_BLOCK SIG_UNBLOCK SIG_SETMASK };
    ADVICE = general {
        MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK
        MADV_HWPOISON MADV_SOFT_OFFLINE MADV_MERGEABLE MADV_UNMERGEABLE MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP MADV_DODUMP
        MADV_WIPEONFORK MADV_KEEPONFORK MADV_COLD MADV_PAGEOUT MADV_POPULATE_READ MADV_POPULATE_WRITE MADV_COLLAPSE
        MADV_GUARD_INSTALL MADV_GUARD_REMOVE
    };
    FILE_ADVICE = general {
        POSIX_FADV_NORMAL POSIX_FADV_RANDOM POSIX_FADV_SEQUENTIAL POSIX_FADV_WILLNEED POSIX_FADV_DONTNEED POSIX_FADV_NOREUSE
    };
    FILE_CONTROL = general {
        F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN F_SETSIG F_GETSIG F_SETOWN_EX
        F_GETOWN_EX F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_SETLEASE F_GETLEASE F_NOTIFY F_DUPFD_QUERY F_DUPFD_CLOEXEC
        F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS
    };
    DEVICE_CONTROL = ioctl {
        TCGETS TCSETS TCSETSW TCSETSF TIOCSCTTY TIOCGPGRP TIOCSPGRP TIOCGWINSZ TIOCSWINSZ FIONREAD FIONBIO FIOCLEX FIONCLEX
        TIOCGPTN TIOCSPTLCK
    };
    EPOLL = general { EPOLL_CTL_ADD EPOLL_CTL_DEL EPOLL_CTL_MOD };
    CLOCK = general {
        CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE
        CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME CLOCK_REALTIME_ALARM CLOCK_BOOTTIME_ALARM CLOCK_TAI
    };
    PROCESS_CONTROL = prctl {
        PR_SET_PDEATHSIG PR_GET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_GET_KEEPCAPS PR_SET_KEEPCAPS PR_SET_NAME PR_GET_NAME
        PR_GET_SECCOMP PR_SET_SECCOMP PR_CAPBSET_READ PR_CAPBSET_DROP PR_GET_SECUREBITS PR_SET_SECUREBITS PR_SET_TIMERSLACK
        PR_GET_TIMERSLACK PR_SET_MM PR_SET_PTRACER PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER PR_SET_NO_NEW_PRIVS
        PR_GET_NO_NEW_PRIVS PR_SET_THP_DISABLE PR_GET_THP_DISABLE PR_CAP_AMBIENT PR_GET_SPECULATION_CTRL PR_SET_SPECULATION_CTRL
        PR_SET_VMA PR_SET_IO_FLUSHER PR_GET_IO_FLUSHER PR_SET_SYSCALL_USER_DISPATCH PR_SET_MDWE PR_GET_MDWE
    };
    RESOURCE = general {
        RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS
        RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME
    };
    USAGE = general { RUSAGE_SELF RUSAGE_CHILDREN RUSAGE_THREAD };
    PRIORITY = general { PRIO_PROCESS PRIO_PGRP PRIO_USER };
    TIMER = general { ITIMER_REAL ITIMER_VIRTUAL ITIMER_PROF };
    WAITED_FOR = general { P_ALL P_PID P_PGID P_PIDFD };
    TRACE = ptrace {
        PTRACE_TRACEME PTRACE_PEEKTEXT PTRACE_PEEKDATA PTRACE_PEEKUSR PTRACE_POKETEXT PTRACE_POKEDATA PTRACE_POKEUSR PTRACE_CONT
        PTRACE_KILL PTRACE_SINGLESTEP PTRACE_GETREGS PTRACE_SETREGS PTRACE_ATTACH PTRACE_DETACH PTRACE_SYSCALL PTRACE_SETOPTIONS
        PTRACE_GETEVENTMSG PTRACE_GETSIGINFO PTRACE_SETSIGINFO PTRACE_GETREGSET PTRACE_SETREGSET PTRACE_SEIZE PTRACE_INTERRUPT
        PTRACE_LISTEN PTRACE_GET_SYSCALL_INFO
    };
    SECCOMP = ptrace { SECCOMP_SET_MODE_STRICT SECCOMP_SET_MODE_FILTER SECCOMP_GET_ACTION_AVAIL SECCOMP_GET_NOTIF_SIZES };
    SCHEDULER = general { SCHED_NORMAL SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_IDLE SCHED_DEADLINE };
}

flags! {
    AT = general {
        AT_SYMLINK_NOFOLLOW AT_SYMLINK_FOLLOW AT_NO_AUTOMOUNT AT_EMPTY_PATH AT_STATX_FORCE_SYNC AT_STATX_DONT_SYNC AT_RECURSIVE
    };
    STATUS = general {
        STATX_BASIC_STATS STATX_TYPE STATX_MODE STATX_NLINK STATX_UID STATX_GID STATX_ATIME STATX_MTIME STATX_CTIME STATX_INO
        STATX_SIZE STATX_BLOCKS STATX_BTIME STATX_MNT_ID STATX_DIOALIGN STATX_MNT_ID_UNIQUE
    };
    MESSAGE = net {
        MSG_OOB MSG_PEEK MSG_DONTROUTE MSG_CTRUNC MSG_TRUNC MSG_DONTWAIT MSG_EOR MSG_WAITALL MSG_CONFIRM MSG_ERRQUEUE MSG_NOSIGNAL
        MSG_MORE MSG_CMSG_CLOEXEC
    };
    WAIT = general { WNOHANG WUNTRACED WEXITED WCONTINUED WNOWAIT __WNOTHREAD __WALL __WCLONE };
    LOCK = general { LOCK_SH LOCK_EX LOCK_NB LOCK_UN };
    MOVE = general { MREMAP_MAYMOVE MREMAP_FIXED MREMAP_DONTUNMAP };
    SYNC = general { MS_ASYNC MS_INVALIDATE MS_SYNC };
    LOCK_ALL = general { MCL_CURRENT MCL_FUTURE MCL_ONFAULT };
    MOUNT = general {
        MS_RDONLY MS_NOSUID MS_NODEV MS_NOEXEC MS_SYNCHRONOUS MS_REMOUNT MS_MANDLOCK MS_DIRSYNC MS_NOSYMFOLLOW MS_NOATIME
        MS_NODIRATIME MS_BIND MS_MOVE MS_REC MS_SILENT MS_POSIXACL MS_UNBINDABLE MS_PRIVATE MS_SLAVE MS_SHARED MS_RELATIME
        MS_STRICTATIME MS_LAZYTIME
    };
    UNMOUNT = general { MNT_FORCE MNT_DETACH MNT_EXPIRE UMOUNT_NOFOLLOW };
    RENAME = general { RENAME_NOREPLACE RENAME_EXCHANGE RENAME_WHITEOUT };
    RANDOM = general { GRND_NONBLOCK GRND_RANDOM GRND_INSECURE };
    MEMORY_FILE = general { MFD_CLOEXEC MFD_ALLOW_SEALING MFD_HUGETLB MFD_NOEXEC_SEAL MFD_EXEC };
    EVENT_FILE = general { EFD_SEMAPHORE EFD_CLOEXEC EFD_NONBLOCK };
    TIMER_FILE = general { TFD_CLOEXEC TFD_NONBLOCK };
    TIMER_SETTING = general { TFD_TIMER_ABSTIME TFD_TIMER_CANCEL_ON_SET };
    SLEEP = general { TIMER_ABSTIME };
    EPOLL_FILE = general { EPOLL_CLOEXEC };
    PIPE = general { O_CLOEXEC O_NONBLOCK };
    WATCHING = general { IN_CLOEXEC IN_NONBLOCK };
    WATCH = general {
        IN_ALL_EVENTS IN_ACCESS IN_MODIFY IN_ATTRIB IN_CLOSE_WRITE IN_CLOSE_NOWRITE IN_OPEN IN_MOVED_FROM IN_MOVED_TO IN_CREATE
        IN_DELETE IN_DELETE_SELF IN_MOVE_SELF IN_ONLYDIR IN_DONT_FOLLOW IN_EXCL_UNLINK IN_MASK_CREATE IN_MASK_ADD IN_ONESHOT
    };
    ALLOCATION = general {
        FALLOC_FL_KEEP_SIZE FALLOC_FL_PUNCH_HOLE FALLOC_FL_COLLAPSE_RANGE FALLOC_FL_ZERO_RANGE FALLOC_FL_INSERT_RANGE
        FALLOC_FL_UNSHARE_RANGE
    };
    SPLICE = general { SPLICE_F_MOVE SPLICE_F_NONBLOCK SPLICE_F_MORE SPLICE_F_GIFT };
    ATTRIBUTE = general { XATTR_CREATE XATTR_REPLACE };
    TRANSFER = general { RWF_HIPRI RWF_DSYNC RWF_SYNC RWF_NOWAIT RWF_APPEND };
    DESCRIPTOR = general { FD_CLOEXEC };
}

/// The names for an argument of a call, which may depend on the others.
pub(crate) fn of(call: &str, argument: &str, registers: &[u64; 6]) -> Option<&'static Names> {
    let second = registers[1] as u32;
    Some(match (call, argument) {
        ("socket" | "socketpair", "family") => &FAMILIES,
        ("socket" | "socketpair", "type") => &SOCKET_TYPE,
        ("socket", "protocol") if matches!(registers[0] as u32, net::AF_INET | net::AF_INET6) => &INTERNET,
        ("accept4", "flags") => &ACCEPT,
        ("setsockopt" | "getsockopt", "level") => &LEVEL,
        ("setsockopt" | "getsockopt", "optname") if second == net::SOL_SOCKET => &SOCKET_OPTION,
        ("setsockopt" | "getsockopt", "optname") if second == net::SOL_TCP => &TCP_OPTION,
        ("shutdown", "how") => &SHUTDOWN,
        ("sendto" | "sendmsg" | "sendmmsg" | "recvfrom" | "recvmsg" | "recvmmsg", "flags") => &MESSAGE,
        ("clone", "clone_flags") => &CLONE,
        ("unshare", "unshare_flags") | ("setns", "flags") => &NAMESPACES,
        ("mmap" | "mprotect" | "pkey_mprotect", "prot") => &PROTECTION,
        ("mmap", "flags") => &MAPPING,
        ("mremap", "flags") => &MOVE,
        ("msync", "flags") => &SYNC,
        ("mlockall", "flags") => &LOCK_ALL,
        ("madvise" | "process_madvise", "behavior") => &ADVICE,
        ("fadvise64", "advice") => &FILE_ADVICE,
        ("access" | "faccessat" | "faccessat2", "mode") => &ACCESS,
        ("faccessat2", "flags") => &EFFECTIVE,
        ("unlinkat", "flag") => &REMOVE,
        ("newfstatat" | "fchownat" | "name_to_handle_at", "flag") => &AT,
        ("linkat" | "statx" | "execveat" | "utimensat" | "fchmodat2", "flags") => &AT,
        ("statx", "mask") => &STATUS,
        ("renameat2", "flags") => &RENAME,
        ("lseek", "whence") => &WHENCE,
        ("flock", "cmd") => &LOCK,
        ("fcntl", "cmd") => &FILE_CONTROL,
        ("fcntl", "arg") if second == general::F_SETFD => &DESCRIPTOR,
        ("ioctl", "cmd") => &DEVICE_CONTROL,
        ("fallocate", "mode") => &ALLOCATION,
        ("splice" | "tee" | "vmsplice", "flags") => &SPLICE,
        ("setxattr" | "lsetxattr" | "fsetxattr", "flags") => &ATTRIBUTE,
        ("preadv2" | "pwritev2", "flags") => &TRANSFER,
        ("close_range", "flags") => &CLOSE_RANGE,
        ("pipe2" | "dup3", "flags") => &PIPE,
        ("mount", "flags") => &MOUNT,
        ("umount2", "flags") => &UNMOUNT,
        ("kill" | "tkill" | "tgkill", "sig") => &SIGNAL,
        ("rt_sigaction" | "rt_sigqueueinfo" | "rt_tgsigqueueinfo" | "pidfd_send_signal", "sig") => &SIGNAL,
        ("rt_sigprocmask", "how") => &MASKING,
        ("wait4" | "waitid", "options") => &WAIT,
        ("waitid", "which") => &WAITED_FOR,
        ("futex", "op") => &FUTEX,
        ("epoll_ctl", "op") => &EPOLL,
        ("epoll_create1", "flags") => &EPOLL_FILE,
        ("eventfd2", "flags") => &EVENT_FILE,
        ("signalfd4", "flags") => &SIGNAL_FILE,
        ("timerfd_create", "flags") => &TIMER_FILE,
        ("timerfd_settime" | "timer_settime", "flags") => &TIMER_SETTING,
        ("inotify_init1", "flags") => &WATCHING,
        ("inotify_add_watch", "mask") => &WATCH,
        ("memfd_create", "flags") => &MEMORY_FILE,
        ("getrandom", "flags") => &RANDOM,
        ("clock_nanosleep", "flags") => &SLEEP,
        (_, "which_clock" | "clockid") => &CLOCK,
        ("prctl", "option") => &PROCESS_CONTROL,
        ("arch_prctl", "option") => &ARCHITECTURE,
        ("getrlimit" | "setrlimit" | "prlimit64", "resource") => &RESOURCE,
        ("getrusage", "who") => &USAGE,
        ("getpriority" | "setpriority", "which") => &PRIORITY,
        ("getitimer" | "setitimer", "which") => &TIMER,
        ("ptrace", "request") => &TRACE,
        ("seccomp", "op") => &SECCOMP,
        ("sched_setscheduler" | "sched_get_priority_max" | "sched_get_priority_min", "policy") => &SCHEDULER,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: &str, argument: &str, number: u64) -> Option<String> {
        of(call, argument, &[2, 1, 0, 0, 0, 0]).expect("names").text(number)
    }

    #[test]
    fn numbers_have_names() {
        for (call, argument, number, expected) in [
            ("mmap", "prot", 0, Some("PROT_NONE")),
            ("mmap", "prot", 3, Some("PROT_READ|PROT_WRITE")),
            ("mmap", "flags", 0x22, Some("MAP_PRIVATE|MAP_ANONYMOUS")),
            ("socket", "type", 0x80801, Some("SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC")),
            ("socket", "protocol", 6, Some("IPPROTO_TCP")),
            ("futex", "op", 0x81, Some("FUTEX_WAKE|FUTEX_PRIVATE_FLAG")),
            ("clone", "clone_flags", 0x4111, Some("SIGCHLD|CLONE_VM|CLONE_VFORK")),
            ("access", "mode", 0, Some("F_OK")),
            ("access", "mode", 6, Some("R_OK|W_OK")),
            ("setsockopt", "optname", 2, Some("SO_REUSEADDR")),
            ("kill", "sig", 15, Some("SIGTERM")),
            ("kill", "sig", 99, None),
            ("newfstatat", "flag", 0, None),
            ("newfstatat", "flag", 0x1100, Some("AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH")),
            ("sendto", "flags", 1 << 30 | 0x4000, Some("MSG_NOSIGNAL|MSG_CMSG_CLOEXEC")),
        ] {
            assert_eq!(text(call, argument, number).as_deref(), expected, "{call} {argument} {number:#x}");
        }
    }
}
