//! What a processor has noted of a recorder's queue: `struct recorder_place` of `bpf/include/recorder.h`.

use std::iter::Sum;

/// How often processors have begun a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// One that nobody had.
    pub(super) taken: u32,
    /// One of the queue's, which they wrote over.
    pub(super) returns: u32,
}

/// What a processor has noted.
pub(super) struct Place {
    /// The tag of the queue.
    pub(super) queue: u32,
    /// The page that it fills; 0 if none.
    pub(super) page: u32,
    pub(super) turns: Turns,
    /// Records that it has made for the queue.
    pub(super) made: u64,
    /// The time of the last of the queue's that it has written over; 0 if there is none.
    pub(super) overwritten_to: u64,
}

impl Place {
    pub(super) const SIZE: usize = 32;

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let turns = Turns { taken: u32_at(8)?, returns: u32_at(12)? };
        let (made, overwritten_to) = (u64_at(16)?, u64_at(24)?);
        Some(Self { queue: u32_at(0)?, page: u32_at(4)?, turns, made, overwritten_to })
    }
}

impl Sum for Turns {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, more| Self {
            taken: sum.taken.wrapping_add(more.taken),
            returns: sum.returns.wrapping_add(more.returns),
        })
    }
}

/// How many records a queue has had, as it is used now.
pub(super) fn made(places: &[Place], tag: u32) -> u64 {
    places.iter().filter(|place| place.queue == tag).map(|place| place.made).sum()
}

/// The time of the last of its records that was written over; 0 if none was.
pub(super) fn overwritten_to(places: &[Place], tag: u32) -> u64 {
    places.iter().filter(|place| place.queue == tag).map(|place| place.overwritten_to).max().unwrap_or_default()
}

/// The pages that processors fill.
pub(super) fn filled(places: &[Place]) -> Vec<u16> {
    places.iter().map(|place| place.page as u16).filter(|page| *page != 0).collect()
}
