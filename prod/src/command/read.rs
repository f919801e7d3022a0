//! `stormkeep read` and `stormkeep follow`.

use std::time::Duration;

use axum::body::Body;
use clap::Args;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure,
    append::PATIENCE,
    client::{Answer, Call, Client, Server, chunks, escaped},
    line::EventLine,
    say,
};

/// The name that stands for all streams.
const ALL: &str = "$all";
/// Events of one page.
const PAGE_EVENTS: u64 = 500;
/// How long to wait before a broken connection is made anew.
const RECONNECT: Duration = Duration::from_millis(500);
/// Bytes of one event that is followed at the most: far above what an event may have.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is read.
#[derive(Debug, Args)]
struct What {
    /// The stream, or '$all' for all of them (in quotes: it is a word of the shell's)
    stream: String,
    /// Where to begin: start, end, a revision, or of $all a position
    #[arg(long)]
    from: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print an event as JSON a line
    #[arg(long)]
    json: bool,
    /// Of $all: only types that begin so; may be given several times
    #[arg(long, value_name = "PREFIX", conflicts_with = "stream_prefix")]
    type_prefix: Vec<String>,
    /// Of $all: only streams that begin so; may be given several times
    #[arg(long, value_name = "PREFIX")]
    stream_prefix: Vec<String>,
    #[command(flatten)]
    server: Server,
}

impl What {
    fn path(&self, more: &str) -> Result<String, Failure> {
        if self.stream == ALL {
            let parameter = |name: &str, values: &[String]| {
                let values = values.iter().map(|value| format!("&{name}={}", escaped(value)));
                values.collect::<String>()
            };
            let types = parameter("type-prefix", &self.type_prefix);
            let streams = parameter("stream-prefix", &self.stream_prefix);
            return Ok(format!("/all?{more}{types}{streams}"));
        }
        if !self.type_prefix.is_empty() || !self.stream_prefix.is_empty() {
            let what = "--type-prefix and --stream-prefix are for '$all'";
            return Err(Failure::Nonsense(what.into()));
        }
        Ok(format!("/streams/{}?{more}", escaped(&self.stream)))
    }

    fn print(&self, event: &EventLine) -> Result<(), Failure> {
        let line = match self.json {
            true => event.json().map_err(|error| Failure::Failed(error.to_string()))?,
            false => event.text(),
        };
        say(&line)
    }
}

/// Read a stream, or all of them
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    what: What,
    /// From the newest to the oldest
    #[arg(long)]
    backwards: bool,
}

/// A page of either kind.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) events: Vec<EventLine>,
    next: Value,
    end: bool,
}

impl Page {
    /// Reads a page.
    pub(super) async fn get(client: &Client, path: String) -> Result<Page, Failure> {
        let answer: Answer = client.insist(&Call::get(path), PATIENCE).await?.well()?;
        answer.json()
    }

    /// Where to go on; `None`: this was the end.
    pub(super) fn next(&self) -> Option<String> {
        let next = match &self.next {
            Value::String(position) => position.clone(),
            Value::Number(revision) => revision.to_string(),
            _ => return None,
        };
        (!self.end).then_some(next)
    }
}

impl ReadArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.what.server.client()?;
        let direction = if self.backwards { "backwards" } else { "forwards" };
        let mut from = self.what.from.clone();
        let mut left = self.what.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let start = from.map(|from| format!("&from={}", escaped(&from))).unwrap_or_default();
            let limit = left.min(PAGE_EVENTS);
            let path = self.what.path(&format!("direction={direction}&limit={limit}{start}"))?;
            let page = Page::get(&client, path).await?;
            for event in &page.events {
                self.what.print(event)?;
            }
            left = left.saturating_sub(page.events.len() as u64);
            match page.next() {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }
}

/// Follow a stream, or all of them, as events come, from the next one on; a broken connection is made anew
#[derive(Debug, Args)]
pub(super) struct FollowArgs {
    #[command(flatten)]
    what: What,
}

impl FollowArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.what.server.client()?;
        let from = self.what.from.clone().unwrap_or_else(|| "end".into());
        let path = self.what.path(&format!("follow=sse&from={}", escaped(&from)))?;
        let mut left = self.what.limit.unwrap_or(u64::MAX);
        let mut last: Option<String> = None;
        let mut answered = false;
        while left > 0 {
            let mut call = Call::get(path.clone());
            call.headers = last.iter().map(|id| ("last-event-id", id.clone())).collect();
            match client.open(&call).await {
                Ok(response) if response.status().is_success() => {
                    answered = true;
                    let mut frames = Frames::of(chunks(response));
                    while let Some(frame) = frames.next().await {
                        last = frame.id.clone().or(last);
                        match frame.event.as_deref() {
                            None => {
                                let event: EventLine = serde_json::from_str(&frame.data)
                                    .map_err(|e| Failure::Failed(format!("an event: {e}")))?;
                                self.what.print(&event)?;
                                left -= 1;
                            }
                            Some("error") => {
                                let problem: Value =
                                    serde_json::from_str(&frame.data).unwrap_or_default();
                                if problem["status"].as_u64() != Some(503) {
                                    let detail = problem["detail"].as_str().unwrap_or_default();
                                    return Err(Failure::Failed(detail.into()));
                                }
                            }
                            Some(_) => last = frame.reached().or(last),
                        }
                        if left == 0 {
                            return Ok(());
                        }
                    }
                }
                Ok(response) if response.status().as_u16() != 503 => {
                    let status = response.status();
                    let body = axum::body::to_bytes(chunks(response), FRAME_BYTES_MAX).await;
                    let answer = Answer { status, body: body.unwrap_or_default() };
                    return Err(Failure::Failed(answer.detail()));
                }
                // A server that was never there is a mistake; one that went away may come back.
                Err(error) if !answered => return Err(error),
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(RECONNECT).await;
        }
        Ok(())
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    event: Option<String>,
    id: Option<String>,
    data: String,
}

impl Frame {
    /// `None`: it has no data.
    fn parse(text: &str) -> Option<Frame> {
        let mut frame = Frame::default();
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => frame.event = Some(value.into()),
                "id" => frame.id = Some(value.into()),
                "data" => frame.data.push_str(value),
                _ => {}
            }
        }
        (!frame.data.is_empty()).then_some(frame)
    }

    /// How far everything was told, if it says so: to go on from there although no event came.
    fn reached(&self) -> Option<String> {
        let data: Value = serde_json::from_str(&self.data).ok()?;
        let position = data["position"].as_str().map(str::to_owned);
        position.or_else(|| data["revision"].as_u64().map(|revision| revision.to_string()))
    }
}

struct Frames {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Frames {
    fn of(body: Body) -> Self {
        Frames { body: body.into_data_stream(), buffer: Vec::new() }
    }

    /// The next one; `None` when the connection ends.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                match Frame::parse(&text) {
                    Some(frame) => return Some(frame),
                    None => continue,
                }
            }
            if self.buffer.len() > FRAME_BYTES_MAX {
                return None;
            }
            let chunk = self.body.next().await?.ok()?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_put_together_from_any_pieces() {
        let text = "retry: 5\n\n: still here\n\nid: 7\ndata: {\"a\":1}\n\nevent: caught-up\ndata: {}\n\nid: 8\n";
        let pieces = text.as_bytes().chunks(3).map(|c| Ok::<_, std::io::Error>(c.to_vec()));
        let pieces: Vec<_> = pieces.collect();
        let mut frames = Frames::of(Body::from_stream(futures::stream::iter(pieces)));
        let event = Frame { event: None, id: Some("7".into()), data: "{\"a\":1}".into() };
        assert_eq!(frames.next().await, Some(event));
        assert_eq!(frames.next().await.unwrap().event.as_deref(), Some("caught-up"));
        assert_eq!(frames.next().await, None);
    }
}
