//! `correlate`: legs of a call that name each other in a header.

use serde_json::Value;

use super::traffic::{
    CALL_IDS, TwoWorkers, UNHURRIED, calls, chunk, exchange, of_agent, replaced, time, trial, trial_from, with,
};
use super::{read, shipped};
use crate::support::gateway::Gateway;
use crate::support::peers::{Nobody, UdpSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

const JOINED: &str = "hepgate_guest_joined_total";

/// The two calls as legs of one call: the second's INVITE says so in this header.
fn legs(header: &str) -> Vec<Vec<u8>> {
    let mut packets = calls();
    packets[6] = replaced(&packets[6], "Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{header}\r\n"));
    packets
}

fn names_the_first() -> String {
    format!("X-CID: {}", CALL_IDS[0])
}

/// As they came.
fn in_time(packets: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
    packets.iter().map(|packet| (time(packet), packet.clone())).collect()
}

/// What the packets' correlation ids were changed to; nothing for one that was left alone.
fn ids(packets: &[(u64, Vec<u8>)], options: &[&str]) -> Vec<Option<String>> {
    let id = |changes: &Vec<String>| {
        let change = changes.iter().find(|change| change.starts_with("correlation id (0x0011): "));
        assert_eq!(change.is_some(), !changes.is_empty(), "{changes:?}");
        change.map(|change| change.trim_end_matches(" added").rsplit(' ').next().unwrap().trim_matches('"').to_owned())
    };
    trial("correlate", packets, options).changes().iter().map(id).collect()
}

#[test]
fn the_leg_that_names_another_goes_by_its_id_on_every_worker_and_so_do_its_reports() {
    let sink = UdpSink::new();
    let TwoWorkers { gateway, agents } = TwoWorkers::start("correlate", "", "", &sink);
    let packets = legs(&names_the_first());
    for (number, (packet, agent)) in packets.iter().zip(agents.iter().cycle()).enumerate() {
        agent.send(packet).unwrap();
        let arrived = sink.next();
        if number < 6 {
            assert_eq!(arrived, *packet, "the first leg is left alone");
        } else {
            assert_eq!(arrived, with(packet, 0x11, CALL_IDS[0].as_bytes()));
        }
    }
    for report in exchange("rtpengine-v3-udp") {
        let of = |call_id: &str| with(&report, 0x11, call_id.as_bytes());
        for (own, expected) in [(CALL_IDS[1], CALL_IDS[0]), (CALL_IDS[0], CALL_IDS[0]), ("another", "another")] {
            for agent in &agents {
                agent.send(&of(own)).unwrap();
                assert_eq!(sink.next(), of(expected));
            }
        }
    }
    let reports = u64::try_from(exchange("rtpengine-v3-udp").len()).unwrap();
    gateway.await_metric(JOINED, &[], 6 + 2 * reports);
    gateway.stop();
}

#[test]
fn a_pair_is_sent_once_as_opensips_says_it_and_packets_stay_as_they_are() {
    for (mode, sets) in [("send", false), ("both", true)] {
        let (sink, pairs) = (UdpSink::new(), UdpSink::new());
        let more = format!("collectors = [\"pairs\"]\nconfig = {{ mode = \"{mode}\", collector = \"pairs\" }}");
        let TwoWorkers { gateway, agents } =
            TwoWorkers::start("correlate", &more, &collector("pairs", &pairs.to()), &sink);
        // Who sends an INVITE again names the other leg again.
        let packets = legs(&names_the_first());
        for packet in [&packets[..], &packets[6..7]].concat() {
            for (agent, id) in agents.iter().zip([1, 2]) {
                let packet = of_agent(&packet, id);
                agent.send(&packet).unwrap();
                let text = String::from_utf8_lossy(read(&packet).payload()).into_owned();
                let is_joined = sets && text.contains(&format!("Call-ID: {}", CALL_IDS[1]));
                let expected = if is_joined { with(&packet, 0x11, CALL_IDS[0].as_bytes()) } else { packet };
                assert_eq!(sink.next(), expected, "{mode}");
            }
        }
        let pair = read(&pairs.next());
        assert_eq!((pair.head().payload_type.0, pair.payload()), (0x60, &b""[..]));
        assert_eq!(chunk(&pair, 0x11).as_deref(), Some(CALL_IDS[0]));
        let ids: Value = serde_json::from_str(&chunk(&pair, 0x65).unwrap()).unwrap();
        assert_eq!(ids, serde_json::json!({ "sip": CALL_IDS[0], "sip-leg": CALL_IDS[1] }));
        gateway.await_metric("hepgate_guest_sent_total", &[], 1);
        assert!(pairs.is_empty());
        gateway.stop();
    }
}

#[test]
fn a_pair_that_no_collector_takes_is_told_later_and_joined_at_once() {
    let (sink, nobody) = (UdpSink::new(), Nobody::new());
    let more = "collectors = [\"pairs\"]\nconfig = { mode = \"both\", collector = \"pairs\" }\n";
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &collector("pairs", &nobody.to()),
        // One packet may wait: the first pair. It is tried for, now and then, for ever.
        "hep_async_max_postponed_chunks = 1\nhep_async_local_connect_timeout = 0\nhep_max_retries = 0\n",
        "backoff_min = \"1ms\"\nbackoff_max = \"10ms\"\n",
        &shipped("correlate", &[more, UNHURRIED].concat()),
        "[[tenant]]\nname = \"default\"\nfilters = [\"correlate\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let full = replaced(&legs("X-CID: before")[6], CALL_IDS[1], "another leg");
    agent.send(&full).unwrap();
    assert_eq!(sink.next(), with(&full, 0x11, b"before"));
    gateway.await_metric("hepgate_collector_waiting_packets", &[("collector", "pairs")], 1);
    // The collector is full now: of the second pair nothing can be told.
    let packets = legs(&names_the_first());
    for packet in &packets[6..] {
        agent.send(packet).unwrap();
        assert_eq!(sink.next(), with(packet, 0x11, CALL_IDS[0].as_bytes()));
    }
    gateway.await_metric("hepgate_guest_not_sent_total", &[("reason", "postponed-full")], 1);
    let mut stream = nobody.come().accept();
    let told = |stream: &mut _| chunk(&read(&next_packet(stream)), 0x65).unwrap();
    assert!(told(&mut stream).contains("before"));
    gateway.await_metric("hepgate_collector_waiting_packets", &[("collector", "pairs")], 0);
    // It is named once more, and told then.
    agent.send(&packets[6]).unwrap();
    assert!(told(&mut stream).contains(CALL_IDS[1]));
    gateway.await_metric("hepgate_guest_sent_total", &[], 2);
    assert_eq!(gateway.metrics().sum(JOINED), 8);
    gateway.stop();
}

#[test]
fn pairs_beyond_what_a_call_may_send_are_tried_again() {
    let leg = |n: u32| replaced(&legs(&names_the_first())[6], CALL_IDS[1], &format!("{n}@leg"));
    let packets: Vec<(u64, Vec<u8>)> = (0..3).chain(0..3).map(|n| (time(&leg(n)), leg(n))).collect();
    let options = ["--set mode=send", "--set collector=c", "--collector c", "--limit sends_max=1", "--batch 3"];
    let trial = trial_from("correlate", "192.0.2.1:40000", &packets, &options);
    assert_eq!(trial.verdicts(), "pppppp");
    assert_eq!(trial.sent_to(), ["c", "c"], "one in each call");
    let metrics = trial.metrics();
    assert!(metrics.contains(&"sent 2".to_owned()), "{metrics:?}");
    assert!(metrics.contains(&"not_sent{reason=\"quota\"} 3".to_owned()), "{metrics:?}");
}

#[test]
fn legs_in_a_row_go_by_the_first_and_a_header_may_hold_what_legs_have_in_common() {
    let [first, second] = CALL_IDS.map(|id| format!("Call-ID: {id}"));
    // A third leg names the second, before that one has named the first.
    let third: Vec<Vec<u8>> = legs(&format!("X-CID: {}", CALL_IDS[1]))[6..]
        .iter()
        .map(|packet| replaced(packet, &second, "Call-ID: third"))
        .collect();
    let packets = in_time(&[&third[..1], &legs(&names_the_first()), &third[1..]].concat());
    let found = ids(&packets, &[]);
    assert_eq!(found[0].as_deref(), Some(CALL_IDS[1]), "as far as is known then");
    assert!(found[1..7].iter().all(Option::is_none), "{found:?}");
    assert!(found[7..].iter().all(|id| id.as_deref() == Some(CALL_IDS[0])), "{found:?}");
    // A charging vector that both have.
    let vector = "P-Charging-Vector: orig-ioi=home;icid-value=\"icid-7\";icid-generated-at=192.0.2.1";
    let mut both = legs(vector);
    both[0] = replaced(&both[0], &first, &format!("{first}\r\n{vector}"));
    let packets = in_time(&both);
    let found = ids(&packets, &["--set headers=X-CID, P-Charging-Vector icid-value"]);
    assert!(found.iter().all(|id| id.as_deref() == Some("icid-7")), "{found:?}");
}

#[test]
fn a_leg_is_forgotten_when_nothing_was_heard_of_it_for_so_long() {
    let packets = legs(&names_the_first());
    let again = |after_seconds: u64| (time(&packets[11]) + after_seconds * 1_000_000, packets[11].clone());
    let mut all = in_time(&packets);
    // Three quarters of the time are sure from each packet on.
    all.extend([again(7), again(14), again(21), again(40)]);
    let found = ids(&all, &["--set remember=10s"]);
    let joined: Vec<bool> = found[12..].iter().map(Option::is_some).collect();
    assert_eq!(joined, [true, true, true, false]);
}

#[test]
fn legs_that_there_was_no_room_for_are_counted_and_the_log_says_so_once() {
    let leg = |n: u32| -> Vec<Vec<u8>> {
        let of_leg = |packet: &Vec<u8>| replaced(packet, CALL_IDS[1], &format!("{n}@leg"));
        legs(&names_the_first())[6..].iter().map(of_leg).collect()
    };
    let packets = in_time(&(0..3).flat_map(leg).collect::<Vec<_>>());
    for (options, joined, forgotten, hint) in [
        // The INVITEs of all, and the rest of the one that there was room for.
        (&["--limit state_keys_max=1"][..], 8, 2, "state_keys_max and state_octets_max of [filter.limits]"),
        // Each goes for the next one, when it is over here.
        (&["--set memory=instance", "--set entries_max=1"], 18, 2, "entries_max"),
    ] {
        let trial = trial("correlate", &packets, options);
        let metrics = trial.metrics();
        assert!(metrics.contains(&format!("joined {joined}")), "{options:?} {metrics:?}");
        assert!(metrics.contains(&format!("forgotten_early {forgotten}")), "{options:?} {metrics:?}");
        assert_eq!(trial.log(), [format!("warn: legs are forgotten before their time: see {hint}")]);
    }
}

#[test]
fn what_names_itself_or_nothing_is_left_alone() {
    let (itself, too_long) = (format!("X-CID: {}", CALL_IDS[1]), format!("X-CID: {}", "a".repeat(257)));
    for header in [&itself[..], "X-CID:", "X-Cid-Other: 1", &too_long] {
        let found = ids(&in_time(&legs(header)), &[]);
        assert!(found.iter().all(Option::is_none), "{header}: {found:?}");
    }
}
