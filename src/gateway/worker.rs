//! What lives on a worker: its listeners, its chains, its collectors, and the page on which all of them count.

use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Arbiter, Recipient};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{FileHandle, GatewayError, LoadedFilters, stop_arbiter};
use crate::collector::{Counter, Encoding, STREAM_VERSION, TcpCollector, UdpCollector};
use crate::config::{
    Collector, CollectorId, Config, ConfigValue, Destination, ListenerId, StreamLimits, TenantId, Transport,
};
use crate::filter::{Belongings, Filter, Grant, Surroundings};
use crate::ledger::{Ledger, Page, SeatId, ids};
use crate::listener::{
    Bound, CONNECTION_BATCHES_MAX, ConnectionLimits, Intake, TcpListener, UDP_BATCHES_MAX, UdpListener,
};
use crate::message::{Backlog, Deliver, Drain, Outlet};
use crate::tenant::{Chain, Chains, Evidence, Home, Quota, Seat, SlowLane, Standing, TenantTable};
use crate::tls::{Acceptor, Connector};
use crate::wire::AgentIdOrder;

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Worker {
    index: usize,
    arbiter: Arbiter,
    started: Started,
}

/// The actors of a worker.
#[derive(Debug, Default)]
struct Started {
    listeners: Vec<(String, Recipient<Drain>)>,
    chains: Vec<Recipient<Drain>>,
    collectors: Vec<(String, Recipient<Drain>)>,
}

impl Worker {
    pub(super) fn listeners(&self) -> impl Iterator<Item = Recipient<Drain>> {
        self.started.listeners.iter().map(|(_, listener)| listener.clone())
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = Recipient<Drain>> {
        self.started.chains.iter().cloned()
    }

    pub(super) fn collectors(&self) -> impl Iterator<Item = Recipient<Drain>> {
        self.started.collectors.iter().map(|(_, collector)| collector.clone())
    }

    /// All its actors, by what they are.
    pub(super) fn actors(&self) -> Vec<(String, Recipient<Drain>)> {
        let index = self.index;
        let named = |kind: &'static str| {
            move |(name, actor): &(String, Recipient<Drain>)| {
                (format!("{kind} {name} on worker {index}"), actor.clone())
            }
        };
        let chains = self.started.chains.iter().map(|chains| (format!("chains on worker {index}"), chains.clone()));
        let listeners = self.started.listeners.iter().map(named("listener"));
        listeners.chain(chains).chain(self.started.collectors.iter().map(named("collector"))).collect()
    }

    pub(super) fn stop(self, until: Instant) {
        stop_arbiter(self.arbiter, until);
    }
}

/// What every worker is made from.
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) filters: &'a LoadedFilters,
    pub(super) ledger: &'a Arc<Ledger>,
    pub(super) slow: &'a Arc<SlowLane>,
    pub(super) files: &'a [FileHandle],
    /// Those of the listeners, in their order.
    pub(super) acceptors: &'a [Option<Arc<Acceptor>>],
    /// Those of the collectors, in their order.
    pub(super) connectors: &'a [Option<Arc<Connector>>],
    pub(super) table: TenantTable,
    /// With which packets leave, by collector.
    pub(super) keys: Vec<Option<Bytes>>,
    /// By tenant.
    pub(super) quotas: Vec<Option<Arc<Quota>>>,
    /// By seat.
    pub(super) standings: &'a [Arc<Standing>],
    pub(super) belongings: &'a [Belongings],
    pub(super) evidence: &'a Option<Arc<Evidence>>,
}

/// The authentication keys with which packets leave, by collector.
pub(super) fn outgoing_keys(config: &Config) -> Result<Vec<Option<Bytes>>, GatewayError> {
    let read = |collector: &Collector| {
        let key = collector.authentication_key.as_ref().map(ConfigValue::read).transpose();
        let error = |reason| GatewayError::CollectorKey { collector: collector.name.clone(), reason };
        Ok(key.map_err(error)?.map(Bytes::from))
    };
    config.collectors.iter().map(read).collect()
}

impl Plan<'_> {
    /// Starts the workers, each with its share of the sockets. If one cannot be started, all are stopped.
    pub(super) async fn start_workers(&self, bound: Vec<Bound>, workers: usize) -> Result<Vec<Worker>, GatewayError> {
        let mut sockets: Vec<Vec<ListenerSeed>> = (0..workers).map(|_| Vec::new()).collect();
        for ((id, listener), bound) in ids(&self.config.listeners, ListenerId).zip(bound) {
            let stream = listener.stream;
            let admission = ConnectionLimits::new(stream.connections_max, stream.connections_per_peer_max);
            let acceptor = self.acceptors.get(id.0).cloned().flatten();
            let shares: Vec<Socket> = match bound {
                Bound::Udp(sockets, _) => sockets.into_iter().map(Socket::Udp).collect(),
                Bound::Tcp(sockets, _) => sockets.into_iter().map(Socket::Tcp).collect(),
            };
            for (socket, share) in shares.into_iter().zip(&mut sockets) {
                let (name, admission, acceptor) = (listener.name.clone(), Arc::clone(&admission), acceptor.clone());
                share.push(ListenerSeed {
                    id,
                    name,
                    agent_ids: listener.agent_id,
                    unpacks_gzip: listener.unpacks_gzip,
                    socket,
                    stream,
                    admission,
                    acceptor,
                });
            }
        }
        let mut started = Vec::new();
        for (index, listeners) in sockets.into_iter().enumerate() {
            match self.start_worker(index, listeners).await {
                Ok(worker) => started.push(worker),
                Err(error) => {
                    started.into_iter().for_each(|worker| worker.stop(Instant::now()));
                    return Err(error);
                }
            }
        }
        Ok(started)
    }

    async fn start_worker(&self, index: usize, listeners: Vec<ListenerSeed>) -> Result<Worker, GatewayError> {
        let seed = Seed {
            index,
            page: self.ledger.page(),
            listeners,
            tenants: self.tenant_seeds(),
            collectors: self.collector_seeds()?,
            table: self.table.clone(),
            slow: Arc::clone(self.slow),
            mailbox_batches: self.mailbox_batches(),
        };
        let failed = |reason| GatewayError::Start { what: format!("worker {index}"), reason };
        let arbiter = Arbiter::new();
        let (done, started) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // Nobody waits any more if the gateway gave up.
            let _ = done.send(seed.start());
        });
        match started.await {
            Ok(Ok(started)) => Ok(Worker { index, arbiter, started }),
            Ok(Err(error)) => {
                stop_arbiter(arbiter, Instant::now());
                Err(failed(error))
            }
            Err(_) => Err(failed(io::Error::other("its thread ended"))),
        }
    }

    fn tenant_seeds(&self) -> Vec<TenantSeed> {
        let mut next_seat = 0;
        let mut seeds = Vec::new();
        for (id, tenant) in ids(&self.config.tenants, TenantId) {
            let mut seats = Vec::new();
            for filter_id in &tenant.filters {
                let seat = SeatId(next_seat);
                next_seat += 1;
                let (Some(filter), Some(settings)) =
                    (self.filters.get(id, *filter_id), self.config.filters.get(filter_id.0))
                else {
                    continue;
                };
                let (Some(standing), Some(belongings)) =
                    (self.standings.get(seat.0).map(Arc::clone), self.belongings.get(seat.0).cloned())
                else {
                    continue;
                };
                let (filter, settings, evidence) = (Arc::clone(filter), settings.clone(), self.evidence.clone());
                seats.push(SeatSeed { seat, filter, settings, standing, belongings, evidence });
            }
            let quota = self.quotas.get(id.0).cloned().flatten();
            seeds.push(TenantSeed { settings: tenant.clone(), seats, quota });
        }
        seeds
    }

    fn collector_seeds(&self) -> Result<Vec<CollectorSeed>, GatewayError> {
        let agent_id = self.config.proto_hep.hep_capture_id.into();
        let mut seeds = Vec::new();
        for (id, collector) in ids(&self.config.collectors, CollectorId) {
            let way = match &collector.destination {
                Destination::Udp { to, hep_async_max_postponed_chunks, .. } => Way::Udp {
                    socket: UdpCollector::connect(&collector.name, to)?,
                    postponed_max: *hep_async_max_postponed_chunks,
                },
                Destination::Tcp { to, stream, .. } => {
                    let connector = self.connectors.get(id.0).cloned().flatten();
                    Way::Tcp { to: to.clone(), connector, stream: *stream }
                }
                Destination::File(_) => {
                    let Some(file) = self.files.iter().find(|file| file.id == id) else { continue };
                    Way::File { to: file.deliver.clone(), backlog: Arc::clone(&file.backlog) }
                }
            };
            let (name, mailbox_octets_max) = (collector.name.clone(), collector.mailbox_octets_max);
            let authentication_key = self.keys.get(id.0).cloned().flatten();
            let version = match &collector.destination {
                Destination::Udp { version, .. } => *version,
                Destination::Tcp { .. } | Destination::File(_) => STREAM_VERSION,
            };
            let encoding = Encoding { version, agent_id, authentication_key };
            seeds.push(CollectorSeed { id, name, encoding, mailbox_octets_max, way });
        }
        Ok(seeds)
    }

    /// Every listener and connection has a bound of its own; this is what they come to, so it is never reached.
    fn mailbox_batches(&self) -> usize {
        let bound = self.config.listeners.iter().map(|listener| match listener.listen.transport {
            Transport::Udp => UDP_BATCHES_MAX,
            Transport::Tcp | Transport::Tls => listener.stream.connections_max * CONNECTION_BATCHES_MAX,
        });
        bound.sum::<usize>() + 1
    }
}

/// What becomes a worker on its own thread. All of it can be sent there; the actors could not.
struct Seed {
    index: usize,
    page: Page,
    listeners: Vec<ListenerSeed>,
    tenants: Vec<TenantSeed>,
    collectors: Vec<CollectorSeed>,
    table: TenantTable,
    slow: Arc<SlowLane>,
    mailbox_batches: usize,
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

struct TenantSeed {
    settings: crate::config::Tenant,
    seats: Vec<SeatSeed>,
    quota: Option<Arc<Quota>>,
}

struct SeatSeed {
    seat: SeatId,
    filter: Arc<Filter>,
    settings: crate::config::Filter,
    standing: Arc<Standing>,
    belongings: Belongings,
    evidence: Option<Arc<Evidence>>,
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
    File { to: Recipient<Deliver>, backlog: Arc<Backlog> },
}

impl Seed {
    /// Starts collectors, chains and listeners, in this order: nobody sends to somebody who is not there.
    fn start(self) -> io::Result<Started> {
        let page = Rc::new(self.page);
        let mut started = Started::default();
        let mut outlets = Vec::new();
        let names: Vec<String> = self.collectors.iter().map(|collector| collector.name.clone()).collect();
        for collector in self.collectors {
            outlets.push(collector.start(&page, &mut started)?);
        }
        let homes = self.tenants.into_iter().map(|tenant| tenant.home(&outlets, &names)).collect();
        let (table, slow) = (self.table, self.slow);
        let chains =
            Chains::new(self.index, Rc::clone(&page), table, homes, outlets, slow, self.mailbox_batches).start();
        started.chains.push(chains.clone().recipient());
        for listener in self.listeners {
            let ListenerSeed { id, name, agent_ids, unpacks_gzip, socket, stream, admission, acceptor } = listener;
            let intake = Intake::new(id, &name, Rc::clone(&page)).with_agent_ids(agent_ids).with_gzip(unpacks_gzip);
            let to = chains.clone().recipient();
            let drain = match socket {
                Socket::Udp(socket) => UdpListener::new(socket, intake, to)?.start().recipient(),
                Socket::Tcp(socket) => {
                    TcpListener::new(socket, intake, stream, admission, acceptor, to)?.start().recipient()
                }
            };
            started.listeners.push((name, drain));
        }
        Ok(started)
    }
}

impl CollectorSeed {
    fn start(self, page: &Rc<Page>, started: &mut Started) -> io::Result<Outlet> {
        let Self { id, name, encoding, mailbox_octets_max, way } = self;
        let counter = Counter::new(id, &name, Rc::clone(page));
        let backlog = Backlog::new(mailbox_octets_max);
        let theirs = Arc::clone(&backlog);
        Ok(match way {
            Way::Udp { socket, postponed_max } => {
                let actor = UdpCollector::new(socket, encoding, postponed_max, counter, theirs)?.start();
                started.collectors.push((name, actor.clone().recipient()));
                Outlet { id, backlog, to: actor.recipient() }
            }
            Way::Tcp { to, connector, stream } => {
                let actor = TcpCollector::new(to, connector, stream, encoding, counter, theirs).start();
                started.collectors.push((name, actor.clone().recipient()));
                Outlet { id, backlog, to: actor.recipient() }
            }
            Way::File { to, backlog } => Outlet { id, backlog, to },
        })
    }
}

impl TenantSeed {
    fn home(self, outlets: &[Outlet], collectors: &[String]) -> Home {
        let Self { settings, seats, quota } = self;
        let mut ticks = Vec::new();
        let mut chain = Vec::new();
        for (place, seed) in seats.into_iter().enumerate() {
            let SeatSeed { seat, filter, settings: of_filter, standing, belongings, evidence } = seed;
            if let Some(every) = of_filter.tick.filter(|_| filter.has_tick()) {
                ticks.push((place, every));
            }
            let grants = of_filter.collectors.iter().filter_map(|id| {
                let outlet = outlets.iter().find(|outlet| outlet.id == *id)?;
                let name = collectors.get(id.0)?.clone();
                Some(Grant { id: *id, name, backlog: Arc::clone(&outlet.backlog) })
            });
            let surroundings = Surroundings { grants: grants.collect(), belongings };
            let on_error = of_filter.on_error;
            chain.push(Seat::new(seat, &settings.name, filter, surroundings, on_error, standing, evidence));
        }
        Home::new(Chain::new(chain, settings.on_error), settings.route, settings.lane, ticks, quota)
    }
}
