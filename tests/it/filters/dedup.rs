//! `dedup`: what several agents saw is kept once, and what was sent again is kept as often as it was sent.

use std::io::Write;
use std::net::UdpSocket;

use hepgate::wire::Version;

use super::traffic::{
    Trial, TwoWorkers, UNHURRIED, calls, captured_at, chunk, exchange, of_agent, time, trial, trial_from, with,
};
use super::{corpus_packets, is_plain_sip, read, shipped, through};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

const DROPPED: &str = "hepgate_tenant_filter_dropped_packets_total";
const REMOVED: &str = "hepgate_guest_removed_total";
const FORGOTTEN: &str = "hepgate_guest_forgotten_early_total";

/// The two calls as agent 1 saw them, and as agent 2 did, whose clock is ahead by so much; each pair beside each other.
fn seen_twice(ahead: i64) -> Vec<(u64, Vec<u8>)> {
    let pair = |packet: Vec<u8>| {
        let at = time(&packet);
        let theirs = captured_at(&of_agent(&packet, 2), at.checked_add_signed(ahead).unwrap());
        [(at, of_agent(&packet, 1)), (at, theirs)]
    };
    calls().into_iter().flat_map(pair).collect()
}

fn metric(trial: &Trial, line: &str) {
    assert!(trial.metrics().iter().any(|metric| metric == line), "{line} is not in {:?}", trial.metrics());
}

#[test]
fn a_copy_is_found_whichever_worker_its_agent_came_to() {
    let sink = UdpSink::new();
    let TwoWorkers { gateway, agents: [one, other] } = TwoWorkers::start("dedup", "", "", &sink);
    let (ours, mut removed) = ([("tenant", "default")], 0);
    for (name, octets) in corpus_packets() {
        if read(&octets).head().version == Version::Hep1 {
            continue;
        }
        let [first, second] = [of_agent(&octets, 1), of_agent(&octets, 2)];
        one.send(&first).unwrap();
        assert_eq!(sink.next(), first, "{name}");
        other.send(&second).unwrap();
        if is_plain_sip(&read(&octets)) {
            removed += 1;
            gateway.await_metric(DROPPED, &ours, removed);
        } else {
            assert_eq!(sink.next(), second, "{name} is no SIP");
        }
    }
    assert!(removed > 40, "{removed}");
    gateway.await_metric(REMOVED, &ours, removed);
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn two_programs_that_captured_the_same_calls_are_one() {
    let sink = UdpSink::new();
    let gateway = through("dedup", UNHURRIED, &sink);
    let agent = udp_agent(gateway.listener("udp"));
    // The same twelve messages, sent by sngrep as agent 2222 in HEP2 and as another in HEP3.
    let kept = exchange("sngrep-v2-udp");
    for octets in kept.iter().chain(&calls()) {
        agent.send(octets).unwrap();
    }
    gateway.await_metric(DROPPED, &[], 12);
    assert_eq!(sink.take(12), kept);
    gateway.await_metric(REMOVED, &[], 12);
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn two_workers_that_remember_apart_do_not_see_each_others_copies() {
    let sink = UdpSink::new();
    let config = "config = { memory = \"instance\" }";
    let TwoWorkers { gateway, agents } = TwoWorkers::start("dedup", config, "", &sink);
    for octets in calls() {
        for (agent, id) in agents.iter().zip([1, 2]) {
            agent.send(&of_agent(&octets, id)).unwrap();
            assert_eq!(sink.next(), of_agent(&octets, id));
        }
        agents[0].send(&of_agent(&octets, 2)).unwrap();
    }
    gateway.await_metric(DROPPED, &[("tenant", "default")], 12);
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn what_is_sent_again_stays_as_often_as_the_agent_saw_it_that_saw_it_most() {
    // Sent again after T1, the half second of RFC 3261.
    let all = |seen: &[(u64, u32)]| -> String {
        let packets: Vec<(u64, Vec<u8>)> = calls()
            .iter()
            .flat_map(|packet| {
                let at = time(packet);
                let sighting = |(after, id): &(u64, u32)| (at + after, captured_at(&of_agent(packet, *id), at + after));
                seen.iter().map(sighting).collect::<Vec<_>>()
            })
            .collect();
        let verdicts = trial("dedup", &packets, &[]).verdicts();
        let first = &verdicts[..seen.len()];
        assert_eq!(verdicts, first.repeat(12), "each packet fares as the first one does");
        first.to_owned()
    };
    assert_eq!(all(&[(0, 1), (500_000, 1)]), "pp", "one agent");
    assert_eq!(all(&[(0, 1), (1_000, 2), (500_000, 1), (501_000, 2)]), "pdpd", "two of them");
    assert_eq!(all(&[(0, 1), (500_000, 1), (1_000, 2), (501_000, 2)]), "ppdd", "the second one late");
    assert_eq!(all(&[(0, 1), (500_000, 2)]), "pd", "the second one saw only what was sent again");
    assert_eq!(all(&[(0, 1), (1_000, 2), (500_000, 2)]), "pdp", "only the second one saw it twice");
    let nine: Vec<(u64, u32)> = (1..=9).map(|id| (0, id)).collect();
    assert_eq!(all(&nine), "pdddddddd");
    let ninth_again = [&nine[..], &[(0, 9)], &[(0, 8)]].concat();
    assert_eq!(all(&ninth_again), "pdddddddddp", "the ninth is not told apart, the eighth is");
}

#[test]
fn a_flood_of_one_packet_from_one_agent_stays() {
    let packet = calls().remove(0);
    let flood: Vec<(u64, Vec<u8>)> =
        (0..600).map(|n| (time(&packet) + n, captured_at(&packet, time(&packet) + n))).collect();
    assert_eq!(trial("dedup", &flood, &[]).verdicts(), "p".repeat(600));
}

#[test]
fn the_window_is_between_the_times_of_capture() {
    for (ahead, options, copies) in [
        (0, &[][..], "d"),
        (500_000, &[], "d"),
        (500_001, &[], "p"),
        (-500_000, &[], "d"),
        (-500_001, &[], "p"),
        (2_000_000, &["--set window=2s"], "d"),
        (2_001, &["--set window=2ms"], "p"),
    ] {
        let verdicts = trial("dedup", &seen_twice(ahead), options).verdicts();
        assert_eq!(verdicts, format!("p{copies}").repeat(12), "{ahead} {options:?}");
    }
}

#[test]
fn a_copy_may_come_a_second_later_than_the_window_says_and_no_more() {
    let packet = calls().remove(0);
    let at = time(&packet);
    for (after, fares) in [(0, 'd'), (1_499_000, 'd'), (1_501_000, 'p')] {
        let packets = [(at, of_agent(&packet, 1)), (at + after, of_agent(&packet, 2))];
        assert_eq!(trial("dedup", &packets, &[]).verdicts().chars().last(), Some(fares), "{after}");
    }
}

#[test]
fn whose_packets_are_copies_is_what_across_says() {
    // The same agent sees each twice, at once: on two interfaces.
    let one_agent: Vec<(u64, Vec<u8>)> =
        calls().into_iter().flat_map(|packet| [(time(&packet), packet.clone()), (time(&packet), packet)]).collect();
    assert_eq!(trial("dedup", &one_agent, &[]).verdicts(), "p".repeat(24));
    let any = trial("dedup", &one_agent, &["--set across=any", "--set window=20ms"]);
    assert_eq!(any.verdicts(), "pd".repeat(12));
    metric(&any, "removed 12");
    assert_eq!(trial_from("dedup", "192.0.2.7:1", &one_agent, &["--set across=senders"]).verdicts(), "p".repeat(24));
}

#[test]
fn agents_without_ids_of_their_own_are_told_apart_by_their_addresses() {
    for (config, copies) in [("", false), ("config = { across = \"senders\" }", true)] {
        let sink = UdpSink::new();
        let gateway = through("dedup", &[config, "\n", UNHURRIED].concat(), &sink);
        let agents = ["127.0.0.1:0", "127.0.0.2:0"].map(|from| UdpSocket::bind(from).unwrap());
        // HEP1 says neither who captured a packet nor when.
        for (number, octets) in (1..).zip(exchange("kamailio-siptrace-v1-udp")) {
            agents[0].send_to(&octets, gateway.listener("udp")).unwrap();
            assert_eq!(sink.next(), octets);
            agents[1].send_to(&octets, gateway.listener("udp")).unwrap();
            if copies {
                gateway.await_metric(DROPPED, &[], number);
            } else {
                assert_eq!(sink.next(), octets);
            }
        }
        assert!(sink.is_empty());
        gateway.stop();
    }
}

#[test]
fn copies_are_dropped_skipped_or_marked() {
    for (action, verdicts) in [("drop", "pd"), ("skip", "ps"), ("mark", "pp")] {
        let trial = trial("dedup", &seen_twice(0), &[&format!("--set action={action}")]);
        assert_eq!(trial.verdicts(), verdicts.repeat(12), "{action}");
        metric(&trial, "removed 12");
    }
    let sink = UdpSink::new();
    let gateway = through("dedup", &["config = { action = \"mark\" }\n", UNHURRIED].concat(), &sink);
    let agent = udp_agent(gateway.listener("udp"));
    for octets in [exchange("sngrep-v3-udp"), exchange("sngrep-v2-udp")].concat() {
        agent.send(&octets).unwrap();
        let (before, after) = (read(&octets), read(&sink.next()));
        assert_eq!(after.payload(), before.payload());
        let is_copy = before.head().version == Version::Hep2;
        assert_eq!(chunk(&after, 0x26).as_deref(), is_copy.then_some("copy"));
        assert_eq!(after.head().version, Version::Hep3, "HEP2 has no tags");
    }
    gateway.stop();
}

#[test]
fn what_is_not_to_be_looked_at_and_what_has_no_flow_passes() {
    let twice = |packets: Vec<Vec<u8>>| -> Vec<(u64, Vec<u8>)> {
        packets.iter().flat_map(|packet| [1, 2].map(|id| (time(packet), of_agent(packet, id)))).collect()
    };
    let reports = twice(exchange("rtpengine-v3-udp"));
    assert_eq!(trial("dedup", &reports, &[]).verdicts(), "n".repeat(reports.len()), "not even seen");
    let looked_at = trial("dedup", &reports, &["--set payload_types=1,5"]).verdicts();
    assert_eq!(looked_at, "pd".repeat(reports.len() / 2));
    let without_flow = |packet: &Vec<u8>| {
        let chunks: Vec<(u16, u16, Vec<u8>)> = read(packet)
            .chunks()
            .filter(|chunk| !matches!(chunk.id.kind, 0x03 | 0x04))
            .map(|chunk| (chunk.id.vendor.0, chunk.id.kind, chunk.body.to_vec()))
            .collect();
        super::hep3(&chunks.iter().map(|(vendor, kind, body)| (*vendor, *kind, &body[..])).collect::<Vec<_>>())
    };
    let packets = twice(calls().iter().map(without_flow).collect());
    assert_eq!(trial("dedup", &packets, &[]).verdicts(), "p".repeat(24));
    let unreadable = |packet: &Vec<u8>| {
        let chunks = [(0, 0x0b, &[1][..]), (0, 0x10, b"\x78\x9cno zlib")];
        let flow: Vec<_> = read(packet).chunks().map(|c| (c.id.vendor.0, c.id.kind, c.body.to_vec())).collect();
        let flow = flow.iter().filter(|(_, kind, _)| !matches!(kind, 0x0b | 0x0f)).map(|(v, k, b)| (*v, *k, &b[..]));
        super::hep3(&flow.chain(chunks).collect::<Vec<_>>())
    };
    let packets = twice(calls().iter().map(unreadable).collect());
    assert_eq!(trial("dedup", &packets, &[]).verdicts(), "p".repeat(24));
}

#[test]
fn a_copy_is_one_whether_its_payload_is_compressed_or_ends_with_noughts() {
    for packet in calls() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(read(&packet).payload()).unwrap();
        let zlib = zlib.finish().unwrap();
        let chunks: Vec<(u16, u16, Vec<u8>)> = read(&packet)
            .chunks()
            .map(|chunk| match chunk.id.kind {
                0x0f => (0, 0x10, zlib.clone()),
                kind => (chunk.id.vendor.0, kind, chunk.body.to_vec()),
            })
            .collect();
        let chunks: Vec<_> = chunks.iter().map(|(vendor, kind, body)| (*vendor, *kind, &body[..])).collect();
        let at = time(&packet);
        let padded = with(&packet, 0x0f, &[read(&packet).payload(), b"\0\0"].concat());
        let packets =
            [(at, of_agent(&packet, 1)), (at, of_agent(&super::hep3(&chunks), 2)), (at, of_agent(&padded, 3))];
        assert_eq!(trial("dedup", &packets, &[]).verdicts(), "pdd");
    }
}

/// Otherwise the first agent's packet would go to nobody, and the second one's be removed as its copy.
#[test]
fn a_copy_of_what_an_earlier_filter_has_skipped_stays() {
    let sink = UdpSink::new();
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        // Skips all that agent 1 sent.
        &shipped(
            "sample",
            &format!(
                "config = {{ rate = \"0\", action = \"skip\" }}\n{UNHURRIED}[filter.subscription]\nagent_ids = [1]\n"
            ),
        ),
        &shipped("dedup", UNHURRIED),
        "[[tenant]]\nname = \"default\"\nfilters = [\"sample\", \"dedup\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    for octets in calls() {
        for id in [1, 2, 3] {
            agent.send(&of_agent(&octets, id)).unwrap();
        }
        assert_eq!(sink.next(), of_agent(&octets, 2));
    }
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 12);
    gateway.await_metric(DROPPED, &[], 12);
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn what_could_not_be_remembered_stays_and_is_counted_and_the_log_says_so_once() {
    for (more, kept, forgotten, hint) in [
        // The four that there was room for have no copies; the others were not remembered, twice.
        ("[filter.limits]\nstate_keys_max = 4\n", 20, 16, "see state_keys_max and state_octets_max of [filter.limits]"),
        // The oldest go first, and so each is gone when its copy comes.
        (
            "config = { memory = \"instance\", entries_max = 4, window = \"60s\" }\n[filter.limits]\n",
            24,
            20,
            "see entries_max",
        ),
    ] {
        let sink = UdpSink::new();
        let gateway = through("dedup", &[more, "fast_deadline = \"10s\"\n"].concat(), &sink);
        let agent = udp_agent(gateway.listener("udp"));
        for id in [1, 2] {
            for octets in calls() {
                agent.send(&of_agent(&octets, id)).unwrap();
            }
        }
        gateway.await_metric(FORGOTTEN, &[], forgotten);
        assert_eq!(sink.take(kept).len(), kept);
        gateway.await_metric(DROPPED, &[], u64::try_from(24 - kept).unwrap());
        assert!(sink.is_empty());
        eventually("the log says so", || gateway.log_text().contains(hint));
        assert_eq!(gateway.log_text().matches("packets are forgotten within the window").count(), 1);
        gateway.stop();
    }
}
