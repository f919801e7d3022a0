//! Groups: managing them, and what their consumers ask.

use std::time::Duration;

use stormkeep_core::{
    append::{Request, Response},
    consume::{
        ConsumeError, Fetch, Fetched, GroupInfo, Leave, Manage, ManageError, Managed, Settle,
        Settled,
    },
    env::Env,
    group::{Group, GroupId},
};
use tokio::sync::watch;

use super::Service;

impl<E: Env> Service<E> {
    /// Gives a consumer events of a group, once there are any or its wait is over.
    pub async fn fetch(&self, fetch: Fetch, timeout: Duration) -> Result<Fetched, ConsumeError> {
        match self.node.handle(Request::Fetch(fetch), timeout).await {
            Response::Fetch(result) => result,
            _ => Err(ConsumeError::Unavailable),
        }
    }

    /// Settles events that a consumer was given.
    pub async fn settle(&self, settle: Settle, timeout: Duration) -> Result<Settled, ConsumeError> {
        match self.node.handle(Request::Settle(settle), timeout).await {
            Response::Settle(result) => result,
            _ => Err(ConsumeError::Unavailable),
        }
    }

    /// A consumer leaves: what it holds is given to others at once.
    pub async fn leave(&self, leave: Leave, timeout: Duration) -> Result<(), ConsumeError> {
        match self.node.handle(Request::Leave(leave), timeout).await {
            Response::Leave(result) => result,
            _ => Err(ConsumeError::Unavailable),
        }
    }

    /// Manages groups.
    pub async fn manage(&self, manage: Manage, timeout: Duration) -> Result<Managed, ManageError> {
        match self.node.handle(Request::Manage(manage), timeout).await {
            Response::Manage(result) => result,
            _ => Err(ManageError::Unknown),
        }
    }

    /// All groups, without what is live, by their ids.
    pub async fn groups(&self, timeout: Duration) -> Result<Vec<Group>, ManageError> {
        match self.manage(Manage::List, timeout).await? {
            Managed::List(groups) => Ok(groups),
            _ => Err(ManageError::Unknown),
        }
    }

    /// One group, without what is live.
    pub async fn group(&self, id: &GroupId, timeout: Duration) -> Result<Group, ManageError> {
        let groups = self.groups(timeout).await?;
        let found = groups.into_iter().find(|group| group.id == *id);
        found.ok_or_else(|| ManageError::NoSuchGroup(id.to_string()))
    }

    /// One group, with what is live.
    pub async fn group_info(
        &self,
        id: GroupId,
        timeout: Duration,
    ) -> Result<GroupInfo, ManageError> {
        match self.manage(Manage::Info(id), timeout).await? {
            Managed::Info(info) => Ok(*info),
            _ => Err(ManageError::Unknown),
        }
    }

    /// Becomes true when the server closes.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}
