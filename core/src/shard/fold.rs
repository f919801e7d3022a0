//! The fold of accepted batches into rows. Every row is a function of the log, so folding twice, late
//! or at once changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    entry::Batch,
    env::Row,
    head::{Change, Head},
    shard::by_name::ByName,
    stream::StreamName,
};

/// A batch that does not follow the head of its stream: the store is not a fold of this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {stream}: revision {found} where {expected} was next: the store and the log do not belong together"
)]
pub struct StreamGap {
    /// The stream.
    pub stream: StreamName,
    /// The revision found in the log.
    pub found: u64,
    /// The revision that the stored head makes next.
    pub expected: u64,
}

/// The heads that a fold has in memory.
#[derive(Debug, Default)]
pub struct Fold {
    /// Rows share them until they are written.
    heads: ByName<Option<Arc<Head>>>,
}

impl Fold {
    /// The streams (no metadata streams) whose head must be [loaded](Fold::load) before `batches` can be folded.
    pub fn needs<'a>(&self, batches: impl IntoIterator<Item = &'a Batch>) -> BTreeSet<StreamName> {
        let appends = batches.into_iter().flat_map(|b| &b.appends);
        appends.map(|a| a.stream.described()).filter(|s| !self.heads.contains(s)).collect()
    }

    /// The stored head of a stream. It may be ahead of this fold, if another one has been faster.
    pub fn load(&mut self, stream: StreamName, stored: Option<Head>) {
        self.heads.insert(&stream, stored.map(Arc::new));
    }

    /// Folds batches into rows: every event, and behind them the head of every stream touched. A store that finds what a head
    /// remembers by the rows of its events relies on that order.
    ///
    /// A head that is ahead of the fold is written back as it is: another fold may have got it to
    /// fewer replicas than a checkpoint needs.
    pub fn rows<'a>(
        &mut self,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<Vec<Row>, StreamGap> {
        let batches: Vec<&Batch> = batches.into_iter().collect();
        let appends = batches.iter().flat_map(|batch| &batch.appends);
        // Events, and a head of each append at the most.
        let mut rows = Vec::with_capacity(appends.map(|append| append.events.len() + 1).sum());
        let mut touched = BTreeSet::new();
        for batch in batches {
            for (time, append) in batch.timed() {
                rows.extend(append.recorded(batch.shard, time).map(Row::Event));
                let described = append.stream.described();
                let head = self.heads.get_or_insert(&described);
                let last = head.as_ref().and_then(|h| h.last(&append.stream));
                let expected = last.map_or(0, |last| last + 1);
                if append.first > expected {
                    let stream = append.stream.clone();
                    return Err(StreamGap { stream, found: append.first, expected });
                }
                if append.first == expected {
                    let change = Change::of(append, batch.shard, time);
                    Arc::make_mut(head.get_or_insert_default()).apply(&change);
                }
                touched.insert(described);
            }
        }
        for stream in touched {
            if let Some(Some(head)) = self.heads.get(&stream) {
                rows.push(Row::Head(stream, head.clone()));
            }
        }
        Ok(rows)
    }

    /// Forgets all heads if there are more than `count_max`; they can be loaded again.
    pub fn bound(&mut self, count_max: usize) {
        if self.heads.len() > count_max {
            self.heads.clear();
        }
    }
}
