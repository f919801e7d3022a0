//! Consumers of groups, and who makes the groups. A consumer handles what it fetches in order, and stops a stream at its first
//! failure; it fails, dawdles, and dies before or after its work.

use std::{collections::BTreeSet, sync::Arc};

use std::time::Duration;
use stormkeep_core::{
    consume::{
        ConsumeError, ConsumerId, Fetch, Fetched, Leave, Manage, ManageError, NewGroup, Settle,
        Verdict,
    },
    event::RecordedEvent,
    group::{Form, GroupId, Push, Settings, Source, Start, Target},
    stream::StreamName,
};

use super::{Client, Crowd, Role, react::Next, turn_after};
use crate::{
    history::{self, Exchange, Handling, Nanos},
    plan::{GroupKnobs, Plan, SourceKnob},
    rng::Stream,
    world::{MS, World},
};

/// What a client that has to do with a group does.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Makes the group, then waits to replay what it has parked.
    Keeper { made: bool },
    /// Consumes its events.
    Consumer(ConsumerId),
}

/// The groups are made, and consumers come.
pub(super) fn start(world: &Arc<World>) {
    let Some(delivery) = &world.plan.delivery else { return };
    for (number, knobs) in (0..).zip(&delivery.groups) {
        let keeper = Role::Group(number, Part::Keeper { made: false });
        let client = world.crowd().join(keeper, None);
        turn_after(world, client, 300 * MS);
        for _ in 0..knobs.consumers {
            let client = {
                let mut crowd = world.crowd();
                let client = crowd.join(Role::Group(number, Part::Consumer(ConsumerId(0))), None);
                let joined = &mut crowd.clients[client as usize];
                joined.role = Role::Group(number, Part::Consumer(fresh(&mut joined.stream)));
                client
            };
            turn_after(world, client, 1000 * MS);
        }
    }
}

fn fresh(stream: &mut Stream) -> ConsumerId {
    ConsumerId(u128::from(stream.bits()) << 64 | u128::from(stream.bits()))
}

/// The id of the nth group of a plan.
fn group_id(plan: &Plan, number: u32) -> Option<GroupId> {
    let knobs = plan.delivery.as_ref()?.groups.get(number as usize)?;
    let source = match knobs.source {
        SourceKnob::All => Source::All,
        SourceKnob::Category => Source::Category("player".into()),
        SourceKnob::Stream => Source::Stream(StreamName::new("player-0").ok()?),
        SourceKnob::EventType => Source::EventType("moved".into()),
    };
    GroupId::new(source, format!("g{number}")).ok()
}

/// The settings of a group.
pub fn settings(knobs: &GroupKnobs) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        strategy: knobs.strategy,
        message_timeout: ms(knobs.message_timeout_ms),
        max_retries: knobs.max_retries,
        backoff_min: ms(knobs.backoff_min_ms),
        backoff_max: ms(knobs.backoff_max_ms),
        buffer_max: knobs.buffer_max,
        read_batch: knobs.read_batch,
        checkpoint_after: ms(knobs.checkpoint_after_ms),
        checkpoint_max: knobs.checkpoint_max,
        in_flight_per_stream: knobs.in_flight_per_stream,
        push: Push {
            batch_events_max: knobs.batch_events_max,
            concurrency: knobs.concurrency,
            ..Push::default()
        },
        ..Settings::default()
    }
}

/// What it asks next.
pub(super) fn decide(
    plan: &Plan,
    number: u32,
    part: &Part,
    stream: &mut Stream,
) -> Option<Exchange> {
    let id = group_id(plan, number)?;
    let knobs = plan.delivery.as_ref()?.groups.get(number as usize)?;
    Some(match part {
        Part::Keeper { made: false } => {
            let lambda = || Target::Lambda { function: "handler".into(), form: Form::default() };
            let target = if knobs.pushed { lambda() } else { Target::Consumers };
            let start = if knobs.from_end { Start::End } else { Start::Beginning };
            let new = NewGroup { id, start, filter: None, target, settings: settings(knobs) };
            Exchange::Manage(Manage::Create(new), None)
        }
        Part::Keeper { made: true } => {
            let stop_at = stream.chance(0.3).then(|| stream.below(4));
            Exchange::Manage(Manage::Replay { id, stop_at }, None)
        }
        Part::Consumer(consumer) => {
            let max = 1 + stream.below(20) as u32;
            let wait = Duration::from_millis(100 + stream.below(plan.workload.timeout_ms / 2));
            Exchange::Fetch(Fetch { group: id, consumer: *consumer, max, wait }, None)
        }
    })
}

/// What it does after an answer.
pub(super) fn react(world: &World, crowd: &mut Crowd, client: u32, what: Exchange) -> Next {
    let calm = crowd.stopping;
    let client = &mut crowd.clients[client as usize];
    let Role::Group(number, _) = client.role else { return Next::Leave };
    let Some(delivery) = &world.plan.delivery else { return Next::Leave };
    let Some(knobs) = delivery.groups.get(number as usize) else { return Next::Leave };
    match what {
        Exchange::Manage(Manage::Create(_), answer) => {
            let made = matches!(answer, Some(Ok(_) | Err(ManageError::Exists(_))));
            client.role = Role::Group(number, Part::Keeper { made });
            let now_ms = world.kernel.now() / MS;
            match delivery.replay_at_ms.checked_sub(now_ms) {
                Some(wait_ms) if made => Next::Turn(wait_ms * MS),
                _ if made => Next::Leave,
                _ => Next::Turn(200 * MS),
            }
        }
        Exchange::Manage(_, Some(Ok(_))) => {
            world.rare("replays asked for");
            Next::Leave
        }
        Exchange::Manage(..) => Next::Turn(500 * MS),
        Exchange::Fetch(fetch, Some(Ok(fetched))) => {
            work(world, client, number, knobs, calm, (fetch, fetched))
        }
        Exchange::Fetch(_, Some(Err(ConsumeError::TooManyConsumers { .. }))) => {
            Next::Turn(1000 * MS)
        }
        Exchange::Fetch(..) => Next::Turn(200 * MS),
        Exchange::Settle(settle, answer) => {
            if let Some(Ok(settled)) = &answer
                && settled.counted.iter().any(|counted| !counted)
            {
                world.rare("consumers told that a verdict did not count");
            }
            client.tries += 1;
            let again = matches!(answer, None | Some(Err(ConsumeError::Unavailable)));
            if again && client.tries < 4 {
                return Next::Again(100 * MS, Exchange::Settle(settle, None));
            }
            // Whoever stopped comes back as another.
            if settle.verdicts.iter().any(|(.., verdict)| *verdict == Verdict::Stop) {
                client.role = Role::Group(number, Part::Consumer(fresh(&mut client.stream)));
                return Next::Turn(client.stream.wait(1000 * MS));
            }
            Next::Turn(0)
        }
        _ => Next::Turn(100 * MS),
    }
}

/// Handles what was fetched.
fn work(
    world: &World,
    client: &mut Client,
    number: u32,
    knobs: &GroupKnobs,
    calm: bool,
    (fetch, fetched): (Fetch, Fetched),
) -> Next {
    let Some(unit) = fetched.unit else { return Next::Turn(0) };
    for given in &fetched.events {
        world.seen_by_consumers(&fetch.group, unit, &given.event);
    }
    let per_mille =
        |stream: &mut Stream, count: u32| !calm && super::choose::per_mille(stream, count);
    let stream = &mut client.stream;
    if per_mille(stream, knobs.crash_per_mille) {
        world.rare("consumers that died with events");
        match stream.below(3) {
            // The work is done, and nobody is told.
            0 => {
                let sane =
                    |e: &&RecordedEvent| !history::is_poison(&world.plan, world.kernel.now(), e);
                let events = fetched.events.iter().map(|given| &given.event);
                for event in events.take_while(sane) {
                    handled(world, &fetch.group, event);
                }
            }
            1 => {
                client.tries = 0;
                let Leave { group, consumer } =
                    Leave { group: fetch.group, consumer: fetch.consumer };
                client.role = Role::Group(number, Part::Consumer(fresh(&mut client.stream)));
                return Next::Again(0, Exchange::Leave(Leave { group, consumer }, None));
            }
            _ => {}
        }
        client.role = Role::Group(number, Part::Consumer(fresh(&mut client.stream)));
        return Next::Turn(client.stream.wait(1000 * MS));
    }
    let mut stopped: BTreeSet<StreamName> = BTreeSet::new();
    let mut verdicts = Vec::new();
    for given in &fetched.events {
        let event = &given.event;
        if stopped.contains(&event.stream) {
            continue;
        }
        let poison = history::is_poison(&world.plan, world.kernel.now(), event);
        let fails = poison || per_mille(stream, knobs.fail_per_mille);
        let verdict = match (fails, stream.below(20)) {
            (false, _) => Verdict::Ack,
            (true, 0) => Verdict::Park("not for me".into()),
            (true, 1) if !poison => Verdict::Skip,
            (true, 2) if !calm => Verdict::Stop,
            (true, _) => Verdict::Retry("it failed".into()),
        };
        if !matches!(verdict, Verdict::Ack | Verdict::Skip) {
            stopped.insert(event.stream.clone());
        }
        let stops = verdict == Verdict::Stop;
        verdicts.push((given.place, given.delivery, verdict));
        if stops {
            break;
        }
    }
    let slow = per_mille(stream, knobs.slow_per_mille);
    let takes: Nanos =
        if slow { knobs.message_timeout_ms * 3 / 2 * MS } else { stream.below(30 * MS) };
    if slow {
        world.rare("consumers that took too long");
    }
    let events = fetched.events.iter().map(|given| (given.place, given.event.clone())).collect();
    client.holds = events;
    client.tries = 0;
    let (group, consumer) = (fetch.group, fetch.consumer);
    let takes = if calm { stream.below(5 * MS) } else { takes };
    Next::Again(takes, Exchange::Settle(Settle { group, consumer, unit, verdicts }, None))
}

/// A consumer is about to say what became of events: those that it acknowledges are handled by now.
pub(super) fn before_settling(world: &World, holds: &[(u64, RecordedEvent)], settle: &Settle) {
    for (place, _, verdict) in &settle.verdicts {
        if matches!(verdict, Verdict::Ack | Verdict::Skip)
            && let Some((_, event)) = holds.iter().find(|(held, _)| held == place)
        {
            handled(world, &settle.group, event);
        }
    }
}

/// Somebody has handled an event for a group.
pub fn handled(world: &World, group: &GroupId, event: &RecordedEvent) {
    let at = world.kernel.now();
    world.history().handled.push(Handling {
        at,
        group: group.clone(),
        stream: event.stream.clone(),
        revision: event.revision,
    });
}
