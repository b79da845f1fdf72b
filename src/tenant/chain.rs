//! A tenant's filters, one after the other over a batch: the callback rule of `proto_hep`.
//!
//! Every filter runs; one that fails is counted and the others go on; `skip` from any of them keeps the packet from the
//! route; `drop` ends it at once. What becomes of a packet that a filter failed on is that filter's `on_error`. If it
//! leaves that open, the packet goes on, and if all filters that leave it open failed, the tenant's `on_error` decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::seat::{Moment, NoOutcome, Seat, Tally};
use crate::config::OnError;
use crate::filter::{Fault, Outcome, Part, Sent, Verdict, Wanted, Work};
use crate::ledger::{FaultKind, SeatCount};

/// Packets of one call. Measured: a batch of 32 has nearly all of the gain of a large one, and 64 are what a listener
/// takes at once.
const CALL_PACKETS_MAX: usize = 64;
/// Octets of one call's packets, unless it is a single one: a guest that copies them all needs no more memory than this.
const CALL_OCTETS_MAX: usize = 1 << 20;
/// Instances that one batch may use up while the packet that traps is looked for: enough to find one in 64 (6 halvings,
/// each at the price of one instance) twice over.
const RESTARTS_MAX: u32 = 16;

/// Where a chain runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// On the worker's own thread, with a short deadline.
    Fast,
    /// On a thread that only runs guests, with the full one.
    Slow,
}

/// A tenant's filters.
#[derive(Debug)]
pub struct Chain {
    /// Which chain it is: another one may take its place while a batch waits.
    number: u64,
    seats: Vec<Seat>,
    on_error: OnError,
}

/// A batch on its way through a chain.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) work: Work,
    /// The chain that is at it; 0: none has been.
    chain: u64,
    /// The filter that is at it.
    seat: usize,
    /// Packets that this filter is done with.
    done: usize,
    /// What the filters sent so far.
    sent: Vec<Sent>,
    counts: Counts,
}

/// What became of the packets that are no longer in the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Dropped by a verdict.
    pub(super) dropped: u64,
    /// Dropped because a filter failed.
    pub(super) failed: u64,
    /// Kept from the route.
    pub(super) skipped: u64,
}

/// A batch that has been through a chain.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// For the route.
    pub(super) work: Work,
    pub(super) sent: Vec<Sent>,
    pub(super) counts: Counts,
}

/// How far a batch came.
#[derive(Debug)]
pub(super) enum Ran {
    /// Through the chain.
    Through(Done),
    /// A filter missed the short deadline: the rest is to be done in the slow lane.
    TooSlow(Run),
}

impl Run {
    /// A batch that no filter has seen.
    pub(super) fn new(work: Work) -> Self {
        Self { work, ..Self::default() }
    }

    /// Packets that are still in it.
    pub(super) fn len(&self) -> usize {
        self.work.len()
    }

    /// Removes the packets that are gone, all of which the filter at hand is done with.
    fn sweep(&mut self) {
        let done = self.work.marks.get(..self.done).unwrap_or_default();
        self.done = done.iter().filter(|mark| !mark.gone).count();
        self.work.sweep();
    }

    /// The packets of the next call, from `done` on, and where the ones after it begin.
    fn next_call(&self, wanted: Option<&Wanted>) -> (Part, usize) {
        let rest = self.work.packets.get(self.done..).unwrap_or_default();
        let (mut octets, mut calls, mut end, mut picked) = (0, 0, self.done, Vec::new());
        for received in rest {
            if wanted.is_none_or(|wanted| wanted.wants(&received.packet)) {
                octets += received.packet.octets().len();
                if calls == CALL_PACKETS_MAX || (calls > 0 && octets > CALL_OCTETS_MAX) {
                    break;
                }
                calls += 1;
                if wanted.is_some() {
                    picked.push(end);
                }
            }
            end += 1;
        }
        let part = if wanted.is_some() { Part::picked(picked) } else { Part::run(self.done, calls) };
        (part, end)
    }
}

impl Chain {
    /// These filters in this order.
    #[must_use]
    pub fn new(seats: Vec<Seat>, on_error: OnError) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { number, seats, on_error }
    }

    /// A batch that another chain was at begins anew: its place among other filters says nothing here, and to see a packet
    /// twice does less harm than a filter that hides something and never sees it.
    const fn adopt(&self, run: &mut Run) {
        if run.chain != self.number {
            run.chain = self.number;
            run.seat = 0;
            run.done = 0;
        }
    }

    /// No filter at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Vec::new(), OnError::Pass)
    }

    /// Whether there is no filter in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Takes a batch through the filters, as far as it comes. `may_move`: a missed deadline ends the run here.
    pub(super) fn run(&mut self, mut run: Run, lane: Lane, may_move: bool, tally: &mut Tally) -> Ran {
        self.adopt(&mut run);
        if self.seats.is_empty() {
            return Ran::Through(self.finish(run));
        }
        let at = Moment::here(lane, may_move);
        while run.seat < self.seats.len() {
            while run.done < run.work.len() {
                if !self.call(&mut run, at, tally) {
                    return Ran::TooSlow(run);
                }
            }
            run.seat += 1;
            run.done = 0;
        }
        Ran::Through(self.finish(run))
    }

    /// Calls the `on-tick` of one filter. `may_move`: a missed deadline is to move the chain.
    ///
    /// # Errors
    /// The fault of the call.
    pub(super) fn tick(
        &mut self,
        seat: usize,
        lane: Lane,
        may_move: bool,
        tally: &mut Tally,
    ) -> Result<Vec<Sent>, Fault> {
        let at = Moment::here(lane, may_move);
        let Some(seat) = self.seats.get_mut(seat) else { return Ok(Vec::new()) };
        let result = seat.on_tick(at, tally);
        match result {
            Ok(outcome) => {
                tally.push((seat.id(), SeatCount::Sent, wide(outcome.sent.len())));
                Ok(outcome.sent)
            }
            Err(NoOutcome::Failed(fault) | NoOutcome::NotStarted(fault)) => {
                seat.strike(&fault, Vec::new(), at, tally);
                Err(fault)
            }
            Err(NoOutcome::Waiting | NoOutcome::Quarantined) => Ok(Vec::new()),
        }
    }

    /// The next packets make new instances: nobody knows what state those are in that we panicked over.
    pub(super) fn discard_instances(&mut self) {
        self.seats.iter_mut().for_each(Seat::discard_instance);
    }

    /// The longest call since this was last asked.
    pub(super) fn take_longest_call(&mut self) -> Duration {
        self.seats.iter_mut().map(Seat::take_longest_call).max().unwrap_or_default()
    }

    /// The shortest of the filters' short deadlines.
    pub(super) fn fast_deadline(&self) -> Duration {
        self.seats.iter().map(Seat::fast_deadline).min().unwrap_or(Duration::MAX)
    }

    /// One call for the packets from `run.done` on that the filter wants, and more of them if it traps: they are called
    /// again in halves until the one that traps stands alone. `false`: it missed the short deadline.
    fn call(&mut self, run: &mut Run, at: Moment, tally: &mut Tally) -> bool {
        let Some(seat) = self.seats.get_mut(run.seat) else { return true };
        let (part, end) = run.next_call(seat.wanted().as_deref());
        let mut next = Some(part).filter(|part| !part.is_empty());
        let mut pending = Vec::new();
        let mut restarts = RESTARTS_MAX;
        while let Some(part) = next.take().or_else(|| pending.pop()) {
            let result = seat.on_batch(&mut run.work, &part, at, tally);
            match result {
                Ok(outcome) => take_outcome(run, seat, &part, outcome, at, tally),
                Err(NoOutcome::Failed(fault) | NoOutcome::NotStarted(fault))
                    if at.may_move && fault.kind == FaultKind::Deadline =>
                {
                    tally.push((seat.id(), SeatCount::MovedToSlowLane, 1));
                    seat.forgive_start();
                    // What stands between the packets of this call was not wanted anyway.
                    run.done = part.place(0).unwrap_or(run.done);
                    run.sweep();
                    return false;
                }
                Err(NoOutcome::Failed(fault)) if part.len() > 1 && restarts > 0 && is_worth_halving(fault.kind) => {
                    restarts -= 1;
                    let [left, right] = part.halves();
                    pending.extend([right, left]);
                }
                Err(failure) => take_failure(run, seat, &part, &failure, at, tally),
            }
        }
        run.done = end;
        run.sweep();
        true
    }

    /// The last call of every instance. What they send.
    pub(super) fn last_calls(&mut self, lane: Lane, tally: &mut Tally) -> Vec<Sent> {
        let at = Moment::here(lane, false);
        self.seats.iter_mut().flat_map(|seat| seat.last_call(at, tally)).collect()
    }

    /// What the chain as a whole says of each packet.
    fn finish(&self, mut run: Run) -> Done {
        let undecided = self.seats.iter().filter(|seat| seat.on_error().is_none()).count();
        let all_failed = |failures: u32| undecided > 0 && usize::try_from(failures).unwrap_or(usize::MAX) >= undecided;
        for mark in &mut run.work.marks {
            if self.on_error == OnError::Drop && all_failed(mark.failures) {
                mark.gone = true;
                run.counts.failed += 1;
            } else if mark.skipped {
                run.counts.skipped += 1;
            }
        }
        run.work.keep(|mark| !mark.gone && !mark.skipped);
        Done { work: run.work, sent: run.sent, counts: run.counts }
    }
}

/// A trap is the fault of a packet, and the others need not suffer for it. Time is not: to try again would cost the
/// deadline each time.
const fn is_worth_halving(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Trap | FaultKind::Limit | FaultKind::BadResult | FaultKind::HostPanic)
}

fn take_outcome(run: &mut Run, seat: &mut Seat, part: &Part, outcome: Outcome, at: Moment, tally: &mut Tally) {
    let (mut skipped, mut dropped) = (0, 0);
    for (place, verdict) in part.places().zip(&outcome.verdicts) {
        let Some(mark) = run.work.marks.get_mut(place) else { continue };
        match verdict {
            Verdict::Pass => {}
            Verdict::Skip => {
                mark.skipped = true;
                skipped += 1;
            }
            Verdict::Drop => {
                mark.gone = true;
                dropped += 1;
            }
        }
    }
    run.counts.dropped += dropped;
    let packets = wide(part.len());
    let counts = [
        (seat.id(), SeatCount::Packets, packets),
        (seat.id(), SeatCount::Passed, packets - skipped - dropped),
        (seat.id(), SeatCount::Skipped, skipped),
        (seat.id(), SeatCount::Dropped, dropped),
        (seat.id(), SeatCount::Edited, wide(outcome.edited)),
        (seat.id(), SeatCount::Sent, wide(outcome.sent.len())),
    ];
    tally.extend(counts.into_iter().filter(|(_, _, n)| *n > 0));
    run.sent.extend(outcome.sent);
    seat.count_drops(packets, dropped, at.now, tally);
}

fn take_failure(run: &mut Run, seat: &mut Seat, part: &Part, failure: &NoOutcome, at: Moment, tally: &mut Tally) {
    for place in part.places() {
        let Some(mark) = run.work.marks.get_mut(place) else { continue };
        match seat.on_error() {
            Some(OnError::Pass) => {}
            Some(OnError::Drop) => {
                mark.gone = true;
                run.counts.failed += 1;
            }
            None => mark.failures += 1,
        }
    }
    tally.push((seat.id(), SeatCount::Failed, wide(part.len())));
    if let NoOutcome::Failed(fault) | NoOutcome::NotStarted(fault) = failure {
        let packets = part.places().filter_map(|place| run.work.packets.get(place).cloned()).collect();
        seat.strike(fault, packets, at, tally);
    }
}

pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_another_chain_was_at_begins_anew_and_one_of_its_own_goes_on() {
        let (old, new) = (Chain::empty(), Chain::empty());
        let mut run = Run::new(Work::default());
        old.adopt(&mut run);
        (run.seat, run.done) = (1, 5);
        old.adopt(&mut run);
        assert_eq!((run.seat, run.done), (1, 5));
        new.adopt(&mut run);
        assert_eq!((run.seat, run.done), (0, 0));
    }
}
