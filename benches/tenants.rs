//! What tenants cost each other: the rules that a packet is looked up in, by their number; and honest tenants beside one
//! whose filter burns its whole deadline on every batch.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;
#[path = "common/guests.rs"]
mod guests;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod support;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hepgate::config::{Config, ListenerId, TenantId};
use hepgate::tenant::TenantTable;
use hepgate::wire::{Packet, Version, decode};

use common::{as_f64, is_quick, median, nanos_per_packet};
use support::gateway::Gateway;
use support::guest::{self, Guest};
use support::peers::{UdpSink, udp_agent};
use support::settings::{BOTH_LISTENERS, collector, filter};

fn main() {
    rules();
    neighbours();
}

/// Senders that take turns, so that no packet is like the one before.
const SENDERS: u32 = 1_000;

fn rules() {
    println!("tenants: nanoseconds to find a packet's tenant, {SENDERS} agents in turn (the worst case) / one agent");
    let mut first = None;
    for (tenants, rules_each) in [(1, 1), (10, 10), (100, 10), (1_000, 10)] {
        let mut table = table(tenants, rules_each);
        let all = tenants * rules_each;
        // Spread over all rules; where there are fewer rules than agents, most are the default tenant's.
        let agent = |n: u32| n * (all / SENDERS).max(1);
        let packets: Vec<Packet> = (0..SENDERS).map(|n| packet(agent(n))).collect();
        let source: IpAddr = "10.1.2.3".parse().unwrap();
        // It must find the right one.
        for (n, packet) in packets.iter().enumerate() {
            let tenant = (agent(u32::try_from(n).unwrap()) / rules_each).min(tenants);
            let expected = TenantId(usize::try_from(tenant).unwrap());
            assert_eq!(table.find(ListenerId(0), source, &[], packet), Some(expected));
        }
        let turns = nanos_per_packet(packets.len(), || {
            packets.iter().filter(|packet| table.find(ListenerId(0), source, &[], packet).is_some()).count()
        });
        let one = nanos_per_packet(packets.len(), || {
            packets.iter().filter(|_| table.find(ListenerId(0), source, &[], &packets[0]).is_some()).count()
        });
        let base = *first.get_or_insert(turns);
        println!("  {tenants:>5} tenants, {all:>6} rules  {turns:>7.1} ns  x {:>4.2}   / {one:>6.1} ns", turns / base);
    }
}

fn table(tenants: u32, rules_each: u32) -> TenantTable {
    let mut text = "[[listener]]\nname = \"l\"\nlisten = \"hep_udp:127.0.0.1:1\"\n".to_owned();
    for tenant in 0..tenants {
        write!(text, "[[tenant]]\nname = \"t{tenant}\"\n").unwrap();
        for rule in 0..rules_each {
            let agent_id = tenant * rules_each + rule;
            write!(text, "[[tenant.match]]\nsource = \"10.0.0.0/8\"\nagent_id = {agent_id}\n").unwrap();
        }
    }
    text += "[[tenant]]\nname = \"rest\"\n";
    let config = Config::parse(&text, Path::new(".")).unwrap();
    TenantTable::new(config.live_tenants()).unwrap()
}

fn packet(agent_id: u32) -> Packet {
    let mut pack = common::invite(0);
    pack.agent_id = agent_id;
    decode(pack.encode(Version::Hep3).unwrap()).unwrap()
}

/// Honest tenants.
const HONEST: u32 = 4;
/// The hostile one's agent id.
const HOSTILE: u32 = 99;

/// Times from sending to arrival, in microseconds, and packets that did not arrive.
struct Seen {
    micros: Vec<f64>,
    lost: usize,
}

fn neighbours() {
    let rounds = if is_quick() { 1 } else { 5 };
    let each = if is_quick() { 50 } else { 4_000 };
    println!(
        "neighbours: {HONEST} honest tenants with a filter each, 1000 packets/s together, and one hostile one, 1000/s"
    );
    let neighbourhoods =
        [("alone", None), ("beside one that behaves", Some(false)), ("beside one that never ends", Some(true))];
    let mut all: [Vec<Seen>; 3] = Default::default();
    for _ in 0..rounds {
        for ((_, hostile), seen) in neighbourhoods.iter().zip(&mut all) {
            seen.push(run(*hostile, each));
        }
    }
    for ((name, _), seen) in neighbourhoods.iter().zip(&all) {
        let of = |percent: usize| {
            median(
                seen.iter()
                    .map(|seen| {
                        let mut micros = seen.micros.clone();
                        micros.sort_by(f64::total_cmp);
                        micros[(micros.len() - 1) * percent / 100]
                    })
                    .collect(),
            )
        };
        let lost: usize = seen.iter().map(|seen| seen.lost).sum();
        println!("  {name:<27} p50 {:>7.0} µs  p99 {:>7.0} µs  lost {lost}", of(50), of(99));
    }
}

fn run(neighbour: Option<bool>, packets: usize) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "honest", guests::TRIVIAL);
    let never_ends = Guest { on_batch: "(loop $l (br $l))", ..Guest::default() };
    guest::write(folder.path(), "neighbour", if neighbour == Some(true) { never_ends } else { guests::TRIVIAL });
    let (out, rest) = (UdpSink::new(), UdpSink::new());
    let mut config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &collector("rest", &rest.to()),
        &filter("honest", ""),
        &filter("neighbour", "[filter.quarantine]\nstrikes_max = 0"),
        "[[tenant]]\nname = \"neighbour\"\nfilters = [\"neighbour\"]\nroute = [\"rest\"]\n",
    ]
    .concat();
    write!(config, "[[tenant.match]]\nagent_id = {HOSTILE}\n").unwrap();
    for tenant in 0..HONEST {
        write!(config, "[[tenant]]\nname = \"t{tenant}\"\nfilters = [\"honest\"]\nroute = [\"out\"]\n").unwrap();
        write!(config, "[[tenant.match]]\nagent_id = {tenant}\n").unwrap();
    }
    let gateway = Gateway::start_with(folder, "workers = 1\nsummary = \"0s\"", &config);
    let agent = udp_agent(gateway.listener("udp"));
    let of = |agent_id: u32| {
        let mut pack = common::invite(0);
        pack.agent_id = agent_id;
        pack.encode(Version::Hep3).unwrap()
    };
    let honest: Vec<_> = (0..HONEST).map(of).collect();
    let hostile = of(HOSTILE);
    let (mut micros, mut lost) = (Vec::new(), 0);
    let began = Instant::now();
    for number in 0..packets {
        // A millisecond each: the pace is the clock's, not the answers'.
        let due = began + Duration::from_millis(u64::try_from(number).unwrap());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if neighbour.is_some() {
            agent.send(&hostile).unwrap();
        }
        let sent = Instant::now();
        agent.send(&honest[number % honest.len()]).unwrap();
        match out.next_within(Duration::from_secs(2)) {
            Some(_) => micros.push(as_f64(sent.elapsed().as_nanos()) / 1e3),
            None => lost += 1,
        }
    }
    gateway.stop();
    if is_quick() {
        assert_eq!((micros.len(), lost), (packets, 0));
    }
    Seen { micros, lost }
}
