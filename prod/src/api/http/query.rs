//! What the address and the headers of a request say. Whatever is not known is refused.

use axum::extract::Query as Pairs;
use http::{HeaderMap, Uri, header};
use stormkeep_core::{
    append::{Direction, Expected},
    stream::StreamName,
};

use super::{Kind, Problem};
use crate::near;

/// The header that says what an append demands of its stream.
const EXPECTED: &str = "stormkeep-expected";

/// Parameters that are known.
pub(super) struct Query(Vec<(String, String)>);

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Start,
    End,
    At(u64),
}

impl Query {
    /// The parameters of an address, of which `known` may be given once, and `repeatable` more often.
    pub(super) fn of(uri: &Uri, known: &[&str], repeatable: &[&str]) -> Result<Self, Problem> {
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| invalid(format!("query: {}", error.body_text())))?;
        let query = Query(pairs.0);
        for (name, _) in &query.0 {
            let all = known.iter().chain(repeatable).copied();
            if !all.clone().any(|k| k == name) {
                if known.is_empty() && repeatable.is_empty() {
                    return Err(invalid(format!("{name}: no parameter is known here")));
                }
                let hint = near::hint(name, all);
                return Err(invalid(format!("{name}: this parameter is not known; {hint}")));
            }
            let given = query.0.iter().filter(|(n, _)| n == name).count();
            if given > 1 && known.contains(&name.as_str()) {
                return Err(invalid(format!("{name}: it is given {given} times; give it once")));
            }
        }
        Ok(query)
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    /// A number from `min` to `max`.
    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.one(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(invalid(format!("{name}: `{text}` is no number from {min} to {max}"))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(invalid(format!("{name}: `{other}` is neither true nor false"))),
        }
    }

    pub(super) fn direction(&self) -> Result<Direction, Problem> {
        match self.one("direction") {
            None | Some("forwards") => Ok(Direction::Forwards),
            Some("backwards") => Ok(Direction::Backwards),
            Some(other) => {
                Err(invalid(format!("direction: `{other}` is neither forwards nor backwards")))
            }
        }
    }

    /// Where to begin; from the end if it goes backwards and nothing is said.
    pub(super) fn begin(&self, direction: Direction) -> Result<Begin, Problem> {
        match self.one("from") {
            None if direction == Direction::Backwards => Ok(Begin::End),
            None | Some("start") => Ok(Begin::Start),
            Some("end") => Ok(Begin::End),
            Some(text) => text.parse().map(Begin::At).map_err(|_| {
                invalid(format!("from: `{text}` is neither a number nor start nor end"))
            }),
        }
    }

    /// Whether the answer should be a stream of events: `follow=sse`, or the header Accept.
    pub(super) fn follows(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        match self.one("follow") {
            None => {
                let accepted = header_text(headers, header::ACCEPT.as_str())?.unwrap_or_default();
                Ok(accepts(accepted, "text", "event-stream"))
            }
            Some("sse") => Ok(true),
            Some(other) => Err(invalid(format!("follow: `{other}` is not known; sse is"))),
        }
    }
}

/// Refuses a request whose client accepts no JSON.
pub(super) fn takes_json(headers: &HeaderMap) -> Result<(), Problem> {
    let accepted = header_text(headers, header::ACCEPT.as_str())?.unwrap_or("*/*");
    let any = accepted.trim().is_empty() || accepts(accepted, "*", "*");
    if any
        || accepts(accepted, "application", "*")
        || accepts(accepted, "application", "json")
        || accepts(accepted, "application", "problem+json")
    {
        return Ok(());
    }
    let detail = format!(
        "Accept: `{accepted}`: answers are application/json, or text/event-stream where events are followed"
    );
    Err(Problem::new(Kind::NotAcceptable, detail))
}

fn accepts(accepted: &str, kind: &str, subtype: &str) -> bool {
    accepted.split(',').any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range
            .split_once('/')
            .is_some_and(|(k, s)| k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype))
    })
}

pub(super) fn header_text<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str();
    text.map(Some).map_err(|_| invalid(format!("{name}: the header is no visible ASCII")))
}

/// What is expected of a stream: the header, or else the parameter.
pub(super) fn expected(headers: &HeaderMap, query: &Query) -> Result<Expected, Problem> {
    let header = header_text(headers, EXPECTED)?;
    let (name, text) = match (header, query.one("expected")) {
        (Some(_), Some(_)) => {
            let detail = "expected: give either the header Stormkeep-Expected or the parameter";
            return Err(invalid(detail.into()));
        }
        (Some(text), None) => ("Stormkeep-Expected", text),
        (None, Some(text)) => ("expected", text),
        (None, None) => return Ok(Expected::Any),
    };
    parse_expected(text).map_err(|error| invalid(format!("{name}: {error}")))
}

/// Reads `any`, `no-stream` (or `none`), `exists`, or a revision.
pub fn parse_expected(text: &str) -> Result<Expected, String> {
    match text.trim() {
        "any" => Ok(Expected::Any),
        "no-stream" | "none" => Ok(Expected::NoStream),
        "exists" => Ok(Expected::StreamExists),
        text => text.parse().map(Expected::Exactly).map_err(|_| {
            format!("`{text}` is none of any, no-stream, exists, or the revision of the last event")
        }),
    }
}

/// The stream that a path names.
pub(super) fn stream(path: StreamPath) -> Result<StreamName, Problem> {
    let path = path.map_err(|error| invalid(format!("stream: {}", error.body_text())))?;
    Ok(StreamName::new(path.0)?)
}

/// The name in a path, decoded if it could be.
pub(super) type StreamPath =
    Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>;

pub(super) fn invalid(detail: String) -> Problem {
    Problem::new(Kind::Invalid, detail)
}
