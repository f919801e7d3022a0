//! Events as the shell has them: one a line.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::http::{EventInput, FormatName, present};

/// An event that was read: of a page, of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct EventLine {
    pub(super) stream: String,
    pub(super) revision: u64,
    pub(super) position: String,
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// For people: an import cannot set it.
    pub(super) created: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    format: FormatName,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
}

/// JSON that has a line break between its tokens.
fn broken(json: &Option<Box<RawValue>>) -> bool {
    json.as_ref().is_some_and(|json| json.get().contains(['\n', '\r']))
}

impl EventLine {
    /// The line, in which every byte of the payload is kept: JSON with line breaks goes as base64.
    pub(super) fn exact(mut self) -> serde_json::Result<String> {
        let encode = |json: Option<Box<RawValue>>| json.map(|json| BASE64.encode(json.get()));
        if broken(&self.data) {
            self.data_base64 = encode(self.data.take());
        }
        if broken(&self.metadata) {
            self.metadata_base64 = encode(self.metadata.take());
        }
        serde_json::to_string(&self)
    }

    /// The line, for programs: line breaks between the tokens of JSON are blanks.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string(self)?.replace(['\n', '\r'], " "))
    }

    /// The line, for people.
    pub(super) fn text(&self) -> String {
        let data = match (&self.data, &self.data_base64) {
            (Some(json), _) => json.get().replace(['\n', '\r'], " "),
            (None, Some(text)) => format!("base64:{text}"),
            (None, None) => String::new(),
        };
        let EventLine { stream, revision, created, kind, .. } = self;
        // What a terminal would take for a command is shown and not sent.
        let shown = format!("{created}  {stream}@{revision}  {kind}  {data}");
        shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }

    /// The event, to be sent.
    pub(super) fn into_input(self) -> EventInput {
        EventInput {
            id: Some(self.id),
            kind: self.kind,
            data: self.data,
            data_base64: self.data_base64,
            format: Some(self.format),
            metadata: self.metadata,
            metadata_base64: self.metadata_base64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &str) -> EventLine {
        let head = r#""stream":"s","revision":1,"position":"5","id":"6d63d7a4-0000-4000-8000-000000000000","type":"t","created":"2026-01-01T00:00:00.000000Z""#;
        serde_json::from_str(&format!("{{{head},{fields}}}")).unwrap()
    }

    #[test]
    fn an_export_keeps_every_byte_on_one_line() {
        let exact =
            line("\"data\":{\"a\":\n1.0},\"format\":\"json\",\"metadata\":[ ]").exact().unwrap();
        assert!(
            exact.contains(r#""dataBase64":"eyJhIjoKMS4wfQ==","format":"json","metadata":[ ]"#),
            "{exact}"
        );
        let again: EventLine = serde_json::from_str(&exact).unwrap();
        let event = again.into_input().event(|| unreachable!()).unwrap();
        assert_eq!(&event.data[..], b"{\"a\":\n1.0}");
        assert_eq!(&event.metadata[..], b"[ ]");
    }

    #[test]
    fn a_terminal_is_not_sent_commands() {
        let mut line = line("\"dataBase64\":\"AA==\",\"format\":\"bytes\"");
        line.kind = "t\u{1b}[2J".into();
        assert!(line.text().ends_with("s@1  t\u{fffd}[2J  base64:AA=="), "{}", line.text());
    }
}
