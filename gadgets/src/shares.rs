//! Who may still put something into a buffer that fills up: one that sends without end must not crowd out the others.
//!
//! The rule is that of the ring in the kernel (`bpf/include/gadget.h`), dynamic thresholds: once a quarter of the buffer is
//! in use, one owner may have at most [`SHARE`] times what is free.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::record::{Header, records};

/// How many times what is free one owner may have.
const SHARE: usize = 4;

/// What of a buffer is in use, and by whom.
#[derive(Debug)]
pub struct Shares<Owner> {
    limit: usize,
    used: usize,
    /// What each has put in since a quarter was in use.
    by_owner: HashMap<Owner, usize>,
}

impl<Owner: Eq + Hash> Shares<Owner> {
    /// Of an empty buffer that takes `limit` bytes.
    pub fn of(limit: usize) -> Self {
        Self { limit, used: 0, by_owner: HashMap::new() }
    }

    /// Counts so many bytes as being in the buffer if anybody may put them in. Else each owner has to ask for itself.
    fn admit_all(&mut self, bytes: usize) -> bool {
        let has_room = self.used + bytes <= self.limit / 4;
        if has_room {
            self.used += bytes;
        }
        has_room
    }

    /// Counts so many bytes as being in the buffer if their owner may put them in.
    pub fn admit(&mut self, owner: Owner, bytes: usize) -> bool {
        let Some(free) = self.limit.checked_sub(self.used + bytes) else { return false };
        if self.has_much() {
            let has = self.by_owner.entry(owner).or_default();
            if *has + bytes > free * SHARE {
                return false;
            }
            *has += bytes;
        }
        self.used += bytes;
        true
    }

    /// Counts the records of a batch as being in the buffer, as far as their owners may put them in: returns those, and how
    /// many there are of each owner that may not.
    pub fn admit_batch(&mut self, batch: Vec<u8>, owner: impl Fn(&Header) -> Owner) -> (Vec<u8>, BTreeMap<Owner, u64>)
    where
        Owner: Copy + Ord,
    {
        let mut refused = BTreeMap::new();
        if self.admit_all(batch.len()) {
            return (batch, refused);
        }
        let mut admitted = Vec::with_capacity(batch.len());
        for record in records(&batch).map_while(Result::ok) {
            let owner = owner(&record.header);
            if self.admit(owner, record.bytes.len()) {
                admitted.extend_from_slice(record.bytes);
            } else {
                *refused.entry(owner).or_default() += 1;
            }
        }
        (admitted, refused)
    }

    /// Counts bytes that are in the buffer whatever else is.
    pub fn force(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Whether so much of the buffer is in use that it is shared out.
    pub fn has_much(&self) -> bool {
        self.used >= self.limit / 4
    }

    /// Whether the buffer is not full.
    pub fn has_room(&self) -> bool {
        self.used < self.limit
    }

    /// The buffer was emptied.
    pub fn clear(&mut self) {
        self.used = 0;
        self.by_owner.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_has_most_of_it() {
        let mut shares = Shares::of(1000);
        let taken = (0..2000).filter(|_| shares.admit("noisy", 1)).count();
        assert!((800..900).contains(&taken), "{taken}");
    }

    #[test]
    fn those_that_send_little_find_room_whatever_others_do() {
        let mut shares = Shares::of(10_000);
        (0..20_000).for_each(|turn| _ = shares.admit(turn % 8, 1));
        assert!((0..20).all(|_| shares.admit(100, 1)));
        assert!(!shares.admit(1, 1) && !shares.admit_all(1));
        shares.clear();
        assert!(shares.admit(1, 1) && shares.admit_all(100));
    }

    #[test]
    fn it_is_never_more_than_full() {
        let mut shares = Shares::of(100);
        assert!((0..1000).filter(|owner| shares.admit(*owner, 3)).count() <= 33);
        shares.force(100);
        assert!(!shares.has_room() && !shares.admit(7000, 1));
    }
}
