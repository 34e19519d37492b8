//! The first process of a guest.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where the suite's results go; the console has the kernel's messages.
const RESULTS: &str = "/dev/ttyS1";

pub(super) fn main() -> ! {
    mount_all();
    load_modules();
    let mut command = Command::new("/init");
    command.arg("suite").stdout(OpenOptions::new().write(true).open(RESULTS).unwrap());
    command.env("TESTS_DIST", "/confined").env("GADGET_BUNDLES", "/run/bundles");
    // The host reads from the results whether it came to its end.
    let _ = command.status();
    off()
}

fn off() -> ! {
    nix::unistd::sync();
    let off: Result<Infallible, _> = reboot(RebootMode::RB_POWER_OFF);
    panic!("cannot turn off: {off:?}");
}

fn mount_all() {
    let none: Option<&str> = None;
    for (kind, point) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        fs::create_dir_all(point).unwrap();
        mount(Some(kind), point, Some(kind), MsFlags::empty(), none).unwrap();
    }
    // Security modules follow it where a program has no name but its descriptor (TOMOYO, in Debian's 5.10).
    symlink("/proc/self/fd", "/dev/fd").unwrap();
    bring_up_loopback();
    // Its messages are for the console.
    let console = OpenOptions::new().read(true).write(true).open("/dev/console").unwrap();
    for standard in 0..3 {
        redirect(&console, standard);
    }
}

/// What this kernel has beside itself, in the order of the names.
fn load_modules() {
    let mut files: Vec<PathBuf> = fs::read_dir("/modules").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no module came with this kernel");
    for file in files {
        finit_module(File::open(&file).unwrap(), c"", ModuleInitFlags::empty())
            .unwrap_or_else(|error| panic!("cannot load {}: {error}", file.display()));
    }
}

pub(super) fn bring_up_loopback() {
    use std::os::fd::AsRawFd as _;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // SAFETY: all of it may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads what it takes for this request.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }, 0);
}

fn redirect(to: &File, standard: i32) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: both are descriptors of this process, and no Rust object owns the standard ones.
    assert!(unsafe { libc::dup2(to.as_raw_fd(), standard) } >= 0);
}
