//! What goes wrong in a live run, and when: drawn from its seed.

use std::{collections::BTreeMap, time::Duration};

use crate::rng::Stream;

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The process of a node.
    Process(u32),
    /// The link between clients and a node.
    Clients(u32),
    /// The links from its peers to a node.
    Peers(u32),
    /// The link from a node to the log.
    Log(u32),
    /// The links from all nodes to a node of the store.
    Store(u32),
    /// The process of one node of the store.
    StoreNode,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The process is killed, and started again at the end.
    Kill,
    /// The process stands still.
    Stop,
    /// Nothing passes.
    Cut,
    /// What is asked passes, answers do not.
    LoseAnswers,
    /// Nothing that is asked passes.
    LoseQuestions,
    /// Everything takes this much longer.
    Delay(Duration),
    /// All connections break.
    Reset,
}

impl What {
    /// All kinds, as they are counted.
    pub(super) const KINDS: &[&str] =
        &["kill", "stop", "cut", "lose-answers", "lose-questions", "delay", "reset"];

    /// Its kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            What::Kill => "kill",
            What::Stop => "stop",
            What::Cut => "cut",
            What::LoseAnswers => "lose-answers",
            What::LoseQuestions => "lose-questions",
            What::Delay(_) => "delay",
            What::Reset => "reset",
        }
    }

    fn of_a_process(stream: &mut Stream) -> What {
        if stream.chance(0.6) { What::Kill } else { What::Stop }
    }

    fn of_a_link(stream: &mut Stream) -> What {
        match stream.below(6) {
            0 => What::Cut,
            1 | 2 => What::LoseAnswers,
            3 => What::LoseQuestions,
            4 => What::Delay(Duration::from_millis(stream.log_between(5, 1500))),
            _ => What::Reset,
        }
    }
}

/// How long a node of the store is left alone that was killed: it has to start.
const STORE_NODE_STARTS: Duration = Duration::from_secs(60);

/// One fault of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disturbance {
    /// When it begins, since the start.
    pub(super) at: Duration,
    /// How long it lasts.
    pub(super) lasts: Duration,
    /// What.
    pub(super) what: What,
    /// Where.
    pub(super) place: Place,
}

/// Draws what goes wrong at these places within a time. At one place, one thing at a time.
pub(super) fn draw(seed: u64, places: &[Place], time: Duration) -> Vec<Disturbance> {
    let mut stream = Stream::new(seed, "live", 0);
    let mut busy: BTreeMap<Place, Duration> = BTreeMap::new();
    let mut drawn = Vec::new();
    let mut at = Duration::from_millis(1500);
    while at < time && !places.is_empty() {
        let place = *stream.pick(places);
        let (what, longest_ms) = match place {
            Place::Process(_) => (What::of_a_process(&mut stream), 4000),
            // It takes half a minute to start, and the others have to notice that it is gone.
            Place::StoreNode => (What::of_a_process(&mut stream), 20_000),
            Place::Clients(_) | Place::Peers(_) | Place::Log(_) | Place::Store(_) => {
                (What::of_a_link(&mut stream), 6000)
            }
        };
        let lasts = Duration::from_millis(stream.log_between(100, longest_ms));
        let free = busy.get(&place).is_none_or(|until| *until < at);
        if free && at + lasts < time {
            let slow = place == Place::StoreNode && what == What::Kill;
            let again = if slow { STORE_NODE_STARTS } else { Duration::ZERO };
            busy.insert(place, at + lasts + again);
            drawn.push(Disturbance { at, lasts, what, place });
        }
        at += Duration::from_millis(stream.log_between(200, 4000));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_places_are_disturbed_one_thing_at_a_time() {
        let places = [Place::Process(0), Place::Clients(0), Place::Process(1)];
        let time = Duration::from_secs(600);
        let drawn = draw(7, &places, time);
        assert_eq!(drawn, draw(7, &places, time));
        assert_ne!(drawn, draw(8, &places, time));
        let kinds = |kind: &&&str| drawn.iter().any(|d| d.what.kind() == **kind);
        assert_eq!(What::KINDS.iter().filter(kinds).count(), What::KINDS.len());
        for place in places {
            let here: Vec<_> = drawn.iter().filter(|d| d.place == place).collect();
            assert!(here.len() > 10);
            assert!(here.windows(2).all(|two| two[0].at + two[0].lasts < two[1].at));
        }
        assert!(drawn.iter().all(|d| d.at + d.lasts < time));
        assert_eq!(draw(7, &[], time), []);
    }
}
