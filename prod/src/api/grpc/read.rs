//! Reads and subscriptions: answers that are pulled by the client's reading of them.

use std::{collections::VecDeque, time::Duration};

use futures::{Stream, StreamExt, stream};
use stormkeep_core::{
    append::{Direction, Freshness, ReadAll, ReadStream},
    env::Env,
    event::RecordedEvent,
    stream::StreamName,
    time::GlobalPosition,
};
use tonic::Status;
use uuid::Uuid;

use super::{message, status};
use crate::{
    api::proto::{
        shared::AllStreamPosition,
        streams::{
            ReadReq,
            read_req::{
                Options,
                options::{
                    CountOption, FilterOption, FilterOptions, StreamOption, all_options::AllOption,
                    filter_options, stream_options::RevisionOption, uuid_option,
                },
            },
            read_resp::{
                self, CaughtUp, Checkpoint, Content, FellBehind, StreamNotFound,
                SubscriptionConfirmation,
            },
        },
    },
    filter::Filter,
    follow::{FollowError, Followed, From},
    page::Pager,
    service::Service,
};

/// Events that a filter may pass over before it tells how far it is, if its client gives no window.
const WINDOW_EVENTS: u64 = 32;

/// What a client wants to read.
pub(super) struct Asked {
    what: What,
    backwards: bool,
    /// `None`: follow.
    count: Option<u64>,
    filter: Option<(Filter, u64)>,
    structured_ids: bool,
    /// Tell the first and last positions.
    positions: bool,
}

enum What {
    Stream(StreamName, Begin<u64>),
    All(Begin<GlobalPosition>),
}

#[derive(Debug, Clone, Copy)]
enum Begin<T> {
    Start,
    End,
    At(T),
}

type Answer = Result<Content, Status>;

impl Asked {
    pub(super) fn new(request: ReadReq) -> Result<Asked, Status> {
        let missing = |field: &str| Status::invalid_argument(format!("options.{field} is missing"));
        let options =
            request.options.ok_or_else(|| Status::invalid_argument("options is missing"))?;
        let Options { stream_option, read_direction, count_option, .. } = options;
        let what = match stream_option.ok_or_else(|| missing("stream_option"))? {
            StreamOption::Stream(stream) => {
                let name = message::stream_name(stream.stream_identifier)?;
                let start = match stream.revision_option {
                    Some(RevisionOption::Revision(revision)) => Begin::At(revision),
                    Some(RevisionOption::Start(_)) => Begin::Start,
                    Some(RevisionOption::End(_)) => Begin::End,
                    None => return Err(missing("stream.revision_option")),
                };
                What::Stream(name, start)
            }
            StreamOption::All(all) => What::All(match all.all_option {
                Some(AllOption::Position(position)) => {
                    let position = position.commit_position.min(GlobalPosition::END.0);
                    Begin::At(GlobalPosition(position))
                }
                Some(AllOption::Start(_)) => Begin::Start,
                Some(AllOption::End(_)) => Begin::End,
                None => return Err(missing("all.all_option")),
            }),
        };
        let count = match count_option.ok_or_else(|| missing("count_option"))? {
            CountOption::Count(count) => Some(count),
            CountOption::Subscription(_) => None,
        };
        let filter = match options.filter_option {
            Some(FilterOption::Filter(filter)) => Some(filtered(filter)?),
            Some(FilterOption::NoFilter(_)) | None => None,
        };
        let uuids = options.uuid_option.and_then(|option| option.content);
        Ok(Asked {
            what,
            backwards: match read_direction {
                0 => false,
                1 => true,
                other => {
                    let message =
                        format!("options.read_direction: {other}; 0 is forwards, 1 backwards");
                    return Err(Status::invalid_argument(message));
                }
            },
            count,
            filter,
            structured_ids: matches!(uuids, Some(uuid_option::Content::Structured(_))),
            positions: options.control_option.is_some_and(|c| c.compatibility >= 1),
        })
    }

    /// Begins to answer.
    pub(super) async fn answers<E: Env>(
        self,
        service: Service<E>,
        timeout: Duration,
    ) -> Result<futures::stream::BoxStream<'static, Answer>, Status> {
        match (self.count, &self.what) {
            (None, _) => Ok(self.follow(&service).boxed()),
            (Some(_), What::Stream(..)) => self.stream(service, timeout).await,
            (Some(_), What::All(_)) => self.all(service, timeout).await,
        }
    }

    async fn stream<E: Env>(
        self,
        service: Service<E>,
        timeout: Duration,
    ) -> Result<futures::stream::BoxStream<'static, Answer>, Status> {
        let What::Stream(name, start) = &self.what else {
            return Err(Status::internal("a stream was to be read"));
        };
        let direction = if self.backwards { Direction::Backwards } else { Direction::Forwards };
        let from = match start {
            Begin::Start => 0,
            Begin::End => u64::MAX,
            Begin::At(revision) => *revision,
        };
        let mut reader = StreamReader {
            service,
            name: name.clone(),
            next: Some(from),
            left: self.count.unwrap_or(0),
            direction,
            pager: Pager::default(),
            timeout,
            structured_ids: self.structured_ids,
            told: VecDeque::new(),
        };
        // The first page decides whether there is a stream at all.
        let slice = reader.page().await?;
        if slice.tombstoned {
            return Err(status::deleted(name));
        }
        if !slice.exists {
            let not_found = StreamNotFound { stream_identifier: Some(message::identifier(name)) };
            let answer = Ok(Content::StreamNotFound(not_found));
            return Ok(stream::once(std::future::ready(answer)).boxed());
        }
        if self.positions {
            reader.told.push_front(Content::FirstStreamPosition(slice.first_shown));
            let last = slice.head.unwrap_or(0);
            let last = stream::once(std::future::ready(Ok(Content::LastStreamPosition(last))));
            return Ok(stream::unfold(reader, StreamReader::next).chain(last).boxed());
        }
        Ok(stream::unfold(reader, StreamReader::next).boxed())
    }

    async fn all<E: Env>(
        self,
        service: Service<E>,
        timeout: Duration,
    ) -> Result<futures::stream::BoxStream<'static, Answer>, Status> {
        let What::All(start) = &self.what else {
            return Err(Status::internal("all streams were to be read"));
        };
        let from = match start {
            Begin::Start => GlobalPosition::START,
            Begin::End => GlobalPosition::END,
            Begin::At(position) => *position,
        };
        let mut reader = AllReader {
            service,
            next: Some(from),
            left: self.count.unwrap_or(0),
            direction: if self.backwards { Direction::Backwards } else { Direction::Forwards },
            pager: Pager::default(),
            timeout,
            filter: self.filter.map(|(filter, _)| filter),
            structured_ids: self.structured_ids,
            freshness: Freshness::Strong,
            last: None,
            told: VecDeque::new(),
        };
        reader.page().await?;
        let positions = self.positions;
        let answers = stream::unfold((reader, false), move |(mut reader, done)| async move {
            if done {
                return None;
            }
            if let Some(answer) = reader.answer().await {
                return Some((answer, (reader, false)));
            }
            let last = reader.last.filter(|_| positions)?;
            let last = AllStreamPosition { commit_position: last.0, prepare_position: last.0 };
            Some((Ok(Content::LastAllStreamPosition(last)), (reader, true)))
        });
        Ok(answers.boxed())
    }

    fn follow<E: Env>(
        self,
        service: &Service<E>,
    ) -> impl Stream<Item = Answer> + Send + 'static + use<E> {
        let confirmation = SubscriptionConfirmation { subscription_id: Uuid::new_v4().to_string() };
        let confirmation = Ok(Content::Confirmation(confirmation));
        let structured = self.structured_ids;
        let (name, followed) = match self.what {
            What::Stream(name, start) => {
                let from = follow_from(start);
                (Some(name.clone()), service.follow_stream(name, from).boxed())
            }
            What::All(start) => {
                let (filter, every) = self.filter.unzip();
                let from = follow_from(start);
                (None, service.follow_all(from, filter, every.unwrap_or(0)).boxed())
            }
        };
        let answers = followed.map(move |told| told_as(told, name.as_ref(), structured));
        stream::once(std::future::ready(confirmation)).chain(answers)
    }
}

fn follow_from<T>(start: Begin<T>) -> From<T> {
    match start {
        Begin::Start => From::Start,
        Begin::End => From::End,
        // A subscription begins behind the position that it names.
        Begin::At(at) => From::After(at),
    }
}

fn filtered(options: FilterOptions) -> Result<(Filter, u64), Status> {
    use filter_options::{Expression, Filter as On};
    let wrong = |error: crate::filter::FilterError| {
        Status::invalid_argument(format!("options.filter: {error}"))
    };
    let filter = match options.filter {
        Some(On::StreamIdentifier(Expression { regex, prefix })) if regex.is_empty() => {
            Filter::stream_prefixes(prefix).map_err(wrong)?
        }
        Some(On::StreamIdentifier(expression)) => {
            Filter::stream_regex(&expression.regex).map_err(wrong)?
        }
        Some(On::EventType(Expression { regex, prefix })) if regex.is_empty() => {
            Filter::event_type_prefixes(prefix).map_err(wrong)?
        }
        Some(On::EventType(expression)) => {
            Filter::event_type_regex(&expression.regex).map_err(wrong)?
        }
        None => return Err(Status::invalid_argument("options.filter.filter is missing")),
    };
    let window = match options.window {
        Some(filter_options::Window::Max(max)) => u64::from(max.max(1)),
        Some(filter_options::Window::Count(_)) | None => WINDOW_EVENTS,
    };
    let multiplier = u64::from(options.checkpoint_interval_multiplier.max(1));
    Ok((filter, window * multiplier))
}

/// What a follower is told, in the words of the protocol.
fn told_as(
    told: Result<Followed, FollowError>,
    stream: Option<&StreamName>,
    structured: bool,
) -> Answer {
    let timestamp = Some(message::timestamp());
    let revision_of = |revision: Option<u64>| revision.and_then(|r| i64::try_from(r).ok());
    let position_of = |position: GlobalPosition| read_resp::Position {
        commit_position: position.0,
        prepare_position: position.0,
    };
    Ok(match told.map_err(|error| status::follow(stream, &error))? {
        Followed::Event(event) => Content::Event(message::recorded(&event, structured)),
        Followed::Checkpoint(position) => Content::Checkpoint(Checkpoint {
            commit_position: position.0,
            prepare_position: position.0,
            timestamp,
        }),
        Followed::CaughtUp { revision, position } => Content::CaughtUp(CaughtUp {
            timestamp,
            stream_revision: revision_of(revision),
            position: position.map(position_of),
        }),
        Followed::FellBehind { revision, position } => Content::FellBehind(FellBehind {
            timestamp,
            stream_revision: revision_of(revision),
            position: position.map(position_of),
        }),
    })
}

/// A read of one stream, a page at a time.
struct StreamReader<E: Env> {
    service: Service<E>,
    name: StreamName,
    /// `None`: there is no more.
    next: Option<u64>,
    /// Events that may still be told.
    left: u64,
    direction: Direction,
    pager: Pager,
    timeout: Duration,
    structured_ids: bool,
    told: VecDeque<Content>,
}

impl<E: Env> StreamReader<E> {
    async fn page(&mut self) -> Result<stormkeep_core::append::StreamSlice, Status> {
        let limit = u64::from(self.pager.limit()).min(self.left) as u32;
        let read = ReadStream {
            stream: self.name.clone(),
            from: self.next.unwrap_or(0),
            limit,
            direction: self.direction,
            freshness: Freshness::Strong,
        };
        let slice = self.service.read_stream(read, self.timeout).await;
        let mut slice = slice.map_err(|error| status::read(&error))?;
        self.pager.read(bytes_of(&slice.events), slice.events.len());
        self.left -= slice.events.len() as u64;
        self.next = slice.next.filter(|_| self.left > 0);
        let structured = self.structured_ids;
        let events = std::mem::take(&mut slice.events);
        self.told.extend(events.iter().map(|e| Content::Event(message::recorded(e, structured))));
        Ok(slice)
    }

    async fn next(mut self) -> Option<(Answer, Self)> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some((Ok(told), self));
            }
            self.next?;
            if let Err(error) = self.page().await {
                self.next = None;
                return Some((Err(error), self));
            }
        }
    }
}

/// A read of all streams, a page at a time.
struct AllReader<E: Env> {
    service: Service<E>,
    next: Option<GlobalPosition>,
    left: u64,
    direction: Direction,
    pager: Pager,
    timeout: Duration,
    filter: Option<Filter>,
    structured_ids: bool,
    /// The first page waits for what was answered before; the others go on from there.
    freshness: Freshness,
    last: Option<GlobalPosition>,
    told: VecDeque<Content>,
}

impl<E: Env> AllReader<E> {
    async fn page(&mut self) -> Result<(), Status> {
        let from = self.next.unwrap_or(GlobalPosition::START);
        let (direction, freshness) = (self.direction, self.freshness);
        // With a filter, more must be read than is told.
        let limit = match &self.filter {
            Some(_) => self.pager.limit(),
            None => u64::from(self.pager.limit()).min(self.left) as u32,
        };
        let read = ReadAll { from, limit, direction, freshness };
        let slice = self.service.read_all(read, self.timeout).await;
        let slice = slice.map_err(|error| status::read(&error))?;
        self.freshness = Freshness::Eventual;
        self.last = Some(GlobalPosition(slice.watermark.0.saturating_sub(1)));
        self.pager.read(bytes_of(&slice.events), slice.events.len());
        let filter = self.filter.as_ref();
        let wanted = slice.events.iter().filter(|e| filter.is_none_or(|f| f.matches(e)));
        for event in wanted.take(usize::try_from(self.left).unwrap_or(usize::MAX)) {
            self.left -= 1;
            self.told.push_back(Content::Event(message::recorded(event, self.structured_ids)));
        }
        let more = match self.direction {
            Direction::Forwards => slice.next < slice.watermark,
            Direction::Backwards => slice.next > GlobalPosition::START,
        };
        self.next = (more && self.left > 0).then_some(slice.next);
        Ok(())
    }

    async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(Ok(told));
            }
            self.next?;
            if let Err(error) = self.page().await {
                self.next = None;
                return Some(Err(error));
            }
        }
    }
}

fn bytes_of(events: &[RecordedEvent]) -> usize {
    events.iter().map(|e| e.event.bytes()).sum()
}
