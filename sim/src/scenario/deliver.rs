//! Draws what is delivered: from randomness of its own, so that all else of a seed's plan is as it was before.

use stormkeep_core::group::Strategy;

use crate::{
    fault::What,
    plan::{Delivery, GroupKnobs, LambdaKnobs, Latency, Plan, SourceKnob},
    rng::Stream,
};

/// Events a second of one stream up to which one is in flight at a time; with more, a stream's events must go together, or consumers
/// would need longer than a run to catch up.
const ALONE_PER_S: f64 = 2.0;

/// In a crowded plan: events of a thousand that fail for everybody, and that one consumer fails, at the most.
const CROWDED_POISON: u32 = 3;
const CROWDED_FAILS: u32 = 20;

/// In a crowded plan: how much later an event may be for those before it that are tried again, on average; a surge leaves some
/// 10,000 events in one stream, they go in order, and with more they would need longer than a run while no promise is broken.
const HELD_MS_PER_EVENT: u64 = 8;

/// How long it takes until a consumer asks again, beside the backoff.
const ASKS_AGAIN_MS: u64 = 100;

/// So much of a thousand plans deliver.
const PER_MILLE: f64 = 400.0;

/// Some of the plans deliver. Call it when the faults are drawn.
pub(super) fn some(plan: &mut Plan) {
    if Stream::new(plan.seed, "plan", 4).chance(PER_MILLE / 1000.0) {
        deliver(plan);
    }
}

/// Groups, consumers, and a function.
pub(super) fn deliver(plan: &mut Plan) {
    let stream = &mut Stream::new(plan.seed, "plan", 5);
    let crowded = crowded(plan);
    let chaos_ms = plan.chaos_ms;
    let groups = (0..stream.between(1, 3)).map(|_| group(stream, crowded)).collect();
    let workers = stream.between(1, u64::from(plan.nodes)) as u32;
    // From randomness of its own, as above.
    let own = &mut Stream::new(plan.seed, "plan", 6);
    let apart_max = workers.min(plan.nodes - 1);
    let apart = if own.chance(0.4) { own.between(0, u64::from(apart_max)) as u32 } else { 0 };
    let mut delivery = Delivery {
        workers,
        apart,
        poison_per_mille: if stream.chance(0.7) { stream.log_between(1, 30) as u32 } else { 0 },
        cured_at_ms: if stream.chance(0.6) { chaos_ms / 2 } else { 0 },
        replay_at_ms: if stream.chance(0.6) { chaos_ms * 2 / 3 } else { 0 },
        lambda: lambda(stream),
        groups,
    };
    if crowded {
        catch_up(&mut delivery);
    }
    plan.delivery = Some(delivery);
    plan.rest_within_ms = plan.rest_within_ms.max(120_000);
}

/// Whether one stream gets many events a second.
fn crowded(plan: &Plan) -> bool {
    let work = &plan.workload;
    let surges = |what: &What| matches!(what, What::FlashCrowd { .. } | What::RetryStorm { .. });
    let events = f64::from(work.events_max + 1) / 2.0;
    let calls_per_s = f64::from(work.clients) * 1000.0 / work.think_ms as f64;
    let appends = 1.0 - f64::from(work.read_per_mille) / 1000.0;
    let hot = f64::from(work.hot_per_mille) / 1000.0 / f64::from(work.streams.div_ceil(10));
    let share = hot.max(1.0 / f64::from(work.streams));
    let per_s = calls_per_s * appends * events * share;
    per_s > ALONE_PER_S || plan.faults.iter().any(|fault| surges(&fault.what))
}

/// Fails so seldom, and is tried again so soon, that consumers can catch up with a crowded stream.
fn catch_up(delivery: &mut Delivery) {
    delivery.poison_per_mille = delivery.poison_per_mille.min(CROWDED_POISON);
    delivery.lambda.fail_per_mille = delivery.lambda.fail_per_mille.min(CROWDED_FAILS);
    for group in &mut delivery.groups {
        group.fail_per_mille = group.fail_per_mille.min(CROWDED_FAILS);
        let failing = if group.pushed { delivery.lambda.fail_per_mille } else { 0 };
        let again = group.fail_per_mille + failing + delivery.poison_per_mille * group.max_retries;
        let wait_ms = HELD_MS_PER_EVENT * 1000 / u64::from(again.max(1));
        group.backoff_max_ms =
            group.backoff_max_ms.min(wait_ms.saturating_sub(ASKS_AGAIN_MS).max(1));
        group.backoff_min_ms = group.backoff_min_ms.min(group.backoff_max_ms);
    }
}

fn group(stream: &mut Stream, crowded: bool) -> GroupKnobs {
    use SourceKnob::{All, Category, EventType, Stream as One};
    let source = *stream.pick(&[All, All, Category, One, EventType]);
    let strategies = [Strategy::RoundRobin, Strategy::DispatchToSingle, Strategy::Pinned];
    let together = if crowded { 64 } else { *stream.pick(&[1, 1, 4]) };
    let backoff_min_ms = stream.log_between(10, 500);
    GroupKnobs {
        source,
        pushed: stream.chance(0.4),
        from_end: stream.chance(0.4),
        strategy: *stream.pick(&strategies),
        in_flight_per_stream: together,
        message_timeout_ms: stream.between(1500, 5000),
        max_retries: stream.between(1, 6) as u32,
        backoff_min_ms,
        backoff_max_ms: stream.log_between(backoff_min_ms, 2000),
        buffer_max: if crowded { 500 } else { stream.log_between(20, 500) as u32 },
        read_batch: if crowded { 100 } else { stream.log_between(10, 100) as u32 },
        checkpoint_after_ms: stream.log_between(50, 3000),
        checkpoint_max: stream.log_between(1, 500) as u32,
        batch_events_max: if crowded { 100 } else { stream.log_between(1, 100) as u32 },
        concurrency: stream.between(1, 8) as u32,
        consumers: stream.between(1, 4) as u32,
        fail_per_mille: stream.below(60) as u32,
        crash_per_mille: stream.below(40) as u32,
        slow_per_mille: stream.below(20) as u32,
    }
}

fn lambda(stream: &mut Stream) -> LambdaKnobs {
    LambdaKnobs {
        concurrency: stream.log_between(1, 1000) as u32,
        cold_ms: stream.between(15, 400),
        work: Latency {
            usual_us: stream.log_between(50, 1500),
            tail_us: stream.log_between(5000, 100_000),
            tail_per_mille: stream.below(20) as u32,
        },
        timeout_ms: stream.between(800, 3000),
        fail_per_mille: stream.below(50) as u32,
        crash_per_mille: stream.below(50) as u32,
        lose_per_mille: stream.below(50) as u32,
        twice_per_mille: stream.below(50) as u32,
    }
}
