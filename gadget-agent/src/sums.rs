//! Records that are the same but for their measures, which are added up until an interval is over: what is sent grows with what there is
//! to see, and not with how often it was seen.

use std::collections::HashMap;

use gadgets::catalogue::Profiled;
use gadgets::record::Header;
use gadgets::schema::Schema;

/// Records that differ which are kept; more are passed on as they are.
const MOST: usize = 16 << 10;
/// Where the header has the time.
const TIME: std::ops::Range<usize> = 8..16;
/// Bytes of a measure.
const MEASURE: usize = 8;

/// What has come in the interval.
pub(crate) struct Sums {
    /// Where the measures are, by stream: bytes from the record's start.
    measures: HashMap<u16, Vec<usize>>,
    /// By the record without its time and measures.
    rows: HashMap<Vec<u8>, Row>,
}

struct Row {
    /// When the first of them was, CLOCK_BOOTTIME ns.
    time: u64,
    sums: Vec<u64>,
}

impl Sums {
    /// For records of a gadget.
    pub(crate) fn new(schema: &Schema, profiled: Profiled) -> Self {
        let is_measure = |name: &str| profiled.measures.contains(&name);
        let measures = schema.streams.iter().map(|stream| {
            let fields = stream.fields.iter().filter(|field| is_measure(&field.name) && field.size as usize == MEASURE);
            (stream.id, fields.map(|field| field.offset as usize).collect())
        });
        Self { measures: measures.collect(), rows: HashMap::new() }
    }

    /// Adds a record. Returns whether there was room for it.
    pub(crate) fn add(&mut self, header: &Header, record: &[u8]) -> bool {
        let Some(measures) = self.measures.get(&header.stream) else { return false };
        let mut key = record.to_vec();
        let Some(values) = measures.iter().map(|at| take(&mut key, *at)).collect::<Option<Vec<u64>>>() else {
            return false;
        };
        take(&mut key, TIME.start);
        let is_full = self.rows.len() >= MOST;
        match self.rows.get_mut(&key) {
            Some(row) => {
                row.time = row.time.min(header.time);
                row.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.saturating_add(value));
            }
            None if is_full => return false,
            None => _ = self.rows.insert(key, Row { time: header.time, sums: values }),
        }
        true
    }

    /// The time of the first record, CLOCK_BOOTTIME ns.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.rows.values().map(|row| row.time).min()
    }

    /// The sums, as records in the order of their times. The next interval begins.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut rows: Vec<_> = self.rows.drain().collect();
        rows.sort_by_key(|(_, row)| row.time);
        let record = |(mut record, row): (Vec<u8>, Row)| {
            record[TIME].copy_from_slice(&row.time.to_ne_bytes());
            let measures = Header::read(&record).ok().and_then(|header| self.measures.get(&header.stream));
            for (at, sum) in measures.into_iter().flatten().zip(row.sums) {
                record[*at..at + MEASURE].copy_from_slice(&sum.to_ne_bytes());
            }
            record
        };
        rows.into_iter().map(record).collect()
    }
}

/// Takes a number out of a record and leaves nothing in its place.
fn take(record: &mut [u8], at: usize) -> Option<u64> {
    let place: &mut [u8; MEASURE] = record.get_mut(at..)?.first_chunk_mut()?;
    Some(u64::from_ne_bytes(std::mem::take(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::record::HEADER_SIZE;

    const SIZE: usize = HEADER_SIZE + 16;

    /// A record of stream 0 with something, and a measure behind it.
    fn record(time: u64, what: u64, measure: u64) -> Vec<u8> {
        let mut record = vec![0; HEADER_SIZE];
        record[..4].copy_from_slice(&(SIZE as u32).to_ne_bytes());
        record[TIME].copy_from_slice(&time.to_ne_bytes());
        record.extend(what.to_ne_bytes());
        record.extend(measure.to_ne_bytes());
        record
    }

    #[test]
    fn what_is_the_same_is_added_up() {
        let mut sums = Sums { measures: [(0, vec![HEADER_SIZE + 8])].into(), rows: HashMap::new() };
        for record in [record(5, 1, 10), record(3, 2, 1), record(4, 1, 7), record(9, 1, u64::MAX)] {
            assert!(sums.add(&Header::read(&record).expect("a header"), &record));
        }
        assert_eq!(sums.oldest(), Some(3));
        assert_eq!(sums.take(), [record(3, 2, 1), record(4, 1, u64::MAX)]);
        assert_eq!((sums.oldest(), sums.take().len()), (None, 0));
    }

    #[test]
    fn what_has_no_room_is_left() {
        let mut sums = Sums { measures: [(0, vec![HEADER_SIZE + 8])].into(), rows: HashMap::new() };
        let mut add = |what| {
            let record = record(1, what, 1);
            sums.add(&Header::read(&record).expect("a header"), &record)
        };
        assert!((0..MOST as u64).all(&mut add) && !add(MOST as u64) && add(0));
        assert!(
            !sums.add(&Header { stream: 1, ..Header::read(&record(1, 1, 1)).expect("a header") }, &record(1, 1, 1))
        );
    }
}
