//! Consuming: a confirmation, then events for as long as the client takes them, while it says what became of them.
//!
//! One never ends well: clients take the end of a subscription for a fault, and the Rust client asks for the next
//! message for ever. So the end is always a status that says why.

use futures::{Stream, StreamExt, future, stream};
use stormkeep_core::{consume::Verdict, env::Env, group::GroupId};
use tonic::{Status, Streaming};

use super::{ask, invalid, refusal::Refusal};
use crate::{
    api::grpc::{
        deadline::Deadline,
        proto::event_store::client::{
            Uuid,
            persistent_subscriptions::{
                ReadReq, ReadResp,
                read_req::{self, nack::Action, options::uuid_option},
                read_resp,
            },
        },
        request::{self, Form},
        response,
        subscribe::until_failed,
        trouble::Trouble,
    },
    consumer::{Delivered, Ended, Said, consume},
    service::Service,
};

/// Begins to consume.
pub(super) async fn read<E: Env>(
    service: Service<E>,
    mut messages: Streaming<ReadReq>,
    deadline: Deadline,
) -> Result<impl Stream<Item = Result<ReadResp, Status>> + Send + 'static + use<E>, Status> {
    let first = tokio::time::timeout(deadline.left(), messages.message()).await;
    let first = first.map_err(|_| invalid(Deadline::trouble()))??;
    let Some(read_req::Content::Options(options)) = first.and_then(|first| first.content) else {
        return Err(invalid(Trouble::invalid("options", "must be the first message")));
    };
    let structured = options.uuid_option.as_ref().and_then(|option| option.content.as_ref());
    let structured = matches!(structured, Some(uuid_option::Content::Structured(_)));
    let form = Form { structured, positions: false };
    let slots = ask::slots(options.buffer_size).map_err(invalid)?;
    let id = ask::read_group(options).map_err(invalid)?;
    // A connection that breaks is one on which nothing more is said.
    let said = stream::unfold(messages, async |mut messages| {
        let message = messages.message().await.ok()??;
        Some((said(message), messages))
    });
    let told = consume(service, id.clone(), slots, said).await;
    let told = told.map_err(|ended| Refusal::from(ended).status(&id))?;
    let confirmed = stream::once(future::ready(Ok(confirmation(&id))));
    let name = id.clone();
    let told = told.map(move |told: Result<Delivered, Ended>| match told {
        Ok(delivered) => Ok(event(delivered, form)),
        Err(ended) => Err(Refusal::from(ended).status(&name)),
    });
    let over = stream::once(async move {
        deadline.over().await;
        Err(Refusal::Other(Deadline::trouble()).status(&id))
    });
    // Whichever comes first ends it.
    let told = stream::select_with_strategy(over, told, |_: &mut ()| stream::PollNext::Left);
    Ok(confirmed.chain(until_failed(told)))
}

/// What a message of the client says.
fn said(message: ReadReq) -> Result<Said, String> {
    let (ids, verdict) = match message.content {
        Some(read_req::Content::Ack(ack)) => (ids("ack.ids", ack.ids)?, Verdict::Ack),
        Some(read_req::Content::Nack(nack)) => {
            let reason = || match nack.reason.as_str() {
                "" => "the consumer gave no reason".to_owned(),
                reason => reason.to_owned(),
            };
            let verdict = match Action::try_from(nack.action) {
                Ok(Action::Unknown | Action::Retry) => Verdict::Retry(reason()),
                Ok(Action::Park) => Verdict::Park(reason()),
                Ok(Action::Skip) => Verdict::Skip,
                Ok(Action::Stop) => Verdict::Stop,
                Err(_) => return Err(format!("nack.action: {}: from 0 to 4", nack.action)),
            };
            (ids("nack.ids", nack.ids)?, verdict)
        }
        Some(read_req::Content::Options(_)) => {
            return Err("options: they were told already; behind them come acks and nacks".into());
        }
        None => return Err("content: missing or not known: an ack or a nack".into()),
    };
    Ok(Said { ids, verdict })
}

fn ids(field: &str, ids: Vec<Uuid>) -> Result<Vec<u128>, String> {
    let id = |(index, id): (usize, Uuid)| request::id(format_args!("{field}[{index}]"), Some(&id));
    let read: Result<Vec<u128>, Trouble> = ids.into_iter().enumerate().map(id).collect();
    read.map_err(|trouble| trouble.status("", "").message().to_owned())
}

/// The first thing that a consumer is told. The Python client takes the id apart, and wants to find its stream and group.
fn confirmation(id: &GroupId) -> ReadResp {
    let confirmation = read_resp::SubscriptionConfirmation { subscription_id: id.to_string() };
    let content = read_resp::Content::SubscriptionConfirmation(confirmation);
    ReadResp { content: Some(content) }
}

fn event(delivered: Delivered, form: Form) -> ReadResp {
    let Delivered { event: recorded, retries } = delivered;
    let at = recorded.position().0;
    let event = read_resp::read_event::RecordedEvent {
        id: Some(response::id(recorded.event.id.0, form)),
        stream_identifier: Some(response::identifier(&recorded.stream)),
        stream_revision: recorded.revision,
        prepare_position: at,
        commit_position: at,
        metadata: response::properties(&recorded),
        custom_metadata: recorded.event.metadata,
        data: recorded.event.data,
    };
    let read = read_resp::ReadEvent {
        event: Some(event),
        link: None,
        position: Some(read_resp::read_event::Position::CommitPosition(at)),
        count: Some(read_resp::read_event::Count::RetryCount(
            i32::try_from(retries).unwrap_or(i32::MAX),
        )),
    };
    ReadResp { content: Some(read_resp::Content::Event(read)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::grpc::proto::event_store::client::uuid;

    fn id(text: &str) -> Uuid {
        Uuid { value: Some(uuid::Value::String(text.into())) }
    }

    fn nack(action: i32, reason: &str) -> Result<Said, String> {
        let ids = vec![id("00000000-0000-0000-0000-000000000007")];
        let nack = read_req::Nack { ids, action, reason: reason.into(), ..Default::default() };
        said(ReadReq { content: Some(read_req::Content::Nack(nack)) })
    }

    #[test]
    fn every_answer_is_understood() {
        let verdict = |action: i32| nack(action, "why").unwrap().verdict;
        assert_eq!(verdict(0), Verdict::Retry("why".into()), "not known is tried again");
        assert_eq!(verdict(1), Verdict::Park("why".into()));
        assert_eq!(verdict(2), Verdict::Retry("why".into()));
        assert_eq!((verdict(3), verdict(4)), (Verdict::Skip, Verdict::Stop));
        let silent = nack(1, "").unwrap();
        assert_eq!(silent.verdict, Verdict::Park("the consumer gave no reason".into()));
        assert_eq!(silent.ids, [7]);
        assert_eq!(nack(5, "").unwrap_err(), "nack.action: 5: from 0 to 4");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let ack = read_req::Ack { ids: vec![id("7")], ..Default::default() };
        let error = said(ReadReq { content: Some(read_req::Content::Ack(ack)) }).unwrap_err();
        assert!(error.starts_with("ack.ids[0]: `7` is no UUID"), "{error}");
        let options = read_req::Content::Options(read_req::Options::default());
        assert!(said(ReadReq { content: Some(options) }).unwrap_err().starts_with("options: "));
        assert!(said(ReadReq { content: None }).unwrap_err().starts_with("content: "));
    }
}
