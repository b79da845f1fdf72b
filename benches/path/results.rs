//! What was measured, as text and as JSON.

use serde_json::{Value, json};

use crate::common::{as_f64, median};
use crate::load::run::Run;

/// One path with one carrier under one load: medians of the rounds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) carrier: &'static str,
    /// Packets per second; `None` at overload.
    pub(crate) rate: Option<usize>,
    pub(crate) micros: f64,
    pub(crate) user_micros: f64,
    pub(crate) system_micros: f64,
    /// The median of the ratios to the floor of the same round.
    pub(crate) ratio: f64,
    pub(crate) arrived_rate: f64,
    pub(crate) peak_octets: u64,
    sent: usize,
    before: usize,
    within: isize,
    behind: usize,
    duplicates: usize,
    late: usize,
    unfiltered: usize,
    told: Option<String>,
}

impl Row {
    pub(crate) fn new(path: &str, carrier: &'static str, rate: Option<usize>, runs: &[Run], floor: &[Run]) -> Self {
        let middle = |of: fn(&Run) -> f64| median(runs.iter().map(of).collect());
        let sum = |of: fn(&Run) -> usize| runs.iter().map(of).sum::<usize>();
        Self {
            path: path.to_owned(),
            carrier,
            rate,
            micros: middle(|run| run.micros),
            user_micros: middle(|run| run.user_micros),
            system_micros: middle(|run| run.system_micros),
            ratio: median(runs.iter().zip(floor).map(|(run, floor)| run.micros / floor.micros).collect()),
            arrived_rate: middle(|run| run.arrived_rate),
            peak_octets: runs.iter().map(|run| run.peak_octets).max().unwrap(),
            sent: sum(|run| run.sent),
            before: sum(|run| run.before),
            within: runs.iter().map(Run::within).sum(),
            behind: sum(|run| run.behind),
            duplicates: sum(|run| run.duplicates),
            late: sum(|run| run.late),
            unfiltered: sum(|run| run.unfiltered),
            told: Run::told(runs),
        }
    }

    pub(crate) fn load(&self) -> String {
        self.rate.map_or_else(|| "overload".to_owned(), |rate| format!("{rate}/s"))
    }

    pub(crate) fn print(&self) {
        let percent = |count: usize| as_f64(count as u128) * 100.0 / as_f64(self.sent as u128);
        println!(
            "  {:<9} {:<18} {:>6.2} µs (user {:>5.2}, system {:>5.2})  x floor {:>5.2}  {:>6} MiB  lost before {:.2} %, \
             within {}, behind {:.2} %; doubled {}, late {}",
            self.load(),
            self.carrier,
            self.micros,
            self.user_micros,
            self.system_micros,
            self.ratio,
            mib(self.peak_octets),
            percent(self.before),
            self.within,
            percent(self.behind),
            self.duplicates,
            self.late,
        );
        if let Some(told) = &self.told {
            println!("  {:<9} {told}", "");
        }
    }

    fn json(&self) -> Value {
        json!({
            "path": self.path, "carrier": self.carrier, "packets_per_second": self.rate,
            "cpu_micros_per_packet": self.micros, "user_micros_per_packet": self.user_micros,
            "system_micros_per_packet": self.system_micros, "times_floor": self.ratio,
            "arrived_packets_per_second": self.arrived_rate, "peak_memory_octets": self.peak_octets,
            "sent": self.sent, "lost_before": self.before, "lost_within": self.within, "lost_behind": self.behind,
            "duplicates": self.duplicates, "late": self.late, "unfiltered": self.unfiltered, "told": self.told,
        })
    }
}

/// How much goes through, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) path: String,
    pub(crate) carrier: &'static str,
    /// Packets per second.
    pub(crate) rate: usize,
    pub(crate) ended_by: &'static str,
    /// Microseconds that 50, 99 and 99.9 % of the packets took at most, at half the rate.
    pub(crate) took: [Option<f64>; 3],
    pub(crate) lost_at_half: usize,
}

impl Limit {
    pub(crate) fn print(&self) {
        let took = match self.took {
            [Some(p50), Some(p99), Some(p999)] => {
                format!("at half p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, lost {}", self.lost_at_half)
            }
            _ => String::new(),
        };
        println!("  highest   {:<18} {:>9} packets/s, ended by {:<24} {took}", self.carrier, self.rate, self.ended_by);
    }

    fn json(&self) -> Value {
        json!({
            "path": self.path, "carrier": self.carrier, "highest_packets_per_second": self.rate,
            "ended_by": self.ended_by, "at_half_micros_p50": self.took[0], "at_half_micros_p99": self.took[1],
            "at_half_micros_p999": self.took[2], "at_half_lost": self.lost_at_half,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Results {
    rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) limits: Vec<Limit>,
    each: Vec<Value>,
}

impl Results {
    pub(crate) const fn new(rounds: usize) -> Self {
        Self { rounds, rows: Vec::new(), limits: Vec::new(), each: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: &Row, runs: &[Run]) {
        let micros: Vec<f64> = runs.iter().map(|run| run.micros).collect();
        self.each.push(json!(micros));
        self.rows.push(row.clone());
    }

    pub(crate) fn add_limit(&mut self, limit: Limit) {
        self.limits.push(limit);
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().zip(&self.each).map(|(row, each)| {
            let mut value = row.json();
            value["cpu_micros_per_packet_by_round"] = each.clone();
            value
        });
        json!({
            "bench": "path",
            "version": env!("CARGO_PKG_VERSION"),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "machine": machine(),
            "rounds": self.rounds,
            "cpu": rows.collect::<Vec<_>>(),
            "limits": self.limits.iter().map(Limit::json).collect::<Vec<_>>(),
        })
    }
}

/// Processors and system, which figures mean nothing without.
fn machine() -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (processors, system) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({ "processors": count, "model": model.trim_matches([' ', '\t', ':']), "linux": system.trim() })
}

/// Mebioctets, rounded up.
pub(crate) const fn mib(octets: u64) -> u64 {
    octets.div_ceil(1 << 20)
}
