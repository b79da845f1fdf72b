use std::io::Write;
use std::net::TcpStream;

use hepgate::wire::{ChunkId, decode, deflate};

use crate::corpus;
use crate::support::gateway::Gateway;
use crate::support::guest;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter};

const ROUTE: &str = "[[tenant]]\nname = \"default\"\nroute = [\"out\"]\n";

/// A UDP and a TCP listener with these further keys, and a collector `out`.
fn start(keys: &str) -> (Gateway, UdpSink) {
    let out = UdpSink::new();
    let listener =
        |name: &str| format!("[[listener]]\nname = \"{name}\"\nlisten = \"hep_{name}:127.0.0.1:0\"\n{keys}\n");
    let config = [listener("udp"), listener("tcp"), collector("out", &out.to()), ROUTE.to_owned()];
    (Gateway::start(&config.concat()), out)
}

fn frames(name: &str) -> Vec<Vec<u8>> {
    let exchange = corpus::exchanges().into_iter().find(|exchange| exchange.name == name).unwrap();
    exchange.frames.into_iter().map(|frame| frame.octets).collect()
}

/// A HEP3 packet of these generic chunks.
fn hep3(chunks: &[(u16, &[u8])]) -> Vec<u8> {
    let mut octets = b"HEP3\0\0".to_vec();
    for (kind, body) in chunks {
        octets.extend_from_slice(&[0, 0]);
        octets.extend_from_slice(&kind.to_be_bytes());
        octets.extend_from_slice(&u16::try_from(body.len() + 6).unwrap().to_be_bytes());
        octets.extend_from_slice(body);
    }
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    octets[4..6].copy_from_slice(&length);
    octets
}

#[test]
fn an_agent_id_that_sngrep_swapped_is_put_right_if_its_listener_says_so() {
    let (gateway, out) = start("agent_id = \"upper-half\"");
    let agent = udp_agent(gateway.listener("udp"));
    let mut corrected = 0;
    for octets in frames("sngrep-v3-udp") {
        agent.send(&octets).unwrap();
        let sent = out.next();
        // 3333 came as 0d 05 00 00. Nothing but these octets is changed.
        let at = octets.windows(10).position(|chunk| chunk == [0, 0, 0, 0x0c, 0, 10, 0x0d, 5, 0, 0]).unwrap();
        assert_eq!(sent[at + 6..at + 10], [0, 0, 0x0d, 5]);
        assert_eq!((&sent[..at + 6], &sent[at + 10..]), (&octets[..at + 6], &octets[at + 10..]));
        assert_eq!(decode(sent.into()).unwrap().head().agent_id, 3_333);
        corrected += 1;
    }
    assert!(corrected > 5);
    // Its HEP2 is right, and so is a sender that writes the id as it should.
    let right = hep3(&[(0x0c, &[0, 0, 7, 0xd1]), (0x0f, b"right")]);
    for octets in frames("sngrep-v2-udp").into_iter().chain([right]) {
        agent.send(&octets).unwrap();
        assert_eq!(out.next(), octets);
    }
    gateway.stop();
}

#[test]
fn an_agent_id_that_sipgrep_sent_little_endian_is_put_right_if_its_listener_says_so() {
    let (gateway, out) = start("agent_id = \"little-endian\"");
    let came = hep3(&[(0x0c, &[0x65, 0, 0, 0]), (0x0f, b"sipgrep")]);
    let meant = hep3(&[(0x0c, &[0, 0, 0, 0x65]), (0x0f, b"sipgrep")]);
    udp_agent(gateway.listener("udp")).send(&came).unwrap();
    assert_eq!(out.next(), meant);
    TcpStream::connect(gateway.listener("tcp")).unwrap().write_all(&came).unwrap();
    assert_eq!(out.next(), meant);
    gateway.stop();
}

#[test]
fn an_agent_id_is_left_as_it_was_sent_if_nobody_says_otherwise() {
    let (gateway, out) = start("");
    let agent = udp_agent(gateway.listener("udp"));
    let sipgrep = hep3(&[(0x0c, &[0x65, 0, 0, 0]), (0x0f, b"sipgrep")]);
    for octets in frames("sngrep-v3-udp").into_iter().take(1).chain([sipgrep]) {
        agent.send(&octets).unwrap();
        assert_eq!(out.next(), octets);
    }
    gateway.stop();
}

#[test]
fn a_packet_without_an_agent_id_gets_none_from_its_correction() {
    let (gateway, out) = start("agent_id = \"little-endian\"");
    let came = hep3(&[(0x0f, b"nobody")]);
    udp_agent(gateway.listener("udp")).send(&came).unwrap();
    let sent = out.next();
    assert_eq!(sent, came);
    assert_eq!(decode(sent.into()).unwrap().chunk(ChunkId::AGENT_ID), None);
    gateway.stop();
}

/// A SIP packet whose payload is in 0x10, as captagent sends it, with addresses and what HEP2 needs.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let rest: [(u16, &[u8]); 4] = [(0x02, &[17]), (0x03, &[192, 0, 2, 1]), (0x04, &[192, 0, 2, 2]), (0x0b, &[1])];
    hep3(&[&rest[..], &[(0x10, payload)]].concat())
}

fn zlib(payload: &[u8]) -> Vec<u8> {
    deflate(payload).unwrap()
}

#[test]
fn filters_read_what_captagent_compressed_and_an_unchanged_packet_leaves_as_it_came() {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "first", BY_FIRST_OCTET);
    let tenant = "[[tenant]]\nname = \"default\"\nfilters = [\"first\"]\nroute = [\"out\"]\n";
    let config = [BOTH_LISTENERS, &collector("out", &out.to()), &filter("first", ""), tenant];
    let gateway = Gateway::start_in(folder, &config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let (first, last) = (compressed(&zlib(b"pass 1")), compressed(&zlib(b"pass 2")));
    // What cannot be inflated reads as it came.
    let unreadable = compressed(b"skip is not compressed");
    for octets in [&first, &compressed(&zlib(b"skip")), &compressed(&zlib(b"drop")), &last] {
        agent.send(octets).unwrap();
    }
    assert_eq!(out.take(2), [first, last]);
    agent.send(&unreadable).unwrap();
    for (metric, value) in [("skipped", 2), ("filter_dropped", 1), ("routed", 2)] {
        gateway.await_metric(&format!("hepgate_tenant_{metric}_packets_total"), &[], value);
    }
    assert!(out.is_empty());
    gateway.stop();
}

#[test]
fn a_compressed_payload_leaves_inflated_in_a_version_that_holds_none() {
    let out = UdpSink::new();
    let to = format!("{}version = \"2\"\n", collector("out", &out.to()));
    let gateway = Gateway::start(&[BOTH_LISTENERS, &to, ROUTE].concat());
    udp_agent(gateway.listener("udp")).send(&compressed(&zlib(b"OPTIONS sip:a SIP/2.0"))).unwrap();
    let sent = decode(out.next().into()).unwrap();
    assert_eq!((sent.head().version.number(), sent.payload()), (2, &b"OPTIONS sip:a SIP/2.0"[..]));
    gateway.stop();
}

/// gzip with one stored block, of which the checksum is that of these very octets.
fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for octet in octets {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let length = u16::try_from(octets.len()).unwrap();
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    gzip.extend_from_slice(&length.to_le_bytes());
    gzip.extend_from_slice(&(!length).to_le_bytes());
    gzip.extend_from_slice(octets);
    gzip.extend_from_slice(&(!crc).to_le_bytes());
    gzip.extend_from_slice(&u32::from(length).to_le_bytes());
    gzip
}

#[test]
fn a_whole_packet_that_heplify_sends_in_gzip_is_refused_by_name_or_unpacked() {
    let rejected = "hepgate_listener_rejected_packets_total";
    let whole = hep3(&[(0x0f, b"from heplify")]);
    for (keys, unpacked) in [("", 0), ("gzip_frames = \"unpack\"\n", 1)] {
        let out = UdpSink::new();
        let listener = format!("[[listener]]\nname = \"udp\"\nlisten = \"hep_udp:127.0.0.1:0\"\n{keys}");
        let gateway = Gateway::start(&[listener, collector("out", &out.to()), ROUTE.to_owned()].concat());
        let agent = udp_agent(gateway.listener("udp"));
        agent.send(&gzip(&whole)).unwrap();
        // Gzip in gzip, and gzip that is not whole, are refused either way.
        agent.send(&gzip(&gzip(&whole))).unwrap();
        agent.send(&gzip(&whole)[..20]).unwrap();
        agent.send(&hep3(&[(0x0f, b"last")])).unwrap();
        if unpacked == 1 {
            assert_eq!(out.next(), whole);
        }
        assert_eq!(out.next(), hep3(&[(0x0f, b"last")]));
        gateway.await_metric(rejected, &[("reason", "gzip")], 3 - unpacked);
        gateway.stop();
    }
}
