//! The first process of a guest.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where the suite's results go; the console has the kernel's messages.
const RESULTS: &str = "/dev/ttyS1";

pub(super) fn main() -> ! {
    mount_all();
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
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        fs::create_dir_all(point).unwrap();
        mount(Some(kind), point, Some(kind), MsFlags::empty(), none).unwrap();
    }
    // Security modules follow it where a program has no name but its descriptor (TOMOYO, in Debian's 5.10).
    symlink("/proc/self/fd", "/dev/fd").unwrap();
    // Its messages are for the console.
    let console = OpenOptions::new().read(true).write(true).open("/dev/console").unwrap();
    for standard in 0..3 {
        redirect(&console, standard);
    }
}

fn redirect(to: &File, standard: i32) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: both are descriptors of this process, and no Rust object owns the standard ones.
    assert!(unsafe { libc::dup2(to.as_raw_fd(), standard) } >= 0);
}
