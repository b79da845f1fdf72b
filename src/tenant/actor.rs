//! The actor of this layer: on each worker one, with a chain of each tenant.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle, StreamHandler};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::chain::{Chain, Counts, Done, Lane, Ran, Run, wide};
use super::quota::Quota;
use super::seat::Tally;
use super::slow::{ChainId, Finished, Job, SlowLane, Submitted};
use super::table::TenantTable;
use crate::config::{CollectorId, LaneChoice, ListenerId, TenantId, Transport};
use crate::filter::{Sent, Work};
use crate::ledger::{CollectorCount, DropReason, FaultKind, ListenerCount, Page, TenantCount, Writing};
use crate::message::{Batch, Connected, Drain, Outlet, Received};
use crate::wire::{ChunkId, Draft};

/// Counts of one filter's call, about.
const TALLY: usize = 12;
/// Results of the slow lane that may wait for their worker; the slow thread waits with the next one.
const RESULTS_MAX: usize = 64;

/// A tenant on this worker.
#[derive(Debug)]
struct Home {
    /// `None` while it is in the slow lane.
    chain: Option<Chain>,
    /// What takes the place of the chain that is on its way home.
    next: Option<Chain>,
    /// What came while the chain was on its way home.
    limbo: VecDeque<Job>,
    settings: HomeSettings,
    /// What calls filters without packets.
    ticking: Vec<SpawnHandle>,
}

/// How a tenant is served.
#[derive(Clone, Debug)]
pub struct HomeSettings {
    /// The collectors that its packets go to.
    pub route: Vec<CollectorId>,
    /// Where its chain runs.
    pub lane: LaneChoice,
    /// Filters that are to be called without packets, by their place in the chain.
    pub ticks: Vec<(usize, Duration)>,
    /// How much may come; shared with the other workers.
    pub quota: Option<Arc<Quota>>,
}

/// What changes for a tenant.
#[derive(Debug)]
pub struct HomeChange {
    /// How it is served from now on.
    pub settings: HomeSettings,
    /// The chain that takes the place of its own; `None`: it keeps that.
    pub chain: Option<Chain>,
}

/// What changes on a worker, all at once and between two batches.
#[derive(Debug)]
pub struct Change {
    /// Whose packet it is.
    pub table: TenantTable,
    /// Where to count from now on, if there are more rows.
    pub page: Option<Page>,
    /// By collector; `None`: it is gone.
    pub outlets: Vec<Option<Outlet>>,
    /// By tenant: as many as there ever were.
    pub homes: Vec<HomeChange>,
    /// How many batches all listeners and connections together may have under way to this worker.
    pub mailbox_batches: usize,
}

impl Message for Change {
    type Result = ();
}

/// The chains of one worker.
pub struct Chains {
    worker: usize,
    page: Page,
    table: TenantTable,
    homes: Vec<Home>,
    /// By collector; `None`: it is gone.
    outlets: Vec<Option<Outlet>>,
    /// Whose each packet of the batch at hand is, and those packets by tenant: empty between batches, and kept for their
    /// memory.
    tenants: Vec<Option<TenantId>>,
    sorted: Vec<(TenantId, Vec<Received>)>,
    slow: Arc<SlowLane>,
    results: mpsc::Sender<Finished>,
    incoming_results: Option<mpsc::Receiver<Finished>>,
    /// Jobs that the slow lane has of ours.
    away: usize,
    drained: Vec<oneshot::Sender<()>>,
    /// The instances have had their last calls, or are about to.
    ending: bool,
}

impl std::fmt::Debug for Chains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chains").field("worker", &self.worker).field("homes", &self.homes).finish_non_exhaustive()
    }
}

impl Chains {
    /// A worker without a tenant: a [`Change`] brings the first.
    #[must_use]
    pub fn new(worker: usize, page: Page, table: TenantTable, slow: Arc<SlowLane>) -> Self {
        let (results, incoming_results) = mpsc::channel(RESULTS_MAX);
        Self {
            worker,
            page,
            table,
            homes: Vec::new(),
            outlets: Vec::new(),
            tenants: Vec::new(),
            sorted: Vec::new(),
            slow,
            results,
            incoming_results: Some(incoming_results),
            away: 0,
            drained: Vec::new(),
            ending: false,
        }
    }

    /// Serves a tenant in another way from now on.
    fn change(&mut self, tenant: TenantId, change: HomeChange, ctx: &mut Context<Self>) {
        let HomeChange { settings, chain } = change;
        let worker = self.worker;
        let Some(home) = self.homes.get_mut(tenant.0) else {
            // It is the next one, as they come in their order.
            let chain = Some(chain.unwrap_or_else(Chain::empty));
            self.homes.push(Home { chain, next: None, limbo: VecDeque::new(), settings, ticking: Vec::new() });
            self.start_ticking(tenant, ctx);
            return;
        };
        home.settings = settings;
        for handle in home.ticking.drain(..) {
            ctx.cancel_future(handle);
        }
        self.start_ticking(tenant, ctx);
        let (Some(chain), Some(home)) = (chain, self.homes.get_mut(tenant.0)) else { return };
        if let Some(mut old) = home.chain.take() {
            home.chain = Some(chain);
            let mut tally = Tally::new();
            let sent = old.last_calls(Lane::Fast, &mut tally);
            self.settle_sent(sent, tally);
            return;
        }
        let may_go_home = home.settings.lane != LaneChoice::Slow;
        match self.slow.replace(ChainId { tenant, worker }, chain, may_go_home) {
            // The last calls of the old one.
            Ok(()) => self.away += 1,
            Err(chain) => home.next = Some(chain),
        }
    }

    fn start_ticking(&mut self, tenant: TenantId, ctx: &mut Context<Self>) {
        let Some(home) = self.homes.get_mut(tenant.0) else { return };
        for (seat, every) in home.settings.ticks.clone() {
            let tick = move |chains: &mut Self, _: &mut Context<Self>| chains.process(tenant, Job::Tick(seat), true);
            home.ticking.push(ctx.run_interval(every, tick));
        }
    }

    /// Finds the tenants of a batch's packets and counts them in; what is beyond a tenant's quota is counted out again.
    fn sort(&mut self, packets: Vec<Received>, connection: Option<&Connected>) -> Vec<(TenantId, Vec<Received>)> {
        let mut sorted = std::mem::take(&mut self.sorted);
        let client_names = connection.map(|connection| connection.client_names.as_slice()).unwrap_or_default();
        let writing = self.page.write();
        let (mut arrived, mut now) = (Arrived::default(), None);
        self.tenants.clear();
        for received in &packets {
            let listener = received.origin.listener.unwrap_or(ListenerId(usize::MAX));
            let tenant = self.table.find(listener, received.origin.peer.ip(), client_names, &received.packet);
            arrived.add(&writing, listener, tenant, received);
            let quota = tenant.and_then(|tenant| Some((tenant, self.homes.get(tenant.0)?.settings.quota.as_deref()?)));
            let within = quota.map_or(Ok(()), |(tenant, quota)| {
                within(quota, tenant, connection, received, *now.get_or_insert_with(Instant::now))
            });
            if let (Some(tenant), Err(reason)) = (tenant, within) {
                writing.tenant_less(tenant, TenantCount::InFlight, 1);
                writing.tenant(tenant, TenantCount::Dropped(reason), 1);
            }
            self.tenants.push(tenant.filter(|_| within.is_ok()));
        }
        arrived.count(&writing);
        // Packets of one sender, one after the other, are nearly always all of one tenant: one list, taken as it is.
        if let Some(first) = self.tenants.first().copied()
            && self.tenants.iter().all(|tenant| *tenant == first)
        {
            sorted.extend(first.map(|tenant| (tenant, packets)));
            return sorted;
        }
        for (received, tenant) in packets.into_iter().zip(&self.tenants) {
            let Some(tenant) = *tenant else { continue };
            match sorted.iter_mut().find(|(other, _)| *other == tenant) {
                Some((_, packets)) => packets.push(received),
                None => sorted.push((tenant, vec![received])),
            }
        }
        sorted
    }

    fn process(&mut self, tenant: TenantId, job: Job, bounded: bool) {
        let worker = self.worker;
        let Some(home) = self.homes.get_mut(tenant.0) else { return };
        if let LaneChoice::Slow = home.settings.lane
            && let Some(chain) = home.chain.take_if(|chain| !chain.is_empty())
        {
            self.slow.enter(ChainId { tenant, worker }, chain, self.results.clone(), false);
        }
        if home.chain.is_some() {
            self.run_here(tenant, job);
        } else {
            self.submit(tenant, job, bounded);
        }
    }

    fn run_here(&mut self, tenant: TenantId, job: Job) {
        let Some(home) = self.homes.get_mut(tenant.0) else { return };
        let Some(chain) = &mut home.chain else { return };
        let may_move = home.settings.lane == LaneChoice::Auto;
        let mut tally = if chain.is_empty() { Tally::new() } else { Tally::with_capacity(TALLY) };
        match job {
            Job::Batch(run, permit) => match chain.run(run, Lane::Fast, may_move, &mut tally) {
                Ran::Through(done) => self.settle_batch(tenant, done, tally),
                Ran::TooSlow(run) => {
                    self.count(tally);
                    self.move_to_slow_lane(tenant);
                    self.submit(tenant, Job::Batch(run, permit), false);
                }
            },
            Job::Tick(seat) => match chain.tick(seat, Lane::Fast, may_move, &mut tally) {
                Ok(sent) => self.settle_sent(sent, tally),
                Err(fault) => {
                    self.count(tally);
                    if may_move && fault.kind == FaultKind::Deadline {
                        self.move_to_slow_lane(tenant);
                    }
                }
            },
            Job::LastCalls => {
                let sent = chain.last_calls(Lane::Slow, &mut tally);
                self.settle_sent(sent, tally);
            }
            // Only the slow lane has it.
            Job::Retire(_) => {}
        }
    }

    fn move_to_slow_lane(&mut self, tenant: TenantId) {
        let worker = self.worker;
        let Some(chain) = self.homes.get_mut(tenant.0).and_then(|home| home.chain.take()) else { return };
        tracing::debug!(tenant = tenant.0, worker, "chain moved to the slow lane");
        self.slow.enter(ChainId { tenant, worker }, chain, self.results.clone(), true);
    }

    fn submit(&mut self, tenant: TenantId, job: Job, bounded: bool) {
        match self.slow.submit(ChainId { tenant, worker: self.worker }, job, bounded) {
            Submitted::Waiting => self.away += 1,
            Submitted::Full(Job::Batch(run, _)) => {
                let packets = wide(run.len());
                let writing = self.page.write();
                writing.tenant_less(tenant, TenantCount::InFlight, packets);
                writing.tenant(tenant, TenantCount::Dropped(DropReason::SlowLaneFull), packets);
            }
            Submitted::Full(Job::Tick(_) | Job::LastCalls | Job::Retire(_)) => {}
            Submitted::Gone(job) => {
                if let Some(home) = self.homes.get_mut(tenant.0) {
                    home.limbo.push_back(job);
                }
            }
        }
    }

    fn take_home(&mut self, tenant: TenantId, chain: Chain) {
        tracing::debug!(tenant = tenant.0, worker = self.worker, "chain is back in the fast lane");
        let Some(home) = self.homes.get_mut(tenant.0) else { return };
        if let Some(next) = home.next.take() {
            let (mut old, mut tally) = (chain, Tally::new());
            home.chain = Some(next);
            let sent = old.last_calls(Lane::Fast, &mut tally);
            self.settle_sent(sent, tally);
        } else {
            home.chain = Some(chain);
        }
        let Some(home) = self.homes.get_mut(tenant.0) else { return };
        for job in std::mem::take(&mut home.limbo) {
            self.process(tenant, job, false);
        }
    }

    /// Hands a batch that is through to where it goes, and counts it out.
    fn settle_batch(&mut self, tenant: TenantId, done: Done, tally: Tally) {
        let Done { work, sent, counts } = done;
        let routed = wide(work.len());
        let mut deliveries = self.deliver_sent(sent);
        let route = self.homes.get(tenant.0).map(|home| home.settings.route.as_slice()).unwrap_or_default();
        // A collector that is gone since the packets were on their way is no route.
        let outlets: Vec<&Outlet> = route.iter().filter_map(|id| self.outlets.get(id.0)?.as_ref()).collect();
        if routed > 0 {
            let packets = Arc::new(work.packets);
            for outlet in &outlets {
                let taken = outlet.offer(Arc::clone(&packets));
                deliveries.push(Delivery { to: outlet.id, packets: routed, from_filter: false, taken });
            }
        }
        let writing = self.page.write();
        count_out(&writing, tenant, counts, routed, !outlets.is_empty());
        count_deliveries(&writing, &deliveries);
        count_tally(&writing, tally);
    }

    fn settle_sent(&mut self, sent: Vec<Sent>, tally: Tally) {
        let deliveries = self.deliver_sent(sent);
        let writing = self.page.write();
        count_deliveries(&writing, &deliveries);
        count_tally(&writing, tally);
    }

    /// Hands what filters sent to the collectors, in one list for each.
    fn deliver_sent(&self, sent: Vec<Sent>) -> Vec<Delivery> {
        let mut lists: Vec<(CollectorId, Vec<Received>)> = Vec::new();
        for Sent { to, packet } in sent {
            match lists.iter_mut().find(|(other, _)| *other == to) {
                Some((_, packets)) => packets.push(packet),
                None => lists.push((to, vec![packet])),
            }
        }
        let mut deliveries = Vec::new();
        for (to, list) in lists {
            let packets = wide(list.len());
            let outlet = self.outlets.get(to.0).and_then(Option::as_ref);
            let taken = outlet.is_some_and(|outlet| outlet.offer(Arc::new(list)));
            deliveries.push(Delivery { to, packets, from_filter: true, taken });
        }
        deliveries
    }

    fn count(&self, tally: Tally) {
        count_tally(&self.page.write(), tally);
    }

    fn answer_drains(&mut self) {
        let is_idle = |chains: &Self| chains.away == 0 && chains.homes.iter().all(|home| home.limbo.is_empty());
        if self.drained.is_empty() || !is_idle(self) {
            return;
        }
        if !std::mem::replace(&mut self.ending, true) {
            for tenant in 0..self.homes.len() {
                self.process(TenantId(tenant), Job::LastCalls, false);
            }
        }
        if is_idle(self) {
            for drained in self.drained.drain(..) {
                // Who asked may have lost patience.
                let _ = drained.send(());
            }
        }
    }
}

/// Packets handed, or not handed, to a collector.
struct Delivery {
    to: CollectorId,
    packets: u64,
    from_filter: bool,
    taken: bool,
}

/// Packets, one after the other, of one listener and one tenant, which are counted in together.
#[derive(Default)]
struct Arrived {
    of: Option<(ListenerId, Option<TenantId>)>,
    packets: u64,
    octets: u64,
}

impl Arrived {
    /// One more; if it is another one's, those before it are counted.
    fn add(&mut self, writing: &Writing<'_>, listener: ListenerId, tenant: Option<TenantId>, received: &Received) {
        if self.of != Some((listener, tenant)) {
            self.count(writing);
            self.of = Some((listener, tenant));
        }
        self.packets += 1;
        self.octets += wide(received.packet.octets().len());
    }

    fn count(&mut self, writing: &Writing<'_>) {
        let Self { of, packets, octets } = std::mem::take(self);
        let Some((listener, tenant)) = of else { return };
        writing.listener_less(listener, ListenerCount::Queued, packets);
        match tenant {
            Some(tenant) => {
                writing.listener(listener, ListenerCount::Accepted, packets);
                writing.tenant(tenant, TenantCount::Received, packets);
                writing.tenant(tenant, TenantCount::ReceivedOctets, octets);
                writing.tenant(tenant, TenantCount::InFlight, packets);
            }
            None => writing.listener(listener, ListenerCount::Dropped(DropReason::NoTenant), packets),
        }
    }
}

/// Whether a packet is within its tenant's quota.
fn within(
    quota: &Quota,
    tenant: TenantId,
    connection: Option<&Connected>,
    received: &Received,
    now: Instant,
) -> Result<(), DropReason> {
    if let (Some(slots), Some(connection)) = (quota.connections(), connection)
        && !connection.count_for(tenant, slots)
    {
        return Err(DropReason::ConnectionQuota);
    }
    quota.take(wide(received.packet.octets().len()), now)
}

/// Takes the authentication key out of a packet: it has done its work, and is nobody else's business.
fn without_key(received: Received) -> Received {
    if received.packet.chunk(ChunkId::AUTH_KEY).is_none() {
        return received;
    }
    let mut draft = Draft::new(&received.packet);
    match draft.remove_chunk(ChunkId::AUTH_KEY) {
        Ok(_) => Received { packet: draft.into_packet(), origin: received.origin },
        // Only what has no chunks refuses, and it has one.
        Err(_) => received,
    }
}

fn count_out(writing: &Writing<'_>, tenant: TenantId, counts: Counts, routed: u64, has_route: bool) {
    let Counts { dropped, failed, skipped } = counts;
    writing.tenant_less(tenant, TenantCount::InFlight, dropped + failed + skipped + routed);
    writing.tenant(tenant, TenantCount::FilterDropped, dropped);
    writing.tenant(tenant, TenantCount::Dropped(DropReason::FilterFailed), failed);
    writing.tenant(tenant, TenantCount::Skipped, skipped);
    let count = if has_route { TenantCount::Routed } else { TenantCount::Dropped(DropReason::NoRoute) };
    writing.tenant(tenant, count, routed);
}

fn count_deliveries(writing: &Writing<'_>, deliveries: &[Delivery]) {
    for Delivery { to, packets, from_filter, taken } in deliveries {
        writing.collector(*to, CollectorCount::Accepted, *packets);
        if *from_filter {
            writing.collector(*to, CollectorCount::FromFilters, *packets);
        }
        let count = if *taken { CollectorCount::Waiting } else { CollectorCount::Dropped(DropReason::MailboxFull) };
        writing.collector(*to, count, *packets);
    }
}

fn count_tally(writing: &Writing<'_>, tally: Tally) {
    for (seat, count, n) in tally {
        writing.seat(seat, count, n);
    }
}

impl Actor for Chains {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(results) = self.incoming_results.take() {
            Self::add_stream(Results(results), ctx);
        }
    }
}

impl Handler<Change> for Chains {
    type Result = ();

    fn handle(&mut self, change: Change, ctx: &mut Self::Context) {
        let Change { table, page, outlets, homes, mailbox_batches } = change;
        self.table = table;
        if let Some(page) = page {
            self.page = page;
        }
        ctx.set_mailbox_capacity(mailbox_batches);
        // What old chains send with their last calls goes to the collectors that they know.
        let old_outlets = std::mem::take(&mut self.outlets);
        self.outlets = outlets
            .iter()
            .enumerate()
            .map(|(place, new)| new.clone().or_else(|| old_outlets.get(place).cloned().flatten()))
            .collect();
        for (place, home) in homes.into_iter().enumerate() {
            self.change(TenantId(place), home, ctx);
        }
        self.outlets = outlets;
    }
}

impl Handler<Batch> for Chains {
    type Result = ();

    fn handle(&mut self, batch: Batch, _: &mut Self::Context) {
        let Batch { packets, connection, permit } = batch;
        let over_udp = packets.first().is_some_and(|received| received.origin.transport == Transport::Udp);
        // A UDP listener gets its permit back at once: what waits in the slow lane is bounded there, by tenant, so
        // that no tenant can use up what all of them share. A connection gets it back when its batch is done.
        let permit: Option<Arc<OwnedSemaphorePermit>> = permit.filter(|_| !over_udp).map(Arc::new);
        let has_keys = self.table.has_keys();
        let mut sorted = self.sort(packets, connection.as_deref());
        for (tenant, mut packets) in sorted.drain(..) {
            if has_keys {
                packets = packets.into_iter().map(without_key).collect();
            }
            let job = Job::Batch(Run::new(Work::new(packets)), permit.clone());
            self.process(tenant, job, over_udp);
        }
        self.sorted = sorted;
    }
}

impl StreamHandler<Finished> for Chains {
    fn handle(&mut self, finished: Finished, _: &mut Self::Context) {
        match finished {
            Finished::Batch(tenant, done, tally) => {
                self.away = self.away.saturating_sub(1);
                self.settle_batch(tenant, done, tally);
            }
            Finished::Sent(sent, tally) => {
                self.away = self.away.saturating_sub(1);
                self.settle_sent(sent, tally);
            }
            Finished::Lost(tenant, packets) => {
                self.away = self.away.saturating_sub(1);
                let writing = self.page.write();
                writing.tenant_less(tenant, TenantCount::InFlight, packets);
                writing.tenant(tenant, TenantCount::Dropped(DropReason::FilterFailed), packets);
            }
            Finished::Home(tenant, chain) => self.take_home(tenant, chain),
        }
        self.answer_drains();
    }

    /// We hold a sender ourselves, so the stream does not end before we do.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Drain> for Chains {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        let (drained, wait) = oneshot::channel();
        self.drained.push(drained);
        self.answer_drains();
        Box::pin(async move {
            // An error means that the chains are gone: then there is nothing left to wait for.
            let _ = wait.await;
        })
    }
}

/// A receiver as a stream.
struct Results(mpsc::Receiver<Finished>);

impl futures_core::Stream for Results {
    type Item = Finished;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Finished>> {
        self.0.poll_recv(cx)
    }
}
