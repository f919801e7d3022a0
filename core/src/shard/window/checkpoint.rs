//! When a window's mark is to be written down.

use std::time::Duration;

use super::{Mark, Window};

/// Time without enough settled events goes before [`checkpoint_min`](crate::group::Settings::checkpoint_min) after so many
/// times [`checkpoint_after`](crate::group::Settings::checkpoint_after).
const PATIENCE: u32 = 10;

/// What was written down last.
#[derive(Debug)]
pub(super) struct Written {
    mark: Mark,
    at: Duration,
    /// Events settled since.
    pub(super) settled: u64,
}

impl Written {
    pub(super) fn new(mark: Mark, at: Duration) -> Self {
        Written { mark, at, settled: 0 }
    }
}

impl Window {
    /// How far everything is settled.
    pub fn mark(&self) -> Mark {
        match self.items.first_key_value() {
            Some((first, _)) => Mark { next: *first, ended: false },
            None => Mark { next: self.read, ended: self.ended },
        }
    }

    /// The mark, if it should be written down now.
    pub fn checkpoint(&self, now: Duration) -> Option<Mark> {
        let mark = self.mark();
        if mark == self.written.mark {
            return None;
        }
        let (settings, settled) = (&self.settings, self.written.settled);
        let waited = now.saturating_sub(self.written.at);
        let enough = settled >= u64::from(settings.checkpoint_min) || self.items.is_empty();
        let due = mark.ended
            || settled >= u64::from(settings.checkpoint_max)
            || (waited >= settings.checkpoint_after && enough)
            || waited >= settings.checkpoint_after * PATIENCE;
        due.then_some(mark)
    }

    /// The time at which [`checkpoint`](Window::checkpoint) may have something to say, if nothing else happens.
    pub fn checkpoint_due(&self) -> Option<Duration> {
        let mark = self.mark();
        if mark == self.written.mark {
            return None;
        }
        let soon = self.written.settled >= u64::from(self.settings.checkpoint_min)
            || self.items.is_empty();
        let times = if soon { 1 } else { PATIENCE };
        Some(self.written.at + self.settings.checkpoint_after * times)
    }

    /// A mark was written down.
    pub fn written(&mut self, mark: Mark, now: Duration) {
        self.written = Written::new(mark, now);
    }
}
