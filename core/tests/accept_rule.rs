//! The accept rule: whatever zombies, retries and strangers have put into a log, every reader reads the
//! history of the owners out of it, and nothing else, from wherever it begins; and a log that lost
//! entries is told from one that did not.

#![allow(clippy::unwrap_used)]

mod common;

use common::{SHARD, batch, batched, cases, fence};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    entry::{Batch, Entry, Fence},
    env::Position,
    shard::{
        Checkpoint, ShardId,
        replay::{Ignored, LogGap, Replay, Verdict},
    },
};

const OTHER: ShardId = ShardId(8);

/// The history of the owners: for each epoch how far it is above the last, and its batches' events.
fn honest(epochs: &[(u64, Vec<usize>)]) -> Vec<Entry> {
    let (mut epoch, mut time, mut entries) = (0, 0, Vec::new());
    for (above, batches) in epochs {
        epoch += above;
        entries.push(fence(epoch));
        for (index, events) in (0..).zip(batches) {
            let appends = (*events > 0).then(|| batched("player-1", time.into(), 0, *events));
            entries.push(Entry::Batch(batch(
                epoch,
                index,
                time + 1,
                appends.into_iter().collect(),
            )));
            time += 1 + (*events).max(1) as u64;
        }
    }
    entries
}

fn epoch_of(entry: &Entry) -> u64 {
    match entry {
        Entry::Fence(fence) => fence.epoch,
        Entry::Batch(batch) => batch.epoch,
    }
}

/// What else can land: picked by numbers that are brought into range by what they pick from.
#[derive(Debug, Clone)]
enum Extra {
    /// An entry once more, behind its first landing.
    Repeat { what: usize, later: usize },
    /// A batch that an owner still had in flight, or dared next, behind the fence of its successor.
    Zombie { of: usize, ahead: u64, later: usize },
    /// The fence of an epoch that never came to be, behind a higher one.
    Loser { of: usize, later: usize },
    /// A put to a closed parent, or a stray.
    Stranger { what: usize, at: usize },
}

fn any_extra() -> impl Strategy<Value = Extra> {
    let n = || 0..1000usize;
    prop_oneof![
        (n(), n()).prop_map(|(what, later)| Extra::Repeat { what, later }),
        (n(), 0..3u64, n()).prop_map(|(of, ahead, later)| Extra::Zombie { of, ahead, later }),
        (n(), n()).prop_map(|(of, later)| Extra::Loser { of, later }),
        (n(), n()).prop_map(|(what, at)| Extra::Stranger { what, at }),
    ]
}

/// The log: the history with the extras where they land, each with the verdict that is due.
fn shuffled(honest: &[Entry], extras: &[Extra]) -> Vec<(Entry, Verdict)> {
    let due = |why| Verdict::Ignored(why);
    let mut landed: Vec<(usize, Entry, Verdict)> =
        honest.iter().enumerate().map(|(n, e)| (n, e.clone(), Verdict::Accepted)).collect();
    let fences: Vec<usize> =
        (0..honest.len()).filter(|n| matches!(honest[*n], Entry::Fence(_))).collect();
    for extra in extras {
        match *extra {
            Extra::Repeat { what, later } => {
                let what = what % honest.len();
                let at = what + later % (honest.len() - what);
                let why = match &honest[what] {
                    Entry::Fence(_) => Ignored::StaleFence,
                    Entry::Batch(b) if b.epoch == epoch_of(&honest[at]) => Ignored::Repeat,
                    Entry::Batch(_) => Ignored::StaleBatch,
                };
                landed.push((at, honest[what].clone(), due(why)));
            }
            Extra::Zombie { of, ahead, later } if fences.len() > 1 => {
                let of = of % (fences.len() - 1);
                let (begin, end) = (fences[of], fences[of + 1]);
                let index = (end - begin - 1) as u64 + ahead;
                let batch = batch(epoch_of(&honest[begin]), index, 1_000_000, Vec::new());
                let at = end + later % (honest.len() - end);
                landed.push((at, Entry::Batch(batch), due(Ignored::StaleBatch)));
            }
            Extra::Zombie { .. } => {}
            Extra::Loser { of, later } => {
                let above = fences[of % fences.len()];
                let lost = fence(epoch_of(&honest[above]) - 1);
                let at = above + later % (honest.len() - above);
                landed.push((at, lost, due(Ignored::StaleFence)));
            }
            Extra::Stranger { what, at } => {
                let stranger = match honest[what % honest.len()].clone() {
                    Entry::Fence(f) => Entry::Fence(Fence { shard: OTHER, epoch: f.epoch + 9 }),
                    Entry::Batch(b) => Entry::Batch(Batch { shard: OTHER, ..b }),
                };
                landed.push((at % honest.len(), stranger, due(Ignored::OtherShard)));
            }
        }
    }
    // Stable: an extra lands behind the honest entry of the same place.
    landed.sort_by_key(|(at, ..)| *at);
    landed.into_iter().map(|(_, entry, verdict)| (entry, verdict)).collect()
}

fn any_history() -> impl Strategy<Value = Vec<(u64, Vec<usize>)>> {
    vec((1..4u64, vec(0..4usize, 0..5)), 1..6)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_history_of_the_owners_is_what_counts(
        epochs in any_history(), extras in vec(any_extra(), 0..40), from in 0..1000usize,
    ) {
        let honest = honest(&epochs);
        let log = shuffled(&honest, &extras);
        let mut replay = Replay::from(SHARD, Checkpoint::default());
        let mut at = vec![replay.checkpoint().clone()];
        for (n, (entry, due)) in (1..).zip(&log) {
            let before = replay.checkpoint().clone();
            prop_assert_eq!(replay.apply(Position::new(n), entry), Ok(*due));
            let after = replay.checkpoint().clone();
            prop_assert_eq!(after.position, Some(Position::new(n)));
            prop_assert_eq!(after.accepted, before.accepted + u64::from(*due == Verdict::Accepted));
            match (entry, due) {
                (Entry::Batch(batch), Verdict::Accepted) => {
                    prop_assert!(after.closed > before.closed);
                    prop_assert_eq!(after.closed, batch.closes());
                }
                _ => prop_assert_eq!(after.closed, before.closed),
            }
            prop_assert!(after > before, "of two checkpoints the further one is the greater");
            at.push(after);
        }
        prop_assert_eq!(at[log.len()].accepted, honest.len() as u64);

        let from = from % at.len();
        let mut later = Replay::from(SHARD, at[from].clone());
        for (n, (entry, due)) in log.iter().enumerate().skip(from) {
            prop_assert_eq!(later.apply(Position::new(n as u128 + 1), entry), Ok(*due));
        }
        later.end();
        let whole = Checkpoint { ended: true, ..at[log.len()].clone() };
        prop_assert_eq!(later.checkpoint(), &whole);
        prop_assert!(whole > at[log.len()], "the end is further than what came before it");
    }

    /// The last batch of an epoch can be lost unnoticed by this rule alone; all else cannot.
    #[test]
    fn a_lost_entry_is_a_gap(epochs in any_history(), lost in 0..1000usize) {
        let mut entries = honest(&epochs);
        let lost = lost % entries.len();
        let epoch = epoch_of(&entries[lost]);
        entries.remove(lost);
        let next = entries.get(lost).cloned();
        let found = (0..).zip(&entries).try_fold(
            Replay::from(SHARD, Checkpoint::default()),
            |mut replay, (n, entry)| replay.apply(Position::new(n), entry).map(|_| replay),
        );
        match next {
            Some(Entry::Batch(next)) if next.epoch == epoch => {
                let gap = found.expect_err("a gap");
                prop_assert_eq!((gap.shard, gap.epoch, gap.index), (SHARD, next.epoch, next.index));
            }
            _ => prop_assert!(found.is_ok()),
        }
    }
}

#[test]
fn a_gap_says_what_is_missing_and_changes_nothing() {
    let mut replay = Replay::from(SHARD, Checkpoint::default());
    replay.apply(Position::new(0), &fence(2)).unwrap();
    let before = replay.checkpoint().clone();
    let early = Entry::Batch(batch(2, 1, 5, Vec::new()));
    let gap = LogGap { shard: SHARD, epoch: 2, index: 1, at_epoch: 2, at_index: 0 };
    assert_eq!(replay.apply(Position::new(1), &early), Err(gap));
    let unfenced = Entry::Batch(batch(3, 0, 5, Vec::new()));
    let gap = LogGap { shard: SHARD, epoch: 3, index: 0, at_epoch: 2, at_index: 0 };
    assert_eq!(replay.apply(Position::new(1), &unfenced), Err(gap));
    assert_eq!(
        gap.to_string(),
        "shard s7: entry (epoch 3, index 0) where (epoch 2, index 0) was next: the log lost entries"
    );
    assert_eq!(replay.checkpoint(), &before);
}

/// Every log of up to six entries over a small alphabet, against the words of the rule.
#[test]
fn every_short_log_is_judged_by_the_words_of_the_rule() {
    let foreign = Entry::Fence(Fence { shard: OTHER, epoch: 9 });
    let b = |epoch, index| Entry::Batch(batch(epoch, index, 1, Vec::new()));
    let alphabet = [fence(1), fence(2), b(1, 0), b(1, 1), b(2, 0), b(2, 1), foreign];
    let mut logs: Vec<(Replay, u64, u64)> =
        vec![(Replay::from(SHARD, Checkpoint::default()), 0, 0)];
    let mut judged = 0;
    for length in 1..=6 {
        let mut longer = Vec::new();
        for (replay, epoch, next) in logs {
            for entry in &alphabet {
                let (mut replay, mut epoch, mut next) = (replay.clone(), epoch, next);
                let verdict = replay.apply(Position::new(length), entry);
                judged += 1;
                let counts = match entry {
                    _ if entry.shard() != SHARD => Some(false),
                    Entry::Fence(f) => Some(f.epoch > epoch),
                    Entry::Batch(b) if (b.epoch, b.index) == (epoch, next) => Some(true),
                    Entry::Batch(b) if (b.epoch, b.index) < (epoch, next) => Some(false),
                    Entry::Batch(_) => None,
                };
                assert_eq!(verdict.ok().map(|v| v == Verdict::Accepted), counts, "{entry:?}");
                match (counts, entry) {
                    (Some(true), Entry::Fence(f)) => (epoch, next) = (f.epoch, 0),
                    (Some(true), Entry::Batch(_)) => next += 1,
                    (Some(false), _) => {}
                    // A reader stops here.
                    (None, _) => continue,
                }
                let at = replay.checkpoint();
                assert_eq!((at.epoch, at.next), (epoch, next));
                longer.push((replay, epoch, next));
            }
        }
        logs = longer;
    }
    assert!(judged > 10_000, "{judged}");
}
