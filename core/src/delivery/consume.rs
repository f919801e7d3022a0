//! The way from a consumer to the units of its group, wherever they are worked on.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;

use super::lease::row;
use crate::{
    append::{Request, Response},
    consume::{ConsumeError, Fetch, Fetched, Leave, Settle, Settled, UnitInfo},
    env::{Clock, DocumentKey, Env, Network, NodeId, Store},
    gateway::{Gateway, Origin},
    group::{GroupId, Groups},
    shard::{
        ShardId,
        window::{ASKS_WITHIN, Moment},
    },
    stats::Counter,
    wait::within,
};

/// How often a verdict is sent to whom the leases name, before the events are taken for lost to this consumer.
const SETTLE_TRIES: u32 = 3;

impl<E: Env> Gateway<E> {
    pub(crate) async fn fetch(
        &self,
        mut fetch: Fetch,
        timeout: Duration,
        origin: Origin,
    ) -> Result<Fetched, ConsumeError> {
        let clock = self.env.clock();
        fetch.wait = fetch.wait.min(timeout);
        let deadline = clock.elapsed() + fetch.wait;
        if origin == Origin::Peer {
            return self.fetch_here(&fetch, deadline).await;
        }
        if let Some(fetched) = self.take_elsewhere(&fetch).await {
            return Ok(fetched);
        }
        let mut reached = false;
        loop {
            let here = match self.take_here(&fetch) {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => true,
                Err(ConsumeError::NotHolder { .. }) => false,
                Err(error) => return Err(error),
            };
            reached |= here;
            let mut places = self.holders().await;
            places.remove(&self.node);
            if here && places.is_empty() {
                // All of it is here.
                let step = deadline.min(clock.elapsed() + ASKS_WITHIN / 2);
                match self.fetch_here(&fetch, step).await {
                    Ok(fetched) if fetched.unit.is_some() || clock.elapsed() >= deadline => {
                        return Ok(fetched);
                    }
                    Ok(_) | Err(ConsumeError::NotHolder { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            match self.fetch_at(&fetch, places).await {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => reached = true,
                Err(ConsumeError::NotHolder { .. } | ConsumeError::Unavailable) => {}
                Err(error) => return Err(error),
            }
            if !reached {
                self.check_group(&fetch.group).await?;
            }
            let left = deadline.saturating_sub(clock.elapsed());
            if left.is_zero() {
                let nothing = Fetched { unit: None, events: Vec::new() };
                return if reached { Ok(nothing) } else { Err(ConsumeError::Unavailable) };
            }
            let pause = left.min(self.config.poll);
            match self.units.signal(&fetch.group) {
                Some(signal) => {
                    within(clock, pause, signal.after(signal.count())).await;
                }
                None => clock.sleep(pause).await,
            }
        }
    }

    /// The turn of those who deliver elsewhere: however much is ready here, what is ready there is given as well.
    async fn take_elsewhere(&self, fetch: &Fetch) -> Option<Fetched> {
        let clock = self.env.clock();
        let places: BTreeSet<NodeId> = {
            let routes = self.routes();
            let others = routes.holders.values().copied().filter(|node| *node != self.node);
            if clock.elapsed() < routes.deaf_until { BTreeSet::new() } else { others.collect() }
        };
        if places.is_empty() || clock.random().is_multiple_of(places.len() as u64 + 1) {
            return None;
        }
        match self.fetch_at(fetch, places).await {
            Ok(fetched) => fetched,
            Err(ConsumeError::Unavailable) => {
                self.routes().deaf_until = clock.elapsed() + self.config.dead_after;
                None
            }
            // It is told again when all are asked.
            Err(_) => None,
        }
    }

    fn take_here(&self, fetch: &Fetch) -> Result<Option<Fetched>, ConsumeError> {
        let taken = self.units.take(fetch, self.env.clock().elapsed())?;
        if let Some(fetched) = &taken {
            self.stats.add(Counter::EventsGiven, fetched.events.len() as u64);
        }
        Ok(taken)
    }

    /// Waits for events of the units here.
    async fn fetch_here(&self, fetch: &Fetch, deadline: Duration) -> Result<Fetched, ConsumeError> {
        let clock = self.env.clock();
        loop {
            let signal = self.units.signal(&fetch.group);
            let signal = signal.ok_or(ConsumeError::NotHolder { hint: None })?;
            let seen = signal.count();
            if let Some(fetched) = self.take_here(fetch)? {
                return Ok(fetched);
            }
            let left = deadline.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return Ok(Fetched { unit: None, events: Vec::new() });
            }
            within(clock, left.min(ASKS_WITHIN / 2), signal.after(seen)).await;
        }
    }

    /// Asks peers, one after the other, until one has something: what a second one gave would get lost.
    async fn fetch_at(
        &self,
        fetch: &Fetch,
        places: BTreeSet<NodeId>,
    ) -> Result<Option<Fetched>, ConsumeError> {
        let mut places: Vec<NodeId> = places.into_iter().collect();
        if places.is_empty() {
            return Err(ConsumeError::NotHolder { hint: None });
        }
        let turn = (self.env.clock().random() % places.len() as u64) as usize;
        places.rotate_left(turn);
        let mut outcome = Err(ConsumeError::NotHolder { hint: None });
        for node in places {
            let request = Request::Fetch(Fetch { wait: Duration::ZERO, ..fetch.clone() });
            match self.env.network().call(node, request, self.config.peer_timeout).await {
                Ok(Response::Fetch(Ok(fetched))) if fetched.unit.is_some() => {
                    return Ok(Some(fetched));
                }
                Ok(Response::Fetch(Ok(_))) => outcome = Ok(None),
                Ok(Response::Fetch(Err(ConsumeError::NotHolder { .. }))) => {}
                Ok(Response::Fetch(Err(error))) => return Err(error),
                Ok(_) | Err(_) if outcome.is_err() => outcome = Err(ConsumeError::Unavailable),
                Ok(_) | Err(_) => {}
            }
        }
        outcome
    }

    /// Whether there is such a group, and it can be fetched from. If the store does not say, it may be.
    async fn check_group(&self, id: &GroupId) -> Result<(), ConsumeError> {
        let Ok(mut documents) = self.env.store().documents(&[DocumentKey::Groups]).await else {
            return Ok(());
        };
        let Some(Ok(groups)) = documents.pop().map(|d| Groups::decode(&d.body)) else {
            return Ok(());
        };
        match groups.get(id) {
            None => Err(ConsumeError::NoSuchGroup(id.to_string())),
            Some(group) if group.is_pushed() => Err(ConsumeError::Pushed(id.to_string())),
            Some(_) => Ok(()),
        }
    }

    pub(crate) async fn settle(
        &self,
        settle: Settle,
        timeout: Duration,
        origin: Origin,
    ) -> Result<Settled, ConsumeError> {
        let clock = self.env.clock();
        let deadline = clock.elapsed() + timeout;
        let mut tries = 0;
        loop {
            let moment = Moment { now: clock.elapsed(), random: clock.random() };
            match self.units.settle(&settle, moment) {
                Ok(settled) => {
                    let stale = settled.counted.iter().filter(|counted| !**counted).count();
                    self.stats.add(Counter::VerdictsStale, stale as u64);
                    return Ok(settled);
                }
                Err(error) if origin == Origin::Peer => return Err(error),
                Err(_) => {}
            }
            let left = deadline.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return Err(ConsumeError::Unavailable);
            }
            tries += 1;
            self.look_up_holders(tries > 1).await;
            let holder = self.routes().holders.get(&settle.unit.shard).copied();
            let outcome = match holder.filter(|node| *node != self.node) {
                Some(node) => {
                    let timeout = left.min(self.config.peer_timeout);
                    let request = Request::Settle(settle.clone());
                    match self.env.network().call(node, request, timeout).await {
                        Ok(Response::Settle(Ok(settled))) => return Ok(settled),
                        Ok(Response::Settle(Err(error))) => error,
                        Ok(_) | Err(_) => ConsumeError::Unavailable,
                    }
                }
                None => ConsumeError::NotHolder { hint: holder },
            };
            if tries >= SETTLE_TRIES {
                return Err(outcome);
            }
            let left = deadline.saturating_sub(clock.elapsed());
            clock.sleep(left.min(self.config.retry_after)).await;
        }
    }

    pub(crate) async fn leave(
        &self,
        leave: Leave,
        timeout: Duration,
        origin: Origin,
    ) -> Result<(), ConsumeError> {
        self.units.leave(&leave);
        if origin == Origin::Client {
            // Who is not told notices when the consumer asks no more.
            self.ask_peers(Request::Leave(leave), timeout).await;
        }
        Ok(())
    }

    /// What is live in the units of a group, everywhere, and whether somebody could not be asked.
    pub(crate) async fn all_units(
        &self,
        group: &GroupId,
        timeout: Duration,
    ) -> (Vec<UnitInfo>, bool) {
        let mut infos = self.units.infos(group, self.node);
        let mut partial = false;
        for answer in self.ask_peers(Request::Units(group.clone()), timeout).await {
            match answer {
                Some(Response::Units(more)) => infos.extend(more),
                _ => partial = true,
            }
        }
        (infos, partial)
    }

    async fn ask_peers(&self, request: Request, timeout: Duration) -> Vec<Option<Response>> {
        let mut places = self.holders().await;
        places.remove(&self.node);
        let timeout = timeout.min(self.config.peer_timeout);
        let calls = places.into_iter().map(|node| {
            let request = request.clone();
            async move { self.env.network().call(node, request, timeout).await.ok() }
        });
        join_all(calls).await
    }

    /// The nodes that deliver shards.
    async fn holders(&self) -> BTreeSet<NodeId> {
        self.look_up_holders(false).await;
        self.routes().holders.values().copied().collect()
    }

    /// Looks up who delivers which shard, unless that was done lately; sooner, if what is known turned out wrong.
    async fn look_up_holders(&self, wrong: bool) {
        let now = self.env.clock().elapsed();
        let shards: Vec<ShardId> = {
            let mut routes = self.routes();
            let fresh = if wrong { self.config.look_every } else { self.config.heartbeat };
            if routes.holders_at.is_some_and(|at| now < at + fresh) {
                return;
            }
            routes.holders_at = Some(now);
            let listed: BTreeSet<ShardId> = routes.shards.iter().map(|shard| shard.id).collect();
            // Of those that are not listed any more, the units here are known, and who held them last.
            listed.into_iter().chain(routes.holders.keys().copied()).collect()
        };
        let mut keys: BTreeSet<ShardId> = shards.into_iter().collect();
        if let Ok(checkpoints) = self.env.store().checkpoints().await {
            keys.extend(checkpoints.into_iter().map(|(shard, _)| shard));
        }
        let shards: Vec<ShardId> = keys.into_iter().collect();
        let keys: Vec<DocumentKey> = shards.iter().map(|id| DocumentKey::Delivery(*id)).collect();
        let Ok(documents) = self.env.store().documents(&keys).await else { return };
        let mut routes = self.routes();
        routes.holders.clear();
        for (shard, document) in shards.iter().zip(&documents) {
            if let Some((node, _)) = row(*shard, document).owner {
                routes.holders.insert(*shard, node);
            }
        }
    }
}
