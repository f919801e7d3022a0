//! Persistent subscriptions, which are groups here: managing and consuming them.
//!
//! What differs from the server that the protocol comes from:
//! - **Order is kept.** Events of a stream are with one consumer at a time, and one that failed holds up those behind it in its
//!   stream until it succeeds or is parked; other streams go on. See [`ask`] for what that means for a consumer's buffer.
//! - A group goes on where it is when it is updated, wherever the update says to begin, and its consumers stay connected.
//! - `$ce-CATEGORY` and `$et-EVENTTYPE` give the events themselves, not links; so do replays of what was parked.
//! - Of the two buffers there is one, as large as the larger. `PinnedByCorrelation` is not there.
//! - What a stream's metadata hides from its readers, and what was in a deleted stream, is given all the same.
//! - A failed event waits before it is given again, each time longer.
//! - What is live is told by GetInfo, and not by List. Rates are not measured.
//! - There is no subsystem that could be restarted: RestartSubsystem does nothing, and says that it is done.

use std::pin::Pin;

use futures::Stream;
use stormkeep_core::{
    consume::{Manage, ManageError},
    env::Env,
    group::{GroupId, Source},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    deadline::Deadline,
    proto::event_store::client::{
        Empty,
        persistent_subscriptions::{
            CreateReq, CreateResp, DeleteReq, DeleteResp, GetInfoReq, GetInfoResp, ListReq,
            ListResp, ReadReq, ReadResp, ReplayParkedReq, ReplayParkedResp, UpdateReq, UpdateResp,
            persistent_subscriptions_server as server,
        },
    },
    trouble::Trouble,
};
use crate::service::Service;

mod ask;
mod info;
mod read;
mod refusal;

use refusal::Refusal;

/// See the module's docs.
pub(crate) struct Persistent<E: Env> {
    service: Service<E>,
}

impl<E: Env> Persistent<E> {
    pub(crate) fn new(service: Service<E>) -> Self {
        Persistent { service }
    }

    async fn manage(&self, id: &GroupId, manage: Manage, deadline: Deadline) -> Result<(), Status> {
        let managed = self.service.manage(manage, deadline.left()).await;
        managed.map(drop).map_err(|error| Refusal::from(error).status(id))
    }
}

/// What is sent to a client piece by piece.
type Told = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

fn invalid(trouble: Trouble) -> Status {
    trouble.status("", "")
}

fn missing() -> Status {
    invalid(Trouble::invalid("options", "missing"))
}

#[tonic::async_trait]
impl<E: Env> server::PersistentSubscriptions for Persistent<E> {
    type ReadStream = Told;

    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let new = ask::new_group(options).map_err(invalid)?;
        let id = new.id.clone();
        self.manage(&id, Manage::Create(new), deadline).await?;
        Ok(Response::new(CreateResp {}))
    }

    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let (id, asked) = ask::updated_group(options).map_err(invalid)?;
        let group = self.service.group(&id, deadline.left()).await;
        let group = group.map_err(|error| Refusal::from(error).status(&id))?;
        let settings = ask::settings(asked, &group.settings).map_err(invalid)?;
        let update = Manage::Update { id: id.clone(), settings, target: group.target };
        self.manage(&id, update, deadline).await?;
        Ok(Response::new(UpdateResp {}))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let id = ask::deleted_group(options).map_err(invalid)?;
        self.manage(&id, Manage::Delete(id.clone()), deadline).await?;
        Ok(Response::new(DeleteResp {}))
    }

    async fn read(&self, request: Request<Streaming<ReadReq>>) -> Result<Response<Told>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let told = read::read(self.service.clone(), request.into_inner(), deadline).await?;
        Ok(Response::new(Box::pin(told)))
    }

    async fn get_info(
        &self,
        request: Request<GetInfoReq>,
    ) -> Result<Response<GetInfoResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let id = ask::asked_group(options).map_err(invalid)?;
        let found = self.service.group_info(id.clone(), deadline.left()).await;
        let found = found.map_err(|error| Refusal::from(error).status(&id))?;
        Ok(Response::new(GetInfoResp { subscription_info: Some(info::live(&found)) }))
    }

    async fn replay_parked(
        &self,
        request: Request<ReplayParkedReq>,
    ) -> Result<Response<ReplayParkedResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let (id, stop_at) = ask::replayed_group(options).map_err(invalid)?;
        self.manage(&id, Manage::Replay { id: id.clone(), stop_at }, deadline).await?;
        Ok(Response::new(ReplayParkedResp {}))
    }

    async fn list(&self, request: Request<ListReq>) -> Result<Response<ListResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options.ok_or_else(missing)?;
        let source = ask::listed_source(options).map_err(invalid)?;
        // Only to say which.
        let any = GroupId { source: source.clone().unwrap_or(Source::All), name: "".into() };
        let groups = self.service.groups(deadline.left()).await;
        let mut groups = groups.map_err(|error| Refusal::from(error).status(&any))?;
        if let Some(source) = source {
            groups.retain(|group| group.id.source == source);
            if groups.is_empty() {
                let none = ManageError::NoSuchGroup(any.to_string());
                return Err(Refusal::from(none).status(&any));
            }
        }
        let subscriptions = groups.iter().map(info::settled).collect();
        Ok(Response::new(ListResp { subscriptions }))
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }
}

#[cfg(test)]
#[path = "persistent/served_tests.rs"]
mod served_tests;
