//! Three quarters of its time are below heavy, one below light, for ever. Static, with its symbols. `hot deep` does the same below more
//! functions than the kernel gives out of a stack.

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
fn run(mut x: u32) -> ! {
    loop {
        let n = x % (2 * UNIT);
        x = light(heavy(x, n), n);
    }
}

// Nothing that the compiler could make a loop of.
#[inline(never)]
fn deep(level: u32) -> u32 {
    if level == 0 { run(1) } else { deep(level - 1).rotate_left(level) ^ level }
}

fn main() {
    match std::env::args().nth(1) {
        Some(_) => drop(deep(200)),
        None => run(1),
    }
}
