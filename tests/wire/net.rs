//! The server's and the client's ends of simulated TCP.

use std::{io, net::SocketAddr};

use hyper_util::rt::TokioIo;
use stormkeep::api::listen::Accept;
use turmoil::net::{TcpListener, TcpStream};

/// Where the server listens.
pub(crate) const PORT: u16 = 2113;

pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) async fn bind() -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", PORT)).await.map(Listener)
    }
}

impl Accept for Listener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// Connects to the server.
pub(crate) async fn connect() -> io::Result<TokioIo<TcpStream>> {
    TcpStream::connect(("server", PORT)).await.map(TokioIo::new)
}
