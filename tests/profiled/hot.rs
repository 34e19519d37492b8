//! Three quarters of its time are below heavy, one below light, for ever. Static, with its symbols. `hot deep` does the same below more
//! functions than the kernel gives out of a stack, `hot MS PROGRAM ARG…` for so many milliseconds, and becomes another program then.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Some 100 µs.
const UNIT: u32 = 100_000;

#[inline(never)]
fn spin(mut x: u32, n: u32) -> u32 {
    for _ in 0..n {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
    }
    x
}

// Something is left to do after each call: a tail call would take the caller off the stack.
#[inline(never)]
fn heavy(x: u32, n: u32) -> u32 {
    spin(x, 3 * n) | 1
}

#[inline(never)]
fn light(x: u32, n: u32) -> u32 {
    spin(x, n) | 1
}

// Rounds differ in length, as if by chance: what takes samples by the clock would keep step with equal ones.
#[inline(never)]
fn run(mut x: u32, until: Option<Instant>) -> u32 {
    while until.is_none_or(|until| Instant::now() < until) {
        let n = x % (2 * UNIT);
        x = light(heavy(x, n), n);
    }
    x
}

// Nothing that the compiler could make a loop of.
#[inline(never)]
fn deep(level: u32) -> u32 {
    if level == 0 { run(1, None) } else { deep(level - 1).rotate_left(level) ^ level }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [] => _ = run(1, None),
        [ms, program, args @ ..] => {
            run(1, Some(Instant::now() + Duration::from_millis(ms.parse().expect("milliseconds"))));
            panic!("{program}: {}", Command::new(program).args(args).exec());
        }
        [_] => _ = deep(200),
    }
}
