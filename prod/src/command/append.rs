//! `stormkeep append`.

use std::{
    io::{BufRead, Read},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Value, value::RawValue};
use stormkeep_core::append::Expected;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Failure,
    client::{Call, Client, Server, escaped},
    say,
};
use crate::api::http::{EventInput, expected_text, parse_expected};

/// Events of one append when many come from the standard input.
const EVENTS_MAX: usize = 500;
/// Bytes of lines of one append when many come.
const BYTES_MAX: usize = 512 * 1024;
/// How long a busy server is asked again.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Append one event, or many: without --type, the standard input has an event a line,
/// {"type": …, "data": …, "metadata": …, "id": …}, of which the last two may be left out
#[derive(Debug, Args)]
pub(super) struct AppendArgs {
    /// The stream
    stream: String,
    /// Type of the one event
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Its payload: JSON, @FILE with JSON, or - for JSON from the standard input [default: {}]
    #[arg(long, requires = "kind", value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// Its metadata, in JSON
    #[arg(long, requires = "kind", value_name = "JSON")]
    metadata: Option<String>,
    /// Its id, a UUID: who appends it again with the same id appends nothing new
    #[arg(long, requires = "kind", value_name = "UUID")]
    id: Option<String>,
    /// What the stream must be at: any, none, exists, or the revision of its last event
    #[arg(long, default_value = "any", value_parser = parse_expected)]
    expected: Expected,
    /// Print the answers as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl AppendArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.server.client()?;
        match &self.kind {
            Some(kind) => {
                let event = self.event(kind)?;
                self.append(&client, &[event], self.expected).await.map(|_| ())
            }
            None => self.append_lines(&client).await,
        }
    }

    fn event(&self, kind: &str) -> Result<EventInput, Failure> {
        let data = match self.data.as_deref() {
            None => "{}".to_owned(),
            Some("-") => {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
                text
            }
            Some(text) => match text.strip_prefix('@') {
                Some(file) => std::fs::read_to_string(file)
                    .map_err(|error| Failure::Failed(format!("{file}: {error}")))?,
                None => text.to_owned(),
            },
        };
        let json = |name: &str, text: &str| {
            serde_json::from_str::<Box<RawValue>>(text).map_err(|error| {
                Failure::Nonsense(format!(
                    "--{name}: no JSON: {error} (text must be in quotes: '\"text\"')"
                ))
            })
        };
        Ok(EventInput {
            id: Some(self.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string())),
            kind: kind.into(),
            data: Some(json("data", &data)?),
            metadata: self.metadata.as_deref().map(|text| json("metadata", text)).transpose()?,
            ..EventInput::default()
        })
    }

    /// Appends what comes, as it comes: what is there at once goes together.
    async fn append_lines(&self, client: &Client) -> Result<(), Failure> {
        let (sender, mut lines) = mpsc::channel::<Result<(usize, String), String>>(EVENTS_MAX);
        std::thread::spawn(move || {
            for (number, line) in std::io::stdin().lock().lines().enumerate() {
                let line = line.map(|line| (number + 1, line)).map_err(|error| error.to_string());
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        let mut expected = self.expected;
        while let Some(first) = lines.recv().await {
            let (mut events, mut bytes, mut next) = (Vec::new(), 0, Some(first));
            while let Some(line) = next {
                let (number, line) =
                    line.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
                bytes += line.len();
                if !line.trim().is_empty() {
                    events.push(parse(number, &line)?);
                }
                let full = events.len() == EVENTS_MAX || bytes >= BYTES_MAX;
                next = if full { None } else { lines.try_recv().ok() };
            }
            if !events.is_empty() {
                let last = self.append(client, &events, expected).await?;
                if expected != Expected::Any {
                    expected = Expected::Exactly(last);
                }
            }
        }
        Ok(())
    }

    /// Appends, and returns the last revision.
    async fn append(
        &self,
        client: &Client,
        events: &[EventInput],
        expected: Expected,
    ) -> Result<u64, Failure> {
        let call = call(&self.stream, events, expected)?;
        let answer = client.insist(&call, PATIENCE).await?.well()?;
        let document: Value = answer.json()?;
        if self.json {
            say(&document.to_string())?;
        } else {
            let of = |name: &str| document[name].as_u64().unwrap_or_default();
            let repeated = match document["repeated"].as_bool() {
                Some(true) => " (it was there already)",
                _ => "",
            };
            let (first, last) = (of("firstRevision"), of("lastRevision"));
            let which = match first == last {
                true => format!("revision {first}"),
                false => format!("revisions {first} to {last}"),
            };
            say(&format!("{}: {which}{repeated}", self.stream))?;
        }
        Ok(document["lastRevision"].as_u64().unwrap_or_default())
    }
}

fn parse(number: usize, line: &str) -> Result<EventInput, Failure> {
    let parsed = serde_json::from_str::<EventInput>(line);
    let mut event = parsed
        .map_err(|error| Failure::Nonsense(format!("standard input, line {number}: {error}")))?;
    event.id.get_or_insert_with(|| Uuid::new_v4().to_string());
    Ok(event)
}

/// The call of an append; its events must have ids, so that it can be sent again.
pub(super) fn call(
    stream: &str,
    events: &[EventInput],
    expected: Expected,
) -> Result<Call, Failure> {
    let body = serde_json::to_vec(events).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Call {
        method: Method::POST,
        path: format!("/streams/{}", escaped(stream)),
        headers: vec![("stormkeep-expected", expected_text(expected))],
        body: Bytes::from(body),
    })
}
