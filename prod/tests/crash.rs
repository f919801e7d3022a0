//! A real process under load, killed again and again: nothing that was acknowledged is lost, nothing is there twice, and
//! an append of unknown outcome that is repeated is there once.
//!
//! `CRASH_ROUNDS` sets how often it is killed: 3 here, 20 in `.ci/run`, 200 and more for the long form.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Appended, Server, append, read};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

const STREAMS: usize = 48;

/// One stream and its writer: what is known of it.
struct Writer {
    stream: String,
    /// The ids of its acknowledged events, in order of revision.
    known: Vec<u128>,
    /// An append whose outcome is not known yet.
    unknown: Option<u128>,
    random: StdRng,
}

impl Writer {
    /// Appends until told to stop, or until the server is gone.
    async fn write(&mut self, server: &str, stop: &AtomicBool) {
        let url = format!("http://{server}");
        let connected = stormkeep::api::grpc::proto::event_store::client::streams::streams_client::StreamsClient::connect(url).await;
        let Ok(mut client) = connected else { return };
        while !stop.load(Ordering::Relaxed) {
            let id = self.unknown.unwrap_or_else(|| self.random.random());
            self.unknown = Some(id);
            let after = (self.known.len() as u64).checked_sub(1);
            let bytes = self.random.random_range(1..2000);
            match append(&mut client, &self.stream, after, id, bytes).await {
                Appended::Done(revision) => {
                    assert_eq!(revision, self.known.len() as u64, "{}", self.stream);
                    self.known.push(id);
                    self.unknown = None;
                }
                Appended::Wrong(actual) => {
                    panic!("{}: {actual:?} where {after:?} was written last", self.stream)
                }
                Appended::Unknown(..) => return,
            }
        }
    }

    /// What is there is what was acknowledged, and perhaps the one append of unknown outcome.
    async fn check(&self, server: &Server) {
        let mut client = server.client().await.unwrap();
        let events = read(&mut client, &self.stream).await.unwrap();
        let revisions = events.iter().map(|(revision, _)| *revision);
        assert!(revisions.eq(0..events.len() as u64), "{}: a gap", self.stream);
        let ids: Vec<u128> = events.into_iter().map(|(_, id)| id).collect();
        let (acknowledged, more) = ids.split_at_checked(self.known.len()).unwrap_or_else(|| {
            panic!("{}: {} of {} acknowledged events", self.stream, ids.len(), self.known.len())
        });
        assert_eq!(acknowledged, self.known, "{}", self.stream);
        match (more, self.unknown) {
            ([], _) => {}
            ([id], Some(unknown)) if *id == unknown => {}
            other => panic!("{}: nobody wrote {other:?}", self.stream),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_doubled() {
    let crashes: u32 =
        std::env::var("CRASH_ROUNDS").map_or(3, |n| n.parse().expect("CRASH_ROUNDS"));
    let seed: u64 = rand::random();
    println!("seed {seed}, {crashes} crashes");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut writers: Vec<Writer> = (0..STREAMS)
        .map(|n| Writer {
            stream: format!("crash-{n}"),
            known: Vec::new(),
            unknown: None,
            random: StdRng::seed_from_u64(seed + n as u64),
        })
        .collect();
    // Small segments, so that a crash meets the change from one to the next.
    let flags = ["--disk-segment-bytes", "4194304", "--shards", "2", "--log-level", "warn"];
    for crash in 0..crashes {
        let mut server = Server::start(folder.path(), &flags).unwrap();
        // All are looked at now and then, a few every time: reading all after each crash would take the time that
        // crashes are for.
        for (n, writer) in writers.iter().enumerate() {
            if crash % 10 == 0 || n % 8 == crash as usize % 8 {
                writer.check(&server).await;
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for mut writer in writers.drain(..) {
            let (address, stop) = (server.address.clone(), stop.clone());
            tasks.spawn(async move {
                writer.write(&address, &stop).await;
                writer
            });
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..900))).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        while let Some(writer) = tasks.join_next().await {
            writers.push(writer.unwrap());
        }
        writers.sort_by_key(|w| w.stream["crash-".len()..].parse::<usize>().unwrap());
    }
    let mut server = Server::start(folder.path(), &flags).unwrap();
    for writer in &writers {
        writer.check(&server).await;
    }
    let events: usize = writers.iter().map(|w| w.known.len()).sum();
    let unknown = writers.iter().filter(|w| w.unknown.is_some()).count();
    println!("{events} acknowledged events, {unknown} appends of unknown outcome at the end");
    assert!(events > 0);
    assert!(server.stop(), "it ends well when it is asked to");
    let report = stormkeep::disk::verify(folder.path()).unwrap();
    assert!(report.is_sound(), "{:?} {:?}", report.damages, report.store);
    assert!(report.events >= events as u64);
    assert_eq!(report.folded, report.events, "all of it is folded");
}
