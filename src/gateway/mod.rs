//! The composition root: the one place that knows everybody. What starts when, what stops when.
//!
//! Start: [`load()`] (the sandbox, the components, a trial start of each filter), then every socket, file and name that
//! can fail, and only when all of that is there the actors. Stop: listeners, chains, collectors, each when the one
//! before it is done, all within the grace period.

mod load;
mod summary;
mod worker;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Recipient};

pub use load::{LoadedFilters, check, load};

use crate::admin::{self, Admin, AdminError, FilterInfo, SeatInfo, View};
use crate::collector::{Counter, FileCollector, FileError, UdpCollector, UdpError};
use crate::config::{CollectorId, Config, Destination, Filter, SecretError, TenantId, Transport};
use crate::filter::{Belongings, HostError, LoadError};
use crate::ledger::{Ledger, Rows, Totals, ids};
use crate::listener::{BindError, Bound, bind};
use crate::message::{Backlog, Deliver, Drain};
use crate::tenant::{Evidence, EvidenceLimits, KeyError, Quota, SlowLane, Standing, TenantTable};
use crate::tls::{self, Acceptor, Connector};
pub use summary::Summary;
use worker::{Plan, Worker};

/// Why a gateway cannot start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum GatewayError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("tenant {tenant:?}: {reason}")]
    OfTenant { tenant: String, reason: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("collector {collector:?}: authentication_key: {reason}")]
    CollectorKey { collector: String, reason: SecretError },
    #[error("filter {filter:?} does not start: {reason}")]
    Trial { filter: String, reason: String },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Udp(#[from] UdpError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("listener {listener:?}: {reason}")]
    ListenerTls { listener: String, reason: tls::FileError },
    #[error("collector {collector:?}: {reason}")]
    CollectorTls { collector: String, reason: tls::FileError },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("{what} cannot be started: {reason}")]
    Start { what: String, reason: std::io::Error },
}

/// A listener that is bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Its name.
    pub name: String,
    /// Over what.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    view: Arc<View>,
    listening: Vec<Listening>,
    workers: Vec<Worker>,
    files: Vec<(Arbiter, Recipient<Drain>)>,
    slow: Arc<SlowLane>,
    admin: Option<Admin>,
}

impl Gateway {
    /// Starts everything that is configured. Must be called in an actix system.
    ///
    /// # Errors
    /// [`GatewayError`], in one sentence; what was started is stopped again.
    pub async fn start(config: &Config) -> Result<Self, GatewayError> {
        let workers = worker_count(config);
        let filters = load(config, workers.get())?;
        let (table, keys) = (TenantTable::new(&config.tenants)?, worker::outgoing_keys(config)?);
        let admin = config.admin.map(admin::bind).transpose()?;
        let (acceptors, connectors) = (acceptors(config)?, connectors(config)?);
        let mut bound = Vec::new();
        for listener in &config.listeners {
            bound.push(bind(listener, workers.get())?);
        }
        let listening = listening(config, &bound);
        let ledger = Ledger::new(rows(config));
        let sandbox = &config.sandbox;
        let slow = SlowLane::start(sandbox.slow_threads, sandbox.slow_queue_batches, sandbox.slow_healthy_after)
            .map_err(|reason| GatewayError::Start { what: "the slow lane".into(), reason })?;
        check_collectors(config)?;
        let (standings, belongings) = (standings(config), belongings(config));
        let evidence = start_evidence(config)?;
        let files = start_files(config, &ledger);
        let plan = Plan {
            config,
            filters: &filters,
            ledger: &ledger,
            slow: &slow,
            files: &files,
            acceptors: &acceptors,
            connectors: &connectors,
            table,
            keys,
            quotas: quotas(config),
            standings: &standings,
            belongings: &belongings,
            evidence: &evidence,
        };
        let workers = match plan.start_workers(bound, workers.get()).await {
            Ok(workers) => workers,
            Err(error) => {
                files.into_iter().for_each(|file| stop_arbiter(file.arbiter, Instant::now()));
                return Err(error);
            }
        };
        let mut actors: Vec<(String, Recipient<Drain>)> = Vec::new();
        for worker in &workers {
            actors.extend(worker.actors());
        }
        actors.extend(files.iter().map(|file| (format!("collector {}", file.name), file.drain.clone())));
        let (filters, seats) = (infos(&filters), seats(config, standings, belongings));
        let view = Arc::new(View { ledger, filters, seats, actors, ready: AtomicBool::new(true) });
        let admin = admin.map(|listener| admin::serve(listener, Arc::clone(&view))).transpose()?;
        let files = files.into_iter().map(|file| (file.arbiter, file.drain)).collect();
        Ok(Self { view, listening, workers, files, slow, admin })
    }

    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Where the admin server listens, if there is one.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// What can be seen of it.
    #[must_use]
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Stops: listeners take nothing more, what is under way is finished, collectors flush. After `grace` the rest is
    /// dropped and counted. Gives the last state of the counters.
    pub async fn stop(self, grace: Duration) -> Totals {
        let until = Instant::now() + grace;
        self.view.ready.store(false, Ordering::SeqCst);
        drain("listeners", self.workers.iter().flat_map(Worker::listeners), until).await;
        drain("chains", self.workers.iter().flat_map(Worker::chains), until).await;
        drain("collectors", self.workers.iter().flat_map(Worker::collectors), until).await;
        drain("file collectors", self.files.iter().map(|(_, file)| file.clone()), until).await;
        for worker in self.workers {
            worker.stop(until);
        }
        for (arbiter, _) in self.files {
            stop_arbiter(arbiter, until);
        }
        drop(self.slow);
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        self.view.ledger.totals()
    }
}

/// Asks actors to end well and waits for all of them, but not longer than `until`.
async fn drain(what: &str, actors: impl Iterator<Item = Recipient<Drain>>, until: Instant) {
    let waits: Vec<_> = actors.map(|actor| actor.send(Drain)).collect();
    for wait in waits {
        let left = until.saturating_duration_since(Instant::now());
        // One that is gone has ended.
        if tokio::time::timeout(left, wait).await.is_err() {
            tracing::warn!(what, "not done within the grace period");
            return;
        }
    }
}

/// How long a thread may take to end beyond the grace period: it has nothing left to do but to notice.
const JOIN_WAIT_MIN: Duration = Duration::from_millis(500);

/// Ends a thread. One that hangs in the system (a disk that answers no more) is left behind: the process ends anyway.
fn stop_arbiter(arbiter: Arbiter, until: Instant) {
    arbiter.stop();
    let left = until.saturating_duration_since(Instant::now()).max(JOIN_WAIT_MIN);
    match joined_within(left, move || arbiter.join()) {
        Some(Ok(())) => {}
        Some(Err(_)) => tracing::error!("a thread had panicked"),
        None => tracing::error!("a thread does not end; it is left behind"),
    }
}

/// What a join came to; `None` if it took longer.
fn joined_within<T: Send + 'static>(left: Duration, join: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let waiter = std::thread::Builder::new().name("hepgate-join".into()).spawn(move || {
        // Nobody listens if it took too long.
        let _ = done.send(join());
    });
    waiter.ok()?;
    result.recv_timeout(left).ok()
}

fn worker_count(config: &Config) -> NonZeroUsize {
    let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.gateway.workers.unwrap_or_else(all)
}

/// TLS of the listeners that have it.
fn acceptors(config: &Config) -> Result<Vec<Option<Arc<Acceptor>>>, GatewayError> {
    let acceptor = |listener: &crate::config::Listener| {
        let Some(settings) = &listener.tls else { return Ok(None) };
        let tls = |reason| GatewayError::ListenerTls { listener: listener.name.clone(), reason };
        Acceptor::new(settings.clone()).map_err(tls).map(|acceptor| Some(Arc::new(acceptor)))
    };
    config.listeners.iter().map(acceptor).collect()
}

/// TLS of the collectors that have it.
fn connectors(config: &Config) -> Result<Vec<Option<Arc<Connector>>>, GatewayError> {
    let connector = |collector: &crate::config::Collector| {
        let Destination::Tcp { tls: Some(settings), .. } = &collector.destination else { return Ok(None) };
        let tls = |reason| GatewayError::CollectorTls { collector: collector.name.clone(), reason };
        Connector::new((**settings).clone()).map_err(tls).map(|connector| Some(Arc::new(connector)))
    };
    config.collectors.iter().map(connector).collect()
}

/// What the tenants may have, for all workers together.
fn quotas(config: &Config) -> Vec<Option<Arc<Quota>>> {
    let now = Instant::now();
    config.tenants.iter().map(|tenant| Quota::new(&tenant.quotas, now)).collect()
}

/// The filters in chains, in the order of the ledger's seats.
fn seated(config: &Config) -> impl Iterator<Item = &Filter> {
    let ids = config.tenants.iter().flat_map(|tenant| &tenant.filters);
    ids.filter_map(|id| config.filters.get(id.0))
}

/// How each of them stands.
fn standings(config: &Config) -> Vec<Arc<Standing>> {
    seated(config).map(|filter| Standing::new(filter.quarantine)).collect()
}

/// What each of them has.
fn belongings(config: &Config) -> Vec<Belongings> {
    seated(config).map(|filter| Belongings::new(&filter.limits)).collect()
}

/// What can be seen of each of them.
fn seats(config: &Config, standings: Vec<Arc<Standing>>, belongings: Vec<Belongings>) -> Vec<SeatInfo> {
    let seats = seated(config).zip(standings).zip(belongings);
    let seat = |((filter, standing), belongings): ((&Filter, _), _)| SeatInfo {
        limits: filter.limits.clone(),
        standing,
        belongings,
    };
    seats.map(seat).collect()
}

/// Where evidence is kept, unless nobody wants it, or there is no place for it.
fn start_evidence(config: &Config) -> Result<Option<Arc<Evidence>>, GatewayError> {
    let settings = &config.gateway.evidence;
    let folder = settings.folder.clone().or_else(load::default_evidence).filter(|_| settings.octets_max > 0);
    let Some(folder) = folder else { return Ok(None) };
    let limits = EvidenceLimits { octets_max: settings.octets_max, per_filter_max: settings.per_filter_max };
    let failed = |reason| GatewayError::Start { what: "what keeps evidence".into(), reason };
    Evidence::start(folder, limits).map(Some).map_err(failed)
}

fn listening(config: &Config, bound: &[Bound]) -> Vec<Listening> {
    let listeners = config.listeners.iter().zip(bound);
    let listening = listeners.map(|(listener, bound)| Listening {
        name: listener.name.clone(),
        transport: listener.listen.transport,
        address: bound.address(),
    });
    listening.collect()
}

fn rows(config: &Config) -> Rows {
    let mut seats = Vec::new();
    for (tenant, settings) in ids(&config.tenants, TenantId) {
        for filter in &settings.filters {
            let name = config.filters.get(filter.0).map_or_else(String::new, |filter| filter.name.clone());
            seats.push((tenant, name));
        }
    }
    Rows {
        listeners: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
        tenants: config.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
        collectors: config.collectors.iter().map(|collector| collector.name.clone()).collect(),
        seats,
    }
}

fn infos(filters: &LoadedFilters) -> Vec<FilterInfo> {
    let info = |filter: &Arc<crate::filter::Filter>| FilterInfo {
        name: filter.name().to_owned(),
        sha256: filter.sha256_hex(),
    };
    filters.all().iter().map(info).collect()
}

/// A file collector that runs: one for all workers.
struct FileHandle {
    id: CollectorId,
    name: String,
    arbiter: Arbiter,
    drain: Recipient<Drain>,
    deliver: Recipient<Deliver>,
    backlog: Arc<Backlog>,
}

/// All that can be wrong with a collector, before one of them begins a file.
fn check_collectors(config: &Config) -> Result<(), GatewayError> {
    for collector in &config.collectors {
        match &collector.destination {
            Destination::Udp { to, .. } => drop(UdpCollector::connect(&collector.name, to)?),
            Destination::File(settings) => FileCollector::check(&collector.name, settings)?,
            // It may come later.
            Destination::Tcp { .. } => {}
        }
    }
    Ok(())
}

fn start_files(config: &Config, ledger: &Arc<Ledger>) -> Vec<FileHandle> {
    let mut files = Vec::new();
    for (id, collector) in ids(&config.collectors, CollectorId) {
        let Destination::File(settings) = &collector.destination else { continue };
        let backlog = Backlog::new(collector.mailbox_octets_max);
        let (name, settings, theirs) = (collector.name.clone(), settings.clone(), Arc::clone(&backlog));
        let page = ledger.page();
        let arbiter = Arbiter::new();
        let actor = FileCollector::start_in_arbiter(&arbiter.handle(), move |_| {
            FileCollector::new(settings, Counter::new(id, &name, Rc::new(page)), theirs)
        });
        let (drain, deliver) = (actor.clone().recipient(), actor.recipient());
        files.push(FileHandle { id, name: collector.name.clone(), arbiter, drain, deliver, backlog });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_left_behind_in_time() {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let hung = std::thread::spawn(move || held.recv());
        let began = Instant::now();
        assert!(joined_within(Duration::from_millis(20), move || hung.join()).is_none());
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(release);
        let ended = std::thread::spawn(|| 7);
        assert_eq!(joined_within(Duration::from_secs(10), move || ended.join()).unwrap().unwrap(), 7);
    }
}
