//! What a filter costs: the call per packet at several batches, and to compile and start one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;
#[path = "../tests/it/support/guest.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod guest;
#[path = "common/guests.rs"]
mod guests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hepgate::config::{Config, ListenerId, Transport};
use hepgate::filter::{Budget, Filter, Host, Instance, Part, Size, Surroundings, Verdict, Work};
use hepgate::message::{Origin, Received};
use hepgate::wire::{CapturedAt, decode};

use common::{as_f64, is_quick, median, nanos_per_packet, octets};
use guest::Guest;

const NOW: CapturedAt = CapturedAt { seconds: 1_800_000_000, microseconds: 7 };
/// Far above any call here, so that a busy machine ends none.
const BUDGET: Budget = Budget::wall(Duration::from_secs(10));
/// At 20 000 packets/s.
const BETWEEN_CALM_PACKETS: Duration = Duration::from_micros(50);
/// Packets of a call. A listener hands over 64 at most.
const BATCHES: [usize; 3] = [1, 32, 64];

fn main() {
    println!("filter, 738-octet SIP INVITE in HEP3{}", if is_quick() { " (quick: no figures)" } else { "" });
    let folder = tempfile::tempdir().unwrap();
    let empty = measured(folder.path(), "empty", Guest::default(), Ended::ByEpoch);
    let trivial = measured(folder.path(), "trivial", guests::TRIVIAL, Ended::ByEpoch);
    let records = measured(folder.path(), "records", guests::TRIVIAL_RECORDS, Ended::ByEpoch);
    let fuelled = measured(folder.path(), "fuelled", guests::TRIVIAL, Ended::ByFuelToo);
    let loops = measured(folder.path(), "loops", guests::EVERY_OCTET, Ended::ByEpoch);
    let fuelled_loops = measured(folder.path(), "fuelled-loops", guests::EVERY_OCTET, Ended::ByFuelToo);
    for filter in [&trivial, &records, &fuelled] {
        check(filter);
    }
    for (name, filter) in [
        ("empty call", &empty),
        ("packed scalars and 64 octets of each payload", &trivial),
        ("scalars as records and the same", &records),
        ("packed scalars and 64 octets, fuel counted", &fuelled),
        ("every octet of each payload, one by one", &loops),
        ("every octet of each payload, fuel counted", &fuelled_loops),
    ] {
        for packets in BATCHES {
            let mut instance = start(filter);
            let mut work = work(packets);
            let nanos = nanos_per_packet(packets, || call(&mut instance, &mut work));
            println!("  {:<52} {nanos:>8.1} ns per packet", format!("{name}, batch of {packets}"));
        }
        let nanos = after_a_sleep(filter);
        println!("  {:<52} {nanos:>8.1} ns per packet", format!("{name}, one after a sleep"));
    }
}

/// One packet a call, as calm traffic has it: the thread slept before each, and much of what the call needs has left the
/// processor's caches, and those of its address tables, meanwhile.
fn after_a_sleep(filter: &Arc<Filter>) -> f64 {
    let mut instance = start(filter);
    let mut work = work(1);
    let calls = if is_quick() { 3 } else { 5_000 };
    let nanos = (0..calls).map(|_| {
        std::thread::sleep(BETWEEN_CALM_PACKETS);
        let begun = Instant::now();
        call(&mut instance, &mut work);
        as_f64(begun.elapsed().as_nanos())
    });
    median(nanos.collect())
}

/// What ends a call that does not end by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByEpoch,
    /// Instructions are counted as well.
    ByFuelToo,
}

/// Compiles a guest and starts it a few times, with figures.
fn measured(folder: &Path, name: &str, guest: Guest<'_>, ended: Ended) -> Arc<Filter> {
    let path = guest::write(folder, name, guest);
    let text = format!(
        "[[listener]]\nname = \"udp\"\nlisten = \"hep_udp:127.0.0.1:1\"\n[[tenant]]\nname = \"t\"\n\
         [[filter]]\nname = \"{name}\"\ncomponent = \"{}\"\n",
        path.display()
    );
    let config = Config::parse(&text, folder).unwrap().filters.remove(0);
    let size = Size {
        instances: 8,
        memory_octets_max: config.limits.memory_octets_max,
        table_elements_max: config.limits.table_elements_max,
        stack_octets_max: 512 << 10,
        counts_fuel: ended == Ended::ByFuelToo,
        cache: None,
    };
    let host = Host::new(&size).unwrap();
    let rounds = if is_quick() { 1 } else { 9 };
    let mut filter = None;
    let compile = (0..rounds).map(|_| {
        let begun = Instant::now();
        filter = Some(host.load(&config, &Default::default()).unwrap());
        as_f64(begun.elapsed().as_micros()) / 1e3
    });
    let compile = median(compile.collect());
    let filter = filter.unwrap();
    let starts = if is_quick() { 2 } else { 500 };
    let start = (0..starts).map(|_| {
        let begun = Instant::now();
        let instance = start(&filter);
        let micros = as_f64(begun.elapsed().as_nanos()) / 1e3;
        drop(instance);
        micros
    });
    let start = median(start.collect());
    println!("  {name}: {} octets, compiled in {compile:.1} ms, an instance in {start:.1} µs", filter.octets());
    filter
}

fn start(filter: &Arc<Filter>) -> Instance {
    let surroundings = Surroundings::for_trial(Arc::new([]), filter.limits());
    filter.start(surroundings, BUDGET, NOW, &mut Vec::new()).unwrap()
}

fn work(packets: usize) -> Work {
    let origin = Origin {
        listener: Some(ListenerId(0)),
        transport: Transport::Udp,
        peer: "198.51.100.1:40000".parse().unwrap(),
        local: "198.51.100.2:5656".parse().unwrap(),
        received_at: NOW,
    };
    let packet = |n| Received { packet: decode(octets(n)).unwrap(), origin };
    Work::new((0..u32::try_from(packets).unwrap()).map(packet).collect())
}

fn call(instance: &mut Instance, work: &mut Work) -> Vec<Verdict> {
    let all = Part::run(0, work.len());
    instance.on_batch(work, &all, BUDGET, NOW).unwrap().verdicts
}

/// That the trivial filter reads what it says: it tells packets apart by a scalar, and by an octet of the payload.
fn check(filter: &Arc<Filter>) {
    let mut instance = start(filter);
    for packets in BATCHES {
        assert_eq!(call(&mut instance, &mut work(packets)), vec![Verdict::Pass; packets]);
    }
    let mut mixed = work(3);
    let mut other_port = common::invite(0);
    other_port.flow = Some(("192.0.2.1:7".parse().unwrap(), "192.0.2.2:5060".parse().unwrap()));
    let mut other_payload = common::invite(0);
    other_payload.payload = Some("OPTIONS sip:bob@biloxi.example.com SIP/2.0\r\n\r\n".into());
    for (place, pack) in [(1, other_port), (2, other_payload)] {
        let octets = pack.encode(hepgate::wire::Version::Hep3).unwrap();
        mixed.packets[place].packet = decode(octets).unwrap();
    }
    assert_eq!(call(&mut instance, &mut mixed), [Verdict::Pass, Verdict::Drop, Verdict::Drop]);
}
