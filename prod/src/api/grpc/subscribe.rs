//! Subscriptions: a confirmation, then events, checkpoints, and whether they are caught up, for as long as the client
//! takes them.
//!
//! One never ends well: clients take the end of a subscription for a fault, and the Rust client asks for the next
//! message for ever. So the end is always a status that says why.

use futures::{Stream, StreamExt, future, stream};
use stormkeep_core::env::Env;
use tonic::Status;

use super::{
    deadline::Deadline,
    proto::event_store::client::streams::ReadResp,
    request::{Followed as Asked, Subscription},
    response,
    trouble::Trouble,
};
use crate::{
    follow::{FollowError, Followed},
    service::Service,
};

/// Begins a subscription.
pub(crate) fn subscribe<E: Env>(
    service: &Service<E>,
    subscription: Subscription,
    deadline: Deadline,
) -> impl Stream<Item = Result<ReadResp, Status>> + Send + 'static + use<E> {
    let form = subscription.form;
    let (name, followed) = match subscription.followed {
        Asked::Stream(stream, from) => {
            let followed = service.follow_stream(stream.clone(), from);
            (stream.as_str().to_owned(), followed.boxed())
        }
        Asked::All { from, filter, checkpoint_every } => {
            let followed = service.follow_all(from, filter, checkpoint_every);
            ("$all".to_owned(), followed.boxed())
        }
    };
    let told = move |told: Result<Followed, FollowError>| match told {
        Ok(told) => Ok(response::followed(told, form)),
        Err(error) => Err(Trouble::from(error).status("Subscription", &name)),
    };
    let over = stream::once(async move {
        deadline.over().await;
        Err(Deadline::trouble().status("Subscription", ""))
    });
    let id = uuid::Uuid::new_v4().to_string();
    let confirmed = stream::once(future::ready(Ok(response::confirmation(id))));
    // Whichever comes first ends it.
    let told =
        stream::select_with_strategy(over, followed.map(told), |_: &mut ()| stream::PollNext::Left);
    confirmed.chain(until_failed(told))
}

/// A stream up to its first error, which it has as well.
pub(super) fn until_failed<T: Send>(
    told: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send {
    told.scan(false, |failed, told| {
        let told = (!*failed).then_some(told);
        *failed = matches!(told, Some(Err(_)));
        future::ready(told)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_told_behind_an_error() {
        let told = [Ok(1), Ok(2), Err(Status::unavailable("closing")), Ok(3)];
        let told: Vec<_> = until_failed(stream::iter(told)).collect().await;
        assert_eq!(told.len(), 3);
        assert!(told[2].is_err());
    }
}
