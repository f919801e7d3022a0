//! Pages: events of a stream and of a shard, from anywhere, both ways, with any limit.

use std::sync::Arc;

use stormkeep_core::{
    append::{
        Direction::{self, Backwards, Forwards},
        Freshness,
    },
    env::{Row, Store},
    event::RecordedEvent,
    limits::STREAM_NAME_BYTES_MAX,
    shard::ShardId,
};

use super::{
    BEGAN_US, Past, a_name, a_shard, events, is_there, name, same_events, shard_events, write,
};
use crate::family::{Family, Verdict, ensure, random, until_answered};

/// Times end here: a position keeps 51 bits of them.
const END_US: u64 = (1 << 51) - 1;

/// Writes rows in parts, as a fold does.
async fn write_all<F: Family>(family: &F, rows: Vec<Row>) -> Verdict {
    for part in rows.chunks(64) {
        write(family, part.to_vec()).await?;
    }
    Ok(())
}

/// What a page must hold.
fn page(
    all: &[RecordedEvent],
    direction: Direction,
    limit: u32,
    within: impl Fn(&RecordedEvent) -> bool,
) -> Vec<RecordedEvent> {
    let events = all.iter().filter(|e| within(e)).cloned();
    let limit = limit as usize;
    match direction {
        Forwards => events.take(limit).collect(),
        Backwards => events.rev().take(limit).collect(),
    }
}

/// Three hundred revisions and a few thousand: more than a bucket of any adapter.
pub(crate) async fn stream<F: Family>(family: Arc<F>) -> Verdict {
    let stream = a_name(&*family, "pages");
    let mut past = Past::new(a_shard(&*family));
    let mut rows = Vec::new();
    while past.events.len() < 2500 {
        rows.extend(past.append(&stream, 1 + past.events.len() as u64 % 40));
    }
    // Heads are not what this is about: the last one will do.
    let last = rows.pop();
    rows.retain(|row| matches!(row, Row::Event(_)));
    rows.extend(last);
    write_all(&*family, rows).await?;
    let all = past.of(&stream);
    let count = all.len() as u64;
    let froms = [
        0,
        1,
        99,
        255,
        256,
        499,
        500,
        999,
        1000,
        1023,
        1024,
        2048,
        count - 1,
        count,
        10_000,
        u64::MAX,
    ];
    for direction in [Forwards, Backwards] {
        for from in froms {
            for limit in [1, 7, 300, 4096] {
                let read = events(&*family, &stream, from, limit, direction).await?;
                let expected = page(&all, direction, limit, |e| match direction {
                    Forwards => e.revision >= from,
                    Backwards => e.revision <= from,
                });
                let what = format!("{direction:?} from {from}, {limit} at the most");
                same_events(&what, &read, &expected)?;
                let eventual = until_answered(&*family, "events", || {
                    family.store().events(&stream, from, limit, direction, Freshness::Eventual)
                });
                // An eventual read may miss some, but shows nothing that is not there, and in order.
                let mut there = all.iter().filter(|e| match direction {
                    Forwards => e.revision >= from,
                    Backwards => e.revision <= from,
                });
                let mut back = there.clone().rev();
                for event in eventual.await? {
                    let found = match direction {
                        Forwards => there.any(|e| *e == event),
                        Backwards => back.any(|e| *e == event),
                    };
                    ensure!(
                        found,
                        "{what}: an eventual read shows {} out of order",
                        event.revision
                    );
                }
            }
        }
    }
    Ok(())
}

/// Names that are parts of one another, long, or odd.
pub(crate) async fn names<F: Family>(family: Arc<F>) -> Verdict {
    let base = format!("{:032x}", random(&*family));
    let long = |last: char| {
        let mut text = base.clone();
        text.extend(std::iter::repeat_n('x', STREAM_NAME_BYTES_MAX - base.len() - 3));
        text.push(last);
        text
    };
    let mut odd: Vec<String> =
        ["", "0", "-", "-0", "/..", "%2F", "'\"\\", "ä", "ä", "a\u{301}", "🌩", "A", "a"]
            .iter()
            .map(|end| format!("{base}{end}"))
            .collect();
    odd.extend([long('1'), long('2')]);
    odd.dedup();
    let mut past = Past::new(a_shard(&*family));
    let mut rows = Vec::new();
    let mut streams = Vec::new();
    for (n, odd) in (1..).zip(&odd) {
        let stream = name(odd);
        rows.extend(past.append(&stream, n));
        rows.extend(past.append(&stream.metadata(), 1));
        rows.extend(past.append(&stream, 1));
        streams.extend([stream.metadata(), stream]);
    }
    write_all(&*family, rows).await?;
    for stream in &streams {
        is_there(&*family, &past, stream).await?;
    }
    Ok(())
}

/// A shard over some months: busy for a moment, then idle for days.
pub(crate) async fn shard<F: Family>(family: Arc<F>) -> Verdict {
    const HOUR_US: u64 = 3_600_000_000;
    let (shard, other) = (a_shard(&*family), a_shard(&*family));
    let streams = [a_name(&*family, "shard"), a_name(&*family, "shard"), a_name(&*family, "shard")];
    let mut past = Past::new(shard);
    let mut rows = Vec::new();
    let waits =
        [0, 1, 1000, 59_999_999, HOUR_US, 24 * HOUR_US, 5 * 24 * HOUR_US, 40 * 24 * HOUR_US];
    for (n, wait) in waits.iter().cycle().take(64).enumerate() {
        past.wait_us(*wait);
        rows.extend(past.append(&streams[n % 3], 1 + n as u64 % 5));
    }
    let mut neighbour = Past::new(other);
    rows.extend(neighbour.append(&a_name(&*family, "shard"), 10));
    write_all(&*family, rows).await?;
    let all = past.events.clone();
    let at = |n: usize| all[n].time.0;
    let last = at(all.len() - 1);
    let between = [
        (0, END_US),
        (0, 0),
        (BEGAN_US, last),
        (at(10), at(10)),
        (at(10), at(60)),
        (at(10) + 1, at(60) - 1),
        (last, last),
        (last + 1, END_US),
        (0, at(0)),
        (0, at(0) - 1),
        (at(30), END_US),
        (0, at(30)),
    ];
    for times in between {
        for direction in [Forwards, Backwards] {
            for limit in [1, 2, 50, u32::MAX] {
                let read = shard_events(&*family, shard, times, limit, direction).await?;
                let expected =
                    page(&all, direction, limit, |e| (times.0..=times.1).contains(&e.time.0));
                let what = format!("{direction:?} between {times:?}, {limit} at the most");
                same_events(&what, &read, &expected)?;
            }
        }
    }
    let none = shard_events(&*family, ShardId(other.0 ^ 1), (0, END_US), 10, Backwards).await?;
    same_events("a shard without events", &none, &[])?;
    let read = shard_events(&*family, other, (0, END_US), 100, Forwards).await?;
    same_events("the shard beside it", &read, &neighbour.events)
}
