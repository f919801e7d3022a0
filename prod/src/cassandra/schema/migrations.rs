//! The schema, step by step. A migration that was released is never changed; the next one is added below it.
//!
//! Compaction: `events` and `shard_events` are written once, mostly in order, and read by partition: size-tiered, which
//! rewrites least. `heads`, `checkpoints`, `nodes` and `epochs` are overwritten for ever and read by key: levelled, which
//! keeps old versions few and a read at one file. Never time-window compaction: it sorts files by timestamps, and ours
//! are counts.
//!
//! Speculative retry: a read asks a third replica when one of two is silent for 50 ms. Cassandra's default waits for the 99th
//! percentile of what it saw before, which after a restart may be seconds: a replica that hangs would hold up every read.

/// One step from a version to the next.
pub(super) struct Migration {
    /// What it does, for people.
    pub(super) what: &'static str,
    /// CQL that may be done again; `KS` stands for the keyspace, `GRACE` for the seconds of grace.
    pub(super) steps: &'static [&'static str],
}

/// What there must be before there can be a lock.
pub(super) const BOOTSTRAP: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS KS.schema_lock (name text PRIMARY KEY, holder uuid)",
    "CREATE TABLE IF NOT EXISTS KS.schema_migrations (
    part int, version int, what text, done boolean,
    PRIMARY KEY (part, version))",
];

/// The tables that a store uses.
pub(super) const TABLES: &[&str] = &[
    "events",
    "shard_events",
    "shard_buckets",
    "heads",
    "checkpoints",
    "nodes",
    "epochs",
    "documents",
    "progress",
    "node_addresses",
    "probes",
];

/// All of them; the n-th, counted from 1, leads to version n.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    what: "the first tables",
    steps: &[
        "CREATE TABLE IF NOT EXISTS KS.events (
    stream text, bucket bigint, revision bigint, event blob,
    PRIMARY KEY ((stream, bucket), revision))
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'SizeTieredCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Events by stream. bucket: revision / 64'",
        "CREATE TABLE IF NOT EXISTS KS.shard_events (
    shard bigint, bucket bigint, time bigint, event blob,
    PRIMARY KEY ((shard, bucket), time))
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'SizeTieredCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Events once more, by shard. bucket: time / 2^25'",
        "CREATE TABLE IF NOT EXISTS KS.shard_buckets (
    shard bigint, era bigint, bucket bigint,
    PRIMARY KEY ((shard, era), bucket))
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'SizeTieredCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Buckets of shard_events that hold something. era: bucket / 2^22'",
        "CREATE TABLE IF NOT EXISTS KS.heads (stream text PRIMARY KEY, head blob)
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Heads of streams, with the appends that they remember'",
        "CREATE TABLE IF NOT EXISTS KS.checkpoints (
    part int, shard bigint, checkpoint blob,
    PRIMARY KEY (part, shard))
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'How far each shard is folded. part: shard modulo 16'",
        "CREATE TABLE IF NOT EXISTS KS.nodes (
    part int, node bigint, incarnation uuid, role int, beat bigint, draining boolean,
    PRIMARY KEY (part, node, incarnation))
WITH gc_grace_seconds = 86400
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Signs of life; each is kept for an hour'",
        "CREATE TABLE IF NOT EXISTS KS.epochs (shard bigint PRIMARY KEY, epoch bigint, owner bigint, incarnation uuid)
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Owners of shards. Written by compare-and-set alone'",
        "CREATE TABLE IF NOT EXISTS KS.documents (name text PRIMARY KEY, version bigint, body blob)
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'Groups, and who delivers a shard. Written by compare-and-set alone'",
        "CREATE TABLE IF NOT EXISTS KS.progress (
    shard bigint, consumers bigint, progress blob,
    PRIMARY KEY (shard, consumers))
WITH gc_grace_seconds = GRACE
AND compaction = {'class': 'LeveledCompactionStrategy'}
AND speculative_retry = '50ms'
AND comment = 'How far each shard is settled for each group. consumers: the number of the group'",
        "CREATE TABLE IF NOT EXISTS KS.node_addresses (node bigint PRIMARY KEY, authority text, process uuid)
WITH gc_grace_seconds = 86400
AND default_time_to_live = 300
AND speculative_retry = '50ms'
AND comment = 'Where nodes are called; each is kept for five minutes'",
        "CREATE TABLE IF NOT EXISTS KS.probes (name text PRIMARY KEY, at timestamp)
WITH gc_grace_seconds = 86400
AND speculative_retry = '50ms'
AND comment = 'Written by stormkeep doctor to see whether it may'",
    ],
}];
