//! Groups: named persistent subscriptions, what they are given, and how.
//!
//! All groups of a cluster are one document of the store, changed by compare-and-set: whoever delivers sees them in one state,
//! and a change is there whole or not at all.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    event::RecordedEvent,
    filter::Filter,
    limits::STREAM_NAME_BYTES_MAX,
    shard::HashRange,
    stream::{InvalidStreamName, StreamName},
    time::GlobalPosition,
};

mod settings;

pub use settings::{Form, InvalidSettings, Push, Settings, Strategy, Target};

/// Groups of a cluster at the most: all of them are read with each sign of life of a worker.
pub const GROUPS_MAX: usize = 1000;

/// What the names of the streams begin with that hold what was parked.
const PARKED_PREFIX: &str = "$persistentsubscription-";

/// What a group reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// One stream.
    Stream(StreamName),
    /// All streams of a category.
    Category(Arc<str>),
    /// All events of a type.
    EventType(Arc<str>),
    /// All events; but not what groups have parked, or a handler that fails would be given its own failures.
    All,
}

impl fmt::Display for Source {
    /// As KurrentDB names it: `player-42`, `$ce-player`, `$et-item-picked-up`, `$all`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stream(stream) => write!(f, "{stream}"),
            Source::Category(category) => write!(f, "$ce-{category}"),
            Source::EventType(kind) => write!(f, "$et-{kind}"),
            Source::All => f.write_str("$all"),
        }
    }
}

/// Names a group: what it reads, and a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId {
    /// What it reads.
    pub source: Source,
    /// Its name.
    pub name: Arc<str>,
}

impl GroupId {
    /// The group of this name that reads this; it must be the name of a stream with what is put around it.
    pub fn new(source: Source, name: impl Into<Arc<str>>) -> Result<Self, InvalidGroup> {
        let id = GroupId { source, name: name.into() };
        if id.name.is_empty() {
            return Err(InvalidGroup::NoName);
        }
        let parked = id.parked_name();
        if parked.len() > STREAM_NAME_BYTES_MAX {
            return Err(InvalidGroup::TooLong { bytes: parked.len() });
        }
        StreamName::new(parked)?;
        Ok(id)
    }

    fn parked_name(&self) -> String {
        format!("{PARKED_PREFIX}{self}-parked")
    }

    /// The stream of what it has parked; `None`: it was not made by [`new`](GroupId::new), and has none.
    pub fn parked(&self) -> Option<StreamName> {
        StreamName::new(self.parked_name()).ok()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.source, self.name)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Names a group for ever: one that was deleted and made again is another one. It is the version of the document
/// that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupNumber(pub u64);

impl fmt::Display for GroupNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// Why a group cannot be made. Outcome: *no*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum InvalidGroup {
    /// It has no name.
    #[error("group: the name is empty; give it at least one character")]
    NoName,
    /// Its name and that of what it reads are too long together.
    #[error(
        "group: the stream of what it parks has a name of {bytes} bytes; at most {STREAM_NAME_BYTES_MAX}: give a shorter name"
    )]
    TooLong {
        /// Bytes of the name of that stream.
        bytes: usize,
    },
    /// Its name cannot be part of the name of a stream.
    #[error("group: {0}")]
    Name(String),
    /// A setting is out of its range.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// There are [`GROUPS_MAX`] already.
    #[error("groups: there are {GROUPS_MAX} already, the most of one cluster: delete one")]
    TooMany,
}

impl From<InvalidStreamName> for InvalidGroup {
    fn from(error: InvalidStreamName) -> Self {
        InvalidGroup::Name(error.to_string())
    }
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At the oldest event.
    Beginning,
    /// With what is appended after it was made; a little of what was appended just before may come, too.
    #[default]
    End,
    /// At this revision of its stream, which is given as well. For a [`Source::Stream`] alone.
    Revision(u64),
    /// At this position of the order of all events, which is given as well.
    Position(GlobalPosition),
}

/// A group as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its number.
    pub number: GroupNumber,
    /// Where it was asked to begin.
    #[serde(default)]
    pub began: Start,
    /// The first position that it is given: where it began, found when it was made, so that whoever delivers later begins at the
    /// same place.
    pub start: GlobalPosition,
    /// The first revision that it is given of a [`Source::Stream`].
    #[serde(default)]
    pub first_revision: u64,
    /// What its events must pass besides.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// Who is given them.
    #[serde(default)]
    pub target: Target,
    /// How.
    #[serde(default)]
    pub settings: Settings,
    /// Parked events below this revision of the parked stream are to be given again.
    #[serde(default)]
    pub replay_below: u64,
}

impl Group {
    /// Whether events of streams with keys in this range may be for it.
    pub fn touches(&self, range: HashRange) -> bool {
        match &self.id.source {
            Source::Stream(stream) => range.contains(stream.key()),
            Source::Category(_) | Source::EventType(_) | Source::All => true,
        }
    }

    /// Whether its events are pushed to a handler, rather than fetched.
    pub fn is_pushed(&self) -> bool {
        self.target != Target::Consumers
    }

    /// Whether an event is for it.
    pub fn wants(&self, event: &RecordedEvent) -> bool {
        let parked = || event.stream.described().as_str().starts_with(PARKED_PREFIX);
        let of_source = match &self.id.source {
            Source::Stream(stream) => {
                event.stream == *stream && event.revision >= self.first_revision
            }
            Source::Category(category) => event.stream.category() == &**category,
            Source::EventType(kind) => event.event.kind == *kind && !parked(),
            Source::All => !parked(),
        };
        of_source
            && event.position() >= self.start
            && self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

/// All groups, as the document holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Sorted by their ids.
    pub groups: Vec<Group>,
}

/// The document of all groups cannot be read: a newer build wrote it, or it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("groups: the stored document cannot be read: {0}: upgrade this build")]
pub struct InvalidGroups(String);

impl Groups {
    /// Reads the body of the document; an empty one holds no groups.
    pub fn decode(body: &[u8]) -> Result<Self, InvalidGroups> {
        if body.is_empty() {
            return Ok(Groups::default());
        }
        serde_json::from_slice(body).map_err(|error| InvalidGroups(error.to_string()))
    }

    /// The body of the document.
    pub fn encode(&self) -> bytes::Bytes {
        // Plain data with text keys: the serialiser has no failure for it.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The group of this id.
    pub fn get(&self, id: &GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == *id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: &GroupId) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.id == *id)
    }
}

/// A duration of so many milliseconds, for settings.
const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
mod tests;
