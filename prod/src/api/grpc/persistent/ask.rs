//! From the protocol's requests about groups to the core's.
//!
//! **How many events of one stream a consumer has at a time.** Clients take as many events as their buffer has room for, and
//! acknowledge them some at a time: with one event of a stream at a time, each would cost a round trip and the client's delay. So a
//! group that is made here may give a consumer as many events of one stream as the group holds at the most
//! ([`in_flight_per_stream`](Settings::in_flight_per_stream) is [`buffer_max`](Settings::buffer_max)), and *the client's buffer size*
//! is what bounds it, `buffer_size` of its Read. The order is kept all the same: a stream is with one consumer at a time, and
//! when an event of it fails, those behind it are given again behind it, whatever was said of them. With a buffer of 1 an event is seen only
//! when the one before it is settled; with a larger one, a client that goes on behind a failed event handles up to a buffer of
//! events of its stream twice. Over HTTP a group is made with 1, and any number can be set.

use std::time::Duration;

use stormkeep_core::{
    consume::NewGroup,
    filter::{Filter, Subject},
    group::{GroupId, InvalidGroup, InvalidSettings, Settings, Source, Start, Strategy, Target},
    time::GlobalPosition,
};

use super::{
    super::proto::event_store::client::{
        StreamIdentifier,
        persistent_subscriptions::{
            create_req::{self, all_options},
            delete_req, get_info_req, list_req, read_req, replay_parked_req, update_req,
        },
    },
    info::strategy_name,
};
use crate::{
    api::grpc::{
        request::{filter_of, position_of},
        trouble::Trouble,
    },
    group::parse_source,
    near,
};

/// The revision by which older clients mean the end.
const REVISION_END: u64 = u64::MAX;
/// What a time of 0 means: never; a day is the longest that there is.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Slots of a consumer at the most: what it holds, the server remembers.
const BUFFER_MAX: u32 = 10_000;

/// What a group reads.
fn source(identifier: Option<StreamIdentifier>) -> Result<Source, Trouble> {
    let missing = || Trouble::invalid("options.stream_identifier", "missing: a stream, or all");
    let StreamIdentifier { stream_name } = identifier.ok_or_else(missing)?;
    let name = std::str::from_utf8(&stream_name).map_err(|error| {
        Trouble::invalid("options.stream_identifier.stream_name", format!("not UTF-8: {error}"))
    })?;
    parse_source(name).map_err(Trouble::Invalid)
}

fn group_id(source: Source, name: String) -> Result<GroupId, Trouble> {
    GroupId::new(source, name).map_err(|error| Trouble::Invalid(error.to_string()))
}

/// A group to be made.
pub(super) fn new_group(options: create_req::Options) -> Result<NewGroup, Trouble> {
    use create_req::options::StreamOption;
    let mut asked = options.settings.map(Asked::from).unwrap_or_default();
    let (source, start, filter) = match options.stream_option {
        Some(StreamOption::Stream(stream)) => {
            use create_req::stream_options::RevisionOption;
            let start = match stream.revision_option {
                Some(RevisionOption::Revision(revision)) => at_revision(revision),
                Some(RevisionOption::Start(_)) => Start::Beginning,
                Some(RevisionOption::End(_)) => Start::End,
                None => return Err(Trouble::invalid("options.stream.revision_option", "missing")),
            };
            (source(stream.stream_identifier)?, start, None)
        }
        Some(StreamOption::All(all)) => {
            use create_req::all_options::{AllOption, FilterOption};
            let start = match all.all_option {
                Some(AllOption::Position(at)) => at_position(at.commit_position),
                Some(AllOption::Start(_)) => Start::Beginning,
                Some(AllOption::End(_)) => Start::End,
                None => return Err(Trouble::invalid("options.all.all_option", "missing")),
            };
            let filter = match all.filter_option {
                Some(FilterOption::Filter(asked)) => Some(filter(asked)?),
                Some(FilterOption::NoFilter(_)) | None => None,
            };
            (Source::All, start, filter)
        }
        None => (source(options.stream_identifier)?, at_revision(asked.revision), None),
    };
    asked.is_new = true;
    let settings = settings(asked, &Settings::default())?;
    let id = group_id(source, options.group_name)?;
    Ok(NewGroup { id, start, filter, target: Target::Consumers, settings })
}

fn at_revision(revision: u64) -> Start {
    match revision {
        // The beginning, as clients say that.
        0 => Start::Beginning,
        REVISION_END => Start::End,
        revision => Start::Revision(revision),
    }
}

fn at_position(commit: u64) -> Start {
    match position_of(commit) {
        GlobalPosition::END => Start::End,
        position => Start::Position(position),
    }
}

fn filter(asked: all_options::FilterOptions) -> Result<Filter, Trouble> {
    let (subject, expression) = match asked.filter {
        Some(all_options::filter_options::Filter::EventType(it)) => (Subject::EventType, it),
        Some(all_options::filter_options::Filter::StreamIdentifier(it)) => {
            (Subject::StreamName, it)
        }
        None => return Err(Trouble::invalid("options.filter.filter", "missing")),
    };
    filter_of(subject, &expression.regex, expression.prefix)
}

/// A group to be changed, and what is asked of it. Where it is to begin is not looked at: it goes on where it is.
pub(super) fn updated_group(options: update_req::Options) -> Result<(GroupId, Asked), Trouble> {
    use update_req::options::StreamOption;
    let source = match options.stream_option {
        Some(StreamOption::Stream(stream)) => source(stream.stream_identifier)?,
        Some(StreamOption::All(_)) => Source::All,
        None => source(options.stream_identifier)?,
    };
    let missing = || Trouble::invalid("options.settings", "missing: nothing would change");
    let asked = options.settings.map(Asked::from).ok_or_else(missing)?;
    Ok((group_id(source, options.group_name)?, asked))
}

macro_rules! named {
    ($function:ident, $options:ty, $option:path) => {
        /// The group that a request is about.
        pub(super) fn $function(options: $options) -> Result<GroupId, Trouble> {
            use $option as It;
            let source = match options.stream_option {
                Some(It::StreamIdentifier(identifier)) => source(Some(identifier))?,
                Some(It::All(_)) => Source::All,
                None => source(None)?,
            };
            group_id(source, options.group_name)
        }
    };
}

named!(deleted_group, delete_req::Options, delete_req::options::StreamOption);
named!(asked_group, get_info_req::Options, get_info_req::options::StreamOption);
named!(replayed, replay_parked_req::Options, replay_parked_req::options::StreamOption);
named!(read_group, read_req::Options, read_req::options::StreamOption);

/// A group whose parked events are to be given again, and the first revision of them that is not.
pub(super) fn replayed_group(
    options: replay_parked_req::Options,
) -> Result<(GroupId, Option<u64>), Trouble> {
    use replay_parked_req::options::StopAtOption;
    let stop_at = match options.stop_at_option {
        Some(StopAtOption::StopAt(at)) => Some(
            u64::try_from(at)
                .map_err(|_| Trouble::invalid("options.stop_at", format!("{at}: at least 0")))?,
        ),
        Some(StopAtOption::NoLimit(_)) | None => None,
    };
    Ok((replayed(options)?, stop_at))
}

/// What the groups read that are to be listed; `None`: anything.
pub(super) fn listed_source(options: list_req::Options) -> Result<Option<Source>, Trouble> {
    use list_req::{options::ListOption, stream_option::StreamOption};
    match options.list_option {
        Some(ListOption::ListAllSubscriptions(_)) => Ok(None),
        Some(ListOption::ListForStream(of)) => match of.stream_option {
            Some(StreamOption::Stream(identifier)) => source(Some(identifier)).map(Some),
            Some(StreamOption::All(_)) => Ok(Some(Source::All)),
            None => source(None).map(Some),
        },
        None => Err(Trouble::invalid("options.list_option", "missing: all, or a stream")),
    }
}

/// The slots of a consumer.
pub(super) fn slots(buffer_size: i32) -> Result<u32, Trouble> {
    match u32::try_from(buffer_size) {
        Ok(slots) if slots > 0 => Ok(slots.min(BUFFER_MAX)),
        _ => Err(Trouble::invalid("options.buffer_size", format!("{buffer_size}: at least 1"))),
    }
}

/// The settings that a client asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// Whether of a group to be made.
    is_new: bool,
    /// Whether anything is asked for.
    is_told: bool,
    resolve_links: bool,
    revision: u64,
    extra_statistics: bool,
    max_retry_count: i32,
    min_checkpoint_count: i32,
    max_checkpoint_count: i32,
    max_subscriber_count: i32,
    live_buffer_size: i32,
    read_batch_size: i32,
    history_buffer_size: i32,
    named_consumer_strategy: i32,
    consumer_strategy: String,
    message_timeout: Option<Time>,
    checkpoint_after: Option<Time>,
}

#[derive(Debug, Clone, Copy)]
enum Time {
    Ms(i32),
    /// Of 100 ns.
    Ticks(i64),
}

macro_rules! asked {
    ($request:ident, $strategy:expr) => {
        impl From<$request::Settings> for Asked {
            fn from(it: $request::Settings) -> Self {
                use $request::settings::{CheckpointAfter, MessageTimeout};
                let strategy: fn(&$request::Settings) -> String = $strategy;
                Asked {
                    is_new: false,
                    is_told: true,
                    consumer_strategy: strategy(&it),
                    resolve_links: it.resolve_links,
                    revision: it.revision,
                    extra_statistics: it.extra_statistics,
                    max_retry_count: it.max_retry_count,
                    min_checkpoint_count: it.min_checkpoint_count,
                    max_checkpoint_count: it.max_checkpoint_count,
                    max_subscriber_count: it.max_subscriber_count,
                    live_buffer_size: it.live_buffer_size,
                    read_batch_size: it.read_batch_size,
                    history_buffer_size: it.history_buffer_size,
                    named_consumer_strategy: it.named_consumer_strategy,
                    message_timeout: it.message_timeout.map(|told| match told {
                        MessageTimeout::MessageTimeoutTicks(ticks) => Time::Ticks(ticks),
                        MessageTimeout::MessageTimeoutMs(ms) => Time::Ms(ms),
                    }),
                    checkpoint_after: it.checkpoint_after.map(|told| match told {
                        CheckpointAfter::CheckpointAfterTicks(ticks) => Time::Ticks(ticks),
                        CheckpointAfter::CheckpointAfterMs(ms) => Time::Ms(ms),
                    }),
                }
            }
        }
    };
}

asked!(create_req, |it| it.consumer_strategy.clone());
asked!(update_req, |_| String::new());

/// The settings that a group has, and those that are asked for over them. What the protocol has no word for stays.
pub(super) fn settings(asked: Asked, now: &Settings) -> Result<Settings, Trouble> {
    let mut settings = now.clone();
    if asked.is_told {
        let buffer = asked.live_buffer_size.max(asked.history_buffer_size);
        settings.strategy = strategy(&asked)?;
        settings.message_timeout =
            time("message_timeout", asked.message_timeout, now.message_timeout)?;
        settings.max_retries = count("max_retry_count", asked.max_retry_count)?;
        settings.buffer_max = count("live_buffer_size", buffer)?;
        settings.read_batch = count("read_batch_size", asked.read_batch_size)?;
        settings.checkpoint_after =
            time("checkpoint_after", asked.checkpoint_after, now.checkpoint_after)?;
        settings.checkpoint_min = count("min_checkpoint_count", asked.min_checkpoint_count)?;
        settings.checkpoint_max = count("max_checkpoint_count", asked.max_checkpoint_count)?;
        settings.consumers_max = count("max_subscriber_count", asked.max_subscriber_count)?;
        settings.resolve_links = asked.resolve_links;
        settings.extra_statistics = asked.extra_statistics;
    }
    if asked.is_new {
        settings.in_flight_per_stream = settings.buffer_max;
    }
    settings.check().map_err(|error| Trouble::Invalid(in_its_words(&error)))?;
    Ok(settings)
}

/// What is out of its range, by the protocol's name.
fn in_its_words(error: &InvalidSettings) -> String {
    let field = match error.field.as_str() {
        "message_timeout" => "message_timeout_ms",
        "max_retries" => "max_retry_count",
        "buffer_max" => "live_buffer_size",
        "read_batch" => "read_batch_size",
        "checkpoint_after" => "checkpoint_after_ms",
        "checkpoint_min" => "min_checkpoint_count",
        "checkpoint_max" => "max_checkpoint_count",
        "consumers_max" => "max_subscriber_count",
        other => other,
    };
    InvalidGroup::from(InvalidSettings { field: field.to_owned(), ..error.clone() }).to_string()
}

fn count(field: &str, count: i32) -> Result<u32, Trouble> {
    let why = || Trouble::invalid(&format!("settings.{field}"), format!("{count}: at least 0"));
    u32::try_from(count).map_err(|_| why())
}

fn time(field: &str, told: Option<Time>, now: Duration) -> Result<Duration, Trouble> {
    let time = match told {
        None => return Ok(now),
        Some(Time::Ms(ms)) => u64::try_from(ms).map(Duration::from_millis),
        Some(Time::Ticks(ticks)) => {
            u64::try_from(ticks).map(|ticks| Duration::from_nanos(ticks.saturating_mul(100)))
        }
    };
    match time {
        Ok(Duration::ZERO) => Ok(NEVER),
        Ok(time) => Ok(time),
        Err(_) => Err(Trouble::invalid(&format!("settings.{field}"), "it is negative")),
    }
}

fn strategy(asked: &Asked) -> Result<Strategy, Trouble> {
    use create_req::ConsumerStrategy as Named;
    const ALL: [Strategy; 3] = [Strategy::DispatchToSingle, Strategy::RoundRobin, Strategy::Pinned];
    let name = asked.consumer_strategy.as_str();
    if name.is_empty() {
        return match Named::try_from(asked.named_consumer_strategy) {
            Ok(Named::DispatchToSingle) => Ok(Strategy::DispatchToSingle),
            Ok(Named::RoundRobin) => Ok(Strategy::RoundRobin),
            Ok(Named::Pinned) => Ok(Strategy::Pinned),
            Err(_) => {
                let why = format!("{}: from 0 to 2", asked.named_consumer_strategy);
                Err(Trouble::invalid("settings.named_consumer_strategy", why))
            }
        };
    }
    ALL.into_iter().find(|strategy| strategy_name(*strategy) == name).ok_or_else(|| {
        let hint = near::hint(name, ALL.map(strategy_name));
        Trouble::invalid("settings.consumer_strategy", format!("`{name}` is not there; {hint}"))
    })
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
