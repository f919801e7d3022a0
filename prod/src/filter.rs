//! Filters of all events: by the type of an event or the name of its stream, by prefixes or an expression.

use stormkeep_core::event::RecordedEvent;

/// Why a filter cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It says nothing.
    #[error("filter: give prefixes or an expression")]
    Empty,
    /// Its expression is none.
    #[error("filter.regex: {0}")]
    Expression(String),
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The type of an event.
    EventType,
    /// The name of its stream.
    StreamName,
}

/// See the module's docs.
#[derive(Debug, Clone)]
pub struct Filter {
    subject: Subject,
    pattern: Pattern,
}

#[derive(Debug, Clone)]
enum Pattern {
    Prefixes(Vec<String>),
    Expression(Box<regex::Regex>),
}

impl Filter {
    /// Whatever begins with one of `prefixes`.
    pub fn prefixes(subject: Subject, prefixes: Vec<String>) -> Result<Filter, InvalidFilter> {
        if prefixes.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        Ok(Filter { subject, pattern: Pattern::Prefixes(prefixes) })
    }

    /// Whatever an expression is found in.
    pub fn expression(subject: Subject, expression: &str) -> Result<Filter, InvalidFilter> {
        let regex = regex::Regex::new(expression)
            .map_err(|error| InvalidFilter::Expression(error.to_string()))?;
        Ok(Filter { subject, pattern: Pattern::Expression(Box::new(regex)) })
    }

    /// Whether an event passes.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let text = match self.subject {
            Subject::EventType => &event.event.kind,
            Subject::StreamName => event.stream.as_str(),
        };
        match &self.pattern {
            Pattern::Prefixes(prefixes) => prefixes.iter().any(|p| text.starts_with(p.as_str())),
            Pattern::Expression(regex) => regex.is_match(text),
        }
    }
}
