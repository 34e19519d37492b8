//! What waits to be written to one client.
//!
//! Records are let in up to a limit and refused beyond it, so that a client that does not read costs bounded memory
//! and its losses are counted; no pod may take all of it. A client says how much it can take
//! ([`gadgets::wire::Heartbeat::allowed`]), and gets no more. What explains the stream (hello, loss, trailer) is small and always let in.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gadgets::record::Header;
use gadgets::shares::Shares;
use gadgets::wire::{Frame, HEARTBEAT_SECONDS, Heartbeat};

use crate::sizes::QUEUE;
use crate::sync::lock;

/// The queue between those who produce frames and the thread that writes them.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to write, or nothing will be.
    filled: Condvar,
    /// More may be written.
    allowed: Condvar,
    /// What was there is written.
    emptied: Condvar,
}

struct State {
    frames: VecDeque<Encoded>,
    /// What waits, by slot.
    shares: Shares<u32>,
    /// Bytes of batches that may be written, all together.
    allowed: u64,
    /// Nothing more will come.
    closed: bool,
    /// Frames are on their way out.
    writing: bool,
    /// The client is gone: nothing can be written.
    broken: bool,
}

impl State {
    fn is_open(&self) -> bool {
        !self.closed && !self.broken
    }

    /// Lets a frame in whatever is waiting.
    fn force(&mut self, frame: Encoded) {
        self.shares.force(frame.bytes.len());
        self.frames.push_back(frame);
    }

    /// Whether another batch may be written after so many bytes of others.
    fn allows(&self, written: u64) -> bool {
        written < self.allowed
    }
}

/// A frame's bytes.
struct Encoded {
    bytes: Vec<u8>,
    /// Bytes of records, if it is a batch: what the client counts.
    batch: Option<u64>,
}

/// Records of a batch that were not let in, by slot.
pub(crate) type Refused = BTreeMap<u32, u64>;

impl Default for Outbox {
    fn default() -> Self {
        let shares = Shares::of(QUEUE);
        let frames = VecDeque::new();
        let state = State { frames, shares, allowed: u64::MAX, closed: false, writing: false, broken: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), allowed: Condvar::new(), emptied: Condvar::new() }
    }
}

impl Outbox {
    /// Queues a batch behind the frames that it needs to be understood, as far as there is room. `Err` if nothing at all
    /// was queued.
    pub(crate) fn offer(&self, needed: &[Frame], batch: Vec<u8>) -> Result<Refused, Refused> {
        let mut state = self.lock();
        let slot = |header: &Header| header.slot;
        // Nobody reads any more where there is no room at all.
        let (batch, refused) = match state.is_open() {
            true => state.shares.admit_batch(batch, slot),
            false => Shares::of(0).admit_batch(batch, slot),
        };
        if batch.is_empty() {
            return Err(refused);
        }
        needed.iter().filter_map(encode).for_each(|frame| state.force(frame));
        state.frames.extend(encode(&Frame::Batch(batch)));
        // Whoever wakes with this in hand only waits for it.
        drop(state);
        self.filled.notify_all();
        Ok(refused)
    }

    /// Queues a frame whatever is waiting.
    pub(crate) fn put(&self, frame: &Frame) {
        let Some(encoded) = encode(frame) else { return };
        let mut state = self.lock();
        if state.is_open() {
            state.force(encoded);
            drop(state);
            self.filled.notify_all();
        }
    }

    /// The client can take so many bytes of batches, all together.
    pub(crate) fn allow(&self, bytes: Option<u64>) {
        let mut state = self.lock();
        if let Some(bytes) = bytes.filter(|bytes| *bytes != state.allowed) {
            state.allowed = bytes;
            drop(state);
            self.allowed.notify_all();
        }
    }

    /// Whether so much waits that what can wait elsewhere should.
    pub(crate) fn is_congested(&self) -> bool {
        self.lock().shares.has_much()
    }

    /// Whether something that can wait should be put in now.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().shares.has_room()
    }

    /// Says that nothing more will come. What waits is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Says that nobody reads any more, and forgets what waits.
    pub(crate) fn break_off(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.frames.clear();
        state.shares.clear();
        drop(state);
        [&self.filled, &self.allowed, &self.emptied].into_iter().for_each(Condvar::notify_all);
    }

    /// Whether what is put in may still come to the client.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Whether the client is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Waits until all that will ever come was written, or cannot be. Returns whether that came to pass in time.
    pub(crate) fn wait_until_done(&self, at_most: Duration) -> bool {
        let done = |state: &mut State| !(state.broken || (state.closed && state.frames.is_empty() && !state.writing));
        let waited = self.emptied.wait_timeout_while(self.lock(), at_most, done);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Writes frames as they come, until the queue is closed and empty, or broken.
    pub(crate) fn write_to(&self, output: impl Write) {
        let mut output = BufWriter::new(output);
        let mut written = 0;
        loop {
            let mut state = self.lock();
            state.writing = false;
            self.emptied.notify_all();
            while state.frames.is_empty() && !state.closed && !state.broken {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let frames = std::mem::take(&mut state.frames);
            state.shares.clear();
            state.writing = true;
            if frames.is_empty() || state.broken {
                state.writing = false;
                return self.emptied.notify_all();
            }
            drop(state);
            if let Err(error) = self.write_all(&frames, &mut written, &mut output) {
                tracing::debug!("the client is gone: {error}");
                return self.break_off();
            }
        }
    }

    /// Writes frames, each batch when it may be. `written` counts the bytes of batches so far.
    fn write_all(&self, frames: &VecDeque<Encoded>, written: &mut u64, output: &mut impl Write) -> io::Result<()> {
        for frame in frames {
            if let Some(bytes) = frame.batch {
                if !self.lock().allows(*written) {
                    output.flush()?;
                }
                while !self.wait_until_allowed(*written) {
                    // The client must not think that nobody is here.
                    output.write_all(&Frame::Heartbeat(Heartbeat::default()).encode().unwrap_or_default())?;
                    output.flush()?;
                }
                *written += bytes;
            }
            output.write_all(&frame.bytes)?;
        }
        output.flush()
    }

    /// Waits until another batch may be written, or nobody wants it any more, for as long as the agent may be silent.
    fn wait_until_allowed(&self, written: u64) -> bool {
        let must_wait = |state: &mut State| !state.broken && !state.allows(written);
        let at_most = Duration::from_secs(HEARTBEAT_SECONDS);
        let waited = self.allowed.wait_timeout_while(self.lock(), at_most, must_wait);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn encode(frame: &Frame) -> Option<Encoded> {
    let bytes = frame.encode().inspect_err(|error| tracing::error!("a frame was dropped: {error}")).ok()?;
    let batch = if let Frame::Batch(batch) = frame { Some(batch.len() as u64) } else { None };
    Some(Encoded { bytes, batch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::decoder::Decoder;
    use std::io::Read as _;
    use std::sync::Arc;

    /// A batch of records of one slot, each of 1 KiB.
    fn batch(slot: u32, records: usize) -> Vec<u8> {
        let mut record = vec![0; 1 << 10];
        record[..4].copy_from_slice(&(1u32 << 10).to_le_bytes());
        record[24..28].copy_from_slice(&slot.to_le_bytes());
        record.repeat(records)
    }

    #[test]
    fn records_are_refused_when_too_many_wait_and_the_rest_never() {
        let outbox = Outbox::default();
        let mut refused = 0;
        for _ in 0..20 {
            let (Ok(of_batch) | Err(of_batch)) = outbox.offer(&[], batch(7, 1000));
            assert!(of_batch.keys().all(|slot| *slot == 7));
            refused += of_batch.values().sum::<u64>();
        }
        assert!(refused > 20_000 - (QUEUE as u64 >> 10));
        // It is one pod's doing, and another's are taken.
        assert_eq!(outbox.offer(&[], batch(8, 100)), Ok(Refused::new()));
        outbox.put(&Frame::Stop);
        outbox.close();
        assert!(!outbox.wait_until_done(Duration::ZERO));
        let mut written = Vec::new();
        outbox.write_to(&mut written);
        assert!(outbox.wait_until_done(Duration::ZERO));
        let taken = 20_100 - usize::try_from(refused).expect("fewer than there were");
        assert_eq!(written.len() >> 10, taken);
    }

    #[test]
    fn a_client_gets_no_more_than_it_can_take() {
        let outbox = Arc::new(Outbox::default());
        // One byte more than the first: only records count, or every batch would cost the client some of what it allows.
        outbox.allow(Some((100 << 10) + 1));
        for _ in 0..4 {
            assert_eq!(outbox.offer(&[], batch(1, 100)), Ok(Refused::new()));
        }
        outbox.close();
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let writing = Arc::clone(&outbox);
        let writer = std::thread::spawn(move || writing.write_to(writer));
        let mut decoder = Decoder::default();
        let mut next = || loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => return frame,
                _ => {
                    let mut bytes = [0; 1 << 10];
                    let read = reader.read(&mut bytes).expect("bytes");
                    decoder.push(&bytes[..read]);
                }
            }
        };
        assert!(matches!((next(), next()), (Frame::Batch(_), Frame::Batch(_))));
        assert!(matches!(next(), Frame::Heartbeat(_)));
        outbox.allow(Some(u64::MAX));
        assert!(matches!((next(), next()), (Frame::Batch(_), Frame::Batch(_))));
        writer.join().expect("all is written");
    }

    #[test]
    fn a_client_that_is_gone_takes_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let outbox = Outbox::default();
        outbox.put(&Frame::Stop);
        outbox.write_to(Gone);
        assert!(outbox.is_broken() && outbox.wait_until_done(Duration::ZERO));
        assert_eq!(outbox.offer(&[], batch(1, 2)), Err(Refused::from([(1, 2)])));
    }
}
