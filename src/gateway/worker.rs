//! What lives on a worker: its listeners, its chains, its collectors.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, Arbiter, Recipient};
use tokio::sync::oneshot;

use super::parts::Parts;
use super::{FileHandle, GatewayError, stop_arbiter};
use crate::collector::{Counter, Encoding, STREAM_VERSION, TcpCollector, UdpCollector};
use crate::config::{
    CollectorId, Config, Destination, FilterId, LaneChoice, ListenerId, StreamLimits, TenantId, Transport,
};
use crate::filter::{Grant, Surroundings};
use crate::ledger::{Ledger, Page};
use crate::listener::{
    Bound, CONNECTION_BATCHES_MAX, ConnectionLimits, Intake, TcpListener, UDP_BATCHES_MAX, UdpListener,
};
use crate::message::{Backlog, Batch, Deliver, Drain, Outlet};
use crate::tenant::{Chain, Chains, Change, Evidence, HomeChange, HomeSettings, Seat, SlowLane};
use crate::tls::{Acceptor, Connector};
use crate::wire::AgentIdOrder;

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Worker {
    index: usize,
    arbiter: Arbiter,
    chains: Addr<Chains>,
    listeners: BTreeMap<ListenerId, Named>,
    /// Those that live here; files have threads of their own.
    collectors: BTreeMap<CollectorId, Named>,
    /// The ways to all collectors.
    outlets: BTreeMap<CollectorId, Outlet>,
}

/// An actor and what it is called.
type Named = (String, Recipient<Drain>);

impl Worker {
    /// A worker with nothing on it but chains of no tenant.
    pub(super) async fn start(
        index: usize,
        parts: &Parts,
        ledger: &Ledger,
        slow: &Arc<SlowLane>,
    ) -> Result<Self, GatewayError> {
        let failed = |reason| GatewayError::Start { what: format!("worker {index}"), reason };
        let (page, table, slow) = (ledger.page(), parts.table.clone(), Arc::clone(slow));
        let arbiter = Arbiter::new();
        let started = on(&arbiter, move || Ok(Chains::new(index, page, table, slow).start())).await;
        match started {
            Ok(chains) => {
                let (listeners, collectors, outlets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
                Ok(Self { index, arbiter, chains, listeners, collectors, outlets })
            }
            Err(reason) => {
                stop_arbiter(arbiter, Instant::now());
                Err(failed(reason))
            }
        }
    }

    /// Becomes what `new` says; `old` is what it is. Actors that are no longer wanted are given back, to be drained:
    /// collectors are asked nothing any more by then.
    pub(super) async fn change(&mut self, change: &WorkerChange<'_>) -> Result<Vec<Named>, GatewayError> {
        let index = self.index;
        let failed = |reason| GatewayError::Start { what: format!("what is new on worker {index}"), reason };
        let collectors = change.collector_seeds(self)?;
        let page = change.ledger.page();
        let started = on(&self.arbiter, move || start_collectors(collectors, page)).await.map_err(failed)?;
        let mut retired = Vec::new();
        let wanted = |id: &CollectorId| change.is_kept(*id);
        let unwanted: Vec<CollectorId> = self.outlets.keys().copied().filter(|id| !wanted(id)).collect();
        for id in unwanted {
            retired.extend(self.collectors.remove(&id));
            self.outlets.remove(&id);
        }
        for StartedCollector { outlet, actor } in started {
            self.collectors.insert(outlet.id, actor);
            self.outlets.insert(outlet.id, outlet);
        }
        for file in change.files {
            let (id, backlog, to) = (file.id, Arc::clone(&file.backlog), file.deliver.clone());
            self.outlets.insert(id, Outlet { id, backlog, to });
        }
        let told = self.chains.send(self.change_of_chains(change)).await;
        told.map_err(|_| failed(io::Error::other("its chains are gone")))?;
        let unwanted: Vec<ListenerId> =
            self.listeners.keys().copied().filter(|id| !change.is_listener_kept(*id)).collect();
        retired.extend(unwanted.iter().filter_map(|id| self.listeners.remove(id)));
        let listeners = change.listener_seeds(index).map_err(failed)?;
        let (page, chains) = (change.ledger.page(), self.chains.clone());
        let started = on(&self.arbiter, move || start_listeners(listeners, &chains.recipient(), page)).await;
        self.listeners.extend(started.map_err(failed)?);
        Ok(retired)
    }

    fn change_of_chains(&self, change: &WorkerChange<'_>) -> Change {
        let new = change.new;
        let outlets = (0..new.config.collectors.len()).map(|place| self.outlets.get(&CollectorId(place)).cloned());
        let tenants = (0..new.config.tenants.len()).map(TenantId);
        Change {
            table: new.table.clone(),
            page: change.rows_grew.then(|| change.ledger.page()),
            outlets: outlets.collect(),
            homes: tenants.map(|tenant| self.home(tenant, change)).collect(),
            mailbox_batches: mailbox_batches(&new.config),
        }
    }

    fn home(&self, tenant: TenantId, change: &WorkerChange<'_>) -> HomeChange {
        let new = change.new;
        let Some(settings) = new.config.live_tenant(tenant) else {
            // It has no packets any more. What is under way still goes where it was to go.
            let last = new.config.tenants.get(tenant.0);
            let route = last.map(|last| last.route.clone()).unwrap_or_default();
            let lane = last.map_or(LaneChoice::Auto, |last| last.lane);
            let was_there = change.old.is_some_and(|old| old.config.live_tenant(tenant).is_some());
            let settings = HomeSettings { route, lane, ticks: Vec::new(), quota: None };
            return HomeChange { settings, chain: was_there.then(Chain::empty) };
        };
        let ticks = settings.filters.iter().enumerate().filter_map(|(place, id)| {
            let every = new.config.live_filter(*id)?.tick?;
            new.filters.get(tenant, *id)?.has_tick().then_some((place, every))
        });
        let is_same = change.old.is_some_and(|old| old.is_same_chain(tenant, new));
        let seats =
            || settings.filters.iter().filter_map(|id| self.seat(tenant, &settings.name, *id, change)).collect();
        let chain = (!is_same).then(|| Chain::new(seats(), settings.on_error));
        let (route, lane, ticks) = (settings.route.clone(), settings.lane, ticks.collect());
        let quota = new.quotas.get(tenant.0).cloned().flatten();
        HomeChange { settings: HomeSettings { route, lane, ticks, quota }, chain }
    }

    fn seat(&self, tenant: TenantId, name: &str, id: FilterId, change: &WorkerChange<'_>) -> Option<Seat> {
        let new = change.new;
        let (seat, seated) = new.seat(tenant, id)?;
        let settings = new.config.live_filter(id)?;
        let grants = settings.collectors.iter().filter_map(|id| {
            let name = new.config.live_collector(*id)?.name.clone();
            Some(Grant { id: *id, name, backlog: Arc::clone(&self.outlets.get(id)?.backlog) })
        });
        let surroundings = Surroundings { grants: grants.collect(), belongings: seated.belongings.clone() };
        let (standing, evidence) = (Arc::clone(&seated.standing), change.evidence.clone());
        let filter = Arc::clone(new.filters.get(tenant, id)?);
        Some(Seat::new(seat, name, filter, surroundings, settings.on_error, standing, evidence))
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = Recipient<Drain>> {
        self.listeners.values().map(|(_, listener)| listener.clone())
    }

    pub(super) fn chains(&self) -> Recipient<Drain> {
        self.chains.clone().recipient()
    }

    pub(super) fn collectors(&self) -> impl Iterator<Item = Recipient<Drain>> {
        self.collectors.values().map(|(_, collector)| collector.clone())
    }

    /// All its actors, by what they are.
    pub(super) fn actors(&self) -> Vec<Named> {
        let index = self.index;
        let named = |kind: &'static str| {
            move |(name, actor): &Named| (format!("{kind} {name} on worker {index}"), actor.clone())
        };
        let chains = std::iter::once((format!("chains on worker {index}"), self.chains()));
        let listeners = self.listeners.values().map(named("listener"));
        listeners.chain(chains).chain(self.collectors.values().map(named("collector"))).collect()
    }

    pub(super) fn stop(self, until: Instant) {
        stop_arbiter(self.arbiter, until);
    }
}

/// Runs something on the thread of an arbiter.
async fn on<T: Send + 'static>(
    arbiter: &Arbiter,
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    arbiter.spawn_fn(move || {
        // Nobody waits any more if the gateway gave up.
        let _ = done.send(run());
    });
    result.await.unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

/// What every worker has to become.
pub(super) struct WorkerChange<'a> {
    /// What it is; `None`: nothing yet.
    pub(super) old: Option<&'a Parts>,
    pub(super) new: &'a Parts,
    pub(super) ledger: &'a Arc<Ledger>,
    /// Whether the ledger has rows that old pages do not have.
    pub(super) rows_grew: bool,
    /// All files that there are now.
    pub(super) files: &'a [FileHandle],
    pub(super) evidence: &'a Option<Arc<Evidence>>,
    /// How many connections the new listeners have, on all workers together.
    pub(super) admissions: BTreeMap<ListenerId, Arc<ConnectionLimits>>,
}

impl WorkerChange<'_> {
    /// Whether a collector goes on as it is.
    fn is_kept(&self, id: CollectorId) -> bool {
        self.old.is_some_and(|old| old.is_same_collector(id, self.new))
    }

    /// Whether a listener goes on as it is.
    fn is_listener_kept(&self, id: ListenerId) -> bool {
        let listener = self.new.config.live_listener(id);
        listener.is_some_and(|listener| self.old.is_some_and(|old| old.is_same_listener(id, listener)))
    }

    /// The collectors that are new or changed. Sockets are opened here, where it can still fail without harm.
    fn collector_seeds(&self, worker: &Worker) -> Result<Vec<CollectorSeed>, GatewayError> {
        let agent_id = self.new.config.proto_hep.hep_capture_id.into();
        let mut seeds = Vec::new();
        for (id, collector) in self.new.config.live_collectors() {
            if self.is_kept(id) && worker.outlets.contains_key(&id) {
                continue;
            }
            let (way, version) = match &collector.destination {
                Destination::Udp { to, version, hep_async_max_postponed_chunks } => {
                    let socket = UdpCollector::connect(&collector.name, to)?;
                    (Way::Udp { socket, postponed_max: *hep_async_max_postponed_chunks }, *version)
                }
                Destination::Tcp { to, stream, .. } => {
                    let connector = self.new.connectors.get(&id).cloned();
                    (Way::Tcp { to: to.clone(), connector, stream: *stream }, STREAM_VERSION)
                }
                Destination::File(_) => continue,
            };
            let (name, mailbox_octets_max) = (collector.name.clone(), collector.mailbox_octets_max);
            let authentication_key = self.new.keys.get(id.0).cloned().flatten();
            let encoding = Encoding { version, agent_id, authentication_key };
            seeds.push(CollectorSeed { id, name, encoding, mailbox_octets_max, way });
        }
        Ok(seeds)
    }

    /// The listeners that are new or changed, each with its share of the sockets.
    fn listener_seeds(&self, worker: usize) -> io::Result<Vec<ListenerSeed>> {
        let mut seeds = Vec::new();
        for (id, listener) in self.new.config.live_listeners() {
            let (false, Some(bound), Some(admission)) =
                (self.is_listener_kept(id), self.new.sockets.get(&id), self.admissions.get(&id))
            else {
                continue;
            };
            let socket = match bound.as_ref() {
                Bound::Udp(sockets, _) => {
                    sockets.get(worker).map(StdUdpSocket::try_clone).transpose()?.map(Socket::Udp)
                }
                Bound::Tcp(sockets, _) => {
                    sockets.get(worker).map(StdTcpListener::try_clone).transpose()?.map(Socket::Tcp)
                }
            };
            let Some(socket) = socket else { continue };
            seeds.push(ListenerSeed {
                id,
                name: listener.name.clone(),
                agent_ids: listener.agent_id,
                unpacks_gzip: listener.unpacks_gzip,
                socket,
                stream: listener.stream,
                admission: Arc::clone(admission),
                acceptor: self.new.acceptors.get(&id).cloned(),
            });
        }
        Ok(seeds)
    }
}

/// Every listener and connection has a bound of its own; this is what they come to, so it is never reached. Twice, as those
/// of a listener that is drained may still come.
fn mailbox_batches(config: &Config) -> usize {
    let bound = config.listeners.iter().map(|listener| match listener.listen.transport {
        Transport::Udp => UDP_BATCHES_MAX,
        Transport::Tcp | Transport::Tls => listener.stream.connections_max * CONNECTION_BATCHES_MAX,
    });
    bound.sum::<usize>() * 2 + 2
}

struct ListenerSeed {
    id: ListenerId,
    name: String,
    agent_ids: AgentIdOrder,
    unpacks_gzip: bool,
    socket: Socket,
    stream: StreamLimits,
    admission: Arc<ConnectionLimits>,
    acceptor: Option<Arc<Acceptor>>,
}

enum Socket {
    Udp(StdUdpSocket),
    Tcp(StdTcpListener),
}

struct CollectorSeed {
    id: CollectorId,
    name: String,
    encoding: Encoding,
    mailbox_octets_max: usize,
    way: Way,
}

enum Way {
    Udp { socket: StdUdpSocket, postponed_max: usize },
    Tcp { to: crate::config::RemoteAddr, connector: Option<Arc<Connector>>, stream: crate::config::StreamSettings },
}

/// A collector that runs, and the way to it.
struct StartedCollector {
    outlet: Outlet,
    actor: Named,
}

fn start_collectors(seeds: Vec<CollectorSeed>, page: Page) -> io::Result<Vec<StartedCollector>> {
    let page = Rc::new(page);
    seeds.into_iter().map(|seed| seed.start(&page)).collect()
}

impl CollectorSeed {
    fn start(self, page: &Rc<Page>) -> io::Result<StartedCollector> {
        let Self { id, name, encoding, mailbox_octets_max, way } = self;
        let counter = Counter::new(id, &name, Rc::clone(page));
        let backlog = Backlog::new(mailbox_octets_max);
        let theirs = Arc::clone(&backlog);
        let (drain, to): (Recipient<Drain>, Recipient<Deliver>) = match way {
            Way::Udp { socket, postponed_max } => {
                let actor = UdpCollector::new(socket, encoding, postponed_max, counter, theirs).start();
                (actor.clone().recipient(), actor.recipient())
            }
            Way::Tcp { to, connector, stream } => {
                let actor = TcpCollector::new(to, connector, stream, encoding, counter, theirs).start();
                (actor.clone().recipient(), actor.recipient())
            }
        };
        Ok(StartedCollector { outlet: Outlet { id, backlog, to }, actor: (name, drain) })
    }
}

fn start_listeners(
    seeds: Vec<ListenerSeed>,
    chains: &Recipient<Batch>,
    page: Page,
) -> io::Result<BTreeMap<ListenerId, Named>> {
    let page = Rc::new(page);
    let mut started = BTreeMap::new();
    for seed in seeds {
        let ListenerSeed { id, name, agent_ids, unpacks_gzip, socket, stream, admission, acceptor } = seed;
        let intake = Intake::new(id, &name, Rc::clone(&page)).with_agent_ids(agent_ids).with_gzip(unpacks_gzip);
        let to = chains.clone();
        let drain = match socket {
            Socket::Udp(socket) => UdpListener::new(socket, intake, to)?.start().recipient(),
            Socket::Tcp(socket) => {
                TcpListener::new(socket, intake, stream, admission, acceptor, to)?.start().recipient()
            }
        };
        started.insert(id, (name, drain));
    }
    Ok(started)
}
