//! What actors say to each other, and the things that they hand on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use actix::{Message, Recipient};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{CollectorId, ListenerId, TenantId, Transport};
use crate::wire::{CapturedAt, Packet};

/// How a packet came to us (`$hep_net` in OpenSIPS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Through which listener; `None` for a packet that a filter made.
    pub listener: Option<ListenerId>,
    /// Over what.
    pub transport: Transport,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address at which it came.
    pub local: SocketAddr,
    /// When, by our clock.
    pub received_at: CapturedAt,
}

impl Origin {
    /// The origin of a packet that a filter made at that time.
    #[must_use]
    pub fn ours(made_at: CapturedAt) -> Self {
        let nobody = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        Self { listener: None, transport: Transport::Udp, peer: nobody, local: nobody, received_at: made_at }
    }
}

/// What the clock on the wall says.
#[must_use]
pub fn wall_clock() -> CapturedAt {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CapturedAt::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// A packet and how it came. Cloning it copies no octets of the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// The packet.
    pub packet: Packet,
    /// How it came.
    pub origin: Origin,
}

impl Received {
    /// What it takes of a collector's backlog while it waits, in octets.
    #[must_use]
    pub fn charge(&self) -> usize {
        self.packet.octets().len() + PACKET_OVERHEAD_OCTETS
    }
}

/// What is known of a connection beside its addresses.
#[derive(Debug, Default)]
pub struct Connected {
    /// Names in the certificate that the peer has shown, in lower case.
    pub client_names: Vec<String>,
    /// Its places in the tenants' quotas.
    slots: Mutex<Vec<(TenantId, Slot)>>,
    refused: AtomicBool,
}

impl Connected {
    /// A connection of a peer that has shown a certificate with these names.
    #[must_use]
    pub fn new(client_names: Vec<String>) -> Arc<Self> {
        Arc::new(Self { client_names, ..Self::default() })
    }

    /// Counts this connection among the tenant's, until it ends. `false`: there is no room for it, and its owner is to
    /// close it.
    pub fn count_for(&self, tenant: TenantId, slots: &Arc<Slots>) -> bool {
        let mut held = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if held.iter().any(|(other, _)| *other == tenant) {
            return true;
        }
        let slot = slots.take();
        let found_room = slot.is_some();
        held.extend(slot.map(|slot| (tenant, slot)));
        if !found_room {
            self.refused.store(true, Ordering::Relaxed);
        }
        found_room
    }

    /// Whether a tenant had no room for it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A bounded number of places.
#[derive(Debug)]
pub struct Slots {
    free: AtomicUsize,
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many, all free.
    #[must_use]
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(places) })
    }

    /// A place, if one is free.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

/// Packets of one listener or connection, in the order in which they came.
#[derive(Debug)]
pub struct Batch {
    /// Whose they are is not known yet.
    pub packets: Vec<Received>,
    /// The connection, if they came through one.
    pub connection: Option<Arc<Connected>>,
    /// Given back when the chain has taken the batch, and by TCP not before the batch is done: that is how an agent
    /// feels that a chain is slow.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Message for Batch {
    type Result = ();
}

/// Packets for a collector, in order.
#[derive(Debug)]
pub struct Deliver {
    /// The packets; the collectors of a route share one list.
    pub packets: Arc<Vec<Received>>,
}

impl Message for Deliver {
    type Result = ();
}

impl Deliver {
    /// What the packets count for in a mailbox.
    #[must_use]
    pub fn octets(packets: &[Received]) -> usize {
        packets.iter().map(Received::charge).sum()
    }
}

/// What a waiting packet counts for beside its octets, so that many small ones do not pass for nothing.
const PACKET_OVERHEAD_OCTETS: usize = 256;

/// Asks an actor to end well: take nothing more, finish what it has, then answer.
#[derive(Clone, Copy, Debug)]
pub struct Drain;

impl Message for Drain {
    type Result = ();
}

/// How much waits for a collector, in its mailbox and postponed, and whether it keeps up. Shared by the collector and
/// those who send to it.
#[derive(Debug)]
pub struct Backlog {
    octets: AtomicUsize,
    octets_max: usize,
    full: AtomicBool,
}

impl Backlog {
    /// At most `octets_max` octets may wait.
    #[must_use]
    pub fn new(octets_max: usize) -> Arc<Self> {
        Arc::new(Self { octets: AtomicUsize::new(0), octets_max, full: AtomicBool::new(false) })
    }

    /// For the collector: these octets wait no longer.
    pub fn taken(&self, octets: usize) {
        self.octets.fetch_sub(octets, Ordering::Relaxed);
    }

    /// For the collector: whether as many packets are postponed as may.
    pub fn set_full(&self, full: bool) {
        if self.full.load(Ordering::Relaxed) != full {
            self.full.store(full, Ordering::Relaxed);
        }
    }

    /// Whether as many packets are postponed as may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes room for these octets, if there is so much. An empty mailbox takes a list of any length.
    fn take(&self, octets: usize) -> bool {
        let before = self.octets.fetch_add(octets, Ordering::Relaxed);
        if before > 0 && before + octets > self.octets_max {
            self.octets.fetch_sub(octets, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// The way to a collector, for one sender: its bound is in octets, so that it means the same for every packet.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Which collector.
    pub id: CollectorId,
    /// How full it is.
    pub backlog: Arc<Backlog>,
    /// The collector. Its own bound is never reached before that of the backlog.
    pub to: Recipient<Deliver>,
}

impl Outlet {
    /// Hands packets on, or says that the collector has no room.
    #[must_use]
    pub fn offer(&self, packets: Arc<Vec<Received>>) -> bool {
        let octets = Deliver::octets(&packets);
        if !self.backlog.take(octets) {
            return false;
        }
        let sent = self.to.try_send(Deliver { packets }).is_ok();
        if !sent {
            self.backlog.taken(octets);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_holds_what_it_may_and_not_an_octet_more() {
        let backlog = Backlog::new(1_000);
        assert!(backlog.take(600));
        assert!(!backlog.take(401));
        assert!(backlog.take(400));
        backlog.taken(600);
        assert!(backlog.take(600));
    }

    #[test]
    fn a_connection_takes_one_place_of_a_tenant_until_it_ends() {
        let slots = Slots::new(1);
        let (first, second) = (Connected::new(Vec::new()), Connected::new(Vec::new()));
        assert!(first.count_for(TenantId(0), &slots));
        assert!(first.count_for(TenantId(0), &slots), "it has its place already");
        assert!(!second.count_for(TenantId(0), &slots));
        assert!(second.is_refused() && !first.is_refused());
        drop(first);
        assert!(Connected::new(Vec::new()).count_for(TenantId(0), &slots));
    }

    #[test]
    fn an_empty_mailbox_takes_a_list_of_any_length() {
        let backlog = Backlog::new(1_000);
        assert!(backlog.take(5_000));
        assert!(!backlog.take(1));
    }
}
