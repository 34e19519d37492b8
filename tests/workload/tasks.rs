//! Processes that are made, and put into cgroups.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::exit;

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_name;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, execve, fork, pause, pipe, setuid};

use super::binds::set_option_to;
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

/// What a child of a family becomes: none is like the one before.
fn member(number: usize, ready: &File) -> ! {
    set_name(&c(format!("member-{number}").as_bytes())).unwrap();
    if number % 3 == 1 {
        for thread in 0..2 {
            let name = c(format!("thread-{thread}").as_bytes());
            std::thread::spawn(move || {
                set_name(&name).unwrap();
                pause();
            });
        }
    }
    if number % 3 == 2 {
        setuid(Uid::from_raw(1000 + number as u32)).unwrap();
    }
    let mut ready = ready;
    ready.write_all(b"!").unwrap();
    match number % 6 {
        // The first thread ends, and the others go on.
        // SAFETY: it takes a number, and nothing of this thread is used any more.
        1 => _ = unsafe { libc::syscall(libc::SYS_exit, 0) },
        3 => raise(Signal::SIGSTOP).unwrap(),
        _ => {}
    }
    loop {
        pause();
    }
}

/// One of each kind, for a family to inherit.
fn open_files(name: &str) -> impl Sized + use<> {
    let [plain, deleted, socket] = ["plain", "deleted", "socket"].map(|kind| format!("{name}.{kind}"));
    let mut file = OpenOptions::new().create(true).append(true).open(plain).unwrap();
    file.write_all(b"content").unwrap();
    let gone = File::create(&deleted).unwrap();
    fs::remove_file(deleted).unwrap();
    let folder = File::open("/tmp").unwrap();
    let memory = memfd_create(c"memory", MFdFlags::MFD_CLOEXEC).unwrap();
    let (epoll, event) = (Epoll::new(EpollCreateFlags::empty()).unwrap(), EventFd::new().unwrap());
    let namespace = File::open("/proc/self/ns/net").unwrap();
    // SAFETY: it takes numbers, and makes a descriptor.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    assert!(process >= 0, "pidfd_open: {}", Errno::last());
    (file, gone, folder, memory, epoll, event, open_sockets(&socket), File::open("/dev/null").unwrap(), namespace)
}

/// Some of each kind, with something in their queues.
fn open_sockets(path: &str) -> impl Sized + use<> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    connected.write_all(b"12345").unwrap();
    // This one is never accepted.
    let waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let all = TcpListener::bind("[::]:0").unwrap();
    let (datagrams, sender) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    sender.connect(datagrams.local_addr().unwrap()).unwrap();
    sender.send(b"datagram").unwrap();
    let _ = fs::remove_file(path);
    let named = UnixListener::bind(path).unwrap();
    let abstracted = SocketAddr::from_abstract_name(path).unwrap();
    let abstracted = UnixDatagram::bind_addr(&abstracted).unwrap();
    let mut pair = UnixStream::pair().unwrap();
    pair.0.write_all(b"1234567").unwrap();
    pair.1.read_exact(&mut [0; 3]).unwrap();
    let closed = close_connections(&all);
    (listener, connected, accepted, waiting, all, (datagrams, sender, named, abstracted, pair, closed))
}

/// Connections of which one end is closed, or both are; and one that is not quite there.
fn close_connections(listener: &TcpListener) -> impl Sized + use<> {
    let port = listener.local_addr().unwrap().port();
    let connect = |host: &str| (TcpStream::connect((host, port)).unwrap(), listener.accept().unwrap().0);
    for host in ["127.0.0.1", "::1"] {
        let (caller, answerer) = connect(host);
        drop(caller);
        drop(answerer);
    }
    // The other end stays.
    let half = connect("127.0.0.1").1;
    // Nor does that read what was sent.
    let (mut caller, deaf) = connect("::1");
    caller.set_nonblocking(true).unwrap();
    while caller.write(&[0; 65_536]).is_ok() {}
    drop(caller);
    // It is not accepted before it has sent something.
    let patient = TcpListener::bind("127.0.0.1:0").unwrap();
    set_option_to(&patient, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60);
    let silent = TcpStream::connect(patient.local_addr().unwrap()).unwrap();
    (half, deaf, patient, silent)
}

/// A parent, so many children that wait, and one that has ended, which nobody has noticed.
pub(super) fn family(count: usize, ready: &str, go: &str) {
    let (mut told, tell) = pipe().map(|(told, tell)| (File::from(told), File::from(tell))).unwrap();
    // SAFETY: this process has no other threads.
    let child = |become_it: &dyn Fn()| match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            become_it();
            exit(0)
        }
        ForkResult::Parent { child } => child,
    };
    let _open = open_files(ready);
    let members: Vec<Pid> = (0..count).map(|number| child(&|| member(number, &tell))).collect();
    let dead = child(&|| ());
    told.read_exact(&mut vec![0; count]).unwrap();
    waitid(Id::Pid(dead), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    fs::write(ready, "").unwrap();
    // A fifo: it is opened when somebody opens its other end.
    File::open(go).unwrap();
    for member in members {
        kill(member, Signal::SIGKILL).unwrap();
        waitpid(member, None).unwrap();
    }
}
