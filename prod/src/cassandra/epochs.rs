//! Who owns a shard: rows that are written by compare-and-set alone.
//!
//! A row holds no null: `owner` -1 and an incarnation of zeros stand for nobody, so that one condition fits all rows and no
//! tombstone is ever written. A shard without a row never had an owner.

use scylla::{response::query_result::QueryRowsResult, value::CqlValue};
use stormkeep_core::{
    env::{EpochRow, NodeId, StoreError, Swap, Token},
    shard::ShardId,
};
use uuid::Uuid;

use super::{
    CassandraStore,
    applied::Applied,
    failure::Asked,
    rows::{bigint, shard_of, unsigned},
};

const NOBODY: i64 = -1;
/// Shards of one query at the most. It is one read a shard for the node that answers it.
const SHARDS_PER_QUERY: usize = 64;

/// Columns `shard, epoch, owner, incarnation`: `token` is a word of CQL.
type Columns = (i64, i64, i64, Uuid);

fn columns(row: &EpochRow) -> Columns {
    let (owner, token) = match row.owner {
        Some((node, token)) => (i64::from(node.0), Uuid::from_u128(token.0)),
        None => (NOBODY, Uuid::nil()),
    };
    (i64::from(row.shard.0), bigint(row.epoch), owner, token)
}

fn row((shard, epoch, owner, token): Columns) -> Option<EpochRow> {
    let owner = match u32::try_from(owner) {
        Ok(node) => Some((NodeId(node), Token(token.as_u128()))),
        Err(_) if owner == NOBODY => None,
        Err(_) => return None,
    };
    Some(EpochRow { shard: shard_of(shard).ok()?, epoch: unsigned(epoch).ok()?, owner })
}

impl CassandraStore {
    fn epoch_rows(&self, answer: &QueryRowsResult) -> Result<Vec<EpochRow>, StoreError> {
        let unreadable = || self.damaged("a row of epochs", &"its columns are not what they were");
        let rows = answer.rows::<Columns>().map_err(|error| self.damaged("epochs", &error))?;
        rows.map(|columns| columns.ok().and_then(row).ok_or_else(unreadable)).collect()
    }

    pub(super) async fn read_epoch(
        &self,
        shard: ShardId,
        settled: bool,
    ) -> Result<EpochRow, StoreError> {
        let here = self.link.get().await?;
        let of = &here.statements;
        let statement = if settled { &of.epoch_settled } else { &of.epoch };
        let answer = self.rows(&here, statement, (i64::from(shard.0),), Asked::Plain).await?;
        let rows = self.epoch_rows(&answer)?;
        Ok(rows.first().copied().unwrap_or(EpochRow::vacant(shard)))
    }

    pub(super) async fn read_epochs(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<EpochRow>, StoreError> {
        let here = self.link.get().await?;
        let mut found = Vec::with_capacity(shards.len());
        for some in shards.chunks(SHARDS_PER_QUERY) {
            let keys: Vec<i64> = some.iter().map(|shard| i64::from(shard.0)).collect();
            let answer = self.rows(&here, &here.statements.epochs, (keys,), Asked::Plain).await?;
            let rows = self.epoch_rows(&answer)?;
            found.extend(some.iter().map(|shard| {
                let row = rows.iter().find(|row| row.shard == *shard);
                row.copied().unwrap_or(EpochRow::vacant(*shard))
            }));
        }
        Ok(found)
    }

    pub(super) async fn swap(&self, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
        if from == EpochRow::vacant(from.shard) {
            let found = self.swap_vacant(&to).await?;
            // A row that says what no row says is there, and can be taken as any other one.
            if found != Swap::Lost(from) {
                return Ok(found);
            }
        }
        let here = self.link.get().await?;
        let (_, epoch, owner, token) = columns(&to);
        let (shard, if_epoch, if_owner, if_token) = columns(&from);
        let values = (epoch, owner, token, shard, if_epoch, if_owner, if_token);
        let answer = self.rows(&here, &here.statements.swap, values, Asked::Swap).await?;
        self.outcome(from.shard, &answer)
    }

    async fn swap_vacant(&self, to: &EpochRow) -> Result<Swap, StoreError> {
        let here = self.link.get().await?;
        let statement = &here.statements.swap_vacant;
        let answer = self.rows(&here, statement, columns(to), Asked::Swap).await?;
        self.outcome(to.shard, &answer)
    }

    fn outcome(&self, shard: ShardId, answer: &QueryRowsResult) -> Result<Swap, StoreError> {
        // Whatever it was that cannot be read, the swap may be done.
        let unreadable = |what: &str| {
            self.damaged("the answer to a swap", what);
            StoreError::Unknown
        };
        let found = match Applied::of(answer).map_err(|what| unreadable(&what))? {
            Applied::Done => return Ok(Swap::Done),
            Applied::Lost(found) => found,
        };
        let found = (
            found.get("epoch").and_then(CqlValue::as_bigint),
            found.get("owner").and_then(CqlValue::as_bigint),
            found.get("incarnation").and_then(CqlValue::as_uuid),
        );
        match found {
            (Some(epoch), Some(owner), Some(token)) => {
                let found = row((i64::from(shard.0), epoch, owner, token));
                found.map(Swap::Lost).ok_or_else(|| unreadable("it has no row of epochs"))
            }
            (None, None, None) => Ok(Swap::Lost(EpochRow::vacant(shard))),
            _ => Err(unreadable("it has half a row of epochs")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_epochs_come_back_as_they_went() {
        let owner = Some((NodeId(u32::MAX), Token(u128::MAX)));
        for owner in [owner, Some((NodeId(0), Token(0))), None] {
            let there = EpochRow { shard: ShardId(u32::MAX), epoch: 7, owner };
            assert_eq!(row(columns(&there)), Some(there));
        }
        assert_eq!(row((1, 1, -2, Uuid::nil())), None);
    }
}
