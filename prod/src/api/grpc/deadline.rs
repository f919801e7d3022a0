//! How long a call may take.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::trouble::Trouble;

/// How long an operation may take of which nothing is said.
const DEFAULT: Duration = Duration::from_secs(10);
/// How long one operation may take whatever is said: some clients mean "for ever" and say a number.
const MOST: Duration = Duration::from_secs(60);

/// When a call must have ended; `None`: nothing is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Nothing is said of it.
    pub(crate) const NONE: Deadline = Deadline(None);

    /// As `grpc-timeout` has it: up to eight digits and a unit.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Deadline, Trouble> {
        let Some(value) = metadata.get("grpc-timeout") else { return Ok(Deadline::NONE) };
        let text = value.to_str().unwrap_or_default();
        let timeout = parse(text).ok_or_else(|| {
            Trouble::invalid("grpc-timeout", format!("`{text}`; up to 8 digits and one of HMSmun"))
        })?;
        Ok(Deadline(Instant::now().checked_add(timeout)))
    }

    /// The earlier of this one and one so long from now.
    pub(crate) fn or_in(self, timeout: Duration) -> Deadline {
        let other = Instant::now().checked_add(timeout);
        Deadline(self.0.into_iter().chain(other).min())
    }

    /// How long an operation that begins now may take.
    pub(crate) fn left(self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        self.0.map_or(DEFAULT, left).min(MOST)
    }

    /// Whether the time is over.
    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// Ends when the time is over; never, if nothing is said of it.
    pub(crate) async fn over(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What to say then.
    pub(crate) fn trouble() -> Trouble {
        Trouble::Deadline("the deadline of the call has passed".into())
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(parse("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "S", "10", "-1S", "123456789S", "1s", "1é", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn the_earlier_deadline_holds_and_none_is_the_default() {
        let mut metadata = MetadataMap::new();
        let unsaid = Deadline::of(&metadata).unwrap();
        assert_eq!(unsaid.left(), DEFAULT);
        assert!(!unsaid.is_over());
        metadata.insert("grpc-timeout", "1H".parse().unwrap());
        let hour = Deadline::of(&metadata).unwrap();
        assert_eq!(hour.left(), MOST);
        assert!(hour.or_in(Duration::ZERO).is_over());
        assert_eq!(hour.or_in(Duration::MAX), hour);
        hour.or_in(Duration::ZERO).over().await;
        metadata.insert("grpc-timeout", "soon".parse().unwrap());
        let Err(Trouble::Invalid(why)) = Deadline::of(&metadata) else { panic!("it is taken") };
        assert!(why.starts_with("grpc-timeout: `soon`"), "{why}");
    }
}
