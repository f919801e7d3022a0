use stormkeep_core::append::{AppendId, Appended, Expected::*};

use super::super::testing::{Answer, Case, metadata, name};
use super::*;
use Freshness::{Eventual, Strong};

fn refused(expected: Expected, actual: Option<u64>) -> Answer {
    Some(Err(AppendError::WrongExpectedRevision { expected, actual, described: false }))
}

#[test]
fn an_order_that_respects_real_time_is_fine() {
    let mut case = Case::new();
    case.read("a-1", Strong, 0, 10, None, (5, 15));
    let one = case.accept("a-1", 1, 2);
    case.ask("a-1", 1, 2, NoStream, (10, 20), Some(Ok(one.clone())));
    case.read("a-1", Strong, 0, 10, Some(1), (20, 25));
    let two = case.accept("a-1", 2, 1);
    case.ask("a-1", 2, 1, Exactly(1), (30, 60), Some(Ok(two)));
    // Concurrent with the append: either state is right, in any order of the answers.
    case.read("a-1", Strong, 0, 10, Some(2), (30, 40));
    case.read("a-1", Strong, 0, 10, Some(1), (35, 60));
    case.ask("a-1", 9, 1, NoStream, (70, 80), refused(NoStream, Some(2)));
    case.ask("a-1", 9, 1, StreamExists, (3, 4), refused(StreamExists, None));
    // A retry answered as a repeat, and an append that nobody was told of.
    case.ask("a-1", 1, 2, NoStream, (90, 95), Some(Ok(Appended { repeated: true, ..one })));
    case.ask("a-1", 3, 1, Any, (15, 0), None);
    case.accept("a-1", 3, 1);
    case.read("a-1", Strong, 0, 10, Some(3), (100, 110));
    case.read("a-1", Eventual, 0, 10, Some(1), (120, 130));
    case.read("b-1", Strong, 0, 10, None, (120, 130));
    // What an eventual read shows, a strong one may show later as well.
    case.read("a-1", Eventual, 0, 10, Some(3), (140, 150));
    case.read("a-1", Strong, 0, 10, Some(3), (160, 170));
    assert_eq!(case.seen(check), "");
}

#[test]
fn a_stale_read_is_found() {
    let mut case = Case::new();
    case.commit("a-1", 1, 1, (10, 20));
    case.commit("a-1", 2, 1, (30, 40));
    case.read("a-1", Strong, 0, 10, Some(0), (40, 50));
    assert_eq!(case.seen(check), "");
    case.read("a-1", Strong, 0, 10, Some(0), (41, 55));
    let seen = case.seen(check);
    assert!(seen.contains("append 2 of a-1 at revision 1"), "{seen}");
    assert!(
        seen.contains("a strong read of a-1 that saw revision 0") && seen.contains("/ 55"),
        "{seen}"
    );
}

#[test]
fn a_stale_refusal_and_reads_that_go_back_are_found() {
    let mut case = Case::new();
    case.commit("a-1", 1, 1, (10, 20));
    case.ask("a-1", 9, 1, Exactly(5), (25, 30), refused(Exactly(5), None));
    assert!(
        case.seen(check).contains(
            "the refusal of append 9, which expects Exactly(5) of a-1, that saw no event"
        )
    );

    // Nobody was told of the append, but a read saw it, and the next one does not.
    for freshness in [Strong, Eventual] {
        let mut case = Case::new();
        case.ask("a-1", 1, 1, Any, (10, 0), None);
        case.accept("a-1", 1, 1);
        case.read("a-1", freshness, 0, 10, Some(0), (20, 30));
        case.read("a-1", Strong, 0, 10, None, (40, 50));
        assert_eq!(case.judge(check).len(), 1, "{freshness:?}");
        // The other way round an eventual read claims nothing.
        case.evidence.history.calls.pop();
        case.read("a-1", Eventual, 0, 10, None, (40, 50));
        assert_eq!(case.seen(check), "");
    }
}

#[test]
fn appends_in_the_wrong_order_are_found() {
    let mut case = Case::new();
    let one = case.accept("a-1", 1, 1);
    case.commit("a-1", 2, 1, (10, 20));
    // It was asked for when a later one was acknowledged already.
    case.ask("a-1", 1, 1, Any, (30, 40), Some(Ok(one.clone())));
    assert!(case.seen(check).contains("append 1 of a-1 at revision 0"));
    // Unless an earlier call had asked for it.
    case.ask("a-1", 1, 1, Any, (5, 0), None);
    assert_eq!(case.seen(check), "");
}

#[test]
fn torn_and_impossible_heads_are_found() {
    let mut case = Case::new();
    case.commit("a-1", 1, 3, (10, 20));
    case.read("a-1", Eventual, 0, 10, Some(2), (30, 40));
    assert_eq!(case.seen(check), "");
    case.read("a-1", Eventual, 0, 10, Some(1), (30, 40));
    case.read("a-1", Strong, 0, 10, Some(7), (30, 40));
    case.read("b-1", Strong, 0, 10, Some(0), (30, 40));
    assert_eq!(case.judge(check).len(), 3);
}

#[test]
fn an_append_that_was_accepted_or_refused_against_its_expectation_is_found() {
    let mut case = Case::new();
    case.commit("a-1", 1, 1, (10, 20));
    for (id, expected, bad) in [
        (2, Exactly(0), false),
        (3, NoStream, true),
        (4, Exactly(1), true),
        (5, StreamExists, false),
    ] {
        case.ask("a-1", id, 1, expected, (30, 0), None);
        case.accept("a-1", id, 1);
        let found = case.judge(check);
        assert_eq!(found.iter().any(|v| v.seen.contains(&format!("append {id} "))), bad);
    }
    for (asked, named) in [(Exactly(3), Exactly(3)), (StreamExists, NoStream), (NoStream, Any)] {
        let mut case = Case::new();
        case.commit("a-1", 1, 4, (10, 20));
        case.ask("a-1", 2, 1, asked, (30, 40), refused(named, Some(3)));
        assert_eq!(case.judge(check).len(), 1);
    }
}

#[test]
fn a_remembered_append_is_never_refused() {
    for (others, violations) in [(31, 1), (32, 0)] {
        let mut case = Case::new();
        let one = case.accept("a-1", 1, 1);
        case.ask("a-1", 1, 1, NoStream, (10, 20), Some(Ok(one)));
        for n in 0..others {
            case.commit("a-1", 100 + n, 1, (30, 40));
        }
        let head = Some(others as u64);
        case.ask("a-1", 1, 1, NoStream, (50, 60), refused(NoStream, head));
        assert_eq!(case.judge(check).len(), violations, "{others} others");
    }
}

#[test]
fn an_id_beyond_the_memory_of_a_head_is_another_append() {
    let mut case = Case::new();
    case.commit("a-1", 1, 1, (10, 20));
    for n in 0..32 {
        case.commit("a-1", 100 + n, 1, (30, 40));
    }
    // A copy of the message comes late; its answer, if any, is not the first one's.
    case.accept("a-1", 1, 1);
    case.read("a-1", Strong, 0, 1, Some(32), (50, 60));
    case.read("a-1", Strong, 0, 1, Some(33), (70, 80));
    assert_eq!(case.seen(check), "");
}

/// The answer to a read of a stream in this state.
fn shows(case: &mut Case, stream: &str, slice: StreamSlice, at: (Nanos, Nanos)) {
    case.read(stream, Strong, 0, 0, None, at);
    let call = case.evidence.history.calls.last_mut().unwrap();
    let Exchange::Read(_, answer) = &mut call.what else { panic!("a read was asked") };
    *answer = Some(Ok(slice));
}

fn slice(head: Option<u64>, exists: bool, first_shown: u64) -> StreamSlice {
    StreamSlice { head, exists, first_shown, ..StreamSlice::default() }
}

/// Appends metadata, and a client that was told.
fn describe(case: &mut Case, stream: &str, id: u128, json: &str, at: (Nanos, Nanos)) {
    let told = case.accept_of(stream, id, &metadata(json));
    let (any, events) = (Any, metadata(json));
    let stream = name(stream);
    let append = Append { stream, expected: any, described: any, id: AppendId(id), events };
    case.call(at.0, Some(at.1), Exchange::Append(append, Some(Ok(told))));
}

const DELETE: &str = r#"{"$tb": 9223372036854775807}"#;

#[test]
fn a_deletion_and_a_return_are_states_of_one_history() {
    let mut case = Case::new();
    case.commit("a-1", 1, 3, (10, 20));
    describe(&mut case, "$$a-1", 2, DELETE, (30, 40));
    shows(&mut case, "a-1", slice(Some(2), true, 0), (35, 50));
    shows(&mut case, "a-1", slice(Some(2), false, 3), (35, 50));
    shows(&mut case, "$$a-1", slice(Some(0), true, 0), (45, 50));
    case.ask("a-1", 8, 1, StreamExists, (50, 60), refused(StreamExists, Some(2)));
    case.commit("a-1", 3, 1, (70, 80));
    shows(&mut case, "a-1", slice(Some(3), true, 3), (85, 90));
    assert_eq!(case.seen(check), "");
    // It does not come back by itself, and its past does not, either.
    shows(&mut case, "a-1", slice(Some(2), false, 3), (85, 90));
    assert!(case.seen(check).contains("a strong read of a-1 that saw revision 2, exists false"));
    case.evidence.history.calls.pop();
    shows(&mut case, "a-1", slice(Some(3), true, 0), (85, 90));
    assert!(case.seen(check).contains("a state that the log has been in"));
}

#[test]
fn a_stale_metadata_is_found() {
    let mut case = Case::new();
    case.commit("a-1", 1, 3, (10, 20));
    describe(&mut case, "$$a-1", 2, r#"{"$maxCount": 1}"#, (30, 40));
    shows(&mut case, "a-1", slice(Some(2), true, 0), (45, 50));
    let seen = case.seen(check);
    assert!(
        seen.contains("append 2 of $$a-1 at revision 0") && seen.contains("shown from 0"),
        "{seen}"
    );
    // An answer may stand at any of several states: the read before it takes the lowest.
    let mut case = Case::new();
    case.commit("a-1", 1, 3, (10, 20));
    describe(&mut case, "$$a-1", 2, DELETE, (30, 60));
    describe(&mut case, "$$a-1", 3, "{}", (30, 60));
    shows(&mut case, "a-1", slice(Some(2), true, 0), (31, 35));
    shows(&mut case, "a-1", slice(Some(2), false, 3), (36, 40));
    shows(&mut case, "a-1", slice(Some(2), true, 0), (41, 45));
    assert_eq!(case.seen(check), "");
    shows(&mut case, "a-1", slice(Some(2), false, 3), (46, 50));
    assert_eq!(case.judge(check).len(), 1);
}

#[test]
fn demands_on_the_described_stream_and_tombstones_are_judged() {
    let mut case = Case::new();
    case.commit("a-1", 1, 3, (10, 20));
    let demand = |described| {
        let (stream, events) = (name("$$a-1"), metadata(DELETE));
        Append { stream, expected: Any, described, id: AppendId(9), events }
    };
    let wrong = |expected, actual| {
        Some(Err(AppendError::WrongExpectedRevision { expected, actual, described: true }))
    };
    case.call(25, Some(30), Exchange::Append(demand(Exactly(7)), wrong(Exactly(7), Some(2))));
    assert_eq!(case.seen(check), "");
    case.call(25, Some(30), Exchange::Append(demand(Exactly(2)), wrong(Exactly(2), Some(2))));
    assert_eq!(case.judge(check).len(), 1);
    case.evidence.history.calls.pop();

    case.ask("a-1", 4, 1, Any, (30, 40), Some(Err(AppendError::Tombstoned)));
    assert!(case.seen(check).contains("that saw a tombstone"));
    case.evidence.history.calls.pop();
    let mut ended = metadata("").to_vec();
    ended[0].kind = "$streamDeleted".into();
    case.accept_of("a-1", 5, &ended.into());
    case.ask("a-1", 4, 1, Any, (30, 40), Some(Err(AppendError::Tombstoned)));
    case.ask("$$a-1", 4, 1, Any, (30, 40), Some(Err(AppendError::Tombstoned)));
    assert_eq!(case.seen(check), "");
    // Once it was seen to be ended, it is.
    shows(&mut case, "a-1", slice(Some(2), true, 0), (45, 50));
    assert_eq!(case.judge(check).len(), 1);
    case.evidence.history.calls.pop();
    case.commit("a-1", 6, 1, (60, 70));
    assert!(case.seen(check).contains("with a tombstone"));
}
