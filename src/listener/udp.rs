//! The actor that owns one UDP socket.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use actix::{Actor, ActorContext, Context, Handler, Recipient, ResponseFuture, StreamHandler};
use futures_core::Stream;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, oneshot};

use super::UDP_BATCHES_MAX;
use super::intake::{Intake, Taken};
use super::readiness::take_ready;
use super::receive::{Arrival, Datagram, Receiver};
use crate::config::Transport;
use crate::ledger::ListenerCount;
use crate::message::{Batch, Drain, wall_clock};

/// Rounds in which a stopping listener takes what the kernel already has, if it never runs dry.
const DRAIN_ROUNDS_MAX: u32 = 256;

/// Owns one UDP socket: takes what is there, decodes it and hands it on.
#[derive(Debug)]
pub struct UdpListener {
    socket: Rc<UdpSocket>,
    local: SocketAddr,
    receiver: Receiver,
    datagrams: Vec<Datagram>,
    intake: Intake,
    chains: Recipient<Batch>,
    room: Arc<Semaphore>,
    draining: Option<Draining>,
}

#[derive(Debug)]
struct Draining {
    rounds: u32,
    done: Vec<oneshot::Sender<()>>,
}

impl UdpListener {
    /// For a bound socket. Must be called on the worker that it is to live on.
    ///
    /// # Errors
    /// What the system says if the socket cannot be watched.
    pub fn new(socket: StdUdpSocket, intake: Intake, chains: Recipient<Batch>) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            socket: Rc::new(UdpSocket::from_std(socket)?),
            local: SocketAddr::new(local.ip().to_canonical(), local.port()),
            receiver: Receiver::new(),
            datagrams: Vec::new(),
            intake,
            chains,
            room: Arc::new(Semaphore::new(UDP_BATCHES_MAX)),
            draining: None,
        })
    }

    /// One system call, and what it brought. `false`: there was nothing.
    fn take_batch(&mut self) -> bool {
        let (receiver, datagrams) = (&mut self.receiver, &mut self.datagrams);
        let mut receive = || receiver.receive(self.socket.as_fd(), datagrams);
        let result = match self.draining {
            None => take_ready(|io| self.socket.try_io(Interest::READABLE, io), receive, |arrival| arrival.is_all),
            // Past the runtime, which may not have heard yet of what the kernel already has.
            Some(_) => receive(),
        };
        match result {
            Ok(Arrival { kernel_dropped, .. }) => {
                if kernel_dropped > 0 {
                    let id = self.intake.id();
                    self.intake.page().write().listener(id, ListenerCount::KernelDropped, kernel_dropped.into());
                }
                self.hand_on();
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                // Nothing that a peer does makes a receive fail on a socket that never sends.
                tracing::error!(listener = self.intake.name(), %error, "cannot receive");
                false
            }
        }
    }

    fn hand_on(&mut self) {
        let (now, received_at) = (Instant::now(), wall_clock());
        let mut taken = Taken::with_capacity(self.datagrams.len());
        for Datagram { octets, peer } in self.datagrams.drain(..) {
            let origin = self.intake.origin(Transport::Udp, peer, self.local, received_at);
            self.intake.take(octets, origin, now, &mut taken);
        }
        let Taken { packets, tally } = taken;
        let count = packets.len();
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        let room = permit.is_some();
        // Counted before it is sent: the chains count it out again.
        self.intake.count(tally, count, room);
        if !room || count == 0 {
            return;
        }
        if self.chains.try_send(Batch { packets, connection: None, permit }).is_err() {
            self.intake.count_lost(count);
        }
    }
}

impl Actor for UdpListener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        Self::add_stream(Readable { socket: Rc::clone(&self.socket), yielded: false }, ctx);
    }
}

/// The socket has something.
struct HasDatagrams;

impl StreamHandler<HasDatagrams> for UdpListener {
    fn handle(&mut self, _: HasDatagrams, ctx: &mut Self::Context) {
        let more = self.take_batch();
        if let Some(draining) = &mut self.draining {
            draining.rounds += 1;
            if !more || draining.rounds >= DRAIN_ROUNDS_MAX {
                ctx.stop();
            }
        }
    }
}

impl Handler<Drain> for UdpListener {
    type Result = ResponseFuture<()>;

    /// Takes what the kernel has, then ends.
    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (done, wait) = oneshot::channel();
        let draining = self.draining.get_or_insert_with(|| Draining { rounds: 0, done: Vec::new() });
        draining.done.push(done);
        if !self.take_batch() {
            ctx.stop();
        }
        Box::pin(async move {
            // The sender goes with the actor: either way it has ended.
            let _ = wait.await;
        })
    }
}

/// Says that the socket is readable, once for each turn of the worker, so that the chains work on what was taken
/// before more is taken.
struct Readable {
    socket: Rc<UdpSocket>,
    yielded: bool,
}

impl Stream for Readable {
    type Item = HasDatagrams;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<HasDatagrams>> {
        // An error shows again when we receive.
        let _ = ready!(self.socket.poll_recv_ready(cx));
        if std::mem::take(&mut self.yielded) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = true;
        Poll::Ready(Some(HasDatagrams))
    }
}
