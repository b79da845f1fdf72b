//! The actor that owns one listening socket and takes connections.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Context, Handler, Recipient, ResponseFuture, StreamHandler, WeakAddr};
use bytes::BytesMut;
use futures_core::Stream;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::connection::Connection;
use super::intake::Intake;
use super::limits::ConnectionLimits;
use crate::config::{ListenerId, StreamLimits};
use crate::ledger::{CloseReason, ListenerCount};
use crate::message::{Batch, Drain};
use crate::pace::Repeated;
use crate::tls::{Acceptor, ServerTunnel, TunnelError};

/// Wait after the system refused a connection, most likely for want of descriptors.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// What the connections of one listener on one worker share.
pub(super) struct Shared {
    pub(super) id: ListenerId,
    pub(super) name: String,
    pub(super) intake: RefCell<Intake>,
    pub(super) limits: StreamLimits,
    pub(super) chains: Recipient<Batch>,
    /// Where reads go: one block for all connections, from which each read takes what it brought, so that an idle
    /// connection has no buffer.
    pub(super) arena: RefCell<BytesMut>,
    pub(super) said: RefCell<Repeated>,
    /// For TLS; shared with the other workers.
    pub(super) acceptor: Option<Arc<Acceptor>>,
}

impl Shared {
    /// Adds these, or takes one away where it says -1.
    pub(super) fn count(&self, counts: &[(ListenerCount, i8)]) {
        let intake = self.intake.borrow();
        let writing = intake.page().write();
        for (count, n) in counts {
            match n {
                -1 => writing.listener_less(self.id, *count, 1),
                _ => writing.listener(self.id, *count, 1),
            }
        }
    }
}

/// Owns one listening socket and takes connections, each of which is an actor of its own.
pub struct TcpListener {
    socket: Option<tokio::net::TcpListener>,
    shared: Rc<Shared>,
    admission: Arc<ConnectionLimits>,
    connections: Vec<WeakAddr<Connection>>,
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpListener").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

/// Log lines about connections, for each listener and worker.
const LINES_MAX: u32 = 10;
const LINES_WINDOW: Duration = Duration::from_secs(10);

impl TcpListener {
    /// For a bound socket. Must be called on the worker that it is to live on.
    ///
    /// `admission` counts the connections of this listener on all workers.
    ///
    /// # Errors
    /// What the system says if the socket cannot be watched.
    pub fn new(
        socket: StdTcpListener,
        intake: Intake,
        limits: StreamLimits,
        admission: Arc<ConnectionLimits>,
        acceptor: Option<Arc<Acceptor>>,
        chains: Recipient<Batch>,
    ) -> io::Result<Self> {
        let shared = Rc::new(Shared {
            id: intake.id(),
            name: intake.name().to_owned(),
            intake: RefCell::new(intake),
            limits,
            chains,
            arena: RefCell::new(BytesMut::new()),
            said: RefCell::new(Repeated::new(LINES_MAX, LINES_WINDOW)),
            acceptor,
        });
        let socket = Some(tokio::net::TcpListener::from_std(socket)?);
        Ok(Self { socket, shared, admission, connections: Vec::new() })
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let admitted = match self.admission.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.shared.count(&[(ListenerCount::Closed(reason), 1)]);
                if let Some(unsaid) = self.shared.said.borrow_mut().say(Instant::now()) {
                    let listener = self.shared.name.as_str();
                    tracing::warn!(listener, %peer, reason = reason.as_str(), unsaid, "connection refused");
                }
                return;
            }
        };
        let local = match stream.local_addr() {
            Ok(local) => SocketAddr::new(local.ip().to_canonical(), local.port()),
            // The peer is gone already; the first read will say so.
            Err(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let tunnel = match self.tunnel() {
            Ok(tunnel) => tunnel,
            Err(error) => {
                self.shared.count(&[(ListenerCount::Closed(CloseReason::HandshakeFailed), 1)]);
                let listener = self.shared.name.as_str();
                tracing::error!(listener, %peer, %error, "no TLS can be begun");
                return;
            }
        };
        self.shared.count(&[(ListenerCount::Opened, 1), (ListenerCount::Open, 1)]);
        let shared = Rc::clone(&self.shared);
        let connection = Connection::new(stream, peer, local, admitted, tunnel, shared).start();
        if self.connections.len() == self.connections.capacity() {
            self.connections.retain(|connection| connection.upgrade().is_some());
        }
        self.connections.push(connection.downgrade());
    }
}

impl TcpListener {
    /// TLS for a new connection, with the certificates that the files hold now.
    fn tunnel(&self) -> Result<Option<ServerTunnel>, TunnelError> {
        let Some(acceptor) = &self.shared.acceptor else { return Ok(None) };
        let (tunnel, reloaded) = acceptor.accept(Instant::now())?;
        let listener = self.shared.name.as_str();
        match reloaded {
            None => {}
            Some(Ok(())) => tracing::info!(listener, "certificates read again"),
            Some(Err(error)) => tracing::error!(listener, %error, "new certificates cannot be used; the old ones stay"),
        }
        Ok(Some(tunnel))
    }
}

impl Actor for TcpListener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(socket) = self.socket.take() {
            Self::add_stream(Incoming { socket, pause: None }, ctx);
        }
    }
}

type Accepted = io::Result<(TcpStream, SocketAddr)>;

impl StreamHandler<Accepted> for TcpListener {
    fn handle(&mut self, accepted: Accepted, _: &mut Self::Context) {
        match accepted {
            Ok((stream, peer)) => self.take(stream, peer),
            Err(error) => {
                if let Some(unsaid) = self.shared.said.borrow_mut().say(Instant::now()) {
                    let listener = self.shared.name.as_str();
                    tracing::warn!(listener, %error, unsaid, "a connection cannot be accepted");
                }
            }
        }
    }
}

impl Handler<Drain> for TcpListener {
    type Result = ResponseFuture<()>;

    /// Takes no more connections, and ends when those that are open have ended.
    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let connections: Vec<_> = self.connections.drain(..).filter_map(|connection| connection.upgrade()).collect();
        ctx.stop();
        Box::pin(async move {
            let ends: Vec<_> = connections.iter().map(|connection| connection.send(Drain)).collect();
            drop(connections);
            for end in ends {
                // A connection that is gone has ended.
                let _ = end.await;
            }
        })
    }
}

/// Connections, with a pause after an error: one for want of descriptors would show at once again.
struct Incoming {
    socket: tokio::net::TcpListener,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = Accepted;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Accepted>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let accepted = ready!(self.socket.poll_accept(cx));
        if accepted.is_err() {
            self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_WAIT)));
        }
        Poll::Ready(Some(accepted))
    }
}
