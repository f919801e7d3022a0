//! The design says that the protocol is broken without its epoch check, and without the index of its
//! batches; that no reader of all shards may pass what each has closed; and that progress waits for what consumers say, and is
//! where the next worker goes on. What is without each of these is planted, outside of the core, and chaos must find it.

use stormkeep_sim::{
    cli::{
        chaos::{ChaosOptions, Limit, chaos},
        output::Silent,
    },
    oracle::Promise,
    plant::Plant,
    scenario::Scenario,
};

/// Seeds of chaos until the planted fault is found; how many, and as which broken promise.
fn find(plant: Plant) -> (u64, Promise) {
    let options = ChaosOptions {
        scenario: Scenario::Chaos,
        plant,
        first_seed: 1,
        limit: Limit::Seeds(500),
        jobs: 2,
        stop_at_first: true,
        canary: true,
        corpus: Vec::new(),
        found: None,
    };
    let summary = chaos(&options, &mut Silent);
    let seeds = summary.seeds_to_find().unwrap_or_else(|| panic!("{plant}: the oracles are blind"));
    let violation = summary.violations[0].violation.clone();
    let violation = violation.unwrap_or_else(|| panic!("{plant}: found without a violation"));
    println!("{plant}: found after {seeds} seeds: {} was broken", violation.promise);
    (seeds, violation.promise)
}

#[test]
fn chaos_finds_a_core_without_the_epoch_check() {
    let (_, promise) = find(Plant::NoEpochCheck);
    let possible = [Promise::Durable, Promise::Fenced, Promise::Linearizable];
    assert!(possible.contains(&promise), "{promise}");
}

#[test]
fn chaos_finds_a_core_without_the_batch_index() {
    let (_, promise) = find(Plant::NoBatchIndex);
    assert!([Promise::Durable, Promise::Gapless].contains(&promise), "{promise}");
}

#[test]
fn chaos_finds_a_watermark_that_is_early() {
    let (_, promise) = find(Plant::EarlyWatermark);
    assert_eq!(promise, Promise::Ordered);
}

#[test]
fn chaos_finds_progress_that_is_written_before_it_is_made() {
    let (_, promise) = find(Plant::CheckpointBeforeAck);
    assert_eq!(promise, Promise::Delivered);
}

#[test]
fn chaos_finds_a_worker_that_begins_at_the_end() {
    let (_, promise) = find(Plant::StartsAtEnd);
    assert_eq!(promise, Promise::Delivered);
}
