//! What the core needs of a network: see the contract at [`Network`](stormkeep_core::env::Network).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stormkeep_core::{
    append::{
        Append, AppendError, AppendId, Appended, Direction, Expected, Freshness, ReadStream,
        Request, Response, StreamSlice,
    },
    env::{CallError, Clock, Network, NodeId, Row, Store},
    event::{Event, EventId, Format, RecordedEvent},
    head::Head,
    limits::EVENT_BYTES_MAX,
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

use crate::family::{
    Family, PAUSE, Trouble, Verdict, broken, ensure, random, together, until_answered,
};

/// Long enough for whatever is possible.
const LONG: Duration = Duration::from_secs(10);

fn a_name<F: Family>(family: &F) -> StreamName {
    let name = format!("network-{:032x}", random(family));
    StreamName::new(name).unwrap_or_else(|error| panic!("{error}"))
}

fn append<F: Family>(family: &F, stream: &StreamName, data: Bytes) -> Append {
    let id = random(family);
    let (kind, format, metadata) = ("sent".into(), Format::Bytes, Bytes::new());
    let event = Event { id: EventId(id), kind, format, data, metadata };
    let (stream, id, events) = (stream.clone(), AppendId(id), [event].into());
    Append { stream, expected: Expected::Any, described: Expected::Any, id, events }
}

fn read(stream: &StreamName, freshness: Freshness) -> Request {
    let (stream, direction) = (stream.clone(), Direction::Forwards);
    Request::ReadStream(ReadStream { stream, from: 0, limit: 100, direction, freshness })
}

/// Appends at a peer, once it owns the shard.
async fn appended<F: Family>(family: &F, peer: NodeId, append: &Append) -> Verdict<Appended> {
    let deadline = family.clock().elapsed() + F::PATIENCE / 2;
    loop {
        match family.network().call(peer, Request::Append(append.clone()), LONG).await {
            Ok(Response::Append(Ok(appended))) => return Ok(appended),
            Ok(Response::Append(Err(error))) => {
                ensure!(family.clock().elapsed() < deadline, "an append is for ever {error}");
                let early = matches!(
                    error,
                    AppendError::NotOwner { .. }
                        | AppendError::Unavailable
                        | AppendError::Busy { .. }
                );
                ensure!(early || error == AppendError::Unknown, "an append is {error}");
            }
            Ok(other) => return broken(format!("an append was answered with {other:?}")),
            Err(error) => {
                ensure!(family.clock().elapsed() < deadline, "a call is for ever {error}");
            }
        }
        family.clock().sleep(PAUSE).await;
    }
}

/// A read at a peer.
async fn slice<F: Family>(family: &F, peer: NodeId, request: Request) -> Verdict<StreamSlice> {
    let deadline = family.clock().elapsed() + F::PATIENCE / 2;
    loop {
        match family.network().call(peer, request.clone(), LONG).await {
            Ok(Response::ReadStream(Ok(slice))) => return Ok(slice),
            Ok(Response::ReadStream(Err(error))) => {
                ensure!(family.clock().elapsed() < deadline, "a read is for ever {error}");
            }
            Ok(other) => return broken(format!("a read was answered with {other:?}")),
            Err(error) => {
                ensure!(family.clock().elapsed() < deadline, "a call is for ever {error}");
            }
        }
        family.clock().sleep(PAUSE).await;
    }
}

/// Many streams, read at once.
pub(crate) async fn answers<F: Family>(family: Arc<F>) -> Verdict {
    let peer = family.peer().await?;
    let done = together(&family, 30, |family, number| async move {
        let stream = a_name(&*family);
        let text = format!("{number}");
        let sent = append(&*family, &stream, text.clone().into());
        let event = RecordedEvent {
            stream: stream.clone(),
            revision: 0,
            shard: ShardId(number),
            time: HybridTime(family.clock().now().0),
            append: sent.id,
            event: sent.events[0].clone(),
        };
        let head = Head { revision: Some(0), ..Head::default() };
        let rows = vec![Row::Event(event), Row::Head(stream.clone(), head.into())];
        until_answered(&*family, "write", || family.store().write(&rows)).await?;
        for _ in 0..5 {
            let deadline = family.clock().elapsed() + F::PATIENCE / 2;
            // An eventual read may be behind, but it never shows another stream.
            loop {
                let slice = slice(&*family, peer, read(&stream, Freshness::Eventual)).await?;
                let own = slice.events.iter().all(|e| e.stream == stream && e.event.data == text);
                ensure!(own, "a read of {stream} was answered with {:?}", slice.events);
                if slice.events.len() == 1 {
                    break;
                }
                ensure!(family.clock().elapsed() < deadline, "the event is never seen");
                family.clock().sleep(PAUSE).await;
            }
        }
        Ok(())
    });
    done.await.map(drop)
}

/// The largest event there and back.
pub(crate) async fn largest<F: Family>(family: Arc<F>) -> Verdict {
    let peer = family.peer().await?;
    let stream = a_name(&*family);
    let data: Vec<u8> = (0..=255).cycle().take(EVENT_BYTES_MAX - 100).collect();
    let sent = append(&*family, &stream, data.clone().into());
    let answer = appended(&*family, peer, &sent).await?;
    ensure!((answer.first, answer.last) == (0, 0), "the first append is {answer:?}");
    let slice = slice(&*family, peer, read(&stream, Freshness::Strong)).await?;
    ensure!(slice.events.len() == 1, "{} events", slice.events.len());
    ensure!(slice.events[0].event == sent.events[0], "the event came back as another");
    Ok(())
}

/// A peer that is not there.
pub(crate) async fn refused<F: Family>(family: Arc<F>) -> Verdict {
    for _ in 0..5 {
        let request = read(&a_name(&*family), Freshness::Eventual);
        let answer = family.network().call(family.absent(), request, LONG).await;
        ensure!(answer == Err(CallError::Refused), "a peer that does not run answers {answer:?}");
    }
    Ok(())
}

/// A peer that says nothing.
pub(crate) async fn timeout<F: Family>(family: Arc<F>) -> Verdict {
    /// How much later than it was told to a caller may give up: its machine is busy, too.
    const LATE: Duration = Duration::from_millis(500);
    let peer = family.peer().await?;
    slice(&*family, peer, read(&a_name(&*family), Freshness::Eventual)).await?;
    family.make(Trouble::PeerIsSilent).await?;
    let calls = together(&family, 12, |family, number| async move {
        let timeout = Duration::from_millis(50 + u64::from(number) * 150);
        let began = family.clock().elapsed();
        let request = read(&a_name(&*family), Freshness::Eventual);
        let answer = family.network().call(peer, request, timeout).await;
        let took = family.clock().elapsed() - began;
        ensure!(answer == Err(CallError::Unknown), "a silent peer answers {answer:?}");
        // A timer may end a tick early.
        ensure!(took + Duration::from_millis(2) >= timeout, "{took:?} instead of {timeout:?}");
        ensure!(took <= timeout + LATE, "{took:?} instead of {timeout:?}");
        Ok(())
    });
    calls.await?;
    family.calm().await;
    slice(&*family, peer, read(&a_name(&*family), Freshness::Eventual)).await.map(drop)
}

/// An append whose answer is lost.
pub(crate) async fn unknown<F: Family>(family: Arc<F>) -> Verdict {
    let peer = family.peer().await?;
    let stream = a_name(&*family);
    let first = append(&*family, &stream, Bytes::from_static(b"first"));
    appended(&*family, peer, &first).await?;
    family.make(Trouble::PeerLosesAnswers).await?;
    let second = append(&*family, &stream, Bytes::from_static(b"second"));
    let answer = family.network().call(peer, Request::Append(second.clone()), LONG).await;
    ensure!(answer == Err(CallError::Unknown), "without its answer a call is {answer:?}");
    family.calm().await;
    let again = appended(&*family, peer, &second).await?;
    ensure!(again.repeated && again.first == 1, "it was done, and asked again it is {again:?}");
    let other = appended(&*family, peer, &append(&*family, &stream, Bytes::new())).await?;
    ensure!(other.first == 2, "behind it is {other:?}");
    Ok(())
}
