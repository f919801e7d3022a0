//! Filters of all events: by the type of an event or the name of its stream, by prefixes or an expression.
//!
//! An expression is one of Perl's kind, searched for anywhere in the text. Most are matched in a time linear in the
//! text. Those with look-around, such as the one that the Python client sends to leave out system events, are
//! matched by backtracking in a bounded number of steps; a text that needs more counts as a match, since whoever is
//! told too much can drop it, and whoever is told too little never learns of it.

use serde::{Deserialize, Serialize};

use crate::event::RecordedEvent;

/// Bytes of an expression at the most.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// Bytes of a compiled expression at the most.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Steps back that one match may take.
const BACKTRACKS_MAX: usize = 10_000;
/// Prefixes of one filter at the most.
pub const PREFIXES_MAX: usize = 1000;

/// Why a filter cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It says nothing.
    #[error("filter: give prefixes or an expression")]
    Empty,
    /// It has more than [`PREFIXES_MAX`] prefixes.
    #[error("filter.prefix: {0} prefixes; at most {PREFIXES_MAX}")]
    TooManyPrefixes(usize),
    /// Its expression is longer than [`EXPRESSION_BYTES_MAX`].
    #[error("filter.regex: {0} bytes; at most {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
    /// Its expression is none.
    #[error("filter.regex: {0}")]
    Expression(String),
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The type of an event.
    EventType,
    /// The name of its stream.
    StreamName,
}

/// See the module's docs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Told", into = "Told")]
pub struct Filter {
    subject: Subject,
    pattern: Pattern,
}

#[derive(Debug, Clone)]
enum Pattern {
    Prefixes(Vec<String>),
    Expression(Box<fancy_regex::Regex>),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Pattern::Prefixes(a), Pattern::Prefixes(b)) => a == b,
            (Pattern::Expression(a), Pattern::Expression(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}
impl Eq for Pattern {}

/// A filter as it is kept and sent: what it was made of.
#[derive(Serialize, Deserialize)]
struct Told {
    subject: Subject,
    prefixes: Vec<String>,
    expression: Option<String>,
}

impl TryFrom<Told> for Filter {
    type Error = InvalidFilter;
    fn try_from(told: Told) -> Result<Self, Self::Error> {
        match told.expression {
            Some(expression) => Filter::expression(told.subject, &expression),
            None => Filter::prefixes(told.subject, told.prefixes),
        }
    }
}

impl From<Filter> for Told {
    fn from(filter: Filter) -> Self {
        let (prefixes, expression) = match filter.pattern {
            Pattern::Prefixes(prefixes) => (prefixes, None),
            Pattern::Expression(regex) => (Vec::new(), Some(regex.as_str().to_owned())),
        };
        Told { subject: filter.subject, prefixes, expression }
    }
}

impl Filter {
    /// Whatever begins with one of `prefixes`.
    pub fn prefixes(subject: Subject, prefixes: Vec<String>) -> Result<Filter, InvalidFilter> {
        match prefixes.len() {
            0 => Err(InvalidFilter::Empty),
            count if count > PREFIXES_MAX => Err(InvalidFilter::TooManyPrefixes(count)),
            _ => Ok(Filter { subject, pattern: Pattern::Prefixes(prefixes) }),
        }
    }

    /// Whatever an expression is found in.
    pub fn expression(subject: Subject, expression: &str) -> Result<Filter, InvalidFilter> {
        match expression.len() {
            0 => return Err(InvalidFilter::Empty),
            bytes if bytes > EXPRESSION_BYTES_MAX => return Err(InvalidFilter::TooLong(bytes)),
            _ => {}
        }
        let regex = fancy_regex::RegexBuilder::new(expression)
            .backtrack_limit(BACKTRACKS_MAX)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .delegate_dfa_size_limit(COMPILED_BYTES_MAX)
            .max_prog_size(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| InvalidFilter::Expression(error.to_string()))?;
        Ok(Filter { subject, pattern: Pattern::Expression(Box::new(regex)) })
    }

    /// Whether an event passes.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        self.passes(match self.subject {
            Subject::EventType => &event.event.kind,
            Subject::StreamName => event.stream.as_str(),
        })
    }

    fn passes(&self, text: &str) -> bool {
        match &self.pattern {
            Pattern::Prefixes(prefixes) => prefixes.iter().any(|p| text.starts_with(p.as_str())),
            Pattern::Expression(regex) => regex.is_match(text).unwrap_or(true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_kept_as_what_it_was_made_of() {
        for filter in [
            expression("^order-[0-9]").unwrap(),
            Filter::prefixes(Subject::StreamName, vec!["cart-".into()]).unwrap(),
        ] {
            let kept = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&kept).unwrap(), filter);
        }
        let bad = r#"{"subject":"EventType","prefixes":[],"expression":"("}"#;
        assert!(serde_json::from_str::<Filter>(bad).is_err());
    }

    fn expression(expression: &str) -> Result<Filter, InvalidFilter> {
        Filter::expression(Subject::EventType, expression)
    }

    #[test]
    fn prefixes_are_alternatives() {
        let prefixes = vec!["order-".into(), "cart-".into()];
        let filter = Filter::prefixes(Subject::StreamName, prefixes).unwrap();
        assert!(filter.passes("order-1") && filter.passes("cart-"));
        assert!(!filter.passes("cart") && !filter.passes("my-order-1"));
        assert_eq!(
            Filter::prefixes(Subject::StreamName, vec![]).unwrap_err(),
            InvalidFilter::Empty
        );
        let many = vec![String::new(); 1001];
        let error = Filter::prefixes(Subject::StreamName, many).unwrap_err();
        assert_eq!(error, InvalidFilter::TooManyPrefixes(1001));
    }

    #[test]
    fn an_expression_is_searched_for_unless_it_is_anchored() {
        let found = expression("include").unwrap();
        assert!(found.passes("to-include-it") && !found.passes("to-exclude-it"));
        let no_system_event = expression(r"^[^\$].*").unwrap();
        assert!(no_system_event.passes("order-placed") && !no_system_event.passes("$metadata"));
    }

    #[test]
    fn what_the_python_client_leaves_out_is_left_out() {
        let filter = expression(r"^(?!(\$.+$|PersistentConfig\d+$|Result$))").unwrap();
        for out in ["$metadata", "PersistentConfig1", "Result"] {
            assert!(!filter.passes(out), "{out}");
        }
        for told in ["OrderPlaced", "PersistentConfig", "Results", ""] {
            assert!(filter.passes(told), "{told}");
        }
        assert!(!expression("^(?!(.*$))").unwrap().passes("anything"));
    }

    #[test]
    fn a_bad_or_boundless_expression_is_refused_by_name() {
        for bad in ["(", "a{4294967296}", &"(a|b)".repeat(1000), r"(\w{1000}){1000}"] {
            let error = expression(bad).unwrap_err().to_string();
            assert!(error.starts_with("filter.regex: "), "{error}");
        }
        assert_eq!(expression("").unwrap_err(), InvalidFilter::Empty);
    }

    #[test]
    fn a_match_that_needs_too_many_steps_passes() {
        let filter = expression(r"^(?=(a+)+$)(?!b)x").unwrap();
        assert!(!filter.passes("b"));
        let filter = expression(r"^(a|a|\1x)+$(?<!c)").unwrap();
        assert!(filter.passes(&format!("{}b", "a".repeat(60))));
    }
}
