//! Managing groups: compare-and-set of the document that holds them all.

use std::time::Duration;

use super::source;
use crate::{
    append::{Direction, Freshness},
    consume::{GroupInfo, Manage, ManageError, Managed, NewGroup},
    env::{Document, DocumentKey, Env, Rewritten, Store},
    gateway::Gateway,
    group::{GROUPS_MAX, Group, GroupId, GroupNumber, Groups, InvalidGroup, Source, Start},
    shard::frontier::Frontier,
    time::GlobalPosition,
    wait::{Backoff, within},
};

impl<E: Env> Gateway<E> {
    pub(crate) async fn manage(
        &self,
        manage: Manage,
        timeout: Duration,
    ) -> Result<Managed, ManageError> {
        let managed = self.managed(manage, timeout);
        within(self.env.clock(), timeout, managed).await.unwrap_or(Err(ManageError::Unknown))
    }

    async fn managed(&self, manage: Manage, timeout: Duration) -> Result<Managed, ManageError> {
        match manage {
            Manage::Create(new) => self.create(new).await,
            Manage::Update { id, settings, target } => {
                settings.check().map_err(InvalidGroup::from)?;
                self.change(|groups| {
                    let group = known(groups, &id)?;
                    (group.settings, group.target) = (settings.clone(), target.clone());
                    Ok(())
                })
                .await
            }
            Manage::Delete(id) => {
                self.change(|groups| {
                    known(groups, &id)?;
                    groups.groups.retain(|group| group.id != id);
                    Ok(())
                })
                .await
            }
            Manage::Replay { id, stop_at } => {
                let end = self.parked(&id).await.1;
                let below = stop_at.unwrap_or(end).min(end);
                self.change(|groups| {
                    let group = known(groups, &id)?;
                    group.replay_below = group.replay_below.max(below);
                    Ok(())
                })
                .await
            }
            Manage::Info(id) => {
                let group = known(&mut self.groups().await?.1, &id)?.clone();
                let (units, partial) = self.all_units(&id, timeout / 2).await;
                let (first, end) = self.parked(&id).await;
                let parked = end.saturating_sub(first);
                Ok(Managed::Info(Box::new(GroupInfo { group, units, parked, partial })))
            }
            Manage::List => Ok(Managed::List(self.groups().await?.1.groups)),
        }
    }

    async fn create(&self, new: NewGroup) -> Result<Managed, ManageError> {
        let NewGroup { id, start, filter, target, settings } = new;
        settings.check().map_err(InvalidGroup::from)?;
        // However the id was made.
        let id = GroupId::new(id.source, id.name)?;
        if self.groups().await?.1.get(&id).is_some() {
            return Err(ManageError::Exists(id.to_string()));
        }
        let began = start;
        let (start, first_revision) = self.begins(&id.source, began).await?;
        let mut group = Group {
            id: id.clone(),
            number: GroupNumber(0),
            began,
            start,
            first_revision,
            filter,
            target,
            settings,
            replay_below: 0,
        };
        self.rewrite(|groups, version| {
            // An earlier try, whose outcome was unknown, has happened.
            if groups.get(&id).is_some_and(|there| *there == group) {
                return Ok(false);
            }
            if groups.get(&id).is_some() {
                return Err(ManageError::Exists(id.to_string()));
            }
            if groups.groups.len() >= GROUPS_MAX {
                return Err(InvalidGroup::TooMany.into());
            }
            group.number = GroupNumber(version);
            groups.groups.push(group.clone());
            groups.groups.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(true)
        })
        .await
    }

    /// Where a new group begins, in the order of all events and in its stream. Found once, when it is made: whoever delivers
    /// begins there, however much later.
    async fn begins(
        &self,
        source: &Source,
        start: Start,
    ) -> Result<(GlobalPosition, u64), ManageError> {
        match (start, source) {
            (Start::Beginning, _) => Ok((GlobalPosition::START, 0)),
            (Start::Position(position), _) => Ok((position, 0)),
            (Start::End, _) => Ok((self.end().await?, 0)),
            (Start::Revision(revision), Source::Stream(stream)) => {
                // First the end: what the store does not have by then comes behind it.
                let end = self.end().await?;
                let events = self.env.store();
                let found =
                    events.events(stream, revision, 1, Direction::Forwards, Freshness::Strong);
                let found = found.await.map_err(|_| ManageError::Unknown)?;
                Ok((found.first().map_or(end, |event| event.position()), revision))
            }
            (Start::Revision(_), _) => Err(ManageError::NoRevision),
        }
    }

    /// A position that everything appended from now on is behind: the watermark.
    async fn end(&self) -> Result<GlobalPosition, ManageError> {
        let checkpoints = self.env.store().checkpoints().await;
        let checkpoints = checkpoints.map_err(|_| ManageError::Unknown)?.into_iter().collect();
        if !self.refresh_shards().await {
            return Err(ManageError::Unknown);
        }
        let shards = self.routes().shards.clone();
        let frontier = Frontier::of(&shards, &checkpoints).ok_or(ManageError::Unknown)?;
        Ok(GlobalPosition::behind(frontier.watermark()))
    }

    /// The first revision that the parked stream of a group shows, and the first that it does not have.
    async fn parked(&self, id: &GroupId) -> (u64, u64) {
        let Some(parked) = id.parked() else { return (0, 0) };
        let slice = source::read_stream(self, &parked, 0, 1).await;
        (slice.first_shown, slice.head.map_or(0, |head| head + 1))
    }

    async fn change(
        &self,
        change: impl Fn(&mut Groups) -> Result<(), ManageError>,
    ) -> Result<Managed, ManageError> {
        self.rewrite(|groups, _| {
            let before = groups.clone();
            change(groups)?;
            Ok(*groups != before)
        })
        .await
    }

    /// Changes the groups until that is done, or cannot be. `change` is told the version to come, and says whether it has changed
    /// anything.
    async fn rewrite(
        &self,
        mut change: impl FnMut(&mut Groups, u64) -> Result<bool, ManageError>,
    ) -> Result<Managed, ManageError> {
        let mut backoff = Backoff::new(&self.config);
        let (mut from, _) = self.groups().await?;
        loop {
            let mut groups = decode(&from)?;
            if !change(&mut groups, from.version + 1)? {
                return Ok(Managed::Done);
            }
            let to = from.next(groups.encode());
            match self.env.store().rewrite(from.clone(), to.clone()).await {
                Ok(Rewritten::Done) => return Ok(Managed::Done),
                Ok(Rewritten::Lost(now)) if now == to => return Ok(Managed::Done),
                Ok(Rewritten::Lost(now)) => from = now,
                // The identical one again settles it.
                Err(_) => backoff.pause(self.env.clock()).await,
            }
        }
    }

    async fn groups(&self) -> Result<(Document, Groups), ManageError> {
        let mut backoff = Backoff::new(&self.config);
        loop {
            if let Ok(mut documents) = self.env.store().documents(&[DocumentKey::Groups]).await
                && let Some(document) = documents.pop()
            {
                let groups = decode(&document)?;
                return Ok((document, groups));
            }
            backoff.pause(self.env.clock()).await;
        }
    }
}

fn decode(document: &Document) -> Result<Groups, ManageError> {
    Groups::decode(&document.body).map_err(|error| ManageError::Damaged(error.to_string()))
}

fn known<'g>(groups: &'g mut Groups, id: &GroupId) -> Result<&'g mut Group, ManageError> {
    groups.get_mut(id).ok_or_else(|| ManageError::NoSuchGroup(id.to_string()))
}
