//! One store running a filter, for life: it is made, called, and thrown away after any failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{Resource, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use super::belongings::Surroundings;
use super::bindings::{self, exports::hep::filter::callbacks};
use super::component::Filter;
use super::deadline::{Budget, Deadline, Now};
use super::fault::{Fault, TEXT_OCTETS_MAX, clean};
use super::peaks::Peaks;
use super::state::{Call, LogLine, State};
use super::subscription::Wanted;
use super::ticker::Ticker;
use super::work::{Part, Work};
use crate::config::CollectorId;
use crate::ledger::FaultKind;
use crate::message::Received;

/// What a filter says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the next filter, and to the route.
    Pass,
    /// On to the next filter, but not to the route.
    Skip,
    /// Nobody sees it any more.
    Drop,
}

/// A packet that a filter sends or relays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Where to.
    pub to: CollectorId,
    /// What.
    pub packet: Received,
}

/// What a call did. The edits stand in the packets already.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// One for each packet, or none at all: all pass.
    pub verdicts: Vec<Verdict>,
    /// Packets that it changed.
    pub edited: usize,
    /// What it sends.
    pub sent: Vec<Sent>,
    /// Changes of what it remembers that found no room after all, as other instances had used it meanwhile.
    pub state_lost: u64,
}

/// One store running a filter.
pub struct Instance {
    store: Store<State>,
    filter: Arc<Filter>,
    exports: bindings::Filter,
    tick: Option<TypedFunc<(), ()>>,
    stop: Option<TypedFunc<(), ()>>,
    /// What it sees; `None`: all.
    wanted: Option<Arc<Wanted>>,
    memory_octets_at_start: usize,
    /// What the last call could execute, if instructions are counted.
    fuel: u64,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("filter", &self.filter.name()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Makes a store and an instance in it, and runs its `init`; all within `budget`.
    ///
    /// `log` takes the lines that `init` writes, also if it fails.
    ///
    /// # Errors
    /// [`Fault`]: there is no instance.
    pub(super) fn start(
        filter: &Arc<Filter>,
        surroundings: Surroundings,
        budget: Budget,
        now: Now,
        log: &mut Vec<LogLine>,
    ) -> Result<Self, Fault> {
        let mut store = Store::new(&filter.host().engine, filter.new_state(surroundings));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(filter.limits().hostcall_octets_max);
        store.set_max_component_handles(filter.limits().handles_max);
        store.epoch_deadline_callback(|mut store| Ok(go_on_or_end(store.data_mut())));
        store.data_mut().call.begin(now, false);
        set_deadline(&mut store, budget)?;
        let fuel = set_fuel(&mut store, filter, 1)?;
        let started = guarded(budget, || {
            let instance = filter.prepared().instance_pre().instantiate(&mut store)?;
            let exports = bindings::Filter::new(&mut store, &instance)?;
            let tick = filter.tick_export().map(|index| instance.get_typed_func(&mut store, index)).transpose()?;
            let stop = filter.stop_export().map(|index| instance.get_typed_func(&mut store, index)).transpose()?;
            let init = exports.hep_filter_callbacks().call_init(&mut store)?;
            Ok((exports, tick, stop, init))
        });
        log.append(&mut store.data_mut().call.log);
        let started = started.map_err(|fault| with_refused_growth(fault, &mut store));
        let (exports, tick, stop, init) = started?;
        init.map_err(|text| Fault::new(FaultKind::Init, format!("init: {}", clean(&text, TEXT_OCTETS_MAX))))?;
        let memory_octets_at_start = store.data().memory.octets();
        let state = store.data_mut();
        state.commit();
        let wanted = filter.set_wanted(state.subscribing.take().unwrap_or_default());
        let wanted = Some(wanted).filter(|wanted| !wanted.is_all());
        Ok(Self { store, filter: Arc::clone(filter), exports, tick, stop, wanted, memory_octets_at_start, fuel })
    }

    /// What it sees; `None`: all packets.
    #[must_use]
    pub const fn wanted(&self) -> Option<&Arc<Wanted>> {
        self.wanted.as_ref()
    }

    /// Calls `on-batch` with a part of the packets. They are edited in place if the call ends well, and untouched if it
    /// fails. Marks are read and not written.
    ///
    /// # Errors
    /// [`Fault`]: the instance must be thrown away.
    pub fn on_batch(
        &mut self,
        work: &mut Work,
        part: &Part,
        budget: Budget,
        now: impl Into<Now>,
    ) -> Result<Outcome, Fault> {
        let number = self.store.data_mut().call.begin(now.into(), true);
        set_deadline(&mut self.store, budget)?;
        self.fuel = set_fuel(&mut self.store, &self.filter, part.len())?;
        let call = &mut self.store.data_mut().call;
        (call.work, call.part) = (std::mem::take(work), part.clone());
        let result = guarded(budget, || {
            let batch = Resource::new_borrow(number);
            self.exports.hep_filter_callbacks().call_on_batch(&mut self.store, batch)
        });
        let call = &mut self.store.data_mut().call;
        *work = std::mem::take(&mut call.work);
        call.part = Part::default();
        let verdicts = result.and_then(|verdicts| checked(verdicts, part.len()));
        let verdicts = verdicts.map_err(|fault| with_refused_growth(fault, &mut self.store))?;
        let state = self.store.data_mut();
        let state_lost = state.commit();
        let edited = commit(&mut state.call, work, part);
        Ok(Outcome { verdicts, edited, sent: std::mem::take(&mut state.call.sent), state_lost })
    }

    /// Calls `on-tick`, if the filter has it.
    ///
    /// # Errors
    /// [`Fault`]: the instance must be thrown away.
    pub fn on_tick(&mut self, budget: Budget, now: impl Into<Now>) -> Result<Outcome, Fault> {
        self.without_packets(self.tick, budget, now.into())
    }

    /// Calls `on-stop`, if the filter has it: the instance's last call.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn on_stop(&mut self, budget: Budget, now: impl Into<Now>) -> Result<Outcome, Fault> {
        self.without_packets(self.stop, budget, now.into())
    }

    fn without_packets(
        &mut self,
        function: Option<TypedFunc<(), ()>>,
        budget: Budget,
        now: Now,
    ) -> Result<Outcome, Fault> {
        let Some(function) = function else { return Ok(Outcome::default()) };
        self.store.data_mut().call.begin(now, true);
        set_deadline(&mut self.store, budget)?;
        self.fuel = set_fuel(&mut self.store, &self.filter, 1)?;
        guarded(budget, || function.call(&mut self.store, ()))
            .map_err(|fault| with_refused_growth(fault, &mut self.store))?;
        let state = self.store.data_mut();
        let state_lost = state.commit();
        Ok(Outcome { sent: std::mem::take(&mut state.call.sent), state_lost, ..Outcome::default() })
    }

    /// The lines that the last call wrote, and how many it wrote beyond its limit. They are there if it failed, too.
    pub fn take_log(&mut self) -> (Vec<LogLine>, u64) {
        let call = &mut self.store.data_mut().call;
        (std::mem::take(&mut call.log), std::mem::take(&mut call.log_unwritten))
    }

    /// What the last call has used of what calls may, and the instance of what instances may.
    pub fn raise(&self, peaks: &Peaks) {
        let state = self.store.data();
        for (limit, used) in state.used() {
            peaks.raise(limit, used);
        }
    }

    /// Instructions that the last call executed, as the engine counts them; 0 if they are not counted.
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.store.get_fuel().map_or(0, |left| self.fuel.saturating_sub(left))
    }

    /// Octets of all its memories when `init` had ended.
    #[must_use]
    pub const fn memory_octets_at_start(&self) -> usize {
        self.memory_octets_at_start
    }

    /// Octets of all its memories.
    #[must_use]
    pub fn memory_octets(&self) -> usize {
        self.store.data().memory.octets()
    }
}

/// Sets the deadline of what comes next and sees to it that the ticker keeps it.
fn set_deadline(store: &mut Store<State>, budget: Budget) -> Result<(), Fault> {
    let ticks = Ticker::ticks(budget.time());
    store.set_epoch_deadline(ticks);
    let state = store.data_mut();
    let now = Instant::now();
    state.call.deadline = Some(Deadline::begin(budget, now));
    if state.ticker.cover(ticks, now) {
        return Ok(());
    }
    Err(Fault::new(FaultKind::TickerLate, "the thread that ends overlong calls is late, so no guest may run"))
}

/// Sets how many instructions what comes next may execute, if they are counted, and gives their number.
fn set_fuel(store: &mut Store<State>, filter: &Filter, packets: usize) -> Result<u64, Fault> {
    if !filter.host().counts_fuel() {
        return Ok(0);
    }
    let fuel = match filter.limits().fuel_per_packet_max {
        0 => u64::MAX,
        each => each.saturating_mul(u64::try_from(packets).unwrap_or(u64::MAX)),
    };
    store.set_fuel(fuel).map_err(|error| Fault::new(FaultKind::HostPanic, format!("{error:#}")))?;
    Ok(fuel)
}

/// The epoch has passed the deadline's ticks. They are of time on the wall: whether the call's own time is over as
/// well is asked here.
fn go_on_or_end(state: &mut State) -> UpdateDeadline {
    let left = state.call.left().unwrap_or_default();
    let ticks = Ticker::ticks(left);
    if left.is_zero() || !state.ticker.cover(ticks, Instant::now()) {
        return UpdateDeadline::Interrupt;
    }
    UpdateDeadline::Continue(ticks)
}

/// Runs guest code. A panic of the host in it, which many advisories of wasmtime are about, ends this instance and not
/// the thread.
fn guarded<T>(budget: Budget, run: impl FnOnce() -> wasmtime::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| Fault::of(&error, budget.time())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Err(Fault::new(FaultKind::HostPanic, format!("the host panicked in the call: {text}")))
        }
    }
}

/// A guest that gets no memory traps a moment later: the limit is the reason to show.
fn with_refused_growth(fault: Fault, store: &mut Store<State>) -> Fault {
    match store.data_mut().memory.refused.take() {
        Some(refused) if fault.kind == FaultKind::Trap => {
            Fault::new(FaultKind::Limit, format!("{refused}, then: {}", fault.text))
        }
        _ => fault,
    }
}

fn checked(verdicts: Vec<callbacks::Verdict>, len: usize) -> Result<Vec<Verdict>, Fault> {
    if !verdicts.is_empty() && verdicts.len() != len {
        let text = format!("{} verdicts for {len} packets", verdicts.len());
        return Err(Fault::new(FaultKind::BadResult, text));
    }
    let verdict = |verdict: callbacks::Verdict| match verdict {
        callbacks::Verdict::Pass => Verdict::Pass,
        callbacks::Verdict::Skip => Verdict::Skip,
        callbacks::Verdict::Drop => Verdict::Drop,
    };
    Ok(verdicts.into_iter().map(verdict).collect())
}

/// Puts the edited packets in their places and gives their number.
fn commit(call: &mut Call, work: &mut Work, part: &Part) -> usize {
    let mut edited = 0;
    for (place, draft) in part.places().zip(call.drafts.drain(..)) {
        let Some(draft) = draft else { continue };
        work.replace(place, draft.into_packet());
        edited += 1;
    }
    edited
}
