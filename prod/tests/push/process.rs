//! The real process: groups come from its file, and it serves whether there are credentials of AWS or not.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::{
    common::{Appended, Server, append},
    receiver::Receiver,
};

/// A web server that says of each event which one it was.
async fn receiver() -> (Receiver, mpsc::UnboundedReceiver<(String, u64)>) {
    let (sender, received) = mpsc::unbounded_channel();
    let receiver = Receiver::start(Arc::new(move |_, body| {
        let envelope: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for record in envelope["records"].as_array().unwrap() {
            let stream = record["stream"].as_str().unwrap().to_owned();
            sender.send((stream, record["revision"].as_u64().unwrap())).unwrap();
        }
        Some(Response::new(Body::empty()))
    }));
    (receiver.await, received)
}

fn start(data: &Path, file: &Path, url: &str) -> Server {
    let text = format!(
        "disk_reserve_bytes = 0\ndisk_segment_bytes = 4194304\n\
         [lambda]\nregion = \"eu-central-1\"\nprofile = \"nobody\"\n\
         [[subscription]]\nsource = \"$ce-player\"\ngroup = \"web\"\nstart = \"beginning\"\n\
         target = {{ webhook = \"{url}\" }}\n\
         [[subscription]]\nsource = \"$ce-player\"\ngroup = \"fn\"\nstart = \"beginning\"\n\
         target = {{ lambda = \"scores\" }}\n"
    );
    std::fs::write(file, text).unwrap();
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let flags = ["--data", data, "--config", file];
    Server::launch_in(&flags, &[("AWS_EC2_METADATA_DISABLED", "true")]).unwrap()
}

async fn metrics(server: &Server) -> String {
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_the_file_are_there_and_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("stormkeep.toml"));
    let patience = Duration::from_secs(30);

    let (first, mut received) = receiver().await;
    let mut server = start(&data, &file, &first.url);
    let mut client = server.client().await.unwrap();
    assert_eq!(append(&mut client, "player-1", None, 1, 10).await, Appended::Done(0));
    let told = tokio::time::timeout(patience, received.recv()).await.unwrap();
    assert_eq!(told, Some(("player-1".to_owned(), 0)));

    // The other group stands still for want of credentials, and says so.
    let ailing =
        "stormkeep_push_ailing{group=\"$ce-player::fn\",target=\"lambda\",why=\"credentials\"} 1";
    let says = async {
        while !metrics(&server).await.contains(ailing) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, says).await.unwrap();
    let text = metrics(&server).await;
    assert!(
        text.contains("stormkeep_pushes_total{target=\"webhook\",outcome=\"handled\"} 1"),
        "{text}"
    );
    assert!(server.stop());

    // Another address in the file: the group has it after the next start.
    let (second, mut received) = receiver().await;
    let mut server = start(&data, &file, &second.url);
    let mut client = server.client().await.unwrap();
    assert_eq!(append(&mut client, "player-2", None, 2, 10).await, Appended::Done(0));
    let told = async {
        loop {
            if received.recv().await.unwrap() == ("player-2".to_owned(), 0) {
                return;
            }
        }
    };
    tokio::time::timeout(patience, told).await.unwrap();
    assert!(server.stop());
}
