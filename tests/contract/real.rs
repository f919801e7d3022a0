//! The family of the real services: a real Cassandra of three nodes and a stand-in for Kinesis (`tests/services/up`), and
//! calls between nodes over HTTP/2.
//!
//! ```sh
//! tests/services/up
//! export AWS_ACCESS_KEY_ID=stand-in AWS_SECRET_ACCESS_KEY=stand-in AWS_EC2_METADATA_DISABLED=true
//! cargo test --package stormkeep-tests --test contract -- --ignored --nocapture
//! ```
//!
//! It stops nodes of Cassandra (SIGSTOP), so nobody else should use them meanwhile. `KINESIS_ENDPOINT` and `CASSANDRA_NET` say
//! where the services are, if not where `up` starts them.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use stormkeep::{
    api::listen,
    cassandra::{self, CassandraStore, schema},
    clock::TokioClock,
    kinesis::{self, KinesisLog},
    peers::{self, Address, Addresses, Door, InMemory, PeerNetwork},
};
use stormkeep_core::{
    Config, Node, Stats,
    env::{Clock, Env, NoHandler, NodeId, Store, StoreError},
    shard::ShardId,
};
use stormkeep_sim::live::proxy::{Proxy, Way};
use tokio::{net::TcpListener, runtime};

use crate::{
    family::{Family, NotShown, PAUSE, Trouble, Verdict, broken},
    table::{Check, Column, checks},
};

/// Where the checks run, and the peer.
const HERE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const ABSENT: NodeId = NodeId(3);

/// Shards of each check's stream.
const SHARDS: u32 = 3;

/// The services as one node sees them.
struct World {
    log: Arc<KinesisLog>,
    store: Arc<CassandraStore>,
    network: PeerNetwork<InMemory>,
    clock: TokioClock,
}

/// A node's world, and the links that can fail.
pub(crate) struct Real {
    world: World,
    addresses: InMemory,
    log_link: Proxy,
    peer_link: Mutex<Option<Proxy>>,
    stopped: Mutex<Vec<u32>>,
    /// Whether this check has a keyspace of its own.
    alone: bool,
}

macro_rules! services {
    ($type:ty, $self:ident => $world:expr) => {
        impl Env for $type {
            type Log = KinesisLog;
            type Store = CassandraStore;
            type Network = PeerNetwork<InMemory>;
            type Clock = TokioClock;
            type Handler = NoHandler;

            fn log(&$self) -> &KinesisLog {
                &$world.log
            }
            fn store(&$self) -> &CassandraStore {
                &$world.store
            }
            fn network(&$self) -> &PeerNetwork<InMemory> {
                &$world.network
            }
            fn clock(&$self) -> &TokioClock {
                &$world.clock
            }
            fn handler(&$self) -> &NoHandler {
                &NoHandler
            }
        }
    };
}
services!(World, self => self);
services!(Real, self => self.world);

/// Where the services are.
fn endpoint() -> String {
    std::env::var("KINESIS_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4568".to_owned())
}

fn cassandra_net() -> String {
    std::env::var("CASSANDRA_NET").unwrap_or_else(|_| "127.0.0".to_owned())
}

/// Does something to a node of Cassandra, counted from 0.
fn cassandra_node(action: &str, number: u32) -> Result<(), NotShown> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/cassandra/node");
    let done = Command::new(script).arg(action).arg((number + 1).to_string()).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        _ => Err(NotShown(
            "tests/services/cassandra/node cannot be run: these nodes are not of `up`",
        )),
    }
}

const STAND_IN: &str =
    "the stand-in does not do it by itself; prod/tests/kinesis gives its answers by a proxy";

impl Family for Real {
    const PATIENCE: Duration = Duration::from_secs(150);

    async fn make(&self, trouble: Trouble) -> Result<(), NotShown> {
        match trouble {
            Trouble::LogLosesAnswers => self.log_link.set(Way::Open, Way::Lost),
            Trouble::LogIsGone => self.log_link.set(Way::Lost, Way::Lost),
            Trouble::LogRepeatsPuts | Trouble::LogThrottles => return Err(NotShown(STAND_IN)),
            Trouble::TokensExpire => {
                return Err(NotShown(
                    "tokens live five minutes; prod/tests/kinesis/read.rs has answers that say so",
                ));
            }
            Trouble::RecordsAge => return Err(NotShown("records are kept for a day")),
            Trouble::ReplicaIsDown(number) => self.stop(number)?,
            Trouble::StoreIsDown => {
                self.stop(1)?;
                self.stop(2)?;
                // The third one has to notice.
                let shard = ShardId(self.clock().random() as u32);
                while self.store().checkpoint(shard).await != Err(StoreError::Unavailable) {
                    self.clock().sleep(PAUSE).await;
                }
            }
            Trouble::StoreLosesMessages | Trouble::StoreLosesAnswers => {
                return Err(NotShown(
                    "the driver finds the nodes of Cassandra by itself, past any proxy; `cargo sim live` stops and kills them",
                ));
            }
            Trouble::PeerIsSilent => self.peer_link(Way::Lost, Way::Lost),
            Trouble::PeerLosesAnswers => self.peer_link(Way::Open, Way::Lost),
        }
        Ok(())
    }

    async fn calm(&self) {
        self.log_link.calm();
        self.peer_link(Way::Open, Way::Open);
        let stopped = std::mem::take(&mut *lock(&self.stopped));
        for number in stopped {
            // If it cannot go on, the next check says so.
            let _ = cassandra_node("cont", number);
        }
    }

    fn reshards(&self) -> Result<(), NotShown> {
        Ok(())
    }

    async fn peer(&self) -> Result<NodeId, NotShown> {
        if !self.alone {
            return Err(NotShown("a check with a peer needs a keyspace of its own"));
        }
        let settings = peers::Settings::default();
        let network = PeerNetwork::new(&settings, self.addresses.clone());
        let network = network.map_err(|_| NotShown("the settings of peers make no sense"))?;
        let World { log, store, .. } = &self.world;
        let world =
            World { log: log.clone(), store: store.clone(), network, clock: TokioClock::new() };
        let node = Node::start(world, PEER, Config::default(), Arc::new(Stats::default()));
        let serve: peers::Serve = Arc::new(move |request, left| node.serve(request, left));
        let door = Door::new(&settings, PEER, serve);
        let door = door.map_err(|_| NotShown("the settings of peers make no sense"))?;
        let listener = TcpListener::bind(anywhere()).await;
        let listener = listener.map_err(|_| NotShown("no port is free"))?;
        let to = listener.local_addr().map_err(|_| NotShown("no port is free"))?;
        tokio::spawn(listen::serve(
            listener,
            door.router(),
            listen::Bounds::default(),
            Arc::default(),
            std::future::pending(),
        ));
        let link = Proxy::start(anywhere(), to).await.map_err(|_| NotShown("no port is free"))?;
        let address = Address { authority: link.address().to_string(), process: 1 };
        *lock(&self.peer_link) = Some(link);
        let known = self.addresses.put(PEER, address).await;
        known.map_err(|_| NotShown("the table of addresses is gone"))?;
        Ok(PEER)
    }

    fn absent(&self) -> NodeId {
        ABSENT
    }
}

impl Real {
    fn stop(&self, number: u32) -> Result<(), NotShown> {
        cassandra_node("stop", number)?;
        lock(&self.stopped).push(number);
        Ok(())
    }

    fn peer_link(&self, forth: Way, back: Way) {
        if let Some(link) = &*lock(&self.peer_link) {
            link.set(forth, back);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Settings of a keyspace.
fn cassandra_settings(keyspace: &str) -> cassandra::Settings {
    let net = cassandra_net();
    cassandra::Settings {
        contact_points: (1..=3).map(|n| format!("{net}.{n}:9042")).collect(),
        keyspace: keyspace.to_owned(),
        local_datacenter: "dc1".into(),
        username: Some("cassandra".into()),
        password: Some(cassandra::Password("cassandra".into())),
        ..cassandra::Settings::default()
    }
}

/// A name that no earlier run had.
fn fresh(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let began = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!("{kind}_{began}_{count}")
}

/// A world of its own for a check: a stream, and a keyspace if it needs one.
async fn world(check: &Check<Real>, shared: &str) -> Verdict<Real> {
    let alone = check.name.starts_with("network");
    let keyspace = if alone { fresh("contract") } else { shared.to_owned() };
    let settings = cassandra_settings(&keyspace);
    if alone {
        schema::apply(&settings, |_| ()).await.or_else(broken)?;
    }
    let store = Arc::new(CassandraStore::new(settings).or_else(broken)?);
    store.connect().await.or_else(broken)?;
    let to = endpoint();
    let to: SocketAddr = to.trim_start_matches("http://").parse().or_else(broken)?;
    let log_link = Proxy::start(anywhere(), to).await.or_else(broken)?;
    let settings = kinesis::Settings {
        stream: fresh("contract"),
        region: Some("us-east-1".into()),
        endpoint: Some(format!("http://{}", log_link.address())),
        // The stand-in does not throttle: readers need not wait.
        reads_per_s: 1000,
        read_bytes_per_s: 1_000_000_000,
        ..kinesis::Settings::default()
    };
    let log = Arc::new(KinesisLog::open(settings).await.or_else(broken)?);
    if !check.name.starts_with("store") {
        log.create(if alone { 1 } else { SHARDS }).await.or_else(broken)?;
    }
    let addresses = InMemory::default();
    let known = Address { authority: closed_port().await?, process: 2 };
    addresses.put(ABSENT, known).await.or_else(broken)?;
    let own = Address { authority: closed_port().await?, process: 3 };
    addresses.put(HERE, own).await.or_else(broken)?;
    let network =
        PeerNetwork::new(&peers::Settings::default(), addresses.clone()).or_else(broken)?;
    let world = World { log, store, network, clock: TokioClock::new() };
    let (peer_link, stopped) = (Mutex::default(), Mutex::default());
    Ok(Real { world, addresses, log_link, peer_link, stopped, alone })
}

/// An address where nobody listens.
async fn closed_port() -> Verdict<String> {
    let listener = TcpListener::bind(anywhere()).await.or_else(broken)?;
    Ok(listener.local_addr().or_else(broken)?.to_string())
}

/// Runs every check.
pub(crate) fn column() -> Column {
    let mut threads = runtime::Builder::new_multi_thread();
    let threads = threads.worker_threads(4).enable_all();
    let shared = fresh("contract");
    let made = threads.build().expect("threads can be made").block_on(async {
        let settings = cassandra_settings(&shared);
        schema::apply(&settings, |_| ()).await.map_err(|error| error.to_string())
    });
    made.unwrap_or_else(|error| panic!("tests/services/up first: {error}"));
    let cells = checks().into_iter().map(|check| {
        let began = Instant::now();
        // A runtime of its own: what a check leaves running ends with it.
        let runtime = threads.build().expect("threads can be made");
        let verdict = runtime.block_on(async {
            let real = world(&check, &shared).await?;
            check.run(Arc::new(real)).await
        });
        runtime.shutdown_background();
        println!("{}: {:?}", check.name, verdict);
        (verdict, began.elapsed())
    });
    Column { family: "real", cells: cells.collect() }
}
