//! Groups as JSON: what the HTTP API takes and shows, and the shell sends.
//!
//! Times are whole milliseconds. What is not known is refused with the name that is near. What is absent is the default of a new
//! group, and stays as it is where a group is changed.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use stormkeep_core::{
    consume::NewGroup,
    filter::{Filter, Subject},
    group::{Form, Group, GroupId, Push, Settings, Start, Strategy, Target},
    time::GlobalPosition,
};

use super::parse_id;
use crate::{near, push};

/// A group as it is asked for. `number` and `replay_below` are told and not taken; they may stay in a group that was shown and is
/// made again elsewhere, but for a secret.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupInput {
    source: Option<String>,
    group: Option<String>,
    start: Option<Value>,
    filter: Option<Value>,
    target: Option<Value>,
    settings: SettingsInput,
    #[serde(rename = "number")]
    _number: Option<IgnoredAny>,
    #[serde(rename = "replay_below")]
    _replay_below: Option<IgnoredAny>,
}

impl GroupInput {
    /// That it is the group that the address names, if it says which.
    pub fn check_id(&self, source: &str, name: &str) -> Result<(), String> {
        for (field, told, named) in [("source", &self.source, source), ("group", &self.group, name)]
        {
            if told.as_deref().is_some_and(|told| told != named) {
                let told = told.as_deref().unwrap_or_default();
                return Err(format!("{field}: `{told}`, but the address says `{named}`"));
            }
        }
        Ok(())
    }

    /// The group that it says it is.
    pub fn id(&self) -> Result<GroupId, String> {
        let told = |field: &str, told: &Option<String>| {
            told.clone().ok_or_else(|| format!("{field}: it is missing"))
        };
        parse_id(&told("source", &self.source)?, &told("group", &self.group)?)
    }

    /// A group of this id, with all that is told.
    pub fn new_group(&self, id: GroupId) -> Result<NewGroup, String> {
        Ok(NewGroup {
            id,
            start: self.start()?,
            filter: self.filter()?,
            target: self.target(&Target::Consumers)?,
            settings: self.settings(&Settings::default())?,
        })
    }

    /// Where it begins.
    pub fn start(&self) -> Result<Start, String> {
        self.start.as_ref().map_or(Ok(Start::default()), start)
    }

    /// What its events must pass besides.
    pub fn filter(&self) -> Result<Option<Filter>, String> {
        match &self.filter {
            None | Some(Value::Null) => Ok(None),
            Some(value) => filter(value).map(Some),
        }
    }

    /// Who is given its events, of a group that has this target now.
    pub fn target(&self, now: &Target) -> Result<Target, String> {
        self.target.as_ref().map_or(Ok(now.clone()), |value| target(value, now))
    }

    /// How, of a group that has these settings now.
    pub fn settings(&self, now: &Settings) -> Result<Settings, String> {
        self.settings.over(now)
    }

    /// That it says nothing that cannot be changed.
    pub fn check_change(&self) -> Result<(), String> {
        for (field, told) in [("start", &self.start), ("filter", &self.filter)] {
            if told.is_some() {
                return Err(format!(
                    "{field}: it cannot be changed; delete the group and make it anew, or make another"
                ));
            }
        }
        Ok(())
    }
}

/// The settings that are told of a group.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct SettingsInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    message_timeout_ms: Option<u64>,
    max_retries: Option<u32>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
    buffer_max: Option<u32>,
    read_batch: Option<u32>,
    checkpoint_after_ms: Option<u64>,
    checkpoint_min: Option<u32>,
    checkpoint_max: Option<u32>,
    consumers_max: Option<u32>,
    in_flight_per_stream: Option<u32>,
    push: PushInput,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct PushInput {
    batch_events_max: Option<u32>,
    batch_bytes_max: Option<u32>,
    batch_wait_ms: Option<u64>,
    concurrency: Option<u32>,
}

impl SettingsInput {
    fn over(&self, now: &Settings) -> Result<Settings, String> {
        let millis = |told: Option<u64>, now: Duration| told.map_or(now, Duration::from_millis);
        let strategy = self.strategy.as_deref().map(parse_strategy).transpose()?;
        let push = Push {
            batch_events_max: self.push.batch_events_max.unwrap_or(now.push.batch_events_max),
            batch_bytes_max: self.push.batch_bytes_max.unwrap_or(now.push.batch_bytes_max),
            batch_wait: millis(self.push.batch_wait_ms, now.push.batch_wait),
            concurrency: self.push.concurrency.unwrap_or(now.push.concurrency),
        };
        Ok(Settings {
            strategy: strategy.unwrap_or(now.strategy),
            message_timeout: millis(self.message_timeout_ms, now.message_timeout),
            max_retries: self.max_retries.unwrap_or(now.max_retries),
            backoff_min: millis(self.backoff_min_ms, now.backoff_min),
            backoff_max: millis(self.backoff_max_ms, now.backoff_max),
            buffer_max: self.buffer_max.unwrap_or(now.buffer_max),
            read_batch: self.read_batch.unwrap_or(now.read_batch),
            checkpoint_after: millis(self.checkpoint_after_ms, now.checkpoint_after),
            checkpoint_min: self.checkpoint_min.unwrap_or(now.checkpoint_min),
            checkpoint_max: self.checkpoint_max.unwrap_or(now.checkpoint_max),
            consumers_max: self.consumers_max.unwrap_or(now.consumers_max),
            in_flight_per_stream: self.in_flight_per_stream.unwrap_or(now.in_flight_per_stream),
            resolve_links: now.resolve_links,
            extra_statistics: now.extra_statistics,
            push,
        })
    }

    fn of(settings: &Settings) -> Self {
        let push = &settings.push;
        SettingsInput {
            strategy: Some(strategy_name(settings.strategy).to_owned()),
            message_timeout_ms: Some(ms(settings.message_timeout)),
            max_retries: Some(settings.max_retries),
            backoff_min_ms: Some(ms(settings.backoff_min)),
            backoff_max_ms: Some(ms(settings.backoff_max)),
            buffer_max: Some(settings.buffer_max),
            read_batch: Some(settings.read_batch),
            checkpoint_after_ms: Some(ms(settings.checkpoint_after)),
            checkpoint_min: Some(settings.checkpoint_min),
            checkpoint_max: Some(settings.checkpoint_max),
            consumers_max: Some(settings.consumers_max),
            in_flight_per_stream: Some(settings.in_flight_per_stream),
            push: PushInput {
                batch_events_max: Some(push.batch_events_max),
                batch_bytes_max: Some(push.batch_bytes_max),
                batch_wait_ms: Some(ms(push.batch_wait)),
                concurrency: Some(push.concurrency),
            },
        }
    }
}

/// A group as it is shown. The secret of a webhook is not given out again.
pub fn group_json(group: &Group) -> Map<String, Value> {
    let settings = serde_json::to_value(SettingsInput::of(&group.settings));
    let shown = json!({
        "source": group.id.source.to_string(),
        "group": &*group.id.name,
        "number": group.number.0,
        "start": start_json(group.began),
        "filter": group.filter.as_ref().map(filter_json),
        "target": target_json(&group.target),
        // Numbers and text: the serialiser has no failure for it.
        "settings": settings.unwrap_or_default(),
        "replay_below": group.replay_below,
    });
    match shown {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

const STRATEGIES: [(&str, Strategy); 3] = [
    ("round-robin", Strategy::RoundRobin),
    ("dispatch-to-single", Strategy::DispatchToSingle),
    ("pinned", Strategy::Pinned),
];

fn parse_strategy(text: &str) -> Result<Strategy, String> {
    let found = STRATEGIES.iter().find(|(name, _)| *name == text);
    found.map(|(_, strategy)| *strategy).ok_or_else(|| {
        let hint = near::hint(text, STRATEGIES.iter().map(|(name, _)| *name));
        format!("settings.strategy: `{text}` is not known; {hint}")
    })
}

fn strategy_name(strategy: Strategy) -> &'static str {
    STRATEGIES.iter().find(|(_, known)| *known == strategy).map_or("", |(name, _)| name)
}

fn start(value: &Value) -> Result<Start, String> {
    let number = |value: &Value| match value {
        // Positions are told as text elsewhere, since JavaScript's numbers are too short for them.
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    match value {
        Value::String(text) if text == "beginning" => return Ok(Start::Beginning),
        Value::String(text) if text == "end" => return Ok(Start::End),
        Value::Object(object) if object.len() == 1 => {
            if let Some(revision) = object.get("revision").and_then(number) {
                return Ok(Start::Revision(revision));
            }
            if let Some(position) = object.get("position").and_then(number) {
                return Ok(Start::Position(GlobalPosition(position).min(GlobalPosition::END)));
            }
        }
        _ => {}
    }
    Err(format!(
        "start: `{value}`; one of \"end\", \"beginning\", {{\"revision\": N}} and {{\"position\": N}}"
    ))
}

fn start_json(start: Start) -> Value {
    match start {
        Start::Beginning => "beginning".into(),
        Start::End => "end".into(),
        Start::Revision(revision) => json!({ "revision": revision }),
        Start::Position(position) => json!({ "position": position.0 }),
    }
}

/// The names of the filters of `GET /all`, in the form that JSON has for them.
const FILTERS: [(&str, Subject, bool); 4] = [
    ("event_type_prefixes", Subject::EventType, true),
    ("stream_prefixes", Subject::StreamName, true),
    ("event_type_regex", Subject::EventType, false),
    ("stream_regex", Subject::StreamName, false),
];

fn filter(value: &Value) -> Result<Filter, String> {
    let one = value.as_object().filter(|object| object.len() == 1);
    let Some((name, value)) = one.and_then(|object| object.iter().next()) else {
        let known: Vec<&str> = FILTERS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("filter: an object with one of {}", known.join(", ")));
    };
    let Some((name, subject, is_prefixes)) = FILTERS.iter().find(|(known, ..)| known == name)
    else {
        let hint = near::hint(name, FILTERS.iter().map(|(name, ..)| *name));
        return Err(format!("filter.{name}: this filter is not known; {hint}"));
    };
    let filter = if *is_prefixes {
        let prefixes: Option<Vec<String>> = value
            .as_array()
            .map(|all| all.iter().map(|one| one.as_str().map(str::to_owned)))
            .and_then(Iterator::collect);
        let prefixes = prefixes.ok_or_else(|| format!("filter.{name}: a list of texts"))?;
        Filter::prefixes(*subject, prefixes)
    } else {
        let expression = value.as_str().ok_or_else(|| format!("filter.{name}: a text"))?;
        Filter::expression(*subject, expression)
    };
    filter.map_err(|error| format!("filter.{name}: {error}"))
}

fn filter_json(filter: &Filter) -> Value {
    // A filter is kept as its subject, its prefixes and its expression.
    let kept = serde_json::to_value(filter).unwrap_or_default();
    let is_prefixes = kept["expression"].is_null();
    let subject =
        if kept["subject"] == "EventType" { Subject::EventType } else { Subject::StreamName };
    let found = FILTERS.iter().find(|(_, s, p)| *s == subject && *p == is_prefixes);
    let name = found.map_or("", |(name, ..)| name);
    let what = if is_prefixes { &kept["prefixes"] } else { &kept["expression"] };
    json!({ name: what })
}

const FORMS: [(&str, Form); 2] = [("records", Form::Records), ("cloudevents", Form::CloudEvents)];

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let text = object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("target.{name}: a text that is not empty"))
}

fn target(value: &Value, now: &Target) -> Result<Target, String> {
    let known = |object: &Map<String, Value>, names: &[&'static str]| match object
        .keys()
        .find(|name| !names.contains(&name.as_str()))
    {
        Some(other) => {
            let hint = near::hint(other, names.iter().copied());
            Err(format!("target.{other}: this field is not known; {hint}"))
        }
        None => Ok(()),
    };
    // What is not told stays, if there is a handler already.
    let form = |object: &Map<String, Value>| {
        let Some(told) = object.get("form") else {
            return Ok(match now {
                Target::Lambda { form, .. } | Target::Webhook { form, .. } => *form,
                Target::Consumers => Form::default(),
            });
        };
        let found = FORMS.iter().find(|(name, _)| told == name);
        found.map(|(_, form)| *form).ok_or_else(|| {
            let hint = near::hint(told.as_str().unwrap_or_default(), FORMS.map(|(name, _)| name));
            format!("target.form: `{told}` is not known; {hint}")
        })
    };
    match value {
        Value::String(text) if text == "consumers" => Ok(Target::Consumers),
        Value::Object(object) if object.contains_key("lambda") => {
            known(object, &["lambda", "form"])?;
            Ok(Target::Lambda { function: text(object, "lambda")?.into(), form: form(object)? })
        }
        Value::Object(object) if object.contains_key("webhook") => {
            known(object, &["webhook", "secret", "form"])?;
            let url = text(object, "webhook")?;
            push::address(url).map_err(|_| {
                format!("target.webhook: `{url}` is no address: write https://host/path")
            })?;
            let secret = match (object.get("secret"), now) {
                // As it is shown, or not told: the one that is there.
                (None | Some(Value::Bool(true)), Target::Webhook { secret, .. }) => secret.clone(),
                (None | Some(Value::Null), _) => None,
                (Some(_), _) => {
                    let secret = text(object, "secret")?;
                    push::key(secret).map_err(|error| format!("target.secret: {error}"))?;
                    Some(secret.into())
                }
            };
            Ok(Target::Webhook { url: url.into(), secret, form: form(object)? })
        }
        _ => Err(format!(
            "target: `{value}`; one of \"consumers\", {{\"lambda\": \"ARN\"}} and {{\"webhook\": \"URL\", \"secret\": \"TEXT\"}}"
        )),
    }
}

fn target_json(target: &Target) -> Value {
    let (mut shown, form) = match target {
        Target::Consumers => return "consumers".into(),
        Target::Lambda { function, form } => (json!({ "lambda": &**function }), form),
        Target::Webhook { url, secret, form } => {
            let mut shown = json!({ "webhook": &**url });
            if secret.is_some() {
                shown["secret"] = true.into();
            }
            (shown, form)
        }
    };
    if let Some((name, _)) = FORMS.iter().find(|(_, known)| known == form) {
        shown["form"] = (*name).into();
    }
    shown
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
