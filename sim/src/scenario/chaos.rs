//! The swarm: every knob drawn from the seed, and a random subset of fault kinds.

use stormkeep_core::limits::ENTRY_BYTES_MAX;

use crate::{
    fault::What,
    plan::{CoreKnobs, Latency, Links, LogKnobs, Plan, StoreKnobs, Workload},
    plant::Plant,
    rng::Stream,
    scenario::{Scenario, deliver, draw::Draw},
};

/// Nothing goes wrong in a random cluster.
pub(super) fn calm(seed: u64) -> Plan {
    let stream = &mut Stream::new(seed, "plan", 0);
    let mut plan = Plan {
        seed,
        scenario: Scenario::Calm,
        plant: Plant::None,
        nodes: *stream.pick(&[1, 3, 3, 5, 5, 5, 5, 7]),
        shards: stream.log_between(1, 8) as u32,
        chaos_ms: stream.between(20_000, 60_000),
        rest_within_ms: 60_000,
        workload: workload(stream),
        links: links(stream),
        log: log(stream),
        store: store(stream),
        core: core(stream),
        delivery: None,
        faults: Vec::new(),
    };
    order_and_metadata(&mut plan);
    plan
}

/// Reads of all shards, and what is said of streams. Drawn from randomness of their own: all else of a seed's plan is as
/// it was before there were such things.
fn order_and_metadata(plan: &mut Plan) {
    let stream = &mut Stream::new(plan.seed, "plan", 3);
    let workload = &mut plan.workload;
    workload.all_followers = *stream.pick(&[0, 1, 1, 2]);
    workload.read_all_per_mille = stream.below(150) as u32;
    workload.backwards_per_mille = stream.below(600) as u32;
    workload.describe_per_mille = if stream.chance(0.7) { stream.below(300) as u32 } else { 0 };
    workload.tombstone_per_mille = if stream.chance(0.4) { stream.below(200) as u32 } else { 0 };
    plan.core.poll_min_ms = stream.below(plan.core.poll_ms + 1);
}

/// Anything may go wrong.
pub(super) fn chaos(seed: u64) -> Plan {
    let mut plan = Plan { scenario: Scenario::Chaos, ..calm(seed) };
    let draw = Draw::new(&plan);
    let mut stream = Stream::new(seed, "plan", 1);
    for kind in What::KINDS {
        if stream.chance(0.4) {
            plan.faults.extend(draw.faults(kind, 1 + stream.below(3)));
        }
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    deliver::some(&mut plan);
    plan
}

/// Shards split and merge under load while nodes crash and the log misplaces puts.
pub(super) fn reshard(seed: u64) -> Plan {
    let mut plan = Plan { scenario: Scenario::Reshard, ..calm(seed) };
    let draw = Draw::new(&plan);
    let mut stream = Stream::new(seed, "plan", 1);
    for kind in ["split", "merge"] {
        plan.faults.extend(draw.faults(kind, 2 + stream.below(4)));
    }
    for kind in
        ["crash", "pause", "cut", "log-slow", "log-lose-answers", "log-repeat-puts", "replica-lose"]
    {
        if stream.chance(0.5) {
            plan.faults.extend(draw.faults(kind, 1 + stream.below(3)));
        }
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    deliver::some(&mut plan);
    plan
}

/// The crowd comes to a cluster whose services are too small for it.
pub(super) fn launch_day(seed: u64) -> Plan {
    let mut plan = Plan { scenario: Scenario::LaunchDay, ..calm(seed) };
    let mut stream = Stream::new(seed, "plan", 2);
    plan.nodes = 5;
    plan.shards = stream.between(2, 4) as u32;
    plan.chaos_ms = stream.between(120_000, 180_000);
    // The smallest store folds the largest full tail in some two minutes.
    plan.rest_within_ms = 240_000;
    plan.workload.clients = stream.between(6, 10) as u32;
    plan.workload.think_ms = stream.log_between(150, 500);
    plan.workload.event_bytes_max = stream.log_between(200, 1000) as u32;
    plan.log.put_bytes_per_s = stream.log_between(20_000, 100_000);
    plan.log.read_bytes_per_s = 2 * plan.log.put_bytes_per_s;
    plan.log.put_records_per_s = stream.log_between(10, 100);
    plan.store.row_us = stream.log_between(500, 4000);
    // A fold must not be as late as the log's retention, and here it is minutes late. A day is the least of Kinesis.
    plan.log.retention_ms = 86_400_000;
    plan.core.tail_bytes_max = stream.log_between(50_000, 500_000);
    let draw = Draw::new(&plan);
    let surges = ["login-storm", "flash-crowd", "retry-storm"];
    plan.faults.extend(draw.surge(stream.pick::<&str>(&surges)));
    if stream.chance(0.5) {
        plan.faults.extend(draw.surge(stream.pick::<&str>(&surges)));
    }
    for kind in ["crash", "pause", "replica-down", "log-throttle", "log-lose-answers", "split"] {
        if stream.chance(0.3) {
            plan.faults.extend(draw.faults(kind, 1));
        }
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    plan
}

fn workload(stream: &mut Stream) -> Workload {
    Workload {
        clients: stream.between(4, 24) as u32,
        think_ms: stream.log_between(50, 1000),
        timeout_ms: *stream.pick(&[1000, 3000, 5000, 10_000]),
        streams: stream.log_between(3, 300) as u32,
        hot_per_mille: stream.below(800) as u32,
        read_per_mille: stream.below(500) as u32,
        eventual_per_mille: stream.below(500) as u32,
        retry_per_mille: stream.between(300, 1000) as u32,
        events_max: stream.log_between(1, 10) as u32,
        event_bytes_max: stream.log_between(10, 2000) as u32,
        follow: stream.chance(0.7),
        all_followers: 0,
        read_all_per_mille: 0,
        backwards_per_mille: 0,
        describe_per_mille: 0,
        tombstone_per_mille: 0,
    }
}

fn latency(stream: &mut Stream, usual_us: (u64, u64), tail_us: (u64, u64)) -> Latency {
    Latency {
        usual_us: stream.log_between(usual_us.0, usual_us.1),
        tail_us: stream.log_between(tail_us.0, tail_us.1),
        tail_per_mille: stream.below(30) as u32,
    }
}

fn links(stream: &mut Stream) -> Links {
    Links {
        peer: latency(stream, (100, 2000), (5_000, 50_000)),
        client: latency(stream, (200, 5000), (5_000, 100_000)),
        service: latency(stream, (200, 2000), (5_000, 50_000)),
    }
}

/// Mostly the limits of the real service; now and then less, so that a small crowd reaches them.
fn log(stream: &mut Stream) -> LogKnobs {
    let small = stream.chance(0.4);
    let put_bytes_per_s = if small { stream.log_between(30_000, 1_000_000) } else { 1_000_000 };
    LogKnobs {
        put: latency(stream, (2000, 15_000), (20_000, 400_000)),
        lag: latency(stream, (20_000, 200_000), (100_000, 1_000_000)),
        timeout_ms: stream.between(500, 2000),
        retention_ms: if stream.chance(0.3) { 90_000 } else { 86_400_000 },
        put_bytes_per_s,
        put_records_per_s: if small { stream.log_between(20, 1000) } else { 1000 },
        reads_per_s: 5,
        read_bytes_per_s: 2 * put_bytes_per_s,
    }
}

fn store(stream: &mut Stream) -> StoreKnobs {
    StoreKnobs {
        replica: latency(stream, (200, 2000), (5_000, 100_000)),
        timeout_ms: stream.between(500, 2000),
        row_us: stream.log_between(20, 500),
        read_repair: stream.chance(0.5),
        hints: stream.chance(0.5),
    }
}

fn core(stream: &mut Stream) -> CoreKnobs {
    let heartbeat_ms = stream.between(500, 1500);
    let usual = |stream: &mut Stream, low: u64, high: u64, usual: u64| {
        if stream.chance(0.5) { usual } else { stream.log_between(low, high) }
    };
    CoreKnobs {
        heartbeat_ms,
        dead_after_ms: heartbeat_ms * stream.between(3, 6),
        poll_ms: stream.between(150, 500),
        poll_min_ms: 0,
        close_after_ms: stream.between(1000, 5000),
        batch_bytes_max: usual(stream, 500, 20_000, ENTRY_BYTES_MAX as u64),
        tail_bytes_max: usual(stream, 20_000, 1_000_000, 8 * 1024 * 1024),
        heads_max: usual(stream, 4, 1000, 100_000),
        queue_max: usual(stream, 8, 1000, 4096),
        write_rows_max: usual(stream, 4, 128, 64),
        buggify_per_mille: if stream.chance(0.5) { stream.below(50) as u32 } else { 0 },
    }
}
