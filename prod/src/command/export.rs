//! `stormkeep export`: everything, as JSON lines, in the order of all events.
//!
//! Every event that was ever committed is in it, those that are hidden by metadata or deletion too, metadata streams
//! and tombstones included; so a restore goes through the same history. The file is whole or not there.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use stormkeep_core::{
    append::{Direction, Freshness, ReadAll},
    time::GlobalPosition,
};
use tokio::time::Duration;

use super::{Failure, client::Server, line::EventLine, read::Page};
use crate::{api::http::event_json, disk, embedded::Machine, page::Pager};

/// Events of one page.
const PAGE_EVENTS: u64 = 1000;
/// How long one read of a stopped directory may take; the first waits until all shards are taken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Write all events as JSON lines, of a running server (--url) or of a stopped one's directory (--data)
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The data directory of a stopped server, which is read instead of --url
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// The file to write; - is the standard output
    #[arg(default_value = "-")]
    file: PathBuf,
}

impl ExportArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut out = Out::create(&self.file)?;
        let count = match &self.data {
            Some(data) => self.stopped(data, &mut out).await?,
            None => self.running(&mut out).await?,
        };
        out.finish()?;
        eprintln!("exported {count} events");
        Ok(())
    }

    async fn running(&self, out: &mut Out) -> Result<u64, Failure> {
        let client = self.server.client()?;
        let (mut from, mut count) = ("start".to_owned(), 0);
        // Never more than was asked for at first: a server that is written to has no end otherwise.
        loop {
            let path = format!("/all?limit={PAGE_EVENTS}&from={from}");
            let page = Page::get(&client, path).await?;
            let next = page.next();
            for event in page.events {
                count += 1;
                out.line(event)?;
            }
            match next {
                Some(next) => from = next,
                None => return Ok(count),
            }
        }
    }

    async fn stopped(&self, data: &Path, out: &mut Out) -> Result<u64, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        if !data.join("FORMAT").exists() {
            let what = format!("--data: {}: this is no data directory", data.display());
            return Err(Failure::Failed(what));
        }
        let machine = Machine::start(data, &disk::Options::default()).map_err(|e| failed(&e))?;
        let mut pager = Pager::default();
        let (mut from, mut count) = (GlobalPosition::START, 0);
        loop {
            let (direction, freshness) = (Direction::Forwards, Freshness::Strong);
            let read = ReadAll { from, limit: pager.limit(), direction, freshness };
            let slice = machine.service().read_all(read, READ_TIMEOUT).await;
            let slice = slice.map_err(|e| failed(&e))?;
            let bytes = slice.events.iter().map(|e| e.event.bytes()).sum();
            pager.read(bytes, slice.events.len());
            for event in &slice.events {
                count += 1;
                let json = event_json(event).map_err(|e| failed(&e))?;
                out.line(serde_json::from_str(&json).map_err(|e| failed(&e))?)?;
            }
            from = slice.next;
            if slice.next >= slice.watermark {
                break;
            }
        }
        machine.stop().await.map_err(|e| failed(&e))?;
        Ok(count)
    }
}

/// Where the lines go.
struct Out {
    writer: BufWriter<Box<dyn Write>>,
    /// The file that is written, and what it is called when it is whole.
    file: Option<(File, PathBuf, PathBuf)>,
}

impl Out {
    fn create(path: &Path) -> Result<Out, Failure> {
        if path == Path::new("-") {
            let writer = BufWriter::new(Box::new(io::stdout()) as Box<dyn Write>);
            return Ok(Out { writer, file: None });
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let wrong = |error| Failure::of_file(&part, &error);
        let file = File::create(&part).map_err(wrong)?;
        let writing = file.try_clone().map_err(wrong)?;
        let writer = BufWriter::new(Box::new(writing) as Box<dyn Write>);
        Ok(Out { writer, file: Some((file, part, path.to_owned())) })
    }

    fn line(&mut self, event: EventLine) -> Result<(), Failure> {
        let line = event.exact().map_err(|error| Failure::Failed(error.to_string()))?;
        writeln!(self.writer, "{line}").map_err(|error| Failure::of_output(&error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::of_output(&error))?;
        let Some((file, part, path)) = self.file else { return Ok(()) };
        file.sync_all().map_err(|error| Failure::of_file(&part, &error))?;
        fs::rename(&part, &path).map_err(|error| Failure::of_file(&path, &error))
    }
}
