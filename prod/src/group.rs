//! Groups as they are named and written: by the APIs, and by the shell.

use stormkeep_core::{
    group::{GroupId, Source},
    stream::StreamName,
};

pub mod json;

/// What the names of sources begin with that are a category's and an event type's, as with KurrentDB.
const CATEGORY: &str = "$ce-";
const EVENT_TYPE: &str = "$et-";

/// Reads what a group reads: `$all`, `$ce-CATEGORY`, `$et-EVENTTYPE`, or the name of a stream.
pub fn parse_source(text: &str) -> Result<Source, String> {
    let named = |rest: &str, what: &str| match rest {
        "" => Err(format!("source: `{text}` lacks the name of the {what}")),
        name => Ok(name.into()),
    };
    if text == "$all" {
        Ok(Source::All)
    } else if let Some(category) = text.strip_prefix(CATEGORY) {
        Ok(Source::Category(named(category, "category")?))
    } else if let Some(kind) = text.strip_prefix(EVENT_TYPE) {
        Ok(Source::EventType(named(kind, "event type")?))
    } else {
        Ok(Source::Stream(StreamName::new(text).map_err(|error| error.to_string())?))
    }
}

/// Names a group by what it reads and its name.
pub fn parse_id(source: &str, name: &str) -> Result<GroupId, String> {
    GroupId::new(parse_source(source)?, name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in ["$all", "$ce-player", "$et-item-picked-up", "player-42", "$ce", "$$player-42"]
        {
            assert_eq!(parse_source(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_source("$ce-player").unwrap(), Source::Category("player".into()));
        assert!(parse_source("$ce-").unwrap_err().starts_with("source: `$ce-` lacks"));
        assert!(parse_source("").unwrap_err().starts_with("stream: "));
        assert!(parse_id("player-42", "").unwrap_err().starts_with("group: the name is empty"));
    }
}
