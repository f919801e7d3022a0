//! The `sim` command.
use stormkeep_sim::{run, scenario::Scenario};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let scenario: Scenario = args[1].parse().expect("scenario");
    let (a, b): (u64, u64) = (args[2].parse().expect("n"), args[3].parse().expect("n"));
    let t = std::time::Instant::now();
    let mut virt = 0;
    let mut totals = std::collections::BTreeMap::new();
    for seed in a..b {
        let t1 = std::time::Instant::now();
        let r = run::run(&scenario.plan(seed), &run::Options::default());
        virt += r.virtual_ns;
        for (k, v) in r.faults.iter().chain(&r.rare) {
            *totals.entry(*k).or_insert(0u64) += v;
        }
        println!(
            "{seed} digest {:016x} virt {:.1}s real {:.3}s events {} calls {} committed {} {:?}",
            r.digest,
            r.virtual_ns as f64 / 1e9,
            t1.elapsed().as_secs_f64(),
            r.events,
            r.calls,
            r.committed,
            r.violation
        );
    }
    println!("{totals:#?}");
    println!("{:.1} virtual s per real s", virt as f64 / 1e9 / t.elapsed().as_secs_f64());
}
