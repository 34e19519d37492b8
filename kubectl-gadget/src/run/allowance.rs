//! Flow control: an agent may send as many bytes of batches as there is room for on this side. What a slow reader does not
//! take so waits where most fits and every loss is charged to its pod: in the agent, and in the kernel's ring.

use tokio::sync::watch;

/// Bytes of batches that all agents together may have on their way here.
const WINDOW: u64 = 4 << 20;

/// How much one agent may send in a session.
pub(crate) struct Allowance {
    /// Bytes of its batches that were taken out of the inbox.
    taken: watch::Receiver<u64>,
    /// The same before this session.
    before: u64,
    window: u64,
    /// What the agent knows.
    told: u64,
}

impl Allowance {
    /// That of an agent, one of so many.
    pub(super) fn new(taken: watch::Receiver<u64>, agents: usize) -> Self {
        let before = *taken.borrow();
        Self { taken, before, window: WINDOW / agents.max(1) as u64, told: 0 }
    }

    /// What to tell the agent: how many bytes it may have sent in all.
    pub(super) fn tell(&mut self) -> u64 {
        self.told = *self.taken.borrow() - self.before + self.window;
        self.told
    }

    /// Waits until it is worth telling.
    pub(super) async fn grow(&mut self) {
        let Self { taken, before, window, told } = self;
        if taken.wait_for(|taken| taken - *before + *window / 2 >= *told).await.is_err() {
            std::future::pending().await
        }
    }
}
