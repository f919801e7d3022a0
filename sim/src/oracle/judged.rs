//! What all oracles look at: the evidence, its fold, and who asked and was told what, by append.

use std::{collections::BTreeMap, fmt};

use stormkeep_core::{
    append::{Append, AppendError, AppendId, Appended},
    shard::{ShardId, ShardInfo},
    stream::StreamName,
};

use super::{
    Evidence,
    fold::{Fold, Placed, fold},
};
use crate::history::{Call, Exchange, Nanos};

/// See the module's docs.
pub(super) struct Judged<'e> {
    pub(super) evidence: &'e Evidence,
    pub(super) fold: Fold,
    /// The answers "it is committed", in the order they were asked for.
    pub(super) acks: Vec<Ack<'e>>,
    /// What clients know of each of [`Fold::appends`].
    pub(super) known: Vec<Known>,
    /// The last moment of the run that the evidence tells of.
    pub(super) end: Nanos,
    /// The calls that asked for an append, by its id: indices of the history.
    asked: Vec<(AppendId, usize)>,
}

/// A client was told that its append is committed.
pub(super) struct Ack<'e> {
    pub(super) call: &'e Call,
    pub(super) append: &'e Append,
    pub(super) appended: &'e Appended,
    /// A number for its stream: the index of [`Fold::streams`], or a higher one if the log has no such stream.
    pub(super) stream: usize,
    /// Where the append stands, if it does at the revision that the client was told: an index of
    /// [`Fold::appends`].
    pub(super) place: Option<usize>,
}

impl Ack<'_> {
    /// When the client was told.
    pub(super) fn at(&self) -> Nanos {
        self.call.ended.unwrap_or(self.call.invoked)
    }
}

/// What clients know of an accepted append.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// When it was first asked for; `None`: nobody did.
    pub(super) asked: Option<Nanos>,
    /// When a client was first told that it is committed at this place.
    pub(super) told: Option<Nanos>,
}

/// One call for an append.
pub(super) struct Asked<'e> {
    pub(super) call: &'e Call,
    pub(super) append: &'e Append,
    pub(super) answer: Option<&'e Result<Appended, AppendError>>,
}

impl<'e> Judged<'e> {
    pub(super) fn new(evidence: &'e Evidence) -> Self {
        let fold = fold(&evidence.logs);
        let calls = &evidence.history.calls;
        let mut asked = Vec::with_capacity(calls.len());
        let mut acks = Vec::with_capacity(calls.len());
        let mut unknown_streams: BTreeMap<&StreamName, usize> = BTreeMap::new();
        let rest = &evidence.rest;
        let mut end = rest.healed_at.max(rest.rested_at.unwrap_or(0));
        for (n, call) in calls.iter().enumerate() {
            end = end.max(call.invoked).max(call.ended.unwrap_or(0));
            let Exchange::Append(append, answer) = &call.what else { continue };
            asked.push((append.id, n));
            let Some(Ok(appended)) = answer else { continue };
            let stream = fold.names.get(&append.stream).copied().unwrap_or_else(|| {
                let next = fold.streams.len() + unknown_streams.len();
                *unknown_streams.entry(&append.stream).or_insert(next)
            });
            let place = fold.places(append.id).find(|n| {
                let placed = &fold.appends[*n];
                placed.stream == stream && placed.first == appended.first
            });
            acks.push(Ack { call, append, appended, stream, place });
        }
        asked.sort_unstable();

        let mut judged = Judged { evidence, fold, acks, known: Vec::new(), end, asked };
        let known = judged.fold.appends.iter().map(|placed| {
            let asked = judged.asked(placed.id).map(|asked| asked.call.invoked).min();
            Known { asked, told: None }
        });
        let mut known: Vec<Known> = known.collect();
        for ack in &judged.acks {
            if let Some(place) = ack.place {
                let told = known[place].told.map_or(ack.at(), |at| at.min(ack.at()));
                known[place].told = Some(told);
            }
        }
        judged.known = known;
        judged
    }

    /// The calls for an append, in the order they were asked in.
    pub(super) fn asked(&self, id: AppendId) -> impl Iterator<Item = Asked<'e>> {
        let begin = self.asked.partition_point(|(i, _)| *i < id);
        let calls = self.asked[begin..].iter().take_while(move |(i, _)| *i == id);
        calls.filter_map(|(_, n)| {
            let call = &self.evidence.history.calls[*n];
            let Exchange::Append(append, answer) = &call.what else { return None };
            Some(Asked { call, append, answer: answer.as_ref() })
        })
    }

    /// When a client could first see an accepted append: when it was told of it, else the end.
    pub(super) fn seen_at(&self, place: usize) -> Nanos {
        self.known[place].told.unwrap_or(self.end)
    }

    pub(super) fn shard(&self, id: ShardId) -> Option<&'e ShardInfo> {
        self.evidence.shards.iter().find(|s| s.id == id)
    }

    /// An accepted append, in words.
    pub(super) fn words(&self, placed: &Placed) -> String {
        format!(
            "append {:?} of {} at {} (shard {}, epoch {}, batch {})",
            placed.id,
            self.fold.streams[placed.stream].name,
            Revisions(placed.first, placed.last),
            placed.shard,
            placed.epoch,
            placed.batch
        )
    }
}

/// A call, in words: who asked whom, and when.
pub(super) struct Who<'e>(pub(super) &'e Call);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { client, node, invoked, ended, .. } = self.0;
        write!(f, "client {client} at n{node}, {} to ", Time(*invoked))?;
        match ended {
            Some(ended) => write!(f, "{}", Time(*ended)),
            None => f.write_str("never"),
        }
    }
}

/// Virtual time, in words.
pub(super) struct Time(pub(super) Nanos);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// A run of revisions, in words.
pub(super) struct Revisions(pub(super) u64, pub(super) u64);

impl fmt::Display for Revisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revisions(first, last) if first == last => write!(f, "revision {first}"),
            Revisions(first, last) => write!(f, "revisions {first} to {last}"),
        }
    }
}

/// A head, in words.
pub(super) struct At(pub(super) Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "revision {revision}"),
            None => f.write_str("no event"),
        }
    }
}
