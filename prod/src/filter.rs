//! Which events a reader of all streams wants. Regular expressions know look-around, which clients use by default to leave
//! out system events; what they may cost is bounded.

use fancy_regex::{Regex, RegexBuilder};
use stormkeep_core::event::RecordedEvent;

/// Prefixes of one filter at the most.
const PREFIXES_MAX: usize = 1000;
/// Bytes of a regular expression at the most.
const REGEX_BYTES_MAX: usize = 4096;
/// Steps back that the match of one text may take.
const BACKTRACK_MAX: usize = 10_000;
/// Bytes that a regular expression may take when it is compiled.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Why a filter cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is nothing in it.
    #[error("prefix: give at least one prefix, or a regular expression")]
    Empty,
    /// There is too much in it.
    #[error("prefix: {count} prefixes; at most {PREFIXES_MAX}")]
    TooManyPrefixes {
        /// Prefixes that were given.
        count: usize,
    },
    /// The expression is too long.
    #[error("regex: {bytes} bytes; at most {REGEX_BYTES_MAX}")]
    TooLong {
        /// Bytes of it.
        bytes: usize,
    },
    /// The expression makes no sense, or too much of it.
    #[error("regex: {0}")]
    Regex(String),
}

/// See the module's docs.
#[derive(Debug, Clone)]
pub struct Filter {
    on: On,
    by: By,
}

#[derive(Debug, Clone, Copy)]
enum On {
    EventType,
    Stream,
}

#[derive(Debug, Clone)]
enum By {
    Prefixes(Vec<String>),
    Regex(Regex),
}

impl Filter {
    /// Events whose type begins with one of these.
    pub fn event_type_prefixes(prefixes: Vec<String>) -> Result<Self, FilterError> {
        Ok(Filter { on: On::EventType, by: by_prefixes(prefixes)? })
    }

    /// Events whose type matches this.
    pub fn event_type_regex(regex: &str) -> Result<Self, FilterError> {
        Ok(Filter { on: On::EventType, by: by_regex(regex)? })
    }

    /// Events of streams whose name begins with one of these.
    pub fn stream_prefixes(prefixes: Vec<String>) -> Result<Self, FilterError> {
        Ok(Filter { on: On::Stream, by: by_prefixes(prefixes)? })
    }

    /// Events of streams whose name matches this.
    pub fn stream_regex(regex: &str) -> Result<Self, FilterError> {
        Ok(Filter { on: On::Stream, by: by_regex(regex)? })
    }

    /// Whether an event is wanted.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let text = match self.on {
            On::EventType => &*event.event.kind,
            On::Stream => event.stream.as_str(),
        };
        match &self.by {
            By::Prefixes(prefixes) => prefixes.iter().any(|prefix| text.starts_with(prefix)),
            // What is too costly to decide is shown: nothing is missed by it.
            By::Regex(regex) => regex.is_match(text).unwrap_or(true),
        }
    }
}

fn by_prefixes(prefixes: Vec<String>) -> Result<By, FilterError> {
    match prefixes.len() {
        0 => Err(FilterError::Empty),
        count if count > PREFIXES_MAX => Err(FilterError::TooManyPrefixes { count }),
        _ => Ok(By::Prefixes(prefixes)),
    }
}

fn by_regex(regex: &str) -> Result<By, FilterError> {
    if regex.len() > REGEX_BYTES_MAX {
        return Err(FilterError::TooLong { bytes: regex.len() });
    }
    let mut builder = RegexBuilder::new(regex);
    let builder = builder.backtrack_limit(BACKTRACK_MAX).delegate_size_limit(COMPILED_BYTES_MAX);
    let built = builder.build();
    built.map(By::Regex).map_err(|error| FilterError::Regex(error.to_string().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stormkeep_core::{
        append::AppendId,
        event::{Event, EventId, Format},
        shard::ShardId,
        stream::StreamName,
        time::HybridTime,
    };

    use super::*;

    fn event(stream: &str, kind: &str) -> RecordedEvent {
        RecordedEvent {
            stream: StreamName::new(stream).unwrap_or_else(|error| panic!("{error}")),
            revision: 0,
            shard: ShardId(0),
            time: HybridTime(1),
            append: AppendId(1),
            event: Event {
                id: EventId(1),
                kind: Arc::from(kind),
                format: Format::Json,
                data: bytes::Bytes::new(),
                metadata: bytes::Bytes::new(),
            },
        }
    }

    #[test]
    fn events_are_told_apart_by_type_and_by_stream() {
        let filter = |filter: Result<Filter, FilterError>| filter.unwrap_or_else(|e| panic!("{e}"));
        let by = |of: &str| vec!["x".to_owned(), of.to_owned()];
        let game = event("game-7", "score-changed");
        for (filter, matches) in [
            (filter(Filter::event_type_prefixes(by("score"))), true),
            (filter(Filter::event_type_prefixes(by("game"))), false),
            (filter(Filter::stream_prefixes(by("game-"))), true),
            (filter(Filter::stream_prefixes(by("score"))), false),
            (filter(Filter::event_type_regex("^score-(won|changed)$")), true),
            (filter(Filter::event_type_regex("^score$")), false),
            (filter(Filter::stream_regex("-[0-9]+$")), true),
            (filter(Filter::stream_regex("player")), false),
            (filter(Filter::event_type_regex(r"^[^\$].*")), true),
        ] {
            assert_eq!(filter.matches(&game), matches, "{filter:?}");
        }
        let system = event("$$game-7", "$metadata");
        assert!(!filter(Filter::event_type_regex(r"^(?!\$).*")).matches(&system));
    }

    #[test]
    fn a_filter_that_makes_no_sense_says_why() {
        let error = |filter: Result<Filter, FilterError>| match filter {
            Ok(filter) => panic!("{filter:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error(Filter::event_type_prefixes(Vec::new())).contains("at least one"));
        assert!(
            error(Filter::stream_prefixes(vec![String::new(); 1001])).contains("1001 prefixes")
        );
        assert!(error(Filter::stream_regex("(unclosed")).contains("regex: "));
        assert!(error(Filter::stream_regex(&"x".repeat(5000))).contains("5000 bytes"));
        assert!(error(Filter::event_type_regex("(((a{100}){100}){100})")).contains("regex: "));
    }
}
