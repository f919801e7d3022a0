//! The comparison: every round starts each peer on an empty folder, runs all lines and stops it. Rounds go around the peers, so
//! that a machine which gets slower or faster meanwhile does so for all of them.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    Arguments,
    machine::{Machine, Scratch},
    peer::{
        Peer, Place, ceiling::Ceiling, long_call::LongCall, message_db::MessageDb, nats::Nats,
        postgres::Postgres, redis::Redis, sierra::Sierra, stormkeep::Stormkeep,
    },
    report::{self, Row},
    workload::{self, Sample, Settings, Streams},
};

/// What is measured of a peer, in this order.
pub const LINES: [&str; 4] = ["appends-64", "appends-256", "reads", "latency"];

type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A peer, its type forgotten.
struct Entry {
    row: Row,
    install: fn(&Place) -> Task<'_, Result<()>>,
    round: for<'a> fn(&'a Place, &'a [&'static str], Settings) -> Task<'a, Result<Round>>,
    lines: &'static [&'static str],
}

/// The samples of one round, or why a line gave none.
type Round = BTreeMap<&'static str, Result<Sample, String>>;

fn entry<P: Peer>(lines: &'static [&'static str]) -> Entry {
    Entry {
        row: Row::new::<P>(),
        install: |place| Box::pin(P::install(place)),
        round: |place, lines, settings| Box::pin(round::<P>(place, lines, settings)),
        lines,
    }
}

fn entries() -> Vec<Entry> {
    vec![
        entry::<Stormkeep>(&LINES),
        entry::<Ceiling>(&LINES[..3]),
        // It reads as Stormkeep does.
        entry::<LongCall<Stormkeep>>(&["appends-64", "appends-256", "latency"]),
        entry::<LongCall<Ceiling>>(&LINES[..2]),
        entry::<Redis>(&LINES),
        entry::<Postgres>(&LINES),
        entry::<MessageDb>(&LINES),
        entry::<Sierra>(&LINES),
        entry::<Nats>(&LINES),
    ]
}

async fn round<P: Peer>(
    place: &Place,
    lines: &[&'static str],
    settings: Settings,
) -> Result<Round> {
    let peer = P::start(place).await.context("it did not start")?;
    if P::KEEPS {
        workload::checked(&peer).await?;
    }
    let mut streams = Streams::new("s", workload::STREAMS);
    let mut round = Round::new();
    for line in lines {
        let measured = async {
            match *line {
                "appends-64" => workload::appends(&peer, &mut streams, 64, settings).await,
                "appends-256" => workload::appends(&peer, &mut streams, 256, settings).await,
                "reads" => {
                    // The ceiling has no streams: its read answers what it always answers.
                    let filled = workload::filled(&peer).await.context("filling")?;
                    workload::reads(&peer, filled, settings).await
                }
                _ => workload::latency(&peer, settings).await,
            }
        };
        let most = Duration::from_secs_f64(settings.seconds + settings.warm_up_seconds + 120.0);
        let measured = tokio::time::timeout(most, measured).await;
        let measured = measured.unwrap_or_else(|_| Err(anyhow::anyhow!("hung for {most:?}")));
        if measured.is_err() {
            // What the streams hold is not known any more.
            streams = Streams::new(&format!("again-{line}-"), workload::STREAMS);
        }
        round.insert(line, measured.map_err(|error| format!("{error:#}")));
    }
    Ok(round)
}

pub async fn run(scratch: &Scratch, arguments: &Arguments) -> Result<()> {
    let named = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted.as_str()))
    };
    for wanted in &arguments.lines {
        ensure!(
            LINES.iter().any(|line| line.starts_with(wanted.as_str())),
            "there is no line {wanted:?}: {}",
            LINES.join(", ")
        );
    }
    let lines: Vec<_> = LINES.into_iter().filter(|line| named(&arguments.lines, line)).collect();
    let mut entries = entries();
    for wanted in &arguments.only {
        let names: Vec<_> = entries.iter().map(|entry| entry.row.name).collect();
        ensure!(
            names.iter().any(|name| name.starts_with(wanted.as_str())),
            "there is no peer {wanted:?}: {}",
            names.join(", ")
        );
    }
    entries.retain(|entry| named(&arguments.only, entry.row.name));

    let quick = arguments.quick;
    let settings = Settings {
        seconds: arguments.seconds.unwrap_or(if quick { 2.0 } else { 5.0 }),
        warm_up_seconds: if quick { 1.0 } else { 2.0 },
        latency_samples: if quick { 200 } else { 500 },
        latency_seconds_max: if quick { 6 } else { 20 },
    };
    let runs = arguments.runs.unwrap_or(if quick { 1 } else { 3 }).max(1);
    for entry in &mut entries {
        eprintln!("installing {}", entry.row.name);
        let place = scratch.place(entry.row.name)?;
        if let Err(error) = (entry.install)(&place).await {
            entry.row.problem = Some(format!("not installed: {error:#}"));
        }
    }
    let machine = Machine::look(scratch.data());
    eprintln!("{}", machine.line());
    for number in 1..=runs {
        for entry in entries.iter_mut().filter(|entry| entry.row.problem.is_none()) {
            let place = scratch.place(entry.row.name)?;
            let lines: Vec<_> =
                entry.lines.iter().copied().filter(|line| lines.contains(line)).collect();
            let round = (entry.round)(&place, &lines, settings).await;
            match round {
                Ok(round) => entry.row.add(round),
                Err(error) => entry.row.problem = Some(format!("{error:#}")),
            }
            eprintln!("run {number} of {runs}: {}", entry.row.latest());
            scratch.clear(entry.row.name);
        }
    }
    let rows: Vec<Row> = entries.into_iter().map(|entry| entry.row).collect();
    report::print(&machine, &lines, runs, settings, &rows, arguments.json)
}
