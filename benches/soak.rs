//! Half an hour without rest: mixed traffic with reloads, connections that come and go, a collector that does too, and a
//! filter that traps now and then. Memory must stay flat, the ledger exact, and no descriptor may be left over.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod support;

use std::time::{Duration, Instant};

use clap::Parser;

use support::soak::{AtRest, Soak};

/// Ends with an error if memory grows, a descriptor or a thread is left over, or the ledger is not what was sent.
#[derive(Parser, Debug)]
#[command(name = "soak")]
struct Options {
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Some seconds.
    #[arg(long)]
    quick: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Datagrams of a burst, of which a cycle has four.
const BURST: usize = 500;
/// No cycle is shorter: connections and reloads are what people do, not a storm of them.
const CYCLE: Duration = Duration::from_millis(500);
/// Looks at the gateway, spread over the time.
const LOOKS: u32 = 60;
/// How much the median of the last third may have more than that of the second one.
const GROWTH_OCTETS_MAX: u64 = 4 << 20;

fn main() {
    let options = Options::parse();
    let time = if options.quick { Duration::from_secs(6) } else { Duration::from_secs(60 * options.minutes) };
    let looks = if options.quick { 3 } else { LOOKS };
    println!("soak: {} s of mixed traffic, workers = 1", time.as_secs());
    println!("  {:>6}  {:>7}  {:>11}  {:>7}  {:>12}", "second", "cycles", "descriptors", "threads", "resident KiB");
    let mut soak = Soak::start(BURST);
    let began = Instant::now();
    let mut seen: Vec<AtRest> = Vec::new();
    for look in 1..=looks {
        while soak.done.cycles < 2 || began.elapsed() < time * look / looks {
            let cycle = Instant::now();
            soak.cycle();
            std::thread::sleep(CYCLE.saturating_sub(cycle.elapsed()));
        }
        let at_rest = soak.at_rest();
        println!(
            "  {:>6}  {:>7}  {:>11}  {:>7}  {:>12}",
            began.elapsed().as_secs(),
            soak.done.cycles,
            at_rest.descriptors,
            at_rest.threads,
            at_rest.resident_octets >> 10
        );
        seen.push(at_rest);
    }
    let over = soak.end();
    let done = over.done;
    println!(
        "  {} datagrams, {} packets over {} connections, {} reloads, {} traps; the collector away {} times, for which \
         {} packets were dropped; {} lines of log",
        done.datagrams,
        done.streamed,
        done.connections,
        done.reloads,
        over.traps,
        done.absences,
        over.dropped,
        over.ended.lines.len()
    );
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    assert!(last.descriptors <= first.descriptors && last.threads <= first.threads, "left over: {first:?} {last:?}");
    if !options.quick {
        let third = seen.len() / 3;
        let (second, third) = (resident(&seen[third..2 * third]), resident(&seen[2 * third..]));
        println!("  resident memory: {} KiB in the second third, {} KiB in the last", second >> 10, third >> 10);
        assert!(third <= second + GROWTH_OCTETS_MAX, "memory grows: {second} octets, then {third}");
    }
    assert!(over.traps > 0, "the filter never trapped");
    println!("  memory flat, nothing left over, the ledger exact");
}

/// The median.
fn resident(seen: &[AtRest]) -> u64 {
    let mut octets: Vec<u64> = seen.iter().map(|at_rest| at_rest.resident_octets).collect();
    octets.sort_unstable();
    octets[octets.len() / 2]
}
