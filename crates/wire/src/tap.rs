//! A connection's bytes, watched: how many went each way, and what the system or TLS said when it broke. Above it only
//! "broken" would be known.
//!
//! Invariant: whatever it is wrapped around, bytes pass unchanged.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::LinkError;

/// Anything that bytes go through both ways.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for T {}

/// What was seen of one or more connections.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    read: AtomicU64,
    written: AtomicU64,
    broken: Mutex<Option<LinkError>>,
}

impl Seen {
    /// Bytes read and written, as they were before encryption.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.read), load(&self.written))
    }

    /// What broke it first.
    pub(crate) fn broken(&self) -> Option<LinkError> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.clone()
    }

    fn note(&self, e: &io::Error) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() {
            *broken = Some(crate::tls::cause(e));
        }
    }
}

/// A watched connection.
pub(crate) struct Tap<S> {
    inner: S,
    seen: Arc<Seen>,
}

impl<S> Tap<S> {
    pub(crate) fn new(inner: S, seen: Arc<Seen>) -> Self {
        Self { inner, seen }
    }
}

impl<S: Pipe> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let done = Pin::new(&mut this.inner).poll_read(cx, buf);
        match &done {
            Poll::Ready(Ok(())) => {
                let n = buf.filled().len() - before;
                this.seen.read.fetch_add(n as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(e)) => this.seen.note(e),
            Poll::Pending => {}
        }
        done
    }
}

impl<S: Pipe> Tap<S> {
    fn written(&self, done: &Poll<io::Result<usize>>) {
        match done {
            Poll::Ready(Ok(n)) => {
                self.seen.written.fetch_add(*n as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(e)) => self.seen.note(e),
            Poll::Pending => {}
        }
    }
}

impl<S: Pipe> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.written(&done);
        done
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write_vectored(cx, parts);
        this.written(&done);
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
