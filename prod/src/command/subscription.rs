//! `stormkeep subscription`: groups (persistent subscriptions) over the HTTP API.

mod settings;

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    Failure,
    append::PATIENCE,
    client::{Answer, Call, Server, escaped},
    say,
};
use settings::SettingsArgs;

/// What is done with subscriptions.
#[derive(Debug, Subcommand)]
pub(super) enum Subscription {
    /// Make a group that reads a stream, a category, an event type or all events
    Create(CreateArgs),
    /// Change the settings or the target of a group; it goes on where it is, and what is not given stays
    Update(UpdateArgs),
    /// Delete a group; what it has parked stays in its stream
    Delete(NameArgs),
    /// Show all groups
    List {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show one group: its settings, how far it is, and what it has parked
    Show {
        #[command(flatten)]
        name: NameArgs,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the parked events of a group again
    Replay {
        #[command(flatten)]
        name: NameArgs,
        /// Only those below this revision of the parked stream
        #[arg(long, value_name = "REVISION")]
        stop_at: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// A stream, '$ce-CATEGORY', '$et-EVENTTYPE' or '$all' (in quotes: they are words of the shell's)
    source: String,
    /// The group's name
    group: String,
    #[command(flatten)]
    server: Server,
}

/// Who is given the events.
#[derive(Debug, Args)]
struct TargetArgs {
    /// Push the events to a Lambda function, by its name or ARN
    #[arg(long, value_name = "FUNCTION", conflicts_with = "webhook")]
    lambda: Option<String>,
    /// Push the events to a web address, by HTTP POST
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Sign the requests to the webhook with the secret in this file
    #[arg(long, value_name = "FILE", requires = "webhook")]
    secret_file: Option<PathBuf>,
    /// What the handler reads: records, or cloudevents [default: records]
    #[arg(long, value_parser = ["records", "cloudevents"], hide_possible_values = true)]
    form: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Where to begin: beginning, end, revision:N (of a stream), or position:N
    #[arg(long, default_value = "end", value_parser = start)]
    start: Value,
    /// Only types that begin so; may be given several times
    #[arg(long, value_name = "PREFIX", group = "filter")]
    type_prefix: Vec<String>,
    /// Only streams that begin so; may be given several times
    #[arg(long, value_name = "PREFIX", group = "filter")]
    stream_prefix: Vec<String>,
    /// Only types that this expression is found in
    #[arg(long, value_name = "REGEX", group = "filter")]
    type_regex: Option<String>,
    /// Only streams that this expression is found in
    #[arg(long, value_name = "REGEX", group = "filter")]
    stream_regex: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Push the events no more: consumers fetch them
    #[arg(long, conflicts_with_all = ["lambda", "webhook"])]
    consumers: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Subscription {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Subscription::Create(args) => {
                let body = args.body()?;
                args.name.change(Method::PUT, "", Some(body), "made").await
            }
            Subscription::Update(args) => {
                let body = args.body()?;
                args.name.change(Method::POST, "", Some(body), "changed").await
            }
            Subscription::Delete(name) => name.change(Method::DELETE, "", None, "deleted").await,
            Subscription::List { json, server } => list(&server, json).await,
            Subscription::Show { name, json } => name.show(json).await,
            Subscription::Replay { name, stop_at } => {
                let stop = stop_at.map(|revision| format!("?stop_at={revision}"));
                let more = format!("/replay{}", stop.unwrap_or_default());
                name.change(Method::POST, &more, None, "parked events are given again").await
            }
        }
    }
}

impl NameArgs {
    fn call(&self, method: Method, more: &str, body: Option<Value>) -> Call {
        let (source, group) = (escaped(&self.source), escaped(&self.group));
        Call {
            method,
            path: format!("/subscriptions/{source}/{group}{more}"),
            headers: Vec::new(),
            body: body.map(|body| Bytes::from(body.to_string())).unwrap_or_default(),
        }
    }

    /// Once: a repeat would find that it has happened.
    async fn change(
        &self,
        method: Method,
        more: &str,
        body: Option<Value>,
        done: &str,
    ) -> Result<(), Failure> {
        let call = self.call(method, more, body);
        self.server.client()?.send(&call).await?.well()?;
        say(&format!("{}::{}: {done}", self.source, self.group))
    }

    async fn show(&self, as_json: bool) -> Result<(), Failure> {
        let call = self.call(Method::GET, "", None);
        let answer = self.server.client()?.insist(&call, PATIENCE).await?.well()?;
        print(&answer, as_json, shown)
    }
}

async fn list(server: &Server, as_json: bool) -> Result<(), Failure> {
    let call = Call::get("/subscriptions".into());
    let answer = server.client()?.insist(&call, PATIENCE).await?.well()?;
    print(&answer, as_json, |all| {
        all["subscriptions"].as_array().into_iter().flatten().map(line).collect()
    })
}

fn print(
    answer: &Answer,
    as_json: bool,
    lines: impl Fn(&Value) -> Vec<String>,
) -> Result<(), Failure> {
    let document: Value = answer.json()?;
    if as_json {
        return say(&document.to_string());
    }
    // What a terminal would take for a command is shown and not sent.
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    lines(&document).iter().try_for_each(|line| say(&line.chars().map(plain).collect::<String>()))
}

/// `$ce-player::scores  lambda arn:…`
fn line(group: &Value) -> String {
    let text = |name: &str| group[name].as_str().unwrap_or("?").to_owned();
    format!("{}::{}  {}", text("source"), text("group"), to_whom(&group["target"]))
}

fn to_whom(target: &Value) -> String {
    let form = target["form"].as_str().filter(|form| *form != "records");
    let form = form.map(|form| format!(" ({form})")).unwrap_or_default();
    match (target["lambda"].as_str(), target["webhook"].as_str()) {
        (Some(function), _) => format!("lambda {function}{form}"),
        (_, Some(url)) => format!("webhook {url}{form}"),
        _ => "consumers".to_owned(),
    }
}

/// A line for the group, one for each setting, one for each unit, and what is parked.
fn shown(group: &Value) -> Vec<String> {
    let mut lines = vec![line(group)];
    for name in ["start", "filter"] {
        if !group[name].is_null() {
            lines.push(format!("  {name} {}", plain(&group[name])));
        }
    }
    for (name, value) in group["settings"].as_object().into_iter().flatten() {
        lines.push(format!("  {name} {}", plain(value)));
    }
    for unit in group["units"].as_array().into_iter().flatten() {
        lines.push(format!("  unit {}", plain(unit)));
    }
    lines.push(format!("  parked {}", plain(&group["parked"])));
    if group["partial"] == true {
        lines.push("  somebody who works on it could not be asked: the units are not all".into());
    }
    lines
}

/// `{"a":1,"b":"c"}` as `a 1, b c`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match value {
                Value::Object(_) => format!("{name} ({})", plain(value)),
                value => format!("{name} {}", plain(value)),
            });
            fields.collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

fn start(text: &str) -> Result<Value, String> {
    let number = |name: &str, text: &str| match text.parse::<u64>() {
        Ok(number) => Ok(json!({ name: number })),
        Err(_) => Err(format!("`{text}` is no number")),
    };
    match text.split_once(':') {
        None if ["beginning", "end"].contains(&text) => Ok(text.into()),
        Some(("revision", text)) => number("revision", text),
        Some(("position", text)) => number("position", text),
        _ => Err("write beginning, end, revision:N or position:N".to_owned()),
    }
}

impl TargetArgs {
    fn target(&self) -> Result<Option<Value>, Failure> {
        let mut target = match (&self.lambda, &self.webhook) {
            (Some(function), _) => json!({ "lambda": function }),
            (None, Some(url)) => json!({ "webhook": url }),
            (None, None) if self.form.is_some() => {
                return Err(Failure::Nonsense("--form: give --lambda or --webhook as well".into()));
            }
            (None, None) => return Ok(None),
        };
        if let Some(form) = &self.form {
            target["form"] = form.as_str().into();
        }
        if let Some(file) = &self.secret_file {
            let secret = std::fs::read_to_string(file);
            let secret = secret.map_err(|error| Failure::of_file(file, &error))?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            crate::push::key(secret).map_err(|error| {
                Failure::Nonsense(format!("--secret-file: {}: {error}", file.display()))
            })?;
            target["secret"] = secret.into();
        }
        Ok(Some(target))
    }
}

impl CreateArgs {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({ "start": self.start });
        let prefixes = |given: &[String]| (!given.is_empty()).then(|| json!(given));
        let filter = [
            ("event_type_prefixes", prefixes(&self.type_prefix)),
            ("stream_prefixes", prefixes(&self.stream_prefix)),
            ("event_type_regex", self.type_regex.as_ref().map(|regex| json!(regex))),
            ("stream_regex", self.stream_regex.as_ref().map(|regex| json!(regex))),
        ];
        if let Some((name, value)) = filter.into_iter().find_map(|(n, v)| Some((n, v?))) {
            body["filter"] = json!({ name: value });
        }
        if let Some(target) = self.target.target()? {
            body["target"] = target;
        }
        self.settings.put_into(&mut body);
        Ok(body)
    }
}

impl UpdateArgs {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = Value::Object(Map::new());
        if self.consumers {
            body["target"] = "consumers".into();
        } else if let Some(target) = self.target.target()? {
            body["target"] = target;
        }
        self.settings.put_into(&mut body);
        match body.as_object().is_some_and(Map::is_empty) {
            true => Err(Failure::Nonsense(
                "there is nothing to change: give a target or a setting".into(),
            )),
            false => Ok(body),
        }
    }
}

#[cfg(test)]
mod tests;
