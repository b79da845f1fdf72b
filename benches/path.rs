//! The whole way of a packet: CPU time per packet of the gateway, with and without a filter, beside a bare relay that
//! does the same system calls and looks at nothing; how much goes through without loss, and how long it takes then.
//!
//! Agent and collector are in this process; the gateway and the relay are each a process of its own, whose CPU time the
//! system counts. Packets are numbered, so that what was lost, doubled or overtaken is seen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;
#[path = "common/guests.rs"]
mod guests;
mod load;
#[path = "path/plot.rs"]
mod plot;
#[path = "path/results.rs"]
mod results;
#[path = "path/search.rs"]
mod search;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod support;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use hepgate::wire::Version;

use common::is_quick;
use load::packets::Packets;
use load::process::{Carrier, Setup};
use load::run::{Load, Run, run};
use load::traffic::{Flows, Tally, Transport};
use results::{Results, Row};
use support::guest;

/// CPU time per packet, the highest rate without loss, latency at half of it, and memory: a bare relay, the gateway, and
/// the gateway with one filter, in turn.
#[derive(Parser, Debug)]
#[command(name = "path")]
struct Options {
    /// Only this path; may be said more than once.
    #[arg(long, value_name = "FROM-TO", value_parser = ["udp-count", "udp-udp", "udp-tcp", "tcp-count", "tcp-tcp"])]
    path: Vec<String>,
    /// Rounds, of which the medians are taken.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each run takes, about.
    #[arg(long, default_value_t = 2)]
    seconds: usize,
    /// Sizes from 200 to 1400 octets; HEP1, HEP2 and HEP3 where no stream is.
    #[arg(long)]
    mix: bool,
    /// Neither search for the highest rate nor measure latency.
    #[arg(long)]
    cpu_only: bool,
    /// Writes the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the results as a picture.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Seconds altogether, and no figure worth reading.
    #[arg(long)]
    quick: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured beside each other: name, and what it is.
const CARRIERS: [(&str, Carrier); 3] = [
    ("floor", Carrier::Floor),
    ("hepgate, no filter", Carrier::Gateway(Setup::PLAIN)),
    ("hepgate, a filter", Carrier::Gateway(Setup { filters: 1, ..Setup::PLAIN })),
];

/// Packets per second that nothing here has trouble with.
const CALM_RATE: usize = 20_000;
/// Packets sent for each second at overload: somewhat less than what agents here send in it.
const OVERLOAD_PACKETS: usize = 200_000;

fn main() {
    if load::is_relay() {
        return;
    }
    let options = Options::parse();
    check_tally();
    let rounds = if is_quick() { 1 } else { options.rounds.max(1) };
    let mut results = Results::new(rounds);
    println!("path: medians of {rounds} rounds{}", if is_quick() { " (quick: no figures)" } else { "" });
    for (from, to) in [("udp", "count"), ("udp", "udp"), ("udp", "tcp"), ("tcp", "count"), ("tcp", "tcp")] {
        let path = format!("{from}-{to}");
        if !options.path.is_empty() && !options.path.contains(&path) {
            continue;
        }
        let (from, to) = (Transport::parse(from), (to != "count").then(|| Transport::parse(to)));
        let is_stream = from == Transport::Tcp || to == Some(Transport::Tcp);
        let packets = Arc::new(match (options.mix, is_stream) {
            (false, _) => Packets::invite(),
            (true, false) => Packets::mix(&[Version::Hep1, Version::Hep2, Version::Hep3]),
            (true, true) => Packets::mix(&[Version::Hep3]),
        });
        println!("{path}: {}", packets.name);
        let load = |rate, count| Load { packets: Arc::clone(&packets), flows: Flows::ONE, from, to, rate, count };
        let (calm, many) = match is_quick() {
            true => (load(Some(2_000), 300), load(None, 1_500)),
            false => {
                let seconds = options.seconds.max(1);
                (load(Some(CALM_RATE), CALM_RATE * seconds), load(None, OVERLOAD_PACKETS * seconds))
            }
        };
        let calm = in_turn(&path, &calm, rounds);
        let many = in_turn(&path, &many, rounds);
        for (row, runs) in calm.iter().chain(&many) {
            row.print();
            results.add(row, runs);
        }
        if !options.cpu_only {
            let (seconds, rounds) = if is_quick() { (0, 1) } else { (options.seconds.max(1), rounds.min(3)) };
            for carrier in CARRIERS {
                let overload = &many.iter().find(|(row, _)| row.carrier == carrier.0).unwrap().1;
                results.add_limit(search::limit(&path, carrier, &load(None, 0), overload, seconds, rounds));
            }
        }
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&results.json()).unwrap() + "\n").unwrap();
    }
    if let Some(file) = &options.plot {
        std::fs::write(file, plot::svg(&results)).unwrap();
    }
}

/// Runs each carrier in turn, round by round, so that what else the machine does falls on all of them.
fn in_turn(path: &str, load: &Load, rounds: usize) -> Vec<(Row, Vec<Run>)> {
    let mut runs: [Vec<Run>; CARRIERS.len()] = Default::default();
    for _ in 0..rounds {
        for ((_, carrier), runs) in CARRIERS.iter().zip(&mut runs) {
            let run = run(*carrier, load);
            if is_quick() {
                check(&run, load);
            }
            runs.push(run);
        }
    }
    let floor = runs[0].clone();
    let rows = CARRIERS.iter().zip(runs);
    rows.map(|((carrier, _), runs)| (Row::new(path, carrier, load.rate, &runs, &floor), runs)).collect()
}

/// For a quick run, which is too short for anything to get lost unseen.
fn check(run: &Run, load: &Load) {
    let told = || {
        format!("{:?} to {:?} at {:?}: {:?}", load.from, load.to, load.rate, Run { took: Vec::new(), ..run.clone() })
    };
    assert_eq!((run.duplicates, run.late, run.within(), run.unfiltered), (0, 0, 0, 0), "{}", told());
    assert_eq!(run.arrived + run.before + run.behind, run.sent, "{}", told());
    if load.from == Transport::Tcp || load.rate.is_some() {
        assert_eq!(run.arrived, run.sent, "{}", told());
    }
    assert!(run.micros > 0.0 && run.peak_octets > 0, "{}", told());
    assert!(load.to.is_none() || run.permille(990) > Some(0.0), "{}", told());
}

/// A collector that sees nothing would praise anything.
fn check_tally() {
    let packets = Packets::mix(&[Version::Hep1, Version::Hep2, Version::Hep3]);
    let mut tally = Tally::new(6, Flows::ONE);
    for number in [0, 2, 1, 2, 5] {
        let mut packet = packets.of_number(number).to_vec();
        load::packets::set_number(&mut packet, number);
        // As the gateway reads it, the number is in the payload.
        let decoded = hepgate::wire::decode(packet.clone().into()).unwrap();
        assert_eq!(load::packets::number(decoded.payload()), number);
        tally.take(load::packets::number(&packet));
    }
    assert_eq!((tally.arrived, tally.duplicates, tally.late), (4, 1, 1));
}
