//! Full speed for a long time: does the server's memory stay where it is?

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    machine::{Machine, Scratch},
    peer::{
        Peer,
        stormkeep::{BUSY, Stormkeep},
    },
    process::{resident_bytes, said},
    report::grouped,
    workload::{self, Settings, Streams},
};

const SAMPLE_SECONDS: u64 = 5;
/// The soak ends early rather than fill the disk.
const FREE_MIB_MIN: u64 = 4 << 10;

/// Slope of a line through the points by least squares, units of y per unit of x.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mut x_mean, mut y_mean) = (0.0, 0.0);
    for (x, y) in points {
        x_mean += x / count;
        y_mean += y / count;
    }
    let (mut shared, mut spread) = (0.0, 0.0);
    for (x, y) in points {
        shared += (x - x_mean) * (y - y_mean);
        spread += (x - x_mean) * (x - x_mean);
    }
    if spread > 0.0 { shared / spread } else { 0.0 }
}

fn free_mib(folder: &std::path::Path) -> u64 {
    let answer = said("df", &["--output=avail", "-m", &folder.to_string_lossy()]);
    answer.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(u64::MAX)
}

pub async fn run(scratch: &Scratch, minutes: f64, connections: usize, as_json: bool) -> Result<()> {
    let place = scratch.place(Stormkeep::NAME)?;
    Stormkeep::install(&place).await?;
    let machine = Machine::look(scratch.data());
    let server = Stormkeep::start(&place).await?;
    let pid = server.program.pid();
    let before = resident_bytes(pid)?;
    let settings = Settings {
        seconds: minutes * 60.0,
        warm_up_seconds: 0.0,
        latency_samples: 0,
        latency_seconds_max: 0,
    };
    let mut streams = Streams::new("s", workload::STREAMS);
    let began = Instant::now();
    let mut points: Vec<(f64, f64)> = Vec::new();
    let watch = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(SAMPLE_SECONDS));
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let mib = resident_bytes(pid)? as f64 / f64::from(1 << 20);
            points.push((began.elapsed().as_secs_f64() / 3600.0, mib));
            let free = free_mib(scratch.data());
            ensure!(free > FREE_MIB_MIN, "stopped: only {free} MiB are free on the disk");
            if points.len().is_multiple_of(12) {
                eprintln!("{:.0} min: {mib:.0} MiB", began.elapsed().as_secs_f64() / 60.0);
            }
        }
    };
    let load = workload::appends(&server, &mut streams, connections, settings);
    let sample = tokio::select! {
        sample = load => Some(sample?),
        stopped = watch => {
            let stopped: Result<()> = stopped;
            if let Err(reason) = stopped {
                eprintln!("{reason}");
            }
            None
        }
    };
    ensure!(points.len() > 1, "too short to sample the memory every {SAMPLE_SECONDS} s");
    let mut sorted: Vec<f64> = points.iter().map(|(_, mib)| *mib).collect();
    sorted.sort_by(f64::total_cmp);
    // Caches fill at first: the second half tells whether it goes on.
    let late = slope(&points[points.len() / 2..]);
    let disk = said("du", &["-sm", &place.data.to_string_lossy()]);
    let disk_mib: u64 = disk.split_whitespace().next().unwrap_or_default().parse().unwrap_or(0);
    let (last, median) = (points[points.len() - 1].1, sorted[sorted.len() / 2]);
    let hours = points[points.len() - 1].0;
    let busy = BUSY.load(Ordering::Relaxed);
    if as_json {
        let report = json!({
            "machine": machine, "minutes": hours * 60.0, "connections": connections, "load": sample, "busy": busy,
            "rss_mib": {"start": before >> 20, "min": sorted[0], "median": median,
                "max": sorted[sorted.len() - 1], "last": last},
            "rss_slope_mib_per_hour_second_half": late, "data_mib": disk_mib,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}\n", machine.line());
    println!("Appends at full speed over {connections} connections for {:.1} min:", hours * 60.0);
    if let Some(sample) = sample {
        println!(
            "- {} appends, {}/s, p50 {:.2} ms, p99 {:.2} ms",
            grouped(sample.calls as f64),
            grouped(sample.per_second.unwrap_or(0.0)),
            sample.p50_ms,
            sample.p99_ms
        );
    }
    println!(
        "- resident memory, MiB: start {}, min {:.0}, median {median:.0}, max {:.0}, last {last:.0}",
        before >> 20,
        sorted[0],
        sorted[sorted.len() - 1]
    );
    println!("- the server said {busy} times that it is busy, and the append was sent again");
    println!("- slope over the second half: {late:+.1} MiB an hour");
    println!("- data folder at the end: {disk_mib} MiB");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert!((slope(&[(0.0, 5.0), (1.0, 8.0), (2.0, 11.0)]) - 3.0).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 5.0)]), 0.0);
    }
}
