//! What is wrong with the services of a node: the node says so on its readiness, `stormkeep doctor` says how to mend it, and
//! the node goes on without a restart when it is mended.
//!
//! It starts a Cassandra of its own, one node at `127.0.9.1`, and wants the stand-in for Kinesis:
//!
//! ```sh
//! tests/services/up kinesis
//! export AWS_ACCESS_KEY_ID=stand-in AWS_SECRET_ACCESS_KEY=stand-in AWS_EC2_METADATA_DISABLED=true
//! cargo test --workspace --test mended -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use common::{Appended, Server, append};
use scylla::client::{session::Session, session_builder::SessionBuilder};

const NET: &str = "127.0.9";
/// How long a node may take to see that something has changed.
const SOON: Duration = Duration::from_secs(60);

/// The Cassandra of this test; gone when it is.
struct Cassandra;

impl Cassandra {
    fn script(name: &str, arguments: &[&str]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services/cassandra");
        let status = Command::new(folder.join(name))
            .args(arguments)
            .envs([("CASSANDRA_NET", NET), ("CASSANDRA_NODES", "1")])
            .env("CASSANDRA_PERMISSIONS", "0ms")
            .status()
            .unwrap();
        assert!(status.success(), "{name} {arguments:?}: {status}");
    }

    fn start() -> Cassandra {
        Cassandra::script("up", &[]);
        Cassandra
    }

    /// Starts it again with another idea of when a disk is full. Its data stays.
    fn restart(&self, full_percent: &str) {
        for arguments in [&["term", "1"][..], &["full", "1", full_percent], &["start", "1"]] {
            Cassandra::script("node", arguments);
        }
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        Cassandra::script("down", &[]);
    }
}

async fn cql(statements: &[&str]) {
    let builder = SessionBuilder::new().known_node(format!("{NET}.1:9042"));
    let session: Session = builder.user("cassandra", "cassandra").build().await.unwrap();
    for statement in statements {
        session.query_unpaged(*statement, ()).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// Settings of a node that comes as this user.
struct Node {
    file: PathBuf,
}

impl Node {
    fn new(folder: &Path, own: u32, number: u32, user: &str) -> Node {
        let endpoint = std::env::var("KINESIS_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|_| "http://127.0.0.1:4568".into());
        let text = format!(
            "log = \"kinesis\"\nstore = \"cassandra\"\nnode_id = {number}\n\n\
             [kinesis]\nstream = \"mended-{own:x}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n\n\
             [cassandra]\ncontact_points = [\"{NET}.1\"]\nkeyspace = \"mended\"\nlocal_datacenter = \"dc1\"\n\
             username = \"{user}\"\npassword = \"{user}\"\nreplication = {{ dc1 = 1 }}\n\n\
             [peers]\nlisten = \"127.0.0.1:0\"\n"
        );
        let file = folder.join(format!("{number}.toml"));
        std::fs::write(&file, text).unwrap();
        Node { file }
    }

    fn stormkeep(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeep"));
        command.args(arguments).arg("--config").arg(&self.file).output().unwrap()
    }

    /// The doctor finds this, and says this to do about it.
    fn doctor(&self, finds: &str, fix: &str) {
        let output = self.stormkeep(&["doctor"]);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let line = text.lines().position(|line| line.contains(finds));
        let line = line.unwrap_or_else(|| panic!("no {finds:?} in\n{text}"));
        let told = text.lines().skip(line).take(3).collect::<Vec<_>>().join("\n");
        assert!(told.contains(fix), "no {fix:?} in\n{text}");
        println!("doctor: {told}");
    }

    fn serve(&self) -> Server {
        let flags = ["--config", self.file.to_str().unwrap(), "--log-level", "error"];
        Server::launch(&flags).unwrap()
    }
}

/// Asks a server for its readiness: status and body.
fn ready(server: &Server) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let host = &server.address;
    write!(socket, "GET /health/ready HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

/// Waits until readiness says this; `None`: until it is ready.
async fn until(server: &Server, wanted: Option<&str>) {
    let begin = Instant::now();
    loop {
        let (status, answer) = ready(server);
        let seen = match wanted {
            None => status == 200,
            Some(text) => status == 503 && answer.contains(text),
        };
        if seen {
            let detail = answer.lines().last().unwrap_or_default();
            println!("after {:.1} s: {status} {detail}", begin.elapsed().as_secs_f64());
            return;
        }
        assert!(begin.elapsed() < SOON, "wanted {wanted:?}, but it says\n{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Appends to a stream that nobody else appends to, and says whether it was acknowledged.
async fn appends(server: &Server, stream: &str) -> bool {
    let Ok(mut client) = server.client().await else { return false };
    matches!(append(&mut client, stream, None, rand::random(), 100).await, Appended::Done(0))
}

async fn appends_soon(server: &Server, stream: &str) {
    let begin = Instant::now();
    for turn in 0.. {
        if appends(server, &format!("{stream}-{turn}")).await {
            return;
        }
        assert!(begin.elapsed() < SOON, "{stream}: no append is acknowledged");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the services: tests/services/up kinesis; starts a Cassandra of its own"]
async fn what_is_wrong_is_told_and_when_it_is_mended_a_node_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let own: u32 = rand::random();
    let node = Node::new(folder.path(), own, 0, "cassandra");

    println!("== nothing is there");
    let server = node.serve();
    until(&server, Some("is Cassandra up?")).await;
    node.doctor("contact point", "is Cassandra up there");
    let cassandra = Cassandra::start();

    println!("== no schema");
    until(&server, Some("run `stormkeep schema apply`")).await;
    node.doctor("cassandra: schema", "stormkeep schema apply");
    let applied = node.stormkeep(&["schema", "apply"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    println!("== no stream");
    until(&server, Some("--stream-shards")).await;
    node.doctor("kinesis stream", "--stream-shards");
    let applied = node.stormkeep(&["schema", "apply", "--stream-shards", "1"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    until(&server, None).await;
    appends_soon(&server, "first").await;

    println!("== a schema of a newer release");
    cql(&[
        "INSERT INTO mended.schema_migrations (part, version, what, done) VALUES (0, 99, '', true)",
    ])
    .await;
    let other = Node::new(folder.path(), own, 1, "cassandra").serve();
    until(&other, Some("has schema 99")).await;
    node.doctor("cassandra: schema", "use a newer release");
    cql(&["DELETE FROM mended.schema_migrations WHERE part = 0 AND version = 99"]).await;
    until(&other, None).await;
    drop(other);

    println!("== a user that may only read");
    cql(&[
        "CREATE ROLE limited WITH PASSWORD = 'limited' AND LOGIN = true",
        "GRANT SELECT ON KEYSPACE mended TO limited",
    ])
    .await;
    drop(server);
    let node = Node::new(folder.path(), own, 2, "limited");
    let server = node.serve();
    until(&server, Some("GRANT SELECT, MODIFY on keyspace mended")).await;
    node.doctor("cassandra: writing", "GRANT SELECT, MODIFY on keyspace mended");
    cql(&["GRANT MODIFY ON KEYSPACE mended TO limited"]).await;
    until(&server, None).await;
    appends_soon(&server, "granted").await;

    println!("== full disks");
    cassandra.restart("1");
    until(&server, Some("its disks are full: make room there, or add nodes")).await;
    node.doctor("cassandra: writing", "is there space on their disks?");
    cassandra.restart("-1");
    until(&server, None).await;
    appends_soon(&server, "room").await;
}
