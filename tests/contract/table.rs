//! The table: every check, every family, and what became of it.

use std::{future::Future, pin::Pin, pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{Either, select},
};
use stormkeep_core::env::Clock;

use crate::{
    family::{Family, Stop, Verdict, broken},
    log, network, store,
};

/// A check, as it runs in the world of a family.
type Run<F> = fn(Arc<F>) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One promise, and how it is checked.
pub(crate) struct Check<F> {
    /// Its name: trait, colon, what it is about.
    pub(crate) name: &'static str,
    /// What must hold.
    pub(crate) sentence: &'static str,
    run: Run<F>,
}

impl<F: Family> Check<F> {
    /// Runs it in a world. It must end in time.
    pub(crate) async fn run(&self, family: Arc<F>) -> Verdict {
        let late = family.clock().sleep(F::PATIENCE);
        let verdict = match select((self.run)(family.clone()), pin!(late)).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(_) => broken(format!("it did not end within {:?}", F::PATIENCE)),
        };
        family.calm().await;
        verdict
    }
}

macro_rules! checks {
    ($($name:literal, $sentence:literal, $check:path;)+) => {
        /// Every check, for a family.
        pub(crate) fn checks<F: Family>() -> Vec<Check<F>> {
            vec![$(Check { name: $name, sentence: $sentence, run: |family| $check(family).boxed() },)+]
        }
    };
}

checks! {
    "log: order", "a put that begins after another was confirmed gets a higher position", log::puts::order;
    "log: concurrent puts", "each is readable once, at the position it was answered", log::puts::concurrent;
    "log: largest record", "ENTRY_BYTES_MAX is taken and read back whole, a byte more is refused", log::puts::largest;
    "log: lost answers", "an unknown put may land; a confirmed one lands, behind all that was confirmed before", log::puts::unknown;
    "log: repeated puts", "what lands again is behind, and the confirmed position stays", log::puts::repeated;
    "log: throttled puts", "a put that is throttled did not happen", log::puts::throttled;
    "log: unreachable", "puts are unknown, reads and lists unavailable, in time; then all is as before", log::puts::unreachable;
    "log: no skips", "a reader beside writers never passes over a record that it will show later", log::reads::no_skips;
    "log: pages", "pages add up to the log; at_tip is not said before what was seen already", log::reads::pages;
    "log: cursors", "oldest, behind a position, and where a read ended lead to the same records", log::reads::cursors;
    "log: expired tokens", "a token that expired says so, and behind the last position it goes on", log::reads::expired;
    "log: throttled reads", "a reader that is throttled goes on later without a gap", log::reads::throttled;
    "log: retention", "behind a record that is gone: trimmed; oldest begins at what is left", log::reads::trimmed;
    "log: split", "the parent closes, is read to its end, and what is put to it lands in a child, which says so", log::closing::split;
    "log: merge", "both parents close, are read to their ends, and their child names both", log::closing::merge;
    "log: impossible changes", "a split outside of a shard and a merge of no neighbours are refused", log::closing::refused;
    "store: visibility", "what was confirmed is seen by every strong read that begins later", store::rows::visible;
    "store: any replica down", "what was confirmed with one replica down is seen with another one down", store::rows::any_replica;
    "store: older writes", "in every order of writes the row of the highest timestamp stays, whole", store::rows::every_order;
    "store: equal checkpoints", "of two checkpoints of one count the further one stays, in both orders", store::rows::ties;
    "store: heads", "a head is read as it was written: revisions, limits, tombstone, remembered appends", store::rows::heads;
    "store: checkpoints", "one by one and all together, each as it was written", store::rows::checkpoints;
    "store: signs of life", "one row for each incarnation, and a late write does not take it back", store::rows::nodes;
    "store: many rows", "a write of a thousand rows is confirmed and all of it is there", store::rows::many;
    "store: largest event", "an event of EVENT_BYTES_MAX is read back whole, from both tables", store::rows::largest;
    "store: lost messages", "a confirmed write is seen by later reads, however many unknown ones were between", store::rows::lossy;
    "store: too few replicas", "unavailable says no: nothing was written, and nothing shows up later", store::rows::down;
    "store: pages of a stream", "from any revision, both ways, any limit: exactly the events that are there", store::pages::stream;
    "store: names", "streams whose names are close to one another, or odd, are kept apart", store::pages::names;
    "store: pages of a shard", "between any two times, both ways, any limit: exactly the events that are there", store::pages::shard;
    "store: vacant epochs", "a shard that never had an owner; epochs answers in the order of the question", store::epochs::vacant;
    "store: compare-and-set", "of many at once one wins each epoch, and all that is seen is one order in time", store::epochs::contended;
    "store: identical swap", "asked again it does no harm, before and after the next one", store::epochs::identical;
    "store: epoch after success", "a read of an epoch that begins after the swap's success sees it", store::epochs::visible;
    "store: unknown swaps", "with lost messages: each happens once or never, and all that is seen is one order", store::epochs::lossy;
    "store: lost answers", "a swap that was not answered is found by a settled read, and asked again does no harm", store::epochs::unanswered;
    "store: documents", "each version once, from the one before; seen after success; asked again it does no harm", store::documents::one_by_one;
    "store: contended documents", "of many at once one makes each version, and none is missed", store::documents::contended;
    "store: progress", "in every order the furthest stays, and the end of a shard behind it", store::documents::progress;
    "network: answers", "of many calls at once each gets the answer to its own question", network::answers;
    "network: largest call", "an append and an event of the largest size arrive whole", network::largest;
    "network: refused", "a peer that does not run refuses: it has not seen the request", network::refused;
    "network: timeout", "a silent peer is unknown after the time that was given, not later", network::timeout;
    "network: lost answers", "unknown may have happened: the same append asked again is a repeat", network::unknown;
}

/// What became of every check in one family, and how long it took by the wall.
pub(crate) struct Column {
    pub(crate) family: &'static str,
    pub(crate) cells: Vec<(Verdict, Duration)>,
}

/// Prints the table and its notes. Whether anything is broken.
pub(crate) fn print(names: &[(&str, &str)], columns: &[Column]) -> bool {
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let head: Vec<String> = columns.iter().map(|c| format!("{:<12}", c.family)).collect();
    println!("{:width$}  {} what must hold", "check", head.join(" "));
    let mut notes: Vec<String> = Vec::new();
    for (row, (name, sentence)) in names.iter().enumerate() {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| {
                let (verdict, took) = &column.cells[row];
                let cell = match verdict {
                    Ok(()) => format!("ok {} ms", took.as_millis()),
                    Err(Stop::NotShown(why)) => {
                        let note = format!("not shown by {}: {why}", column.family);
                        let number = notes.iter().position(|n| *n == note).unwrap_or_else(|| {
                            notes.push(note);
                            notes.len() - 1
                        });
                        format!("not shown {}", number + 1)
                    }
                    Err(Stop::Broken(_)) => "BROKEN".to_owned(),
                };
                format!("{cell:<12}")
            })
            .collect();
        println!("{name:width$}  {} {sentence}", cells.join(" "));
    }
    for (number, note) in (1..).zip(&notes) {
        println!("{number}: {note}");
    }
    let mut sound = true;
    for column in columns {
        for ((name, sentence), (verdict, _)) in names.iter().zip(&column.cells) {
            if let Err(Stop::Broken(what)) = verdict {
                println!("BROKEN {}, {name}: {sentence}: {what}", column.family);
                sound = false;
            }
        }
    }
    sound
}
