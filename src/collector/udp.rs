//! The actor that sends datagrams to one collector.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::counter::Counter;
use super::encode::Encoding;
use super::postponed::{Postponed, WRITE_PARTS_MAX};
use crate::config::RemoteAddr;
use crate::ledger::{CollectorCount, DropReason};
use crate::message::{Backlog, Deliver, Drain};
use crate::wire::DATAGRAM_OCTETS_MAX;

/// Deliveries that may be in the mailbox. Never reached: the backlog's bound in octets comes first, or the worker's
/// bound on batches.
const MAILBOX: usize = 1 << 20;

/// Wait before the next attempt if the runtime cannot watch a socket that takes no more.
const UNWATCHED_WAIT: Duration = Duration::from_millis(10);

/// Why there is no way to a collector.
#[derive(Debug, thiserror::Error)]
#[error("collector {collector:?}: {to}: {reason}")]
pub struct UdpError {
    /// The collector's name.
    pub collector: String,
    /// Where it is.
    pub to: RemoteAddr,
    /// What the system said.
    pub reason: io::Error,
}

/// Sends datagrams to one collector, as many in one system call as there are.
///
/// The runtime watches the socket only while the system takes no more: epoll would tell of each datagram that has left
/// that there is room for another, which is a wake-up for every datagram.
pub struct UdpCollector {
    socket: StdUdpSocket,
    encoding: Encoding,
    postponed: Postponed,
    /// The system took no more; somebody waits for it.
    blocked: bool,
    counter: Counter,
    backlog: Arc<Backlog>,
    drained: Vec<oneshot::Sender<()>>,
}

impl std::fmt::Debug for UdpCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpCollector").field("name", &self.counter.name()).finish_non_exhaustive()
    }
}

impl UdpCollector {
    /// A socket that sends there. The name is looked up once, here.
    ///
    /// # Errors
    /// [`UdpError`]: the name has no address, or there is no way to it.
    pub fn connect(collector: &str, to: &RemoteAddr) -> Result<StdUdpSocket, UdpError> {
        let error = |reason| UdpError { collector: collector.to_owned(), to: to.clone(), reason };
        let mut result = Err(io::Error::other("the name has no address"));
        for address in (to.host.as_str(), to.port).to_socket_addrs().map_err(error)? {
            result = connect(address);
            if result.is_ok() {
                break;
            }
        }
        result.map_err(error)
    }

    /// For a connected socket.
    #[must_use]
    pub fn new(
        socket: StdUdpSocket,
        encoding: Encoding,
        postponed_max: usize,
        counter: Counter,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            socket,
            encoding,
            postponed: Postponed::new(postponed_max),
            blocked: false,
            counter,
            backlog,
            drained: Vec::new(),
        }
    }

    fn take(&mut self, deliver: &Deliver, now: Instant) {
        for received in deliver.packets.iter() {
            let charge = received.charge();
            match self.encoding.encode(received) {
                Ok(octets) if octets.len() <= DATAGRAM_OCTETS_MAX => self.postponed.push(octets, charge, now),
                Ok(octets) => {
                    self.backlog.taken(charge);
                    let what = format!("a packet of {} octets; a datagram holds {DATAGRAM_OCTETS_MAX}", octets.len());
                    self.counter.dropped(1, DropReason::TooLong, &what, now);
                }
                Err(error) => {
                    self.backlog.taken(charge);
                    self.counter.dropped(1, DropReason::CannotEncode, &error, now);
                }
            }
        }
    }

    /// Sends until all is sent, or the system takes no more.
    fn flush(&mut self, now: Instant) {
        let mut refusals = 0;
        while !self.postponed.is_empty() {
            match send(self.socket.as_fd(), &self.postponed) {
                Ok(packets) => self.count_sent(packets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                // The answer to an earlier datagram, told at the next one, which was not sent yet: it goes again.
                Err(error) if is_refusal(&error) && refusals == 0 => {
                    refusals += 1;
                    self.counter.event(CollectorCount::Broken);
                    self.say_refused(&error, now);
                }
                Err(error) => self.drop_first(&error, now),
            }
        }
    }

    fn count_sent(&mut self, packets: usize) {
        let octets = self.postponed.octets_of_first(packets);
        let sent = self.postponed.advance(octets);
        self.counter.sent(sent.packets, sent.octets);
    }

    fn drop_first(&mut self, error: &io::Error, now: Instant) {
        let octets = self.postponed.octets_of_first(1);
        let dropped = self.postponed.advance(octets);
        let reason = if is_refusal(error) { DropReason::Unreachable } else { DropReason::WriteFailed };
        self.counter.dropped(dropped.packets, reason, error, now);
    }

    fn say_refused(&mut self, error: &io::Error, now: Instant) {
        if let Some(unsaid) = self.counter.may_say(now) {
            tracing::warn!(collector = self.counter.name(), %error, unsaid, "nobody takes what is sent");
        }
    }

    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let was_blocked = self.blocked;
        if !was_blocked {
            self.flush(now);
        }
        if self.postponed.is_over() {
            let dropped = self.postponed.drop_newest();
            self.counter.dropped(dropped, DropReason::PostponedFull, &"the system takes no more datagrams", now);
        }
        self.backlog.taken(self.postponed.take_freed());
        self.backlog.set_full(self.blocked && self.postponed.is_full());
        if self.blocked {
            self.postponed.detach();
            if !was_blocked {
                self.wait_until_writable(ctx);
            }
        }
        if self.postponed.is_empty() {
            for drained in self.drained.drain(..) {
                // Who asked may have lost patience.
                let _ = drained.send(());
            }
        }
    }

    fn wait_until_writable(&self, ctx: &mut Context<Self>) {
        let watched = self.socket.try_clone().and_then(UdpSocket::from_std);
        let writable = async move {
            // Who begins to watch is told at once if there is room by now.
            let is_writable = match watched {
                Ok(watched) => watched.writable().await.is_ok(),
                Err(_) => false,
            };
            if !is_writable {
                tokio::time::sleep(UNWATCHED_WAIT).await;
            }
        };
        ctx.spawn(writable.into_actor(self).map(|(), collector, ctx| {
            collector.blocked = false;
            collector.go_on(ctx);
        }));
    }
}

fn connect(address: SocketAddr) -> io::Result<StdUdpSocket> {
    let unspecified = match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let socket = StdUdpSocket::bind(unspecified)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One system call. Gives how many datagrams went; the first is all that an error is about.
fn send(socket: BorrowedFd<'_>, postponed: &Postponed) -> io::Result<usize> {
    let parts = postponed.parts();
    // What `sendmmsg` has to be told costs more than it saves for one.
    if let [only] = parts.as_slice() {
        nix::sys::socket::send(socket.as_raw_fd(), only, MsgFlags::MSG_DONTWAIT)?;
        return Ok(1);
    }
    let datagrams: Vec<[io::IoSlice<'_>; 1]> = parts.into_iter().map(|part| [part]).collect();
    let mut headers = MultiHeaders::<()>::preallocate(datagrams.len(), None);
    // The socket is connected: no datagram has an address of its own.
    let addresses = [None::<()>; WRITE_PARTS_MAX];
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        datagrams.iter(),
        addresses.get(..datagrams.len()).unwrap_or_default(),
        [],
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(sent.count())
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN)
    )
}

impl Actor for UdpCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let left = self.postponed.drop_all();
        self.counter.dropped(left, DropReason::Stopping, &"the gateway stops", Instant::now());
    }
}

impl Handler<Deliver> for UdpCollector {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        self.take(&deliver, Instant::now());
        drop(deliver);
        // While the system takes no more, what comes waits for it.
        self.go_on(ctx);
    }
}

impl Handler<Drain> for UdpCollector {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.drained.push(done);
        self.go_on(ctx);
        Box::pin(async move {
            // The sender goes with the actor: either way it has ended.
            let _ = wait.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::rc::Rc;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::config::{CollectorId, VersionOut};
    use crate::ledger::{Ledger, Rows};
    use crate::message::{Origin, Received};
    use crate::wire::{CapturedAt, decode};

    /// Loopback takes any number of datagrams at once; a pair of this kind takes some, and more when those are read.
    #[test]
    fn what_the_system_does_not_take_at_once_goes_out_in_order_when_it_does() {
        const PACKETS: u16 = 2_000;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_NONBLOCK).unwrap();
        let theirs = UnixDatagram::from(theirs);
        theirs.set_nonblocking(false).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let numbered =
            |number: u16| [&[1, 16, 2, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &number.to_be_bytes()[..]].concat();
        let origin = Origin::ours(CapturedAt::default());
        let packets = (0..PACKETS).map(|number| Received { packet: decode(numbered(number).into()).unwrap(), origin });
        let deliver = Deliver { packets: Arc::new(packets.collect()) };
        let ledger = Ledger::new(Rows { collectors: vec!["c".to_owned()], ..Rows::default() });
        let backlog = Backlog::new(1 << 20);
        actix::System::new().block_on(async {
            let counter = Counter::new(CollectorId(0), "c", Rc::new(ledger.page()));
            let encoding = Encoding { version: VersionOut::AsReceived, agent_id: 1, authentication_key: None };
            let collector =
                UdpCollector::new(ours.into(), encoding, usize::from(PACKETS), counter, Arc::clone(&backlog));
            let collector = collector.start();
            collector.send(deliver).await.unwrap();
            let sent = ledger.totals().collector(CollectorId(0), CollectorCount::Sent);
            assert!(sent > 0 && sent < u64::from(PACKETS), "the system took {sent} at once");
            let reader = std::thread::spawn(move || {
                let next = |_| {
                    let mut octets = vec![0; 64];
                    let length = theirs.recv(&mut octets).unwrap();
                    octets.truncate(length);
                    octets
                };
                (0..PACKETS).map(next).collect::<Vec<_>>()
            });
            let drained = tokio::time::timeout(Duration::from_secs(60), collector.send(Drain)).await;
            drained.unwrap().unwrap();
            assert_eq!(reader.join().unwrap(), (0..PACKETS).map(numbered).collect::<Vec<_>>());
        });
    }
}
