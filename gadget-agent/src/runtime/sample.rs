//! A gadget's iterators: programs that go over what the kernel has at the moment when they are read.
//!
//! One over a map is called `sample_MAP`. It is read at each interval and writes records. One that is called `list_SOMETHING`,
//! over a map `list_MAP`, does so when somebody asks. Any other is read once, when everything is attached, for what is there already.

use std::io::{self, Read as _};
use std::time::Duration;

use gadgets::interval::Interval;
use libbpf_rs::{Iter, Link};

use crate::clock;

/// The sections of iterators over maps.
const OVER_MAPS: [&str; 2] = ["iter/bpf_map_elem", "iter/bpf_sk_storage_map"];
const ITERATOR: &str = "iter/";
const CLOCK: &str = "perf_event";
const NAME: &str = "sample_";
const LIST: &str = "list_";

/// When a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    /// When what it is attached to happens.
    Event,
    /// When a processor's clock strikes.
    Clock,
    /// Once, at the start.
    Start,
    /// At each interval, over this map.
    Sample(&'a str),
    /// When somebody asks, over this map if it goes over one.
    List(Option<&'a str>),
}

impl<'a> Role<'a> {
    /// That of a program, by its section and name.
    pub(crate) fn of(section: &str, name: &'a str) -> Self {
        let is_over_map = OVER_MAPS.contains(&section);
        match (name.strip_prefix(NAME), name.strip_prefix(LIST)) {
            (Some(map), _) if is_over_map => Self::Sample(map),
            (_, Some(map)) if section.starts_with(ITERATOR) => Self::List(is_over_map.then_some(map)),
            _ if section.starts_with(ITERATOR) => Self::Start,
            _ if section == CLOCK => Self::Clock,
            _ => Self::Event,
        }
    }
}

/// Runs an iterator to its end, and adds what it writes to `records`.
///
/// # Errors
/// If the kernel does not let it run, or what it writes at once is too large for it.
pub(crate) fn read(iterator: &Link, records: &mut Vec<u8>) -> io::Result<()> {
    let mut iterator = Iter::new(iterator).map_err(io::Error::other)?;
    loop {
        match iterator.read_to_end(records) {
            // After a million objects about which there was nothing to say, the kernel takes a breath.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            ended => return ended.map(drop),
        }
    }
}

/// Reads a gadget's iterators at each interval.
pub(crate) struct Sampler {
    iterators: Vec<Link>,
    interval: Interval,
}

impl Sampler {
    /// One for iterators over maps.
    pub(crate) fn new(iterators: Vec<Link>, interval: Duration) -> Self {
        Self { iterators, interval: Interval::new(interval, Duration::ZERO, clock::now().wall_ns) }
    }

    /// How long it is to the next interval's end.
    pub(crate) fn due_in(&self) -> Duration {
        self.interval.due_in(clock::now().wall_ns)
    }

    /// Waits for the next interval's end from now on.
    pub(crate) fn pass(&mut self) {
        self.interval.pass(clock::now().wall_ns);
    }

    /// Adds what has come since the last time to `records`.
    ///
    /// # Errors
    /// As [`read`]. What was added before stays.
    pub(crate) fn take(&self, records: &mut Vec<u8>) -> io::Result<()> {
        self.iterators.iter().try_for_each(|iterator| read(iterator, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_names_say_when_a_program_runs() {
        assert_eq!(Role::of("iter/bpf_sk_storage_map", "sample_kept"), Role::Sample("kept"));
        assert_eq!(Role::of("iter/task_file", "find_kept"), Role::Start);
        assert_eq!(Role::of("iter/task", "list_calls"), Role::List(None));
        assert_eq!(Role::of("iter/bpf_map_elem", "list_parts"), Role::List(Some("parts")));
        assert_eq!(Role::of("perf_event", "clock_strikes"), Role::Clock);
        assert_eq!(Role::of("tp_btf/sys_exit", "sample_kept"), Role::Event);
    }
}
