//! What a store holds: the settings of its filter, the call at hand, and what it has used of its limits.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};

use super::belongings::Surroundings;
use super::deadline::{Deadline, Now};
use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};
use super::fault::{LimitPassed, Misuse, Refused};
use super::guest_metrics::Counted;
use super::instance::Sent;
use super::remembered::Changes;
use super::ticker::Ticker;
use super::work::{Part, Work};
use crate::config::{CollectorId, Limit, Limits, ProtoHep, Subscription};
use crate::message::{Backlog, Received};
use crate::wire::{Draft, Head, Packet, SipIndex};

/// A collector that a filter may open.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Which.
    pub id: CollectorId,
    /// By which name.
    pub name: String,
    /// Whether it keeps up.
    pub backlog: Arc<Backlog>,
}

/// How urgent a filter's log line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// A line that a filter wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// How urgent.
    pub level: LogLevel,
    /// Without control characters, and not longer than the limit.
    pub text: String,
}

/// The `batch` of a call. The number tells a handle of this call from one that was kept.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct BatchHandle;

/// A collector that the guest opened: its place among the grants.
#[derive(Clone, Copy, Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct OpenCollector(pub(super) usize);

/// Host calls between two looks at the clock, which costs as much as the cheapest of them.
const HOST_CALLS_PER_LOOK: u64 = 16;

/// What a store holds.
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) surroundings: Surroundings,
    /// What `init` has said so far; `None` when it is over.
    pub(super) subscribing: Option<Subscription>,
    /// How what the filter makes is packed.
    pub(super) proto_hep: Arc<ProtoHep>,
    /// Names of the listeners, for `sender`.
    pub(super) listeners: Arc<RwLock<Vec<String>>>,
    resources: ResourceTable,
    /// Handles in it, and the most that there were.
    handles: usize,
    handles_peak: usize,
    /// Whether the last call has changed what it remembers or counts.
    belongings_changed: bool,
    pub(super) memory: Memory,
    /// Raises the epoch; told when a deadline moves.
    pub(super) ticker: Arc<Ticker>,
    pub(super) call: Call,
}

/// The call at hand: what it works on, what it has done, what it has used.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Number of the call; the batch's handle carries it.
    pub(super) number: u32,
    /// When it began, by our clocks.
    pub(super) now: Now,
    /// The packets, and which of them the batch is.
    pub(super) work: Work,
    pub(super) part: Part,
    /// Edited packets by their index in the batch; empty as long as nothing was edited.
    pub(super) drafts: Vec<Option<Box<Draft>>>,
    /// `init` has no packets to answer for, and what it sent would be sent again with every restart.
    pub(super) may_send: bool,
    pub(super) sent: Vec<Sent>,
    pub(super) sent_octets: usize,
    /// How many of them there are, also when they were taken.
    pub(super) sends: usize,
    /// What it does to what the filter remembers, and to its metrics.
    pub(super) changes: Changes,
    pub(super) counted: Vec<(usize, Counted)>,
    pub(super) log: Vec<LogLine>,
    /// Lines of this call, also those that were not written.
    pub(super) log_lines: usize,
    pub(super) log_unwritten: u64,
    host_calls: u64,
    moved_octets: usize,
    /// When the call must end; `None` between calls.
    pub(super) deadline: Option<Deadline>,
}

/// A packet of the batch as it is now.
pub(super) enum View<'a> {
    AsReceived(&'a Packet),
    Edited(&'a Draft),
}

impl View<'_> {
    pub(super) fn head(&self) -> &Head {
        match self {
            Self::AsReceived(packet) => packet.head(),
            Self::Edited(draft) => draft.head(),
        }
    }

    /// As a filter reads it: inflated, if it came compressed and can be.
    pub(super) fn payload(&self) -> &[u8] {
        match self {
            Self::AsReceived(packet) => packet.readable_payload(),
            Self::Edited(draft) => draft.readable_payload(),
        }
    }

    /// Whether the payload is compressed, and stays so for a filter because it cannot be inflated.
    pub(super) fn is_unreadable(&self) -> bool {
        let inflated = match self {
            Self::AsReceived(packet) => packet.inflated(),
            Self::Edited(draft) => draft.inflated(),
        };
        matches!(inflated, Some(Err(_)))
    }

    pub(super) fn chunks(&self) -> crate::wire::Chunks<'_> {
        match self {
            Self::AsReceived(packet) => packet.chunks(),
            Self::Edited(draft) => draft.chunks(),
        }
    }

    /// The packet as it is now, for sending.
    pub(super) fn to_packet(&self) -> Packet {
        match self {
            Self::AsReceived(packet) => (*packet).clone(),
            Self::Edited(draft) => draft.to_packet(),
        }
    }
}

impl Call {
    /// Prepares for the next call and gives its number.
    pub(super) fn begin(&mut self, now: Now, may_send: bool) -> u32 {
        self.may_send = may_send;
        self.number = self.number.wrapping_add(1);
        self.now = now;
        self.host_calls = 0;
        self.moved_octets = 0;
        self.sent_octets = 0;
        self.sends = 0;
        self.log_lines = 0;
        self.number
    }

    pub(super) fn packet(&self, index: u32) -> Option<View<'_>> {
        self.view(usize::try_from(index).ok()?)
    }

    fn view(&self, index: usize) -> Option<View<'_>> {
        let place = self.part.place(index)?;
        if let Some(Some(draft)) = self.drafts.get(index) {
            return Some(View::Edited(draft));
        }
        self.work.packets.get(place).map(|received| View::AsReceived(&received.packet))
    }

    pub(super) fn received(&self, index: u32) -> Option<&Received> {
        self.work.packets.get(self.part.place(usize::try_from(index).ok()?)?)
    }

    /// All packets of the batch, with whether an earlier filter skipped them.
    pub(super) fn packets(&self) -> impl Iterator<Item = (View<'_>, bool)> {
        self.part.places().enumerate().filter_map(|(index, place)| {
            let skipped = self.work.marks.get(place)?.skipped;
            Some((self.view(index)?, skipped))
        })
    }

    /// A part of a packet's SIP: of one that this call has edited by a scan, of another one by its index, which all filters
    /// of the chain share.
    pub(super) fn sip(
        &mut self,
        index: u32,
        by_index: impl for<'a> FnOnce(&SipIndex, &'a [u8]) -> Option<&'a [u8]>,
        by_scan: impl for<'a> FnOnce(&'a [u8]) -> Option<&'a [u8]>,
    ) -> Option<Vec<u8>> {
        let index = usize::try_from(index).ok()?;
        if let Some(Some(draft)) = self.drafts.get(index) {
            return by_scan(draft.readable_payload()).map(<[u8]>::to_vec);
        }
        let (received, sip) = self.work.sip(self.part.place(index)?)?;
        by_index(sip, received.packet.readable_payload()).map(<[u8]>::to_vec)
    }

    /// The packet for editing.
    pub(super) fn draft(&mut self, index: u32) -> Option<&mut Draft> {
        let index = usize::try_from(index).ok()?;
        let packet = &self.work.packets.get(self.part.place(index)?)?.packet;
        if self.drafts.is_empty() {
            self.drafts.resize_with(self.part.len(), || None);
        }
        let draft = self.drafts.get_mut(index)?;
        Some(draft.get_or_insert_with(|| Box::new(Draft::new(packet))))
    }

    /// What is left of the call's time, with what a call is given whose time on the wall is over. `None` between calls.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let deadline = self.deadline?;
        let left = deadline.left();
        if !left.is_zero() {
            return Some(left);
        }
        let Some(extended) = deadline.extended() else { return Some(left) };
        self.deadline = Some(extended);
        Some(extended.left())
    }

    pub(super) fn check_time(&mut self) -> Result<(), Refused> {
        if self.left() == Some(Duration::ZERO) { Err(Refused::TooLate) } else { Ok(()) }
    }
}

impl State {
    /// A store with nothing in it.
    pub(super) fn new(
        limits: Limits,
        config: Arc<BTreeMap<String, String>>,
        surroundings: Surroundings,
        proto_hep: Arc<ProtoHep>,
        listeners: Arc<RwLock<Vec<String>>>,
        ticker: Arc<Ticker>,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(limits.handles_max);
        let memory = Memory::new(&limits);
        Self {
            limits,
            config,
            surroundings,
            subscribing: Some(Subscription::default()),
            proto_hep,
            listeners,
            resources,
            handles: 0,
            handles_peak: 0,
            belongings_changed: false,
            memory,
            ticker,
            call: Call::default(),
        }
    }

    /// What the call at hand has used of what calls may, and the instance of what instances may.
    pub(super) fn used(&self) -> [(Limit, u64); 11] {
        let (call, belongings) = (&self.call, &self.surroundings.belongings);
        // To ask costs a lock, and nothing has changed in most calls.
        let changed = self.belongings_changed;
        let (keys, octets) = if changed { belongings.remembered.used() } else { (0, 0) };
        let series = if changed { belongings.metrics.series() } else { 0 };
        [
            (Limit::MemoryOctets, wide(self.memory.octets)),
            (Limit::TableElements, wide(self.memory.elements)),
            (Limit::Handles, wide(self.handles_peak)),
            (Limit::HostCalls, call.host_calls),
            (Limit::MovedOctets, wide(call.moved_octets)),
            (Limit::Sends, wide(call.sends)),
            (Limit::SendOctets, wide(call.sent_octets)),
            (Limit::LogLines, wide(call.log_lines)),
            (Limit::StateKeys, wide(keys)),
            (Limit::StateOctets, wide(octets)),
            (Limit::MetricSeries, wide(series)),
        ]
    }

    /// Remembers and counts what a call said that returned well. Gives the number of changes that found no room.
    pub(super) fn commit(&mut self) -> u64 {
        let Self { call, surroundings, belongings_changed, .. } = self;
        *belongings_changed = !call.changes.is_empty() || !call.counted.is_empty();
        surroundings.belongings.metrics.apply(&mut call.counted);
        if call.changes.is_empty() {
            return 0;
        }
        surroundings.belongings.remembered.apply(&mut call.changes, call.now.wall.as_micros())
    }

    /// A handle for the guest.
    pub(super) fn push<T: Send + 'static>(&mut self, value: T) -> Result<Resource<T>, ResourceTableError> {
        let handle = self.resources.push(value)?;
        self.handles += 1;
        self.handles_peak = self.handles_peak.max(self.handles);
        Ok(handle)
    }

    /// What a handle stands for.
    pub(super) fn get<T: 'static>(&self, handle: &Resource<T>) -> Result<&T, ResourceTableError> {
        self.resources.get(handle)
    }

    /// The same, to be changed.
    pub(super) fn get_mut<T: 'static>(&mut self, handle: &Resource<T>) -> Result<&mut T, ResourceTableError> {
        self.resources.get_mut(handle)
    }

    /// The guest has dropped it.
    pub(super) fn delete<T: 'static>(&mut self, handle: Resource<T>) -> Result<T, ResourceTableError> {
        self.handles = self.handles.saturating_sub(1);
        self.resources.delete(handle)
    }

    /// Counts a host call that moves so many octets. Every host function begins with it.
    pub(super) fn charge(&mut self, octets: usize) -> Result<(), Refused> {
        let call = &mut self.call;
        call.host_calls += 1;
        if call.host_calls > self.limits.host_calls_max {
            let (actual, allowed) = (call.host_calls, self.limits.host_calls_max);
            return Err(LimitPassed { limit: "host_calls_max", actual, allowed }.into());
        }
        call.moved_octets = call.moved_octets.saturating_add(octets);
        if call.moved_octets > self.limits.moved_octets_max {
            let (actual, allowed) = (wide(call.moved_octets), wide(self.limits.moved_octets_max));
            return Err(LimitPassed { limit: "moved_octets_max", actual, allowed }.into());
        }
        // Between the ticks of the epoch a guest can make thousands of host calls, and a late ticker lets it make more.
        if call.host_calls.is_multiple_of(HOST_CALLS_PER_LOOK) { call.check_time() } else { Ok(()) }
    }

    /// Refuses a handle that outlived its call.
    pub(super) fn check_batch(&self, handle: &Resource<BatchHandle>) -> Result<(), Misuse> {
        if handle.rep() == self.call.number { Ok(()) } else { Err(Misuse::StaleBatch) }
    }
}

pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// What a store has of memories and tables. wasmtime's own limits are per memory; these are for all together.
#[derive(Debug)]
pub(super) struct Memory {
    octets: usize,
    octets_max: usize,
    elements: usize,
    elements_max: usize,
    /// A growth was refused since the last call began: what the guest does next is likely to trap.
    pub(super) refused: Option<LimitPassed>,
}

impl Memory {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            octets: 0,
            octets_max: limits.memory_octets_max,
            elements: 0,
            elements_max: limits.table_elements_max,
            refused: None,
        }
    }

    /// Octets of all memories.
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let octets = self.octets.saturating_add(desired.saturating_sub(current));
        if octets > self.octets_max {
            let (actual, allowed) = (wide(octets), wide(self.octets_max));
            self.refused = Some(LimitPassed { limit: "memory_octets_max", actual, allowed });
            return Ok(false);
        }
        self.octets = octets;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > self.elements_max {
            let (actual, allowed) = (wide(elements), wide(self.elements_max));
            self.refused = Some(LimitPassed { limit: "table_elements_max", actual, allowed });
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        usize::try_from(CORE_INSTANCES_MAX).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES_MAX).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES_MAX).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::deadline::Budget;
    use super::*;

    #[test]
    fn a_call_whose_time_on_the_wall_is_over_goes_on_until_it_has_computed_for_a_while() {
        let begun = Instant::now();
        let mut call = Call { deadline: Some(Deadline::begin(Budget::wall(Duration::ZERO), begun)), ..Call::default() };
        assert!(call.check_time().is_ok());
        while call.check_time().is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        assert!(begun.elapsed() >= Duration::from_millis(1));
        assert_eq!(call.left(), Some(Duration::ZERO));
        let mut computing =
            Call { deadline: Some(Deadline::begin(Budget::computing(Duration::ZERO), begun)), ..Call::default() };
        assert!(computing.check_time().is_err());
        assert!(Call::default().check_time().is_ok());
    }
}
