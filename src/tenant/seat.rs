//! A filter in a tenant's chain: its instance, from the first packet to the failure that ends it, and the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::Lane;
use crate::config::OnError;
use crate::filter::{Budget, Fault, Filter, Grant, Instance, LogLevel, LogLine, Outcome, Work};
use crate::ledger::{SeatCount, SeatId};
use crate::pace::{Backoff, Repeated};
use crate::wire::CapturedAt;

/// Wait after an instance could not be started, and the longest such wait.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Log lines of a filter, and lines about its failures, in a window.
const LOG_LINES_MAX: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// What was counted while a chain ran, for whoever writes the ledger.
pub(super) type Tally = Vec<(SeatId, SeatCount, u64)>;

/// A filter in a tenant's chain.
#[derive(Debug)]
pub struct Seat {
    id: SeatId,
    tenant: String,
    filter: Arc<Filter>,
    grants: Arc<[Grant]>,
    on_error: Option<OnError>,
    instance: Option<Instance>,
    backoff: Backoff,
    start_again_at: Option<Instant>,
    said: Repeated,
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum NoOutcome {
    /// The instance is gone.
    Failed(Fault),
    /// It could not be started a moment ago, and is not tried again yet.
    Waiting,
}

impl Seat {
    /// A filter in the chain of `tenant`. Its instance is made when the first packet comes.
    #[must_use]
    pub fn new(id: SeatId, tenant: &str, filter: Arc<Filter>, grants: Arc<[Grant]>, on_error: Option<OnError>) -> Self {
        let (first, longest) = RESTART_WAITS;
        Self {
            id,
            tenant: tenant.to_owned(),
            filter,
            grants,
            on_error,
            instance: None,
            backoff: Backoff::new(first, longest),
            start_again_at: None,
            said: Repeated::new(LOG_LINES_MAX, LOG_WINDOW),
        }
    }

    pub(super) const fn id(&self) -> SeatId {
        self.id
    }

    pub(super) const fn on_error(&self) -> Option<OnError> {
        self.on_error
    }

    /// Calls `on-batch` with a part of the work, on an instance that is started if there is none.
    pub(super) fn on_batch(
        &mut self,
        work: &mut Work,
        first: usize,
        len: usize,
        at: Moment,
        tally: &mut Tally,
    ) -> Result<Outcome, NoOutcome> {
        self.start_if_needed(at, tally)?;
        let budget = self.budget(at.lane);
        let Some(instance) = &mut self.instance else { return Err(NoOutcome::Waiting) };
        let began = Instant::now();
        let result = instance.on_batch(work, first, len, budget, at.wall);
        self.finish_call(began, result, tally)
    }

    /// Calls `on-tick`, if there is an instance.
    pub(super) fn on_tick(&mut self, at: Moment, tally: &mut Tally) -> Result<Outcome, NoOutcome> {
        let budget = self.budget(at.lane);
        let Some(instance) = &mut self.instance else { return Ok(Outcome::default()) };
        let began = Instant::now();
        let result = instance.on_tick(budget, at.wall);
        self.finish_call(began, result, tally)
    }

    fn finish_call(
        &mut self,
        began: Instant,
        result: Result<Outcome, Fault>,
        tally: &mut Tally,
    ) -> Result<Outcome, NoOutcome> {
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tally.push((self.id, SeatCount::Nanoseconds, nanoseconds));
        if let Some(instance) = &mut self.instance {
            let (lines, unwritten) = instance.take_log();
            self.write_log(lines, unwritten, began, tally);
        }
        match result {
            Ok(outcome) => {
                tally.push((self.id, SeatCount::Calls, 1));
                Ok(outcome)
            }
            Err(fault) => Err(self.fail(fault, began, tally)),
        }
    }

    fn start_if_needed(&mut self, at: Moment, tally: &mut Tally) -> Result<(), NoOutcome> {
        if self.instance.is_some() {
            return Ok(());
        }
        if self.start_again_at.is_some_and(|again| at.now < again) {
            return Err(NoOutcome::Waiting);
        }
        let limits = self.filter.limits();
        // Where it can go on in the slow lane, a start has no more time here than a call.
        let budget =
            if at.may_move { Budget::wall(limits.fast_deadline) } else { Budget::computing(limits.init_deadline) };
        let mut lines = Vec::new();
        let started = self.filter.start(Arc::clone(&self.grants), budget, at.wall, &mut lines);
        self.write_log(lines, 0, at.now, tally);
        match started {
            Ok(instance) => {
                tally.push((self.id, SeatCount::Started, 1));
                self.backoff.succeed();
                self.start_again_at = None;
                self.instance = Some(instance);
                Ok(())
            }
            Err(fault) => {
                self.start_again_at = Some(at.now + self.backoff.fail(at.wall.microseconds));
                Err(self.fail(fault, at.now, tally))
            }
        }
    }

    /// In the slow lane a missed start is not held against the filter: it was not given the time yet.
    pub(super) const fn forgive_start(&mut self) {
        self.start_again_at = None;
        self.backoff.succeed();
    }

    pub(super) fn discard_instance(&mut self) {
        self.instance = None;
    }

    fn fail(&mut self, fault: Fault, now: Instant, tally: &mut Tally) -> NoOutcome {
        self.instance = None;
        tally.push((self.id, SeatCount::Faults(fault.kind), 1));
        if let Some(unsaid) = self.said.say(now) {
            let (tenant, filter, kind) = (self.tenant.as_str(), self.filter.name(), fault.kind.as_str());
            tracing::warn!(tenant, filter, kind, reason = %fault.text, unsaid, "a filter failed");
        }
        NoOutcome::Failed(fault)
    }

    fn write_log(&mut self, lines: Vec<LogLine>, unwritten: u64, now: Instant, tally: &mut Tally) {
        let (mut written, mut unwritten) = (0, unwritten);
        let (tenant, filter) = (self.tenant.as_str(), self.filter.name());
        for line in lines {
            let Some(unsaid) = self.said.say(now) else {
                unwritten += 1;
                continue;
            };
            written += 1;
            let text = line.text;
            match line.level {
                LogLevel::Error => tracing::error!(tenant, filter, unsaid, "{text}"),
                LogLevel::Warn => tracing::warn!(tenant, filter, unsaid, "{text}"),
                LogLevel::Info => tracing::info!(tenant, filter, unsaid, "{text}"),
                LogLevel::Debug => tracing::debug!(tenant, filter, unsaid, "{text}"),
            }
        }
        for (count, n) in [(SeatCount::LogLines, written), (SeatCount::LogLinesUnwritten, unwritten)] {
            if n > 0 {
                tally.push((self.id, count, n));
            }
        }
    }

    /// In the fast lane a socket waits for the thread, so the time on the wall counts; in the slow lane nobody does.
    fn budget(&self, lane: Lane) -> Budget {
        let limits = self.filter.limits();
        match lane {
            Lane::Fast => Budget::wall(limits.fast_deadline),
            Lane::Slow => Budget::computing(limits.slow_deadline),
        }
    }

    /// The time of a call in the fast lane.
    pub(super) fn fast_deadline(&self) -> Duration {
        self.filter.limits().fast_deadline
    }
}

/// When and where a chain runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) lane: Lane,
    /// A missed deadline moves the chain to the slow lane.
    pub(super) may_move: bool,
    pub(super) now: Instant,
    /// The same by the calendar.
    pub(super) wall: CapturedAt,
}
