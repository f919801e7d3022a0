//! What a handler answers: nothing, and all is handled; or `batchItemFailures`, and those that it names are not.
//!
//! The names and the rules are those of Lambda's event sources. As with SQS, and not as with Kinesis, an event that is not named
//! is handled, wherever it stands; but an event behind one that failed in its stream is given again whatever was said of it. An
//! answer that cannot be understood, or names what was not sent, is a failure of the whole.
//!
//! Source: AWS Lambda developer guide, "Reporting batch item failures"; read 2026-03.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use stormkeep_core::{
    consume::{Given, shortened},
    env::Handled,
};

use super::trouble::{Kind, Trouble};

/// What a failure is called that has no reason.
const NO_REASON: &str = "the handler named it in batchItemFailures";

/// Names what has failed.
const FAILURES: &str = "batchItemFailures";

/// Whether a name is almost that one: `BatchItemFailures`, `batch_item_failures`, `batchItemFailure`.
fn is_meant(name: &str) -> bool {
    let letters = name.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase());
    letters.collect::<String>().starts_with("batchitemfail")
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "batchItemFailures")]
    failures: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    item: Item,
    #[serde(default)]
    reason: Option<String>,
}

/// A position; as a number too, since a handler may have read it as one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Number(u64),
}

/// What became of each event that was sent.
pub(super) fn read(body: &[u8], sent: &[&Given]) -> Result<Vec<Handled>, Trouble> {
    let mut failed = failures(body).map_err(|what| Trouble::new(Kind::Nonsense, what))?;
    let mut stopped = BTreeSet::new();
    let handled = sent.iter().map(|given| {
        let stream = &given.event.stream;
        let reason = failed.remove(&given.event.position().to_string());
        match reason {
            _ if stopped.contains(stream) => Handled::NotKnown,
            Some(reason) => {
                stopped.insert(stream);
                Handled::Failed(reason)
            }
            None => Handled::Yes,
        }
    });
    let handled = handled.collect();
    match failed.keys().next() {
        Some(unknown) => {
            let what = format!(
                "batchItemFailures: `{}` is not the position of an event that was sent",
                shortened(unknown)
            );
            Err(Trouble::new(Kind::Nonsense, what))
        }
        None => Ok(handled),
    }
}

/// The positions of what failed, and why.
fn failures(body: &[u8]) -> Result<BTreeMap<String, String>, String> {
    // What is neither object nor list says nothing of items: `null`, `"done"`, or the page of a web server.
    if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Ok(BTreeMap::new());
    }
    let nonsense = |error: serde_json::Error| format!("the handler's answer: {error}");
    let value: Value = serde_json::from_slice(body).map_err(nonsense)?;
    let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
    if let Some(name) = names.filter(|name| *name != FAILURES).find(|name| is_meant(name)) {
        return Err(format!("the handler's answer: `{}`: write {FAILURES}", shortened(name)));
    }
    if value.is_array() {
        return Err(format!("the handler's answer: a list; write {{\"{FAILURES}\": [...]}}"));
    }
    let answer: Answer = serde_json::from_value(value).map_err(nonsense)?;
    let failures = answer.failures.unwrap_or_default().into_iter().map(|failure| {
        let item = match failure.item {
            Item::Text(text) => text,
            Item::Number(number) => number.to_string(),
        };
        let reason = failure.reason.as_deref().map_or_else(|| NO_REASON.to_owned(), shortened);
        (item, reason)
    });
    Ok(failures.collect())
}

#[cfg(test)]
mod tests {
    use super::{super::payload::tests::given, *};

    fn of(body: &str, events: &[Given]) -> Result<Vec<Handled>, Trouble> {
        read(body.as_bytes(), &events.iter().collect::<Vec<_>>())
    }

    #[test]
    fn an_answer_that_names_nothing_handles_all() {
        let events = [given("a", 0, b"1"), given("a", 1, b"1")];
        for body in [
            "",
            "null",
            "\"done\"",
            "{}",
            "<html>",
            " {\"batchItemFailures\":[]}",
            "{\"batchItemFailures\":null,\"more\":1}",
        ] {
            assert_eq!(of(body, &events), Ok(vec![Handled::Yes; 2]), "{body}");
        }
    }

    #[test]
    fn what_is_named_has_failed_and_what_follows_it_waits() {
        let events =
            [given("a", 0, b"1"), given("b", 1, b"1"), given("a", 2, b"1"), given("c", 3, b"1")];
        let at = |n: usize| events[n].event.position().to_string();
        let body = format!(
            r#"{{"batchItemFailures":[{{"itemIdentifier":"{}","reason":"no such player"}},{{"itemIdentifier":{}}}]}}"#,
            at(0),
            at(3)
        );
        let expected = [
            Handled::Failed("no such player".into()),
            Handled::Yes,
            Handled::NotKnown,
            Handled::Failed(NO_REASON.into()),
        ];
        assert_eq!(of(&body, &events).unwrap(), expected);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_failure_of_the_whole() {
        let events = [given("a", 0, b"1")];
        for body in [
            "{",
            r#"[{"itemIdentifier":"1"}]"#,
            r#"{"batchItemFailure":[]}"#,
            r#"{"statusCode":200,"batch_item_failures":[{"itemIdentifier":"1"}]}"#,
            r#"{"batchItemFailures":7}"#,
            r#"{"batchItemFailures":[{"id":"1"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"17"}]}"#,
        ] {
            assert_eq!(of(body, &events).unwrap_err().kind, Kind::Nonsense, "{body}");
        }
    }
}
