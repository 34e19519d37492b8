//! Stacks of the kernel: what is behind the numbers in a gadget's records. See `bpf/include/stack.h`.

use std::collections::HashMap;
use std::sync::Arc;

use gadgets::record::Header;
use gadgets::schema::{Kind, Schema};
use gadgets::wire::StackEntry;
use libbpf_rs::{Link, MapHandle, Object};

use super::load::{self, Plan};
use super::sample;
use crate::error::AgentError;

/// `GADGET_STACK_NONE` and `GADGET_STACK_UNKEPT` of `gadget.h`.
const NO_STACKS: [u64; 2] = [0, u64::MAX];
const MAP: &str = "gadget_stacks";
/// What a function is called that the kernel does not know.
const UNKNOWN: &str = "[unknown]";
/// How the names of functions begin through which the kernel comes to a BPF program.
const OWN: [&str; 5] = ["bpf_prog_", "bpf_trampoline_", "bpf_trace_run", "__bpf_trace_", "__traceiter_"];

/// The stacks of one gadget.
pub(crate) struct Stacks {
    /// Where records have their numbers: stream, and bytes from the record's start.
    places: Vec<(u16, usize)>,
    map: Option<MapHandle>,
    /// What names them, once there was one.
    iterator: Option<Link>,
    known: HashMap<u64, Arc<StackEntry>>,
}

impl Stacks {
    /// Those of a gadget that was loaded.
    pub(crate) fn of(object: &Object, schema: &Schema) -> Self {
        let places = schema.streams.iter().flat_map(|stream| {
            let fields = stream.fields.iter().filter(|field| field.kind == Kind::KernelStack);
            fields.map(|field| (stream.id, field.offset as usize))
        });
        Self { places: places.collect(), map: load::map(object, MAP).ok(), iterator: None, known: HashMap::new() }
    }

    /// The stacks in a record. What the kernel does not tell has no frames.
    pub(crate) fn in_record(&mut self, header: &Header, record: &[u8]) -> Vec<Arc<StackEntry>> {
        let in_stream = self.places.iter().filter(|(stream, _)| *stream == header.stream);
        let number = |(_, at): &(u16, usize)| Some(u64::from_ne_bytes(*record.get(*at..)?.first_chunk()?));
        let numbers: Vec<u64> = in_stream.filter_map(number).filter(|number| !NO_STACKS.contains(number)).collect();
        numbers.into_iter().map(|number| self.get(number)).collect()
    }

    fn get(&mut self, number: u64) -> Arc<StackEntry> {
        if !self.known.contains_key(&number)
            && let Err(error) = self.learn()
        {
            tracing::warn!("stacks have no names: {error}");
            // It would fail for each of them.
            self.map = None;
        }
        let unknown = || Arc::new(StackEntry { number, frames: Vec::new() });
        Arc::clone(self.known.entry(number).or_insert_with(unknown))
    }

    /// Reads what has come since the last time.
    fn learn(&mut self) -> Result<(), AgentError> {
        let Some(map) = &self.map else { return Ok(()) };
        let failed = |error: &dyn std::fmt::Display| AgentError::internal("name stacks of the kernel", error);
        let iterator = match &mut self.iterator {
            Some(iterator) => iterator,
            none => {
                let object = bpf::object("stacks").unwrap_or_default();
                let plan = Plan { object, shared: [(MAP, map)].into(), ..Plan::default() };
                let object = load::load(&plan).map_err(|error| failed(&error))?;
                let mut links = load::attach_all(&object).map_err(|error| failed(&error))?;
                none.insert(links.pop().ok_or_else(|| failed(&"it has no program"))?)
            }
        };
        let mut text = Vec::new();
        let read = sample::read(iterator, &mut text);
        // What has come is not written again.
        let stacks = parse(&String::from_utf8_lossy(&text));
        self.known.extend(stacks.into_iter().map(|stack| (stack.number, Arc::new(stack))));
        read.map_err(|error| failed(&error))
    }
}

/// Reads what `stacks.bpf.c` writes.
fn parse(text: &str) -> Vec<StackEntry> {
    let mut stacks: Vec<StackEntry> = Vec::new();
    for line in text.lines() {
        if let Some(number) = line.strip_prefix('#') {
            stacks.extend(number.parse().ok().map(|number| StackEntry { number, frames: Vec::new() }));
        } else if let Some(stack) = stacks.last_mut()
            && !(stack.frames.is_empty() && OWN.iter().any(|own| line.starts_with(own)))
        {
            stack.frames.push(frame(line));
        }
    }
    stacks
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
                    bpf_prog_get+0x9/0x20\n__x64_sys_reboot+0x10/0x1f0 [loaded]\n#x\n#8\n0xffff800012345678\n";
        let stack = |number, frames: &[&str]| StackEntry {
            number,
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
        };
        let of_7 = stack(7, &["cap_capable+0x2d", "bpf_prog_get+0x9", "__x64_sys_reboot+0x10 [loaded]"]);
        assert_eq!(parse(text), [of_7, stack(8, &[UNKNOWN])]);
        assert_eq!(parse("a frame of nothing\n"), []);
    }
}
