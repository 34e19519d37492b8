//! Records that are held back until it is known what they are about: whose container it is, or which functions are on a stack.

use std::collections::VecDeque;

use gadgets::record::Header;
use gadgets::shares::Shares;

/// Bytes of records that are held back.
const BYTES: usize = 8 << 20;

/// The records, in their order, and each pod's share of the room for them.
pub(crate) struct Held {
    records: VecDeque<Vec<u8>>,
    shares: Shares<u32>,
}

impl Default for Held {
    fn default() -> Self {
        Self { records: VecDeque::new(), shares: Shares::of(BYTES) }
    }
}

impl Held {
    /// Holds a record back. Returns whether there was room for it.
    pub(crate) fn admit(&mut self, header: &Header, record: &[u8]) -> bool {
        let is_admitted = self.shares.admit(header.slot, record.len());
        if is_admitted {
            self.records.push_back(record.to_vec());
        }
        is_admitted
    }

    /// Gives out all of them. Whichever is still to be held comes back by [`Held::admit`], for which there is room.
    pub(crate) fn take(&mut self) -> VecDeque<Vec<u8>> {
        self.shares.clear();
        std::mem::take(&mut self.records)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(Vec::as_slice)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The time of the first one, CLOCK_BOOTTIME ns.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.records.front().and_then(|record| Header::read(record).ok()).map(|header| header.time)
    }
}
