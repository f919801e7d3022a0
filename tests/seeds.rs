//! Every file of `seeds/` does now what it says must happen now, in two runs that are the same.

use std::path::Path;

use stormkeep_sim::cli::{
    corpus,
    engine::{Simulator, run_twice},
};

#[test]
fn every_seed_does_what_it_must() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    let entries = corpus::load(&directory).unwrap_or_else(|error| panic!("{error}"));
    assert!(!entries.is_empty(), "the corpus is gone");
    for entry in entries {
        let report = run_twice(&Simulator, &entry.file.plan, None);
        let judged = entry.file.expect.judge(report.violation.as_ref());
        assert_eq!(judged, Ok(()), "{}: {:?}", entry.path.display(), report.violation);
    }
}
