//! Stacks of the kernel, which names its functions itself. See `bpf/stacks.bpf.c`.

use std::collections::HashSet;
use std::sync::Arc;

use gadgets::wire::StackEntry;
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, Object};

use super::recent::Recent;
use super::{FRAMES, Stack};
use crate::runtime::load::{self, Plan};
use crate::runtime::refusal::Refusal;
use crate::runtime::sample;

/// Where `struct gadget_stack` says whether it is named.
const IS_NAMED: usize = 12;
const MAP: &str = "gadget_stacks";
/// What the names of some stacks fit into, in bytes.
const NAMES: usize = 8 << 10;
/// How many may wait for their names: `STACKS_WITHOUT_CALL` of `stack.h`.
const MANY: usize = 512;
/// What a function is called that the kernel does not know.
const UNKNOWN: &str = "[unknown]";
/// How the names of functions begin through which the kernel comes to a BPF program.
const OWN: [&str; 5] = ["bpf_prog_", "bpf_trampoline_", "bpf_trace_run", "__bpf_trace_", "__traceiter_"];
/// What calls the tracepoint of the tick, in an interrupt.
const TICK: &str = "rcu_sched_clock_irq";
/// How the names of functions begin through which a processor comes from what it does to an interrupt.
const INTERRUPTS: [&str; 5] = ["asm_sysvec_", "el1h_64_irq", "el1_irq", "el0t_64_irq", "el0_irq"];

/// Those of one gadget, which are given out with their names, once.
pub(super) struct Kernel {
    map: MapHandle,
    iterator: Link,
    /// How many were given out and are still in the map.
    told: usize,
    /// At least those.
    known: Recent<Arc<Stack>>,
    /// Those that have come, and may be in the map without having been given out.
    unnamed: HashSet<u64>,
}

impl Kernel {
    /// Those of a gadget that was loaded.
    pub(super) fn of(object: &Object) -> Result<Self, Refusal> {
        let map = load::map(object, MAP)?;
        let plan =
            Plan { object: bpf::object("stacks").unwrap_or_default(), shared: [(MAP, &map)].into(), ..Plan::default() };
        let mut links = load::attach_all(&load::load(&plan)?)?;
        let iterator = links.pop().ok_or_else(|| Refusal::of_object("name stacks", "there is no program for that"))?;
        Ok(Self { map, iterator, told: 0, known: Recent::default(), unnamed: HashSet::new() })
    }

    /// One with this number has come, and will be asked for.
    pub(super) fn expect(&mut self, number: u64) {
        if !self.known.has(number) {
            self.unnamed.insert(number);
        }
    }

    /// Whether so many have come that they should be asked for.
    pub(super) fn are_many(&self) -> bool {
        self.unnamed.len() >= MANY
    }

    /// The one with this number.
    pub(super) fn look(&mut self, number: u64) -> Arc<Stack> {
        if let Some(known) = self.known.get(number) {
            return Arc::clone(known);
        }
        self.learn();
        if let Some(learned) = self.known.get(number) {
            return Arc::clone(learned);
        }
        // Nobody knows, and it is not asked for again.
        self.told += 1;
        let unknown = Arc::new(Stack::unknown_of_kernel(number));
        self.known.insert(number, Arc::clone(&unknown), 0);
        unknown
    }

    /// Learns those that have come since the last time.
    fn learn(&mut self) {
        self.unnamed.clear();
        let mut text = Vec::with_capacity(NAMES);
        // What has come is not written again.
        if let Err(error) = sample::read(&self.iterator, &mut text) {
            tracing::warn!("some stacks of the kernel have no names: {error}");
        }
        let stacks = parse(&String::from_utf8_lossy(&text));
        self.told += stacks.len();
        if self.told >= self.map.max_entries() as usize / 2 {
            self.make_room();
        }
        stacks.into_iter().for_each(|stack| self.known.insert(stack.number, Arc::new(Stack::Kernel(stack)), 0));
    }

    /// Takes out what was given out.
    fn make_room(&mut self) {
        let is_named = |key: &Vec<u8>| {
            let value = self.map.lookup(key, MapFlags::ANY).ok().flatten();
            value.and_then(|value| Some(u32::from_ne_bytes(*value.get(IS_NAMED..)?.first_chunk()?))) == Some(1)
        };
        let named: Vec<Vec<u8>> = self.map.keys().filter(is_named).collect();
        // Nobody else takes any out.
        named.iter().for_each(|key| _ = self.map.delete(key));
        self.told = 0;
        // They have other numbers when they come again.
        drop(self.known.forget_former());
    }
}

/// Reads what `stacks.bpf.c` writes.
fn parse(text: &str) -> Vec<StackEntry> {
    let mut stacks = Vec::new();
    for of_stack in text.split('#').skip(1) {
        let mut lines = of_stack.lines();
        let Some(number) = lines.next().and_then(|number| number.parse().ok()) else { continue };
        let cut = lines.clone().count() >= FRAMES;
        let mut frames = lines.skip_while(|line| OWN.iter().any(|own| line.starts_with(own))).map(frame).collect();
        leave_tick(&mut frames);
        stacks.push(StackEntry { number, frames, cut });
    }
    stacks
}

/// Where a tick is looked at, what counts is what it has interrupted.
fn leave_tick(frames: &mut Vec<String>) {
    if frames.first().is_some_and(|innermost| innermost.starts_with(TICK))
        && let Some(entry) = frames.iter().position(|frame| INTERRUPTS.iter().any(|begin| frame.starts_with(begin)))
    {
        frames.drain(..=entry);
    }
}

/// Without the function's size. What has no name is an address, which is nobody's business.
fn frame(line: &str) -> String {
    if line.starts_with("0x") {
        return UNKNOWN.to_owned();
    }
    let (function, module) = line.split_once(' ').map_or((line, None), |(function, module)| (function, Some(module)));
    let function = function.split_once('/').map_or(function, |(function, _)| function);
    module.map_or_else(|| function.to_owned(), |module| format!("{function} {module}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_read_as_the_kernel_writes_them() {
        let text = "#7\nbpf_prog_c1b0_cap_capable_traced+0x1d/0x200\n__traceiter_cap_capable+0x3/0x60\ncap_capable+0x2d/0x60\n\
                    bpf_prog_get+0x9/0x20\n__x64_sys_reboot+0x10/0x1f0 [loaded]\n#x\n#8\n0xffff800012345678\n\
                    #9\nrcu_sched_clock_irq+0x10/0x20\nasm_sysvec_apic_timer_interrupt+0x1a/0x20\nclear_page+0x7/0x10\n";
        let stack = |number, frames: &[&str]| StackEntry {
            number,
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            cut: false,
        };
        let of_7 = stack(7, &["cap_capable+0x2d", "bpf_prog_get+0x9", "__x64_sys_reboot+0x10 [loaded]"]);
        assert_eq!(parse(text), [of_7, stack(8, &[UNKNOWN]), stack(9, &["clear_page+0x7"])]);
        assert_eq!(parse("a frame of nothing\n"), []);
        let of = |frames| parse(&format!("#7\n{}", "read+0x1/0x9\n".repeat(frames)))[0].cut;
        assert_eq!((of(FRAMES - 1), of(FRAMES)), (false, true));
    }
}
