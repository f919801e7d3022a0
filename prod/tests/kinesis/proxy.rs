//! A proxy before the stand-in that loses answers, or gives answers of its own, to the next calls of an action.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What becomes of a call.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// The service does it, and its answer is lost with the connection.
    LoseAnswer,
    /// The service does it, and its answer never comes.
    HoldAnswer,
    /// The service does it; its answer breaks off after so many bytes.
    CutAnswer(usize),
    /// The service never sees it: an answer with this status and body.
    Answer(u16, String),
    /// The service gets the request with this text in place of that.
    Replace(String, String),
}

impl Fate {
    /// An error in the service's words.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        Fate::Answer(status, format!(r#"{{"__type":"{code}","message":"the proxy says so"}}"#))
    }
}

#[derive(Default)]
struct Rules {
    fates: BTreeMap<String, VecDeque<Fate>>,
    seen: BTreeMap<String, usize>,
}

/// See the module's docs.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    rules: Arc<Mutex<Rules>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let rules: Arc<Mutex<Rules>> = Arc::default();
        let shared = rules.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let rules = shared.clone();
                tokio::spawn(async move {
                    // A client that goes away, or a fate that breaks the connection, ends it.
                    let _ = serve(client, rules).await;
                });
            }
        });
        Proxy { endpoint, rules, task }
    }

    /// The fate of the next call of an action that has none yet.
    pub(crate) fn next(&self, action: &str, fate: Fate) {
        self.rules.lock().unwrap().fates.entry(action.to_owned()).or_default().push_back(fate);
    }

    /// How many calls of an action have come.
    pub(crate) fn seen(&self, action: &str) -> usize {
        self.rules.lock().unwrap().seen.get(action).copied().unwrap_or(0)
    }
}

async fn serve(mut client: TcpStream, rules: Arc<Mutex<Rules>>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.to_lowercase().starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        let length: usize = header("content-length:").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < head + length {
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let target = header("x-amz-target:").unwrap_or_default();
        let action = target.rsplit('.').next().unwrap_or_default();
        let fate = {
            let mut rules = rules.lock().unwrap();
            *rules.seen.entry(action.to_owned()).or_default() += 1;
            rules.fates.get_mut(action).and_then(VecDeque::pop_front)
        };
        let request: Vec<u8> = bytes.drain(..head + length).collect();
        let (mut lines, mut body) = request.split_at(head);
        let (changed, shorter);
        if let Some(Fate::Replace(that, this)) = &fate {
            let before = String::from_utf8_lossy(body);
            assert!(before.contains(that), "{before}: no {that}");
            changed = before.replace(that, this);
            let was = format!("content-length: {length}");
            shorter = text.replace(&was, &format!("content-length: {}", changed.len()));
            (lines, body) = (shorter.as_bytes(), changed.as_bytes());
        }
        if let Some(Fate::Answer(status, body)) = fate {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await?;
            client.write_all(body.as_bytes()).await?;
            continue;
        }
        // One call a connection there, so that its end is the end of the answer.
        let mut there = TcpStream::connect(crate::address()).await?;
        let line = text.find("\r\n").unwrap() + 2;
        there.write_all(&lines[..line]).await?;
        there.write_all(b"connection: close\r\n").await?;
        there.write_all(&lines[line..]).await?;
        there.write_all(body).await?;
        match fate {
            Some(Fate::LoseAnswer) => {
                there.read_to_end(&mut Vec::new()).await?;
                return Ok(());
            }
            Some(Fate::HoldAnswer) => {
                there.read_to_end(&mut Vec::new()).await?;
                // Until the client gives up.
                client.read_buf(&mut bytes).await?;
                return Ok(());
            }
            Some(Fate::CutAnswer(after)) => {
                tokio::io::copy(&mut there.take(after as u64), &mut client).await?;
                return Ok(());
            }
            _ => {
                tokio::io::copy(&mut there, &mut client).await?;
                return Ok(());
            }
        }
    }
}
