//! Checking a data directory that no process uses: every segment, every record, and the fold.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use stormkeep_core::{
    entry::Entry,
    env::Position,
    shard::{
        Checkpoint, ShardId,
        replay::{Replay, Verdict},
    },
};

use super::{
    Options,
    directory::Directory,
    recover::{OpenError, recover, segments},
    segment::{Damage, Frame, Frames, ReadError, Segment},
    store::DiskStore,
};

/// What was found in a data directory.
#[derive(Debug, Default)]
pub struct Report {
    /// Segments of the log.
    pub segments: u64,
    /// Records of the log.
    pub records: u64,
    /// Accepted batches.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Events of accepted batches that the store should have, and has as they are in the log.
    pub folded: u64,
    /// Where each shard's accepted entries end.
    pub shards: BTreeMap<ShardId, Checkpoint>,
    /// The last flush was not finished; the next start cuts it off.
    pub torn: bool,
    /// What is wrong with the log.
    pub damages: Vec<Damage>,
    /// What is wrong with the store: deleted, it is built again from the log.
    pub store: Vec<String>,
}

impl Report {
    /// Whether all is well.
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty() && self.store.is_empty()
    }
}

/// Checks a directory, and changes nothing in it. It goes on behind damage as far as it can.
pub fn verify(path: &Path) -> Result<Report, OpenError> {
    if !path.join("FORMAT").exists() {
        let path = path.join("FORMAT");
        let what = "it is missing: this is no data directory".into();
        return Err(super::DirectoryError::Damaged { path, what }.into());
    }
    let directory = Arc::new(Directory::open(path, None)?);
    let mut report = Report::default();
    let clean = directory.clean()?;
    let epochs = directory.epochs()?;
    let all = segments(&directory.log(), directory.id(), false)?;
    let mut ends = u64::MAX;
    match recover(&all) {
        Ok(end) => {
            report.torn = end.torn;
            ends = end.offset;
            if let Some(clean) = clean.filter(|clean| clean.end > end.offset) {
                let (file, at) = end.place(&all, &directory.log());
                let what = format!("the log was closed at {}, and ends here", clean.end);
                report.damages.push(Damage { file, at, what });
            }
        }
        Err(ReadError::Damage(damage)) => report.damages.push(damage),
        Err(error) => return Err(error.into()),
    }
    let store = match DiskStore::open(
        directory.clone(),
        epochs,
        directory.documents()?,
        &Options::default(),
    ) {
        Ok(store) => Some(store),
        Err(error) => {
            report.store.push(error.to_string());
            None
        }
    };
    let mut replays: BTreeMap<ShardId, Replay> = BTreeMap::new();
    let mut found = Vec::new();
    for segment in &all {
        report.segments += 1;
        let walked = walk(std::slice::from_ref(segment), ends, |shard, offset, data| {
            report.records += 1;
            let replay =
                replays.entry(shard).or_insert_with(|| Replay::from(shard, Checkpoint::default()));
            let damage = |what: String| segment.damage(offset, what);
            let entry = match Entry::decode(data) {
                Ok(entry) => entry,
                Err(error) => return found.push(damage(error.to_string())),
            };
            match replay.apply(Position::new(offset.into()), &entry) {
                Ok(Verdict::Accepted) => {}
                Ok(Verdict::Ignored(_)) => return,
                Err(gap) => return found.push(damage(gap.to_string())),
            }
            let Entry::Batch(batch) = entry else { return };
            report.batches += 1;
            report.events += batch.event_count();
            if let Some(store) = &store {
                match store.check(&batch, replay.checkpoint()) {
                    Ok(count) => report.folded += count,
                    Err(what) => report.store.push(what),
                }
            }
        });
        match walked {
            Ok(()) => {}
            Err(ReadError::Damage(damage)) if !report.damages.contains(&damage) => {
                report.damages.push(damage);
            }
            Err(ReadError::Damage(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    report.damages.append(&mut found);
    report.shards = replays.into_iter().map(|(id, r)| (id, r.checkpoint().clone())).collect();
    Ok(report)
}

/// Calls `record` with the shard, the offset and the bytes of each record, up to the end of the log, or the first that
/// cannot be read.
pub(super) fn walk(
    segments: &[Arc<Segment>],
    end: u64,
    mut record: impl FnMut(ShardId, u64, &[u8]),
) -> Result<(), ReadError> {
    for segment in segments {
        let mut frames = Frames::at(segment, None);
        loop {
            let offset = frames.offset();
            if offset >= end {
                return Ok(());
            }
            match frames.next()? {
                Frame::Record { shard, data, .. } => record(shard, offset, &data),
                Frame::End { .. } => break,
                // The end of a log whose end is not known.
                Frame::Blank if end == u64::MAX => return Ok(()),
                Frame::Blank => {
                    return Err(segment.damage(offset, "zeros where a record should be").into());
                }
            }
        }
    }
    Ok(())
}
