//! Reading pages of a stream, or of all of them.
//!
//! A page ends at its limit, at about 4 MiB, or, with a filter, after half of the time of a request; `next` says where the
//! next one begins, and `end` whether there was anything more.

use std::{pin::pin, time::Duration};

use axum::{extract::State, response::Response};
use futures::{Stream, StreamExt};
use http::{HeaderMap, Uri};
use serde::Serialize;
use stormkeep_core::{
    append::{Direction, Freshness, ReadAll, ReadStream, StreamSlice},
    env::Env,
    event::RecordedEvent,
    stream::StreamName,
    time::GlobalPosition,
};
use tokio::time::Instant;

use super::{
    Http, Problem,
    event::EventOutput,
    follow,
    operate::json_response,
    query::{self, Begin, Query, StreamPath, invalid, takes_json},
};
use crate::{
    filter::{Filter, Subject},
    follow::{FollowError, Followed, From},
    page::Pager,
};

/// Events of a page if nothing is said.
const LIMIT_DEFAULT: u32 = 100;
/// Bytes of events at which a page ends.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for more, in seconds.
const WAIT_MAX_S: u64 = 60;

/// A page of a stream.
#[derive(Serialize)]
struct StreamPage<'a> {
    stream: &'a str,
    exists: bool,
    head: Option<u64>,
    events: Vec<EventOutput<'a>>,
    next: Option<u64>,
    end: bool,
}

/// A page of all streams.
#[derive(Serialize)]
struct AllPage<'a> {
    events: Vec<EventOutput<'a>>,
    next: Option<String>,
    end: bool,
}

/// How long a page is, and how long to wait for its first event.
struct Bounds {
    direction: Direction,
    limit: u32,
    wait: Duration,
}

impl Bounds {
    fn of<E: Env>(http: &Http<E>, query: &Query, direction: Direction) -> Result<Self, Problem> {
        let max = http.options.page_events_max.max(1);
        let limit = query.number("limit", 1, max.into())?;
        let limit = limit.and_then(|limit| u32::try_from(limit).ok());
        let wait_s = query.number("wait", 0, WAIT_MAX_S)?.unwrap_or(0);
        if wait_s > 0 && direction == Direction::Backwards {
            return Err(invalid("wait: nothing new comes backwards; leave it out".into()));
        }
        let limit = limit.unwrap_or(LIMIT_DEFAULT.min(max));
        Ok(Bounds { direction, limit, wait: Duration::from_secs(wait_s) })
    }
}

pub(super) async fn stream<E: Env>(
    State(http): State<Http<E>>,
    path: StreamPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stream = query::stream(path)?;
    let query = Query::of(&uri, &["from", "direction", "limit", "wait", "follow"], &[])?;
    let direction = query.direction()?;
    let begin = query.begin(direction)?;
    if query.follows(&headers)? {
        forwards_only(direction)?;
        return follow::stream(&http, stream, begin, &headers).await;
    }
    takes_json(&headers)?;
    let bounds = Bounds::of(&http, &query, direction)?;
    let from = match (direction, begin) {
        (_, Begin::At(revision)) => revision,
        (_, Begin::Start) => 0,
        (Direction::Backwards, Begin::End) => u64::MAX,
        (Direction::Forwards, Begin::End) => behind(&head(&http, &stream).await?),
    };
    let mut slice = stream_page(&http, &stream, from, &bounds).await?;
    if slice.events.is_empty() && slice.next.is_none() && !bounds.wait.is_zero() {
        let after = from.checked_sub(1).map_or(From::Start, From::After);
        wait_for(&http, http.service.follow_stream(stream.clone(), after), bounds.wait).await;
        slice = stream_page(&http, &stream, from, &bounds).await?;
    }
    if slice.tombstoned {
        return Err(Problem::tombstoned(&stream));
    }
    if !slice.exists {
        return Err(Problem::no_stream(&stream, slice.head));
    }
    let end = slice.next.is_none();
    let next = match direction {
        Direction::Forwards => Some(slice.next.unwrap_or(behind(&slice).max(from))),
        Direction::Backwards => slice.next,
    };
    let events = slice.events.iter().map(EventOutput::of).collect();
    let (stream, exists, head) = (stream.as_str(), slice.exists, slice.head);
    to_response(&StreamPage { stream, exists, head, events, next, end })
}

/// What is known of a stream, without its events.
pub(super) async fn head<E: Env>(
    http: &Http<E>,
    stream: &StreamName,
) -> Result<StreamSlice, Problem> {
    let (direction, freshness) = (Direction::Backwards, Freshness::Strong);
    let stream = stream.clone();
    let read = ReadStream { stream, from: u64::MAX, limit: 0, direction, freshness };
    http.service.read_stream(read, http.options.request_timeout).await.map_err(Problem::read)
}

fn behind(slice: &StreamSlice) -> u64 {
    slice.head.map_or(0, |last| last + 1)
}

/// Reads until the page is full, in pieces, so that large events do not make a large page.
async fn stream_page<E: Env>(
    http: &Http<E>,
    stream: &StreamName,
    from: u64,
    bounds: &Bounds,
) -> Result<StreamSlice, Problem> {
    let (direction, freshness) = (bounds.direction, Freshness::Strong);
    let deadline = Instant::now() + http.options.request_timeout;
    let mut pager = Pager::default();
    let mut page: Option<StreamSlice> = None;
    let (mut from, mut left, mut bytes) = (from, bounds.limit, 0);
    loop {
        let limit = pager.limit().min(left);
        let read = ReadStream { stream: stream.clone(), from, limit, direction, freshness };
        let time = deadline.saturating_duration_since(Instant::now());
        let mut slice = match http.service.read_stream(read, time).await {
            Ok(slice) => slice,
            // What was read before is a page as well.
            Err(error) => return page.ok_or_else(|| Problem::read(error)),
        };
        let size = bytes_of(&slice.events);
        pager.read(size, slice.events.len());
        bytes += size;
        left = left.saturating_sub(u32::try_from(slice.events.len()).unwrap_or(u32::MAX));
        if let Some(before) = page {
            let events = std::mem::take(&mut slice.events);
            slice.events = before.events;
            slice.events.extend(events);
        }
        match slice.next {
            Some(next) if left > 0 && bytes < PAGE_BYTES => from = next,
            _ => return Ok(slice),
        }
        page = Some(slice);
    }
}

pub(super) async fn all<E: Env>(
    State(http): State<Http<E>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = ["from", "direction", "limit", "wait", "follow", "type-regex", "stream-regex"];
    let query = Query::of(&uri, &known, &["type-prefix", "stream-prefix"])?;
    let direction = query.direction()?;
    let begin = query.begin(direction)?;
    let filter = filter(&query)?;
    if query.follows(&headers)? {
        forwards_only(direction)?;
        return follow::all(&http, begin, filter, &headers);
    }
    takes_json(&headers)?;
    let bounds = Bounds::of(&http, &query, direction)?;
    let mut from = match (direction, begin) {
        (_, Begin::At(position)) => GlobalPosition(position.min(GlobalPosition::END.0)),
        (_, Begin::Start) => GlobalPosition::START,
        (Direction::Backwards, Begin::End) => GlobalPosition::END,
        (Direction::Forwards, Begin::End) => watermark(&http).await?,
    };
    let mut page = all_page(&http, from, filter.as_ref(), &bounds).await?;
    if page.events.is_empty() && page.end && !bounds.wait.is_zero() {
        let after = page.next.0.checked_sub(1).map(GlobalPosition).map_or(From::Start, From::After);
        let followed = http.service.follow_all(after, filter.clone(), 0);
        let reached = wait_for(&http, followed, bounds.wait).await;
        from = reached.unwrap_or(page.next);
        page = all_page(&http, from, filter.as_ref(), &bounds).await?;
    }
    let has_next = direction == Direction::Forwards || !page.end;
    let next = has_next.then(|| page.next.to_string());
    let events = page.events.iter().map(EventOutput::of).collect();
    to_response(&AllPage { events, next, end: page.end })
}

async fn watermark<E: Env>(http: &Http<E>) -> Result<GlobalPosition, Problem> {
    let (direction, freshness) = (Direction::Forwards, Freshness::Strong);
    let read = ReadAll { from: GlobalPosition::START, limit: 0, direction, freshness };
    let slice = http.service.read_all(read, http.options.request_timeout).await;
    Ok(slice.map_err(Problem::read)?.watermark)
}

/// What a page of all streams holds.
struct Read {
    events: Vec<RecordedEvent>,
    next: GlobalPosition,
    end: bool,
}

async fn all_page<E: Env>(
    http: &Http<E>,
    from: GlobalPosition,
    filter: Option<&Filter>,
    bounds: &Bounds,
) -> Result<Read, Problem> {
    let (direction, freshness) = (bounds.direction, Freshness::Strong);
    let deadline = Instant::now() + http.options.request_timeout;
    let enough = Instant::now() + http.options.request_timeout / 2;
    let mut pager = Pager::default();
    let mut page = Read { events: Vec::new(), next: from, end: false };
    let (mut read_any, mut bytes) = (false, 0);
    let limit_max = bounds.limit as usize;
    loop {
        let left = u32::try_from(limit_max - page.events.len()).unwrap_or(u32::MAX);
        let limit = if filter.is_some() { pager.limit() } else { pager.limit().min(left) };
        let read = ReadAll { from: page.next, limit, direction, freshness };
        let time = deadline.saturating_duration_since(Instant::now());
        let slice = match http.service.read_all(read, time).await {
            Ok(slice) => slice,
            Err(_) if read_any => return Ok(page),
            Err(error) => return Err(Problem::read(error)),
        };
        read_any = true;
        pager.read(bytes_of(&slice.events), slice.events.len());
        page.next = slice.next;
        page.end = match direction {
            Direction::Forwards => slice.next >= slice.watermark,
            Direction::Backwards => slice.next == GlobalPosition::START,
        };
        let mut events = slice.events.into_iter().peekable();
        while let Some(event) = events.next() {
            if filter.is_some_and(|filter| !filter.matches(&event)) {
                continue;
            }
            let position = event.position();
            bytes += event.event.bytes();
            page.events.push(event);
            if page.events.len() == limit_max && events.peek().is_some() {
                page.end = false;
                page.next = match direction {
                    Direction::Forwards => GlobalPosition(position.0 + 1),
                    Direction::Backwards => position,
                };
                return Ok(page);
            }
        }
        let full = page.events.len() >= limit_max || bytes >= PAGE_BYTES;
        if page.end || full || Instant::now() >= enough {
            return Ok(page);
        }
    }
}

fn bytes_of(events: &[RecordedEvent]) -> usize {
    events.iter().map(|e| e.event.bytes()).sum()
}

/// Waits for an event, and returns the position to read on from: of the event, or behind what was looked at.
async fn wait_for<E: Env>(
    http: &Http<E>,
    followed: impl Stream<Item = Result<Followed, FollowError>>,
    wait: Duration,
) -> Option<GlobalPosition> {
    let _counted = http.metrics.following();
    let mut followed = pin!(followed);
    let mut reached = None;
    let until_event = async {
        while let Some(Ok(told)) = followed.next().await {
            match told {
                Followed::Event(event) => {
                    reached = Some(event.position());
                    return;
                }
                Followed::Checkpoint(position) => {
                    reached = Some(GlobalPosition(position.0.saturating_add(1)));
                }
                Followed::CaughtUp { .. } | Followed::FellBehind { .. } => {}
            }
        }
    };
    // In time or not: the page that is read next says what there is.
    let _ = tokio::time::timeout(wait, until_event).await;
    reached
}

fn forwards_only(direction: Direction) -> Result<(), Problem> {
    match direction {
        Direction::Forwards => Ok(()),
        Direction::Backwards => {
            Err(invalid("direction: events are followed forwards; leave it out".into()))
        }
    }
}

/// The one filter that the parameters make, if any.
fn filter(query: &Query) -> Result<Option<Filter>, Problem> {
    let mut found: Option<(&str, Filter)> = None;
    let kinds = [
        ("type-prefix", Subject::EventType, true),
        ("stream-prefix", Subject::StreamName, true),
        ("type-regex", Subject::EventType, false),
        ("stream-regex", Subject::StreamName, false),
    ];
    for (name, subject, is_prefix) in kinds {
        let values = query.all(name);
        let Some(first) = values.first() else { continue };
        if let Some((other, _)) = found {
            return Err(invalid(format!("{name}: give either this or {other}")));
        }
        let filter = match is_prefix {
            true => Filter::prefixes(subject, values),
            false => Filter::expression(subject, first),
        };
        found = Some((name, filter.map_err(|error| invalid(format!("{name}: {error}")))?));
    }
    Ok(found.map(|(_, filter)| filter))
}

fn to_response(page: &impl Serialize) -> Result<Response, Problem> {
    match serde_json::to_vec(page) {
        Ok(bytes) => Ok(json_response(bytes)),
        Err(error) => Err(Problem::new(super::Kind::Internal, format!("the page: {error}"))),
    }
}
