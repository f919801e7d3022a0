//! The ranges of a plan's values: wide enough for every scenario, narrow enough that a slip of the pen
//! cannot start a run that never ends.

use std::fmt::Display;

use crate::{
    crowd,
    fault::{Fault, Place, What},
    plan::{Delivery, Latency, Plan},
};

/// Nodes of a cluster at the most.
pub const NODES_MAX: u32 = 64;
/// Shards at the start at the most.
pub const SHARDS_MAX: u32 = 256;
/// An hour in milliseconds: the longest phase of a run.
pub const PHASE_MS_MAX: u64 = 3_600_000;
/// Replicas of the store.
pub const REPLICAS: u32 = 3;
/// How many times something may be slower or busier at the most.
pub const TIMES_MAX: u32 = 10_000;

const DAY_MS: u64 = 24 * 3_600_000;
/// The service's longest retention: 365 days.
const RETENTION_MS_MAX: u64 = 365 * DAY_MS;
const MANY: u64 = 1_000_000_000;

/// Checks all values. Each problem is a line that names the field, its value and its range.
pub fn validate(plan: &Plan) -> Result<(), Vec<String>> {
    let mut check = Check::default();
    check.within("plan.nodes", plan.nodes, 1, NODES_MAX);
    check.within("plan.shards", plan.shards, 1, SHARDS_MAX);
    check.within("plan.chaos_ms", plan.chaos_ms, 1, PHASE_MS_MAX);
    check.within("plan.rest_within_ms", plan.rest_within_ms, 1, PHASE_MS_MAX);
    workload(&mut check, plan);
    check.latency("plan.links.peer", plan.links.peer);
    check.latency("plan.links.client", plan.links.client);
    check.latency("plan.links.service", plan.links.service);
    services(&mut check, plan);
    core(&mut check, plan);
    if let Some(delivery) = &plan.delivery {
        deliver(&mut check, plan, delivery);
    }
    for (index, fault) in plan.faults.iter().enumerate() {
        check.fault(&format!("plan.faults[{index}]"), fault, plan);
    }
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

fn workload(check: &mut Check, plan: &Plan) {
    let work = &plan.workload;
    check.within("plan.workload.clients", work.clients, 1, 100_000);
    // A client that never waits would call for ever within one moment.
    check.within("plan.workload.think_ms", work.think_ms, 1, PHASE_MS_MAX);
    check.within("plan.workload.timeout_ms", work.timeout_ms, 1, PHASE_MS_MAX);
    check.within("plan.workload.streams", work.streams, 1, 10_000_000);
    check.per_mille("plan.workload.hot_per_mille", work.hot_per_mille);
    check.per_mille("plan.workload.read_per_mille", work.read_per_mille);
    check.per_mille("plan.workload.eventual_per_mille", work.eventual_per_mille);
    check.per_mille("plan.workload.retry_per_mille", work.retry_per_mille);
    check.within("plan.workload.all_followers", work.all_followers, 0, 1000);
    check.per_mille("plan.workload.read_all_per_mille", work.read_all_per_mille);
    check.per_mille("plan.workload.backwards_per_mille", work.backwards_per_mille);
    check.per_mille("plan.workload.describe_per_mille", work.describe_per_mille);
    check.per_mille("plan.workload.tombstone_per_mille", work.tombstone_per_mille);
    let events = stormkeep_core::limits::EVENTS_PER_APPEND_MAX as u64;
    check.within("plan.workload.events_max", u64::from(work.events_max), 1, events);
    let bytes = stormkeep_core::limits::EVENT_BYTES_MAX as u64;
    check.within("plan.workload.event_bytes_max", u64::from(work.event_bytes_max), 0, bytes);
}

fn services(check: &mut Check, plan: &Plan) {
    let log = &plan.log;
    check.latency("plan.log.put", log.put);
    check.latency("plan.log.lag", log.lag);
    check.within("plan.log.timeout_ms", log.timeout_ms, 1, PHASE_MS_MAX);
    check.within("plan.log.retention_ms", log.retention_ms, 1, RETENTION_MS_MAX);
    check.within("plan.log.put_bytes_per_s", log.put_bytes_per_s, 1, MANY * 1000);
    check.within("plan.log.put_records_per_s", log.put_records_per_s, 1, MANY);
    check.within("plan.log.reads_per_s", log.reads_per_s, 1, MANY);
    check.within("plan.log.read_bytes_per_s", log.read_bytes_per_s, 1, MANY * 1000);
    let store = &plan.store;
    check.latency("plan.store.replica", store.replica);
    check.within("plan.store.timeout_ms", store.timeout_ms, 1, PHASE_MS_MAX);
    check.within("plan.store.row_us", store.row_us, 0, PHASE_MS_MAX * 1000);
}

fn core(check: &mut Check, plan: &Plan) {
    let core = &plan.core;
    check.within("plan.core.heartbeat_ms", core.heartbeat_ms, 1, PHASE_MS_MAX);
    check.within("plan.core.dead_after_ms", core.dead_after_ms, 1, PHASE_MS_MAX);
    check.within("plan.core.poll_ms", core.poll_ms, 1, PHASE_MS_MAX);
    check.within("plan.core.poll_min_ms", core.poll_min_ms, 0, PHASE_MS_MAX);
    check.within("plan.core.close_after_ms", core.close_after_ms, 1, PHASE_MS_MAX);
    let bytes = stormkeep_core::limits::ENTRY_BYTES_MAX as u64;
    check.within("plan.core.batch_bytes_max", core.batch_bytes_max, 1, bytes);
    check.within("plan.core.tail_bytes_max", core.tail_bytes_max, 1, MANY);
    check.within("plan.core.heads_max", core.heads_max, 1, MANY);
    check.within("plan.core.queue_max", core.queue_max, 1, 1_000_000);
    check.within("plan.core.write_rows_max", core.write_rows_max, 1, 1_000_000);
    check.per_mille("plan.core.buggify_per_mille", core.buggify_per_mille);
}

fn deliver(check: &mut Check, plan: &Plan, delivery: &Delivery) {
    check.within("plan.delivery.workers", delivery.workers, 1, plan.nodes);
    // Somebody must own the shards.
    let apart_max = delivery.workers.min(plan.nodes.saturating_sub(1));
    check.within("plan.delivery.apart", delivery.apart, 0, apart_max);
    check.per_mille("plan.delivery.poison_per_mille", delivery.poison_per_mille);
    check.within("plan.delivery.cured_at_ms", delivery.cured_at_ms, 0, PHASE_MS_MAX);
    check.within("plan.delivery.replay_at_ms", delivery.replay_at_ms, 0, PHASE_MS_MAX);
    let lambda = &delivery.lambda;
    check.within("plan.delivery.lambda.concurrency", lambda.concurrency, 1, 1_000_000);
    check.within("plan.delivery.lambda.cold_ms", lambda.cold_ms, 0, PHASE_MS_MAX);
    check.latency("plan.delivery.lambda.work", lambda.work);
    check.within("plan.delivery.lambda.timeout_ms", lambda.timeout_ms, 1, PHASE_MS_MAX);
    check.per_mille("plan.delivery.lambda.fail_per_mille", lambda.fail_per_mille);
    check.per_mille("plan.delivery.lambda.crash_per_mille", lambda.crash_per_mille);
    check.per_mille("plan.delivery.lambda.lose_per_mille", lambda.lose_per_mille);
    check.per_mille("plan.delivery.lambda.twice_per_mille", lambda.twice_per_mille);
    for (n, group) in delivery.groups.iter().enumerate() {
        let field = |field: &str| format!("plan.delivery.groups[{n}].{field}");
        check.within(&field("consumers"), group.consumers, 0, 1000);
        check.per_mille(&field("fail_per_mille"), group.fail_per_mille);
        check.per_mille(&field("crash_per_mille"), group.crash_per_mille);
        check.per_mille(&field("slow_per_mille"), group.slow_per_mille);
        // The rest is a group's own settings, which the core checks when it is made.
        if let Err(error) = crowd::settings(group).check() {
            check.problems.push(format!("plan.delivery.groups[{n}]: {error}"));
        }
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn within<T: PartialOrd + Display>(&mut self, name: &str, value: T, low: T, high: T) {
        if value < low || value > high {
            self.problems.push(format!("{name} = {value}: must be from {low} to {high}"));
        }
    }

    fn per_mille(&mut self, name: &str, value: u32) {
        self.within(name, value, 0, 1000);
    }

    fn latency(&mut self, name: &str, latency: Latency) {
        let longest = PHASE_MS_MAX * 1000;
        self.within(&format!("{name}.usual_us"), latency.usual_us, 0, longest);
        self.within(&format!("{name}.tail_us"), latency.tail_us, 0, longest);
        self.per_mille(&format!("{name}.tail_per_mille"), latency.tail_per_mille);
    }

    fn place(&mut self, name: &str, place: Place, nodes: u32) {
        if let Place::Node(node) = place
            && node >= nodes
        {
            self.problems.push(format!(
                "{name} = \"{place}\": there is no such node; the plan's {nodes} are n0 to n{}",
                nodes.saturating_sub(1)
            ));
        }
    }

    fn fault(&mut self, name: &str, fault: &Fault, plan: &Plan) {
        let field = |field: &str| format!("{name}.{field}");
        if fault.at_ms > plan.chaos_ms {
            self.problems.push(format!(
                "{} = {}: begins after plan.chaos_ms = {}, when all faults have ended",
                field("at_ms"),
                fault.at_ms,
                plan.chaos_ms
            ));
        }
        self.within(&field("for_ms"), fault.for_ms, 0, PHASE_MS_MAX);
        match fault.what {
            What::Crash { node }
            | What::Drain { node }
            | What::Pause { node }
            | What::Slow { node, .. }
            | What::ClockStep { node, .. }
            | What::ClockDrift { node, .. }
                if node >= plan.nodes =>
            {
                self.problems.push(format!(
                    "{} = {node}: there is no such node; the plan's {} are 0 to {}",
                    field("node"),
                    plan.nodes,
                    plan.nodes.saturating_sub(1)
                ));
            }
            What::ReplicaDown { replica } | What::ReplicaSlow { replica, .. }
                if replica >= REPLICAS =>
            {
                self.problems.push(format!(
                    "{} = {replica}: there is no such replica; the store's {REPLICAS} are 0 to {}",
                    field("replica"),
                    REPLICAS - 1
                ));
            }
            _ => {}
        }
        match fault.what {
            What::Slow { times, .. }
            | What::LogSlow { times }
            | What::ReplicaSlow { times, .. }
            | What::StoreOverload { times }
            | What::LoginStorm { times }
            | What::RetryStorm { times } => self.within(&field("times"), times, 1, TIMES_MAX),
            What::FlashCrowd { times, streams } => {
                self.within(&field("times"), times, 1, TIMES_MAX);
                self.within(&field("streams"), streams, 1, 10_000_000);
            }
            What::ClockStep { by_ms, .. } => {
                self.within(&field("by_ms"), by_ms, -(DAY_MS as i64), DAY_MS as i64);
            }
            // A clock that loses a million microseconds a second stands still.
            What::ClockDrift { ppm, .. } => self.within(&field("ppm"), ppm, -900_000, 900_000),
            What::CutOneWay { from, to } | What::Cut { from, to } => {
                self.place(&field("from"), from, plan.nodes);
                self.place(&field("to"), to, plan.nodes);
                if from == to {
                    self.problems.push(format!(
                        "{} = \"{to}\": is the same place as `from`; name another",
                        field("to")
                    ));
                }
            }
            What::Lose { per_mille }
            | What::Repeat { per_mille }
            | What::LogThrottle { per_mille }
            | What::LogLoseAnswers { per_mille }
            | What::ReplicaLose { per_mille }
            | What::SwapLose { per_mille } => self.per_mille(&field("per_mille"), per_mille),
            What::LogRepeatPuts { per_mille, within_ms } => {
                self.per_mille(&field("per_mille"), per_mille);
                self.within(&field("within_ms"), within_ms, 0, PHASE_MS_MAX);
            }
            What::Reorder { by_ms } | What::LogLag { by_ms } => {
                self.within(&field("by_ms"), by_ms, 0, PHASE_MS_MAX);
            }
            What::Crash { .. }
            | What::Drain { .. }
            | What::Pause { .. }
            | What::LogExpireCursors {}
            | What::Split { .. }
            | What::Merge { .. }
            | What::ReplicaDown { .. } => {}
        }
    }
}
