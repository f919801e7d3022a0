//! A lean gRPC client: one HTTP/2 connection, one call in flight. The load shares two cores with the server that it
//! measures, so it has no channel, no balancer and no interceptor between a call and its frames.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Uri};
use prost::Message;
use tokio::net::TcpStream;

const WINDOW_BYTES: u32 = 4 << 20;

pub struct Grpc {
    send: SendRequest<Bytes>,
    port: u16,
}

impl Grpc {
    /// Must be called inside a `LocalSet`: the connection is driven by a task of this thread.
    pub async fn connect(port: u16) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake::<_, Bytes>(socket)
            .await?;
        tokio::task::spawn_local(async move {
            // A broken connection shows as the error of the call that was in flight.
            let _ = connection.await;
        });
        Ok(Self { send, port })
    }

    /// A call whose request is one body.
    pub async fn call(&mut self, path: &str, body: Bytes) -> Result<Replies> {
        let (response, mut stream) = self.send(path).await?;
        stream.send_data(body, true)?;
        Replies::begun(response).await
    }

    /// A call whose request stays open.
    pub async fn open(&mut self, path: &str) -> Result<(SendStream<Bytes>, Replies)> {
        let (response, stream) = self.send(path).await?;
        Ok((stream, Replies::begun(response).await?))
    }

    async fn send(&mut self, path: &str) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let uri: Uri = format!("http://127.0.0.1:{}{path}", self.port).parse()?;
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut send = self.send.clone().ready().await?;
        Ok(send.send_request(request, false)?)
    }
}

/// Adds one message to a request's body, with gRPC's prefix of five bytes.
pub fn frame(body: &mut BytesMut, message: &impl Message) -> Result<()> {
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).context("a message over 4 GiB")?);
    message.encode(body).context("a message that does not fit")
}

fn status(headers: &http::HeaderMap) -> Result<()> {
    match headers.get("grpc-status") {
        Some(code) if code != "0" => {
            let message =
                headers.get("grpc-message").map(|m| String::from_utf8_lossy(m.as_bytes()));
            bail!("gRPC status {}: {}", code.to_str()?, message.unwrap_or_default())
        }
        _ => Ok(()),
    }
}

/// The messages that answer a call, as they come.
pub struct Replies {
    body: RecvStream,
    buffer: BytesMut,
}

impl Replies {
    async fn begun(response: ResponseFuture) -> Result<Self> {
        let response = response.await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        status(response.headers())?;
        Ok(Self { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// `None` at the end of a call that succeeded.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        loop {
            if self.buffer.len() >= 5 {
                let length = (&self.buffer[1..5]).get_u32() as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(M::decode(self.buffer.split_to(length).freeze())?));
                }
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data?;
                    self.body.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                None => {
                    if let Some(trailers) = self.body.trailers().await? {
                        status(&trailers)?;
                    }
                    ensure!(self.buffer.is_empty(), "the answer ends inside a message");
                    return Ok(None);
                }
            }
        }
    }
}
