//! What a family of adapters brings, so that the suite can hold it to the contract: a world, and the troubles that can be
//! made in it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::{channel::oneshot, future::join_all};
use stormkeep_core::env::{Clock, Env, NodeId};

/// A family cannot show something, for this reason. It stands in the table: nothing is passed over in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotShown(pub(crate) &'static str);

/// What a check asks its world to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Puts happen, but are not answered.
    LogLosesAnswers,
    /// Puts land once more, a little later.
    LogRepeatsPuts,
    /// The log allows little.
    LogThrottles,
    /// The log cannot be reached.
    LogIsGone,
    /// All tokens given out so far expire.
    TokensExpire,
    /// All records put so far are past retention. Takes its time.
    RecordsAge,
    /// One replica of the store is down, the one of this number, from 0. There are three.
    ReplicaIsDown(u32),
    /// Too few replicas of the store are up for anything.
    StoreIsDown,
    /// Messages between the replicas of the store get lost.
    StoreLosesMessages,
    /// The store does as it is asked, but does not answer.
    StoreLosesAnswers,
    /// The peer cannot be reached, and nothing says so.
    PeerIsSilent,
    /// The peer does as it is asked, but its answers do not arrive.
    PeerLosesAnswers,
}

/// A family of adapters in a world of its own: what is in its log and its store is of this check, or of earlier ones.
pub(crate) trait Family: Env {
    /// How long one check may take, by the family's own clock.
    const PATIENCE: Duration;

    /// Makes trouble, besides what is made already.
    fn make(&self, trouble: Trouble) -> impl Future<Output = Result<(), NotShown>> + Send;

    /// Ends all troubles.
    fn calm(&self) -> impl Future<Output = ()> + Send;

    /// Whether shards can be split and merged.
    fn reshards(&self) -> Result<(), NotShown>;

    /// A peer that runs, and may own all shards.
    fn peer(&self) -> impl Future<Output = Result<NodeId, NotShown>> + Send;

    /// A peer that does not run.
    fn absent(&self) -> NodeId;
}

/// Why a check has ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The contract is broken.
    Broken(String),
    /// This family cannot show it.
    NotShown(&'static str),
}

impl From<NotShown> for Stop {
    fn from(NotShown(why): NotShown) -> Self {
        Stop::NotShown(why)
    }
}

/// What a check came to.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// Ends a check that has seen the contract broken.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::family::Stop::Broken(format!($($what)+)));
        }
    };
}
pub(crate) use ensure;

/// The contract is broken.
pub(crate) fn broken<T>(what: impl fmt::Display) -> Verdict<T> {
    Err(Stop::Broken(what.to_string()))
}

/// Time between two tries of what is *busy*, or may be tried again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Runs `count` tasks at once and waits for all of them; each gets its number.
pub(crate) async fn together<F: Family, T: Send + 'static, W>(
    family: &Arc<F>,
    count: u32,
    task: impl Fn(Arc<F>, u32) -> W,
) -> Verdict<Vec<T>>
where
    W: Future<Output = Verdict<T>> + Send + 'static,
{
    let mut answers = Vec::new();
    for number in 0..count {
        let (answer, receiver) = oneshot::channel();
        let work = task(family.clone(), number);
        family.clock().spawn(async move {
            let _ = answer.send(work.await);
        });
        answers.push(receiver);
    }
    let ended = join_all(answers).await.into_iter();
    ended
        .map(|answer| answer.unwrap_or_else(|_| broken("a task ended without an answer")))
        .collect()
}

/// Asks until there is an answer, pausing in between: for calls that change nothing, or that may be asked again.
pub(crate) async fn until_answered<F: Family, T, E: fmt::Display, C>(
    family: &F,
    what: &str,
    call: impl Fn() -> C,
) -> Verdict<T>
where
    C: Future<Output = Result<T, E>>,
{
    let deadline = family.clock().elapsed() + F::PATIENCE / 2;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                ensure!(family.clock().elapsed() < deadline, "{what}: for ever {error}");
                family.clock().sleep(PAUSE).await;
            }
        }
    }
}

/// 128 random bits.
pub(crate) fn random<F: Family>(family: &F) -> u128 {
    u128::from(family.clock().random()) << 64 | u128::from(family.clock().random())
}
