//! Programs that are started in every way there is, and attempts that fail.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{execve, execveat};

use super::{c, in_child, log, refs};

pub(super) fn storm(count: usize, bytes: usize) {
    let argv = [c(b"storm"), c(&vec![b'x'; bytes.min(4000)])];
    let repeated: Vec<&CStr> = std::iter::once(argv[0].as_c_str())
        .chain(std::iter::repeat_n(argv[1].as_c_str(), bytes.div_ceil(4000)))
        .collect();
    for _ in 0..count {
        assert_eq!(execve::<&CStr, &CStr>(c"/missing", &repeated, &[]), Err(Errno::ENOENT));
    }
}

pub(super) struct Execs {
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
    pub(super) fn new(log: String) -> Self {
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

    pub(super) fn run(&self, count: usize) {
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
