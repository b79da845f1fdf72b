//! `sample`: calls are kept whole, by a hash that anybody can compute.

use hepgate::wire::Packet;

use super::traffic::{CALL_IDS, TwoWorkers, UNHURRIED, calls, chunk, exchange, replaced, time, trial, with};
use super::{corpus_packets, hep3, method, read, shipped, through};
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

const DROPPED: &str = "hepgate_tenant_filter_dropped_packets_total";
const PACKETS: &str = "hepgate_guest_packets_total";

/// Whether a call is kept, by what the filter's page says of the hash.
fn keeps(seed: &str, id: &str, percent: u128) -> bool {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for octet in seed.bytes().chain([0]).chain(id.bytes()) {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3);
    }
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    u128::from(hash) * 100 < percent << 64
}

/// The correlation id, or else SIP's Call-ID, read in another way than the filter does.
fn id(packet: &Packet) -> Option<String> {
    let call_id = || {
        let text = String::from_utf8_lossy(packet.payload()).into_owned();
        text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).map(str::to_owned)
    };
    chunk(packet, 0x11).or_else(call_id)
}

/// So many calls like the first of SIPp's, each with a Call-ID of its own, as rows of six packets.
fn many_calls(count: usize) -> Vec<(String, Vec<Vec<u8>>)> {
    let call = calls()[..6].to_vec();
    let with_id = |n: usize| {
        let id = format!("{n}-8892@127.0.0.1");
        let packets = call.iter().map(|packet| replaced(packet, CALL_IDS[0], &id)).collect();
        (id, packets)
    };
    (1..=count).map(with_id).collect()
}

#[test]
fn a_call_is_kept_whole_whichever_worker_its_packets_come_to() {
    let sink = UdpSink::new();
    let config = "config = { rate = \"30%\", seed = \"berlin\" }";
    let TwoWorkers { gateway, agents } = TwoWorkers::start("sample", config, "", &sink);
    let (mut kept, mut left_out) = (0, 0);
    for (id, packets) in many_calls(40) {
        for (packet, agent) in packets.iter().zip(agents.iter().cycle()) {
            agent.send(packet).unwrap();
            if keeps("berlin", &id, 30) {
                kept += 1;
                assert_eq!(sink.next(), *packet, "{id}");
            } else {
                left_out += 1;
            }
        }
    }
    gateway.await_metric(DROPPED, &[("tenant", "default")], left_out);
    gateway.await_metric(PACKETS, &[("became", "kept")], kept);
    gateway.await_metric(PACKETS, &[("became", "left_out")], left_out);
    assert!(kept > 0 && left_out > kept, "{kept} {left_out}");
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn sip_rtcp_and_logs_of_all_senders_are_kept_by_their_correlation_id_or_call_id() {
    for percent in [20, 50, 80] {
        let sink = UdpSink::new();
        let config = format!("config = {{ rate = \"{percent}%\" }}\n{UNHURRIED}");
        let gateway = through("sample", &config, &sink);
        let agent = udp_agent(gateway.listener("udp"));
        let (mut kept, mut left_out) = (0, 0);
        for (name, octets) in corpus_packets() {
            agent.send(&octets).unwrap();
            let id = id(&read(&octets)).unwrap_or_else(|| panic!("{name}: no id"));
            if keeps("", &id, percent) {
                kept += 1;
                assert_eq!(sink.next(), octets, "{name}: {id}");
            } else {
                left_out += 1;
            }
        }
        gateway.await_metric(DROPPED, &[], left_out);
        assert!(kept > 0 && left_out > 0, "{kept} {left_out}");
        assert!(sink.is_empty());
        gateway.stop();
    }
}

#[test]
fn a_smaller_share_is_part_of_a_greater_one_and_all_and_none_are_what_they_say() {
    let packets: Vec<(u64, Vec<u8>)> =
        many_calls(100).into_iter().flat_map(|(_, packets)| packets).map(|packet| (time(&packet), packet)).collect();
    let kept = |rate: &str| trial("sample", &packets, &[&format!("--set rate={rate}"), "--set seed=x"]).verdicts();
    let (tenth, half) = (kept("1/10"), kept("0.5"));
    for verdicts in [&tenth, &half] {
        let calls: Vec<&[u8]> = verdicts.as_bytes().chunks(6).collect();
        assert!(calls.iter().all(|call| call.iter().all(|verdict| *verdict == call[0])), "{verdicts}");
    }
    assert!(tenth.bytes().zip(half.bytes()).all(|(tenth, half)| tenth == b'd' || half == b'p'));
    let packets_of = |verdicts: &str| verdicts.matches('p').count();
    assert!(packets_of(&tenth) > 0 && packets_of(&half) > packets_of(&tenth) && packets_of(&half) < 600);
    assert_eq!((kept("100%"), kept("0")), ("p".repeat(600), "d".repeat(600)));
    // What a first gateway with that seed kept, a second one with it keeps whole.
    let second: Vec<(u64, Vec<u8>)> = packets
        .iter()
        .zip(tenth.chars())
        .filter(|(_, verdict)| *verdict == 'p')
        .map(|(packet, _)| packet.clone())
        .collect();
    let again = trial("sample", &second, &["--set rate=10%", "--set seed=x"]).verdicts();
    assert_eq!(again, "p".repeat(second.len()));
}

#[test]
fn what_is_always_kept_and_what_has_no_id_is_as_it_was_told() {
    let log = hep3(&[(0, 0x0b, &[100]), (0, 0x0f, b"a line of nobody's call")]);
    let of_no_call = hep3(&[(0, 0x0b, &[1]), (0, 0x0f, b"OPTIONS sip:h SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n")]);
    let mut packets: Vec<Vec<u8>> = calls();
    packets.extend([log, of_no_call]);
    let arrived: Vec<(u64, Vec<u8>)> =
        (0..).zip(packets.clone()).map(|(n, packet)| (1_795_418_300_000_000 + n, packet)).collect();
    for (options, without, left) in [
        (&["--set rate=0"][..], "pp", 'd'),
        (&["--set rate=0", "--set without=drop"], "dd", 'd'),
        (&["--set rate=0", "--set without=drop", "--set action=skip"], "ss", 's'),
        (&["--set rate=0", "--set always=OPTIONS", "--set without=drop"], "dp", 'd'),
        (&["--set rate=0", "--set always=BYE,ACK"], "pp", 'd'),
    ] {
        let always: &[&str] = if options.contains(&"--set always=BYE,ACK") { &["BYE", "ACK"] } else { &[] };
        let of_call = |packet: &Vec<u8>| {
            if always.contains(&method(&read(packet)).unwrap().as_str()) { 'p' } else { left }
        };
        let expected: String = calls().iter().map(of_call).chain(without.chars()).collect();
        let trial = trial("sample", &arrived, options);
        assert_eq!(trial.verdicts(), expected, "{options:?}");
        let without_id = if options.contains(&"--set always=OPTIONS") { 1 } else { 2 };
        let line = format!("packets{{became=\"without_id\"}} {without_id}");
        assert!(trial.metrics().contains(&line), "{:?}", trial.metrics());
    }
}

#[test]
fn legs_that_correlate_brought_together_are_kept_or_left_out_together() {
    // With this seed the first leg is kept, and the second by its own id would not be.
    let seed = (0..).map(|n| n.to_string()).find(|seed| keeps(seed, CALL_IDS[0], 50) && !keeps(seed, CALL_IDS[1], 50));
    let config = format!("config = {{ rate = \"50%\", seed = \"{}\" }}\n{UNHURRIED}", seed.unwrap());
    for (chain, arrive) in [("\"sample\"", 6), ("\"correlate\", \"sample\"", 12)] {
        let sink = UdpSink::new();
        let config = [
            BOTH_LISTENERS,
            &collector("out", &sink.to()),
            &shipped("sample", &config),
            &shipped("correlate", UNHURRIED),
            &format!("[[tenant]]\nname = \"default\"\nfilters = [{chain}]\nroute = [\"out\"]\n"),
        ];
        let gateway = Gateway::start(&config.concat());
        let agent = udp_agent(gateway.listener("udp"));
        for packet in calls() {
            let names = format!("Call-ID: {}\r\nX-CID: {}", CALL_IDS[1], CALL_IDS[0]);
            let is_second = id(&read(&packet)).unwrap() == CALL_IDS[1];
            let packet =
                if is_second { replaced(&packet, &format!("Call-ID: {}", CALL_IDS[1]), &names) } else { packet };
            agent.send(&packet).unwrap();
        }
        gateway.await_metric(PACKETS, &[("became", "kept")], arrive);
        for packet in sink.take(usize::try_from(arrive).unwrap()) {
            assert_eq!(id(&read(&packet)).unwrap(), CALL_IDS[0]);
        }
        gateway.await_metric(DROPPED, &[], 12 - arrive);
        assert!(sink.is_empty());
        gateway.stop();
    }
}

#[test]
fn reports_of_a_call_go_with_it_although_they_are_no_sip() {
    let report = with(&exchange("rtpengine-v3-udp")[0], 0x11, CALL_IDS[0].as_bytes());
    let packets: Vec<(u64, Vec<u8>)> =
        calls().into_iter().take(6).chain([report]).map(|packet| (1_795_418_300_000_000, packet)).collect();
    for seed in 0..10 {
        let fares = if keeps(&seed.to_string(), CALL_IDS[0], 50) { "p" } else { "d" };
        let trial = trial("sample", &packets, &["--set rate=50%", &format!("--set seed={seed}")]);
        assert_eq!(trial.verdicts(), fares.repeat(7), "{seed}");
    }
}
