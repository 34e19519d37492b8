//! Waits that take a known time.

use std::fs;
use std::time::Duration;
use std::time::Instant;

/// How long each takes, at least.
const SLEEP: Duration = Duration::from_millis(20);

/// Sleeps so many times, and writes down how long all of that has taken, in ns.
pub(crate) fn waits(count: usize, log: &str) {
    let mut slept = Duration::ZERO;
    for _ in 0..count {
        let begin = Instant::now();
        std::thread::sleep(SLEEP);
        slept += begin.elapsed();
    }
    fs::write(log, slept.as_nanos().to_string()).unwrap();
}
