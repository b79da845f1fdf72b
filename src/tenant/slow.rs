//! The slow lane: threads that only run guests, for chains that missed a deadline where a socket waits for them.
//!
//! Every chain here has a bounded queue of its own. The threads take turns by the time that each tenant has used, so a
//! tenant whose filters burn their deadlines gets its share and no more. A chain's batches are done one at a time and
//! in order.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::chain::{Chain, Done, Lane, Ran, Run, wide};
use super::seat::Tally;
use crate::config::TenantId;
use crate::filter::Sent;

/// Which chain: the tenant's one of that worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ChainId {
    pub(super) tenant: TenantId,
    pub(super) worker: usize,
}

/// What a chain is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Take a batch through. The permit is given back when it is done.
    Batch(Run, Option<Arc<OwnedSemaphorePermit>>),
    /// Call a filter's `on-tick`.
    Tick(usize),
    /// Make the last call of every instance.
    LastCalls,
    /// Make the last calls of a chain whose place another one has taken.
    Retire(Box<Chain>),
}

impl Job {
    /// Packets that it is about.
    fn packets(&self) -> u64 {
        match self {
            Self::Batch(run, _) => wide(run.len()),
            Self::Tick(_) | Self::LastCalls | Self::Retire(_) => 0,
        }
    }
}

/// What a worker hears of its chains in the slow lane, in order.
#[derive(Debug)]
pub(super) enum Finished {
    /// A batch is through.
    Batch(TenantId, Done, Tally),
    /// A call without packets is done.
    Sent(Vec<Sent>, Tally),
    /// We panicked over a job: so many packets of it are lost. The chain goes on with new instances.
    Lost(TenantId, u64),
    /// The chain has behaved for long enough, has nothing to do, and comes home.
    Home(TenantId, Chain),
}

/// What became of a job that was handed over.
#[derive(Debug)]
pub(super) enum Submitted {
    /// It waits for its turn.
    Waiting,
    /// The chain has as many as it may.
    Full(Job),
    /// The chain is on its way home.
    Gone(Job),
}

/// The threads, and what waits for them.
#[derive(Debug)]
pub struct SlowLane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    something_to_do: Condvar,
    queue_batches: usize,
    healthy_after: Duration,
}

#[derive(Debug, Default)]
struct State {
    residents: HashMap<ChainId, Resident>,
    /// Time that each tenant has used.
    used: HashMap<TenantId, Duration>,
    /// The time used by whoever had the last turn. Who comes back after a rest begins here, and has not saved up turns.
    level: Duration,
    stopping: bool,
}

#[derive(Debug)]
struct Resident {
    /// `None` while a thread runs it.
    chain: Option<Chain>,
    /// The one that takes its place when the job at hand is done.
    next: Option<Chain>,
    jobs: VecDeque<Job>,
    results: mpsc::Sender<Finished>,
    may_go_home: bool,
    healthy_since: Instant,
}

impl SlowLane {
    /// Starts the threads. At most `queue_batches` batches wait for a chain; one that makes no long call for
    /// `healthy_after` goes home.
    ///
    /// # Errors
    /// What the system says if there is no thread to be had.
    pub fn start(threads: NonZeroUsize, queue_batches: usize, healthy_after: Duration) -> std::io::Result<Arc<Self>> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), something_to_do: Condvar::new(), queue_batches, healthy_after });
        let mut started = Vec::new();
        for index in 0..threads.get() {
            let shared = Arc::clone(&shared);
            let name = format!("hepgate-slow-{index}");
            started.push(std::thread::Builder::new().name(name).spawn(move || shared.run())?);
        }
        Ok(Arc::new(Self { shared, threads: started }))
    }

    /// Takes a chain in. `results` is where its worker hears of it.
    pub(super) fn enter(&self, id: ChainId, chain: Chain, results: mpsc::Sender<Finished>, may_go_home: bool) {
        let healthy_since = Instant::now();
        let jobs = VecDeque::new();
        let resident = Resident { chain: Some(chain), next: None, jobs, results, may_go_home, healthy_since };
        self.shared.lock().residents.insert(id, resident);
    }

    /// Puts another chain in the place of one that is here, between two of its jobs. The old one has its last calls then,
    /// which is a job more.
    ///
    /// # Errors
    /// The chain: the old one is not here.
    pub(super) fn replace(&self, id: ChainId, chain: Chain, may_go_home: bool) -> Result<(), Chain> {
        let mut state = self.shared.lock();
        let Some(resident) = state.residents.get_mut(&id) else { return Err(chain) };
        resident.may_go_home = may_go_home;
        match &mut resident.chain {
            // One that was to come next and never came has made no call, so it needs no last one.
            None => resident.next = Some(chain),
            Some(_) => {
                resident.take_over(chain);
                drop(state);
                self.shared.something_to_do.notify_one();
            }
        }
        Ok(())
    }

    /// Hands a job over. `bounded`: only if the chain has room; the others have their bound elsewhere.
    pub(super) fn submit(&self, id: ChainId, job: Job, bounded: bool) -> Submitted {
        let mut state = self.shared.lock();
        let level = state.level;
        let Some(resident) = state.residents.get_mut(&id) else { return Submitted::Gone(job) };
        if bounded && resident.jobs.len() >= self.shared.queue_batches {
            return Submitted::Full(job);
        }
        let was_idle = resident.jobs.is_empty();
        resident.jobs.push_back(job);
        if was_idle {
            let used = state.used.entry(id.tenant).or_default();
            *used = (*used).max(level);
            drop(state);
            self.shared.something_to_do.notify_one();
        }
        Submitted::Waiting
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.something_to_do.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the slow lane had panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let Some((id, mut chain, job, results)) = state.next_turn() else {
                state = self.something_to_do.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let began = Instant::now();
            let packets = job.packets();
            // A guest that makes us panic costs its instance. This is for a panic of ours anywhere else: it costs the
            // job, and not the thread that all tenants here share.
            let finished = catch_unwind(AssertUnwindSafe(|| work(id, &mut chain, job))).unwrap_or_else(|_| {
                chain.discard_instances();
                tracing::error!(tenant = id.tenant.0, packets, "the gateway panicked over a batch: it is lost");
                Finished::Lost(id.tenant, packets)
            });
            // The worker hears of this one before another thread can take the chain's next.
            let worker_is_there = results.blocking_send(finished).is_ok();
            state = self.lock();
            state.level = state.charge(id.tenant, began.elapsed());
            if worker_is_there {
                state = self.settle(state, id, chain);
            } else {
                state.residents.remove(&id);
            }
        }
    }

    /// Puts a chain back, or sends it home.
    fn settle<'a>(&'a self, mut state: MutexGuard<'a, State>, id: ChainId, mut chain: Chain) -> MutexGuard<'a, State> {
        let now = Instant::now();
        let Some(resident) = state.residents.get_mut(&id) else { return state };
        if chain.take_longest_call() > chain.fast_deadline() / 2 {
            resident.healthy_since = now;
        }
        let healthy = now.saturating_duration_since(resident.healthy_since) >= self.healthy_after;
        if resident.may_go_home && healthy && resident.jobs.is_empty() && resident.next.is_none() {
            let results = resident.results.clone();
            state.residents.remove(&id);
            drop(state);
            // If the worker is gone, so is the chain's home.
            let _ = results.blocking_send(Finished::Home(id.tenant, chain));
            return self.lock();
        }
        resident.chain = Some(chain);
        if let Some(next) = resident.next.take() {
            resident.take_over(next);
        }
        let more = !resident.jobs.is_empty();
        if more {
            self.something_to_do.notify_one();
        }
        state
    }
}

impl Resident {
    /// Another chain is the one that is here, and the last calls of this one are the next job.
    fn take_over(&mut self, chain: Chain) {
        if let Some(old) = self.chain.replace(chain) {
            self.jobs.push_front(Job::Retire(Box::new(old)));
        }
    }
}

impl State {
    /// The chain that has something to do and whose tenant has used the least time.
    fn next_turn(&mut self) -> Option<(ChainId, Chain, Job, mpsc::Sender<Finished>)> {
        let used = |id: &ChainId| self.used.get(&id.tenant).copied().unwrap_or_default();
        let ready = self.residents.iter().filter(|(_, resident)| resident.chain.is_some() && !resident.jobs.is_empty());
        let id = *ready.min_by_key(|(id, _)| used(id))?.0;
        let resident = self.residents.get_mut(&id)?;
        let job = resident.jobs.pop_front()?;
        let Some(chain) = resident.chain.take() else {
            resident.jobs.push_front(job);
            return None;
        };
        Some((id, chain, job, resident.results.clone()))
    }

    fn charge(&mut self, tenant: TenantId, time: Duration) -> Duration {
        let used = self.used.entry(tenant).or_default();
        *used += time;
        *used
    }
}

fn work(id: ChainId, chain: &mut Chain, job: Job) -> Finished {
    let mut tally = Tally::new();
    match job {
        Job::Batch(run, permit) => {
            let done = match chain.run(run, Lane::Slow, false, &mut tally) {
                Ran::Through(done) => done,
                // It cannot be: nothing may move on from here.
                Ran::TooSlow(_) => Done::default(),
            };
            drop(permit);
            Finished::Batch(id.tenant, done, tally)
        }
        Job::Tick(seat) => {
            let sent = chain.tick(seat, Lane::Slow, false, &mut tally).unwrap_or_default();
            Finished::Sent(sent, tally)
        }
        Job::LastCalls => {
            let sent = chain.last_calls(Lane::Slow, &mut tally);
            Finished::Sent(sent, tally)
        }
        Job::Retire(mut old) => {
            let sent = old.last_calls(Lane::Slow, &mut tally);
            Finished::Sent(sent, tally)
        }
    }
}
