//! What a question and its answer come to in the trace.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::history::Exchange;

/// A number for the trace that tells questions and answers apart.
pub(super) fn digest(what: &Exchange) -> u64 {
    let mut hasher = DefaultHasher::new();
    match what {
        Exchange::Append(append, answer) => {
            (append.id, answer.is_some()).hash(&mut hasher);
            match answer {
                Some(Ok(a)) => (a.first, a.last, a.time, a.epoch, a.repeated).hash(&mut hasher),
                Some(Err(error)) => (error.outcome() as u64).hash(&mut hasher),
                None => {}
            }
        }
        Exchange::Read(read, answer) => {
            (&read.stream, read.from, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(slice)) = answer {
                (slice.head, slice.first_shown).hash(&mut hasher);
                slice.events.iter().for_each(|e| (e.revision, e.append).hash(&mut hasher));
            }
        }
        Exchange::All(read, answer) => {
            (read.from, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(slice)) = answer {
                (slice.next, slice.watermark).hash(&mut hasher);
                slice.events.iter().for_each(|e| (e.shard, e.time).hash(&mut hasher));
            }
        }
        Exchange::Follow(read, answer) => {
            (read.shard, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(slice)) = answer {
                slice.next.position.hash(&mut hasher);
                slice.events.iter().for_each(|e| (e.revision, e.append).hash(&mut hasher));
            }
        }
    }
    hasher.finish()
}
