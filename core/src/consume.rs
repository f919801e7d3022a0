//! What consumers of groups ask, and who manages groups: requests, answers, errors.
//!
//! A consumer fetches events, handles them, and settles each. An event that it does not settle in time, or that it
//! says it failed, is given again; so every event is handled at least once, and those of one stream in order.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    env::NodeId,
    event::RecordedEvent,
    filter::Filter,
    group::{Group, GroupId, GroupNumber, InvalidGroup, Settings, Start, Target},
    shard::ShardId,
};

/// Names one consumer of a group, as long as it is connected: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConsumerId(pub u128);

/// What is worked on as one: the events of a shard for a group, or what the group has parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// The group: what one that was deleted gave does not settle the events of another that has its name.
    pub group: GroupNumber,
    /// The shard. For a replay: the one that holds the parked stream.
    pub shard: ShardId,
    /// The lease under which it is worked on: what was given under another one cannot be settled any more.
    pub lease: u64,
    /// Whether it is the replay of what was parked.
    pub replay: bool,
}

/// An event given to a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its place in its unit.
    pub place: u64,
    /// Names this delivery of it within its unit.
    pub delivery: u64,
    /// How often it has failed before; 0 the first time.
    pub retries: u32,
    /// The event.
    pub event: RecordedEvent,
}

/// Asks for events. A repeat may be given others; those of an answer that got lost are given again after the group's
/// message timeout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The group.
    pub group: GroupId,
    /// Who asks.
    pub consumer: ConsumerId,
    /// Events at the most.
    pub max: u32,
    /// How long to wait for the first one; the answer comes at the first, or empty after this.
    pub wait: Duration,
}

/// Events of one unit, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The unit; `None`: there was nothing in time.
    pub unit: Option<Unit>,
    /// The events.
    pub events: Vec<Given>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is handled.
    Ack,
    /// It failed: give it again, or park it after too many tries. The text says why.
    Retry(String),
    /// It failed for good: park it. The text says why; 1,000 characters of it are kept.
    Park(String),
    /// It failed, and is not to be given again.
    Skip,
    /// The consumer stops; what it holds is given to others.
    Stop,
}

/// Characters of a reason that are kept: it is parked with its event, and must fit there.
const REASON_CHARS_MAX: usize = 1000;

/// A reason, as long as it is no book: its first 1,000 characters.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Settles events of one unit. To ask again is safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// The group.
    pub group: GroupId,
    /// Who settles.
    pub consumer: ConsumerId,
    /// The unit that the events are of.
    pub unit: Unit,
    /// Each event's place and delivery, and what became of it.
    pub verdicts: Vec<(u64, u64, Verdict)>,
}

/// A consumer leaves: what it holds is given to others at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The group.
    pub group: GroupId,
    /// Who leaves.
    pub consumer: ConsumerId,
}

/// Why a consumer has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ConsumeError {
    /// *no*: there is no such group.
    #[error("group {0}: there is no such group: create it first")]
    NoSuchGroup(String),
    /// *no*: its events are pushed to a handler.
    #[error("group {0}: its events are pushed to a handler; nobody fetches them")]
    Pushed(String),
    /// *no*: as many consumers as it may have are there.
    #[error("group: {consumers_max} consumers are there, the most that its settings allow")]
    TooManyConsumers {
        /// How many it may have.
        consumers_max: u32,
    },
    /// *no*: the unit is worked on elsewhere, or under another lease: its events are given again.
    #[error("the unit is not worked on here any more; ask {hint:?}")]
    NotHolder {
        /// Who may work on it, as far as this node knows.
        hint: Option<NodeId>,
    },
    /// *unknown*: nobody who works on it could be reached in time. Asking again is safe.
    #[error("nobody who works on the group could be reached in time")]
    Unavailable,
}

/// What settling came to, in the order of [`Settle::verdicts`]: whether each verdict counted. One that did not is of an
/// event that is settled already, or that was given to another meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// For each verdict.
    pub counted: Vec<bool>,
}

/// A group to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// Its id.
    pub id: GroupId,
    /// Where it begins.
    pub start: Start,
    /// What its events must pass besides.
    pub filter: Option<Filter>,
    /// Who is given them.
    pub target: Target,
    /// How.
    pub settings: Settings,
}

/// Managing groups. Each is safe to ask again when its outcome is unknown, but a *create* or *delete* may then find that it
/// has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manage {
    /// Makes a group.
    Create(NewGroup),
    /// Sets the settings and the target of a group; it goes on where it is.
    Update {
        /// The group.
        id: GroupId,
        /// Its new settings.
        settings: Settings,
        /// Who is given its events.
        target: Target,
    },
    /// Deletes a group. What it has parked stays in its stream.
    Delete(GroupId),
    /// Gives what a group has parked again: all that is parked now, or what is parked below a revision of the parked stream.
    Replay {
        /// The group.
        id: GroupId,
        /// The first revision of the parked stream that is not given again.
        stop_at: Option<u64>,
    },
    /// Tells of a group.
    Info(GroupId),
    /// Tells of all groups, without what is live.
    List,
}

/// What managing came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Managed {
    /// It is done.
    Done,
    /// Of an [`Info`](Manage::Info).
    Info(Box<GroupInfo>),
    /// Of a [`List`](Manage::List).
    List(Vec<Group>),
}

/// What there is to tell of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// It.
    pub group: Group,
    /// How far it is, and what is live, by unit.
    pub units: Vec<UnitInfo>,
    /// Events in its parked stream that are to be replayed or looked at.
    pub parked: u64,
    /// Whether somebody who works on it could not be asked, so that `units` is not all.
    pub partial: bool,
}

/// What is live in one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitInfo {
    /// The unit.
    pub unit: Option<Unit>,
    /// Who works on it.
    pub node: Option<NodeId>,
    /// Every event below this place is settled.
    pub next: u64,
    /// Every event below this place has been read.
    pub read: u64,
    /// Events held in memory.
    pub held: u64,
    /// Of these, given and not settled.
    pub in_flight: u64,
    /// Of these, waiting to be given again.
    pub retrying: u64,
    /// Of these, being parked.
    pub parking: u64,
    /// Events settled since this lease began.
    pub settled: u64,
    /// Events parked since this lease began.
    pub parked: u64,
    /// Events given again since this lease began.
    pub given_again: u64,
    /// The consumers, and how many events each holds.
    pub consumers: Vec<(ConsumerId, u64)>,
}

/// Why managing was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ManageError {
    /// *no*: it cannot be.
    #[error(transparent)]
    Invalid(#[from] InvalidGroup),
    /// *no*: a group of this id is there.
    #[error("group {0}: it exists already: update it, or delete it first")]
    Exists(String),
    /// *no*: there is no such group.
    #[error("group {0}: there is no such group: create it first")]
    NoSuchGroup(String),
    /// *no*: a revision is asked for where there is no single stream.
    #[error("start: a revision is of one stream: give a position, or read a stream")]
    NoRevision,
    /// *no*: the stored groups cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// *unknown*: the store did not answer in time; it may have happened.
    #[error("the store did not answer in time; it may have happened: ask again")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "ü".repeat(2000);
        assert_eq!(shortened(&long).chars().count(), REASON_CHARS_MAX + 1);
        assert_eq!(shortened("short"), "short");
    }
}
