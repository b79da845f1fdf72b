//! From octets to a counted batch: what UDP and TCP have in common.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{ListenerId, Transport};
use crate::ledger::{DropReason, ListenerCount, Page};
use crate::message::{Origin, Received};
use crate::pace::Repeated;
use crate::wire::{AgentIdOrder, CapturedAt, InflateLimits, PACKET_OCTETS_MAX, RejectReason, decode, inflate};

/// Log lines about packets that were rejected, for each listener and worker: a flood of garbage must not become a
/// flood of lines. All are counted.
const REJECTED_LINES_MAX: u32 = 5;
const REJECTED_WINDOW: Duration = Duration::from_secs(10);

/// How a packet begins that is in gzip as a whole, as heplify sends it.
const MAGIC_GZIP: [u8; 2] = [0x1f, 0x8b];

/// Told of every packet that is rejected, and of who sent it.
pub type Teller = Box<dyn FnMut(&dyn fmt::Display, SocketAddr)>;

/// Decodes and counts what a listener takes in. All connections of a listener on a worker share one.
pub struct Intake {
    id: ListenerId,
    name: String,
    page: Rc<Page>,
    agent_ids: AgentIdOrder,
    unpacks_gzip: bool,
    said: Repeated,
    teller: Option<Teller>,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a batch brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What goes on.
    pub(super) packets: Vec<Received>,
    pub(super) tally: Tally,
}

impl Taken {
    /// A batch of about so many packets.
    pub(super) fn with_capacity(packets: usize) -> Self {
        Self { packets: Vec::with_capacity(packets), tally: Tally::default() }
    }
}

/// What of a batch is to be counted at once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: u64,
    octets: u64,
    trimmed: u64,
    keep_alives: u64,
    rejected: Vec<RejectReason>,
}

impl Intake {
    /// For the listener of that id and name, counting on that page.
    #[must_use]
    pub fn new(id: ListenerId, name: &str, page: Rc<Page>) -> Self {
        let said = Repeated::new(REJECTED_LINES_MAX, REJECTED_WINDOW);
        Self {
            id,
            name: name.to_owned(),
            page,
            agent_ids: AgentIdOrder::AsSent,
            unpacks_gzip: false,
            said,
            teller: None,
        }
    }

    /// The same for agents that write their ids in another order of octets.
    #[must_use]
    pub fn with_agent_ids(self, agent_ids: AgentIdOrder) -> Self {
        Self { agent_ids, ..self }
    }

    /// The same, but it tells somebody of every rejected packet instead of the log of a few.
    #[must_use]
    pub fn telling(self, teller: Teller) -> Self {
        Self { teller: Some(teller), ..self }
    }

    /// The same, but a whole packet in gzip is unpacked instead of refused, if `unpacks_gzip`.
    #[must_use]
    pub fn with_gzip(self, unpacks_gzip: bool) -> Self {
        Self { unpacks_gzip, ..self }
    }

    pub(super) const fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn page(&self) -> &Page {
        &self.page
    }

    /// Decodes one packet and puts it behind the others, unless it is rejected, or a keep-alive.
    #[inline]
    pub(super) fn take(&mut self, octets: Bytes, origin: Origin, now: Instant, taken: &mut Taken) {
        let tally = &mut taken.tally;
        tally.received += 1;
        tally.octets += wide(octets.len());
        let octets = if self.unpacks_gzip {
            let Some(octets) = self.unpacked(octets, origin.peer, now, tally) else { return };
            octets
        } else {
            octets
        };
        let length = octets.len();
        let packet = match decode(octets) {
            Ok(packet) => packet,
            Err(rejected) => {
                tally.rejected.push(rejected.reason());
                return self.tell(rejected.reason(), &rejected, origin.peer, now);
            }
        };
        if packet.is_keep_alive() {
            tally.keep_alives += 1;
            return;
        }
        tally.trimmed += wide(length - packet.octets().len());
        taken.packets.push(Received { packet, origin });
        if self.agent_ids != AgentIdOrder::AsSent
            && let Some(last) = taken.packets.last_mut()
            && let Some(corrected) = self.agent_ids.corrected(&last.packet)
        {
            last.packet = corrected;
        }
    }

    /// The packet that a datagram in gzip holds; another one as it is. `None`: it cannot be unpacked, and is in the tally.
    fn unpacked(&mut self, octets: Bytes, peer: SocketAddr, now: Instant, tally: &mut Tally) -> Option<Bytes> {
        if !octets.starts_with(&MAGIC_GZIP) {
            return Some(octets);
        }
        match inflate(&octets, InflateLimits { octets_max: PACKET_OCTETS_MAX, ..InflateLimits::default() }) {
            Ok(unpacked) => Some(unpacked.into()),
            Err(error) => {
                tally.rejected.push(RejectReason::Gzip);
                self.tell(RejectReason::Gzip, &error, peer, now);
                None
            }
        }
    }

    /// Counts a packet that never came to be decoded: `why` the stream broke in it, or before it.
    pub(super) fn reject_unread(
        &mut self,
        reason: RejectReason,
        why: &dyn fmt::Display,
        octets: usize,
        peer: SocketAddr,
        now: Instant,
        tally: &mut Tally,
    ) {
        tally.received += 1;
        tally.octets += wide(octets);
        tally.rejected.push(reason);
        self.tell(reason, why, peer, now);
    }

    fn tell(&mut self, reason: RejectReason, why: &dyn fmt::Display, peer: SocketAddr, now: Instant) {
        if let Some(teller) = &mut self.teller {
            teller(why, peer);
        } else if let Some(unsaid) = self.said.say(now) {
            let listener = self.name.as_str();
            tracing::warn!(listener, %peer, reason = reason.as_str(), unsaid, "rejected: {why}");
        }
    }

    /// Counts a batch. `packets` of it go to the chains if there was `room`, and are dropped otherwise.
    pub(super) fn count(&self, tally: Tally, packets: usize, room: bool) {
        let writing = self.page.write();
        let add = |count, n| writing.listener(self.id, count, n);
        add(ListenerCount::Received, tally.received);
        add(ListenerCount::ReceivedOctets, tally.octets);
        add(ListenerCount::TrimmedOctets, tally.trimmed);
        add(ListenerCount::Dropped(DropReason::KeepAlive), tally.keep_alives);
        for reason in tally.rejected {
            add(ListenerCount::Rejected(reason), 1);
        }
        let kept = if room { ListenerCount::Queued } else { ListenerCount::Dropped(DropReason::ChainFull) };
        add(kept, wide(packets));
    }

    /// Counts a batch out that could not be sent after all: the chains are gone, or their mailbox is full.
    pub(super) fn count_lost(&self, packets: usize) {
        let writing = self.page.write();
        writing.listener_less(self.id, ListenerCount::Queued, wide(packets));
        writing.listener(self.id, ListenerCount::Dropped(DropReason::ChainFull), wide(packets));
    }

    pub(super) const fn origin(
        &self,
        transport: Transport,
        peer: SocketAddr,
        local: SocketAddr,
        received_at: CapturedAt,
    ) -> Origin {
        Origin { listener: Some(self.id), transport, peer, local, received_at }
    }
}

pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
