//! What runs in the containers that the tests watch. Static, so that it needs nothing there.
//!
//! - `workload execs COUNT LOG`: starts programs in every way there is, COUNT in all; if that is less than 100, each way once
//!   before any twice
//! - `workload forks COUNT LOG`: makes COUNT children, one after the other, each of which writes a line
//! - `workload opens COUNT LOG`: opens files in every way there is, COUNT in all
//! - `workload failing-opens COUNT`: COUNT attempts to open a file that is not there
//! - `workload vforks COUNT`: makes COUNT children that end at once
//! - `workload after-one FILE COMMAND COUNT ARG…`: a command of these with a COUNT of 1, and with the rest of COUNT when
//!   FILE is there
//! - `workload storm COUNT BYTES`: COUNT attempts that fail, as fast as they go, each with BYTES of arguments
//! - `workload into CGROUP PROGRAM ARG…`: becomes, in a child that is born in this cgroup, the program, after one attempt
//!   that fails
//! - `workload report LOG TOKEN …`: what is started: writes down its own /proc/self/cmdline
//!
//! The log has one line an attempt: result, then the arguments in base64. For a program that was started it is written
//! by that program, from /proc; for an attempt that failed by who attempted it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, exit};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sched::{CloneFlags, clone};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, execve, execveat, fork};

fn main() {
    let args: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    run(&args);
}

fn run(args: &[Vec<u8>]) {
    let text = |index: usize| String::from_utf8_lossy(&args[index]).into_owned();
    match args.get(1).map(Vec::as_slice) {
        Some(b"forks") => forks(text(2).parse().unwrap(), &text(3)),
        Some(b"opens") => opens(text(2).parse().unwrap(), &text(3)),
        Some(b"failing-opens") => failing_opens(text(2).parse().unwrap()),
        Some(b"vforks") => vforks(text(2).parse().unwrap()),
        Some(b"after-one") => after_one(&text(2), &args[2..]),
        Some(b"execs") => Execs::new(text(3)).run(text(2).parse().unwrap()),
        Some(b"storm") => storm(text(2).parse().unwrap(), text(3).parse().unwrap()),
        Some(b"into") => into(&text(2), &args[3..]),
        Some(b"report") => report(&text(2)),
        _ => exit(2),
    }
}

fn log(path: &str, result: i32, args: &[Vec<u8>]) {
    let args: Vec<String> = args.iter().map(|arg| BASE64_STANDARD.encode(arg)).collect();
    let line = format!("{result} {}\n", args.join(" "));
    // One write to a file opened for appending: lines of several processes do not mix.
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}

fn report(path: &str) {
    // The kernel runs a script as INTERPRETER ARGUMENT SCRIPT …: there the log is where the script is.
    let path = path.strip_suffix(".script").unwrap_or(path);
    let cmdline = fs::read("/proc/self/cmdline").unwrap();
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(&cmdline);
    let args: Vec<Vec<u8>> = cmdline.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    log(path, 0, &args);
}

fn c(text: &[u8]) -> CString {
    CString::new(text).unwrap()
}

fn storm(count: usize, bytes: usize) {
    let argv = [c(b"storm"), c(&vec![b'x'; bytes.min(4000)])];
    let repeated: Vec<&CStr> = std::iter::once(argv[0].as_c_str())
        .chain(std::iter::repeat_n(argv[1].as_c_str(), bytes.div_ceil(4000)))
        .collect();
    for _ in 0..count {
        assert_eq!(execve::<&CStr, &CStr>(c"/missing", &repeated, &[]), Err(Errno::ENOENT));
    }
}

fn forks(count: usize, log_path: &str) {
    for _ in 0..count {
        in_child(|| {
            log(log_path, 0, &[]);
            exit(0)
        });
    }
}

fn vforks(count: usize) {
    let mut stack = vec![0; 64 << 10];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    for _ in 0..count {
        // SAFETY: the child, on a stack of its own, does nothing but end, and this process waits meanwhile.
        let child = unsafe { clone(Box::new(|| 0), &mut stack, flags, Some(libc::SIGCHLD)) };
        waitpid(child.unwrap(), None).unwrap();
    }
}

fn opens(count: usize, log_path: &str) {
    std::env::set_current_dir("/tmp").unwrap();
    let mut attempts = Vec::new();
    let mut attempt = |call: Open, path: Vec<u8>| {
        let c_path = c(&path);
        let result = call(c_path.as_ptr());
        if result >= 0 {
            assert_eq!(nix::unistd::close(result), Ok(()));
        }
        let _ = fs::remove_file(OsString::from_vec(path.clone()));
        attempts.push((result, path));
    };
    for index in 0..count {
        let token = format!("token-{index}");
        let path = |rest: &str| format!("{rest}{token}").into_bytes();
        match index % 8 {
            0 => attempt(openat, path("/tmp/")),
            1 => attempt(openat, path("")),
            2 => attempt(open, path("/tmp/")),
            3 => attempt(open, path("/missing/")),
            4 => attempt(openat, [&path("/missing/\x1b[31m\n\u{202e}txt")[..], b"\xff"].concat()),
            // As long as a path may be, and longer.
            5 => attempt(openat, path(&format!("/tmp{}", "/".repeat(4095 - 4 - token.len())))),
            6 => attempt(openat, path(&"/x".repeat(3000))),
            _ => attempt(openat_in_thread, path("/tmp/")),
        }
    }
    let nowhere = std::ptr::without_provenance(1);
    attempts.push((openat(nowhere), Vec::new()));
    for (result, path) in attempts {
        log(log_path, result, &[path]);
    }
}

type Open = fn(*const libc::c_char) -> i32;

/// The result as the kernel has it: a descriptor, or minus the error.
fn opened(result: libc::c_long) -> i32 {
    if result < 0 { -Errno::last_raw() } else { i32::try_from(result).unwrap() }
}

const CREATE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;

fn openat(path: *const libc::c_char) -> i32 {
    // SAFETY: the kernel reads a string there, or fails.
    opened(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, CREATE, 0o600) })
}

fn open(path: *const libc::c_char) -> i32 {
    // SAFETY: the kernel reads a string there, or fails.
    opened(unsafe { libc::syscall(libc::SYS_open, path, CREATE, 0o600) })
}

fn openat_in_thread(path: *const libc::c_char) -> i32 {
    let address = path.expose_provenance();
    std::thread::spawn(move || openat(std::ptr::with_exposed_provenance(address))).join().unwrap()
}

fn failing_opens(count: usize) {
    for _ in 0..count {
        assert_eq!(openat(c"/missing/file".as_ptr()), -libc::ENOENT);
    }
}

fn after_one(file: &str, args: &[Vec<u8>]) {
    let with_count = |count: usize| {
        let mut args = args.to_vec();
        args[2] = count.to_string().into_bytes();
        run(&args);
    };
    let count: usize = String::from_utf8_lossy(&args[2]).parse().unwrap();
    with_count(1);
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    with_count(count - 1);
}

fn into(cgroup: &str, program: &[Vec<u8>]) {
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

struct Execs {
    log: String,
    me: Vec<u8>,
    memfd: OwnedFd,
    script: CString,
    garbage: CString,
    plain: CString,
}

/// One of each of the hundred ways in which [`Execs::attempt`] differs.
const WAYS: [usize; 17] = [0, 1, 2, 3, 20, 30, 40, 50, 60, 61, 62, 63, 64, 65, 66, 67, 68];

impl Execs {
    fn new(log: String) -> Self {
        let me = std::env::current_exe().unwrap();
        let memfd = memfd_create(c"program", MFdFlags::MFD_CLOEXEC).unwrap();
        File::from(memfd.try_clone().unwrap()).write_all(&fs::read(&me).unwrap()).unwrap();
        let file = |name: &str, content: &str, mode: u32| {
            let path = format!("{log}.{name}");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            CString::new(path).unwrap()
        };
        let script = file("script", &format!("#!{} report\n", me.display()), 0o755);
        let garbage = file("garbage", "\x01\x02\x03", 0o755);
        let plain = file("plain", "text", 0o644);
        Self { log, me: me.into_os_string().into_vec(), memfd, script, garbage, plain }
    }

    fn run(&self, count: usize) {
        for index in 0..count {
            let way = if count < 100 { WAYS[index % WAYS.len()] } else { index % 100 };
            self.attempt(index, way);
        }
    }

    fn attempt(&self, index: usize, way: usize) {
        let token = format!("token-{index}").into_bytes();
        // A hundred ways, most of them common; each number of the rest is one.
        match way {
            0 => self.start(&token, &many(200, 4)),
            1 => self.start(&token, &many(100, 1024)),
            2 => self.start(&token, &hostile()),
            3..20 => self.start_in_thread(&token),
            20..30 => self.replace_by_thread(&token),
            30..40 => self.start_script(&token),
            40..50 => self.start_memfd(&token),
            50..60 => self.fail(c"/missing/program", &token, &[]),
            60 => self.fail(&self.plain, &token, &[]),
            61 => self.fail(&self.garbage, &token, &[]),
            62 => self.fail(c"/proc/self/status/x", &token, &[]),
            63 => self.fail(c"/missing", &token, &many(200, 4)),
            64 => self.fail(c"/missing", &token, &many(3, 10_000)),
            65 => self.fail(c"/\x1b[31m\n\xff", &token, &hostile()),
            66 => self.fail(c"/missing", &token, &many(40, 1000)),
            67 => self.fail_at(&token),
            _ => self.start(&token, &[]),
        }
    }

    /// What a started program must be called with: it writes itself down.
    fn argv(&self, token: &[u8], rest: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut argv = vec![self.me.clone(), b"report".to_vec(), self.log.clone().into_bytes(), token.to_vec()];
        argv.extend_from_slice(rest);
        argv
    }

    fn start(&self, token: &[u8], rest: &[Vec<u8>]) {
        let argv: Vec<CString> = self.argv(token, rest).iter().map(|arg| c(arg)).collect();
        in_child(|| execve::<&CStr, &CStr>(&argv[0].clone(), &refs(&argv), &[]).unwrap_err());
    }

    fn start_in_thread(&self, token: &[u8]) {
        let argv = self.argv(token, &[]);
        let text = |arg: &Vec<u8>| std::ffi::OsString::from_vec(arg.clone());
        std::thread::spawn(move || {
            let status = Command::new(text(&argv[0])).args(argv[1..].iter().map(text)).status().unwrap();
            assert!(status.success());
        })
        .join()
        .unwrap();
    }

    /// A thread that is not the first calls exec: it takes over the process and its id.
    fn replace_by_thread(&self, token: &[u8]) {
        let argv = self.argv(token, &[]);
        in_child(|| {
            let text = |arg: &Vec<u8>| std::ffi::OsString::from_vec(arg.clone());
            let mut command = Command::new(text(&argv[0]));
            command.args(argv[1..].iter().map(text));
            std::thread::spawn(move || command.exec()).join().unwrap();
            Errno::UnknownErrno
        });
    }

    fn start_script(&self, token: &[u8]) {
        let argv = [c(b"ignored"), c(token)];
        in_child(|| execve::<&CStr, &CStr>(&self.script, &refs(&argv), &[]).unwrap_err());
    }

    fn start_memfd(&self, token: &[u8]) {
        let argv: Vec<CString> = self.argv(token, &[]).iter().map(|arg| c(arg)).collect();
        in_child(|| {
            execveat::<_, &CStr, &CStr>(self.memfd.as_fd(), c"", &refs(&argv), &[], AtFlags::AT_EMPTY_PATH).unwrap_err()
        });
    }

    fn fail(&self, path: &CStr, token: &[u8], rest: &[Vec<u8>]) {
        let mut args = vec![b"failing".to_vec(), token.to_vec()];
        args.extend_from_slice(rest);
        let argv: Vec<CString> = args.iter().map(|arg| c(arg)).collect();
        let error = execve::<&CStr, &CStr>(path, &refs(&argv), &[]).unwrap_err();
        log(&self.log, -(error as i32), &args);
    }

    fn fail_at(&self, token: &[u8]) {
        let args = [b"failing-at".to_vec(), token.to_vec()];
        let argv: Vec<CString> = args.iter().map(|arg| c(arg)).collect();
        let directory = File::open("/").unwrap();
        let error = execveat::<_, &CStr, &CStr>(directory.as_fd(), c"missing", &refs(&argv), &[], AtFlags::empty())
            .unwrap_err();
        log(&self.log, -(error as i32), &args);
    }
}

fn refs(argv: &[CString]) -> Vec<&CStr> {
    argv.iter().map(CString::as_c_str).collect()
}

/// Arguments: so many, each with so many bytes.
fn many(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| format!("{index:0bytes$}").into_bytes()).collect()
}

/// Arguments that break what reads them carelessly.
fn hostile() -> Vec<Vec<u8>> {
    [
        &b""[..],
        b"\x1b]0;owned\x07",
        b"a\nb",
        b"\xff\xfe",
        "\u{202e}txt".as_bytes(),
        b"\"quoted\" 'too'",
        b"",
        b"\\",
        b" ",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Runs something that ends in exec in a child, and waits for it.
fn in_child(exec: impl FnOnce() -> Errno) {
    // SAFETY: this process has no other threads when it forks: those that it starts were joined.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let error = exec();
            eprintln!("exec failed: {error}");
            exit(1);
        }
        ForkResult::Parent { child } => {
            waitpid(child, None).unwrap();
        }
    }
}
