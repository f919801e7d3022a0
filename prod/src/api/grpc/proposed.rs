//! The events of an append, from what is proposed of them. Of what comes in, no more is kept than an append may have: an
//! event's bytes are copied out of the message that brought them, which may be many times as large.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};
use stormkeep_core::{
    event::{Event, EventId, Format},
    head::TOMBSTONE,
    limits::{ENTRY_BYTES_MAX, EVENTS_PER_APPEND_MAX, InvalidAppend},
};

use super::{
    proto::event_store::client::{Property, Uuid},
    request,
    trouble::Trouble,
};

const TYPE: &str = "type";
const CONTENT_TYPE: &str = "content-type";

/// The protocol's `AppendReq.ProposedMessage`. Of its metadata, a `map<string, string>`, only what means something here is
/// kept: a list of empty entries would take thirty times the bytes that were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Proposed {
    /// Its id; an event must have one.
    pub id: Option<Uuid>,
    /// Its type, UTF-8; an event must have one.
    pub kind: Option<Bytes>,
    /// What its data is, UTF-8; an event must have that.
    pub content_type: Option<Bytes>,
    /// What its writer says about it.
    pub custom_metadata: Bytes,
    /// What its writer says.
    pub data: Bytes,
}

/// Numbers of its fields.
mod number {
    pub(super) const ID: u32 = 1;
    pub(super) const METADATA: u32 = 2;
    pub(super) const CUSTOM_METADATA: u32 = 3;
    pub(super) const DATA: u32 = 4;
}

impl Proposed {
    fn properties(&self) -> impl Iterator<Item = Property> {
        let property = |key: &'static str, value: &Option<Bytes>| {
            Some(Property { key: Bytes::from_static(key.as_bytes()), value: value.clone()? })
        };
        [property(TYPE, &self.kind), property(CONTENT_TYPE, &self.content_type)]
            .into_iter()
            .flatten()
    }

    fn payloads(&self) -> impl Iterator<Item = (u32, &Bytes)> {
        let payloads =
            [(number::CUSTOM_METADATA, &self.custom_metadata), (number::DATA, &self.data)];
        payloads.into_iter().filter(|(_, bytes)| !bytes.is_empty())
    }
}

impl Message for Proposed {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(id) = &self.id {
            encoding::message::encode(number::ID, id, buf);
        }
        for property in self.properties() {
            encoding::message::encode(number::METADATA, &property, buf);
        }
        for (number, bytes) in self.payloads() {
            encoding::bytes::encode(number, bytes, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            number::ID => {
                encoding::message::merge(wire_type, self.id.get_or_insert_default(), buf, ctx)
            }
            number::METADATA => {
                let mut property = Property::default();
                encoding::message::merge(wire_type, &mut property, buf, ctx)?;
                // Of two with one key the last holds.
                if property.key == TYPE {
                    self.kind = Some(property.value);
                } else if property.key == CONTENT_TYPE {
                    self.content_type = Some(property.value);
                }
                Ok(())
            }
            number::CUSTOM_METADATA => {
                encoding::bytes::merge(wire_type, &mut self.custom_metadata, buf, ctx)
            }
            number::DATA => encoding::bytes::merge(wire_type, &mut self.data, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let id = self.id.as_ref().map_or(0, |id| encoding::message::encoded_len(number::ID, id));
        let properties = self.properties();
        let properties = properties.map(|it| encoding::message::encoded_len(number::METADATA, &it));
        let payloads = self.payloads().map(|(number, it)| encoding::bytes::encoded_len(number, it));
        id + properties.sum::<usize>() + payloads.sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Proposed::default();
    }
}

/// The events of one append as they come in. It holds no more than an append may have.
#[derive(Default)]
pub(crate) struct Events {
    events: Vec<Event>,
    bytes: usize,
}

impl Events {
    /// Takes the next event.
    pub(crate) fn push(&mut self, proposed: Proposed) -> Result<(), Trouble> {
        let index = self.events.len();
        if index == EVENTS_PER_APPEND_MAX {
            return Err(InvalidAppend::TooManyEvents { count: index + 1 }.into());
        }
        let event = event(index, proposed)?;
        self.bytes += event.bytes();
        if self.bytes > ENTRY_BYTES_MAX {
            return Err(InvalidAppend::AppendTooLarge { bytes: self.bytes }.into());
        }
        self.events.push(event);
        Ok(())
    }

    /// Takes the next event, as it was sent.
    pub(crate) fn push_encoded(&mut self, proposed: Bytes) -> Result<(), Trouble> {
        let proposed = Proposed::decode(proposed)
            .map_err(|error| Trouble::invalid(&format!("events[{}]", self.events.len()), error))?;
        self.push(proposed)
    }

    /// Bytes of the events so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them.
    pub(crate) fn done(self) -> Arc<[Event]> {
        self.events.into()
    }
}

fn event(index: usize, proposed: Proposed) -> Result<Event, Trouble> {
    let Proposed { id, kind, content_type, custom_metadata, data } = proposed;
    let id = EventId(request::id(format_args!("events[{index}].id"), id.as_ref())?);
    let field = |name: &str| format!("events[{index}].metadata[{name}]");
    let kind = text(&kind, TYPE, field)?;
    if kind.is_empty() {
        return Err(Trouble::invalid(&field(TYPE), "empty; give the event a type"));
    }
    if kind == TOMBSTONE {
        let why = format!("`{TOMBSTONE}` is what Tombstone writes; call it instead");
        return Err(Trouble::invalid(&field(TYPE), why));
    }
    let format = match text(&content_type, CONTENT_TYPE, field)? {
        "application/json" => Format::Json,
        "application/octet-stream" => Format::Bytes,
        other => {
            let why = format!("`{other}`; one of application/json and application/octet-stream");
            return Err(Trouble::invalid(&field(CONTENT_TYPE), why));
        }
    };
    let [data, metadata] = [data, custom_metadata].map(|bytes| Bytes::copy_from_slice(&bytes));
    Ok(Event { id, kind: kind.into(), format, data, metadata })
}

fn text<'a>(
    value: &'a Option<Bytes>,
    name: &'static str,
    field: impl Fn(&str) -> String,
) -> Result<&'a str, Trouble> {
    let value = value.as_ref().ok_or(Trouble::MissingProperty(name))?;
    std::str::from_utf8(value)
        .map_err(|error| Trouble::invalid(&field(name), format!("not UTF-8: {error}")))
}

#[cfg(test)]
#[path = "proposed_tests.rs"]
mod tests;
