//! Tables `[[subscription]]`: what is in them is what the HTTP API takes, but that the secret of a webhook is in a file of its own.

use std::fs;

use serde_json::Value;
use stormkeep_core::consume::NewGroup;

use crate::{group::json::GroupInput, near};

/// A table makes no sense. The text names it, its field and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription {name:?}: {what}")]
pub struct InvalidEntry {
    /// What it reads and its name, as they are written.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

/// The groups of all tables, each but once. Reads the files with secrets.
pub fn groups(tables: Vec<Value>) -> Result<Vec<NewGroup>, InvalidEntry> {
    let mut groups: Vec<NewGroup> = Vec::with_capacity(tables.len());
    for table in tables {
        let text = |field: &str| table[field].as_str().unwrap_or("?").to_owned();
        let name = format!("{}::{}", text("source"), text("group"));
        let invalid = |what| InvalidEntry { name: name.clone(), what };
        let group = group(table).map_err(invalid)?;
        if groups.iter().any(|other| other.id == group.id) {
            return Err(invalid("it is there twice: leave one out".to_owned()));
        }
        groups.push(group);
    }
    Ok(groups)
}

fn group(mut table: Value) -> Result<NewGroup, String> {
    if let Some(target) = table.get_mut("target").and_then(Value::as_object_mut) {
        if target.contains_key("secret") {
            return Err("target.secret: keep it in a file of its own: secret_file".to_owned());
        }
        if let Some(file) = target.remove("secret_file") {
            target.insert("secret".to_owned(), secret(&file)?.into());
        }
    }
    let input: GroupInput = serde_json::from_value(table).map_err(|error| {
        let said = error.to_string();
        near::unknown(&said).unwrap_or(said)
    })?;
    let group = input.new_group(input.id()?)?;
    group.settings.check().map_err(|error| error.to_string())?;
    Ok(group)
}

/// What is in the file of a secret, without the line's end.
fn secret(file: &Value) -> Result<String, String> {
    let Some(path) = file.as_str() else {
        return Err(format!("target.secret_file: `{file}`; the path of a file"));
    };
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("target.secret_file: {path}: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use std::time::Duration;

    use serde::Deserialize;
    use stormkeep_core::group::{Form, Settings, Start, Strategy, Target};

    use super::*;

    #[derive(Deserialize)]
    struct File {
        subscription: Vec<Value>,
    }

    fn read(text: &str) -> Result<Vec<NewGroup>, String> {
        let text =
            text.replace("[[s]]", "[[subscription]]\nsource = \"$ce-player\"\ngroup = \"g\"");
        let file: File = toml::from_str(&text).map_err(|error| error.to_string())?;
        groups(file.subscription).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_is_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "whsec_AAE=\n").unwrap();
        let text = format!(
            "[[s]]\nstart = \"beginning\"\nfilter = {{ event_type_prefixes = [\"a\"] }}\n\
             target = {{ webhook = \"https://h/p\", secret_file = {file:?}, form = \"cloudevents\" }}\n\
             [subscription.settings]\nmax_retries = 3\nstrategy = \"pinned\"\npush = {{ batch_wait_ms = 5 }}\n\
             [[subscription]]\nsource = \"player-1\"\ngroup = \"h\"\nstart = {{ revision = 5 }}\ntarget = {{ lambda = \"f\" }}"
        );
        let made = read(&text).unwrap();
        let first = &made[0];
        assert_eq!(first.id.to_string(), "$ce-player::g");
        assert_eq!((first.start, first.settings.max_retries), (Start::Beginning, 3));
        assert_eq!(first.settings.strategy, Strategy::Pinned);
        assert_eq!(first.settings.push.batch_wait, Duration::from_millis(5));
        assert_eq!(first.settings.buffer_max, Settings::default().buffer_max);
        assert_eq!(
            first.target,
            Target::Webhook {
                url: "https://h/p".into(),
                secret: Some("whsec_AAE=".into()),
                form: Form::CloudEvents
            }
        );
        assert!(first.filter.is_some());
        assert_eq!(made[1].start, Start::Revision(5));
        assert_eq!(made[1].target, Target::Lambda { function: "f".into(), form: Form::Records });
        assert_eq!(read("[[s]]").unwrap()[0].target, Target::Consumers);
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        for (text, expected) in [
            ("[[s]]\n[[s]]", "it is there twice"),
            ("[[s]]\nstarts = 1", "unknown field `starts`: did you mean `start`?"),
            ("[[s]]\nsettings = { max_retry = 1 }", "did you mean `max_retries`?"),
            ("[[s]]\nsettings = { buffer_max = 0 }", "settings.buffer_max = 0: must be from 1"),
            ("[[s]]\nfilter = { event_type_regex = \"(\" }", "filter.event_type_regex: "),
            (
                "[[s]]\nfilter = { event_type_regex = \"a\", stream_regex = \"b\" }",
                "filter: an object with one of",
            ),
            (
                "[[s]]\ntarget = { lambda = \"f\", webhook = \"http://h\" }",
                "target.webhook: this field is not known",
            ),
            ("[[s]]\ntarget = { lambda = \"\" }", "target.lambda: a text that is not empty"),
            ("[[s]]\ntarget = { lambda = \"f\", secret_file = \"x\" }", "target.secret_file: x: "),
            ("[[s]]\ntarget = { webhook = \"host\" }", "target.webhook: `host` is no address"),
            (
                "[[s]]\ntarget = { webhook = \"http://h\", secret_file = \"/nowhere\" }",
                "target.secret_file: /nowhere: ",
            ),
            ("[[s]]\ntarget = { form = \"records\" }", "target: `"),
            (
                "[[s]]\ntarget = { webhook = \"http://h\", secret = \"x\" }",
                "target.secret: keep it in a file",
            ),
            ("[[subscription]]\nsource = \"$ce-\"\ngroup = \"g\"", "source: `$ce-` lacks the name"),
            ("[[subscription]]\nsource = \"$all\"\ngroup = \"\"", "group: the name is empty"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
