//! Tools as tools usually are, made for this comparison: `classic/`, and what loads them and prints what they have seen.

use std::fs;
use std::io::{BufWriter, Write as _, stdout};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use libbpf_rs::libbpf_sys::{
    PERF_COUNT_SW_BPF_OUTPUT, PERF_COUNT_SW_CPU_CLOCK, PERF_SAMPLE_RAW, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, RingBufferBuilder};
use nix::sys::mman::{MapFlags as Mapping, ProtFlags, mmap};
use nix::sys::signal::{SigSet, Signal};

use super::Tool;

/// What it says when it is attached.
const ATTACHED: &str = "attached";
/// The first number of a namespace that is one: no namespace has a lower.
const NO_NAMESPACE: u64 = 1;
/// How long it waits for records before it looks whether it should end.
const WAIT: Duration = Duration::from_millis(100);
/// Bytes of a processor's perf buffer, of which one page says what is in the others.
const BUFFER: NonZeroUsize = NonZeroUsize::new((1 + 64) * 4096).expect("not 0");
/// How often a processor's clock strikes in a second: as often as profile looks at most.
const CLOCK_HZ: u32 = 999;

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OPENS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/classic-opens.bpf.o")));
static CALLS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/classic-calls.bpf.o")));
static CLOCK: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/classic-clock.bpf.o")));

/// What one watches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Files that are opened: each is printed
    Opens,
    /// System calls: the last of each processor are kept in its perf buffer
    Calls,
    /// Nothing, 999 times a second on each processor
    Clock,
}

/// One, watching this mount namespace or none.
pub(crate) struct Classic {
    kind: Kind,
    mntns: u64,
}

impl Classic {
    /// Watches what the bench sees.
    pub(crate) fn watching(kind: Kind) -> Result<Self> {
        Ok(Self { kind, mntns: fs::metadata("/proc/self/ns/mnt")?.ino() })
    }

    /// Watches something else.
    pub(crate) fn elsewhere(kind: Kind) -> Self {
        Self { kind, mntns: NO_NAMESPACE }
    }
}

impl Tool for Classic {
    fn name(&self) -> String {
        match self.kind {
            Kind::Opens => "classic".into(),
            Kind::Calls => "perf buffers".into(),
            Kind::Clock => "clock".into(),
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let kind = self.kind.to_possible_value().context("it has a name")?;
        command.args(["classic", kind.get_name(), &self.mntns.to_string()]);
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
pub(crate) fn run(kind: Kind, mntns: u32) -> Result<()> {
    let ended = ended_by_signal()?;
    let bytes = match kind {
        Kind::Opens => &OPENS.0,
        Kind::Calls => &CALLS.0,
        Kind::Clock => &CLOCK.0,
    };
    let object = ObjectBuilder::default().open_memory(bytes)?.load()?;
    if let Kind::Opens | Kind::Calls = kind {
        map(&object, "watched")?.update(&mntns.to_ne_bytes(), &[1], MapFlags::ANY)?;
    }
    match kind {
        Kind::Opens => show_opens(&object, &ended),
        Kind::Calls => keep_calls(&object, &ended),
        Kind::Clock => let_clocks_strike(&object, &ended),
    }
}

fn map<'a>(object: &'a Object, name: &str) -> Result<libbpf_rs::Map<'a>> {
    object.maps().find(|map| map.name() == name).with_context(|| format!("no map {name}"))
}

fn show_opens(object: &Object, ended: &AtomicBool) -> Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    let events = map(object, "events")?;
    let mut builder = RingBufferBuilder::new();
    builder.add(&events, |record| i32::from(print(record, &mut out).is_none()))?;
    let ring = builder.build()?;
    let _links = attach(object)?;
    while !ended.load(Ordering::Relaxed) {
        ring.poll(WAIT)?;
    }
    drop(ring);
    out.flush()?;
    let lost = map(object, "lost")?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("an array of one")?;
    eprintln!("lost {}", u64::from_ne_bytes(*lost.first_chunk().context("a count")?));
    Ok(())
}

/// What it has kept is not printed: what is measured is what it costs to keep it.
fn keep_calls(object: &Object, ended: &AtomicBool) -> Result<()> {
    let buffers = map(object, "buffers")?;
    let made = (0..available_parallelism()?.get()).map(|processor| {
        let buffer = perf_buffer(processor)?;
        buffers.update(&(processor as u32).to_ne_bytes(), &buffer.as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
        Ok(buffer)
    });
    let _buffers = made.collect::<Result<Vec<_>>>()?;
    let _links = attach(object)?;
    wait_for(ended);
    Ok(())
}

fn let_clocks_strike(object: &Object, ended: &AtomicBool) -> Result<()> {
    let program = object.progs_mut().next().context("no program")?;
    let strikes = (0..available_parallelism()?.get()).map(|processor| {
        let mut wanted = software_event(PERF_COUNT_SW_CPU_CLOCK);
        wanted.set_freq(1);
        wanted.__bindgen_anon_1.sample_freq = CLOCK_HZ.into();
        wanted.set_exclude_idle(1);
        // The link closes it.
        Ok(program.attach_perf_event(perf_event(&wanted, processor)?.into_raw_fd())?)
    });
    let _links = strikes.collect::<Result<Vec<_>>>()?;
    eprintln!("{ATTACHED}");
    wait_for(ended);
    Ok(())
}

fn wait_for(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(WAIT);
    }
    eprintln!("lost 0");
}

fn software_event(which: u32) -> perf_event_attr {
    perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config: which.into(),
        ..Default::default()
    }
}

/// An event of a processor's, whatever runs on it.
fn perf_event(wanted: &perf_event_attr, processor: usize) -> Result<OwnedFd> {
    let (any_process, no_group, no_flags) = (-1, -1, 0);
    // SAFETY: the kernel reads `wanted`, which is as large as it says.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, wanted, any_process, processor, no_group, no_flags) };
    nix::errno::Errno::result(fd).context("open a perf event")?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The buffer of a processor, which is written over and mapped until the end.
fn perf_buffer(processor: usize) -> Result<OwnedFd> {
    let mut wanted = software_event(PERF_COUNT_SW_BPF_OUTPUT);
    wanted.sample_type = PERF_SAMPLE_RAW.into();
    wanted.set_write_backward(1);
    let buffer = perf_event(&wanted, processor)?;
    // What cannot be written by who reads it the kernel writes over.
    // SAFETY: new memory, at no address in particular; nobody ever looks at it.
    unsafe { mmap(None, BUFFER, ProtFlags::PROT_READ, Mapping::MAP_SHARED, &buffer, 0)? };
    Ok(buffer)
}

fn attach(object: &Object) -> Result<Vec<libbpf_rs::Link>> {
    let links = object.progs_mut().map(|program| program.attach()).collect::<libbpf_rs::Result<_>>()?;
    eprintln!("{ATTACHED}");
    Ok(links)
}

/// A line for a record, `struct event` of the C file.
fn print(record: &[u8], out: &mut impl std::io::Write) -> Option<()> {
    let number = |at: usize| Some(i32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let text = |at: usize| record.get(at..)?.split(|byte| *byte == 0).next().map(String::from_utf8_lossy);
    writeln!(out, "{:<7} {:<16} {:>4} {}", number(8)?, text(32)?, number(20)?, text(48)?).ok()
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
