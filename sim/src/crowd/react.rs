//! What a client does after an answer.

use stormkeep_core::{
    append::{AllSlice, AppendError, ReadError},
    stream::StreamName,
};

use super::{Client, Crowd, Role, choose};
use crate::{
    history::{Exchange, Nanos},
    world::{MS, World},
};

/// What a client does after an answer.
#[allow(clippy::large_enum_variant)] // short-lived; one is on the stack at a time
pub(super) enum Next {
    Turn(Nanos),
    Again(Nanos, Exchange),
    Leave,
}

pub(super) fn react(
    world: &World,
    crowd: &mut Crowd,
    number: u32,
    node: u32,
    what: Exchange,
) -> Next {
    let workload = &world.plan.workload;
    let surging = crowd.surging > 0;
    let client = &mut crowd.clients[number as usize];
    let think = client.stream.wait(workload.think_ms * MS);
    match what {
        Exchange::Append(append, answer) => {
            let settled = matches!(answer, Some(Ok(_)));
            if let Some(Ok(appended)) = &answer {
                if let Some(nth) = shared_number(&append.stream) {
                    let seen = crowd.seen.get_mut(nth);
                    seen.into_iter().for_each(|s| *s = (*s).max(Some(appended.last)));
                }
                if client.tries > 0 {
                    world.rare("clients' unknown appends settled by a retry");
                }
                if append.stream.is_metadata() {
                    world.rare("limits and deletions acknowledged");
                }
                if surging {
                    world.rare("appends acknowledged while the crowd was there");
                }
            }
            if let (Some(Err(AppendError::WrongExpectedRevision { actual, .. })), Some(nth)) =
                (&answer, shared_number(&append.stream))
                && let Some(seen) = crowd.seen.get_mut(nth)
            {
                *seen = (*seen).max(*actual);
            }
            if let (Some(Ok(appended)), Role::Steady) = (&answer, &client.role)
                && choose::per_mille(&mut client.stream, workload.read_all_per_mille)
            {
                // It must be in the order of all events now, as this node sees it.
                client.pinned = Some(node);
                let appended = appended.position();
                return Next::Again(0, choose::look_for(&mut client.stream, appended));
            }
            if matches!(answer, Some(Err(AppendError::Tombstoned))) {
                world.rare("appends refused by a tombstone");
            }
            if settled {
                return match client.role {
                    Role::Probe(..) => {
                        crowd.unfinished -= 1;
                        Next::Leave
                    }
                    _ => Next::Turn(think),
                };
            }
            client.tries += 1;
            let again = Exchange::Append(append, None);
            let unknown = matches!(answer, None | Some(Err(AppendError::Unknown)));
            match (&client.role, &answer) {
                (Role::Probe(..), _) => Next::Again(200 * MS, again),
                _ if crowd.stopping => Next::Leave,
                (
                    _,
                    Some(Err(
                        AppendError::Invalid(_)
                        | AppendError::WrongExpectedRevision { .. }
                        | AppendError::Tombstoned,
                    )),
                ) => {
                    client.tries = 0;
                    Next::Turn(think)
                }
                (Role::Merciless, _) if client.tries < 20 => Next::Again(5 * MS, again),
                (_, Some(Err(AppendError::Busy { retry_after }))) if client.tries < 10 => {
                    let wait = retry_after.as_nanos() as Nanos;
                    Next::Again(wait + client.stream.below(wait + 1), again)
                }
                _ if unknown
                    && client.tries < 10
                    && client.stream.chance(f64::from(workload.retry_per_mille) / 1000.0) =>
                {
                    Next::Again(50 * MS + client.stream.below(100 * MS), again)
                }
                _ => Next::Turn(think),
            }
        }
        Exchange::Read(_, answer) => {
            if let Some(Ok(slice)) = &answer
                && slice.head.is_some()
                && !slice.exists
            {
                world.rare("reads that saw a deleted stream");
            }
            let Role::Inspect(names, from) = &mut client.role else { return Next::Turn(think) };
            let Some(Ok(slice)) = answer else { return Next::Turn(200 * MS) };
            match slice.next {
                Some(next) => *from = next,
                None => {
                    names.pop();
                    *from = 0;
                }
            }
            if names.is_empty() {
                crowd.unfinished -= 1;
                return Next::Leave;
            }
            Next::Turn(0)
        }
        Exchange::All(_, answer) => {
            if let Some(Ok(slice)) = &answer {
                crowd.watermark = crowd.watermark.max(slice.watermark);
                world.rare("reads of all shards answered");
                if matches!(client.role, Role::FollowAll(_)) {
                    let seen = "events seen by those who follow all shards";
                    world.rare_times(seen, slice.events.len() as u64);
                }
            }
            react_to_all(world.plan.nodes, client, answer, think).unwrap_or_else(|| {
                crowd.unfinished -= 1;
                Next::Leave
            })
        }
        Exchange::Manage(..) | Exchange::Fetch(..) | Exchange::Settle(..) | Exchange::Leave(..) => {
            super::consume::react(world, crowd, number, what)
        }
        Exchange::Follow(_, answer) => {
            let Role::Follow(_, at) = &mut client.role else { return Next::Leave };
            match answer {
                Some(Ok(slice)) if slice.next.ended => return Next::Leave,
                Some(Ok(slice)) => *at = slice.next,
                // What it had not read is gone: it has to begin elsewhere, which is not modelled.
                Some(Err(ReadError::Trimmed)) => return Next::Leave,
                _ => {}
            }
            Next::Turn(1500 * MS + client.stream.below(1000 * MS))
        }
    }
}

/// What a client does after it has read all shards.
fn react_to_all(
    nodes: u32,
    client: &mut Client,
    answer: Option<Result<AllSlice, ReadError>>,
    think: Nanos,
) -> Option<Next> {
    match &mut client.role {
        Role::FollowAll(at) => {
            let Some(Ok(slice)) = answer else {
                return Some(Next::Turn(500 * MS + client.stream.below(500 * MS)));
            };
            let behind = slice.next < slice.watermark;
            *at = slice.next;
            let wait = if behind { 50 * MS } else { 1000 * MS };
            Some(Next::Turn(client.stream.below(wait)))
        }
        Role::Overlook { node, begin, at, goal } => {
            let Some(Ok(slice)) = answer else { return Some(Next::Turn(200 * MS)) };
            *at = slice.next;
            if slice.next > *goal {
                (*node, *at) = (*node + 1, *begin);
                return (*node < nodes).then_some(Next::Turn(0));
            }
            Some(Next::Turn(if slice.next < slice.watermark { 0 } else { 500 * MS }))
        }
        _ => Some(Next::Turn(think)),
    }
}

fn shared_number(stream: &StreamName) -> Option<usize> {
    stream.as_str().strip_prefix("player-")?.parse().ok()
}
