//! The counters every part writes, and the sums they must keep.
//!
//! A thread that counts has a [`Page`] of its own, so the way of a packet has no lock and no counter that two threads
//! write. Readers add the pages up. What belongs together is written in one [`Page::write`], which a reader sees as a
//! whole or not at all; every such write leaves the sums intact, so they hold in every [`Totals`], at any time:
//!
//! - listener: `received = rejected + dropped + accepted + queued`
//! - tenant: `received = skipped + filter dropped + dropped + routed + in flight`
//! - collector: `accepted = sent + dropped + waiting`
//!
//! - altogether: what the listeners accepted is what the tenants received

mod reason;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use reason::{CloseReason, DropReason, FaultKind};

use crate::config::{CollectorId, ListenerId, TenantId};
use crate::wire::RejectReason;

/// A filter in a tenant's chain: a row of [`Rows::seats`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeatId(pub usize);

/// What is counted of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerCount {
    /// Packets that came, HEP or not.
    Received,
    /// Their octets.
    ReceivedOctets,
    /// Packets handed on to a tenant.
    Accepted,
    /// Packets that wait for the worker's chains.
    Queued,
    /// Octets behind the stated length of a datagram's packet, which are cut off.
    TrimmedOctets,
    /// Datagrams that the kernel dropped because our receive buffer was full. Not in `Received`.
    KernelDropped,
    /// Connections taken.
    Opened,
    /// Connections open now.
    Open,
    /// Not HEP.
    Rejected(RejectReason),
    /// HEP that was not kept.
    Dropped(DropReason),
    /// Connections closed or refused.
    Closed(CloseReason),
}

/// What is counted of a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TenantCount {
    /// Packets that are this tenant's.
    Received,
    /// Their octets.
    ReceivedOctets,
    /// Packets kept from the route by a filter's `skip`.
    Skipped,
    /// Packets ended by a filter's `drop`.
    FilterDropped,
    /// Packets given to the route's collectors.
    Routed,
    /// Packets that wait for the chain or are in it.
    InFlight,
    /// Packets not kept for another reason.
    Dropped(DropReason),
}

/// What is counted of a collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollectorCount {
    /// Packets that it was given, by a route or by a filter.
    Accepted,
    /// Those of them that a filter sent or relayed.
    FromFilters,
    /// Packets that left.
    Sent,
    /// Their octets.
    SentOctets,
    /// Packets that wait: in its mailbox, or postponed.
    Waiting,
    /// Connections made, or files begun.
    Connected,
    /// Connections that could not be made.
    ConnectFailed,
    /// Connections that broke or were broken.
    Broken,
    /// Times that it was left alone for `hep_retry_cooldown`.
    CoolDowns,
    /// Packets not sent.
    Dropped(DropReason),
}

/// What is counted of a filter in a tenant's chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeatCount {
    /// Calls that ended well.
    Calls,
    /// Packets in them.
    Packets,
    /// Packets that it answered `pass`.
    Passed,
    /// Packets that it answered `skip`.
    Skipped,
    /// Packets that it answered `drop`.
    Dropped,
    /// Packets that it never answered, because its call failed or it has no instance.
    Failed,
    /// Packets that it changed.
    Edited,
    /// Packets that it sent or relayed.
    Sent,
    /// Log lines that it wrote.
    LogLines,
    /// Log lines above its rate, which were not written.
    LogLinesUnwritten,
    /// Nanoseconds of its calls, failed ones too.
    Nanoseconds,
    /// Instances started.
    Started,
    /// Times its chain was moved to the slow lane on its account.
    MovedToSlowLane,
    /// Faults that were held against it.
    Strikes,
    /// Times it was taken out of service.
    Quarantines,
    /// Cases of which evidence was kept.
    Evidence,
    /// Cases of which it could not be kept.
    EvidenceLost,
    /// Instances that were replaced because they had grown.
    Recycled,
    /// Changes of what it remembers that found no room after all.
    StateLost,
    /// Calls that took so long: no longer than [`took_within`] of the bucket, and longer than of the one before.
    Took(usize),
    /// Calls that failed.
    Faults(FaultKind),
}

/// Buckets of [`SeatCount::Took`].
pub const TOOK_BUCKETS: usize = 19;

/// The longest time of a bucket: 1, 2, 4, … microseconds; of the last one, any.
#[must_use]
pub const fn took_within(bucket: usize) -> Duration {
    if bucket + 1 >= TOOK_BUCKETS { Duration::MAX } else { Duration::from_micros(1 << bucket) }
}

/// The bucket of a time.
#[must_use]
pub fn took_bucket(time: Duration) -> usize {
    (0..TOOK_BUCKETS).find(|bucket| time <= took_within(*bucket)).unwrap_or(TOOK_BUCKETS - 1)
}

/// A kind of row: its counts stand one after the other, those with a reason last.
pub trait Count: Copy {
    /// How many counts a row has.
    const WIDTH: usize;
    /// This count's place in a row.
    fn place(self) -> usize;
}

impl Count for ListenerCount {
    const WIDTH: usize = 8 + RejectReason::ALL.len() + DropReason::ALL.len() + CloseReason::ALL.len();

    fn place(self) -> usize {
        let rejected = 8;
        let dropped = rejected + RejectReason::ALL.len();
        let closed = dropped + DropReason::ALL.len();
        match self {
            Self::Received => 0,
            Self::ReceivedOctets => 1,
            Self::Accepted => 2,
            Self::TrimmedOctets => 3,
            Self::KernelDropped => 4,
            Self::Opened => 5,
            Self::Open => 6,
            Self::Queued => 7,
            Self::Rejected(reason) => rejected + reason as usize,
            Self::Dropped(reason) => dropped + reason as usize,
            Self::Closed(reason) => closed + reason as usize,
        }
    }
}

impl Count for TenantCount {
    const WIDTH: usize = 6 + DropReason::ALL.len();

    fn place(self) -> usize {
        match self {
            Self::Received => 0,
            Self::ReceivedOctets => 1,
            Self::Skipped => 2,
            Self::FilterDropped => 3,
            Self::Routed => 4,
            Self::InFlight => 5,
            Self::Dropped(reason) => 6 + reason as usize,
        }
    }
}

impl Count for CollectorCount {
    const WIDTH: usize = 9 + DropReason::ALL.len();

    fn place(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::FromFilters => 1,
            Self::Sent => 2,
            Self::SentOctets => 3,
            Self::Waiting => 4,
            Self::Connected => 5,
            Self::ConnectFailed => 6,
            Self::Broken => 7,
            Self::CoolDowns => 8,
            Self::Dropped(reason) => 9 + reason as usize,
        }
    }
}

impl Count for SeatCount {
    const WIDTH: usize = 19 + TOOK_BUCKETS + FaultKind::ALL.len();

    fn place(self) -> usize {
        match self {
            Self::Calls => 0,
            Self::Packets => 1,
            Self::Passed => 2,
            Self::Skipped => 3,
            Self::Dropped => 4,
            Self::Failed => 5,
            Self::Edited => 6,
            Self::Sent => 7,
            Self::LogLines => 8,
            Self::LogLinesUnwritten => 9,
            Self::Nanoseconds => 10,
            Self::Started => 11,
            Self::MovedToSlowLane => 12,
            Self::Strikes => 13,
            Self::Quarantines => 14,
            Self::Evidence => 15,
            Self::EvidenceLost => 16,
            Self::Recycled => 17,
            Self::StateLost => 18,
            Self::Took(bucket) => 19 + if bucket < TOOK_BUCKETS { bucket } else { TOOK_BUCKETS - 1 },
            Self::Faults(kind) => 19 + TOOK_BUCKETS + kind as usize,
        }
    }
}

/// The rows of the ledger, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rows {
    /// Listeners, as configured.
    pub listeners: Vec<String>,
    /// Tenants, as configured.
    pub tenants: Vec<String>,
    /// Collectors, as configured.
    pub collectors: Vec<String>,
    /// Filters in chains: the tenant and the filter's name.
    pub seats: Vec<(TenantId, String)>,
}

/// All counters of a gateway.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: Arc<Rows>,
    pages: Vec<Arc<Cells>>,
    /// The sums of pages that nobody writes any more.
    closed: Totals,
}

impl Ledger {
    /// A ledger with these rows and no pages yet.
    #[must_use]
    pub fn new(rows: Rows) -> Arc<Self> {
        let rows = Arc::new(rows);
        let closed = Totals::nothing(&rows);
        Arc::new(Self { inner: Mutex::new(Inner { rows, pages: Vec::new(), closed }) })
    }

    /// The rows' names.
    #[must_use]
    pub fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.lock().rows)
    }

    /// More rows: those that are there already, each at its place, and others behind them. Pages that were made before
    /// do not have the others.
    pub fn extend(&self, rows: Rows) {
        let mut inner = self.lock();
        inner.rows = Arc::new(rows);
        let mut closed = Totals::nothing(&inner.rows);
        closed.add(&inner.closed.layout, &inner.closed.sums);
        inner.closed = closed;
    }

    /// A page for one thread. It stays part of the sums when the thread is gone.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut inner = self.lock();
        inner.close();
        let cells = Arc::new(Cells::new(&inner.rows));
        inner.pages.push(Arc::clone(&cells));
        Page { cells, writing: Cell::new(false) }
    }

    /// The sums over all pages, each page read as a whole.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let inner = self.lock();
        let mut totals = inner.closed.clone();
        let mut copy = Vec::new();
        for page in &inner.pages {
            copy.resize(page.values.len(), 0);
            page.copy_into(&mut copy);
            totals.add(&page.layout, &copy);
        }
        totals
    }

    /// Pages that are written.
    #[cfg(test)]
    fn pages(&self) -> usize {
        self.lock().pages.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Puts the pages that nobody writes any more together.
    fn close(&mut self) {
        let Self { pages, closed, .. } = self;
        pages.retain(|page| {
            // The writer's own handle is the other one.
            if Arc::strong_count(page) > 1 {
                return true;
            }
            let mut copy = vec![0; page.values.len()];
            page.copy_into(&mut copy);
            closed.add(&page.layout, &copy);
            false
        });
    }
}

/// The counters that one thread writes.
#[derive(Debug)]
pub struct Page {
    cells: Arc<Cells>,
    /// `Cell` also keeps the page from being shared between threads: it has one writer.
    writing: Cell<bool>,
}

impl Page {
    /// Begins a write. Readers see all of it or nothing, so write what belongs together in one, and hold it briefly.
    #[must_use]
    pub fn write(&self) -> Writing<'_> {
        debug_assert!(!self.writing.replace(true), "a write within a write");
        let version = self.cells.version.load(Ordering::Relaxed);
        self.cells.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        Writing { page: self }
    }
}

/// A write to a [`Page`] that readers do not see before it ends.
#[derive(Debug)]
pub struct Writing<'a> {
    page: &'a Page,
}

impl Writing<'_> {
    /// Adds to a listener's count.
    pub fn listener(&self, id: ListenerId, count: ListenerCount, n: u64) {
        self.add(self.page.cells.layout.listeners, id.0, count, n);
    }

    /// Adds to a tenant's count.
    pub fn tenant(&self, id: TenantId, count: TenantCount, n: u64) {
        self.add(self.page.cells.layout.tenants, id.0, count, n);
    }

    /// Adds to a collector's count.
    pub fn collector(&self, id: CollectorId, count: CollectorCount, n: u64) {
        self.add(self.page.cells.layout.collectors, id.0, count, n);
    }

    /// Adds to the count of a filter in a chain.
    pub fn seat(&self, id: SeatId, count: SeatCount, n: u64) {
        self.add(self.page.cells.layout.seats, id.0, count, n);
    }

    /// Takes from a gauge: `InFlight`, `Waiting`, `Open`. Another page may have added what this one takes.
    pub fn listener_less(&self, id: ListenerId, count: ListenerCount, n: u64) {
        self.listener(id, count, n.wrapping_neg());
    }

    /// See [`Writing::listener_less`].
    pub fn tenant_less(&self, id: TenantId, count: TenantCount, n: u64) {
        self.tenant(id, count, n.wrapping_neg());
    }

    /// See [`Writing::listener_less`].
    pub fn collector_less(&self, id: CollectorId, count: CollectorCount, n: u64) {
        self.collector(id, count, n.wrapping_neg());
    }

    fn add<C: Count>(&self, section: Section, row: usize, count: C, n: u64) {
        if let Some(cell) = section.place(row, count).and_then(|place| self.page.cells.values.get(place)) {
            // One writer: no read-modify-write of the bus is needed.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let version = self.page.cells.version.load(Ordering::Relaxed);
        self.page.cells.version.store(version.wrapping_add(1), Ordering::Release);
        self.page.writing.set(false);
    }
}

/// What the counters were at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    rows: Arc<Rows>,
    layout: Layout,
    sums: Vec<u64>,
}

impl Totals {
    /// Nothing has been counted in these rows.
    #[must_use]
    pub fn nothing(rows: &Arc<Rows>) -> Self {
        let layout = Layout::of(rows);
        Self { rows: Arc::clone(rows), layout, sums: vec![0; layout.end] }
    }

    /// Adds the cells of a page, which may have fewer rows.
    fn add(&mut self, layout: &Layout, cells: &[u64]) {
        let sections = [
            (self.layout.listeners, layout.listeners, ListenerCount::WIDTH),
            (self.layout.tenants, layout.tenants, TenantCount::WIDTH),
            (self.layout.collectors, layout.collectors, CollectorCount::WIDTH),
            (self.layout.seats, layout.seats, SeatCount::WIDTH),
        ];
        for (to, from, width) in sections {
            let octets = to.rows.min(from.rows) * width;
            let sums = self.sums.get_mut(to.base..to.base + octets).unwrap_or_default();
            for (sum, value) in sums.iter_mut().zip(cells.get(from.base..from.base + octets).unwrap_or_default()) {
                *sum = sum.wrapping_add(*value);
            }
        }
    }

    /// The rows' names.
    #[must_use]
    pub const fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    /// A listener's count.
    #[must_use]
    pub fn listener(&self, id: ListenerId, count: ListenerCount) -> u64 {
        self.get(self.layout.listeners, id.0, count)
    }

    /// A tenant's count.
    #[must_use]
    pub fn tenant(&self, id: TenantId, count: TenantCount) -> u64 {
        self.get(self.layout.tenants, id.0, count)
    }

    /// A collector's count.
    #[must_use]
    pub fn collector(&self, id: CollectorId, count: CollectorCount) -> u64 {
        self.get(self.layout.collectors, id.0, count)
    }

    /// The count of a filter in a chain.
    #[must_use]
    pub fn seat(&self, id: SeatId, count: SeatCount) -> u64 {
        self.get(self.layout.seats, id.0, count)
    }

    /// Packets that a listener rejected, for whatever reason.
    #[must_use]
    pub fn listener_rejected(&self, id: ListenerId) -> u64 {
        RejectReason::ALL.iter().map(|reason| self.listener(id, ListenerCount::Rejected(*reason))).sum()
    }

    /// Packets that a listener dropped, for whatever reason.
    #[must_use]
    pub fn listener_dropped(&self, id: ListenerId) -> u64 {
        DropReason::ALL.iter().map(|reason| self.listener(id, ListenerCount::Dropped(*reason))).sum()
    }

    /// Packets of a tenant that were dropped, but not by a filter's verdict.
    #[must_use]
    pub fn tenant_dropped(&self, id: TenantId) -> u64 {
        DropReason::ALL.iter().map(|reason| self.tenant(id, TenantCount::Dropped(*reason))).sum()
    }

    /// Packets that a collector did not send, for whatever reason.
    #[must_use]
    pub fn collector_dropped(&self, id: CollectorId) -> u64 {
        DropReason::ALL.iter().map(|reason| self.collector(id, CollectorCount::Dropped(*reason))).sum()
    }

    /// Calls of a filter that failed, in whatever way.
    #[must_use]
    pub fn seat_faults(&self, id: SeatId) -> u64 {
        FaultKind::ALL.iter().map(|kind| self.seat(id, SeatCount::Faults(*kind))).sum()
    }

    /// Every sum that does not hold, with its figures. Empty means that nothing was lost uncounted.
    #[must_use]
    pub fn discrepancies(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, name) in ids(&self.rows.listeners, ListenerId) {
            let of = |count| self.listener(id, count);
            let (rejected, dropped) = (self.listener_rejected(id), self.listener_dropped(id));
            let (received, accepted) = (of(ListenerCount::Received), of(ListenerCount::Accepted));
            let queued = of(ListenerCount::Queued);
            if received != (rejected + dropped + accepted).wrapping_add(queued) {
                found.push(format!(
                    "listener {name}: received {received} != rejected {rejected} + dropped {dropped} + \
                     accepted {accepted} + queued {queued}"
                ));
            }
        }
        let accepted: u64 =
            ids(&self.rows.listeners, ListenerId).map(|(id, _)| self.listener(id, ListenerCount::Accepted)).sum();
        let received: u64 =
            ids(&self.rows.tenants, TenantId).map(|(id, _)| self.tenant(id, TenantCount::Received)).sum();
        if accepted != received {
            found.push(format!("listeners accepted {accepted} != tenants received {received}"));
        }
        for (id, name) in ids(&self.rows.tenants, TenantId) {
            let of = |count| self.tenant(id, count);
            let (skipped, filter_dropped) = (of(TenantCount::Skipped), of(TenantCount::FilterDropped));
            let (routed, in_flight) = (of(TenantCount::Routed), of(TenantCount::InFlight));
            let (received, dropped) = (of(TenantCount::Received), self.tenant_dropped(id));
            if received != (skipped + filter_dropped + dropped + routed).wrapping_add(in_flight) {
                found.push(format!(
                    "tenant {name}: received {received} != skipped {skipped} + filter dropped {filter_dropped} + \
                     dropped {dropped} + routed {routed} + in flight {in_flight}"
                ));
            }
        }
        for (id, name) in ids(&self.rows.collectors, CollectorId) {
            let of = |count| self.collector(id, count);
            let (accepted, sent) = (of(CollectorCount::Accepted), of(CollectorCount::Sent));
            let (waiting, dropped) = (of(CollectorCount::Waiting), self.collector_dropped(id));
            if accepted != (sent + dropped).wrapping_add(waiting) {
                found.push(format!(
                    "collector {name}: accepted {accepted} != sent {sent} + dropped {dropped} + waiting {waiting}"
                ));
            }
        }
        found
    }

    /// Nothing for a row that was not there yet.
    fn get<C: Count>(&self, section: Section, row: usize, count: C) -> u64 {
        section.place(row, count).and_then(|place| self.sums.get(place)).copied().unwrap_or(0)
    }
}

/// A gauge that several threads write may be below nothing for a moment: one has taken what another is about to add.
#[must_use]
pub const fn at_least_nothing(gauge: u64) -> u64 {
    if gauge > u64::MAX / 2 { 0 } else { gauge }
}

/// Each name with the id of its row.
pub fn ids<T, I>(names: &[T], id: impl Fn(usize) -> I) -> impl Iterator<Item = (I, &T)> {
    names.iter().enumerate().map(move |(index, name)| (id(index), name))
}

/// Where the rows of a kind lie among the cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Section {
    base: usize,
    rows: usize,
}

impl Section {
    /// The place of a count; `None` if there is no such row.
    fn place<C: Count>(self, row: usize, count: C) -> Option<usize> {
        (row < self.rows).then(|| self.base + row * C::WIDTH + count.place())
    }
}

/// Where each kind of row lies among the cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    listeners: Section,
    tenants: Section,
    collectors: Section,
    seats: Section,
    end: usize,
}

impl Layout {
    fn of(rows: &Rows) -> Self {
        let mut end = 0;
        let mut section = |rows: usize, width: usize| {
            let base = end;
            end += rows * width;
            Section { base, rows }
        };
        let listeners = section(rows.listeners.len(), ListenerCount::WIDTH);
        let tenants = section(rows.tenants.len(), TenantCount::WIDTH);
        let collectors = section(rows.collectors.len(), CollectorCount::WIDTH);
        let seats = section(rows.seats.len(), SeatCount::WIDTH);
        Self { listeners, tenants, collectors, seats, end }
    }
}

/// One page's memory: a sequence lock over plain counters, whose writer never waits.
#[derive(Debug)]
struct Cells {
    layout: Layout,
    /// Odd while a write is going on.
    version: AtomicU64,
    values: Box<[AtomicU64]>,
}

impl Cells {
    fn new(rows: &Rows) -> Self {
        let layout = Layout::of(rows);
        let values = (0..layout.end).map(|_| AtomicU64::new(0)).collect();
        Self { layout, version: AtomicU64::new(0), values }
    }

    fn copy_into(&self, copy: &mut [u64]) {
        loop {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                for (to, from) in copy.iter_mut().zip(&self.values) {
                    *to = from.load(Ordering::Relaxed);
                }
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return;
                }
            }
            // The writer is in the middle of a few stores; if its thread is not running, let it.
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        Rows {
            listeners: vec!["udp".into(), "tcp".into()],
            tenants: vec!["a".into()],
            collectors: vec!["file".into()],
            seats: vec![(TenantId(0), "discard".into())],
        }
    }

    #[test]
    fn every_count_has_a_place_of_its_own() {
        fn check<C: Count>(counts: &[C]) {
            let places: std::collections::BTreeSet<usize> = counts.iter().map(|count| count.place()).collect();
            assert_eq!(places.len(), C::WIDTH);
            assert_eq!(places.last(), Some(&(C::WIDTH - 1)));
        }
        use {CollectorCount as C, ListenerCount as L, SeatCount as S, TenantCount as T};
        let mut listener = vec![
            L::Received,
            L::ReceivedOctets,
            L::Accepted,
            L::TrimmedOctets,
            L::KernelDropped,
            L::Opened,
            L::Open,
            L::Queued,
        ];
        listener.extend(RejectReason::ALL.map(L::Rejected));
        listener.extend(DropReason::ALL.iter().copied().map(L::Dropped));
        listener.extend(CloseReason::ALL.iter().copied().map(L::Closed));
        check(&listener);
        let mut tenant = vec![T::Received, T::ReceivedOctets, T::Skipped, T::FilterDropped, T::Routed, T::InFlight];
        tenant.extend(DropReason::ALL.iter().copied().map(T::Dropped));
        check(&tenant);
        let mut collector = vec![
            C::Accepted,
            C::FromFilters,
            C::Sent,
            C::SentOctets,
            C::Waiting,
            C::Connected,
            C::ConnectFailed,
            C::Broken,
            C::CoolDowns,
        ];
        collector.extend(DropReason::ALL.iter().copied().map(C::Dropped));
        check(&collector);
        let mut seat = vec![
            S::Calls,
            S::Packets,
            S::Passed,
            S::Skipped,
            S::Dropped,
            S::Failed,
            S::Edited,
            S::Sent,
            S::LogLines,
            S::LogLinesUnwritten,
            S::Nanoseconds,
            S::Started,
            S::MovedToSlowLane,
            S::Strikes,
            S::Quarantines,
            S::Evidence,
            S::EvidenceLost,
            S::Recycled,
            S::StateLost,
        ];
        seat.extend((0..TOOK_BUCKETS).map(S::Took));
        seat.extend(FaultKind::ALL.iter().copied().map(S::Faults));
        check(&seat);
    }

    #[test]
    fn every_time_has_its_bucket() {
        for (micros, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (131_072, 17), (131_073, 18), (9_999_999, 18)]
        {
            assert_eq!(took_bucket(Duration::from_micros(micros)), bucket, "{micros}");
        }
    }

    #[test]
    fn pages_add_up_and_what_one_adds_another_may_take() {
        let ledger = Ledger::new(rows());
        let (worker, writer) = (ledger.page(), ledger.page());
        worker.write().collector(CollectorId(0), CollectorCount::Waiting, 5);
        worker.write().collector(CollectorId(0), CollectorCount::Accepted, 5);
        writer.write().collector_less(CollectorId(0), CollectorCount::Waiting, 3);
        writer.write().collector(CollectorId(0), CollectorCount::Sent, 3);
        let totals = ledger.totals();
        assert_eq!(totals.collector(CollectorId(0), CollectorCount::Waiting), 2);
        assert_eq!(totals.discrepancies(), Vec::<String>::new());
    }

    #[test]
    fn rows_may_be_added_and_what_old_pages_count_stays_where_it_is() {
        let ledger = Ledger::new(rows());
        let old = ledger.page();
        let mut more = rows();
        more.listeners.push("tls".into());
        more.tenants.push("b".into());
        more.seats.push((TenantId(1), "redact".into()));
        let before = ledger.totals();
        ledger.extend(more);
        let new = ledger.page();
        for page in [&old, &new] {
            page.write().tenant(TenantId(0), TenantCount::Routed, 1);
            page.write().collector(CollectorId(0), CollectorCount::Sent, 1);
            // The old page has no such row, and must not count it as something else.
            page.write().tenant(TenantId(1), TenantCount::Routed, 10);
            page.write().seat(SeatId(1), SeatCount::Calls, 10);
        }
        let check = |totals: &Totals| {
            assert_eq!(totals.tenant(TenantId(0), TenantCount::Routed), 2);
            assert_eq!(totals.tenant(TenantId(1), TenantCount::Routed), 10);
            assert_eq!(totals.collector(CollectorId(0), CollectorCount::Sent), 2);
            assert_eq!(totals.seat(SeatId(1), SeatCount::Calls), 10);
            assert_eq!(totals.listener(ListenerId(2), ListenerCount::Received), 0);
        };
        check(&ledger.totals());
        assert_eq!(before.tenant(TenantId(1), TenantCount::Routed), 0, "it was not there");
        // Pages whose writers are gone are put together, and lose nothing.
        drop((old, new));
        let _last = ledger.page();
        assert_eq!(ledger.pages(), 1);
        check(&ledger.totals());
        ledger.extend(ledger.rows().as_ref().clone());
        check(&ledger.totals());
    }

    #[test]
    fn a_packet_lost_uncounted_is_found_with_its_figures() {
        let ledger = Ledger::new(rows());
        let page = ledger.page();
        page.write().listener(ListenerId(1), ListenerCount::Received, 7);
        page.write().listener(ListenerId(1), ListenerCount::Rejected(RejectReason::NotHep), 6);
        assert_eq!(
            ledger.totals().discrepancies(),
            ["listener tcp: received 7 != rejected 6 + dropped 0 + accepted 0 + queued 0"]
        );
    }

    #[test]
    fn a_reader_sees_a_write_as_a_whole_or_not_at_all() {
        let ledger = Ledger::new(rows());
        let page = ledger.page();
        let writer = std::thread::spawn(move || {
            for _ in 0..200_000 {
                let write = page.write();
                write.listener(ListenerId(0), ListenerCount::Received, 3);
                write.listener(ListenerId(0), ListenerCount::Accepted, 3);
                write.tenant(TenantId(0), TenantCount::Received, 3);
                write.tenant(TenantId(0), TenantCount::Routed, 2);
                write.tenant(TenantId(0), TenantCount::Skipped, 1);
            }
        });
        let mut reads = 0;
        while !writer.is_finished() {
            assert_eq!(ledger.totals().discrepancies(), Vec::<String>::new());
            reads += 1;
        }
        writer.join().unwrap();
        assert!(reads > 0);
        assert_eq!(ledger.totals().tenant(TenantId(0), TenantCount::Received), 600_000);
    }
}
