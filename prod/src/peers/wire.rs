//! How a call looks on the wire.
//!
//! `POST /peer/call` with the headers below and a body: a byte with the version of the format, the CRC-32 of the rest (little
//! endian), and the rest: a [`Request`] or [`Response`] in postcard. All nodes of a cluster must speak one version; a node of
//! another turns the call away, so that a rolling upgrade may lose calls but never misreads one.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use stormkeep_core::{append::Response, env::NodeId, limits::ENTRY_BYTES_MAX};

pub(super) const PATH: &str = "/peer/call";
/// The node that a call is for.
pub(super) const TO: &str = "stormkeep-to";
/// Milliseconds until the caller gives up. Clocks differ, so it is no time of day.
pub(super) const LEFT_MS: &str = "stormkeep-left-ms";
/// On an answer: the door turned the request away, and its node has not seen it. The value says why.
pub(super) const TURNED_AWAY: &str = "stormkeep-turned-away";

/// Bytes of a request at the most: the largest append, and what frames it.
pub(super) const REQUEST_BYTES_MAX: usize = ENTRY_BYTES_MAX + 64 * 1024;
/// Bytes of an answer at the most. A page of events is smaller, as the APIs ask for it; a client that asks for thousands of
/// the largest events at once may be refused.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Bytes are no message of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbled {
    #[error("the message is of another version")]
    Version,
    #[error("the message is damaged")]
    Damaged,
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Bytes, postcard::Error> {
    let mut bytes = postcard::to_extend(message, vec![VERSION, 0, 0, 0, 0])?;
    let sum = crc32fast::hash(&bytes[HEADER_BYTES..]);
    bytes[1..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes.into())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Garbled> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Garbled::Damaged)?;
    if header[0] != VERSION {
        return Err(Garbled::Version);
    }
    if header[1..] != crc32fast::hash(body).to_le_bytes() {
        return Err(Garbled::Damaged);
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(Garbled::Damaged),
    }
}

/// A call, ready to be sent. An authority that is none is an error.
pub(super) fn call(
    to: NodeId,
    authority: &str,
    secret: Option<&str>,
    left: Duration,
    body: Bytes,
) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}{PATH}"))
        .header(TO, to.0)
        .header(LEFT_MS, u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    if let Some(secret) = secret {
        let mut bearer = HeaderValue::try_from(format!("Bearer {secret}"))?;
        bearer.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, bearer);
    }
    request.body(Full::new(body))
}

/// A number from a header.
pub(super) fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Why a door turned a request away. Its node has not seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The caller did not prove that it belongs to the cluster.
    Stranger,
    /// The request is for another node.
    Misdirected,
    /// The request is of another version, damaged, or too large.
    Garbled,
    /// Too many calls are under way.
    Busy,
}

impl Why {
    const ALL: [Why; 4] = [Why::Stranger, Why::Misdirected, Why::Garbled, Why::Busy];

    fn name(self) -> &'static str {
        match self {
            Why::Stranger => "stranger",
            Why::Misdirected => "misdirected",
            Why::Garbled => "garbled",
            Why::Busy => "busy",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Why::Stranger => StatusCode::UNAUTHORIZED,
            Why::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Why::Garbled => StatusCode::BAD_REQUEST,
            Why::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// Whether it lasts until somebody mends it.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self, Why::Stranger | Why::Garbled)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Stranger => {
                "it does not know the secret: peers.secret_file must be the same everywhere"
            }
            Why::Misdirected => "it is another node",
            Why::Garbled => "it cannot read the request: is it of another version?",
            Why::Busy => "too many calls are under way there",
        })
    }
}

/// What an answer is, if it is no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// The node has not seen the request.
    TurnedAway(Why),
    /// Nobody knows.
    Broken(String),
}

/// Reads the answer to a call.
pub(super) async fn answer(answer: http::Response<Incoming>) -> Result<Response, NoResponse> {
    let (head, body) = answer.into_parts();
    if let Some(why) = head.headers.get(TURNED_AWAY) {
        let why = Why::ALL.into_iter().find(|known| known.name().as_bytes() == why.as_bytes());
        return Err(NoResponse::TurnedAway(why.unwrap_or(Why::Garbled)));
    }
    if head.status != StatusCode::OK {
        return Err(NoResponse::Broken(format!("status {}", head.status)));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| NoResponse::Broken(error.to_string()))?.to_bytes();
    decode(&body).map_err(|error| NoResponse::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_never_read() {
        let message = (7u32, "player-42".to_owned(), vec![1u8, 2, 3]);
        let bytes = encode(&message).expect("it is encoded");
        assert_eq!(decode(&bytes), Ok(message));
        type Message = (u32, String, Vec<u8>);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let due = if at == 0 { Garbled::Version } else { Garbled::Damaged };
                assert_eq!(decode::<Message>(&flipped), Err(due), "bit {bit} of byte {at}");
            }
            assert!(decode::<Message>(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = encode(&((7u32, "x".to_owned(), vec![1u8]), 1u8)).expect("it is encoded");
        assert_eq!(decode::<Message>(&longer), Err(Garbled::Damaged), "something behind it");
    }
}
