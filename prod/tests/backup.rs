//! Backup and restore as an operator does them: `export` from one server, `import` into another, by the real command.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;

use std::{
    path::Path,
    process::{Command, Output},
};

use common::{Appended, Server, append};
use serde_json::Value;

fn stormkeep(server: &Server, arguments: &[&str]) -> Output {
    let url = format!("http://{}", server.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeep"));
    command.args(arguments).args(["--url", &url]).output().expect("the binary starts")
}

fn done(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// An event of an export without what the server gives: its position and its time.
fn events(file: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(file).unwrap();
    let event = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let object = event.as_object_mut().unwrap();
        assert!(object.remove("position").is_some() && object.remove("created").is_some());
        event
    };
    lines.lines().map(event).collect()
}

async fn filled(data: &Path) -> Server {
    let server = Server::start(data, &["--shards", "3"]).unwrap();
    let mut client = server.client().await.unwrap();
    for n in 0..40_u64 {
        // Payloads that are no JSON, to several streams in turn.
        let (stream, after) = (format!("binary-{}", n % 4), (n / 4).checked_sub(1));
        let done = append(&mut client, &stream, after, u128::from(n) + 1, 10 + n as usize).await;
        assert_eq!(done, Appended::Done(n / 4));
    }
    for n in 0..5 {
        let data = format!("{{\"n\": {n}, \"words\": \"\u{fc}ber\\n\"}}");
        let metadata = ["--metadata", "{\"cause\": 1}"];
        let event = ["append", "json-1", "--type", "said", "--data", &data];
        done(stormkeep(&server, &[&event[..], &metadata].concat()));
    }
    let hide = ["append", "$$json-1", "--type", "$metadata", "--data", "{\"$maxCount\": 2}"];
    done(stormkeep(&server, &hide));
    done(stormkeep(&server, &["append", "ended-1", "--type", "said"]));
    done(stormkeep(&server, &["append", "ended-1", "--type", "$streamDeleted"]));
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_and_imported_is_the_same_history() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.jsonl"), folder.path().join("second.jsonl"));
    let from = filled(&folder.path().join("from")).await;
    let said = done(stormkeep(&from, &["export", first.to_str().unwrap()]));
    assert_eq!(said.trim(), "exported 48 events");

    // Another number of shards: the order between streams may differ, the one in a stream may not.
    let to = Server::start(&folder.path().join("to"), &["--shards", "2"]).unwrap();
    for again in [false, true] {
        let said = done(stormkeep(&to, &["import", first.to_str().unwrap()]));
        assert!(said.contains(if again { "0 events" } else { "48 events" }), "{said}");
        done(stormkeep(&to, &["export", second.to_str().unwrap()]));
        let (mut before, mut after) = (events(&first), events(&second));
        for events in [&mut before, &mut after] {
            events.sort_by_key(|e| (e["stream"].to_string(), e["revision"].as_u64()));
        }
        assert_eq!(before, after);
    }
    // What was hidden is hidden, and what was ended is ended.
    let read = stormkeep(&to, &["read", "json-1", "--json"]);
    assert_eq!(String::from_utf8_lossy(&read.stdout).lines().count(), 2, "{read:?}");
    let more = stormkeep(&to, &["append", "ended-1", "--type", "said"]);
    assert!(!more.status.success());
    assert!(String::from_utf8_lossy(&more.stderr).contains("deleted for ever"), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_cannot_be_right_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.jsonl");
    let from = filled(&folder.path().join("from")).await;
    done(stormkeep(&from, &["export", file.to_str().unwrap()]));
    let lines = std::fs::read_to_string(&file).unwrap();

    let to = Server::start(&folder.path().join("to"), &[]).unwrap();
    let broken = folder.path().join("broken.jsonl");
    let mut cut: Vec<&str> = lines.lines().collect();
    cut[6] = "{\"stream\": \"player-1\"";
    std::fs::write(&broken, cut.join("\n")).unwrap();
    let import = stormkeep(&to, &["import", broken.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&import.stderr).into_owned();
    assert!(!import.status.success() && said.contains("7"), "{said}");

    // Somebody else's event is in the place of one of them.
    let to = Server::start(&folder.path().join("other"), &[]).unwrap();
    done(stormkeep(&to, &["append", "binary-0", "--type", "other"]));
    let import = stormkeep(&to, &["import", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&import.stderr).into_owned();
    assert!(!import.status.success() && said.contains("binary-0"), "{said}");
}
