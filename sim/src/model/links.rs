//! Links: how long a message takes from one place to another, and whether it arrives at all, or twice.

use std::collections::BTreeMap;

use crate::{
    fault::Place,
    history::Nanos,
    model::effects::Effects,
    plan::{self, Latency},
    rng::Stream,
};

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Arrives(Nanos),
    /// It arrives after the first time, and again after the second.
    Repeats(Nanos, Nanos),
    /// The link is cut.
    Cut,
    /// It is lost.
    Lost,
}

/// All links of a world. Each direction has a stream of randomness of its own.
#[derive(Debug)]
pub struct Links {
    seed: u64,
    knobs: plan::Links,
    streams: BTreeMap<(Place, Place), Stream>,
}

impl Links {
    /// The links of a plan.
    pub fn new(seed: u64, knobs: plan::Links) -> Self {
        Links { seed, knobs, streams: BTreeMap::new() }
    }

    /// Decides the fate of one message. Messages to and from services are neither lost nor repeated here,
    /// only cut: a service's own model does the rest.
    pub fn send(&mut self, from: Place, to: Place, effects: &Effects) -> Fate {
        if effects.cuts.contains(&(from, to)) {
            return Fate::Cut;
        }
        let latency = match (from, to) {
            (Place::Node(_), Place::Node(_)) => self.knobs.peer,
            (Place::Clients, _) | (_, Place::Clients) => self.knobs.client,
            _ => self.knobs.service,
        };
        let seed = self.seed;
        let stream = self.streams.entry((from, to)).or_insert_with(|| {
            Stream::new(seed, "links", place_number(from) << 32 | place_number(to))
        });
        let slow = [from, to].iter().map(|place| slowness(*place, effects)).product::<u64>();
        let delay = sample(latency, stream) * slow;
        let service =
            [from, to].iter().any(|p| matches!(p, Place::Log | Place::Store | Place::Handlers));
        if service {
            return Fate::Arrives(delay);
        }
        if stream.chance(effects.lose) {
            return Fate::Lost;
        }
        let delay = delay + stream.below(effects.reorder_ns);
        let peers = matches!((from, to), (Place::Node(_), Place::Node(_)));
        if peers && stream.chance(effects.repeat) {
            return Fate::Repeats(delay, delay + stream.below(200_000_000));
        }
        Fate::Arrives(delay)
    }
}

/// One message's time, in nanoseconds.
pub fn sample(latency: Latency, stream: &mut Stream) -> Nanos {
    let usual = latency.usual_us * 1000;
    let tail = if stream.chance(f64::from(latency.tail_per_mille) / 1000.0) {
        stream.wait(latency.tail_us * 1000)
    } else {
        0
    };
    usual / 2 + stream.below(usual + 1) + tail
}

fn slowness(place: Place, effects: &Effects) -> u64 {
    match place {
        Place::Node(node) => effects.slow.get(node as usize).copied().unwrap_or(1),
        _ => 1,
    }
}

fn place_number(place: Place) -> u64 {
    match place {
        Place::Node(node) => u64::from(node),
        Place::Clients => 1 << 20,
        Place::Log => (1 << 20) + 1,
        Place::Store => (1 << 20) + 2,
        Place::Handlers => (1 << 20) + 3,
    }
}
