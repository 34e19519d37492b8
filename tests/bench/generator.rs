//! Makes events of one kind, so many, as fast as it can or at a rate.
//!
//! `generator KIND COUNT --path PATH [--rate N] [--seconds N] [--cpu N]` prints "ready" and waits for a line, so that its
//! own start is not measured and it can be put anywhere meanwhile; then it makes the events and prints one line of JSON:
//! `kind`, `count`, how many `ns` they took, and how many `cpu_ns` of these it ran. It does so again at each further line.

#![allow(clippy::unwrap_used, reason = "its own failure ends it, and whoever started it notices")]

use std::ffi::{CStr, CString};
use std::hint::black_box;
use std::io::{Read as _, Write as _, stdin};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, clone, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, execve};
use tests::Addresses;

/// Makes events of one kind.
#[derive(Parser)]
struct Args {
    kind: Kind,
    /// How many
    count: u64,
    /// The file of opens, and the argument of programs
    #[arg(long)]
    path: PathBuf,
    /// How many a second; else as many as can be
    #[arg(long)]
    rate: Option<u64>,
    /// Until this has passed, if it cannot make all in it
    #[arg(long)]
    seconds: Option<u64>,
    /// Over how many connections in turn pings go
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// The processor to run on
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Open and close a file
    Opens,
    /// Try to open a file that does not exist
    FailingOpens,
    /// Start a program that ends at once
    Execs,
    /// Try to start a program that does not exist
    FailingExecs,
    /// Connect to a port of its own, and close
    Connects,
    /// Send a DNS query to a port of its own
    Dns,
    /// Send a datagram from an address of its own to another, and take it
    Datagrams,
    /// Send a byte over a connection to itself, and take it
    Pings,
    /// Bind a socket of UDP, and close it
    Binds,
    /// A system call that checks a capability, and does nothing else
    Checks,
    /// A system call that nobody traces
    Syscalls,
    /// Something to compute that takes about as long, and no system call
    Computations,
}

/// As its first argument: end at once.
const NOTHING: &CStr = c"nothing";
/// Events between two looks at the clock, if it matters.
const BURST: u64 = 16;
/// Of what is computed.
const STEPS: u32 = 60;
/// A query for the address of `bench.test`.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05bench\x04test\x00\x00\x01\x00\x01";

fn main() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg.as_encoded_bytes() == NOTHING.to_bytes()) {
        return;
    }
    let args = Args::parse();
    if let Some(cpu) = args.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
    }
    let path = CString::new(args.path.into_os_string().into_vec()).unwrap();
    let mut event = args.kind.event(path, args.connections);
    println!("ready");
    let limit = args.seconds.map_or(Duration::MAX, Duration::from_secs);
    for line in stdin().lines() {
        line.unwrap();
        let (began, ran) = (Instant::now(), cpu_time());
        let mut count = 0;
        while count < args.count {
            event();
            count += 1;
            if count % BURST == 0 && (args.rate.is_some() || args.seconds.is_some()) {
                let passed = began.elapsed();
                if passed >= limit {
                    break;
                }
                let due = args.rate.map_or(Duration::ZERO, |rate| Duration::from_nanos(count * 1_000_000_000 / rate));
                std::thread::sleep(due.saturating_sub(passed));
            }
        }
        let (ns, cpu_ns) = (began.elapsed().as_nanos(), (cpu_time() - ran).as_nanos());
        let kind = args.kind.to_possible_value().unwrap();
        println!(r#"{{"kind":"{}","count":{count},"ns":{ns},"cpu_ns":{cpu_ns}}}"#, kind.get_name());
    }
}

/// How long this process has run: what others take of the processor does not count.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

impl Kind {
    /// What makes one.
    fn event(self, path: CString, connections: u32) -> Box<dyn FnMut()> {
        match self {
            Self::Opens => Box::new(move || assert_eq!(nix::unistd::close(open(&path).unwrap()), Ok(()))),
            Self::FailingOpens => Box::new(move || assert_eq!(open(&path), Err(Errno::ENOENT))),
            Self::Execs => execs(path),
            Self::FailingExecs => Box::new(move || {
                assert_eq!(execve::<&CStr, &CStr>(c"/missing", &[NOTHING, &path], &[]), Err(Errno::ENOENT));
            }),
            Self::Connects => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = listener.local_addr().unwrap();
                Box::new(move || {
                    drop(TcpStream::connect(address).unwrap());
                    drop(listener.accept().unwrap());
                })
            }
            Self::Dns => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = socket.local_addr().unwrap();
                let mut buffer = [0; QUERY.len()];
                Box::new(move || {
                    socket.send_to(QUERY, address).unwrap();
                    assert_eq!(socket.recv(&mut buffer).unwrap(), QUERY.len());
                })
            }
            Self::Datagrams => {
                let [sender, taker] = [1, 2].map(|index| UdpSocket::bind((Addresses::v4(index), 0)).unwrap());
                sender.connect(taker.local_addr().unwrap()).unwrap();
                Box::new(move || {
                    sender.send(b"!").unwrap();
                    taker.recv(&mut [0]).unwrap();
                })
            }
            Self::Pings => pings(connections),
            Self::Binds => Box::new(|| drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())),
            Self::Checks => Box::new(|| {
                // SAFETY: without a time and without a zone it sets nothing.
                assert_eq!(unsafe { libc::syscall(libc::SYS_settimeofday, 0, 0) }, 0);
            }),
            // SAFETY: it has no arguments and touches nothing.
            Self::Syscalls => Box::new(|| _ = unsafe { libc::syscall(libc::SYS_getppid) }),
            Self::Computations => Box::new(|| {
                let next = |number: u64, _| black_box(number.wrapping_mul(3).wrapping_add(1));
                black_box((0..STEPS).fold(1, next));
            }),
        }
    }
}

fn open(path: &CStr) -> Result<i32, Errno> {
    // SAFETY: the kernel reads a string there.
    Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
}

/// Over connections that are there before the first.
fn pings(connections: u32) -> Box<dyn FnMut()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
    let mut all: Vec<_> = (0..connections).map(connect).collect();
    let mut next = 0;
    Box::new(move || {
        let (caller, answerer) = &mut all[next];
        caller.write_all(b"!").unwrap();
        answerer.read_exact(&mut [0]).unwrap();
        next = (next + 1) % all.len();
    })
}

/// Itself, in a way that ends at once.
fn execs(mark: CString) -> Box<dyn FnMut()> {
    let me = CString::new(std::env::current_exe().unwrap().into_os_string().into_vec()).unwrap();
    let mut stack = vec![0; 64 << 10];
    Box::new(move || {
        let argv = [me.as_c_str(), NOTHING, mark.as_c_str()];
        let child = || execve::<&CStr, &CStr>(&me, &argv, &[]).map_or(1, |never| match never {});
        let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        // SAFETY: the child, on a stack of its own, does nothing but exec, and this process waits meanwhile.
        let child = unsafe { clone(Box::new(child), &mut stack, flags, Some(libc::SIGCHLD)) };
        waitpid(child.unwrap(), None).unwrap();
    })
}
