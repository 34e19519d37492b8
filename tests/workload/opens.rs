//! Files that are opened, and attempts that fail.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use io_uring::IoUring;
use io_uring::opcode::OpenAt;
use io_uring::types::Fd;
use nix::errno::Errno;

use super::{c, log};

pub(super) fn opens(count: usize, log_path: &str) {
    std::env::set_current_dir("/tmp").unwrap();
    fs::write("plain", "").unwrap();
    let stem = Path::new(log_path).file_stem().unwrap().display().to_string();
    let mut attempts = Vec::new();
    // What is written down is the path, which file that is (of those whose names are no riddles), flags and mode.
    let mut attempt = |call: &Open, path: Vec<u8>| {
        let c_path = c(&path);
        let result = (call.open)(c_path.as_ptr());
        let mut file = Vec::new();
        if result >= 0 {
            file = fs::read_link(format!("/proc/self/fd/{result}")).unwrap().into_os_string().into_vec();
            assert_eq!(nix::unistd::close(result), Ok(()));
        }
        let _ = fs::remove_file(OsString::from_vec(path.clone()));
        let path = if call.has_path { path } else { Vec::new() };
        let flags = format!("{:#x}", call.flags).into_bytes();
        attempts.push((result, [path, file, flags, format!("{:04o}", call.mode).into_bytes()]));
    };
    for index in 0..count {
        // Another container may do the same beside it.
        let token = format!("token-{stem}-{index}");
        let path = |rest: &str| format!("{rest}{token}").into_bytes();
        match index % 12 {
            0 => attempt(&OPENAT, path("/tmp/")),
            1 => attempt(&OPENAT, path("")),
            2 => attempt(&OPEN, path("/tmp/")),
            3 => attempt(&OPEN, path("/missing/")),
            4 => attempt(&OPENAT, [&path("/missing/\x1b[31m\n\u{202e}txt")[..], b"\xff"].concat()),
            // As long as a path may be, and longer.
            5 => attempt(&OPENAT, path(&format!("/tmp{}", "/".repeat(4095 - 4 - token.len())))),
            6 => attempt(&OPENAT, path(&"/x".repeat(3000))),
            7 => attempt(&Open { open: openat_in_thread, ..OPENAT }, path("/tmp/")),
            8 => attempt(&CREAT, path("/tmp/./")),
            9 => attempt(&OPENAT2, path("/tmp/")),
            10 => attempt(&OPENAT2, path("/tmp/missing/")),
            _ => attempt(&OPEN_BY_HANDLE, b"/tmp/plain".to_vec()),
        }
    }
    uring_opens(count, &format!("{log_path}.uring"));
    let nowhere = std::ptr::without_provenance(1);
    let nothing = [Vec::new(), Vec::new(), format!("{CREATE:#x}").into_bytes(), b"0600".to_vec()];
    attempts.push((openat(nowhere), nothing));
    for (result, args) in attempts {
        log(log_path, result, &args);
    }
}

/// Opens through io_uring, where there is one: every second of them fails.
fn uring_opens(count: usize, log_path: &str) {
    let Ok(mut ring) = IoUring::new(8) else { return };
    for index in 0..count {
        let folder = if index % 2 == 0 { "" } else { "/missing" };
        // Others may be doing the same in the same folder.
        let path = format!("{folder}{log_path}-{index}").into_bytes();
        let c_path = c(&path);
        let open = OpenAt::new(Fd(libc::AT_FDCWD), c_path.as_ptr()).flags(CREATE).mode(0o600).build();
        // SAFETY: the path is there until the request is completed.
        unsafe { ring.submission().push(&open) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let result = ring.completion().next().unwrap().result();
        if result >= 0 {
            assert_eq!(nix::unistd::close(result), Ok(()));
            fs::remove_file(OsString::from_vec(path.clone())).unwrap();
        }
        let flags = format!("{CREATE:#x}").into_bytes();
        log(log_path, result, &[path, Vec::new(), flags, b"0600".to_vec()]);
    }
}

/// A way to open a file, and what it asks for.
struct Open {
    open: fn(*const libc::c_char) -> i32,
    has_path: bool,
    flags: i32,
    mode: u32,
}

const OPENAT: Open = Open { open: openat, has_path: true, flags: CREATE, mode: 0o600 };
const OPEN: Open = Open { open, has_path: true, flags: libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, mode: 0o4751 };
const CREAT: Open =
    Open { open: creat, has_path: true, flags: libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, mode: 0o640 };
const OPENAT2: Open = Open { open: openat2, has_path: true, flags: libc::O_RDONLY | libc::O_CREAT, mode: 0o604 };
const OPEN_BY_HANDLE: Open = Open { open: open_by_handle, has_path: false, flags: HANDLE_FLAGS, mode: 0 };

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
    opened(unsafe { libc::syscall(libc::SYS_open, path, OPEN.flags, OPEN.mode) })
}

fn creat(path: *const libc::c_char) -> i32 {
    // SAFETY: the kernel reads a string there, or fails.
    opened(unsafe { libc::syscall(libc::SYS_creat, path, CREAT.mode) })
}

fn openat2(path: *const libc::c_char) -> i32 {
    // `struct open_how` of linux/openat2.h: flags, mode, resolve.
    let how = [OPENAT2.flags as u64, OPENAT2.mode.into(), 0];
    // SAFETY: the kernel reads a string and `how`, or fails.
    opened(unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, how.as_ptr(), size_of_val(&how)) })
}

const HANDLE_FLAGS: i32 = libc::O_RDONLY | libc::O_NOFOLLOW;

/// Few file systems have handles, and few users may open them: mostly it fails.
fn open_by_handle(_: *const libc::c_char) -> i32 {
    // `struct file_handle`: bytes that follow, type, and those.
    let handle = [8u32, 1, 0, 0];
    // SAFETY: the kernel reads the handle, or fails.
    opened(unsafe { libc::syscall(libc::SYS_open_by_handle_at, libc::AT_FDCWD, handle.as_ptr(), HANDLE_FLAGS) })
}

fn openat_in_thread(path: *const libc::c_char) -> i32 {
    let address = path.expose_provenance();
    std::thread::spawn(move || openat(std::ptr::with_exposed_provenance(address))).join().unwrap()
}

pub(super) fn failing_opens(count: usize) {
    for _ in 0..count {
        assert_eq!(openat(c"/missing/file".as_ptr()), -libc::ENOENT);
    }
}
