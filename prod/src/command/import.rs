//! `stormkeep import`: appends what an export wrote, at the revisions that it had.
//!
//! It may be run again, on the same server or after it broke off: an event is appended only where its revision comes
//! next, and one that is there already is compared by its id. Streams, revisions, ids, types, payloads and metadata are kept.
//! Positions, and the time at which an event was created, are the server's to give: they are new, and `$maxAge`
//! counts from the import.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::StatusCode;
use serde_json::Value;
use stormkeep_core::append::Expected;

use super::{
    Failure, append,
    client::{Call, Client, Server, escaped},
    line::EventLine,
    read::Page,
};
use crate::api::http::EventInput;

/// Events of one append at the most.
const EVENTS_MAX: usize = 500;
/// Bytes of lines of one append at which it ends.
const BYTES_MAX: usize = 256 * 1024;
/// How long a server that is busy or away is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Append the events of an export at the revisions that they had; it may be run again. Their times are new
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    server: Server,
    /// The file to read; - is the standard input
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Events of one stream, one behind the other.
struct Group {
    stream: String,
    first: u64,
    /// Number of the first line.
    line: usize,
    bytes: usize,
    events: Vec<EventInput>,
}

#[derive(Default)]
struct Done {
    appended: u64,
    there: u64,
    /// There already, as far as can be told: hidden ones cannot be compared.
    hidden: u64,
}

impl ImportArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.server.client()?;
        let reader: Box<dyn BufRead> = match self.file == Path::new("-") {
            true => Box::new(BufReader::new(io::stdin())),
            false => Box::new(BufReader::new(
                File::open(&self.file).map_err(|error| Failure::of_file(&self.file, &error))?,
            )),
        };
        let mut done = Done::default();
        let mut group: Option<Group> = None;
        for (index, line) in reader.lines().enumerate() {
            let line = line.map_err(|error| Failure::of_file(&self.file, &error))?;
            if line.trim().is_empty() {
                continue;
            }
            let event: EventLine = serde_json::from_str(&line).map_err(|error| {
                let (file, line) = (self.file.display(), index + 1);
                Failure::Nonsense(format!("{file}:{line}: no line of an export: {error}"))
            })?;
            let fits = group.as_ref().is_some_and(|group| group.takes(&event));
            if !fits && let Some(full) = group.take() {
                full.import(&client, &mut done).await?;
            }
            let at = || Group::begin(&event.stream, event.revision, index + 1);
            let group = group.get_or_insert_with(at);
            group.bytes += line.len();
            group.events.push(event.into_input());
        }
        if let Some(group) = group {
            group.import(&client, &mut done).await?;
        }
        eprint!("imported {} events; {} were there already", done.appended, done.there);
        match done.hidden {
            0 => eprintln!(),
            n => eprintln!(", {n} of them hidden, and so not compared"),
        }
        Ok(())
    }
}

impl Group {
    fn begin(stream: &str, first: u64, line: usize) -> Self {
        Group { stream: stream.into(), first, line, bytes: 0, events: Vec::new() }
    }

    fn takes(&self, event: &EventLine) -> bool {
        let next = self.first + self.events.len() as u64;
        let fits = self.events.len() < EVENTS_MAX && self.bytes < BYTES_MAX;
        self.stream == event.stream && next == event.revision && fits
    }

    async fn import(mut self, client: &Client, done: &mut Done) -> Result<(), Failure> {
        if self.first == 0 {
            // A deleted stream counts as none, and yet its revisions go on: it is not the beginning that comes next.
            self.skip_deleted(client, done).await?;
        }
        while !self.events.is_empty() {
            let expected = match self.first.checked_sub(1) {
                Some(before) => Expected::Exactly(before),
                None => Expected::NoStream,
            };
            let call = append::call(&self.stream, &self.events, expected)?;
            let answer = client.insist(&call, PATIENCE).await?;
            let count = self.events.len() as u64;
            let there = match answer.status {
                StatusCode::CREATED => {
                    let document: Value = answer.json()?;
                    if document["firstRevision"].as_u64() != Some(self.first) {
                        let what = "it was appended at another revision, since somebody else appended meanwhile: import into a server that nobody writes to";
                        return Err(self.failed(what));
                    }
                    match document["repeated"].as_bool() {
                        Some(true) => done.there += count,
                        _ => done.appended += count,
                    }
                    return Ok(());
                }
                // Nothing can be read of it any more.
                StatusCode::GONE => {
                    done.there += count;
                    done.hidden += count;
                    return Ok(());
                }
                StatusCode::CONFLICT => {
                    let problem: Value = answer.json()?;
                    let actual = problem["actual"].as_u64().filter(|actual| *actual >= self.first);
                    let actual = actual.ok_or_else(|| self.failed(&answer.detail()))?;
                    usize::try_from(actual - self.first + 1).unwrap_or(usize::MAX)
                }
                _ => return Err(self.failed(&answer.detail())),
            };
            self.skip(client, there, done).await?;
        }
        Ok(())
    }

    /// Leaves out what a deleted stream has already.
    async fn skip_deleted(&mut self, client: &Client, done: &mut Done) -> Result<(), Failure> {
        let path =
            format!("/streams/{}?from=end&direction=backwards&limit=1", escaped(&self.stream));
        let answer = client.insist(&Call::get(path), PATIENCE).await?;
        if answer.status != StatusCode::NOT_FOUND {
            return Ok(());
        }
        let problem: Value = answer.json()?;
        match problem["lastRevision"].as_u64() {
            Some(last) => {
                self.skip(client, usize::try_from(last + 1).unwrap_or(usize::MAX), done).await
            }
            None => Ok(()),
        }
    }

    /// Leaves out the first `count` events, which must be in the stream already.
    async fn skip(
        &mut self,
        client: &Client,
        count: usize,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let count = count.min(self.events.len());
        self.compare(client, count, done).await?;
        self.events.drain(..count);
        self.first += count as u64;
        self.line += count;
        Ok(())
    }

    /// Compares the first `count` events with those of the stream.
    async fn compare(&self, client: &Client, count: usize, done: &mut Done) -> Result<(), Failure> {
        let behind = self.first + count as u64;
        done.there += count as u64;
        let (mut from, mut seen) = (self.first, 0);
        while from < behind {
            let limit = behind - from;
            let path = format!("/streams/{}?from={from}&limit={limit}", escaped(&self.stream));
            let answer = client.insist(&Call::get(path), PATIENCE).await?;
            if answer.status == StatusCode::NOT_FOUND || answer.status == StatusCode::GONE {
                break;
            }
            let page: Page = answer.well()?.json()?;
            for event in page.events.iter().filter(|event| event.revision < behind) {
                seen += 1;
                let place = usize::try_from(event.revision - self.first).unwrap_or(usize::MAX);
                let ours = self.events.get(place).and_then(|e| e.id.as_deref());
                if ours != Some(event.id.as_str()) {
                    let what = format!(
                        "the server has another event there, {}: import into an empty directory",
                        event.id
                    );
                    return Err(self.failed_at(place, &what));
                }
            }
            match page.next().and_then(|next| next.parse().ok()) {
                Some(next) => from = next,
                None => break,
            }
        }
        done.hidden += (count as u64).saturating_sub(seen);
        Ok(())
    }

    fn failed(&self, what: &str) -> Failure {
        self.failed_at(0, what)
    }

    fn failed_at(&self, place: usize, what: &str) -> Failure {
        let (line, revision) = (self.line + place, self.first + place as u64);
        Failure::Failed(format!("line {line}, {}@{revision}: {what}", self.stream))
    }
}
