//! Waits that take a known time.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// How often this thread has left its processor to wait for something, by the kernel's own count.
fn left() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches()
}

/// Sleeps so many times for so long, and writes down how often it has left its processor for that, and how long all of it has taken, in ns.
pub(crate) fn waits(count: usize, pause: Duration, log: &str) {
    let mut slept = Duration::ZERO;
    let before = left();
    for _ in 0..count {
        let begin = Instant::now();
        std::thread::sleep(pause);
        slept += begin.elapsed();
    }
    fs::write(log, format!("{} {}", left() - before, slept.as_nanos())).unwrap();
}
