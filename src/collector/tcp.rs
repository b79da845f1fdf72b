//! The actor that holds the connection to one collector over TCP or TLS.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle, WrapFuture};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::attempts::{Attempts, Next};
use super::channel::{Channel, Progress, READ_OCTETS, broken};
use super::connect::{Wanted, connect};
use super::counter::Counter;
use super::encode::Encoding;
use super::postponed::Postponed;
use crate::config::{RemoteAddr, StreamSettings};
use crate::ledger::{CollectorCount, DropReason};
use crate::message::{Backlog, Deliver, Drain, wall_clock};
use crate::tls::Connector;

/// Deliveries that may be in the mailbox. Never reached: the backlog's bound in octets comes first, or the worker's
/// bound on batches.
const MAILBOX: usize = 1 << 20;

/// Holds the connection to one collector: connects, writes, and connects again.
///
/// What cannot be written waits. How much may is bounded in octets by the [`Backlog`], and in packets by
/// `hep_async_max_postponed_chunks` as soon as the local time of a connect or a write is over.
pub struct TcpCollector {
    to: RemoteAddr,
    connector: Option<Arc<Connector>>,
    settings: StreamSettings,
    encoding: Encoding,
    postponed: Postponed,
    connection: Connection,
    attempts: Attempts,
    /// When to look again at what waits, if nothing else happens.
    alarm: Option<(Instant, SpawnHandle)>,
    counter: Counter,
    backlog: Arc<Backlog>,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
}

/// Where the connection is.
enum Connection {
    /// Waiting for the next attempt.
    None,
    /// Being made since then.
    Attempt { since: Instant },
    /// There.
    Open(Open),
}

struct Open {
    stream: Rc<TcpStream>,
    channel: Channel,
    since: Instant,
    /// Reads what the collector says, and notices its end.
    listening: SpawnHandle,
    /// Since when not everything is written.
    behind_since: Option<Instant>,
    /// Waits until the system takes more.
    blocked: Option<Blocked>,
}

/// A connection that takes nothing at the moment.
struct Blocked {
    since: Instant,
    writable: SpawnHandle,
    timeout: SpawnHandle,
}

impl std::fmt::Debug for TcpCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpCollector").field("name", &self.counter.name()).finish_non_exhaustive()
    }
}

impl TcpCollector {
    /// A collector that connects when it is started, in TLS if there is a `connector`.
    #[must_use]
    pub fn new(
        to: RemoteAddr,
        connector: Option<Arc<Connector>>,
        settings: StreamSettings,
        encoding: Encoding,
        counter: Counter,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            to,
            connector,
            settings,
            encoding,
            postponed: Postponed::new(settings.hep_async_max_postponed_chunks),
            connection: Connection::None,
            attempts: Attempts::new(&settings),
            alarm: None,
            counter,
            backlog,
            draining: false,
            drained: Vec::new(),
        }
    }

    fn connect(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.connection = Connection::Attempt { since: now };
        let wanted = match self.wanted(now) {
            Ok(wanted) => wanted,
            Err(error) => return self.connect_failed(&error, ctx),
        };
        let attempt = connect(self.to.clone(), self.settings.connect_timeout, wanted);
        ctx.spawn(attempt.into_actor(self).map(|result, collector, ctx| match result {
            Ok((stream, channel)) => collector.open(stream, channel, ctx),
            Err(error) => collector.connect_failed(&error, ctx),
        }));
    }

    /// TLS for a new connection, with the certificates that the files hold now.
    fn wanted(&self, now: Instant) -> io::Result<Option<Wanted>> {
        let Some(connector) = &self.connector else { return Ok(None) };
        let (tunnel, reloaded) = connector.connect(now).map_err(broken)?;
        let collector = self.counter.name();
        match reloaded {
            None => {}
            Some(Ok(())) => tracing::info!(collector, "certificates read again"),
            Some(Err(error)) => {
                tracing::error!(collector, %error, "new certificates cannot be used; the old ones stay")
            }
        }
        Ok(Some(Wanted { tunnel, handshake_timeout: connector.handshake_timeout() }))
    }

    fn open(&mut self, stream: TcpStream, channel: Channel, ctx: &mut Context<Self>) {
        tracing::info!(collector = self.counter.name(), to = %self.to, "connected");
        self.counter.event(CollectorCount::Connected);
        self.attempts.succeed();
        let stream = Rc::new(stream);
        let listening = self.listen(Rc::clone(&stream), ctx);
        let since = Instant::now();
        self.connection =
            Connection::Open(Open { stream, channel, since, listening, behind_since: None, blocked: None });
        self.go_on(ctx);
    }

    fn connect_failed(&mut self, error: &io::Error, ctx: &mut Context<Self>) {
        self.connection = Connection::None;
        self.counter.event(CollectorCount::ConnectFailed);
        let next = self.attempts.fail(wall_clock().microseconds);
        let (collector, to, again_ms) = (self.counter.name().to_owned(), &self.to, next.wait().as_millis());
        match next {
            Next::Again(_) => {
                if let Some(unsaid) = self.counter.may_say(Instant::now()) {
                    tracing::warn!(collector, %to, %error, again_ms, unsaid, "cannot connect");
                }
            }
            Next::CoolDown(_) => {
                self.counter.event(CollectorCount::CoolDowns);
                let failed = self.settings.hep_max_retries;
                tracing::warn!(
                    collector, %to, %error, failed, again_ms,
                    "cannot connect: as many attempts as may (hep_max_retries) have failed in a row; \
                     the next one comes after hep_retry_cooldown"
                );
            }
        }
        self.connect_later(next.wait(), ctx);
        self.settle(ctx);
    }

    fn connect_later(&self, wait: Duration, ctx: &mut Context<Self>) {
        if !self.draining {
            ctx.run_later(wait, |collector, ctx| collector.connect(ctx));
        }
    }

    /// Reads once.
    fn listen(&self, stream: Rc<TcpStream>, ctx: &mut Context<Self>) -> SpawnHandle {
        let read = async move {
            let mut octets = vec![0; READ_OCTETS];
            loop {
                stream.readable().await?;
                match stream.try_read(&mut octets) {
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the collector")),
                    Ok(read) => {
                        octets.truncate(read);
                        return Ok(octets);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        ctx.spawn(read.into_actor(self).map(|read, collector, ctx| collector.hear(read, ctx)))
    }

    /// Collectors have nothing to say, but TLS has, and the end of the stream is the end of the connection.
    fn hear(&mut self, read: io::Result<Vec<u8>>, ctx: &mut Context<Self>) {
        let Connection::Open(open) = &mut self.connection else { return };
        let stream = Rc::clone(&open.stream);
        if let Err(error) = read.and_then(|octets| open.channel.take(&octets)) {
            open.tell_the_rest();
            self.lost(&error, ctx);
            self.settle(ctx);
            return;
        }
        let listening = self.listen(stream, ctx);
        if let Connection::Open(open) = &mut self.connection {
            open.listening = listening;
        }
        self.go_on(ctx);
    }

    fn take(&mut self, deliver: &Deliver, now: Instant) {
        for received in deliver.packets.iter() {
            let charge = received.charge();
            match self.encoding.encode(received) {
                Ok(octets) => self.postponed.push(octets, charge, now),
                Err(error) => {
                    self.backlog.taken(charge);
                    self.counter.dropped(1, DropReason::CannotEncode, &error, now);
                }
            }
        }
    }

    /// Writes what waits, and keeps within bounds what cannot be written.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        if let Connection::Open(open) = &mut self.connection {
            let stream = Rc::clone(&open.stream);
            let progress = open.channel.write(&mut self.postponed, |parts| stream.try_write_vectored(parts));
            self.written(&progress, ctx);
        }
        self.settle(ctx);
    }

    fn written(&mut self, progress: &Progress, ctx: &mut Context<Self>) {
        self.counter.sent(progress.sent.packets, progress.sent.octets);
        match &progress.error {
            Some(error) => self.lost(error, ctx),
            None => self.watch_blocked(progress.moved, ctx),
        }
    }

    /// As long as something cannot be written, somebody waits for it, but not for longer than `hep_send_timeout`.
    fn watch_blocked(&mut self, moved: bool, ctx: &mut Context<Self>) {
        let Connection::Open(open) = &mut self.connection else { return };
        let behind = open.channel.has_something(&self.postponed);
        if let Some(Blocked { timeout, writable, .. }) = open.blocked.take_if(|_| moved || !behind) {
            ctx.cancel_future(timeout);
            ctx.cancel_future(writable);
        }
        if !behind {
            open.behind_since = None;
            return;
        }
        let since = Instant::now();
        open.behind_since.get_or_insert(since);
        if open.blocked.is_some() {
            return;
        }
        let stream = Rc::clone(&open.stream);
        let writable = async move { stream.writable().await };
        let writable = ctx.spawn(writable.into_actor(self).map(|_, collector, ctx| {
            collector.forget_blocked(ctx);
            collector.go_on(ctx);
        }));
        let send_timeout = self.settings.hep_send_timeout;
        let timeout = ctx.run_later(send_timeout, |collector, ctx| collector.send_timed_out(ctx));
        if let Connection::Open(open) = &mut self.connection {
            open.blocked = Some(Blocked { since, writable, timeout });
        }
    }

    /// The time is over. It may have been this thread that stood still, not the collector: one more write decides. It
    /// asks the system itself, as the runtime may not have heard yet that there is room.
    fn send_timed_out(&mut self, ctx: &mut Context<Self>) {
        let Connection::Open(open) = &mut self.connection else { return };
        // A timer that was cancelled may fire once more, when it was due in the same moment: who took what waited just
        // before is not stuck.
        let timeout = self.settings.hep_send_timeout;
        if open.blocked.as_ref().is_none_or(|blocked| blocked.since.elapsed() < timeout) {
            return;
        }
        let stream = Rc::clone(&open.stream);
        let progress = open.channel.write(&mut self.postponed, |parts| SockRef::from(&*stream).send_vectored(parts));
        let stuck = !progress.moved && progress.error.is_none();
        self.written(&progress, ctx);
        if stuck {
            let text = format!("took nothing for {} ms (hep_send_timeout)", timeout.as_millis());
            self.lost(&io::Error::new(io::ErrorKind::TimedOut, text), ctx);
        }
        self.go_on(ctx);
    }

    fn forget_blocked(&mut self, ctx: &mut Context<Self>) {
        if let Connection::Open(open) = &mut self.connection
            && let Some(Blocked { timeout, .. }) = open.blocked.take()
        {
            ctx.cancel_future(timeout);
        }
    }

    /// Drops what must not wait any longer, tells senders what room there is, and those who drain when all is done.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let local_until = self.local_until().filter(|until| now < *until);
        let look_again =
            if self.settings.hep_async { self.bound_number(local_until, now, ctx) } else { self.bound_time(now) };
        if self.draining && !matches!(self.connection, Connection::Open(_)) {
            // A stopping gateway does not wait for a collector that is not there.
            let left = self.postponed.drop_all();
            self.counter.dropped(left, DropReason::Stopping, &"the gateway stops and the collector is not there", now);
        }
        self.backlog.taken(self.postponed.take_freed());
        let behind = !matches!(&self.connection, Connection::Open(open) if open.behind_since.is_none());
        let in_background = self.settings.hep_async && behind && local_until.is_none();
        self.backlog.set_full(in_background && self.postponed.is_full());
        self.postponed.detach();
        self.set_alarm(look_again, now, ctx);
        self.answer_drains();
    }

    /// Until when what waits is no background's business: the local time of the connect or write under way.
    fn local_until(&self) -> Option<Instant> {
        match &self.connection {
            Connection::None => None,
            Connection::Attempt { since } => Some(*since + self.settings.hep_async_local_connect_timeout),
            Connection::Open(open) => Some(open.behind_since? + self.settings.hep_async_local_write_timeout),
        }
    }

    /// In the background no more packets wait than may. A connection that is there is to blame for more: it is broken,
    /// and what it held is dropped. If there is none, those that came last are. Gives when to look again.
    fn bound_number(&mut self, local_until: Option<Instant>, now: Instant, ctx: &mut Context<Self>) -> Option<Instant> {
        if !self.postponed.is_over() {
            return None;
        }
        if local_until.is_some() {
            return local_until;
        }
        let bound = self.settings.hep_async_max_postponed_chunks;
        let what = format!("more than {bound} packets wait (hep_async_max_postponed_chunks)");
        if !matches!(self.connection, Connection::Open(_)) {
            let dropped = self.postponed.drop_newest();
            self.counter.dropped(dropped, DropReason::PostponedFull, &what, now);
            return None;
        }
        let half = self.postponed.forget_half_written();
        self.counter.dropped(half, DropReason::ConnectionBroken, &what, now);
        let dropped = self.postponed.drop_all();
        self.counter.dropped(dropped, DropReason::PostponedFull, &what, now);
        self.lost(&io::Error::other(what), ctx);
        None
    }

    /// Without a background a packet waits for the connection for `hep_send_timeout`. Gives when to look again.
    fn bound_time(&mut self, now: Instant) -> Option<Instant> {
        if matches!(self.connection, Connection::Open(_)) {
            return None;
        }
        let timeout = self.settings.hep_send_timeout;
        let dropped = self.postponed.drop_older(timeout, now);
        let what = format!("not sent in {} ms (hep_send_timeout), and there is no connection", timeout.as_millis());
        self.counter.dropped(dropped, DropReason::NotConnected, &what, now);
        self.postponed.oldest().map(|since| since + timeout)
    }

    fn set_alarm(&mut self, at: Option<Instant>, now: Instant, ctx: &mut Context<Self>) {
        if self.alarm.map(|(at, _)| at) == at {
            return;
        }
        if let Some((_, handle)) = self.alarm.take() {
            ctx.cancel_future(handle);
        }
        let Some(at) = at else { return };
        let handle = ctx.run_later(at.saturating_duration_since(now), |collector, ctx| {
            collector.alarm = None;
            collector.go_on(ctx);
        });
        self.alarm = Some((at, handle));
    }

    /// The connection is gone. Whole packets wait for the next one; a half-written one is not continued on it.
    fn lost(&mut self, error: &io::Error, ctx: &mut Context<Self>) {
        // Nobody loses one while another is being made.
        let Connection::Open(open) = std::mem::replace(&mut self.connection, Connection::None) else { return };
        ctx.cancel_future(open.listening);
        if let Some(Blocked { writable, timeout, .. }) = open.blocked {
            ctx.cancel_future(writable);
            ctx.cancel_future(timeout);
        }
        if self.draining && self.postponed.is_empty() {
            // It was we who said that nothing follows.
            return;
        }
        let now = Instant::now();
        self.counter.event(CollectorCount::Broken);
        let half = self.postponed.forget_half_written();
        self.counter.dropped(half, DropReason::ConnectionBroken, error, now);
        let was_there = now.saturating_duration_since(open.since);
        let wait = self.attempts.lose(was_there, wall_clock().microseconds);
        if let Some(unsaid) = self.counter.may_say(now) {
            let (postponed, again_ms) = (self.postponed.len(), wait.as_millis());
            tracing::warn!(collector = self.counter.name(), %error, postponed, again_ms, unsaid, "connection lost");
        }
        self.connect_later(wait, ctx);
    }

    fn answer_drains(&mut self) {
        if !self.postponed.is_empty() {
            return;
        }
        for drained in self.drained.drain(..) {
            if let Connection::Open(open) = &mut self.connection {
                open.say_goodbye();
            }
            // Who asked may have lost patience.
            let _ = drained.send(());
        }
    }
}

impl Open {
    /// Nothing follows.
    fn say_goodbye(&mut self) {
        self.channel.say_goodbye();
        self.tell_the_rest();
        // The other direction stays open until the process ends: closing it while something is unread would make the
        // system take back what the collector has not read yet.
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
    }

    /// The last words of TLS. A collector that does not hear them sees the end of the stream.
    fn tell_the_rest(&mut self) {
        let _ = self.stream.try_write(self.channel.last_words());
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
