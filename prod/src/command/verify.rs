//! `stormkeep verify DIR`.

use std::{path::Path, process::ExitCode};

use crate::disk;

pub(super) fn run(directory: &Path) -> ExitCode {
    let report = match disk::verify(directory) {
        Ok(report) => report,
        Err(error) => return super::failed(&error.to_string()),
    };
    println!(
        "segments {}   records {}   batches {}   events {}   looked up in the store {}",
        report.segments, report.records, report.batches, report.events, report.folded
    );
    for (shard, at) in &report.shards {
        let position = at.position.map_or("the beginning".to_owned(), |p| p.to_string());
        println!(
            "shard {shard}: epoch {}, accepted entries {}, up to position {position}",
            at.epoch, at.accepted
        );
    }
    if report.torn {
        println!(
            "the last flush was not finished: nobody was told that it is there, and the next start cuts it off"
        );
    }
    for damage in &report.damages {
        println!("DAMAGED {damage}");
    }
    if !report.damages.is_empty() {
        println!("restore the directory from a backup, or import an export into a new one");
    }
    for what in &report.store {
        println!("DAMAGED store/: {what}");
    }
    if !report.store.is_empty() {
        println!("delete store/ and start the server: it is built again from the log");
    }
    if report.is_sound() {
        println!("sound");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
