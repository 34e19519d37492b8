//! Reads a gadget's ring: asleep when nothing happens, in batches when much does.
//!
//! The kernel side of the wake-up rule is `gadget_wakeup` in `bpf/include/gadget.h`.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::AgentError;
use crate::sync::lock;

/// Records taken from the ring in one go: they are copied.
const RECORDS_AT_ONCE: usize = 512;

/// What the reader is doing: `enum gadget_reader_state`.
#[derive(Clone, Copy)]
enum State {
    Awake = 0,
    Napping = 1,
    Asleep = 2,
}

/// A ring and its reader's state.
pub(crate) struct Ring {
    ring: RingBuffer<'static>,
    staged: Arc<Mutex<Vec<u8>>>,
    state: MapHandle,
    epoll: Epoll,
    alarm: Arc<EventFd>,
}

/// Interrupts the sleep of a ring's reader.
#[derive(Clone)]
pub(crate) struct Alarm(Arc<EventFd>);

impl Alarm {
    /// Wakes the reader, or keeps it from falling asleep.
    pub(crate) fn ring(&self) {
        // The only failure is a counter that is full, and then the reader is being woken already.
        let _ = self.0.write(1);
    }
}

impl Ring {
    /// A reader for the ring of a gadget; `state` is its map `gadget_reader`.
    pub(crate) fn new(ring: &MapHandle, state: MapHandle) -> Result<Self, AgentError> {
        let failed = |error: &dyn std::fmt::Display| AgentError::internal("read the gadget's ring", error);
        let staged = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&staged);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(ring, move |record| {
                lock(&sink).extend_from_slice(record);
                0
            })
            .map_err(|error| failed(&error))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| failed(&error))?;
        let alarm =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|error| failed(&error))?;
        // Edges only: level-triggered, whatever was written without a wake-up would end the next nap at once.
        let edge = |fd: BorrowedFd<'_>| epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0));
        edge(ring.as_fd()).and_then(|()| edge(alarm.as_fd())).map_err(|error| failed(&error))?;
        let ring = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { ring, staged, state, epoll, alarm: Arc::new(alarm) })
    }

    /// What wakes this reader.
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm(Arc::clone(&self.alarm))
    }

    /// Takes records out of the ring and adds them, back to back, to `records`. Returns how many they were.
    pub(crate) fn take(&self, records: &mut Vec<u8>) -> usize {
        let taken = self.ring.consume_raw_n(RECORDS_AT_ONCE);
        records.append(&mut lock(&self.staged));
        usize::try_from(taken).unwrap_or(0)
    }

    /// Rests for at most this long, until much has gathered.
    pub(crate) fn nap(&self, at_most: Duration) {
        self.rest(State::Napping, at_most);
    }

    /// Rests for at most this long, until the first record.
    pub(crate) fn sleep(&self, at_most: Duration) {
        self.rest(State::Asleep, at_most);
    }

    /// Rests for at most this long, whatever gathers.
    pub(crate) fn pause(&self, at_most: Duration) {
        self.rest(State::Awake, at_most);
    }

    fn rest(&self, state: State, at_most: Duration) {
        self.set(state);
        // A record that came before the state was set woke nobody.
        if !self.has_records(state) {
            let timeout = whole_ms(at_most);
            // A signal only shortens the rest.
            let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], timeout);
        }
        let _ = self.alarm.read();
        self.set(State::Awake);
    }

    fn has_records(&self, state: State) -> bool {
        matches!(state, State::Asleep) && {
            self.ring.consume_raw_n(1);
            !lock(&self.staged).is_empty()
        }
    }

    fn set(&self, state: State) {
        let updated = self.state.update(&0u32.to_ne_bytes(), &(state as u32).to_ne_bytes(), MapFlags::ANY);
        debug_assert!(updated.is_ok(), "an array of one element");
    }
}

/// In the milliseconds that the kernel waits for, no fewer: who comes back before it is time comes back again and again.
fn whole_ms(rest: Duration) -> EpollTimeout {
    EpollTimeout::try_from(rest.as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
}
