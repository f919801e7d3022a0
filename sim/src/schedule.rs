//! Makes the faults of a plan happen, and heals what is left of them.

use std::sync::Arc;

use stormkeep_core::shard::ShardInfo;

use crate::{
    crowd,
    fault::{Fault, What},
    history::Nanos,
    host,
    world::{MS, World},
};

/// Schedules every fault of the plan.
pub fn schedule(world: &Arc<World>) {
    for (number, fault) in world.plan.faults.iter().cloned().enumerate() {
        let here = world.clone();
        world.kernel.after(fault.at_ms * MS, move || begin(&here, number, &fault));
    }
}

/// Ends every fault: nodes run, clocks are right, links and services are whole.
pub fn heal(world: &Arc<World>) {
    for (number, fault) in world.plan.faults.iter().enumerate() {
        end(world, number, fault);
    }
}

fn begin(world: &Arc<World>, number: usize, fault: &Fault) {
    tracing::info!(fault = fault.what.kind(), for_ms = fault.for_ms, what = ?fault.what, "fault");
    world.note(fault.what.kind(), node_of(&fault.what), fault.for_ms);
    world.begin(number, fault.clone());
    strike(world, fault);
    let (here, fault) = (world.clone(), fault.clone());
    world.kernel.after(fault.for_ms * MS, move || end(&here, number, &fault));
}

fn node_of(what: &What) -> u32 {
    what.target().unwrap_or(crate::trace::TraceEvent::NOWHERE)
}

/// What happens when a fault begins. The faults that work by [`Effects`](crate::model::effects::Effects)
/// are counted where they touch something.
fn strike(world: &Arc<World>, fault: &Fault) {
    let now = world.kernel.now();
    let done = match fault.what {
        What::Crash { node } => running(world, node, |_| host::kill(world, node)),
        What::Drain { node } => running(world, node, |_| drain(world, node)),
        What::Pause { node } => running(world, node, |id| world.runtime().pause(id)),
        What::ClockStep { node, by_ms } => {
            world.hosts()[node as usize].clocks.step(by_ms * 1000);
            true
        }
        What::ClockDrift { node, ppm } => {
            world.hosts()[node as usize].clocks.drift(now, ppm);
            true
        }
        What::LogExpireCursors {} => {
            world.log().expire_tokens(now);
            true
        }
        What::Split { nth } => split(world, nth, now),
        What::Merge { nth } => merge(world, nth, now),
        What::LoginStorm { .. } | What::FlashCrowd { .. } | What::RetryStorm { .. } => {
            crowd::surge(world, &fault.what, fault.for_ms * MS);
            true
        }
        What::Slow { .. }
        | What::Reorder { .. }
        | What::ReplicaSlow { .. }
        | What::StoreOverload { .. } => true,
        _ => false,
    };
    if done {
        world.struck(fault.what.kind());
    }
}

/// Ends a fault, unless it has ended.
fn end(world: &Arc<World>, number: usize, fault: &Fault) {
    let now = world.kernel.now();
    // Healing ends what is on; and what another fault still does to the same target, stays.
    if !world.end(number) || world.is_on(&fault.what) {
        return;
    }
    tracing::info!(fault = fault.what.kind(), what = ?fault.what, "fault ends");
    match fault.what {
        What::Crash { node } | What::Drain { node } => {
            if running(world, node, |_| {}) && fault.what.kind() == "drain" {
                // It had not given everything back in time: it is killed, as a deployment would.
                host::kill(world, node);
            }
            host::restart(world, node);
        }
        What::Pause { node } => {
            let id = world.hosts()[node as usize].runtime;
            if let Some(id) = id {
                world.runtime().resume(id);
            }
        }
        What::ClockStep { node, .. } => world.hosts()[node as usize].clocks.step(0),
        What::ClockDrift { node, .. } => world.hosts()[node as usize].clocks.drift(now, 0),
        What::ReplicaDown { replica } => {
            let told = world.store().recover(replica);
            for _ in 0..told {
                world.rare("rows handed to a replica that was down");
            }
        }
        _ => {}
    }
}

/// Does something to a node whose process runs. Whether it does.
fn running(world: &Arc<World>, node: u32, then: impl FnOnce(madsim::task::NodeId)) -> bool {
    let id = {
        let hosts = world.hosts();
        let host = &hosts[node as usize];
        host.inbox.as_ref().and(host.runtime)
    };
    id.map(then).is_some()
}

fn drain(world: &Arc<World>, number: u32) {
    let (node, worker, process) = {
        let hosts = world.hosts();
        let host = &hosts[number as usize];
        (host.node.clone(), host.worker.clone(), host.processes)
    };
    let Some(node) = node else { return };
    let here = world.clone();
    world.spawn(async move {
        // A process that dies meanwhile never says that it is drained.
        let gone = |world: &Arc<World>| {
            let hosts = world.hosts();
            let host = &hosts[number as usize];
            host.processes != process || host.node.is_none()
        };
        let watch = async {
            while !gone(&here) {
                here.kernel.sleep(100 * MS).await;
            }
        };
        let drained = async {
            if let Some(worker) = worker {
                worker.drain().await;
            }
            node.drain().await;
        };
        futures::future::select(std::pin::pin!(drained), std::pin::pin!(watch)).await;
        if !gone(&here) {
            host::kill(&here, number);
        }
    });
}

fn open(world: &World) -> Vec<ShardInfo> {
    let mut open: Vec<_> = world.log().all_shards().into_iter().filter(|s| !s.closed).collect();
    open.sort_by_key(|s| s.range.start);
    open
}

fn split(world: &Arc<World>, nth: u32, now: Nanos) -> bool {
    let open = open(world);
    let shard = &open[nth as usize % open.len()];
    let middle = shard.range.start + (shard.range.end - shard.range.start) / 2 + 1;
    let done = world.log().split(now, shard.id, middle).is_ok();
    crowd::follow_shards(world);
    done
}

fn merge(world: &Arc<World>, nth: u32, now: Nanos) -> bool {
    let open = open(world);
    if open.len() < 2 {
        return false;
    }
    let at = nth as usize % (open.len() - 1);
    let done = world.log().merge(now, open[at].id, open[at + 1].id).is_ok();
    crowd::follow_shards(world);
    done
}
