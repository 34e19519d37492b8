//! What there is when somebody asks: a gadget's lists, on their way to who has asked.

use std::io::{self, Read as _};

use gadgets::record::records;
use libbpf_rs::{Iter, Link};

/// Bytes that are asked for at a time.
const CHUNK: usize = 64 << 10;

/// The lists of one gadget, each of which is read once, as far as somebody can take it.
pub(crate) struct Listing {
    /// Those that are left, the first one last.
    lists: Vec<Link>,
    /// The first of these, if it was begun.
    reading: Option<Iter>,
    /// The beginning of a record.
    rest: Vec<u8>,
}

impl Listing {
    pub(crate) fn new(mut lists: Vec<Link>) -> Self {
        lists.reverse();
        Self { lists, reading: None, rest: Vec::new() }
    }

    /// Whether there is no more.
    pub(crate) fn is_over(&self) -> bool {
        self.lists.is_empty()
    }

    /// The next records, back to back; none if the kernel takes a breath.
    ///
    /// # Errors
    /// If the kernel does not give out all that there is of one kind. The others follow.
    pub(crate) fn take(&mut self) -> io::Result<Vec<u8>> {
        let mut taken = std::mem::take(&mut self.rest);
        match self.read(&mut taken) {
            Ok(0) => self.go_on(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                self.go_on();
                return Err(error);
            }
        }
        let whole = records(&taken).map_while(Result::ok).map(|record| record.bytes.len()).sum();
        self.rest = taken.split_off(whole);
        Ok(taken)
    }

    /// Adds some bytes of the first list. Returns how many.
    fn read(&mut self, taken: &mut Vec<u8>) -> io::Result<usize> {
        let Some(list) = self.lists.last() else { return Ok(0) };
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => none.insert(Iter::new(list).map_err(io::Error::other)?),
        };
        let before = taken.len();
        taken.resize(before + CHUNK, 0);
        let read = reading.read(&mut taken[before..]);
        taken.truncate(before + read.as_ref().copied().unwrap_or_default());
        read
    }

    fn go_on(&mut self) {
        self.reading = None;
        self.lists.pop();
    }
}
