//! The settings of a group as flags.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

/// What is given, by the names of the HTTP API. Defaults are the server's.
#[derive(Debug, Default, Args, Serialize)]
pub(super) struct SettingsArgs {
    /// Which of several consumers is given an event: round-robin, dispatch-to-single, or pinned
    #[arg(long, value_parser = ["round-robin", "dispatch-to-single", "pinned"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    /// How long an event may take before it counts as failed [default: 30000]
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    message_timeout_ms: Option<u64>,
    /// How often an event may fail, and be given again, before it is parked [default: 10]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    /// The first wait before an event is given again; it doubles [default: 250]
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_min_ms: Option<u64>,
    /// The longest such wait [default: 30000]
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_max_ms: Option<u64>,
    /// Events of one shard in memory at the most [default: 500]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    buffer_max: Option<u32>,
    /// Events that are read at a time [default: 100]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    read_batch: Option<u32>,
    /// A checkpoint is written after this time [default: 2000]
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_after_ms: Option<u64>,
    /// Settled events before a checkpoint is written [default: 10]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_min: Option<u32>,
    /// Settled events after which a checkpoint is written at once [default: 1000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_max: Option<u32>,
    /// Consumers at a time; 0: any number [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers_max: Option<u32>,
    /// Events of one stream in one answer to a consumer [default: 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_per_stream: Option<u32>,
    #[command(flatten)]
    push: PushArgs,
}

#[derive(Debug, Default, Args, Serialize)]
struct PushArgs {
    /// Events of one push at the most [default: 100]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_events_max: Option<u32>,
    /// Bytes of the payloads of one push at the most [default: 3145728]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_bytes_max: Option<u32>,
    /// How long to wait for a push to fill [default: 0]
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_wait_ms: Option<u64>,
    /// Pushes of one shard under way at a time [default: 4]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
}

impl SettingsArgs {
    /// Adds `settings` to the body of a request, if anything is given.
    pub(super) fn put_into(&self, body: &mut Value) {
        let Ok(Value::Object(mut settings)) = serde_json::to_value(self) else { return };
        settings.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
        if !settings.is_empty() {
            body["settings"] = Value::Object(settings);
        }
    }
}
