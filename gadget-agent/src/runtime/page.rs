//! A page of a recorder: `struct recorder_page` of `bpf/include/recorder.h`.

use gadgets::record::Header;

/// Bytes of a page, and of its head.
pub(super) const PAGE: u32 = 4096;
pub(super) const HEAD: usize = 32;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u32,
    /// Odd while it is being written over, and another afterwards.
    pub(super) round: u32,
    /// The tag of the queue whose records these are.
    pub(super) queue: u32,
    /// How many they are.
    pub(super) count: u32,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// A copy of a page, and how far it was read.
pub(super) struct Page {
    pub(super) head: Head,
    records: Vec<u8>,
    /// Where the next record begins.
    at: usize,
}

impl Page {
    /// `None` if there is nothing on it, or it was being written over.
    pub(super) fn of(number: u32, mut bytes: Vec<u8>) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let (round, queue, used, count) = (u32_at(0)?, u32_at(4)?, u32_at(8)? as usize, u32_at(12)?);
        let head = Head { number, round, queue, count, first_ns: u64_at(16)?, last_ns: u64_at(24)? };
        let is_whole = round % 2 == 0 && used > 0;
        bytes.truncate(HEAD.checked_add(used)?);
        is_whole.then_some(Self { head, records: bytes, at: HEAD })
    }

    /// Only what another copy has as well.
    pub(super) fn cut_to(mut self, other: &Self) -> Self {
        self.records.truncate(other.records.len());
        self
    }

    /// The head of the next record.
    pub(super) fn next(&self) -> Option<Header> {
        Header::read(self.records.get(self.at..)?).ok()
    }

    /// The next record's bytes.
    pub(super) fn take(&mut self) -> Option<&[u8]> {
        let size = self.next()?.size as usize;
        let record = self.records.get(self.at..self.at + size);
        self.at += size;
        record
    }

    /// The times of all that is left.
    pub(super) fn times(mut self) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(header) = self.next() {
            times.push(header.time);
            self.at += header.size as usize;
        }
        times
    }

    /// Nothing is left of it.
    pub(super) fn is_read(&self) -> bool {
        self.next().is_none()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use gadgets::record::HEADER_SIZE;

    use super::*;

    /// One with a record for each of these times.
    pub(in super::super) fn page(round: u32, queue: u32, times: &[u64]) -> Vec<u8> {
        let record = |time: &u64| {
            let mut record = vec![0; HEADER_SIZE];
            record[..4].copy_from_slice(&(HEADER_SIZE as u32).to_ne_bytes());
            record[8..16].copy_from_slice(&time.to_ne_bytes());
            record
        };
        let records: Vec<u8> = times.iter().flat_map(record).collect();
        let mut page = [round, queue, records.len() as u32, times.len() as u32].map(u32::to_ne_bytes).concat();
        let ends = [times.first(), times.last()].map(|time| time.copied().unwrap_or_default());
        page.extend(ends.map(u64::to_ne_bytes).concat());
        page.extend(records);
        page.resize(PAGE as usize, 0xff);
        page
    }

    #[test]
    fn a_page_that_is_being_written_over_says_nothing() {
        let whole = Page::of(5, page(2, 1, &[7, 8])).expect("a page");
        let head = Head { number: 5, round: 2, queue: 1, count: 2, first_ns: 7, last_ns: 8 };
        assert_eq!((whole.head, whole.times()), (head, vec![7, 8]));
        assert!(Page::of(5, page(3, 1, &[7])).is_none());
        assert!(Page::of(5, page(2, 1, &[])).is_none());
        assert!(Page::of(5, vec![0; 8]).is_none());
    }
}
