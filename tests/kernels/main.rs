//! Every gadget in every variant on every kernel of the matrix, with cgroups mounted in all three ways. Writes
//! docs/kernels.md.
//!
//! - [`guest`]: a virtual machine with one of the kernels, that runs `tests/programs/guest`
//! - [`table`]: what came of it, for people
//!
//! `KERNELS=6.1,newest` runs these alone, `GADGETS=flows` these gadgets alone; both leave the page as it is.

#![allow(clippy::unwrap_used, reason = "a test")]

mod guest;
mod table;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use guest::{Kernel, Run};
use tests::script_output;

/// Guests that run at the same time; each has two processors, which this host emulates.
const AT_ONCE: usize = 2;

#[test]
fn every_gadget_on_every_kernel() {
    let chosen = std::env::var("KERNELS").ok();
    let is_chosen =
        |kernel: &Kernel| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == kernel.name));
    let kernels: Vec<Kernel> = fetch().into_iter().filter(is_chosen).collect();
    let files = guest::Files::make();
    let waiting: Mutex<VecDeque<Kernel>> = Mutex::new(kernels.iter().cloned().collect());
    let runs: Mutex<Vec<Run>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop_front();
                    let Some(kernel) = next else { return };
                    let run = files.run(&kernel);
                    println!("{}", run.summary());
                    runs.lock().unwrap().push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap();
    runs.sort_by_key(|run| kernels.iter().position(|kernel| kernel.name == run.kernel));
    let failures: Vec<String> = runs.iter().flat_map(Run::failures).collect();
    if chosen.is_none() && std::env::var_os("GADGETS").is_none() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
        std::fs::write(page, table::page(&runs)).unwrap();
    }
    assert!(!runs.is_empty(), "no kernel is called {chosen:?}");
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

/// The kernels, from Debian or from the cache.
fn fetch() -> Vec<Kernel> {
    let kernel = |line: &str| {
        let [name, image, modules] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        Kernel { name: name.to_owned(), image: image.into(), modules: modules.into() }
    };
    script_output("kernels/fetch", &[]).lines().map(kernel).collect()
}
