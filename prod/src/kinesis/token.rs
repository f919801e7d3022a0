//! The tokens of a read's cursor: where a reader of this log goes on.
//!
//! The service's iterator says which shard it belongs to only to the service, and nothing of what was read before it. So a
//! token carries the shard, so that it is never used for another, and the last position, so that a reader can prove that
//! nothing was dropped between that and the next record.

use std::{fmt, str::FromStr};

use stormkeep_core::{env::Position, shard::ShardId};

/// Where a read goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) shard: ShardId,
    /// The last position that was read, if any was.
    pub(super) last: Option<Position>,
    /// How the next page is got.
    pub(super) at: At,
}

/// See [`Token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// From an iterator of the service. `unseen` counts the empty pages of a reader that was opened at `last` and has not
    /// seen it again yet; `None`: it has, or there is nothing to prove.
    Iterator { iterator: String, unseen: Option<u32> },
    /// The `next`th page of a subscription of this process.
    Subscription { number: u64, next: u64 },
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.shard.0)?;
        if let Some(last) = self.last {
            write!(f, "{last}")?;
        }
        match &self.at {
            At::Iterator { iterator, unseen: None } => write!(f, "/i//{iterator}"),
            At::Iterator { iterator, unseen: Some(n) } => write!(f, "/i/{n}/{iterator}"),
            At::Subscription { number, next } => write!(f, "/s/{number}/{next}"),
        }
    }
}

/// Text is not a [`Token`] of this log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl FromStr for Token {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        // An iterator is base64 and may hold slashes: it comes last.
        let mut parts = text.splitn(5, '/');
        let mut part = || parts.next().ok_or(Foreign);
        let shard = ShardId(part()?.parse().map_err(|_| Foreign)?);
        let last = match part()? {
            "" => None,
            last => Some(last.parse().map_err(|_| Foreign)?),
        };
        let at = match (part()?, part()?, part()?) {
            ("i", "", iterator) => At::Iterator { iterator: iterator.to_owned(), unseen: None },
            ("i", unseen, iterator) => {
                let unseen = Some(unseen.parse().map_err(|_| Foreign)?);
                At::Iterator { iterator: iterator.to_owned(), unseen }
            }
            ("s", number, next) => {
                let number = number.parse().map_err(|_| Foreign)?;
                At::Subscription { number, next: next.parse().map_err(|_| Foreign)? }
            }
            _ => return Err(Foreign),
        };
        Ok(Token { shard, last, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        let iterator = |unseen| At::Iterator { iterator: "AAAA/b+c/=".into(), unseen };
        let last = "49590338271490256608559692538361571095921575989136588898".parse().ok();
        for at in [iterator(None), iterator(Some(7)), At::Subscription { number: 3, next: 9 }] {
            for last in [None, last] {
                let token = Token { shard: ShardId(12), last, at: at.clone() };
                assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
    }

    #[test]
    fn what_another_log_gave_is_not_taken() {
        for text in ["", "12", "1//x/", "x//i//y", "1//i/x/y", "1//s/1", "1//s/1/", "1/z/i//y"] {
            assert_eq!(text.parse::<Token>(), Err(Foreign), "{text}");
        }
    }
}
