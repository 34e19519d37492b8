//! A tool as tools usually are, made for this comparison: `classic.bpf.c`, and what loads it and prints its records.

use std::fs;
use std::io::{BufWriter, Write as _, stdout};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, RingBufferBuilder};
use nix::sys::signal::{SigSet, Signal};

use super::Tool;

/// What it says when it is attached.
const ATTACHED: &str = "attached";
/// The first number of a namespace that is one: no namespace has a lower.
const NO_NAMESPACE: u64 = 1;
/// How long it waits for records before it looks whether it should end.
const WAIT: Duration = Duration::from_millis(100);

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/classic.bpf.o")));

/// It, watching this mount namespace or none.
pub(crate) struct Classic {
    mntns: u64,
}

impl Classic {
    /// Watches what the bench sees.
    pub(crate) fn watching() -> Result<Self> {
        Ok(Self { mntns: fs::metadata("/proc/self/ns/mnt")?.ino() })
    }

    /// Watches something else.
    pub(crate) fn elsewhere() -> Self {
        Self { mntns: NO_NAMESPACE }
    }
}

impl Tool for Classic {
    fn name(&self) -> String {
        "classic".into()
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["classic", &self.mntns.to_string()]);
        Ok(command)
    }

    fn announces(&self) -> Option<&'static str> {
        Some(ATTACHED)
    }

    fn lost(&self, said: &str) -> Result<u64> {
        let count = said.lines().find_map(|line| line.strip_prefix("lost ")).context("no count")?;
        Ok(count.parse()?)
    }
}

/// Runs it until SIGINT.
pub(crate) fn run(mntns: u32) -> Result<()> {
    let ended = ended_by_signal()?;
    let object = ObjectBuilder::default().open_memory(&OBJECT.0)?.load()?;
    let map = |name: &str| object.maps().find(|map| map.name() == name).with_context(|| format!("no map {name}"));
    map("watched")?.update(&mntns.to_ne_bytes(), &[1], MapFlags::ANY)?;
    let mut out = BufWriter::new(stdout().lock());
    let events = map("events")?;
    let mut builder = RingBufferBuilder::new();
    builder.add(&events, |record| i32::from(print(record, &mut out).is_none()))?;
    let ring = builder.build()?;
    let _links = object.progs_mut().map(|program| program.attach()).collect::<libbpf_rs::Result<Vec<_>>>()?;
    eprintln!("{ATTACHED}");
    while !ended.load(Ordering::Relaxed) {
        ring.poll(WAIT)?;
    }
    drop(ring);
    out.flush()?;
    eprintln!("lost {}", lost(&object)?);
    Ok(())
}

/// A line for a record, `struct event` of the C file.
fn print(record: &[u8], out: &mut impl std::io::Write) -> Option<()> {
    let number = |at: usize| Some(i32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let text = |at: usize| record.get(at..)?.split(|byte| *byte == 0).next().map(String::from_utf8_lossy);
    writeln!(out, "{:<7} {:<16} {:>4} {}", number(8)?, text(32)?, number(20)?, text(48)?).ok()
}

fn lost(object: &Object) -> Result<u64> {
    let map = object.maps().find(|map| map.name() == "lost").context("no map lost")?;
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("an array of one")?;
    Ok(u64::from_ne_bytes(*value.first_chunk().context("a count")?))
}

fn ended_by_signal() -> Result<Arc<AtomicBool>> {
    let signals = SigSet::from(Signal::SIGINT);
    signals.thread_block()?;
    let ended = Arc::<AtomicBool>::default();
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = signals.wait();
        told.store(true, Ordering::Relaxed);
    });
    Ok(ended)
}
