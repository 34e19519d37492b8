//! Intervals that end at the multiples of their length since 1970: on all nodes at once, as far as their clocks agree.

use std::time::Duration;

/// The interval that is underway. Times are ns since 1970.
#[derive(Clone, Debug)]
pub struct Interval {
    length: u64,
    delay: u64,
    due: u64,
}

impl Interval {
    /// One that is looked after `delay` later than it ends.
    pub fn new(length: Duration, delay: Duration, now: u64) -> Self {
        let mut interval = Self { length: nanos(length).max(1), delay: nanos(delay), due: 0 };
        interval.pass(now);
        interval
    }

    /// When it ends.
    pub fn end(&self) -> u64 {
        self.due.saturating_sub(self.delay)
    }

    /// How long it is until it is to be looked after. Nothing if the clock was set back: that must not make anybody wait.
    pub fn due_in(&self, now: u64) -> Duration {
        let left = self.due.saturating_sub(now);
        Duration::from_nanos(if left > self.length.saturating_add(self.delay) { 0 } else { left })
    }

    /// Goes on to the next that is not due yet.
    pub fn pass(&mut self, now: u64) {
        let passed = now.saturating_sub(self.delay) / self.length;
        self.due = passed.saturating_add(1).saturating_mul(self.length).saturating_add(self.delay);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_end_at_their_multiples_whatever_the_clock_does() {
        let new = |delay, now| Interval::new(Duration::from_nanos(10), Duration::from_nanos(delay), now);
        assert_eq!([0, 9, 10].map(|now| new(0, now).end()), [10, 10, 20]);
        assert_eq!([11, 12, 13].map(|now| new(2, now).end()), [10, 20, 20]);
        let interval = new(2, 12);
        assert_eq!(interval.due_in(15), Duration::from_nanos(7));
        assert_eq!(interval.due_in(23), Duration::ZERO);
        assert_eq!(interval.due_in(3), Duration::ZERO);
    }
}
