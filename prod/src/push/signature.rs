//! Signatures of webhooks: HMAC-SHA256 over the id, the time and the body.
//!
//! Source: Standard Webhooks, specification 1.0.0, "Signature scheme" and "Webhook headers"; read 2026-03.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use stormkeep_core::{
    consume::{Given, Unit},
    group::GroupId,
};

/// What a secret begins with whose key is in base64.
const PREFIX: &str = "whsec_";

/// A secret cannot be a key. Outcome: *no*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// It has no bytes.
    #[error("secret: it is empty; leave it out, or give a text of 24 characters and more")]
    Empty,
    /// Its prefix says that it is base64, and it is not.
    #[error(
        "secret: behind `whsec_` stands no base64: copy it whole, or give a text without this prefix"
    )]
    NoBase64,
}

/// The key that a secret stands for: of `whsec_` and base64 the bytes, of any other text the text.
pub fn key(secret: &str) -> Result<Vec<u8>, InvalidSecret> {
    let key = match secret.strip_prefix(PREFIX) {
        Some(text) => BASE64.decode(text).map_err(|_| InvalidSecret::NoBase64)?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() { Err(InvalidSecret::Empty) } else { Ok(key) }
}

/// The signature, as it stands in the header `webhook-signature`. The time is in seconds since 1970-01-01 UTC.
pub fn sign(key: &[u8], id: &str, time_s: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{time_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

/// Names a request: the same for the same events under one lease of their shard, each tried as often as before. So a receiver
/// that remembers the ids that it answered drops only what it has handled: an event that it failed comes under another id,
/// also when the next holder of the shard, or a replay, has forgotten that failure.
pub(super) fn message_id(group: &GroupId, unit: Unit, sent: &[&Given]) -> String {
    let mut hash = Sha256::new();
    hash.update(group.to_string());
    hash.update([0]);
    hash.update(unit.group.0.to_be_bytes());
    hash.update(unit.shard.0.to_be_bytes());
    hash.update(unit.lease.to_be_bytes());
    hash.update([u8::from(unit.replay)]);
    for given in sent {
        hash.update([0]);
        hash.update(given.place.to_be_bytes());
        hash.update(given.event.position().0.to_be_bytes());
        hash.update(given.retries.to_be_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use stormkeep_core::{group::GroupNumber, shard::ShardId};

    use super::{
        super::payload::tests::{given, group},
        *,
    };

    #[test]
    fn the_published_example_is_signed_as_published() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = sign(&key, id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_a_text_or_base64() {
        assert_eq!(key("plain").unwrap(), b"plain");
        assert_eq!(key("whsec_AAE=").unwrap(), [0, 1]);
        assert_eq!(key("whsec_*"), Err(InvalidSecret::NoBase64));
        assert_eq!(key("whsec_"), Err(InvalidSecret::Empty));
        assert_eq!(key(""), Err(InvalidSecret::Empty));
    }

    #[test]
    fn an_id_stays_until_an_event_has_failed() {
        let (a, b) = (given("a", 0, b"1"), given("b", 1, b"1"));
        let unit = Unit { group: GroupNumber(1), shard: ShardId(0), lease: 3, replay: false };
        let id = message_id(&group(), unit, &[&a, &b]);
        assert_eq!(message_id(&group(), unit, &[&a, &b]), id);
        assert_ne!(message_id(&group(), unit, &[&a]), id);
        let again = Given { retries: a.retries + 1, ..a.clone() };
        assert_ne!(message_id(&group(), unit, &[&again, &b]), id);
        // Who comes after a crash begins to count anew, and a replay does.
        assert_ne!(message_id(&group(), Unit { lease: 5, ..unit }, &[&a, &b]), id);
        assert_ne!(message_id(&group(), Unit { replay: true, ..unit }, &[&a, &b]), id);
    }
}
