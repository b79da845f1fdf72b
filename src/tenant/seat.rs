//! A filter in a tenant's chain: its instance, from the first packet to the failure that ends it, and the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::chain::{Lane, wide};
use super::evidence::{Case, Evidence, Exhibit, calendar};
use super::standing::{Drops, Standing};
use crate::config::{Limit, OnError};
use crate::filter::{
    Budget, Fault, Filter, Instance, LogLevel, LogLine, Now, Outcome, Part, Sent, Surroundings, Wanted, Work,
};
use crate::ledger::{FaultKind, SeatCount, SeatId, took_bucket};
use crate::message::{Received, wall_clock};
use crate::pace::{Backoff, Repeated};
use crate::wire::CapturedAt;

/// Wait after an instance could not be started, and the longest such wait.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A filter that has not failed for so long is not made to wait when it does.
const CALM: Duration = Duration::from_secs(10);
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
    surroundings: Surroundings,
    on_error: Option<OnError>,
    instance: Option<Instance>,
    backoff: Backoff,
    start_again_at: Option<Instant>,
    last_strike: Option<Instant>,
    standing: Arc<Standing>,
    drops: Drops,
    /// The longest call, or start of an instance, since [`Seat::take_longest_call`].
    longest_call: Duration,
    evidence: Option<Arc<Evidence>>,
    said: Repeated,
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum NoOutcome {
    /// The instance is gone.
    Failed(Fault),
    /// There is none, and this is why.
    NotStarted(Fault),
    /// It could not be started a moment ago, or failed several times of late, and is not started yet.
    Waiting,
    /// It is out of service.
    Quarantined,
}

impl Seat {
    /// A filter in the chain of `tenant`. Its instance is made when the first packet comes.
    #[must_use]
    pub fn new(
        id: SeatId,
        tenant: &str,
        filter: Arc<Filter>,
        surroundings: Surroundings,
        on_error: Option<OnError>,
        standing: Arc<Standing>,
        evidence: Option<Arc<Evidence>>,
    ) -> Self {
        let (first, longest) = RESTART_WAITS;
        Self {
            id,
            tenant: tenant.to_owned(),
            filter,
            surroundings,
            on_error,
            instance: None,
            backoff: Backoff::new(first, longest),
            start_again_at: None,
            last_strike: None,
            standing,
            drops: Drops::new(Instant::now()),
            longest_call: Duration::ZERO,
            evidence,
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
        part: &Part,
        at: Moment,
        tally: &mut Tally,
    ) -> Result<Outcome, NoOutcome> {
        if self.standing.is_out(at.now) {
            self.leave_service();
            return Err(NoOutcome::Quarantined);
        }
        self.start_if_needed(at, tally)?;
        let budget = self.budget(at.lane);
        let Some(instance) = &mut self.instance else { return Err(NoOutcome::Waiting) };
        let began = Instant::now();
        let result = instance.on_batch(work, part, budget, at.now());
        self.finish_call(began, at.lane, result, tally)
    }

    /// What the filter sees; `None`: all packets.
    pub(super) fn wanted(&self) -> Option<Arc<Wanted>> {
        match &self.instance {
            Some(instance) => instance.wanted().cloned(),
            None => Some(self.filter.wanted()).filter(|wanted| !wanted.is_all()),
        }
    }

    /// The last call of the instance, if there is one; it is gone then.
    pub(super) fn last_call(&mut self, at: Moment, tally: &mut Tally) -> Vec<Sent> {
        let Some(mut instance) = self.instance.take().filter(|_| self.filter.has_last_call()) else {
            return Vec::new();
        };
        let began = Instant::now();
        let result = instance.on_stop(self.budget(at.lane), at.now());
        self.count_call(&mut instance, at.lane, began, tally);
        match result {
            Ok(outcome) => {
                tally.push((self.id, SeatCount::Calls, 1));
                tally.push((self.id, SeatCount::Sent, wide(outcome.sent.len())));
                outcome.sent
            }
            Err(fault) => {
                self.note(&fault, began, tally);
                Vec::new()
            }
        }
    }

    /// What a call took, used and wrote, well or not.
    fn count_call(&mut self, instance: &mut Instance, lane: Lane, began: Instant, tally: &mut Tally) {
        let took = began.elapsed();
        self.longest_call = self.longest_call.max(took);
        tally.push((self.id, SeatCount::Nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)));
        tally.push((self.id, SeatCount::Took(took_bucket(took)), 1));
        instance.raise(self.standing.peaks());
        let deadline = if lane == Lane::Fast { Limit::FastDeadline } else { Limit::SlowDeadline };
        self.standing.peaks().raise(deadline, micros(took));
        let (lines, unwritten) = instance.take_log();
        self.write_log(lines, unwritten, began, tally);
    }

    /// Calls `on-tick`, if there is an instance.
    pub(super) fn on_tick(&mut self, at: Moment, tally: &mut Tally) -> Result<Outcome, NoOutcome> {
        if self.standing.is_out(at.now) {
            self.leave_service();
            return Err(NoOutcome::Quarantined);
        }
        let budget = self.budget(at.lane);
        let Some(instance) = &mut self.instance else { return Ok(Outcome::default()) };
        let began = Instant::now();
        let result = instance.on_tick(budget, at.now());
        self.finish_call(began, at.lane, result, tally)
    }

    fn finish_call(
        &mut self,
        began: Instant,
        lane: Lane,
        result: Result<Outcome, Fault>,
        tally: &mut Tally,
    ) -> Result<Outcome, NoOutcome> {
        if let Some(mut instance) = self.instance.take() {
            self.count_call(&mut instance, lane, began, tally);
            self.instance = Some(instance);
        }
        match result {
            Ok(mut outcome) => {
                tally.push((self.id, SeatCount::Calls, 1));
                if outcome.state_lost > 0 {
                    tally.push((self.id, SeatCount::StateLost, outcome.state_lost));
                }
                outcome.sent.extend(self.recycle_if_grown(lane, tally));
                Ok(outcome)
            }
            Err(fault) => {
                self.note(&fault, began, tally);
                Err(NoOutcome::Failed(fault))
            }
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
        let began = Instant::now();
        let started = self.filter.start(self.surroundings.clone(), budget, at.now(), &mut lines);
        let took = began.elapsed();
        self.longest_call = self.longest_call.max(took);
        self.standing.peaks().raise(Limit::InitDeadline, micros(took));
        self.write_log(lines, 0, at.now, tally);
        match started {
            Ok(instance) => {
                tally.push((self.id, SeatCount::Started, 1));
                if self.last_strike.is_none_or(|last| at.now.saturating_duration_since(last) >= CALM) {
                    self.backoff.succeed();
                }
                self.start_again_at = None;
                self.instance = Some(instance);
                Ok(())
            }
            Err(fault) => {
                self.note(&fault, at.now, tally);
                Err(NoOutcome::NotStarted(fault))
            }
        }
    }

    /// Guests that live long may leak: one that has grown far beyond what it began with begins anew. What it sends with
    /// its last call.
    fn recycle_if_grown(&mut self, lane: Lane, tally: &mut Tally) -> Vec<Sent> {
        let Some(instance) = &self.instance else { return Vec::new() };
        let (octets, at_start) = (instance.memory_octets(), instance.memory_octets_at_start());
        let has_grown = self.filter.limits().recycle_octets().is_some_and(|most| octets >= most) && octets > at_start;
        if !has_grown {
            return Vec::new();
        }
        tally.push((self.id, SeatCount::Recycled, 1));
        let (tenant, filter) = (self.tenant.as_str(), self.filter.name());
        tracing::debug!(tenant, filter, octets, at_start, "instance replaced: it had grown");
        self.last_call(Moment::here(lane, false), tally)
    }

    /// Counts what it has dropped; too much of it is quarantine.
    pub(super) fn count_drops(&mut self, packets: u64, dropped: u64, now: Instant, tally: &mut Tally) {
        if self.drops.add(packets, dropped, &self.standing, now) {
            self.say_quarantined(now, tally);
        }
    }

    /// The longest call since this was last asked.
    pub(super) const fn take_longest_call(&mut self) -> Duration {
        std::mem::replace(&mut self.longest_call, Duration::ZERO)
    }

    /// Holds a fault against the filter, and keeps the packets of the call.
    pub(super) fn strike(&mut self, fault: &Fault, packets: Vec<Received>, at: Moment, tally: &mut Tally) {
        // That our own thread is late is not its fault; nor is a short deadline that it may miss once before it gets
        // the full one.
        if fault.kind == FaultKind::TickerLate || (fault.kind == FaultKind::Deadline && at.may_move) {
            return;
        }
        tally.push((self.id, SeatCount::Strikes, 1));
        self.keep(fault, packets, at, tally);
        // The first fault costs a restart and no more. Who fails again soon waits for longer and longer.
        if self.last_strike.is_some_and(|last| at.now.saturating_duration_since(last) < CALM) {
            self.start_again_at = Some(at.now + self.backoff.fail(at.wall.microseconds));
        }
        self.last_strike = Some(at.now);
        if self.standing.strike(&fault.text, at.now) {
            self.say_quarantined(at.now, tally);
        }
    }

    fn keep(&self, fault: &Fault, packets: Vec<Received>, at: Moment, tally: &mut Tally) {
        let Some(evidence) = &self.evidence else { return };
        let case = Case {
            at: calendar(at.wall),
            tenant: self.tenant.clone(),
            filter: self.filter.name().to_owned(),
            sha256: self.filter.sha256_hex(),
            kind: fault.kind.as_str().to_owned(),
            fault: fault.text.clone(),
            packets: packets.len(),
            config: BTreeMap::clone(self.filter.shown_config()),
        };
        let kept = evidence.keep(Exhibit { case, at: at.wall, packets });
        tally.push((self.id, if kept { SeatCount::Evidence } else { SeatCount::EvidenceLost }, 1));
    }

    /// Out of service. Whoever comes back begins anew, and at once.
    fn leave_service(&mut self) {
        self.instance = None;
        self.last_strike = None;
        self.forgive_start();
    }

    fn say_quarantined(&mut self, now: Instant, tally: &mut Tally) {
        self.leave_service();
        tally.push((self.id, SeatCount::Quarantines, 1));
        let (tenant, filter) = (self.tenant.as_str(), self.filter.name());
        let (reason, _, left) = self.standing.report(now).quarantine.unwrap_or_default();
        tracing::error!(tenant, filter, reason, cool_down = ?left, "quarantined: taken out of service");
    }

    /// In the slow lane a missed start is not held against the filter: it was not given the time yet.
    pub(super) const fn forgive_start(&mut self) {
        self.start_again_at = None;
        self.backoff.succeed();
    }

    pub(super) fn discard_instance(&mut self) {
        self.instance = None;
    }

    fn note(&mut self, fault: &Fault, now: Instant, tally: &mut Tally) {
        self.instance = None;
        tally.push((self.id, SeatCount::Faults(fault.kind), 1));
        if let Some(unsaid) = self.said.say(now) {
            let (tenant, filter, kind) = (self.tenant.as_str(), self.filter.name(), fault.kind.as_str());
            tracing::warn!(tenant, filter, kind, reason = %fault.text, unsaid, "a filter failed");
        }
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

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

impl Moment {
    /// This moment, by both clocks.
    pub(super) fn here(lane: Lane, may_move: bool) -> Self {
        Self { lane, may_move, now: Instant::now(), wall: wall_clock() }
    }

    /// As a guest may know it.
    fn now(self) -> Now {
        Now { wall: self.wall, monotonic: self.now.saturating_duration_since(beginning()) }
    }
}

/// The moment that guests count from.
fn beginning() -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    *BEGINNING.get_or_init(Instant::now)
}
