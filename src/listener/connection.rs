//! The actor that owns one TCP connection of an agent, plain or in TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use actix::fut::ActorFutureExt;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, ResponseFuture, StreamHandler, WrapFuture};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::CONNECTION_BATCHES_MAX;
use super::intake::{Taken, Tally};
use super::limits::Admitted;
use super::readiness::take_ready;
use super::tcp::Shared;
use crate::config::Transport;
use crate::ledger::{CloseReason, ListenerCount};
use crate::message::{Batch, Connected, Drain, wall_clock};
use crate::tls::{ServerTunnel, TunnelError};
use crate::wire::{FrameError, Framer, RejectReason};

/// Octets that one read may bring: enough for the largest packet.
const READ_OCTETS: usize = 64 << 10;
/// A read that brings less is copied out of the block that the next one uses again.
const COPIED_BELOW_OCTETS: usize = READ_OCTETS / 8;
/// Packets for which room is made before a read is cut: somewhat more than a full one has of ordinary packets.
const PREPARED_PACKETS_MAX: usize = 128;

/// Owns one connection: reads, cuts packets, decodes them and hands them on. It reads on when its batches are done,
/// so an agent feels that a chain is slow, and nobody else does.
pub(super) struct Connection {
    stream: Rc<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
    framer: Framer,
    /// The TLS that the stream is in; `None` for plain TCP.
    tunnel: Option<ServerTunnel>,
    shared: Rc<Shared>,
    /// What the chains are told of this connection; made when the first packet comes.
    connected: Option<Arc<Connected>>,
    room: Arc<Semaphore>,
    /// For the next batch. Nothing is read without it.
    permit: Option<OwnedSemaphorePermit>,
    last_read: Instant,
    /// As many are likely to come with the next one.
    packets_of_last_read: usize,
    closed: Option<CloseReason>,
    drained: Vec<oneshot::Sender<()>>,
    _admitted: Admitted,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
        admitted: Admitted,
        tunnel: Option<ServerTunnel>,
        shared: Rc<Shared>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTION_BATCHES_MAX));
        Self {
            stream: Rc::new(stream),
            peer,
            local,
            framer: Framer::new(shared.limits.hep_max_msg_chunks),
            permit: Arc::clone(&room).try_acquire_owned().ok(),
            tunnel,
            shared,
            connected: None,
            room,
            last_read: Instant::now(),
            packets_of_last_read: 0,
            closed: None,
            drained: Vec::new(),
            _admitted: admitted,
        }
    }

    /// One read, and what it brought.
    fn read(&mut self, ctx: &mut Context<Self>) {
        if self.connected.as_ref().is_some_and(|connected| connected.is_refused()) {
            self.close(CloseReason::TenantConnectionsFull, ctx);
            return;
        }
        let octets = read(&self.stream, &mut self.shared.arena.borrow_mut());
        match octets {
            Ok(octets) if octets.is_empty() => self.end_of_stream(ctx),
            Ok(octets) if self.tunnel.is_some() => self.take_tls(&octets, ctx),
            Ok(octets) => self.take(octets, ctx),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(listener = self.shared.name, peer = %self.peer, %error, "connection broken");
                self.close(CloseReason::Broken, ctx);
            }
        }
    }

    /// What the agent said inside TLS is taken like octets of plain TCP; records with nothing in them do not count as
    /// traffic, so whoever sends only those is idle.
    fn take_tls(&mut self, octets: &[u8], ctx: &mut Context<Self>) {
        let Some(tunnel) = &mut self.tunnel else { return };
        let was_handshaking = tunnel.is_handshaking();
        let mut said = Vec::new();
        let result = tunnel.take(octets, &mut said);
        let answer = tunnel.answer();
        // Handshakes fit a fresh socket's buffer many times over: who lets it fill does not read.
        let answered = answer.is_empty() || matches!(self.stream.try_write(&answer), Ok(n) if n == answer.len());
        if !said.is_empty() {
            self.take(said.into(), ctx);
        }
        if self.closed.is_some() {
            return;
        }
        if let Err(error) = result {
            self.say_tls_failed(&error);
            self.close(if was_handshaking { CloseReason::HandshakeFailed } else { CloseReason::TlsBroken }, ctx);
        } else if !answered {
            self.close(CloseReason::Broken, ctx);
        }
    }

    fn say_tls_failed(&self, error: &TunnelError) {
        if let Some(unsaid) = self.shared.said.borrow_mut().say(Instant::now()) {
            let listener = self.shared.name.as_str();
            tracing::warn!(listener, peer = %self.peer, %error, unsaid, "TLS failed");
        }
    }

    /// An agent that is not let in by then never will be.
    fn watch_handshake(&self, ctx: &mut Context<Self>) {
        let Some(acceptor) = &self.shared.acceptor else { return };
        ctx.run_later(acceptor.handshake_timeout(), |connection, ctx| {
            if connection.tunnel.as_ref().is_some_and(ServerTunnel::is_handshaking) {
                connection.close(CloseReason::HandshakeTimeout, ctx);
            }
        });
    }

    const fn transport(&self) -> Transport {
        if self.tunnel.is_some() { Transport::Tls } else { Transport::Tcp }
    }

    fn end_of_stream(&mut self, ctx: &mut Context<Self>) {
        let mid_packet = self.framer.partial_octets() > 0;
        self.close(if mid_packet { CloseReason::PeerClosedMidPacket } else { CloseReason::PeerClosed }, ctx);
    }

    fn take(&mut self, octets: Bytes, ctx: &mut Context<Self>) {
        self.last_read = Instant::now();
        let mut intake = self.shared.intake.borrow_mut();
        let origin = intake.origin(self.transport(), self.peer, self.local, wall_clock());
        let mut taken = Taken::with_capacity(self.packets_of_last_read);
        self.framer.push(octets);
        let end = loop {
            match self.framer.next_packet() {
                Ok(Some(octets)) => intake.take(octets, origin, self.last_read, &mut taken),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let Taken { packets, mut tally } = taken;
        self.packets_of_last_read = packets.len().min(PREPARED_PACKETS_MAX);
        if let Some(error) = end {
            let (reason, partial) = (reject_reason(error), self.framer.partial_octets());
            intake.reject_unread(reason, &error, partial, self.peer, self.last_read, &mut tally);
        }
        let count = packets.len();
        intake.count(tally, count, true);
        if count > 0 {
            let permit = self.permit.take();
            let tunnel = self.tunnel.as_ref();
            let connected = self
                .connected
                .get_or_insert_with(|| Connected::new(tunnel.map(ServerTunnel::client_names).unwrap_or_default()));
            let connection = Some(Arc::clone(connected));
            if self.shared.chains.try_send(Batch { packets, connection, permit }).is_err() {
                intake.count_lost(count);
            }
        }
        drop(intake);
        match end {
            Some(error) => self.close_counted(close_reason(error), ctx),
            None if !self.drained.is_empty() && self.framer.partial_octets() == 0 => {
                self.close(CloseReason::Stopping, ctx);
            }
            None => self.wait_for_room(ctx),
        }
    }

    /// Before the next read there must be room for its batch. Meanwhile this actor does nothing else.
    fn wait_for_room(&mut self, ctx: &mut Context<Self>) {
        if self.permit.is_some() {
            return;
        }
        let room = Arc::clone(&self.room);
        self.permit = Arc::clone(&room).try_acquire_owned().ok();
        if self.permit.is_none() {
            let permit = async move { room.acquire_owned().await.ok() };
            ctx.wait(permit.into_actor(self).map(|permit, connection, _| connection.permit = permit));
        }
    }

    /// Closes, and counts a packet of which only the beginning came.
    fn close(&mut self, reason: CloseReason, ctx: &mut Context<Self>) {
        let partial = self.framer.partial_octets();
        if partial > 0 && self.closed.is_none() {
            let mut tally = Tally::default();
            let mut intake = self.shared.intake.borrow_mut();
            let why = format!("the connection closed ({}) after {partial} octets of a packet", reason.as_str());
            intake.reject_unread(RejectReason::Truncated, &why, partial, self.peer, Instant::now(), &mut tally);
            intake.count(tally, 0, true);
        }
        self.close_counted(reason, ctx);
    }

    fn close_counted(&mut self, reason: CloseReason, ctx: &mut Context<Self>) {
        self.closed.get_or_insert(reason);
        ctx.stop();
    }

    fn watch_idle(&mut self, after: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(after, |connection, ctx| {
            let idle = connection.shared.limits.idle;
            match idle.checked_sub(connection.last_read.elapsed()) {
                Some(left) if !left.is_zero() => connection.watch_idle(left, ctx),
                _ => connection.close(CloseReason::Idle, ctx),
            }
        });
    }
}

/// Reads into the block. A read that brings little is copied, so that a packet that waits somewhere does not hold all of it.
fn read(stream: &TcpStream, arena: &mut BytesMut) -> io::Result<Bytes> {
    arena.reserve(READ_OCTETS);
    let room = arena.capacity();
    let try_io = |io: &mut dyn FnMut() -> io::Result<()>| stream.try_io(Interest::READABLE, io);
    let octets = take_ready(try_io, || stream.try_read_buf(arena), |octets| (1..room).contains(octets))?;
    if octets >= COPIED_BELOW_OCTETS {
        return Ok(arena.split().freeze());
    }
    let copy = Bytes::copy_from_slice(arena);
    arena.clear();
    Ok(copy)
}

const fn reject_reason(error: FrameError) -> RejectReason {
    match error {
        FrameError::NotHep { .. } => RejectReason::NotHep,
        FrameError::StatedLength { .. } => RejectReason::StatedLength,
        FrameError::TooManyReads { .. } => RejectReason::Truncated,
    }
}

const fn close_reason(error: FrameError) -> CloseReason {
    match error {
        FrameError::NotHep { .. } => CloseReason::NotHep,
        FrameError::StatedLength { .. } => CloseReason::StatedLength,
        FrameError::TooManyReads { .. } => CloseReason::TooManyReads,
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        Self::add_stream(Readable { stream: Rc::clone(&self.stream) }, ctx);
        self.watch_idle(self.shared.limits.idle, ctx);
        self.watch_handshake(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let reason = self.closed.unwrap_or(CloseReason::Stopping);
        self.shared.count(&[(ListenerCount::Closed(reason), 1), (ListenerCount::Open, -1)]);
    }
}

/// The connection has octets, or its end.
struct HasOctets;

impl StreamHandler<HasOctets> for Connection {
    fn handle(&mut self, _: HasOctets, ctx: &mut Self::Context) {
        self.read(ctx);
    }
}

impl Handler<Drain> for Connection {
    type Result = ResponseFuture<()>;

    /// Reads on until the packet at hand is whole, then closes.
    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.drained.push(done);
        if self.framer.partial_octets() == 0 {
            self.close(CloseReason::Stopping, ctx);
        }
        Box::pin(async move {
            // The sender goes with the actor: either way it has ended.
            let _ = wait.await;
        })
    }
}

/// Says that the connection is readable.
struct Readable {
    stream: Rc<TcpStream>,
}

impl Stream for Readable {
    type Item = HasOctets;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<HasOctets>> {
        // An error shows again when we read.
        let _ = ready!(self.stream.poll_read_ready(cx));
        Poll::Ready(Some(HasOctets))
    }
}
