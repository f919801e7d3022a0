//! Reads a shard's log through the accept rule. Owners, folds and catch-up readers all read so.

use std::sync::Arc;

use tracing::info;

use crate::{
    entry::{Entry, InvalidEntry},
    env::{Cursor, Env, Log, ReadLogError},
    shard::{
        Checkpoint, ShardId,
        replay::{Ignored, LogGap, Replay, Verdict},
    },
    stats::{Counter, Stats},
};

/// The entries of one page that count.
#[derive(Debug)]
pub struct Step {
    /// Each with the state of the accept rule behind it.
    pub accepted: Vec<(Checkpoint, Entry)>,
    /// Whether nothing more can be read for now.
    pub at_tip: bool,
    /// Whether the shard is closed and this was its end.
    pub ended: bool,
}

/// Why a step was not read. Nothing is skipped: the next step begins at the same place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Try later.
    #[error(transparent)]
    Read(#[from] ReadLogError),
    /// A record is no entry.
    #[error(transparent)]
    Invalid(#[from] InvalidEntry),
    /// The log lost entries.
    #[error(transparent)]
    Gap(#[from] LogGap),
}

impl StepError {
    /// Whether trying again at the same place will not help: unless the checkpoint has moved on meanwhile
    /// ([`LogReader::skip_to`]), someone has to look at the log.
    pub fn is_lasting(&self) -> bool {
        match self {
            StepError::Read(error) => *error == ReadLogError::Trimmed,
            StepError::Invalid(_) | StepError::Gap(_) => true,
        }
    }
}

/// See the module's docs.
pub struct LogReader<E: Env> {
    env: Arc<E>,
    stats: Arc<Stats>,
    shard: ShardId,
    cursor: Cursor,
    replay: Replay,
}

impl<E: Env> LogReader<E> {
    /// Goes on behind a checkpoint.
    pub fn behind(env: Arc<E>, stats: Arc<Stats>, shard: ShardId, at: Checkpoint) -> Self {
        let cursor = reopen(&at);
        LogReader { env, stats, shard, cursor, replay: Replay::from(shard, at) }
    }

    /// Where the reader is: behind all steps so far.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.replay.checkpoint()
    }

    /// Goes on behind a checkpoint that is further than this reader: another fold has written all before it, and the log
    /// need not have it any more. Whether it is further.
    pub fn skip_to(&mut self, at: &Checkpoint) -> bool {
        let further = at.position > self.checkpoint().position || at.ended;
        if further {
            info!(shard = %self.shard, accepted = at.accepted, "what was next cannot be read: going on behind a newer checkpoint");
            self.cursor = reopen(at);
            self.replay = Replay::from(self.shard, at.clone());
        }
        further
    }

    /// Reads the next page.
    pub async fn step(&mut self) -> Result<Step, StepError> {
        if self.replay.checkpoint().ended {
            return Ok(Step { accepted: Vec::new(), at_tip: true, ended: true });
        }
        let page = loop {
            match self.env.log().read(self.shard, self.cursor.clone()).await {
                Ok(page) => break page,
                Err(ReadLogError::Expired) => {
                    self.stats.count(Counter::CursorsReopened);
                    self.cursor = reopen(self.replay.checkpoint());
                }
                Err(error) => {
                    if error == ReadLogError::Throttled {
                        self.stats.count(Counter::ReadsThrottled);
                    }
                    return Err(error.into());
                }
            }
        };
        let mut accepted = Vec::new();
        // A record that fails leaves the reader where it was before the page.
        let mut replay = self.replay.clone();
        for record in &page.records {
            let entry = Entry::decode(&record.data)?;
            match replay.apply(record.position, &entry)? {
                Verdict::Accepted => accepted.push((replay.checkpoint().clone(), entry)),
                Verdict::Ignored(why) => self.stats.count(match why {
                    Ignored::OtherShard => Counter::EntriesMisplaced,
                    Ignored::StaleFence | Ignored::Repeat => Counter::EntriesRepeated,
                    Ignored::StaleBatch => Counter::EntriesStale,
                }),
            }
        }
        let ended = page.next.is_none();
        match page.next {
            Some(next) => self.cursor = next,
            None => replay.end(),
        }
        self.replay = replay;
        Ok(Step { accepted, at_tip: page.at_tip, ended })
    }
}

fn reopen(at: &Checkpoint) -> Cursor {
    at.position.map_or(Cursor::Oldest, Cursor::After)
}
