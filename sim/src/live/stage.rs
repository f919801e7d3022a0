//! The stage of a live run: processes, services, and the links between them; and how each of them fails.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
};

use super::{
    LiveError, Options, Services, Target,
    disturb::{Place, What},
    proxy::{Proxy, Way},
    server::Server,
};
use crate::{plan::Plan, report::Counts};

/// The port of CQL.
const CQL_PORT: u16 = 9042;
/// Nodes of the Cassandra that `tests/services/up` starts.
const STORE_NODES: u32 = 3;
/// Which of them, counted from 0, is killed and stopped. One of three: the others are a quorum.
const STORE_NODE: u32 = 2;

/// See the module's docs.
pub(super) struct Stage {
    servers: Vec<Server>,
    links: BTreeMap<Place, Proxy>,
    /// The script that kills and stops a node of the store, and the network that it is told; if there is one.
    script: Option<(PathBuf, String)>,
    /// What is lost with the next process that is killed.
    canary: Option<PathBuf>,
    /// What became of the node of the store.
    store_node: Option<What>,
    /// How often what has gone wrong.
    pub(super) faults: Counts,
}

/// Any free port of this machine.
fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn failed<T: ToString>(what: impl Into<String>) -> impl FnOnce(T) -> LiveError {
    move |error| LiveError::new(what, error)
}

/// A port that is free now.
fn free_port() -> Result<SocketAddr, LiveError> {
    let listener = TcpListener::bind(anywhere());
    listener.and_then(|listener| listener.local_addr()).map_err(failed("a free port"))
}

impl Stage {
    /// Sets the stage; nothing runs on it yet but proxies, and services that were there before.
    pub(super) async fn set(options: &Options, plan: &Plan) -> Result<Stage, LiveError> {
        let faults = What::KINDS.iter().map(|kind| (*kind, 0)).collect();
        let (servers, links, store_node) = (Vec::new(), BTreeMap::new(), None);
        let mut stage = Stage { servers, links, script: None, canary: None, store_node, faults };
        match &options.target {
            Target::Disk => stage.set_disk(options, plan).await?,
            Target::Cluster(services) => stage.set_cluster(options, plan, services).await?,
        }
        Ok(stage)
    }

    async fn link(
        &mut self,
        place: Place,
        listen: SocketAddr,
        to: SocketAddr,
    ) -> Result<SocketAddr, LiveError> {
        let proxy = Proxy::start(listen, to).await;
        let proxy = proxy.map_err(failed(format!("a proxy at {listen}")))?;
        let address = proxy.address();
        self.links.insert(place, proxy);
        Ok(address)
    }

    /// What all nodes are told.
    fn flags(listen: SocketAddr, plan: &Plan) -> Vec<OsString> {
        // As long as clients wait: then a read has waited for as long as they think.
        let timeout = plan.workload.timeout_ms.to_string();
        let listen = listen.to_string();
        ["serve", "--listen", &listen, "--request-timeout-ms", &timeout].map(OsString::from).into()
    }

    /// One process with its files on disk.
    async fn set_disk(&mut self, options: &Options, plan: &Plan) -> Result<(), LiveError> {
        let listen = free_port()?;
        self.link(Place::Clients(0), anywhere(), listen).await?;
        let mut arguments = Self::flags(listen, plan);
        let data = options.directory.join("data");
        self.canary = options.canary.then(|| data.clone());
        arguments.extend(["--data".into(), data.into_os_string()]);
        arguments.extend(["--shards".into(), options.shards.to_string().into()]);
        let log = options.directory.join("n0.log");
        self.servers.push(Server::new(options.server.clone(), arguments, log));
        Ok(())
    }

    /// Nodes of a cluster on services that are up already, with a stream and a keyspace of their own.
    async fn set_cluster(
        &mut self,
        options: &Options,
        plan: &Plan,
        services: &Services,
    ) -> Result<(), LiveError> {
        let log = services.kinesis.trim_start_matches("http://").trim_end_matches('/');
        let log: SocketAddr = log.parse().map_err(failed(format!("--kinesis {log}")))?;
        let at = |net: &str, node: u32| {
            let address = format!("{net}.{}:{CQL_PORT}", node + 1);
            address.parse::<SocketAddr>().map_err(failed(address))
        };
        let net = services.broadcast.as_ref().unwrap_or(&services.cassandra);
        let contacts: Result<Vec<_>, _> = (0..STORE_NODES).map(|node| at(net, node)).collect();
        if let Some(broadcast) = &services.broadcast {
            for node in 0..STORE_NODES {
                let to = at(&services.cassandra, node)?;
                self.link(Place::Store(node), at(broadcast, node)?, to).await?;
            }
        }
        let own = format!("{:x}_{}", options.seed, std::process::id());
        for node in 0..plan.nodes {
            let (listen, peers) = (free_port()?, free_port()?);
            self.link(Place::Clients(node), anywhere(), listen).await?;
            let advertise = self.link(Place::Peers(node), anywhere(), peers).await?;
            let endpoint = self.link(Place::Log(node), anywhere(), log).await?;
            let text = format!(
                "log = \"kinesis\"\nstore = \"cassandra\"\nnode_id = {node}\n\n\
                 [kinesis]\nstream = \"live-{own}\"\nregion = \"us-east-1\"\nendpoint = \"http://{endpoint}\"\n\n\
                 [cassandra]\ncontact_points = {:?}\nkeyspace = \"live_{own}\"\nlocal_datacenter = \"dc1\"\n\
                 username = \"cassandra\"\npassword = \"cassandra\"\n\n\
                 [peers]\nlisten = \"{peers}\"\nadvertise = \"{advertise}\"\n",
                contacts
                    .as_ref()
                    .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .unwrap_or_default()
            );
            let file = options.directory.join(format!("n{node}.toml"));
            fs::write(&file, text).map_err(failed(file.display().to_string()))?;
            let mut arguments = Self::flags(listen, plan);
            arguments.extend(["--config".into(), file.into_os_string()]);
            let log = options.directory.join(format!("n{node}.log"));
            self.servers.push(Server::new(options.server.clone(), arguments, log));
        }
        contacts?;
        self.script = services.script.clone().map(|script| (script, services.cassandra.clone()));
        self.apply(options).await
    }

    /// Makes the stream and the keyspace, through the links of the first node.
    async fn apply(&self, options: &Options) -> Result<(), LiveError> {
        let mut command = Command::new(&options.server);
        command.args([
            "schema",
            "apply",
            "--stream-shards",
            &options.shards.to_string(),
            "--config",
        ]);
        command
            .arg(options.directory.join("n0.toml"))
            .envs(super::server::ENVIRONMENT.iter().copied());
        // The links need this thread.
        let done = tokio::task::spawn_blocking(move || command.output()).await;
        let output = done.map_err(io::Error::other).and_then(|output| output);
        let output = output.map_err(failed("stormkeep schema apply"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(LiveError::new("stormkeep schema apply", format!("{said}; is tests/services/up done?")))
    }

    /// Where clients go, by node.
    pub(super) fn doors(&self) -> Vec<SocketAddr> {
        let doors =
            (0..self.servers.len() as u32).map(|node| self.links.get(&Place::Clients(node)));
        doors.flatten().map(Proxy::address).collect()
    }

    /// All places where something can go wrong.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = (0..self.servers.len() as u32).map(Place::Process).collect();
        places.extend(self.links.keys().copied());
        places.extend(self.script.is_some().then_some(Place::StoreNode));
        places
    }

    /// Starts every process that does not run.
    pub(super) fn start(&mut self) -> Result<(), LiveError> {
        let mut servers = self.servers.iter_mut();
        servers.try_for_each(|server| server.start().map_err(failed("the server")))
    }

    /// What processes said that ended by themselves.
    pub(super) fn ended(&mut self) -> Vec<String> {
        self.servers.iter_mut().filter_map(Server::ended).collect()
    }

    /// Something goes wrong.
    pub(super) fn begin(&mut self, what: What, place: Place) -> io::Result<()> {
        *self.faults.entry(what.kind()).or_default() += 1;
        match place {
            Place::Process(node) => {
                let server = &mut self.servers[node as usize];
                if what != What::Kill {
                    return server.stop();
                }
                server.kill()?;
                self.canary.take().map_or(Ok(()), fs::remove_dir_all)
            }
            Place::StoreNode => {
                self.store_node = Some(what);
                self.to_store_node(if what == What::Kill { "kill" } else { "stop" })
            }
            _ => {
                if let Some(link) = self.links.get(&place) {
                    disturb(link, what);
                }
                Ok(())
            }
        }
    }

    /// What went wrong there ends. Whether a process has started anew.
    pub(super) fn end(&mut self, place: Place) -> io::Result<bool> {
        match place {
            Place::Process(node) => {
                let server = &mut self.servers[node as usize];
                server.go_on()?;
                let fresh = !server.runs();
                server.start()?;
                Ok(fresh)
            }
            Place::StoreNode => {
                match self.store_node.take() {
                    Some(What::Kill) => self.to_store_node("launch")?,
                    Some(_) => self.to_store_node("cont")?,
                    None => {}
                }
                Ok(false)
            }
            _ => {
                self.links.get(&place).into_iter().for_each(Proxy::calm);
                Ok(false)
            }
        }
    }

    fn to_store_node(&self, action: &str) -> io::Result<()> {
        let Some((script, net)) = &self.script else { return Ok(()) };
        let number = (STORE_NODE + 1).to_string();
        let output =
            Command::new(script).args([action, &number]).env("CASSANDRA_NET", net).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn disturb(link: &Proxy, what: What) {
    match what {
        What::Cut => link.set(Way::Lost, Way::Lost),
        What::LoseAnswers => link.set(Way::Open, Way::Lost),
        What::LoseQuestions => link.set(Way::Lost, Way::Open),
        What::Delay(by) => link.set(Way::Slow(by / 2), Way::Slow(by / 2)),
        What::Reset => link.reset(),
        What::Kill | What::Stop => {}
    }
}

impl Drop for Stage {
    /// A node of the store must not be left as it is.
    fn drop(&mut self) {
        let _ = self.end(Place::StoreNode);
    }
}
