use std::time::Duration;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::guest;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

/// How often each thread of a process has gone to sleep, by its name.
fn sleeps(process: u32) -> Vec<(String, u64)> {
    let mut sleeps = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        sleeps.push((value("Name:"), value("voluntary_ctxt_switches:").parse().unwrap()));
    }
    sleeps
}

fn start(sink: &UdpSink) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "first", BY_FIRST_OCTET);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &filter("first", "limits = { fast_deadline = \"1s\" }"),
        "[[tenant]]\nname = \"default\"\nfilters = [\"first\"]\nroute = [\"out\"]\n",
    ];
    Gateway::start_in(folder, &config.concat())
}

/// The HTTP server of the admin address keeps its date, four times a second. Nothing else wakes up: not the workers, and
/// not the thread that ends overlong calls, once no guest has run for a while.
#[test]
fn a_gateway_that_has_nothing_to_do_sleeps() {
    let sink = UdpSink::new();
    let gateway = start(&sink);
    udp_agent(gateway.listener("udp")).send(&packet(b"pass")).unwrap();
    sink.next();
    let process = gateway.child.id();
    let of_ticker = || sleeps(process).into_iter().find(|(name, _)| name == "hepgate-ticker").unwrap().1;
    assert!(of_ticker() > 1, "it ran while the filter did");
    // Each look is a while after the one before.
    let mut last = of_ticker();
    eventually("the ticker sleeps", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = of_ticker();
        std::mem::replace(&mut last, now) == now
    });
    let before: u64 = sleeps(process).iter().map(|(_, count)| count).sum();
    std::thread::sleep(Duration::from_secs(2));
    let after: u64 = sleeps(process).iter().map(|(_, count)| count).sum();
    assert!(after - before <= 20, "{} times in two seconds: {:?}", after - before, sleeps(process));
    gateway.stop();
}

/// A datagram is received, filtered and sent in one wake-up, and nothing that happens to what was sent is another one.
#[test]
fn a_packet_that_comes_alone_wakes_its_worker_once() {
    const PACKETS: u64 = 200;
    let sink = UdpSink::new();
    let gateway = start(&sink);
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"the first")).unwrap();
    sink.next();
    let before = sleeps(gateway.child.id());
    for number in 0..PACKETS {
        let octets = packet(format!("p {number}").as_bytes());
        agent.send(&octets).unwrap();
        assert_eq!(sink.next(), octets);
    }
    let after = sleeps(gateway.child.id());
    let worker = before.iter().zip(&after).filter(|((name, _), _)| name.starts_with("actix-rt"));
    let most = worker.map(|((_, before), (_, after))| after - before).max().unwrap();
    // Fewer, where a packet comes before the worker has gone to sleep again.
    assert!((PACKETS / 10..PACKETS * 5 / 4).contains(&most), "{most} times for {PACKETS} packets: {after:?}");
    gateway.stop();
}
