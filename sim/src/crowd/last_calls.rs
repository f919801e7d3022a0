//! What clients ask when the faults are over, and until they are answered.

use std::{collections::BTreeSet, sync::Arc};

use stormkeep_core::{shard, stream::StreamName, time::GlobalPosition};

use super::{Role, turn};
use crate::{history::Exchange, world::World};

/// Asks each open shard to take an append, through each node: none may be deaf.
pub fn probe(world: &Arc<World>) {
    let shards = world.log().all_shards();
    for info in shards.iter().filter(|s| !s.closed) {
        let names = (0..).filter_map(|n| StreamName::new(format!("probe-{}-{n}", info.id)).ok());
        let name = names
            .into_iter()
            .find(|name| shard::holder(&shards, name.key()).is_some_and(|s| s.id == info.id));
        if let Some(name) = name {
            for node in 0..world.plan.nodes {
                last_call(world, Role::Probe(name.clone(), node));
            }
        }
    }
}

/// Reads up to so many of the streams that clients have appended to, whole.
pub fn inspect(world: &Arc<World>, count_max: usize) {
    let mut names = BTreeSet::new();
    for call in &world.history().calls {
        if let Exchange::Append(append, _) = &call.what {
            names.insert(append.stream.clone());
        }
    }
    let step = names.len().div_ceil(count_max.max(1)).max(1);
    let names: Vec<_> = names.into_iter().step_by(step).collect();
    for part in names.chunks(names.len().div_ceil(8).max(1)) {
        last_call(world, Role::Inspect(part.to_vec(), 0));
    }
}

/// What those who read at the end still wait for, a line each.
pub fn last_words(world: &Arc<World>) -> Vec<String> {
    let crowd = world.crowd();
    let words = crowd.clients.iter().filter_map(|client| match &client.role {
        Role::Inspect(names, from) => {
            let name = names.last()?;
            Some(format!("{name} cannot be read from revision {from} on"))
        }
        Role::Overlook { node, at, goal } if at <= goal => {
            Some(format!("n{node}: all events end at {at}, and the last append is at {goal}"))
        }
        _ => None,
    });
    words.collect()
}

fn last_call(world: &Arc<World>, role: Role) {
    let client = {
        let mut crowd = world.crowd();
        crowd.unfinished += 1;
        crowd.join(role, None)
    };
    turn(world, client);
}

/// Reads the end of the order of all events through each node: every append that was answered is in it, soon.
pub fn overlook(world: &Arc<World>) {
    let mut answered: Vec<GlobalPosition> = Vec::new();
    for call in &world.history().calls {
        if let Exchange::Append(_, Some(Ok(appended))) = &call.what {
            answered.push(appended.position());
        }
    }
    answered.sort_unstable();
    let goal = answered.last().copied().unwrap_or(GlobalPosition::START);
    let at = answered.len().checked_sub(100).map_or(GlobalPosition::START, |n| answered[n]);
    for node in 0..world.plan.nodes {
        last_call(world, Role::Overlook { node, at, goal });
    }
}
