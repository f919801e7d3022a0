//! From the protocol's requests to the core's.

use std::{fmt::Display, time::Duration};

use stormkeep_core::{append::Direction, stream::StreamName, time::GlobalPosition};

use super::{
    proto::event_store::client::{
        StreamIdentifier, Uuid,
        streams::{
            batch_append_req,
            read_req::{
                Options,
                options::{
                    AllOptions, CountOption, FilterOption, FilterOptions, ReadDirection,
                    StreamOption, StreamOptions,
                    all_options::AllOption,
                    filter_options::{self, Window},
                    stream_options::RevisionOption,
                    uuid_option,
                },
            },
        },
        uuid,
    },
    trouble::Trouble,
};
use crate::{
    filter::{Filter, Subject},
    follow::From as Start,
};

/// Events that are looked at between two checkpoints, times the multiplier, if the client gives no window.
const WINDOW: u32 = 32;

/// The name of a stream.
pub fn stream_name(identifier: Option<StreamIdentifier>) -> Result<StreamName, Trouble> {
    let Some(StreamIdentifier { stream_name }) = identifier else {
        return Err(Trouble::invalid("options.stream_identifier", "missing"));
    };
    let name = std::str::from_utf8(&stream_name).map_err(|error| {
        Trouble::invalid("options.stream_identifier.stream_name", format!("not UTF-8: {error}"))
    })?;
    if name == "$all" {
        let why =
            "`$all` is no stream: read it with `all`, and append to the streams it is made of";
        return Err(Trouble::invalid("options.stream_identifier.stream_name", why));
    }
    Ok(StreamName::new(name)?)
}

/// An id in either of its forms.
pub fn id(field: impl Display, id: Option<&Uuid>) -> Result<u128, Trouble> {
    match id.and_then(|id| id.value.as_ref()) {
        Some(uuid::Value::Structured(halves)) => {
            let (high, low) = (halves.most_significant_bits, halves.least_significant_bits);
            Ok(u128::from(high as u64) << 64 | u128::from(low as u64))
        }
        Some(uuid::Value::String(text)) => {
            ::uuid::Uuid::parse_str(text).map(|id| id.as_u128()).map_err(|error| {
                Trouble::invalid(&field.to_string(), format!("`{text}` is no UUID: {error}"))
            })
        }
        None => Err(Trouble::invalid(&field.to_string(), "missing")),
    }
}

/// What is read.
#[derive(Debug)]
pub(crate) enum Source {
    /// A stream, from a revision that is read as well.
    Stream {
        /// Its name.
        stream: StreamName,
        /// Where to begin.
        from: u64,
    },
    /// All streams.
    All {
        /// Where to begin: forwards with it, backwards before it.
        from: GlobalPosition,
        /// What to leave out.
        filter: Option<Filter>,
    },
}

/// A read that ends.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) source: Source,
    pub(crate) direction: Direction,
    pub(crate) count: u64,
    pub(crate) form: Form,
}

/// What is followed.
#[derive(Debug)]
pub(crate) enum Followed {
    /// A stream.
    Stream(StreamName, Start<u64>),
    /// All streams.
    All {
        /// Where to begin.
        from: Start<GlobalPosition>,
        /// What to leave out.
        filter: Option<Filter>,
        /// Events that are looked at between two checkpoints at the most.
        checkpoint_every: u64,
    },
}

/// A read that does not end.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) followed: Followed,
    pub(crate) form: Form,
}

/// How a client wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// Ids as two halves, rather than as text.
    pub(crate) structured: bool,
    /// It understands the first and the last position of a stream.
    pub(crate) positions: bool,
}

/// What a client wants to read.
#[derive(Debug)]
pub(crate) enum Asked {
    Read(Read),
    Subscription(Subscription),
}

/// Understands a read.
pub(crate) fn asked(options: Option<Options>) -> Result<Asked, Trouble> {
    let options = options.ok_or_else(|| Trouble::invalid("options", "missing"))?;
    let structured = options.uuid_option.and_then(|option| option.content);
    let form = Form {
        structured: matches!(structured, Some(uuid_option::Content::Structured(_))),
        positions: options.control_option.is_some_and(|option| option.compatibility >= 1),
    };
    let direction = match ReadDirection::try_from(options.read_direction) {
        Ok(ReadDirection::Forwards) => Direction::Forwards,
        Ok(ReadDirection::Backwards) => Direction::Backwards,
        Err(_) => {
            let why = format!("{}; 0 for forwards, 1 for backwards", options.read_direction);
            return Err(Trouble::invalid("options.read_direction", why));
        }
    };
    let filter = match options.filter_option {
        Some(FilterOption::Filter(filter)) => Some(filter),
        Some(FilterOption::NoFilter(_)) | None => None,
    };
    let what = options.stream_option;
    let what = what.ok_or_else(|| Trouble::invalid("options.stream_option", "missing"))?;
    if filter.is_some() && matches!(what, StreamOption::Stream(_)) {
        return Err(Trouble::invalid("options.filter", "only `all` can be filtered, not a stream"));
    }
    match options.count_option {
        Some(CountOption::Count(count)) => {
            let source = source(what, filter)?;
            Ok(Asked::Read(Read { source, direction, count, form }))
        }
        Some(CountOption::Subscription(_)) if direction == Direction::Backwards => {
            Err(Trouble::invalid("options.read_direction", "a subscription only goes forwards"))
        }
        Some(CountOption::Subscription(_)) => {
            Ok(Asked::Subscription(Subscription { followed: followed(what, filter)?, form }))
        }
        None => Err(Trouble::invalid("options.count_option", "missing: a count or a subscription")),
    }
}

fn source(what: StreamOption, asked: Option<FilterOptions>) -> Result<Source, Trouble> {
    match what {
        StreamOption::Stream(StreamOptions { stream_identifier, revision_option }) => {
            let from = match revision_option {
                Some(RevisionOption::Revision(revision)) => revision,
                Some(RevisionOption::Start(_)) => 0,
                Some(RevisionOption::End(_)) => u64::MAX,
                None => return Err(Trouble::invalid("options.stream.revision_option", "missing")),
            };
            Ok(Source::Stream { stream: stream_name(stream_identifier)?, from })
        }
        StreamOption::All(AllOptions { all_option }) => {
            let from = match all_option {
                Some(AllOption::Position(position)) => position_of(position.commit_position),
                Some(AllOption::Start(_)) => GlobalPosition::START,
                Some(AllOption::End(_)) => GlobalPosition::END,
                None => return Err(Trouble::invalid("options.all.all_option", "missing")),
            };
            Ok(Source::All { from, filter: asked.map(filter).transpose()? })
        }
    }
}

fn followed(what: StreamOption, asked: Option<FilterOptions>) -> Result<Followed, Trouble> {
    match what {
        StreamOption::Stream(StreamOptions { stream_identifier, revision_option }) => {
            let from = match revision_option {
                Some(RevisionOption::Revision(revision)) => Start::After(revision),
                Some(RevisionOption::Start(_)) => Start::Start,
                Some(RevisionOption::End(_)) => Start::End,
                None => return Err(Trouble::invalid("options.stream.revision_option", "missing")),
            };
            Ok(Followed::Stream(stream_name(stream_identifier)?, from))
        }
        StreamOption::All(AllOptions { all_option }) => {
            let from = match all_option {
                Some(AllOption::Position(position)) => {
                    Start::After(position_of(position.commit_position))
                }
                Some(AllOption::Start(_)) => Start::Start,
                Some(AllOption::End(_)) => Start::End,
                None => return Err(Trouble::invalid("options.all.all_option", "missing")),
            };
            let checkpoint_every = asked.as_ref().map_or(0, |asked| {
                let window = match asked.window {
                    Some(Window::Max(max)) => max.max(1),
                    Some(Window::Count(_)) | None => WINDOW,
                };
                u64::from(window) * u64::from(asked.checkpoint_interval_multiplier.max(1))
            });
            let filter = asked.map(filter).transpose()?;
            Ok(Followed::All { from, filter, checkpoint_every })
        }
    }
}

/// Clients have positions of their own for the end, beyond all that we have.
pub(super) fn position_of(commit: u64) -> GlobalPosition {
    GlobalPosition(commit).min(GlobalPosition::END)
}

fn filter(asked: FilterOptions) -> Result<Filter, Trouble> {
    let (subject, expression) = match asked.filter {
        Some(filter_options::Filter::EventType(expression)) => (Subject::EventType, expression),
        Some(filter_options::Filter::StreamIdentifier(expression)) => {
            (Subject::StreamName, expression)
        }
        None => return Err(Trouble::invalid("options.filter.filter", "missing")),
    };
    filter_of(subject, &expression.regex, expression.prefix)
}

/// The filter that an expression or prefixes make; one of them is empty.
pub(super) fn filter_of(
    subject: Subject,
    regex: &str,
    prefixes: Vec<String>,
) -> Result<Filter, Trouble> {
    match regex {
        "" => Ok(Filter::prefixes(subject, prefixes)?),
        regex if prefixes.is_empty() => Ok(Filter::expression(subject, regex)?),
        _ => Err(Trouble::invalid("options.filter", "give an expression or prefixes, not both")),
    }
}

/// How long an append of a batch may take, from now on.
pub(crate) fn batch_timeout(
    deadline: Option<&batch_append_req::options::DeadlineOption>,
    now: Duration,
) -> Duration {
    use batch_append_req::options::DeadlineOption;
    let span = |seconds: i64, nanos: i32| {
        let nanos = nanos.clamp(0, 999_999_999) as u32;
        u64::try_from(seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos))
    };
    match deadline {
        Some(DeadlineOption::Deadline21100(at)) => span(at.seconds, at.nanos).saturating_sub(now),
        Some(DeadlineOption::Deadline(timeout)) => span(timeout.seconds, timeout.nanos),
        None => Duration::MAX,
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
