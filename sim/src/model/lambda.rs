//! A model of Lambda's synchronous invoke, and of a function that handles batches.
//!
//! - an environment serves one invocation at a time; one that is idle is used again, for minutes, and a new one has a cold start;
//! - with as many invocations under way as the concurrency allows: `TooManyRequestsException` (429);
//! - new environments begin at a limited rate: 1,000 in 10 seconds a function, the rest is throttled;
//! - a payload is 6 MB at the most: 413;
//! - an answer may be lost when the work is done: the caller times out; and an invocation may run twice, as when the SDK
//!   repeats one whose answer it did not get;
//! - the function reports failures by item (`batchItemFailures`) and stops a stream at its first one; it may also die in the
//!   middle of a batch, on a poisoned event or for no reason.
//!
//! Sources: AWS Lambda developer guide, "Lambda quotas" (concurrent executions 1,000; synchronous payload 6 MB), "Lambda
//! function scaling" (1,000 environments every 10 seconds), "Reporting batch item failures"; read 2026.

use std::{collections::BTreeSet, sync::Arc};

use stormkeep_core::{
    consume::Given,
    env::{DeliverError, Delivered, Delivery, Handled},
    stream::StreamName,
};

use crate::{
    crowd,
    history::{self, Nanos},
    model::links::sample,
    plan::{LambdaKnobs, Latency},
    rng::Stream,
    world::{MS, Reply, World},
};

/// Environments that may begin in each ten seconds.
const BURST: usize = 1000;
const BURST_WITHIN: Nanos = 10_000 * MS;
/// An environment that was idle for this long is gone: five to fifteen minutes at the service, less here, so that it happens.
const WARM_FOR: Nanos = 20_000 * MS;
/// Bytes of a synchronous payload at the most, and what base64 makes of a byte.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

/// See the module's docs. One function serves all groups.
pub struct Lambda {
    knobs: LambdaKnobs,
    stream: Stream,
    running: u32,
    /// When each idle environment became idle.
    idle: Vec<Nanos>,
    /// When environments began lately.
    began: Vec<Nanos>,
}

type Answer = Result<Delivered, DeliverError>;

impl Lambda {
    /// The function of a plan.
    pub fn new(seed: u64, knobs: LambdaKnobs) -> Self {
        let stream = Stream::new(seed, "lambda", 0);
        Lambda { knobs, stream, running: 0, idle: Vec::new(), began: Vec::new() }
    }

    /// A function that nobody calls.
    pub fn idle(seed: u64) -> Self {
        let work = Latency { usual_us: 0, tail_us: 0, tail_per_mille: 0 };
        let knobs = LambdaKnobs {
            concurrency: 1,
            cold_ms: 0,
            work,
            timeout_ms: 1,
            fail_per_mille: 0,
            crash_per_mille: 0,
            lose_per_mille: 0,
            twice_per_mille: 0,
        };
        Lambda::new(seed, knobs)
    }

    /// How long a caller waits.
    pub fn timeout(&self) -> Nanos {
        self.knobs.timeout_ms * MS
    }

    /// Finds an environment, and says how long it takes to begin; `None`: the invocation is throttled.
    fn admit(&mut self, now: Nanos) -> Option<Nanos> {
        if self.running >= self.knobs.concurrency {
            return None;
        }
        self.idle.retain(|since| now - since < WARM_FOR);
        self.began.retain(|at| now - at < BURST_WITHIN);
        if self.idle.pop().is_none() {
            if self.began.len() >= BURST {
                return None;
            }
            self.began.push(now);
            self.running += 1;
            return Some(self.knobs.cold_ms * MS);
        }
        self.running += 1;
        Some(0)
    }

    fn leave(&mut self, now: Nanos) {
        self.running -= 1;
        self.idle.push(now);
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        self.stream.chance(f64::from(per_mille) / 1000.0)
    }
}

/// Invokes the function.
pub fn invoke(world: &Arc<World>, delivery: &Delivery, reply: Reply<Answer>) {
    let bytes: usize = delivery.events.iter().map(|g| g.event.event.bytes()).sum();
    if bytes * 4 / 3 > PAYLOAD_BYTES_MAX {
        return reply
            .send(world, Err(DeliverError::Failed("413: the payload is too large".into())));
    }
    let now = world.kernel.now();
    let admitted = world.lambda().admit(now);
    let Some(begins) = admitted else {
        world.rare("invocations throttled");
        return reply.send(world, Err(DeliverError::Throttled { retry_after: None }));
    };
    if begins > 0 {
        world.rare("cold starts");
    }
    let calm = world.crowd().is_calm();
    let (works, lost, again) = {
        let mut lambda = world.lambda();
        let work = lambda.knobs.work;
        let works: Nanos = delivery.events.iter().map(|_| sample(work, &mut lambda.stream)).sum();
        let (lose, twice) = (lambda.knobs.lose_per_mille, lambda.knobs.twice_per_mille);
        let lost = lambda.happens(lose) && !calm;
        let again = (lambda.happens(twice) && !calm).then(|| lambda.stream.below(3000 * MS));
        (works, lost, again)
    };
    let (here, delivery) = (world.clone(), delivery.clone());
    world.kernel.after(begins + works, move || {
        let answer = work(&here, &delivery);
        let now = here.kernel.now();
        here.lambda().leave(now);
        here.note("invoked", delivery.events.len() as u32, u64::from(answer.is_ok()));
        if let Some(later) = again {
            let (there, delivery) = (here.clone(), delivery.clone());
            here.kernel.after(later, move || {
                there.rare("invocations that ran twice");
                let _ = work(&there, &delivery);
            });
        }
        if lost || reply.is_late() {
            here.rare("invocations that timed out with their work done");
        }
        if !lost {
            reply.send(&here, answer);
        }
    });
}

/// What the function does with a batch.
fn work(world: &Arc<World>, delivery: &Delivery) -> Answer {
    let calm = world.crowd().is_calm();
    let crash = world.plan.delivery.as_ref().map_or(0, |d| d.lambda.crash_per_mille);
    let dies = world.lambda().happens(crash) && !calm;
    let dies_at = dies.then(|| world.lambda().stream.below(delivery.events.len() as u64));
    let mut stopped: BTreeSet<StreamName> = BTreeSet::new();
    let mut handled = Vec::new();
    for (n, given) in (0..).zip(&delivery.events) {
        if dies_at == Some(n) {
            world.rare("invocations that ended in the middle");
            return Err(DeliverError::Failed("exited".into()));
        }
        if stopped.contains(&given.event.stream) {
            handled.push(Handled::NotKnown);
            continue;
        }
        match fate(world, given, calm) {
            Fate::Fine => {
                crowd::handled(world, &delivery.group, &given.event);
                handled.push(Handled::Yes);
            }
            Fate::Fails => {
                world.rare("items that a function failed");
                stopped.insert(given.event.stream.clone());
                handled.push(Handled::Failed("the function said so".into()));
            }
            Fate::Dies => return Err(DeliverError::Failed("a poisoned event".into())),
        }
    }
    Ok(Delivered { handled })
}

enum Fate {
    Fine,
    Fails,
    Dies,
}

fn fate(world: &Arc<World>, given: &Given, calm: bool) -> Fate {
    if history::is_poison(&world.plan, world.kernel.now(), &given.event) {
        // Some poison is reported, some kills.
        let kills = given.event.event.id.0 & 1 == 0;
        return if kills { Fate::Dies } else { Fate::Fails };
    }
    let fails = world.plan.delivery.as_ref().map_or(0, |d| d.lambda.fail_per_mille);
    if world.lambda().happens(fails) && !calm { Fate::Fails } else { Fate::Fine }
}
