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
        Exchange::Manage(_, answer) => match answer {
            Some(Ok(_)) => 1u8.hash(&mut hasher),
            Some(Err(_)) => 2u8.hash(&mut hasher),
            None => 3u8.hash(&mut hasher),
        },
        Exchange::Fetch(fetch, answer) => {
            (fetch.consumer, fetch.max, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(fetched)) = answer {
                fetched.unit.hash(&mut hasher);
                fetched.events.iter().for_each(|g| (g.place, g.delivery).hash(&mut hasher));
            }
        }
        Exchange::Settle(settle, answer) => {
            (settle.consumer, settle.unit, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(settled)) = answer {
                settled.counted.hash(&mut hasher);
            }
        }
        Exchange::Leave(leave, answer) => {
            (leave.consumer, answer.is_some()).hash(&mut hasher);
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
