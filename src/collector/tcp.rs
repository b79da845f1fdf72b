//! The actor that holds the connection to one TCP collector.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle, WrapFuture};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::counter::Counter;
use super::encode::{STREAM_VERSION, encode};
use super::postponed::Postponed;
use crate::config::{RemoteAddr, StreamSettings};
use crate::ledger::{CollectorCount, DropReason};
use crate::message::{Backlog, Deliver, Drain, wall_clock};
use crate::pace::Backoff;

/// Deliveries that may be in the mailbox. Never reached: the backlog's bound in octets comes first, or the worker's
/// bound on batches.
const MAILBOX: usize = 1 << 20;

/// Holds the connection to one collector: connects, writes, and connects again.
pub struct TcpCollector {
    to: RemoteAddr,
    settings: StreamSettings,
    agent_id: u32,
    postponed: Postponed,
    connection: Connection,
    backoff: Backoff,
    counter: Counter,
    backlog: Arc<Backlog>,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
}

/// Where the connection is.
enum Connection {
    /// Being made, or waiting for the next attempt.
    None,
    /// There.
    Open {
        stream: Rc<TcpStream>,
        /// Watches for the peer's end.
        watch: SpawnHandle,
        /// Waits until the system takes more, since then.
        blocked: Option<Blocked>,
    },
}

/// A connection that takes nothing at the moment.
struct Blocked {
    writable: SpawnHandle,
    timeout: SpawnHandle,
}

impl std::fmt::Debug for TcpCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpCollector").field("name", &self.counter.name()).finish_non_exhaustive()
    }
}

impl TcpCollector {
    /// A collector that connects when it is started.
    #[must_use]
    pub fn new(
        to: RemoteAddr,
        settings: StreamSettings,
        agent_id: u32,
        counter: Counter,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            to,
            settings,
            agent_id,
            postponed: Postponed::new(settings.hep_async_max_postponed_chunks),
            connection: Connection::None,
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            counter,
            backlog,
            draining: false,
            drained: Vec::new(),
        }
    }

    fn connect(&mut self, ctx: &mut Context<Self>) {
        let (host, port, timeout) = (self.to.host.clone(), self.to.port, self.settings.connect_timeout);
        let attempt = async move {
            // The name is looked up each time: a collector may have moved.
            let connect = TcpStream::connect((host, port));
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} ms", timeout.as_millis()));
            tokio::time::timeout(timeout, connect).await.unwrap_or_else(|_| Err(late()))
        };
        ctx.spawn(attempt.into_actor(self).map(|result, collector, ctx| match result {
            Ok(stream) => collector.open(stream, ctx),
            Err(error) => collector.connect_failed(&error, ctx),
        }));
    }

    fn open(&mut self, stream: TcpStream, ctx: &mut Context<Self>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(collector = self.counter.name(), %error, "no TCP_NODELAY");
        }
        tracing::info!(collector = self.counter.name(), to = %self.to, "connected");
        self.counter.event(CollectorCount::Connected);
        self.backoff.succeed();
        let stream = Rc::new(stream);
        let watch = self.watch(Rc::clone(&stream), ctx);
        self.connection = Connection::Open { stream, watch, blocked: None };
        self.go_on(ctx);
    }

    fn connect_failed(&mut self, error: &io::Error, ctx: &mut Context<Self>) {
        self.counter.event(CollectorCount::ConnectFailed);
        let wait = self.backoff.fail(wall_clock().microseconds);
        if let Some(unsaid) = self.counter.may_say(Instant::now()) {
            let again_ms = wait.as_millis();
            tracing::warn!(collector = self.counter.name(), to = %self.to, %error, again_ms, unsaid, "cannot connect");
        }
        self.connect_later(wait, ctx);
    }

    fn connect_later(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if self.draining {
            self.give_up(Instant::now());
            return;
        }
        ctx.run_later(wait, |collector, ctx| collector.connect(ctx));
    }

    /// Collectors send nothing: what comes is thrown away, and the end of the stream is the end of the connection.
    fn watch(&self, stream: Rc<TcpStream>, ctx: &mut Context<Self>) -> SpawnHandle {
        let watch = async move {
            let mut sink = [0; 4_096];
            loop {
                stream.readable().await?;
                match stream.try_read(&mut sink) {
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the collector")),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        ctx.spawn(watch.into_actor(self).map(|end: io::Result<()>, collector, ctx| {
            if let Err(error) = end {
                collector.lost(&error, ctx);
            }
        }))
    }

    fn take(&mut self, deliver: &Deliver, now: Instant) {
        self.backlog.taken(Deliver::octets(&deliver.packets));
        for received in deliver.packets.iter() {
            match encode(received, STREAM_VERSION, self.agent_id) {
                Ok(octets) => self.postponed.push(octets),
                Err(error) => self.counter.dropped(1, DropReason::CannotEncode, &error, now),
            }
        }
    }

    /// Writes what waits, and keeps within bounds what cannot be written.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if let Connection::Open { stream, .. } = &self.connection {
            let stream = Rc::clone(stream);
            match self.write(|parts| stream.try_write_vectored(parts)) {
                Ok(progress) => self.watch_blocked(progress, ctx),
                Err(error) => self.lost(&error, ctx),
            }
        }
        if self.postponed.is_over() {
            self.overflow(now, ctx);
        }
        self.backlog.set_full(self.postponed.is_full() && !self.is_writable());
        if !self.postponed.is_empty() {
            self.postponed.detach();
        }
        if self.draining && matches!(self.connection, Connection::None) {
            self.give_up(now);
        }
        self.answer_drains();
    }

    /// Writes until all is written, or the system takes no more. Gives whether it took anything.
    fn write(&mut self, write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        let mut progress = false;
        while !self.postponed.is_empty() {
            match write(&self.postponed.parts()) {
                Ok(octets) => {
                    progress |= octets > 0;
                    let sent = self.postponed.advance(octets);
                    self.counter.sent(sent.packets, sent.octets);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(progress)
    }

    /// As long as something cannot be written, somebody waits for it, but not for longer than `hep_send_timeout`.
    fn watch_blocked(&mut self, progress: bool, ctx: &mut Context<Self>) {
        let nothing_waits = self.postponed.is_empty();
        let Connection::Open { stream, blocked, .. } = &mut self.connection else { return };
        if let Some(Blocked { timeout, writable }) = blocked.take_if(|_| progress || nothing_waits) {
            ctx.cancel_future(timeout);
            ctx.cancel_future(writable);
        }
        if nothing_waits || blocked.is_some() {
            return;
        }
        let stream = Rc::clone(stream);
        let writable = async move { stream.writable().await };
        let writable = ctx.spawn(writable.into_actor(self).map(|_, collector, ctx| {
            collector.forget_blocked(ctx);
            collector.go_on(ctx);
        }));
        let send_timeout = self.settings.hep_send_timeout;
        let timeout = ctx.run_later(send_timeout, |collector, ctx| collector.send_timed_out(ctx));
        if let Connection::Open { blocked, .. } = &mut self.connection {
            *blocked = Some(Blocked { writable, timeout });
        }
    }

    /// The time is over. It may have been this thread that stood still, not the collector: one more write decides. It
    /// asks the system itself, as the runtime may not have heard yet that there is room.
    fn send_timed_out(&mut self, ctx: &mut Context<Self>) {
        let Connection::Open { stream, .. } = &self.connection else { return };
        let stream = Rc::clone(stream);
        let timeout_ms = self.settings.hep_send_timeout.as_millis();
        match self.write(|parts| SockRef::from(&*stream).send_vectored(parts)) {
            Ok(true) => {
                self.watch_blocked(true, ctx);
                self.go_on(ctx);
            }
            Ok(false) => {
                let text = format!("took nothing for {timeout_ms} ms (hep_send_timeout)");
                self.lost(&io::Error::new(io::ErrorKind::TimedOut, text), ctx);
            }
            Err(error) => self.lost(&error, ctx),
        }
    }

    fn forget_blocked(&mut self, ctx: &mut Context<Self>) {
        if let Connection::Open { blocked, .. } = &mut self.connection
            && let Some(Blocked { timeout, .. }) = blocked.take()
        {
            ctx.cancel_future(timeout);
        }
    }

    /// More wait than may. A connection that is there is to blame: it is broken, and what it held is dropped. If there
    /// is none, those that came last are.
    fn overflow(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let bound = self.settings.hep_async_max_postponed_chunks;
        let what = format!("more than {bound} packets wait (hep_async_max_postponed_chunks)");
        if matches!(self.connection, Connection::None) {
            let dropped = self.postponed.drop_newest();
            self.counter.dropped(dropped, DropReason::PostponedFull, &what, now);
            return;
        }
        let half = self.postponed.forget_half_written();
        self.counter.dropped(half, DropReason::ConnectionBroken, &what, now);
        let dropped = self.postponed.drop_all();
        self.counter.dropped(dropped, DropReason::PostponedFull, &what, now);
        self.lost(&io::Error::other(what), ctx);
    }

    /// The connection is gone. Whole packets wait for the next one; a half-written one is not continued on it.
    fn lost(&mut self, error: &io::Error, ctx: &mut Context<Self>) {
        let Connection::Open { watch, blocked, .. } = std::mem::replace(&mut self.connection, Connection::None) else {
            return;
        };
        ctx.cancel_future(watch);
        if let Some(Blocked { writable, timeout }) = blocked {
            ctx.cancel_future(writable);
            ctx.cancel_future(timeout);
        }
        let now = Instant::now();
        self.counter.event(CollectorCount::Broken);
        let half = self.postponed.forget_half_written();
        self.counter.dropped(half, DropReason::ConnectionBroken, error, now);
        let wait = self.backoff.fail(wall_clock().microseconds);
        if let Some(unsaid) = self.counter.may_say(now) {
            let (postponed, again_ms) = (self.postponed.len(), wait.as_millis());
            tracing::warn!(collector = self.counter.name(), %error, postponed, again_ms, unsaid, "connection lost");
        }
        self.connect_later(wait, ctx);
    }

    fn is_writable(&self) -> bool {
        matches!(self.connection, Connection::Open { blocked: None, .. })
    }

    /// A stopping gateway does not wait for a collector that is not there.
    fn give_up(&mut self, now: Instant) {
        let left = self.postponed.drop_all();
        self.counter.dropped(left, DropReason::Stopping, &"the gateway stops and the collector is not there", now);
        self.answer_drains();
    }

    fn answer_drains(&mut self) {
        if self.postponed.is_empty() {
            for drained in self.drained.drain(..) {
                // Who asked may have lost patience.
                let _ = drained.send(());
            }
        }
    }
}

impl Actor for TcpCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.connect(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let now = Instant::now();
        let half = self.postponed.forget_half_written();
        self.counter.dropped(half, DropReason::ConnectionBroken, &"the gateway stops", now);
        let left = self.postponed.drop_all();
        self.counter.dropped(left, DropReason::Stopping, &"the gateway stops", now);
    }
}

impl Handler<Deliver> for TcpCollector {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        self.take(&deliver, Instant::now());
        drop(deliver);
        self.go_on(ctx);
    }
}

impl Handler<Drain> for TcpCollector {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.draining = true;
        self.drained.push(done);
        self.go_on(ctx);
        Box::pin(async move {
            // The sender goes with the actor: either way it has ended.
            let _ = wait.await;
        })
    }
}
