//! What a connection writes in one turn leaves in one call to the system. An HTTP/2 connection flushes an answer's data before
//! its trailers: sent one by one they are two calls here and two wake-ups at the client.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered at the most.
const FULL: usize = 64 * 1024;
/// What has as many bytes is not copied to be gathered, if nothing is.
const LARGE: usize = 16 * 1024;

/// The input and output of a connection whose turns [`turns`] takes: it is flushed behind each of them, and not before.
pub(super) struct Gathered<I>(Arc<Mutex<Inner<I>>>);

struct Inner<I> {
    io: I,
    /// Has no memory while it is empty: most connections are idle.
    out: BytesMut,
    /// Something was written that was not flushed.
    written: bool,
}

/// Runs what `connect` makes of an input and output. An error is one of writing what it had left to be written.
pub(super) async fn turns<I, F>(
    io: I,
    connect: impl FnOnce(Gathered<I>) -> F,
) -> io::Result<F::Output>
where
    I: AsyncWrite + Unpin,
    F: Future,
{
    let inner = Arc::new(Mutex::new(Inner { io, out: BytesMut::new(), written: false }));
    let mut connection = std::pin::pin!(connect(Gathered(inner.clone())));
    std::future::poll_fn(|context| {
        let turn = connection.as_mut().poll(context);
        let sent = lock(&inner).poll_send(context);
        match (turn, sent) {
            // One that ends well has shut its output down. Of one that does not, what can be sent is.
            (Poll::Ready(ended), _) => Poll::Ready(Ok(ended)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
    .await
}

/// One task has both ends: nobody waits here.
fn lock<I>(inner: &Mutex<Inner<I>>) -> MutexGuard<'_, Inner<I>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    /// Writes what was gathered, and flushes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        self.out = BytesMut::new();
        if self.written {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.written = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.out.is_empty() && bytes >= LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(context, slices);
        }
        if self.out.len() >= FULL {
            ready!(self.poll_send(context))?;
        }
        let before = self.out.len();
        self.out.reserve(bytes.min(FULL - before));
        for slice in slices {
            let room = FULL - self.out.len();
            self.out.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        Poll::Ready(Ok(self.out.len() - before))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gathered<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gathered<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.io).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts the calls that write.
    struct Counted<I>(I, Arc<Mutex<Vec<usize>>>);

    impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = Pin::new(&mut self.0).poll_write(context, bytes);
            if let Poll::Ready(Ok(written)) = written {
                self.1.lock().unwrap().push(written);
            }
            written
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_at_once_and_nothing_waits_for_the_next() {
        let (near, mut far) = duplex(1 << 20);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let served = turns(Counted(near, calls.clone()), async |mut io| {
            for turn in 0..3 {
                io.write_all(&[turn; 1000]).await.unwrap();
                io.flush().await.unwrap();
                io.write_all(&[turn; 10]).await.unwrap();
                io.flush().await.unwrap();
                tokio::task::yield_now().await; // the turn is over
            }
            io.write_all(b"end").await.unwrap();
            io.shutdown().await.unwrap();
        });
        served.await.unwrap();
        assert_eq!(*calls.lock().unwrap(), [1010, 1010, 1010, 3]);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 3033);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_of_it_in_order_and_holds_the_writer_up() {
        let (near, mut far) = duplex(700);
        let sent: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = turns(near, async move |mut io| {
            // Small ones that are gathered, and large ones that are not.
            let mut rest = &sent[..];
            for size in [10, 5_000, 40_000, 1, 100_000].into_iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(size));
                io.write_all(now).await.unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            assert!(lock(&io.0).out.len() <= FULL);
            io.shutdown().await.unwrap();
        });
        let reader = async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        };
        let (written, all) = tokio::join!(writer, reader);
        written.unwrap();
        assert!(all == expected);
    }

    #[tokio::test]
    async fn a_connection_that_ends_without_a_word_has_sent_what_it_wrote() {
        let (near, mut far) = duplex(100);
        turns(near, async |mut io| io.write_all(b"all of it").await.unwrap()).await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all of it");
    }

    #[tokio::test]
    async fn a_connection_whose_other_side_is_gone_ends() {
        let (near, far) = duplex(100);
        drop(far);
        let ended = turns(near, async |mut io: Gathered<_>| {
            io.write_all(&[0; 1000]).await.unwrap();
            std::future::pending::<()>().await
        });
        assert_eq!(ended.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
