//! What a stream and its metadata are together, as the oracles' own fold has it: the states that their appends lead
//! through, in the order of the log.
//!
//! Metadata of `x` are the events of `$$x`. The last event of type `$metadata` says what `x` shows: from revision `$tb`
//! on, but never beyond where `x` ended when that was said; and the last `$maxCount`. A stream that shows nothing is not
//! there, until its next append. An event of type `$streamDeleted` in `x` ends both for ever.

use serde_json::Value;
use stormkeep_core::{append::Expected, event::Event, stream::StreamName};

/// What the metadata stream of another one is called behind.
const PREFIX: &str = "$$";

/// Whether a stream is the metadata of another one.
pub(super) fn is_metadata(name: &StreamName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// The stream that is described, if this one describes one; else itself.
pub(super) fn described(name: &StreamName) -> &str {
    name.as_str().strip_prefix(PREFIX).unwrap_or(name.as_str())
}

/// A stream and its metadata behind some of their appends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Events of the stream.
    pub(super) events: u64,
    /// Events of its metadata.
    pub(super) metadata: u64,
    /// The first revision that is not truncated.
    pub(super) truncated: u64,
    pub(super) most: Option<u64>,
    /// Whether there is a tombstone.
    pub(super) ended: bool,
}

impl State {
    /// The state behind one more append.
    pub(super) fn after(mut self, to_metadata: bool, events: &[Event]) -> State {
        let count = if to_metadata { &mut self.metadata } else { &mut self.events };
        *count = count.saturating_add(events.len() as u64);
        for event in events {
            match (event.kind.as_ref(), to_metadata) {
                ("$streamDeleted", false) => self.ended = true,
                ("$metadata", true) => {
                    let said: Value = serde_json::from_slice(&event.data).unwrap_or_default();
                    let number = |name: &str| said.get(name).and_then(Value::as_u64);
                    self.truncated = number("$tb").unwrap_or(0).min(self.events);
                    self.most = number("$maxCount").filter(|most| *most > 0);
                }
                _ => {}
            }
        }
        self
    }

    /// The last revision of the stream, or of its metadata.
    pub(super) fn head(&self, of_metadata: bool) -> Option<u64> {
        let count = if of_metadata { self.metadata } else { self.events };
        count.checked_sub(1)
    }

    /// The first revision that is shown.
    pub(super) fn first(&self, of_metadata: bool) -> u64 {
        let kept = self.most.map_or(0, |most| self.events.saturating_sub(most));
        if of_metadata { 0 } else { self.truncated.max(kept) }
    }

    /// Whether it shows any event.
    pub(super) fn exists(&self, of_metadata: bool) -> bool {
        self.head(of_metadata).is_some_and(|last| self.first(of_metadata) <= last)
    }

    /// Whether it is as an append expects it.
    pub(super) fn meets(&self, of_metadata: bool, expected: Expected) -> bool {
        match expected {
            Expected::Any => true,
            Expected::NoStream => !self.exists(of_metadata),
            Expected::StreamExists => self.exists(of_metadata),
            Expected::Exactly(revision) => self.head(of_metadata) == Some(revision),
        }
    }
}

/// The history of a stream and its metadata.
#[derive(Debug)]
pub(super) struct Joint {
    /// The appends to either, in order: indices of [`Fold::appends`](super::fold::Fold::appends).
    pub(super) appends: Vec<usize>,
    /// The states before, between and behind them.
    pub(super) states: Vec<State>,
    /// Whether the revisions of both are 0, 1, 2, …
    pub(super) orderly: bool,
}

impl Joint {
    pub(super) fn new() -> Self {
        Joint { appends: Vec::new(), states: vec![State::default()], orderly: true }
    }

    pub(super) fn push(&mut self, place: usize, to_metadata: bool, events: &[Event]) {
        let before = self.states.last().copied().unwrap_or_default();
        self.appends.push(place);
        self.states.push(before.after(to_metadata, events));
    }

    /// The states in which the stream, or its metadata, is at `head`: a run of them.
    pub(super) fn at(&self, of_metadata: bool, head: Option<u64>) -> std::ops::Range<usize> {
        let begin = self.states.partition_point(|state| state.head(of_metadata) < head);
        let end = self.states.partition_point(|state| state.head(of_metadata) <= head);
        begin..end
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{events, metadata, name};
    use super::*;

    #[test]
    fn states_know_what_is_shown() {
        let joint = |acts: &[(bool, &str)]| {
            let mut joint = Joint::new();
            for (to_metadata, json) in acts {
                let said = if *to_metadata { metadata(json) } else { events(1, 3) };
                joint.push(0, *to_metadata, &said);
            }
            *joint.states.last().expect("there is one at least")
        };
        let state = joint(&[(false, ""), (true, r#"{"$maxCount": 2}"#), (false, "")]);
        assert_eq!(
            (state.head(false), state.head(true), state.first(false)),
            (Some(5), Some(0), 4)
        );
        // A deletion, which the next append ends.
        let acts = [(false, ""), (true, r#"{"$tb": 9223372036854775807}"#), (false, "")];
        let gone = joint(&acts[..2]);
        assert!(!gone.exists(false) && gone.exists(true));
        assert!(gone.meets(false, Expected::NoStream) && gone.meets(false, Expected::Exactly(2)));
        let back = joint(&acts);
        assert!(back.exists(false) && back.first(false) == 3);
        assert_eq!(joint(&[(true, r#"{"$tb": 5}"#)]).truncated, 0);
    }

    #[test]
    fn a_name_says_what_it_describes() {
        assert!(is_metadata(&name("$$a-1")) && !is_metadata(&name("$a-1")));
        assert_eq!((described(&name("$$a-1")), described(&name("a-1"))), ("a-1", "a-1"));
    }
}
