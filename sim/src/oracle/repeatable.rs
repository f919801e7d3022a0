//! **Repeatable**: the same seed, scenario and binary give the same run, event for event.
//!
//! What is claimed: two traces are equal. The first place where they part is the clue: what the world did
//! there depended on something besides the seed.

use super::{Promise, Violation, broken, judged::Time};
use crate::trace::TraceEvent;

/// Compares the traces of two runs of one plan.
pub fn compare(first: &[TraceEvent], second: &[TraceEvent]) -> Option<Violation> {
    let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let (a, b) = (first.get(same), second.get(same));
    let at = match (a, b) {
        (None, None) => return None,
        (Some(a), Some(b)) => a.at.min(b.at),
        (Some(one), None) | (None, Some(one)) => one.at,
    };
    let expected = format!("event {same} of both runs: {}", words(a));
    Some(broken(Promise::Repeatable, at, expected, format!("in the second run: {}", words(b))))
}

fn words(event: Option<&TraceEvent>) -> String {
    let Some(TraceEvent { at, what, node, detail }) = event else {
        return "the end of the run".to_owned();
    };
    match *node {
        TraceEvent::NOWHERE => format!("{what} at {}, detail {detail}", Time(*at)),
        node => format!("{what} at {} on n{node}, detail {detail}", Time(*at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: [TraceEvent; 3] = [
        TraceEvent { at: 1000, what: "put", node: 2, detail: 7 },
        TraceEvent { at: 2000, what: "heal", node: TraceEvent::NOWHERE, detail: 0 },
        TraceEvent { at: 3000, what: "put", node: 1, detail: 8 },
    ];

    #[test]
    fn equal_runs_are_fine() {
        assert_eq!(compare(&RUN, &RUN), None);
        assert_eq!(compare(&[], &[]), None);
    }

    #[test]
    fn the_first_difference_is_named() {
        let mut other = RUN;
        other[1].at = 1500;
        other[2].detail = 9;
        let found = compare(&RUN, &other).map(|v| (v.at, v.expected, v.seen));
        let expected = "event 1 of both runs: heal at 0.000002s, detail 0".to_owned();
        let seen = "in the second run: heal at 0.000001s, detail 0".to_owned();
        assert_eq!(found, Some((1500, expected, seen)));
    }

    #[test]
    fn a_run_that_ends_sooner_is_named() {
        let found = compare(&RUN, &RUN[..2]);
        assert!(found.is_some_and(|v| v.at == 3000
            && v.expected.contains("put at 0.000003s on n1, detail 8")
            && v.seen == "in the second run: the end of the run"));
        assert!(compare(&RUN[..2], &RUN).is_some_and(|v| v.at == 3000));
    }
}
