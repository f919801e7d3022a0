//! **Live**: when faults stop, every call ends, every shard has an owner and lag returns to zero within a
//! stated time.
//!
//! What is claimed: the world came to rest ([`Rest::rested_at`](super::Rest::rested_at)), and not later
//! than [`Rest::limit`](super::Rest::limit) after the faults had stopped. Whoever runs the world says what rest is.

use super::{
    Promise, Violation, broken,
    judged::{Judged, Time},
};

/// Complaints that are named at the most.
const NAMED_MAX: usize = 5;

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let rest = &judged.evidence.rest;
    let due = rest.healed_at.saturating_add(rest.limit);
    if rest.rested_at.is_some_and(|at| at <= due) {
        return Vec::new();
    }
    let expected = format!(
        "all well by {}: {} after the faults stopped at {}",
        Time(due),
        Time(rest.limit),
        Time(rest.healed_at)
    );
    let mut seen = match rest.rested_at {
        Some(at) => format!("well only at {}", Time(at)),
        None => "never well".to_owned(),
    };
    for unwell in rest.unwell.iter().take(NAMED_MAX) {
        seen.push_str("; ");
        seen.push_str(unwell);
    }
    if rest.unwell.len() > NAMED_MAX {
        seen.push_str(&format!("; and {} more", rest.unwell.len() - NAMED_MAX));
    }
    vec![broken(Promise::Live, due, expected, seen)]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn rest_in_time_is_fine_and_to_the_limit() {
        let mut case = Case::new();
        assert_eq!(case.seen(check), "");
        case.evidence.rest.rested_at = Some(1_000_000);
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn late_rest_is_found() {
        let mut case = Case::new();
        case.evidence.rest.rested_at = Some(1_000_001);
        assert!(case.seen(check).contains("well only at 0.001000s / 1000000"));
    }

    #[test]
    fn no_rest_is_found_and_says_what_is_wrong() {
        let mut case = Case::new();
        case.evidence.rest.rested_at = None;
        case.evidence.rest.unwell = (0..7).map(|n| format!("shard s{n} has no owner")).collect();
        let seen = case.seen(check);
        assert!(seen.contains("never well; shard s0 has no owner; shard s1"));
        assert!(seen.contains("s4 has no owner; and 2 more"));
    }
}
