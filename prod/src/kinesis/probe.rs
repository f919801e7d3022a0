//! What `stormkeep doctor` asks about the log: is it there, may this process use it, and does it fit. Every failure comes
//! with its fix.

use std::time::Duration;

use aws_sdk_kinesis::{primitives::Blob, types::ShardIteratorType};
use stormkeep_core::{
    entry::{Entry, Fence},
    shard::{ShardId, ShardInfo},
};

use super::{
    Description, Health, OpenError, Settings,
    client::Clients,
    fanout,
    settings::PARTITION_KEY_BYTES_MAX,
    shards,
    trouble::{Kind, Trouble},
};
use crate::check::Check;

/// Retention under this is too short to sleep through a night with a broken store.
const RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);

/// Looks at the log. It puts nothing, except where a service ignores `DryRun`: then one entry that no reader counts.
pub async fn probe(settings: &Settings) -> Vec<Check> {
    let opened = async {
        settings.check()?;
        Clients::new(settings, Health::default()).await
    };
    let clients: Result<Clients, OpenError> = opened.await;
    let clients = match clients {
        Ok(clients) => clients,
        Err(error) => {
            return vec![Check::bad("kinesis settings", error.to_string(), "set it as it says")];
        }
    };
    let mut checks = Vec::new();
    let described = shards::describe(&clients, &settings.stream).await;
    let description = match described {
        Ok(description) => description,
        Err(trouble) => {
            checks.push(failed(
                &clients,
                settings,
                "kinesis stream",
                "kinesis:DescribeStreamSummary",
                &trouble,
            ));
            return checks;
        }
    };
    let place = format!("{} in {}", settings.stream, clients.region());
    checks.push(Check::good(
        "kinesis reachable",
        format!("{place} answers, the credentials are taken"),
    ));
    checks.extend(of_stream(settings, &description));

    match shards::list(&clients, &settings.stream).await {
        Err(trouble) => checks.push(failed(
            &clients,
            settings,
            "kinesis shards",
            "kinesis:ListShards",
            &trouble,
        )),
        Ok(listed) => {
            checks.push(of_shards(&listed));
            if let Some(open) = listed.iter().find(|shard| !shard.closed) {
                checks.push(may_read(&clients, settings, open).await);
                checks.push(may_put(&clients, settings, open).await);
            }
        }
    }
    if let Some(consumer) = &settings.consumer {
        checks.push(match fanout::register(&clients, &settings.stream, consumer).await {
            Ok(arn) => Check::good("kinesis consumer", arn),
            Err(trouble) => failed(
                &clients,
                settings,
                "kinesis consumer",
                "kinesis:RegisterStreamConsumer",
                &trouble,
            ),
        });
    }
    checks
}

fn of_stream(settings: &Settings, stream: &Description) -> Vec<Check> {
    let mut checks = Vec::new();
    let Description { status, mode, open_shards, .. } = stream;
    let what = format!("{status}, {mode}, {open_shards} open shards");
    checks.push(match status.as_str() {
        "ACTIVE" | "UPDATING" => Check::good("kinesis stream", what),
        "DELETING" => {
            Check::bad("kinesis stream", what, "wait until it is gone, then create it anew")
        }
        _ => Check::bad("kinesis stream", what, "wait until it is ACTIVE"),
    });
    let hours = stream.retention.as_secs() / 3600;
    checks.push(if stream.retention > RETENTION_MIN {
        Check::good("kinesis retention", format!("{hours} h"))
    } else {
        Check {
            fix: Some(format!(
                "a store that is down for longer than this loses events: \
                 aws kinesis increase-stream-retention-period --stream-name {} --retention-period-hours 168",
                settings.stream
            )),
            ..Check::good("kinesis retention", format!("{hours} h, the shortest there is"))
        }
    });
    if let Some(bytes) = stream.record_bytes_max {
        let what = format!(
            "{bytes} bytes a record; kinesis.record_bytes_max is {}",
            settings.record_bytes_max
        );
        checks.push(if bytes >= settings.record_bytes_max {
            Check::good("kinesis record size", what)
        } else {
            Check::bad(
                "kinesis record size",
                what,
                "lower the setting, or aws kinesis update-max-record-size",
            )
        });
    }
    checks
}

/// The open shards must cover the key space once.
fn of_shards(listed: &[ShardInfo]) -> Check {
    let mut open: Vec<&ShardInfo> = listed.iter().filter(|shard| !shard.closed).collect();
    open.sort_by_key(|shard| shard.range.start);
    let mut due = Some(0);
    for shard in &open {
        if due != Some(shard.range.start) {
            let what = format!("the open shards do not cover the key space before {}", shard.id);
            return Check::bad("kinesis shards", what, "list again when the stream is ACTIVE");
        }
        due = shard.range.end.checked_add(1);
    }
    match due {
        None => {
            Check::good("kinesis shards", format!("{} open of {} listed", open.len(), listed.len()))
        }
        Some(_) => Check::bad(
            "kinesis shards",
            "the open shards do not cover the end of the key space",
            "list again when the stream is ACTIVE",
        ),
    }
}

async fn may_read(clients: &Clients, settings: &Settings, shard: &ShardInfo) -> Check {
    let (name, stream) = ("kinesis reads", &settings.stream);
    let opened = clients
        .call("GetShardIterator", |client| {
            let request = client.get_shard_iterator().stream_name(stream);
            let request = request.shard_id(shards::name(shard.id));
            request.shard_iterator_type(ShardIteratorType::Latest).send()
        })
        .await;
    let iterator = match opened {
        Ok(answer) => answer.shard_iterator.unwrap_or_default(),
        Err(trouble) => {
            return failed(clients, settings, name, "kinesis:GetShardIterator", &trouble);
        }
    };
    let read = clients
        .call("GetRecords", |client| client.get_records().shard_iterator(iterator).limit(1).send())
        .await;
    match read {
        Ok(_) => Check::good(name, "GetShardIterator and GetRecords are allowed"),
        Err(trouble) if trouble.kind == Kind::Throttled => Check::good(
            name,
            "GetShardIterator and GetRecords are allowed; the readers of a shard use all five reads a second",
        ),
        Err(trouble) => failed(clients, settings, name, "kinesis:GetRecords", &trouble),
    }
}

/// A put with `DryRun`. What it would put is a fence of a shard that there cannot be, which every reader ignores: a service
/// that does not know `DryRun` puts it.
async fn may_put(clients: &Clients, settings: &Settings, shard: &ShardInfo) -> Check {
    let name = "kinesis puts";
    let data = Entry::Fence(Fence { shard: ShardId(u32::MAX), epoch: 0 }).encode();
    debug_assert!(data.len() + PARTITION_KEY_BYTES_MAX < settings.record_bytes_max);
    let put = clients
        .put("PutRecord", |client| {
            let request = client.put_record().stream_name(&settings.stream).dry_run(true);
            let request = request.partition_key("probe").data(Blob::from_maybe_shared(data));
            request.explicit_hash_key(shard.range.start.to_string()).send()
        })
        .await;
    match put {
        Ok(_) => Check::good(name, "PutRecord is allowed"),
        Err(trouble) if trouble.what.contains("DryRun") => {
            Check::good(name, "PutRecord is allowed")
        }
        Err(trouble) => failed(clients, settings, name, "kinesis:PutRecord", &trouble),
    }
}

fn failed(
    clients: &Clients,
    settings: &Settings,
    name: &'static str,
    action: &'static str,
    trouble: &Trouble,
) -> Check {
    let fix = match trouble.kind {
        Kind::Denied => policy(settings, clients.region(), action),
        kind => kind.fix().to_owned(),
    };
    Check::bad(name, format!("{action}: {trouble}"), fix)
}

/// The policy that a node needs.
fn policy(settings: &Settings, region: &str, action: &str) -> String {
    let mut actions = vec![
        "DescribeStreamSummary",
        "ListShards",
        "PutRecord",
        "GetShardIterator",
        "GetRecords",
        "SplitShard",
        "MergeShards",
    ];
    if settings.consumer.is_some() {
        actions.extend(["DescribeStreamConsumer", "RegisterStreamConsumer", "SubscribeToShard"]);
    }
    let actions: Vec<String> = actions.iter().map(|name| format!("\"kinesis:{name}\"")).collect();
    let stream = format!("arn:aws:kinesis:{region}:*:stream/{}", settings.stream);
    format!(
        "{action} is missing; the role needs {{\"Effect\":\"Allow\",\"Action\":[{}],\"Resource\":[\"{stream}\",\"{stream}/consumer/*\"]}}",
        actions.join(",")
    )
}

#[cfg(test)]
mod tests {
    use stormkeep_core::shard::HashRange;

    use super::*;

    #[test]
    fn a_hole_in_the_key_space_is_seen() {
        let mut shards: Vec<ShardInfo> = (0..)
            .zip(HashRange::split_evenly(3))
            .map(|(n, range)| ShardInfo {
                id: ShardId(n),
                range,
                parents: Vec::new(),
                closed: false,
            })
            .collect();
        assert!(of_shards(&shards).ok);
        for n in 0..3 {
            shards[n].closed = true;
            assert!(!of_shards(&shards).ok, "without shard {n}");
            shards[n].closed = false;
        }
    }

    #[test]
    fn the_policy_names_what_is_used() {
        let polls = Settings::default();
        let fans = Settings { consumer: Some("worker".into()), ..Settings::default() };
        let policy = |settings| policy(settings, "eu-west-1", "kinesis:PutRecord");
        assert!(!policy(&polls).contains("SubscribeToShard"));
        assert!(policy(&fans).contains("\"kinesis:SubscribeToShard\""));
        assert!(policy(&fans).contains("arn:aws:kinesis:eu-west-1:*:stream/stormkeep/consumer/*"));
    }
}
