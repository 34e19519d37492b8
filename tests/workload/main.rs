//! What runs in the containers that the tests watch. Static, so that it needs nothing there.
//!
//! - `workload execs COUNT LOG`: starts programs in every way there is, COUNT in all; if that is less than 100, each way once
//!   before any twice
//! - `workload forks COUNT LOG`: makes COUNT children, one after the other, each of which writes a line
//! - `workload opens COUNT LOG`: opens files in every way there is, COUNT in all
//! - `workload failing-opens COUNT`: COUNT attempts to open a file that is not there
//! - `workload binds COUNT LOG`: binds sockets in every way there is, COUNT in all
//! - `workload failing-binds COUNT`: COUNT attempts to bind what is no socket
//! - `workload checks COUNT LOG`: makes COUNT system calls that need a capability
//! - `workload check-storm COUNT`: COUNT such calls in a thread called storm
//! - `workload syscalls COUNT LOG`: makes system calls that are not usual, each COUNT times
//! - `workload family COUNT FILE GO`: makes COUNT children that wait, of different kinds, and one that has ended, and writes FILE; ends
//!   when somebody opens GO, a fifo, for writing
//! - `workload vforks COUNT`: makes COUNT children that end at once
//! - `workload after-one FILE COMMAND COUNT ARG…`: a command of these with a COUNT of 1, and with the rest of COUNT when
//!   FILE is there
//! - `workload storm COUNT BYTES`: COUNT attempts that fail, as fast as they go, each with BYTES of arguments
//! - `workload serve COUNT FILE`: takes COUNT connections at a port that it writes to FILE, and reads each to its end
//! - `workload connect COUNT FILE LOG`: makes COUNT connections to that port, when FILE is there, and writes down its own
//! - `workload answer COUNT FILE`: takes what of COUNT calls comes to a port that it writes to FILE, and answers
//! - `workload call COUNT FILE LOG`: makes COUNT calls in every way there is, most of them to that port
//! - `workload call-in-vain PORT LOG`: calls who does not answer, until the kernel gives up, and until it gives up itself
//! - `workload hold FILE GO LOG`: makes a connection to itself and writes to FILE that it has, and uses it when GO is there
//! - `workload echo-datagrams PORT`: sends back what comes to this port of UDP, for ever
//! - `workload transfers COUNT`: makes COUNT connections to itself, and sends a byte over each
//! - `workload transfers-at-once COUNT`: the same, and keeps all of them until the last has been made
//! - `workload offer FILE SOCKET`: listens at a port that it writes to FILE, and hands that to who connects to SOCKET
//! - `workload take-over COUNT SOCKET`: takes COUNT connections at the port that it is handed there
//! - `workload failing-connects COUNT`: COUNT connections to a port at which nobody listens
//! - `workload calls COUNT LOG`: in two children, one after the other, system calls that fail, each COUNT times with another number;
//!   then some whose arguments point to something
//! - `workload flow-answers V4 V6 FILE DONE`: takes what comes to ports of these addresses, which it writes to FILE, and answers,
//!   until DONE is there
//! - `workload flow-calls COUNT FILE DEAF V4 V6 LOG`: talks to these in every way there is, COUNT in all, and to nobody
//! - `workload flow-goes-on OWN ASKED FILE GO LOG`: asks somebody, writes to FILE where it can be asked, and answers and is
//!   answered when GO is there
//! - `workload flow-storm COUNT`: sends COUNT datagrams, each to another port
//! - `workload waits COUNT MS LOG`: sleeps COUNT times for so long, and writes down how long that has taken
//! - `workload nest DEPTH NAME PROGRAM ARG…`: becomes, in a cgroup so deep in that of its working directory, the program
//! - `workload into CGROUP PROGRAM ARG…`: becomes, in a child that is born in this cgroup, the program, after one attempt
//!   that fails
//! - `workload report LOG TOKEN …`: what is started: writes down its own /proc/self/cmdline
//!
//! The log has one line an attempt: result, then the arguments in base64. For a program that was started it is written
//! by that program, from /proc; for an attempt that failed by who attempted it.

#![allow(clippy::unwrap_used, reason = "a test")]
mod binds;
mod capabilities;
mod execs;
mod flows;
mod opens;
mod sctp;
mod sockets;
mod syscalls;
mod tasks;
mod waits;

use std::ffi::{CStr, CString};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::exit;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

use execs::Execs;

fn main() {
    let args: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    run(&args);
}

fn run(args: &[Vec<u8>]) {
    let text = |index: usize| String::from_utf8_lossy(&args[index]).into_owned();
    let number = |index: usize| text(index).parse().unwrap();
    match args.get(1).map(Vec::as_slice) {
        Some(b"execs") => Execs::new(text(3)).run(number(2)),
        Some(b"storm") => execs::storm(number(2), number(3)),
        Some(b"forks") => tasks::forks(number(2), &text(3)),
        Some(b"family") => tasks::family(number(2), &text(3), &text(4)),
        Some(b"vforks") => tasks::vforks(number(2)),
        Some(b"nest") => tasks::nest(number(2), &text(3), &args[4..]),
        Some(b"into") => tasks::into(&text(2), &args[3..]),
        Some(b"opens") => opens::opens(number(2), &text(3)),
        Some(b"failing-opens") => opens::failing_opens(number(2)),
        Some(b"binds") => binds::binds(number(2), &text(3)),
        Some(b"failing-binds") => binds::failing_binds(number(2)),
        Some(b"checks") => capabilities::checks(number(2), &text(3)),
        Some(b"check-storm") => capabilities::check_storm(number(2)),
        Some(b"syscalls") => syscalls::syscalls(number(2), &text(3)),
        Some(b"serve") => sockets::serve(number(2), &text(3)),
        Some(b"connect") => sockets::connect(number(2), &text(3), &text(4)),
        Some(b"answer") => sockets::answer(number(2), &text(3)),
        Some(b"call") => sockets::call(number(2), &text(3), &text(4)),
        Some(b"call-in-vain") => sockets::call_in_vain(text(2).parse().unwrap(), &text(3)),
        Some(b"hold") => sockets::hold(&text(2), &text(3), &text(4)),
        Some(b"echo-datagrams") => sockets::echo_datagrams(text(2).parse().unwrap()),
        Some(b"transfers") => sockets::transfers(number(2)),
        Some(b"transfers-at-once") => sockets::transfers_at_once(number(2)),
        Some(b"offer") => sockets::offer(&text(2), &text(3)),
        Some(b"take-over") => sockets::take_over(number(2), &text(3)),
        Some(b"failing-connects") => sockets::failing_connects(number(2)),
        Some(b"calls") => syscalls::calls(number(2), &text(3)),
        Some(b"flow-answers") => flows::answer(&text(2), &text(3), &text(4), &text(5)),
        Some(b"flow-calls") => {
            flows::call(number(2), &text(3), text(4).parse().unwrap(), [&text(5), &text(6)], &text(7));
        }
        Some(b"flow-goes-on") => {
            flows::go_on(&text(2), text(3).parse().unwrap(), [&text(4), &text(5)], &text(6));
        }
        Some(b"flow-storm") => flows::storm(number(2)),
        Some(b"waits") => waits::waits(number(2), Duration::from_millis(number(3) as u64), &text(4)),
        Some(b"after-one") => after_one(&text(2), &args[2..]),
        Some(b"report") => report(&text(2)),
        _ => exit(2),
    }
}

fn log(path: &str, result: i32, args: &[Vec<u8>]) {
    append(path, &line(result, args));
}

fn line(result: i32, args: &[Vec<u8>]) -> String {
    let args: Vec<String> = args.iter().map(|arg| BASE64_STANDARD.encode(arg)).collect();
    format!("{result} {}\n", args.join(" "))
}

fn append(path: &str, lines: &str) {
    // One write to a file opened for appending: lines of several processes do not mix.
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(lines.as_bytes()).unwrap();
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

fn wait_for_file(file: &str) {
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
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
    wait_for_file(file);
    with_count(count - 1);
}

fn refs(argv: &[CString]) -> Vec<&CStr> {
    argv.iter().map(CString::as_c_str).collect()
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
