use std::io::Write;
use std::net::TcpStream;

use hepgate::wire::{ChunkId, decode, deflate};

use crate::corpus;
use crate::support::gateway::Gateway;
use crate::support::guest;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, ROUTE, collector, filter};

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

/// What a sender says reads as it was meant, and leaves as it came.
fn passes(octets: &[u8]) -> hepgate::wire::Packet {
    let (gateway, out) = start("");
    udp_agent(gateway.listener("udp")).send(octets).unwrap();
    assert_eq!(out.next(), octets);
    gateway.stop();
    decode(octets.to_vec().into()).unwrap()
}

fn text(packet: &hepgate::wire::Packet, id: ChunkId) -> Option<String> {
    let body = packet.chunks().find(|chunk| chunk.id == id)?.body.to_vec();
    Some(String::from_utf8(body).unwrap())
}

#[test]
fn asterisk_always_fills_the_correlation_id_and_has_its_name_in_0x13() {
    let packet = passes(&hep3(&[
        (0x01, &[2]),
        (0x02, &[17]),
        (0x03, &[192, 0, 2, 1]),
        (0x04, &[192, 0, 2, 2]),
        (0x07, &[0x13, 0xc4]),
        (0x08, &[0x13, 0xc4]),
        (0x09, &[0x6b, 0x49, 0xd2, 0]),
        (0x0a, &[0, 0, 0, 5]),
        (0x0b, &[1]),
        (0x0c, &[0, 0, 0, 7]),
        (0x0e, b"key"),
        (0x11, b"call-1"),
        (0x13, b"asterisk"),
        (0x0f, b"OPTIONS sip:a SIP/2.0\r\n\r\n"),
    ]));
    assert_eq!(text(&packet, ChunkId::CORRELATION_ID).as_deref(), Some("call-1"));
    assert_eq!(text(&packet, ChunkId::AGENT_NAME).as_deref(), Some("asterisk"));
    assert_eq!((packet.head().agent_id, packet.head().source_port), (7, 5_060));
}

#[test]
fn rtpengine_sends_rtcp_as_json_of_type_5_over_udp_whatever_it_was() {
    for octets in frames("rtpengine-v3-udp") {
        let packet = passes(&octets);
        assert_eq!((packet.head().payload_type.0, packet.head().ip_protocol), (5, 17));
        assert!(text(&packet, ChunkId::CORRELATION_ID).is_some());
        let report: serde_json::Value = serde_json::from_slice(packet.payload()).unwrap();
        assert!(report["ssrc"].is_number(), "{report}");
    }
}

#[test]
fn kamailio_sends_its_key_and_logs_of_type_100() {
    let packets: Vec<_> = frames("kamailio-siptrace-v3-udp").iter().map(|octets| passes(octets)).collect();
    assert!(packets.iter().all(|packet| text(packet, ChunkId::AUTH_KEY).as_deref() == Some("kamkey")));
    assert!(packets.iter().any(|packet| packet.head().payload_type.0 == 100));
    assert!(packets.iter().any(|packet| packet.head().payload_type.0 == 1));
}

#[test]
fn opensips_sends_further_correlation_as_json_behind_the_payload_and_packets_without_one() {
    let packet = passes(&hep3(&[
        (0x01, &[2]),
        (0x02, &[6]),
        (0x0b, &[0x58]),
        (0x0f, b"GET / HTTP/1.1"),
        (0x65, br#"{"sip":"call-1","rest":"7"}"#),
        (0x11, b"call-1"),
    ]));
    assert_eq!(packet.payload(), b"GET / HTTP/1.1");
    assert_eq!(text(&packet, ChunkId::EXTRA_CORRELATION).as_deref(), Some(r#"{"sip":"call-1","rest":"7"}"#));
    assert_eq!(text(&packet, ChunkId::CORRELATION_ID).as_deref(), Some("call-1"));
    let packet = passes(&hep3(&[(0x01, &[2]), (0x02, &[6]), (0x0b, &[0x60]), (0x65, br#"{"sip":"a","rest":"b"}"#)]));
    assert_eq!((packet.head().payload, packet.payload().len()), (hepgate::wire::Payload::Absent, 0));
}

/// sofia-sip, which FreeSWITCH is made of, counts the time into `hp_l`: 28 and 52.
#[test]
fn freeswitch_s_hep1_and_hep2_are_read_whatever_length_their_header_states() {
    let mut v4 = vec![1, 28, 2, 17, 0x13, 0xc4, 0x13, 0xc5, 192, 0, 2, 1, 192, 0, 2, 2];
    let mut hep2 = v4.clone();
    hep2[0] = 2;
    hep2.extend_from_slice(&[0, 0xd2, 0x49, 0x6b, 5, 0, 0, 0, 7, 0, 0, 0]);
    let mut v6 = vec![1, 52, 10, 17, 0x13, 0xc4, 0x13, 0xc5];
    v6.extend_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v6.extend_from_slice(&"2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    for octets in [&mut v4, &mut hep2, &mut v6] {
        octets.extend_from_slice(b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        let packet = passes(octets);
        assert_eq!(packet.payload(), b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        assert_eq!((packet.head().source_port, packet.head().destination_port), (5_060, 5_061));
    }
    assert_eq!(decode(hep2.into()).unwrap().head().captured_at.unwrap().seconds, 0x6b49_d200);
}

/// By its README, hep-js says family 0, time 0 and type 0, and cuts UTF-8 in the middle of a letter.
#[test]
fn hep_js_s_family_time_and_type_of_0_are_carried() {
    let packet = passes(&hep3(&[
        (0x01, &[0]),
        (0x02, &[0]),
        (0x03, &[127, 0, 0, 1]),
        (0x04, &[127, 0, 0, 1]),
        (0x09, &[0; 4]),
        (0x0a, &[0; 4]),
        (0x0b, &[0]),
        (0x0f, b"caf\xc3"),
    ]));
    assert_eq!((packet.head().payload_type.0, packet.payload()), (0, &b"caf\xc3"[..]));
    assert_eq!(packet.head().source.unwrap().to_string(), "127.0.0.1");
}

/// heplify may send protobuf on the port of HEP: its first field is the version, as a number.
#[test]
fn heplify_s_protobuf_is_refused_and_counted_and_costs_no_other_packet() {
    let (gateway, out) = start("");
    let agent = udp_agent(gateway.listener("udp"));
    let mut protobuf = vec![0x08, 3, 0x10, 17, 0x1a, 9];
    protobuf.extend_from_slice(b"192.0.2.1");
    protobuf.extend_from_slice(&[0x22, 9]);
    protobuf.extend_from_slice(b"192.0.2.2");
    agent.send(&protobuf).unwrap();
    agent.send(&hep3(&[(0x0f, b"next")])).unwrap();
    assert_eq!(out.next(), hep3(&[(0x0f, b"next")]));
    gateway.await_metric("hepgate_listener_rejected_packets_total", &[("reason", "not-hep")], 1);
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    stream.write_all(&protobuf).unwrap();
    gateway.await_metric("hepgate_listener_closed_connections_total", &[("reason", "not-hep")], 1);
    gateway.stop();
}
