//! What waits to be written to one client.
//!
//! Records are let in up to a limit and refused beyond it, so that a client that does not read costs bounded memory
//! and its losses are counted. What explains the stream (hello, loss, trailer) is small and always let in.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gadgets::wire::Frame;

use crate::sync::lock;

/// Bytes of records that may wait.
const LIMIT: usize = 8 << 20;

/// The queue between those who produce frames and the thread that writes them.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Nothing more will come.
    closed: bool,
    /// Frames are on their way out.
    writing: bool,
    /// The client is gone: nothing can be written.
    broken: bool,
}

impl Outbox {
    /// Queues frames that belong together, unless too much is waiting. Returns whether they were taken.
    pub(crate) fn offer(&self, frames: &[Frame]) -> bool {
        let encoded: Vec<_> = frames.iter().filter_map(encode).collect();
        let size: usize = encoded.iter().map(Vec::len).sum();
        let mut state = self.lock();
        if state.closed || state.broken || state.bytes + size > LIMIT {
            return false;
        }
        state.bytes += size;
        state.frames.extend(encoded);
        self.changed.notify_all();
        true
    }

    /// Queues a frame whatever is waiting.
    pub(crate) fn put(&self, frame: &Frame) {
        let Some(encoded) = encode(frame) else { return };
        let mut state = self.lock();
        if !state.closed && !state.broken {
            state.bytes += encoded.len();
            state.frames.push_back(encoded);
            self.changed.notify_all();
        }
    }

    /// Whether something that can wait should be put in now.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().bytes < LIMIT
    }

    /// Says that nothing more will come. What waits is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Says that nobody reads any more, and forgets what waits.
    pub(crate) fn break_off(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.frames.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    /// Whether the client is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Waits until all that will ever come was written, or cannot be. Returns whether that came to pass in time.
    pub(crate) fn wait_until_done(&self, at_most: Duration) -> bool {
        let done = |state: &mut State| !(state.broken || (state.closed && state.frames.is_empty() && !state.writing));
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, done);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Writes frames as they come, until the queue is closed and empty, or broken.
    pub(crate) fn write_to(&self, mut output: impl Write) {
        loop {
            let mut state = self.lock();
            state.writing = false;
            self.changed.notify_all();
            while state.frames.is_empty() && !state.closed && !state.broken {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let frames = std::mem::take(&mut state.frames);
            state.bytes = 0;
            state.writing = true;
            if frames.is_empty() || state.broken {
                state.writing = false;
                return self.changed.notify_all();
            }
            drop(state);
            if let Err(error) = write_all(&frames, &mut output) {
                tracing::debug!("the client is gone: {error}");
                return self.break_off();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn write_all(frames: &VecDeque<Vec<u8>>, output: &mut impl Write) -> io::Result<()> {
    for frame in frames {
        output.write_all(frame)?;
    }
    output.flush()
}

fn encode(frame: &Frame) -> Option<Vec<u8>> {
    frame.encode().inspect_err(|error| tracing::error!("a frame was dropped: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_refused_when_too_many_wait_and_the_rest_never() {
        let outbox = Outbox::default();
        let batch = [Frame::Batch(vec![0; 1 << 20])];
        let taken = (0..20).take_while(|_| outbox.offer(&batch)).count();
        assert_eq!(taken, 7);
        outbox.put(&Frame::Stop);
        outbox.close();
        assert!(!outbox.wait_until_done(Duration::ZERO));
        let mut written = Vec::new();
        outbox.write_to(&mut written);
        assert!(outbox.wait_until_done(Duration::ZERO));
        assert_eq!(written.len(), 7 * ((1 << 20) + 5) + 5);
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
        assert!(!outbox.offer(&[Frame::Stop]));
    }
}
