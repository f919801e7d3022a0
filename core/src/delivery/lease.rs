//! The lease of a shard's delivery, as the document that holds it.

use crate::{
    env::{Document, DocumentKey, EpochRow},
    shard::ShardId,
};

/// Who delivers a shard, as its document says. A body that cannot be read is of a newer build: somebody has it.
pub(crate) fn row(shard: ShardId, document: &Document) -> EpochRow {
    let owner = serde_json::from_slice(&document.body).ok();
    EpochRow { shard, epoch: document.version, owner }
}

/// The document that says so.
pub(super) fn document(row: EpochRow) -> Document {
    let body = match row {
        // Never written.
        EpochRow { epoch: 0, .. } => Vec::new(),
        // Plain data with no map: the serialiser has no failure for it.
        EpochRow { owner, .. } => {
            owner.and_then(|owner| serde_json::to_vec(&owner).ok()).unwrap_or_default()
        }
    };
    Document { key: DocumentKey::Delivery(row.shard), version: row.epoch, body: body.into() }
}
