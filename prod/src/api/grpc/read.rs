//! Reads that end: pages are read as the client takes them, and what is told ends where the stream, or the order of
//! all events, ended when the read began.

use futures::{Stream, stream};
use stormkeep_core::{
    append::{Direction, Freshness, ReadAll, ReadStream},
    env::Env,
    event::RecordedEvent,
    stream::StreamName,
    time::GlobalPosition,
};
use tonic::Status;

use super::{
    deadline::Deadline,
    proto::event_store::client::streams::ReadResp,
    request::{Form, Read, Source},
    response,
    trouble::Trouble,
};
use crate::{filter::Filter, page::Pager, service::Service};

/// Where a read is.
struct Reader<E: Env> {
    service: Service<E>,
    deadline: Deadline,
    form: Form,
    direction: Direction,
    pager: Pager,
    /// Events that may still be told.
    left: u64,
    place: Place,
    /// Told before the events of this page.
    before: Option<ReadResp>,
    events: std::vec::IntoIter<RecordedEvent>,
    /// Told when all is told.
    after: Option<ReadResp>,
    ended: bool,
}

enum Place {
    Stream {
        stream: StreamName,
        from: u64,
        /// The last revision when the read began; `None`: it has not begun.
        until: Option<u64>,
    },
    All {
        from: GlobalPosition,
        filter: Option<Filter>,
        /// The watermark when the read began.
        until: Option<GlobalPosition>,
    },
}

/// Begins a read: its first page is read, so that a stream that was ended for ever is an error at once.
pub(crate) async fn read<E: Env>(
    service: Service<E>,
    read: Read,
    deadline: Deadline,
) -> Result<impl Stream<Item = Result<ReadResp, Status>> + Send + 'static + use<E>, Status> {
    let place = match read.source {
        Source::Stream { stream, from } => Place::Stream { stream, from, until: None },
        Source::All { from, filter } => Place::All { from, filter, until: None },
    };
    let mut reader = Reader {
        service,
        deadline,
        form: read.form,
        direction: read.direction,
        pager: Pager::default(),
        left: read.count,
        place,
        before: None,
        events: Vec::new().into_iter(),
        after: None,
        ended: false,
    };
    reader.page().await.map_err(|trouble| reader.status(trouble))?;
    Ok(stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        match reader.next().await {
            Ok(told) => Some((Ok(told?), Some(reader))),
            Err(trouble) => Some((Err(reader.status(trouble)), None)),
        }
    }))
}

impl<E: Env> Reader<E> {
    fn status(&self, trouble: Trouble) -> Status {
        let stream = match &self.place {
            Place::Stream { stream, .. } => stream.as_str(),
            Place::All { .. } => "$all",
        };
        trouble.after(self.deadline).status("Read", stream)
    }

    async fn next(&mut self) -> Result<Option<ReadResp>, Trouble> {
        loop {
            if let Some(told) = self.before.take() {
                return Ok(Some(told));
            }
            if let Some(event) = self.events.next() {
                return Ok(Some(response::event(event, self.form)));
            }
            if self.ended {
                return Ok(self.after.take());
            }
            if self.deadline.is_over() {
                return Err(Deadline::trouble());
            }
            self.page().await?;
        }
    }

    async fn page(&mut self) -> Result<(), Trouble> {
        match self.place {
            Place::Stream { .. } => self.page_of_stream().await,
            Place::All { .. } => self.page_of_all().await,
        }
    }

    /// How many events to ask for.
    fn limit(&self) -> u32 {
        u32::try_from(self.left).unwrap_or(u32::MAX).min(self.pager.limit())
    }

    async fn page_of_stream(&mut self) -> Result<(), Trouble> {
        let (limit, direction, timeout) = (self.limit(), self.direction, self.deadline.left());
        let Place::Stream { stream, from, until } = &mut self.place else { return Ok(()) };
        let read = ReadStream {
            stream: stream.clone(),
            from: *from,
            limit,
            direction,
            freshness: Freshness::Strong,
        };
        let mut slice = self.service.read_stream(read, timeout).await?;
        if slice.tombstoned {
            return Err(Trouble::Deleted);
        }
        let last = match (*until, slice.head) {
            (None, Some(last)) if slice.exists => {
                if self.form.positions
                    && direction == Direction::Forwards
                    && *from < slice.first_shown
                {
                    self.before = Some(response::first_position(slice.first_shown));
                }
                *until = Some(last);
                last
            }
            (None, _) => {
                self.before = Some(response::not_found(stream));
                self.ended = true;
                return Ok(());
            }
            (Some(last), _) => last,
        };
        if direction == Direction::Forwards {
            slice.events.retain(|event| event.revision <= last);
        }
        self.left = self.left.saturating_sub(slice.events.len() as u64);
        self.pager.read(slice.events.iter().map(|e| e.event.bytes()).sum(), slice.events.len());
        match slice.next {
            Some(next) if self.left > 0 && (direction == Direction::Backwards || next <= last) => {
                *from = next;
            }
            _ => {
                self.ended = true;
                self.after = self.form.positions.then(|| response::last_position(last));
            }
        }
        self.events = slice.events.into_iter();
        Ok(())
    }

    async fn page_of_all(&mut self) -> Result<(), Trouble> {
        // With a filter, more are looked at than are told.
        let filtered = matches!(&self.place, Place::All { filter: Some(_), .. });
        let limit = if filtered && self.left > 0 { self.pager.limit() } else { self.limit() };
        let (direction, timeout) = (self.direction, self.deadline.left());
        let Place::All { from, filter, until } = &mut self.place else { return Ok(()) };
        let read = ReadAll { from: *from, limit, direction, freshness: Freshness::Strong };
        let mut slice = self.service.read_all(read, timeout).await?;
        let end = *until.get_or_insert(slice.watermark);
        self.pager.read(slice.events.iter().map(|e| e.event.bytes()).sum(), slice.events.len());
        if direction == Direction::Forwards {
            slice.events.retain(|event| event.position() < end);
        }
        if let Some(filter) = filter {
            slice.events.retain(|event| filter.matches(event));
        }
        slice.events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= slice.events.len() as u64;
        self.ended = self.left == 0
            || match direction {
                Direction::Forwards => slice.next >= end,
                Direction::Backwards => slice.next == GlobalPosition::START,
            };
        *from = slice.next;
        self.events = slice.events.into_iter();
        Ok(())
    }
}
