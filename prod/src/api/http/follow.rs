//! Following, as server-sent events.
//!
//! An event's id is its revision, or its position where all streams are followed: a client that comes back with
//! `Last-Event-ID` goes on behind it. Besides events, a follower is told `caught-up`, `fell-behind`, `checkpoint` (with
//! an id: everything up to there was looked at) and, last, `error` with a problem. A reader that is slow holds one
//! page, and no more.

use std::{convert::Infallible, pin::Pin, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, header};
use serde_json::{Value, json};
use stormkeep_core::{env::Env, stream::StreamName, time::GlobalPosition};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    Http, Kind, Problem,
    event::EventOutput,
    query::{Begin, header_text, invalid},
    read,
};
use crate::{
    filter::Filter,
    follow::{FollowError, Followed, From},
    metrics::Following,
};

/// With a filter: a checkpoint is told at least every so many events that were looked at.
const CHECKPOINT_EVERY: u64 = 1000;
/// How long a client should wait before it comes back, in milliseconds.
const RETRY_MS: u64 = 1000;

pub(super) async fn stream<E: Env>(
    http: &Http<E>,
    stream: StreamName,
    begin: Begin,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let from = from(begin, headers)?;
    // Behind the head of the answer it would only be an event.
    if read::head(http, &stream).await?.tombstoned {
        return Err(Problem::tombstoned(&stream));
    }
    let followed = http.service.follow_stream(stream.clone(), from);
    Ok(respond(http, Box::pin(followed), Subject::Stream(stream)))
}

pub(super) fn all<E: Env>(
    http: &Http<E>,
    begin: Begin,
    filter: Option<Filter>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let from = match from(begin, headers)? {
        From::Start => From::Start,
        From::End => From::End,
        From::After(position) => From::After(GlobalPosition(position.min(GlobalPosition::END.0))),
    };
    let followed = http.service.follow_all(from, filter, CHECKPOINT_EVERY);
    Ok(respond(http, Box::pin(followed), Subject::All))
}

/// Behind the last event that the client has seen, if it says so; else where the request says.
fn from(begin: Begin, headers: &HeaderMap) -> Result<From<u64>, Problem> {
    if let Some(text) = header_text(headers, "last-event-id")?.filter(|text| !text.is_empty()) {
        let id = text.parse();
        return id.map(From::After).map_err(|_| {
            invalid(format!("Last-Event-ID: `{text}` is no id that was given; leave it out"))
        });
    }
    Ok(match begin {
        Begin::Start => From::Start,
        Begin::End => From::End,
        Begin::At(at) => at.checked_sub(1).map_or(From::Start, From::After),
    })
}

/// What is followed.
enum Subject {
    Stream(StreamName),
    All,
}

type FollowedStream = Pin<Box<dyn Stream<Item = Result<Followed, FollowError>> + Send>>;

struct Frames {
    followed: FollowedStream,
    subject: Subject,
    heartbeat: Interval,
    _counted: Following,
}

impl Frames {
    async fn next(&mut self) -> Option<Bytes> {
        let told = tokio::select! {
            told = self.followed.next() => told?,
            _ = self.heartbeat.tick() => return Some(Bytes::from_static(b": still here\n\n")),
        };
        self.heartbeat.reset();
        Some(match told {
            Ok(told) => frame_of(&told, &self.subject),
            Err(error) => frame("error", None, &self.problem(&error).document().to_string()),
        })
    }

    fn problem(&self, error: &FollowError) -> Problem {
        match (error, &self.subject) {
            (FollowError::Tombstoned, Subject::Stream(stream)) => Problem::tombstoned(stream),
            (error, _) => Problem::new(Kind::Unavailable, error.to_string()),
        }
    }
}

fn respond<E: Env>(http: &Http<E>, followed: FollowedStream, subject: Subject) -> Response {
    let every = http.options.heartbeat.max(Duration::from_millis(10));
    let mut heartbeat = interval_at(Instant::now() + every, every);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let frames = Frames { followed, subject, heartbeat, _counted: http.metrics.following() };
    // At once, so that the client sees that it is connected.
    let hello = stream::iter([Bytes::from(format!("retry: {RETRY_MS}\n\n"))]);
    let frames = stream::unfold(frames, async |mut frames| Some((frames.next().await?, frames)));
    let body = Body::from_stream(hello.chain(frames).map(Ok::<Bytes, Infallible>));
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

fn frame_of(told: &Followed, subject: &Subject) -> Bytes {
    let at = |revision: &Option<u64>, position: &Option<GlobalPosition>| match subject {
        Subject::Stream(_) => json!({ "revision": revision }),
        Subject::All => json!({ "position": position.map(|p| p.to_string()) }),
    };
    match told {
        Followed::Event(event) => {
            let id = match subject {
                Subject::Stream(_) => event.revision.to_string(),
                Subject::All => event.position().to_string(),
            };
            let output = serde_json::to_string(&EventOutput::of(event));
            // Line breaks stand only between the tokens of JSON, where a blank says the same.
            let data =
                output.unwrap_or_else(|_| Value::Null.to_string()).replace(['\r', '\n'], " ");
            frame("", Some(&id), &data)
        }
        Followed::Checkpoint(position) => {
            let id = position.to_string();
            frame("checkpoint", Some(&id), &json!({ "position": id }).to_string())
        }
        Followed::CaughtUp { revision, position } => {
            frame("caught-up", None, &at(revision, position).to_string())
        }
        Followed::FellBehind { revision, position } => {
            frame("fell-behind", None, &at(revision, position).to_string())
        }
    }
}

fn frame(event: &str, id: Option<&str>, data: &str) -> Bytes {
    let event = if event.is_empty() { String::new() } else { format!("event: {event}\n") };
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("{event}{id}data: {data}\n\n"))
}
