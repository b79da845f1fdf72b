//! The composition root: the one place that knows everybody. What starts when, what stops when.
//!
//! Start: [`load()`] (the sandbox, the components, a trial start of each filter), then every socket, file and name that
//! can fail, and only when all of that is there the actors. Stop: listeners, chains, collectors, each when the one
//! before it is done, all within the grace period.

mod load;
mod parts;
mod reload;
mod shown;
mod summary;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Recipient};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use load::{LoadedFilters, check, default_cache, load};

use crate::admin::{self, Admin, AdminError, Command, View};
use crate::collector::{Counter, FileCollector, FileError, UdpError};
use crate::config::{CollectorId, Config, Destination, Listener, ListenerId, SecretError, Transport};
use crate::filter::{HostError, LoadError};
use crate::ledger::{Ledger, Totals};
use crate::listener::{BindError, ConnectionLimits};
use crate::message::{Backlog, Deliver, Drain};
use crate::tenant::{Evidence, EvidenceLimits, KeyError, SlowLane};
use crate::tls;
use parts::Parts;
use reload::needs_restart;
pub use reload::{ReloadError, Reloaded};
use shown::shown;
pub use summary::Summary;
use worker::{Worker, WorkerChange};

/// Why a gateway cannot start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum GatewayError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the filters do not fit into the sandbox as it is: {0}")]
    NoRoom(String),
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
    parts: Parts,
    view: Arc<View>,
    workers: Vec<Worker>,
    files: Vec<FileHandle>,
    /// What is no longer wanted and finishes what it has.
    retiring: Vec<JoinHandle<()>>,
    slow: Arc<SlowLane>,
    evidence: Option<Arc<Evidence>>,
    admin: Option<Admin>,
}

impl Gateway {
    /// Starts everything that is configured. Must be called in an actix system. `commands` is where the admin server sends
    /// what it is asked to do.
    ///
    /// # Errors
    /// [`GatewayError`], in one sentence; what was started is stopped again.
    pub async fn start(config: &Config, commands: mpsc::Sender<Command>) -> Result<Self, GatewayError> {
        let parts = Parts::prepare(config.clone(), None).map_err(|mut errors| errors.swap_remove(0))?;
        let admin = config.admin.map(admin::bind).transpose()?;
        let ledger = Ledger::new(parts.rows());
        let sandbox = &config.sandbox;
        let slow = SlowLane::start(sandbox.slow_threads, sandbox.slow_queue_batches, sandbox.slow_healthy_after)
            .map_err(|reason| GatewayError::Start { what: "the slow lane".into(), reason })?;
        let evidence = start_evidence(config)?;
        let view = View::new(ledger, evidence.clone(), commands);
        let (workers, files, retiring) = (Vec::new(), Vec::new(), Vec::new());
        let mut gateway = Self { parts, view, workers, files, retiring, slow, evidence, admin: None };
        if let Err(error) = gateway.start_actors().await {
            gateway.stop(Duration::ZERO).await;
            return Err(error);
        }
        gateway.show();
        gateway.view.ready.store(true, Ordering::SeqCst);
        gateway.admin = admin.map(|listener| admin::serve(listener, Arc::clone(&gateway.view))).transpose()?;
        Ok(gateway)
    }

    async fn start_actors(&mut self) -> Result<(), GatewayError> {
        let ledger = Arc::clone(&self.view.ledger);
        self.parts.filters.name_listeners(&self.parts.config);
        for index in 0..worker_count(&self.parts.config).get() {
            self.workers.push(Worker::start(index, &self.parts, &ledger, &self.slow).await?);
        }
        self.files = start_files(&self.parts, None, &ledger);
        let admissions = admissions(&self.parts, None);
        let change = WorkerChange {
            old: None,
            new: &self.parts,
            ledger: &ledger,
            rows_grew: false,
            files: &self.files,
            evidence: &self.evidence,
            admissions,
        };
        for worker in &mut self.workers {
            worker.change(&change).await?;
        }
        Ok(())
    }

    /// Becomes what another configuration says. What it does not change goes on untouched; filters, collectors and
    /// listeners that are new or changed are made first, then take over between two batches, and those that were there
    /// before finish what they have, in the background.
    ///
    /// # Errors
    /// All that is wrong with it; nothing has changed then.
    pub async fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let restart = needs_restart(&self.parts.config, &config);
        let prepared = Parts::prepare(config.aligned(&self.parts.config), Some(&self.parts));
        let new = match (prepared, restart.is_empty()) {
            (Ok(new), true) => new,
            (prepared, _) => {
                let errors = prepared.err().unwrap_or_default();
                return Err(ReloadError(restart.into_iter().chain(errors.iter().map(ToString::to_string)).collect()));
            }
        };
        let (ledger, rows) = (Arc::clone(&self.view.ledger), new.rows());
        let rows_grew = *ledger.rows() != rows;
        if rows_grew {
            ledger.extend(rows);
        }
        new.take_over(&self.parts);
        let started = start_files(&new, Some(&self.parts), &ledger);
        let mut files = Vec::new();
        let mut retired_files = Vec::new();
        for file in self.files.drain(..) {
            if self.parts.is_same_collector(file.id, &new) { files.push(file) } else { retired_files.push(file) }
        }
        files.extend(started);
        let reloaded = Reloaded::between(&self.parts, &new);
        let admissions = admissions(&new, Some(&self.parts));
        let (mut retired, mut trouble) = (Vec::new(), Vec::new());
        let change = WorkerChange {
            old: Some(&self.parts),
            new: &new,
            ledger: &ledger,
            rows_grew,
            files: &files,
            evidence: &self.evidence,
            admissions,
        };
        for worker in &mut self.workers {
            match worker.change(&change).await {
                Ok(actors) => retired.extend(actors),
                // Only for want of descriptors or threads. The others go on.
                Err(error) => trouble.push(error.to_string()),
            }
        }
        self.parts = new;
        self.files = files;
        self.show();
        self.retiring.retain(|retiring| !retiring.is_finished());
        self.retiring.push(actix_rt::spawn(retire(retired, retired_files)));
        if trouble.is_empty() { Ok(reloaded) } else { Err(ReloadError(trouble)) }
    }

    /// What can be seen of it, from now on.
    fn show(&self) {
        let mut actors: Vec<(String, Recipient<Drain>)> = Vec::new();
        for worker in &self.workers {
            actors.extend(worker.actors());
        }
        actors.extend(self.files.iter().map(|file| (format!("collector {}", file.name), file.drain.clone())));
        self.view.show(shown(&self.parts, actors));
    }

    /// The configuration that it runs with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.parts.config
    }

    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        let listening = self.parts.config.live_listeners().filter_map(|(id, listener)| {
            let address = self.parts.sockets.get(&id)?.address();
            Some(Listening { name: listener.name.clone(), transport: listener.listen.transport, address })
        });
        listening.collect()
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
    pub async fn stop(mut self, grace: Duration) -> Totals {
        let until = Instant::now() + grace;
        // Each listener closes its own handle of its socket when it is done: then nobody is let in any more.
        self.parts.sockets.clear();
        self.view.ready.store(false, Ordering::SeqCst);
        drain("listeners", self.workers.iter().flat_map(Worker::listeners), until).await;
        for retiring in self.retiring {
            // What does not end in time is stopped with its worker, which counts what it has.
            let _ = tokio::time::timeout(until.saturating_duration_since(Instant::now()), retiring).await;
        }
        drain("chains", self.workers.iter().map(Worker::chains), until).await;
        drain("collectors", self.workers.iter().flat_map(Worker::collectors), until).await;
        drain("file collectors", self.files.iter().map(|file| file.drain.clone()), until).await;
        for worker in self.workers {
            worker.stop(until);
        }
        for file in self.files {
            stop_arbiter(file.arbiter, until);
        }
        drop(self.slow);
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        self.view.ledger.totals()
    }
}

/// Lets actors that are no longer wanted finish what they have. One that takes long keeps no other one waiting.
async fn retire(actors: Vec<(String, Recipient<Drain>)>, files: Vec<FileHandle>) {
    let waits: Vec<_> = actors.iter().map(|(_, actor)| actor.send(Drain)).collect();
    for file in files {
        // Its mailbox is handled in order, so all that it was given is written by then. One that is gone has ended.
        let _ = file.drain.send(Drain).await;
        file.arbiter.stop();
    }
    for wait in waits {
        let _ = wait.await;
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

/// How many connections each new listener may have, on all workers together.
fn admissions(new: &Parts, old: Option<&Parts>) -> BTreeMap<ListenerId, Arc<ConnectionLimits>> {
    let is_new = |(id, listener): &(ListenerId, &Listener)| !old.is_some_and(|old| old.is_same_listener(*id, listener));
    let admission = |(id, listener): (ListenerId, &Listener)| {
        let stream = listener.stream;
        (id, ConnectionLimits::new(stream.connections_max, stream.connections_per_peer_max))
    };
    new.config.live_listeners().filter(is_new).map(admission).collect()
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

/// A file collector that runs: one for all workers.
#[derive(Debug)]
struct FileHandle {
    id: CollectorId,
    name: String,
    arbiter: Arbiter,
    drain: Recipient<Drain>,
    deliver: Recipient<Deliver>,
    backlog: Arc<Backlog>,
}

/// The file collectors that are new or changed.
fn start_files(parts: &Parts, old: Option<&Parts>, ledger: &Arc<Ledger>) -> Vec<FileHandle> {
    let mut files = Vec::new();
    for (id, collector) in parts.config.live_collectors() {
        let Destination::File(settings) = &collector.destination else { continue };
        if old.is_some_and(|old| old.is_same_collector(id, parts)) {
            continue;
        }
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
