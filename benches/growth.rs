//! How the cost of a packet grows: with filters, tenants, rules, connections, payload and workers.
//!
//! As `path` measures: the gateway is a process of its own, agent and collector are in this one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;
#[path = "common/guests.rs"]
mod guests;
mod load;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod support;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};

use common::{is_quick, median};
use load::packets::Packets;
use load::process::{Carrier, Setup};
use load::run::{Load, Run, run};
use load::traffic::{Flows, Transport};
use support::guest;

/// CPU time per packet by the number of filters, tenants, rules, connections, octets and workers.
#[derive(Parser, Debug)]
#[command(name = "growth")]
struct Options {
    /// Only this table; may be said more than once.
    #[arg(long, value_parser = ["filters", "tenants", "rules", "connections", "payload", "workers"])]
    table: Vec<String>,
    /// Rounds, of which the medians are taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each run takes, about.
    #[arg(long, default_value_t = 2)]
    seconds: usize,
    /// Writes the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds altogether, small numbers, and no figure worth reading.
    #[arg(long)]
    quick: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What grows.
struct Table {
    name: &'static str,
    what: &'static str,
    from: Transport,
    to: Transport,
    /// Packets per second when it is calm.
    rate: usize,
    points: Vec<Point>,
}

/// A row of it.
struct Point {
    name: String,
    carrier: Carrier,
    packets: Arc<Packets>,
    /// When it is calm, and at overload.
    flows: [Flows; 2],
}

impl Point {
    const fn has_one_tenant(&self) -> bool {
        matches!(self.carrier, Carrier::Floor | Carrier::Gateway(Setup { tenants: 1, has_rest: false, .. }))
    }
}

/// Packets sent for each second at overload, and no more octets than that.
const OVERLOAD_PACKETS: usize = 200_000;
const OVERLOAD_OCTETS: usize = 1 << 30;
/// Agents that take turns where rules are looked up, so that no packet is like the one before.
const AGENTS: usize = 1_000;

fn main() {
    if load::is_relay() {
        return;
    }
    let options = Options::parse();
    let open_files = load::raise_open_files();
    let (rounds, seconds) = if is_quick() { (1, 1) } else { (options.rounds.max(1), options.seconds.max(1)) };
    println!("growth: medians of {rounds} rounds{}", if is_quick() { " (quick: no figures)" } else { "" });
    let mut results = Vec::new();
    for mut table in [filters(), tenants(), rules(), connections(), payload(), workers()] {
        if !options.table.is_empty() && !options.table.iter().any(|name| name == table.name) {
            continue;
        }
        // Each connection takes a descriptor here and one there.
        let enough = |point: &Point| point.flows[0].count as u64 + 500 < open_files;
        for point in table.points.extract_if(.., |point| !enough(point)) {
            println!("{}: left out, as the system lets us have {open_files} open files: {}", table.name, point.name);
        }
        results.push(measure(&table, rounds, seconds));
    }
    if let Some(file) = &options.json {
        let results = json!({ "bench": "growth", "rounds": rounds, "tables": results });
        std::fs::write(file, serde_json::to_string_pretty(&results).unwrap() + "\n").unwrap();
    }
}

/// Runs all rows in turn, round by round, and prints them beside the first one.
fn measure(table: &Table, rounds: usize, seconds: usize) -> Value {
    println!("{}: {}, {} to {}", table.name, table.what, table.from.as_str(), table.to.as_str());
    println!(
        "  {:<34} {:>12} {:>8}  {:>12} {:>8}  {:>10}  {:>8}",
        "",
        format!("{}/s", table.rate),
        "x first",
        "overload",
        "x first",
        "arrived/s",
        "memory"
    );
    let mut calm: Vec<Vec<Run>> = table.points.iter().map(|_| Vec::new()).collect();
    let mut many = calm.clone();
    for _ in 0..rounds {
        for (at, point) in table.points.iter().enumerate() {
            let load = |rate: Option<usize>| {
                let longest = point.packets.templates.iter().map(bytes::Bytes::len).max().unwrap();
                let most = (OVERLOAD_PACKETS * seconds).min(OVERLOAD_OCTETS * seconds / longest);
                let (quick, full) = rate.map_or((500, most), |rate| (rate / 20, rate * seconds));
                let count = if is_quick() { quick } else { full };
                let flows = point.flows[usize::from(rate.is_none())];
                let (packets, to) = (Arc::clone(&point.packets), Some(table.to));
                let run = run(point.carrier, &Load { packets, flows, from: table.from, to, rate, count });
                if is_quick() {
                    let lost = (run.duplicates, run.within(), run.unfiltered);
                    assert_eq!(lost, (0, 0, 0), "{}: {}", table.name, point.name);
                    // Packets of one tenant may overtake those of another whose chain is in the slow lane.
                    assert!(run.late == 0 || !point.has_one_tenant(), "{}: {}", table.name, point.name);
                    assert!(run.arrived > 0 && run.micros > 0.0, "{}: {}", table.name, point.name);
                }
                run
            };
            calm[at].push(load(Some(if is_quick() { table.rate / 5 } else { table.rate })));
            many[at].push(load(None));
        }
    }
    let rows = table.points.iter().zip(calm.iter().zip(&many)).map(|(point, (calm_runs, many_runs))| {
        let middle = |runs: &[Run]| median(runs.iter().map(|run| run.micros).collect());
        let ratio = |runs: &[Run], first: &[Run]| {
            median(runs.iter().zip(first).map(|(run, first)| run.micros / first.micros).collect())
        };
        let both = || calm_runs.iter().chain(many_runs);
        let arrived = median(many_runs.iter().map(|run| run.arrived_rate).collect());
        let peak_octets = both().map(|run| run.peak_octets).max().unwrap();
        let within: isize = both().map(Run::within).sum();
        let all: Vec<Run> = both().cloned().collect();
        let told = Run::told(&all);
        let (calm_ratio, many_ratio) = (ratio(calm_runs, &calm[0]), ratio(many_runs, &many[0]));
        println!(
            "  {:<34} {:>9.2} µs {calm_ratio:>8.2}  {:>9.2} µs {many_ratio:>8.2}  {arrived:>10.0}  {:>4} MiB  {}",
            point.name,
            middle(calm_runs),
            middle(many_runs),
            peak_octets.div_ceil(1 << 20),
            told.as_deref().unwrap_or_default(),
        );
        json!({
            "row": point.name, "calm_micros_per_packet": middle(calm_runs), "calm_times_first": calm_ratio,
            "overload_micros_per_packet": middle(many_runs), "overload_times_first": many_ratio,
            "arrived_packets_per_second": arrived, "peak_memory_octets": peak_octets, "lost_within": within,
            "told": told,
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({ "table": table.name, "calm_packets_per_second": table.rate, "rows": rows })
}

/// A row of the packet that everything is measured with.
fn point(name: String, setup: Setup, packets: &Arc<Packets>) -> Point {
    Point { name, carrier: Carrier::Gateway(setup), packets: Arc::clone(packets), flows: [Flows::ONE; 2] }
}

/// Numbers that grow; in a quick run only the first and a small one.
fn growing(all: &[usize], quick: usize) -> Vec<usize> {
    if is_quick() { vec![all[0], quick] } else { all.to_vec() }
}

fn filters() -> Table {
    let packets = Arc::new(Packets::invite());
    let points = growing(&[0, 1, 4, 8], 4).into_iter();
    let points = points.map(|n| point(format!("{n} filters"), Setup { filters: n, ..Setup::PLAIN }, &packets));
    let what = "trivial filters in one chain, each an instance of its own";
    Table { name: "filters", what, from: Transport::Udp, to: Transport::Udp, rate: 20_000, points: points.collect() }
}

fn tenants() -> Table {
    let packets = Arc::new(Packets::of_agents(0..u32::try_from(AGENTS).unwrap()));
    let numbers = growing(&[1, 100, 1_000], 100);
    let all = [0, 1].into_iter().flat_map(|filters| numbers.iter().map(move |tenants| (filters, *tenants)));
    let points = all.map(|(filters, tenants)| {
        let setup = Setup { filters, tenants, rules_each: AGENTS / tenants, ..Setup::PLAIN };
        let chain = if filters == 0 { "no filter" } else { "a filter each" };
        point(format!("{tenants} tenants, {chain}"), setup, &packets)
    });
    let what = "1000 rules altogether, packets of 1000 agents in turn: a batch is of as many tenants as there are";
    Table { name: "tenants", what, from: Transport::Udp, to: Transport::Udp, rate: 20_000, points: points.collect() }
}

fn rules() -> Table {
    let points = growing(&[1, 10, 100, 1_000, 10_000], 1_000).into_iter().map(|rules| {
        // Spread over all rules; where there are fewer rules than agents, most packets are the last tenant's.
        let agents = (0..AGENTS).map(|n| u32::try_from(n * (rules / AGENTS).max(1)).unwrap());
        let setup = Setup { rules_each: rules, has_rest: true, ..Setup::PLAIN };
        point(format!("{rules} rules"), setup, &Arc::new(Packets::of_agents(agents)))
    });
    let what = "one tenant's rules by agent id, and a tenant for the rest; packets of 1000 agents in turn";
    Table { name: "rules", what, from: Transport::Udp, to: Transport::Udp, rate: 20_000, points: points.collect() }
}

fn connections() -> Table {
    let packets = Arc::new(Packets::invite());
    let points = growing(&[1, 100, 10_000], 100).into_iter().map(|count| {
        // One packet from each in turn; at overload 16, as agents do that have many to send.
        let flows = [Flows { count, in_a_row: 1 }, Flows { count, in_a_row: 16 }];
        Point { flows, ..point(format!("{count} connections"), Setup::PLAIN, &packets) }
    });
    let what = "one packet from each connection in turn; at overload 16 in a write";
    Table {
        name: "connections",
        what,
        from: Transport::Tcp,
        to: Transport::Tcp,
        rate: 20_000,
        points: points.collect(),
    }
}

fn payload() -> Table {
    let sizes = growing(&[200, 600, 1_400, 2_500, 6_000, 20_000, 60_000], 60_000);
    let points = sizes.into_iter().flat_map(|octets| {
        let packets = Arc::new(Packets::of_payload(octets));
        let setup = Setup { filters: 1, ..Setup::PLAIN };
        let gateway = [Setup::PLAIN, setup].map(|setup| {
            let chain = if setup.filters == 0 { "no filter" } else { "a filter" };
            point(format!("{octets} octets, hepgate, {chain}"), setup, &packets)
        });
        let floor = Point { carrier: Carrier::Floor, ..point(format!("{octets} octets, floor"), setup, &packets) };
        std::iter::once(floor).chain(gateway)
    });
    let what = "octets of payload, beside a bare relay";
    Table { name: "payload", what, from: Transport::Udp, to: Transport::Udp, rate: 2_000, points: points.collect() }
}

fn workers() -> Table {
    let packets = Arc::new(Packets::invite());
    let numbers = [(0, 1), (0, 2), (1, 1), (1, 2)].into_iter();
    let points = numbers.map(|(filters, workers)| {
        let setup = Setup { filters, workers, ..Setup::PLAIN };
        let chain = if filters == 0 { "no filter" } else { "a filter" };
        // The system gives each agent to one worker.
        let flows = [Flows { count: 16, in_a_row: 1 }, Flows { count: 16, in_a_row: 16 }];
        Point { flows, ..point(format!("{workers} workers, {chain}"), setup, &packets) }
    });
    let what = "16 agents; agents, workers and collector share the machine's processors";
    Table { name: "workers", what, from: Transport::Udp, to: Transport::Udp, rate: 20_000, points: points.collect() }
}
