//! A queue of a recorder's pages, and the cgroup that has taken it.

use gadgets::wire::ProcessEnd;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::place::Turns;

/// The tag of a queue that is used for the first time, without its number.
pub(super) const FIRST_USE: u32 = 1 << 16;

/// A queue.
pub(super) struct Queue {
    pub(super) map: MapHandle,
    /// What says that a page or a place is this queue's: `RECORDER_NUMBER` of it is where it is in the list.
    pub(super) tag: u32,
    /// Pages that it has, those that processors are filling included, as of the last look.
    pub(super) pages: u32,
    /// What processors have counted of it by then.
    pub(super) turns: Turns,
    pub(super) owner: Option<Owner>,
}

impl Queue {
    pub(super) fn number(&self) -> usize {
        (self.tag % FIRST_USE) as usize
    }

    /// Puts a page at its end.
    pub(super) fn push(&mut self, page: u16) {
        match self.map.update(&[], &page.to_ne_bytes(), MapFlags::ANY) {
            Ok(()) => self.pages += 1,
            Err(error) => tracing::warn!("a page of the recorder is lost: {error}"),
        }
    }
}

/// The oldest page of a queue.
pub(super) fn pop(queue: &MapHandle) -> Option<u16> {
    let page = queue.lookup_and_delete(&[]).ok()??;
    Some(u16::from_ne_bytes(page.try_into().ok()?))
}

/// The cgroup that has taken a queue.
pub(super) struct Owner {
    pub(super) cgroup: u64,
    pub(super) slot: u32,
    /// Since when nothing more is wanted of it: it was found to be gone. 0 if nobody wants what it does.
    pub(super) over_ns: Option<u64>,
    /// How its first process ended.
    pub(super) end: Option<ProcessEnd>,
}

impl Owner {
    pub(super) fn is_gone(&self) -> bool {
        self.over_ns.is_some_and(|since| since > 0)
    }

    /// Whose records are the last to be given up of those of whom nothing more is wanted: somebody will ask why it failed.
    pub(super) fn has_failed(&self) -> bool {
        self.end.is_some_and(|end| !end.is_success())
    }
}
