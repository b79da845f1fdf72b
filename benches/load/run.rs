//! One run: so many packets through one process, and what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packets::Packets;
use super::process::{Carrier, Process};
use super::traffic::{Agent, Collector, Flows, Seen, Stamps, Transport};
use crate::common::{as_f64, is_quick};
use crate::support::peers::kernel_drops;

/// One kind of traffic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Load {
    pub(crate) packets: Arc<Packets>,
    pub(crate) flows: Flows,
    pub(crate) from: Transport,
    /// `None`: to nobody; what comes is counted.
    pub(crate) to: Option<Transport>,
    /// Packets per second; `None`: as fast as the agent can.
    pub(crate) rate: Option<usize>,
    pub(crate) count: usize,
}

/// What one run showed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Run {
    /// Microseconds of CPU time for each packet that the process took in; outside and inside of the system.
    pub(crate) micros: f64,
    pub(crate) user_micros: f64,
    pub(crate) system_micros: f64,
    /// Packets per second that left the agent, and that came to the end.
    pub(crate) sent_rate: f64,
    pub(crate) arrived_rate: f64,
    /// From when the agent had sent the last packet to when the collector had it.
    pub(crate) lag: Duration,
    pub(crate) sent: usize,
    pub(crate) arrived: usize,
    pub(crate) duplicates: usize,
    pub(crate) late: usize,
    /// Lost in the socket buffer before the process, and in that of the collector behind it.
    pub(crate) before: usize,
    pub(crate) behind: usize,
    /// Packets that a filter of the chain should have answered and did not: then the figures are of something else.
    pub(crate) unfiltered: usize,
    /// Why the gateway dropped packets.
    pub(crate) drop_reasons: Vec<String>,
    /// Microseconds from the agent to the collector, in ascending order, without those of the warm-up.
    pub(crate) took: Vec<f64>,
    pub(crate) peak_octets: u64,
}

impl Run {
    /// Packets that the process itself lost.
    pub(crate) fn within(&self) -> isize {
        self.sent.cast_signed() - (self.arrived + self.before + self.behind).cast_signed()
    }

    /// Why packets were lost within or not answered, in all of these runs; nothing if none were.
    pub(crate) fn told(runs: &[Self]) -> Option<String> {
        let (within, unfiltered) =
            runs.iter().fold((0, 0), |(within, unfiltered), run| (within + run.within(), unfiltered + run.unfiltered));
        let mut reasons: Vec<&str> = runs.iter().flat_map(|run| &run.drop_reasons).map(String::as_str).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let reasons = reasons.join(", ");
        (within != 0 || unfiltered > 0 || !reasons.is_empty()).then(|| {
            format!("lost within {within} ({reasons}); {unfiltered} not answered by a filter: of something else")
        })
    }

    /// That so many of a thousand packets took no longer, in microseconds.
    pub(crate) fn permille(&self, permille: usize) -> Option<f64> {
        let last = self.took.len().checked_sub(1)?;
        Some(self.took[last * permille / 1_000])
    }
}

/// Packets before the clock: connections stand, instances are made, buffers have their size.
const WARM_UP_PACKETS: usize = 2_000;
const WARM_UP_RATE: usize = 4_000;
/// Many connections have a longer one, in so many seconds.
const WARM_UP_SECONDS_MAX: usize = 4;

pub(crate) fn run(carrier: Carrier, load: &Load) -> Run {
    // Every flow and every template at least once.
    let least = if is_quick() { 100 } else { WARM_UP_PACKETS };
    let warm_up = least.max(load.flows.count.saturating_mul(load.flows.in_a_row.min(BLOCK_MAX)));
    let warm_up = warm_up.max(load.packets.templates.len());
    let all = warm_up + load.count;
    let stamps = Stamps::new(all);
    let collector = load.to.map(|to| Collector::start(to, load.flows, Arc::clone(&load.packets), Arc::clone(&stamps)));
    let to = load.to.zip(collector.as_ref().map(|collector| collector.port));
    let mut process = Process::start(carrier, load.from, to, load.packets.slot_octets());
    let mut agent = Agent::new(load.from, process.port(), load.flows, Arc::clone(&load.packets), stamps);
    agent.send(warm_up, Some(WARM_UP_RATE.max(warm_up / WARM_UP_SECONDS_MAX)));
    if let Some(collector) = &collector {
        collector.await_arrived(warm_up, Duration::from_secs(20));
    }
    process.await_rest(load.from);
    let (drops_before, cpu_before) = (drops(load.from, process.port()), process.cpu());
    let begun = Instant::now();
    let sending = agent.send(load.count, load.rate);
    match &collector {
        // At overload over UDP not all come, so silence is the sign.
        Some(collector) => {
            let patience = if load.from == Transport::Udp { 500 } else { 5_000 };
            collector.await_arrived(all, Duration::from_millis(patience));
        }
        None => process.await_read(load.from),
    }
    let reading = begun.elapsed();
    if collector.is_none() {
        process.await_rest(load.from);
    }
    let cpu = process.cpu();
    let before = drops(load.from, process.port());
    let behind = match (load.to, &collector) {
        (Some(Transport::Udp), Some(collector)) => kernel_drops(collector.port),
        _ => 0,
    };
    let taken = as_f64((load.count - (before - drops_before)) as u128);
    let (arrived, duplicates, late, took, passing) = match collector.map(Collector::end) {
        Some(Seen { tally, took, last }) => {
            let took = in_order(took.get(warm_up..).unwrap_or_default());
            (tally.arrived, tally.duplicates, tally.late, took, last.saturating_duration_since(begun))
        }
        None => (counted(&mut process, carrier, load, all), 0, 0, Vec::new(), reading),
    };
    let peak_octets = process.peak_octets();
    let unfiltered = match carrier {
        Carrier::Gateway(setup) if setup.filters > 0 => (all - before) * setup.filters - process.filtered(),
        _ => 0,
    };
    let drop_reasons = process.drop_reasons();
    process.stop();
    let micros = as_f64((cpu.nanos - cpu_before.nanos).unsigned_abs().into()) / 1e3 / taken;
    let (user, system) = (cpu.user_ticks - cpu_before.user_ticks, cpu.system_ticks - cpu_before.system_ticks);
    let user_share = as_f64(user.into()) / as_f64((user + system).max(1).into());
    Run {
        micros,
        user_micros: micros * user_share,
        system_micros: micros * (1.0 - user_share),
        sent_rate: as_f64(load.count as u128) / sending.as_secs_f64(),
        arrived_rate: taken / passing.as_secs_f64().max(1e-9),
        lag: passing.saturating_sub(sending),
        sent: all,
        arrived,
        duplicates,
        late,
        before,
        behind,
        unfiltered,
        drop_reasons,
        took,
        peak_octets,
    }
}

/// Packets of one flow in a row that a warm-up goes through.
const BLOCK_MAX: usize = 64;

fn drops(from: Transport, port: u16) -> usize {
    if from == Transport::Udp { kernel_drops(port) } else { 0 }
}

/// Packets that the process counted.
fn counted(process: &mut Process, carrier: Carrier, load: &Load, all: usize) -> usize {
    let counted = process.counted();
    match (carrier, load.from) {
        // Octets, which must be those of all packets.
        (Carrier::Floor, Transport::Tcp) if counted == load.packets.octets(all) => all,
        (Carrier::Floor, Transport::Tcp) => counted * all / load.packets.octets(all),
        _ => counted,
    }
}

fn in_order(nanos: &[u64]) -> Vec<f64> {
    let mut micros: Vec<f64> =
        nanos.iter().filter(|nanos| **nanos > 0).map(|nanos| as_f64((*nanos).into()) / 1e3).collect();
    micros.sort_by(f64::total_cmp);
    micros
}
