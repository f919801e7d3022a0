//! What a node counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// One thing that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter { $($(#[doc = $doc])+ $name,)+ }

        impl Counter {
            /// All of them.
            pub const ALL: &[Counter] = &[$(Counter::$name,)+];

            /// Its name, for people and metrics.
            pub fn label(self) -> &'static str {
                match self { $(Counter::$name => $label,)+ }
            }
        }
    };
}

counters! {
    /// Appends answered as committed for the first time.
    AppendsCommitted = "appends committed",
    /// Appends answered as the repeat of a committed one.
    AppendsRepeated = "repeats answered as the first time",
    /// Appends refused for a wrong expected revision.
    AppendsWrongRevision = "wrong expected revisions",
    /// Appends shed since the tail or the queue was full.
    AppendsShed = "appends shed",
    /// Appends answered as unknown when an owner stepped down.
    AppendsUnknown = "answers withdrawn as unknown",
    /// Microseconds that owners took to answer appends, over all appends. What is neither in puts nor in epoch checks was spent
    /// waiting: for a head, for the batch before, or for the check before.
    AppendMicros = "append microseconds",
    /// Of these, spent while their batch was put.
    AppendPutMicros = "append microseconds in puts",
    /// Of these, spent in the epoch check that released the answer.
    AppendCheckMicros = "append microseconds in epoch checks",
    /// Batches confirmed by the log.
    BatchesPut = "batches put",
    /// Puts that the log throttled.
    PutsThrottled = "puts throttled",
    /// Puts whose outcome was unknown, put again until confirmed.
    PutsUnknown = "unknown puts put again",
    /// Puts that landed in another shard, since theirs was closed.
    PutsMisplaced = "puts into a closed shard",
    /// Epoch checks passed.
    ChecksPassed = "epoch checks passed",
    /// Epoch checks that found another owner: this one was a zombie.
    ZombiesFenced = "zombies fenced by an epoch check",
    /// Shards taken.
    Takeovers = "takeovers",
    /// Takeovers lost to another node.
    TakeoversLost = "takeovers lost",
    /// Shards let go in good order.
    Releases = "shards released",
    /// Closed parents whose owner was ended before their child was taken.
    ParentsDisowned = "owners of closed parents ended",
    /// Compare-and-sets of unknown outcome, settled by a serial read.
    SwapsSettled = "unknown compare-and-sets settled",
    /// Entries that a fold dropped as repeats.
    EntriesRepeated = "repeated entries dropped",
    /// Entries that a fold dropped since their owner was a zombie.
    EntriesStale = "stale entries dropped",
    /// Entries that a fold dropped since they were meant for another shard.
    EntriesMisplaced = "misplaced entries dropped",
    /// Read cursors that expired and were reopened.
    CursorsReopened = "expired cursors reopened",
    /// Reads of a log that were throttled.
    ReadsThrottled = "log reads throttled",
    /// Batches folded into the store.
    BatchesFolded = "batches folded",
    /// Writes to the store that were repeated.
    WritesRepeated = "store writes repeated",
    /// Heads read from the store for an owner.
    HeadsLoaded = "cold heads read",
    /// Requests sent on after "not the owner".
    Redirects = "redirects followed",
    /// Strong reads of all shards that waited for one whose time lags.
    ReadsWaited = "reads of all shards that waited for one",
    /// Listings of shards that were older than the checkpoints, seen by a reader of all shards.
    ListingsOld = "listings of shards found out of date",
    /// Times of a shard that were raised above its owner's clock, to where another shard is already.
    TimesRaised = "times raised above a clock that is behind",
    /// Closed shards folded to their end.
    ShardsEnded = "closed shards folded to their end",
    /// Shards whose events this worker began to deliver.
    DeliveriesTaken = "shards taken for delivery",
    /// Shards that another worker was faster to take, or took away.
    DeliveriesLost = "shards lost for delivery",
    /// Shards handed over while consumers held events of theirs.
    DeliveriesHandedOver = "shards handed over with events in flight",
    /// Events given to consumers and handlers.
    EventsGiven = "events given",
    /// Events given that had been given before, under the same lease.
    EventsGivenAgain = "events given again",
    /// Events settled.
    EventsSettled = "events settled",
    /// Events parked.
    EventsParked = "events parked",
    /// Verdicts that did not count.
    VerdictsStale = "verdicts that came too late",
    /// Events that no consumer settled in time.
    EventsTimedOut = "events not settled in time",
    /// Parked events given again.
    EventsReplayed = "parked events replayed",
    /// Batches pushed to handlers.
    BatchesPushed = "batches pushed",
    /// Batches that failed as a whole, and come again in halves.
    BatchesHalved = "failed batches halved",
    /// Pushes that a handler throttled.
    PushesThrottled = "pushes throttled",
    /// Pushes of unknown outcome.
    PushesUnknown = "pushes with an unknown outcome",
    /// Progress written.
    ProgressWritten = "progress written",
    /// Children whose delivery waited for that of their parents.
    ChildrenWaited = "children that waited for their parents' delivery",
}

/// The counts of one node. Shared; never reset.
#[derive(Debug)]
pub struct Stats {
    counts: Vec<AtomicU64>,
}

impl Default for Stats {
    fn default() -> Self {
        Stats { counts: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Stats {
    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        self.counts[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }
}
