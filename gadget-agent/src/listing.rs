//! What there is when somebody asks: the records of a gadget's lists, on their way to who has asked.

use gadgets::record::records;
use libbpf_rs::Link;

use crate::runtime::sample;

/// Bytes of records that are given out at a time.
const CHUNK: usize = 64 << 10;

/// The lists of one gadget, which are read once.
pub(crate) struct Listing {
    lists: Vec<Link>,
    records: Vec<u8>,
    /// Bytes of these that were given out.
    given: usize,
    is_read: bool,
}

impl Listing {
    pub(crate) fn new(lists: Vec<Link>) -> Self {
        Self { lists, records: Vec::new(), given: 0, is_read: false }
    }

    /// Reads what there is now, the first time. Returns why something may be missing.
    pub(crate) fn read(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.is_read, true) {
            return Vec::new();
        }
        let records = &mut self.records;
        let read = self.lists.iter().map(|list| sample::read(list, records));
        read.filter_map(|read| Some(format!("the kernel did not give out all that there is: {}", read.err()?)))
            .collect()
    }

    /// Whether everything was given out.
    pub(crate) fn is_over(&self) -> bool {
        self.is_read && self.given == self.records.len()
    }

    /// The next records, back to back.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let rest = &self.records[self.given..];
        let mut end = 0;
        for record in records(rest).map_while(Result::ok) {
            end += record.bytes.len();
            if end >= CHUNK {
                break;
            }
        }
        // What is no record cannot be passed over.
        let end = if end == 0 { rest.len() } else { end };
        let chunk = rest[..end].to_vec();
        self.given += end;
        chunk
    }
}
