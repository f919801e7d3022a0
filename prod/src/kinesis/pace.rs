//! Keeps the reads of this process within what the service allows of one shard, so that they are not refused.
//!
//! The service counts the reads of all readers together; what other processes read is seen only when it throttles.

use std::{collections::BTreeMap, time::Duration};

use stormkeep_core::shard::ShardId;

/// A reader that would have to wait longer than this is told to come back instead.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// When each shard may be read next. Times are since an arbitrary moment.
#[derive(Debug)]
pub(super) struct Pace {
    between_reads: Duration,
    bytes_per_s: u64,
    free_at: BTreeMap<ShardId, Duration>,
}

impl Pace {
    pub(super) fn new(reads_per_s: u32, bytes_per_s: u64) -> Self {
        let between_reads = Duration::from_secs(1) / reads_per_s.max(1);
        Pace { between_reads, bytes_per_s: bytes_per_s.max(1), free_at: BTreeMap::new() }
    }

    /// A place for one read of a shard: how long to wait for it. `None`: too long, try later.
    pub(super) fn reserve(&mut self, shard: ShardId, now: Duration) -> Option<Duration> {
        let free_at = self.free_at.entry(shard).or_default();
        let at = now.max(*free_at);
        let wait = at - now;
        if wait > WAIT_MAX {
            return None;
        }
        *free_at = at + self.between_reads;
        Some(wait)
    }

    /// A read has returned so many bytes.
    pub(super) fn spent(&mut self, shard: ShardId, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        // What its own place in the row covers already is not waited for twice.
        *self.free_at.entry(shard).or_default() += takes.saturating_sub(self.between_reads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: ShardId = ShardId(0);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn five_reads_a_second_and_no_more() {
        let mut pace = Pace::new(5, 2_000_000);
        let waits: Vec<_> = (0..7).map(|_| pace.reserve(S, ms(100))).collect();
        let due = [0, 200, 400, 600, 800, 1000].map(|wait| Some(ms(wait)));
        assert_eq!(waits[..6], due);
        assert_eq!(waits[6], None);
        assert_eq!(pace.reserve(ShardId(1), ms(100)), Some(ms(0)), "shards are apart");
        assert_eq!(pace.reserve(S, ms(5000)), Some(ms(0)));
    }

    #[test]
    fn a_large_read_makes_the_next_one_wait() {
        let mut pace = Pace::new(5, 2_000_000);
        assert_eq!(pace.reserve(S, ms(0)), Some(ms(0)));
        pace.spent(S, 1_000_000);
        assert_eq!(pace.reserve(S, ms(0)), Some(ms(500)));
        pace.spent(S, 1000);
        assert_eq!(pace.reserve(S, ms(0)), Some(ms(700)), "a small one fits in its place");
    }
}
