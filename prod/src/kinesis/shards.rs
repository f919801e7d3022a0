//! The shards of a stream: listing them, changing them, and the stream that they are of.

use std::time::Duration;

use aws_sdk_kinesis::types::{Shard, StreamStatus};
use stormkeep_core::{
    env::LogError,
    shard::{HashRange, ShardId, ShardInfo},
};
use tokio::time::Instant;
use tracing::error;

use super::{
    client::Clients,
    trouble::{Kind, Trouble},
};

/// How often a stream that is being changed is looked at: `DescribeStreamSummary` allows 20 calls a second to an account.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a stream may take to be changed. The service says: up to a minute, usually half of that.
const CHANGE_MAX: Duration = Duration::from_secs(120);

/// What the service says of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its full name.
    pub arn: String,
    /// `ACTIVE`, `CREATING`, `UPDATING` or `DELETING`.
    pub status: String,
    /// `PROVISIONED` or `ON_DEMAND`.
    pub mode: String,
    /// How many of its shards are open.
    pub open_shards: u32,
    /// How long it keeps records.
    pub retention: Duration,
    /// Bytes of a record at the most, if the service says so.
    pub record_bytes_max: Option<usize>,
    /// Whether a KMS key encrypts it.
    pub encrypted: bool,
}

/// The service's name of a shard.
pub(super) fn name(shard: ShardId) -> String {
    format!("shardId-{:012}", shard.0)
}

/// The shard that the service means.
pub(super) fn id(name: &str) -> Option<ShardId> {
    name.strip_prefix("shardId-")?.parse().ok().map(ShardId)
}

/// All shards that the service lists, closed ones too, page by page.
pub(super) async fn list(clients: &Clients, stream: &str) -> Result<Vec<ShardInfo>, Trouble> {
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let next = token.take();
        let answer = clients
            .call("ListShards", |client| {
                let request = client.list_shards();
                match next {
                    Some(next) => request.next_token(next).send(),
                    None => request.stream_name(stream).send(),
                }
            })
            .await?;
        for shard in answer.shards() {
            let Some(info) = info(shard) else {
                error!(?shard, "a shard of the log that makes no sense");
                let what = format!("ListShards: {:?} makes no sense", shard.shard_id());
                return Err(Trouble::new(Kind::Silent, what));
            };
            shards.push(info);
        }
        match answer.next_token {
            Some(next) => token = Some(next),
            None => return Ok(shards),
        }
    }
}

fn info(shard: &Shard) -> Option<ShardInfo> {
    let range = shard.hash_key_range()?;
    let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
    Some(ShardInfo {
        id: id(shard.shard_id())?,
        range: HashRange {
            start: range.starting_hash_key().parse().ok()?,
            end: range.ending_hash_key().parse().ok()?,
        },
        parents: parents.into_iter().flatten().map(id).collect::<Option<_>>()?,
        closed: shard.sequence_number_range()?.ending_sequence_number().is_some(),
    })
}

/// Describes a stream.
pub(super) async fn describe(clients: &Clients, stream: &str) -> Result<Description, Trouble> {
    let answer = clients
        .call("DescribeStreamSummary", |client| {
            client.describe_stream_summary().stream_name(stream).send()
        })
        .await?;
    let summary = answer.stream_description_summary.ok_or_else(|| {
        Trouble::new(Kind::Silent, "DescribeStreamSummary: an answer without a description")
    })?;
    let hours = u64::try_from(summary.retention_period_hours()).unwrap_or_default();
    let mode = summary.stream_mode_details().map(|mode| mode.stream_mode().as_str());
    let kib = summary.max_record_size_in_kib().and_then(|kib| usize::try_from(kib).ok());
    Ok(Description {
        arn: summary.stream_arn().to_owned(),
        status: summary.stream_status().as_str().to_owned(),
        mode: mode.unwrap_or("PROVISIONED").to_owned(),
        open_shards: u32::try_from(summary.open_shard_count()).unwrap_or_default(),
        retention: Duration::from_secs(hours * 3600),
        record_bytes_max: kib.map(|kib| kib * 1024),
        encrypted: summary.encryption_type().is_some_and(|how| how.as_str() != "NONE"),
    })
}

/// Waits until a stream is `ACTIVE`, `limit` at the most.
pub(super) async fn wait_active(
    clients: &Clients,
    stream: &str,
    limit: Duration,
) -> Result<Description, Trouble> {
    let began = Instant::now();
    loop {
        let description = describe(clients, stream).await?;
        if description.status == StreamStatus::Active.as_str() {
            return Ok(description);
        }
        if began.elapsed() > limit {
            let what = format!("the stream {stream:?} is still {}", description.status);
            return Err(Trouble::new(Kind::Silent, what));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Creates a stream of so many shards, unless it is there, and waits until it is `ACTIVE`.
pub(super) async fn create(
    clients: &Clients,
    stream: &str,
    count: u32,
) -> Result<Description, Trouble> {
    let count = i32::try_from(count)
        .map_err(|_| Trouble::new(Kind::Invalid, format!("{count} shards are too many")))?;
    let created = clients
        .call("CreateStream", |client| {
            client.create_stream().stream_name(stream).shard_count(count).send()
        })
        .await;
    match created {
        Ok(_) => {}
        Err(trouble) if trouble.kind == Kind::InUse => {}
        Err(trouble) => return Err(trouble),
    }
    wait_active(clients, stream, CHANGE_MAX).await
}

/// Splits a shard, and waits until it is done.
pub(super) async fn split(
    clients: &Clients,
    stream: &str,
    shard: ShardId,
    at: u128,
) -> Result<(), LogError> {
    let split = clients
        .call("SplitShard", |client| {
            let request = client.split_shard().stream_name(stream).shard_to_split(name(shard));
            request.new_starting_hash_key(at.to_string()).send()
        })
        .await;
    changed(clients, stream, split.map(drop), NO_SPLIT).await
}

/// Merges two shards, and waits until it is done.
pub(super) async fn merge(
    clients: &Clients,
    stream: &str,
    a: ShardId,
    b: ShardId,
) -> Result<(), LogError> {
    let merged = clients
        .call("MergeShards", |client| {
            let request = client.merge_shards().stream_name(stream).shard_to_merge(name(a));
            request.adjacent_shard_to_merge(name(b)).send()
        })
        .await;
    changed(clients, stream, merged.map(drop), NO_MERGE).await
}

pub(super) const NO_SPLIT: &str =
    "the key of a split must lie within an open shard, above the first of its keys";
const NO_MERGE: &str = "only two open shards that are neighbours can be merged";

/// The service answers when it has begun. What becomes of it is unknown until the stream is `ACTIVE` again.
async fn changed(
    clients: &Clients,
    stream: &str,
    begun: Result<(), Trouble>,
    invalid: &'static str,
) -> Result<(), LogError> {
    begun.map_err(|trouble| match trouble.kind {
        Kind::Invalid => LogError::Refused(invalid),
        kind => kind.into(),
    })?;
    match wait_active(clients, stream, CHANGE_MAX).await {
        Ok(_) => Ok(()),
        Err(_) => Err(LogError::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_as_the_service_names_them() {
        assert_eq!(name(ShardId(12)), "shardId-000000000012");
        assert_eq!(id("shardId-000000000012"), Some(ShardId(12)));
        assert_eq!(id(&name(ShardId(u32::MAX))), Some(ShardId(u32::MAX)));
        for other in ["shard-12", "shardId-", "shardId-x", "shardId-99999999999"] {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
