//! Connections: how many there are, how long each may take, and how they end.

use crate::front::{Front, Peer};
use crate::server::Drained;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tower_service::Service;

/// Most bytes of a request's head, and of what is read ahead of its body.
const HEAD: usize = 64 << 10;
/// Connections that are told at a time that there are too many; others are closed without a word.
const TOLD: usize = 64;
/// What they are told.
const TOO_MANY: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n",
    "content-length: 116\r\n\r\n",
    r#"{"error":{"message":"too many connections; try again later","type":"server_error","param":null,"code":"overloaded"}}"#,
);

/// Accepts connections.
struct Acceptor {
    listener: TcpListener,
    front: Arc<Front>,
    router: axum::Router,
    places: Arc<Semaphore>,
    told: Arc<Semaphore>,
}

/// Answers requests until the server is told to end, and then until those that have begun are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    mut draining: watch::Receiver<bool>,
) -> Drained {
    let places = Arc::new(Semaphore::new(front.options().max_connections));
    let told = Arc::new(Semaphore::new(TOLD));
    let acceptor = Acceptor { listener, router: front.router(), front: front.clone(), places, told };
    let graceful = GracefulShutdown::new();
    let told_to_end = async {
        // The sender lives as long as the server; without it there is nobody left to serve.
        let _ = draining.wait_for(|&draining| draining).await;
    };
    tokio::select! {
        never = acceptor.accept(|| Some(graceful.watcher())) => match never {},
        () = told_to_end => {}
    }
    // Connections without a request are closed now, the others after their answer. New ones are told that it is too late.
    let ended = async {
        tokio::select! {
            never = acceptor.accept(|| None) => match never {},
            () = graceful.shutdown() => {}
        }
    };
    let whole = timeout(front.options().drain, ended).await.is_ok();
    match whole {
        true => Drained::All,
        false => Drained::CutOff { requests: front.metrics().in_flight.load(Relaxed) },
    }
}

impl Acceptor {
    async fn accept(&self, watcher: impl Fn() -> Option<Watcher>) -> std::convert::Infallible {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often the process has as many open files as it may have, which passes.
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match self.places.clone().try_acquire_owned() {
                Ok(place) => self.connect(stream, peer, place, watcher()),
                Err(_) => self.refuse(stream),
            }
        }
    }

    fn connect(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
        watcher: Option<Watcher>,
    ) {
        let options = self.front.options();
        let metrics = self.front.metrics().clone();
        let router = self.router.clone();
        // A token is sent when it is there.
        let _ = stream.set_nodelay(true);
        let stream = Timed { stream, patience: options.transfer_timeout, stuck: None };
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            router.clone().call(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.head_timeout)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), answer);
        metrics.connections.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            let ended = match watcher {
                Some(watcher) => watcher.watch(connection).await,
                None => connection.await,
            };
            if let Err(error) = ended {
                tracing::debug!(peer = %peer, error = %error, "a connection ended early");
            }
            metrics.connections.fetch_sub(1, Relaxed);
            drop(place);
        });
    }

    /// Tells a connection that there are too many. What it has sent is read, because the answer would be lost if the
    /// connection were closed with something unread.
    fn refuse(&self, mut stream: TcpStream) {
        self.front.metrics().refused_connections.fetch_add(1, Relaxed);
        let Ok(place) = self.told.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let tell = async {
                stream.write_all(TOO_MANY.as_bytes()).await?;
                stream.shutdown().await?;
                let mut unread = [0; 4096];
                while stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = timeout(Duration::from_secs(1), tell).await;
            drop(place);
        });
    }
}

/// A connection that fails when the other side takes nothing for too long.
struct Timed {
    stream: TcpStream,
    patience: Duration,
    /// Since when it takes nothing: the time when patience ends.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    /// Passes on what a write gave, unless it waits for too long.
    fn patient<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of the answer")))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patient(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.patient(context, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_an_answer_whose_length_is_stated() {
        let (head, body) = TOO_MANY.split_once("\r\n\r\n").unwrap();
        let stated = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert_eq!(stated.parse::<usize>().unwrap(), body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
