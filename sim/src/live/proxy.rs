//! A TCP proxy that a link goes through, so that it can fail: bytes come late, or go nowhere, in one direction or both;
//! connections break.
//!
//! Bytes are never lost from the middle of a stream that goes on: TCP does not do that. A connection that has lost some
//! stays silent as long as the fault lasts, and breaks when it ends.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What becomes of bytes in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// They pass, this much later.
    Slow(Duration),
    /// They go nowhere, and nobody is told.
    Lost,
}

/// How a link is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// From who connects.
    pub forth: Way,
    /// To who connects.
    pub back: Way,
    /// How often all connections were broken.
    resets: u64,
}

/// See the module's docs. It ends when it is dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    listening: AbortHandle,
}

impl Proxy {
    /// A proxy at `listen` (port 0: any) that leads to `to`, which need not be there yet. Call it within a tokio runtime.
    pub async fn start(listen: SocketAddr, to: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (weather, now) = watch::channel(Weather::default());
        let listening = tokio::spawn(serve(listener, to, now)).abort_handle();
        Ok(Proxy { address, weather, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the link is from now on.
    pub fn set(&self, forth: Way, back: Way) {
        self.weather.send_modify(|weather| (weather.forth, weather.back) = (forth, back));
    }

    /// All is well from now on.
    pub fn calm(&self) {
        self.set(Way::Open, Way::Open);
    }

    /// Breaks every connection that there is.
    pub fn reset(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connection(client, to, weather.clone()))),
                // Too many files are open: there will be fewer.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries the bytes of one connection until it ends or breaks.
async fn connection(client: TcpStream, to: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let resets = weather.borrow_and_update().resets;
    // If nobody is there, the client sees its connection end.
    let Ok(server) = TcpStream::connect(to).await else { return };
    // What is small must not wait for more.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let forth = pump(from_client, to_server, weather.clone(), |weather| weather.forth);
    let back = pump(from_server, to_client, weather.clone(), |weather| weather.back);
    tokio::select! {
        // One that breaks takes the other with it; one that ends does not.
        _ = async { tokio::try_join!(forth, back) } => {}
        _ = weather.wait_for(|weather| weather.resets != resets) => {}
    }
}

/// Carries bytes one way. `Err`: the connection is broken.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    way: fn(&Weather) -> Way,
) -> io::Result<()> {
    let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut bytes = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let count = tokio::select! {
            biased;
            changed = weather.changed() => {
                let now = way(&weather.borrow_and_update());
                if changed.is_err() || (lost && now != Way::Lost) {
                    return Err(broken());
                }
                continue;
            }
            // Once something is lost, what follows it is of no use.
            read = from.read(&mut bytes), if !lost => read?,
        };
        let now = way(&weather.borrow());
        match now {
            Way::Lost => {
                lost = true;
                continue;
            }
            Way::Slow(delay) => tokio::time::sleep(delay).await,
            Way::Open => {}
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::{Instant, timeout};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const SOON: Duration = Duration::from_millis(200);

    /// A server that says back what it hears, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind(ANY).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::start(ANY, address).await.expect("a port is free")
    }

    async fn say(stream: &mut TcpStream, word: &[u8]) {
        stream.write_all(word).await.expect("the proxy listens");
    }

    /// What comes within a short while.
    async fn hear(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 100];
        let read = timeout(SOON, stream.read(&mut bytes)).await.ok()?;
        bytes.truncate(read.unwrap_or(0));
        Some(bytes)
    }

    #[tokio::test]
    async fn bytes_pass_come_late_or_go_nowhere_as_told() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        say(&mut stream, b"one").await;
        assert_eq!(hear(&mut stream).await.as_deref(), Some(&b"one"[..]));
        proxy.set(Way::Open, Way::Slow(SOON / 2));
        let began = Instant::now();
        say(&mut stream, b"two").await;
        assert_eq!(hear(&mut stream).await.as_deref(), Some(&b"two"[..]));
        assert!(began.elapsed() >= SOON / 2);
        for (forth, back) in [(Way::Lost, Way::Open), (Way::Open, Way::Lost)] {
            proxy.calm();
            let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
            say(&mut stream, b"three").await;
            assert_eq!(hear(&mut stream).await.as_deref(), Some(&b"three"[..]));
            proxy.set(forth, back);
            say(&mut stream, b"four").await;
            assert_eq!(hear(&mut stream).await, None, "silent, not broken");
            proxy.calm();
            assert_eq!(hear(&mut stream).await.as_deref(), Some(&b""[..]), "broken afterwards");
        }
    }

    #[tokio::test]
    async fn what_was_not_touched_by_a_fault_goes_on_and_a_reset_breaks_it() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        say(&mut stream, b"one").await;
        assert_eq!(hear(&mut stream).await.as_deref(), Some(&b"one"[..]));
        proxy.set(Way::Lost, Way::Lost);
        proxy.calm();
        say(&mut stream, b"two").await;
        assert_eq!(hear(&mut stream).await.as_deref(), Some(&b"two"[..]));
        proxy.reset();
        assert_eq!(hear(&mut stream).await.as_deref(), Some(&b""[..]));
    }
}
