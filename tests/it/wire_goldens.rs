//! Packets of the specification and of real senders read as independent decoders read them.

use std::net::IpAddr;

use bytes::Bytes;
use hepgate::wire::{
    CapturedAt, ChunkId, Draft, Framer, Head, Pack, Packet, Payload, PayloadType, Span, Version, decode,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::corpus;

/// The example packet of the specification (it is in every revision since 11), put together from the values printed
/// there and compared with the copy that the tests of an Erlang decoder quote.
const EXAMPLE: &[&[u8]] = &[
    b"HEP3\x00\x71",
    b"\x00\x00\x00\x01\x00\x07\x02",
    b"\x00\x00\x00\x02\x00\x07\x11",
    b"\x00\x00\x00\x03\x00\x0a\xd4\xca\x00\x01",
    b"\x00\x00\x00\x04\x00\x0a\x52\x74\x00\xd3",
    b"\x00\x00\x00\x07\x00\x08\x2e\xea",
    b"\x00\x00\x00\x08\x00\x08\x13\xc4",
    b"\x00\x00\x00\x09\x00\x0a\x4e\x49\x82\xcb",
    b"\x00\x00\x00\x0a\x00\x0a\x00\x01\xd4\xc0",
    b"\x00\x00\x00\x0b\x00\x07\x01",
    b"\x00\x00\x00\x0c\x00\x0a\x00\x00\x00\xe4",
    b"\x00\x00\x00\x0f\x00\x14INVITE sip:bob",
];

#[test]
fn the_example_of_the_specification_says_what_the_specification_says_it_says() {
    let packet = decode(EXAMPLE.concat().into()).unwrap();
    let expected = Head {
        version: Version::Hep3,
        family: 2,
        ip_protocol: 17,
        source: Some("212.202.0.1".parse().unwrap()),
        destination: Some("82.116.0.211".parse().unwrap()),
        source_port: 12010,
        destination_port: 5060,
        captured_at: Some(CapturedAt { seconds: 1_313_440_459, microseconds: 120_000 }),
        payload_type: PayloadType::SIP,
        agent_id: 228,
        payload: Payload::Plain(Span::new(99, 113)),
        correlation_id: None,
        ambiguous: false,
    };
    assert_eq!(packet.head(), &expected);
    assert_eq!(packet.payload(), b"INVITE sip:bob");
    assert_eq!(packet.octets(), &EXAMPLE.concat());
}

#[test]
fn the_example_of_the_specification_is_what_we_make_of_its_parts() {
    let pack = Pack {
        ip_protocol: 17,
        flow: Some(("212.202.0.1:12010".parse().unwrap(), "82.116.0.211:5060".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1_313_440_459, microseconds: 120_000 }),
        payload_type: PayloadType::SIP,
        agent_id: 228,
        chunks: Vec::new(),
        payload: Some(Bytes::from_static(b"INVITE sip:bob")),
    };
    assert_eq!(pack.encode(Version::Hep3).unwrap(), EXAMPLE.concat());
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    name: String,
    frames: Vec<ExpectedFrame>,
    #[serde(rename = "check")]
    _check: serde_json::Value,
}

/// Every field that the independent decoder wrote; a field that is not compared would be an unknown one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFrame {
    n: usize,
    frame_len: usize,
    version: u8,
    family: u8,
    proto: u8,
    src_ip: IpAddr,
    dst_ip: IpAddr,
    src_port: u16,
    dst_port: u16,
    ts_sec: Option<u32>,
    ts_usec: Option<u32>,
    capture_id: Option<u32>,
    payload_len: usize,
    payload_sha256: String,
    payload_first_line: String,
    // HEP3
    total_len: Option<usize>,
    proto_type: Option<u8>,
    auth_key: Option<String>,
    correlation_id: Option<String>,
    chunks: Option<Vec<ExpectedChunk>>,
    // HEP1 and HEP2
    hp_l: Option<u8>,
    header_len: Option<usize>,
    pad: Option<String>,
}

/// Vendor, type, length of the body, and the body in hex if it is short.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectedChunk {
    Short(u16, u16, usize, String),
    Long(u16, u16, usize),
}

#[test]
fn every_packet_of_real_senders_reads_as_an_independent_decoder_read_it() {
    let exchanges = corpus::exchanges();
    assert_eq!(exchanges.iter().map(|exchange| exchange.frames.len()).sum::<usize>(), 76);
    for exchange in exchanges {
        let expected: Expected = serde_json::from_str(&corpus::expected(&exchange.name)).unwrap();
        assert_eq!(expected.name, exchange.name);
        assert_eq!(expected.frames.len(), exchange.frames.len());
        for (n, (frame, expected)) in exchange.frames.into_iter().zip(expected.frames).enumerate() {
            let packet = decode(frame.octets.into()).unwrap();
            assert_eq!(expected.n, n);
            println!("{} {n}", exchange.name);
            compare(&packet, &expected);
            match packet.head().version {
                Version::Hep3 => compare_hep3(&packet, &expected),
                Version::Hep1 | Version::Hep2 => compare_legacy(&packet, &expected),
            }
        }
    }
}

fn compare(packet: &Packet, expected: &ExpectedFrame) {
    let head = packet.head();
    assert_eq!(packet.octets().len(), expected.frame_len);
    assert_eq!(head.version.number(), expected.version);
    assert_eq!(head.family, expected.family);
    assert_eq!(head.ip_protocol, expected.proto);
    assert_eq!(head.source, Some(expected.src_ip));
    assert_eq!(head.destination, Some(expected.dst_ip));
    assert_eq!(head.source_port, expected.src_port);
    assert_eq!(head.destination_port, expected.dst_port);
    assert_eq!(head.captured_at.map(|at| at.seconds), expected.ts_sec);
    assert_eq!(head.captured_at.map(|at| at.microseconds), expected.ts_usec);
    assert_eq!(head.agent_id, expected.capture_id.unwrap_or(0));
    assert!(matches!(head.payload, Payload::Plain(_)));
    assert!(!head.ambiguous);
    let payload = packet.payload();
    assert_eq!(payload.len(), expected.payload_len);
    assert_eq!(hex(&Sha256::digest(payload)), expected.payload_sha256);
    assert_eq!(first_line(payload), expected.payload_first_line);
}

fn compare_hep3(packet: &Packet, expected: &ExpectedFrame) {
    assert_eq!(Some(packet.octets().len()), expected.total_len);
    assert_eq!(Some(packet.head().payload_type.0), expected.proto_type);
    assert_eq!(packet.chunk(ChunkId::AUTH_KEY), expected.auth_key.as_deref().map(str::as_bytes));
    assert_eq!(packet.correlation_id(), expected.correlation_id.as_deref().unwrap_or_default().as_bytes());
    assert_eq!(packet.head().correlation_id.is_some(), expected.correlation_id.is_some());
    let expected = expected.chunks.as_ref().unwrap();
    assert_eq!(packet.chunks().count(), expected.len());
    for (chunk, expected) in packet.chunks().zip(expected) {
        let (vendor, kind, octets) = match expected {
            ExpectedChunk::Short(vendor, kind, octets, body) => {
                assert_eq!(&hex(chunk.body), body);
                (*vendor, *kind, *octets)
            }
            ExpectedChunk::Long(vendor, kind, octets) => (*vendor, *kind, *octets),
        };
        assert_eq!((chunk.id.vendor.0, chunk.id.kind, chunk.body.len()), (vendor, kind, octets));
    }
}

fn compare_legacy(packet: &Packet, expected: &ExpectedFrame) {
    let header_octets = packet.octets().len() - packet.payload().len();
    assert_eq!(Some(header_octets), expected.header_len);
    assert_eq!(Some(packet.octets()[1]), expected.hp_l);
    let pad = (packet.head().version == Version::Hep2).then(|| hex(&packet.octets()[header_octets - 2..header_octets]));
    assert_eq!(pad, expected.pad);
    assert_eq!((packet.head().payload_type, expected.proto_type), (PayloadType::SIP, None));
}

/// The first line as the independent decoder writes it: up to CR LF, of which at most 100 characters.
fn first_line(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.split("\r\n").next().unwrap_or_default().chars().take(100).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn every_packet_of_real_senders_leaves_as_it_came() {
    for frame in corpus::exchanges().into_iter().flat_map(|exchange| exchange.frames) {
        let packet = decode(frame.octets.clone().into()).unwrap();
        assert_eq!(packet.octets(), &frame.octets);
        assert_eq!(Draft::new(&packet).into_packet().octets(), &frame.octets);
    }
}

#[test]
fn a_tcp_exchange_of_real_senders_is_cut_into_its_packets() {
    let mut exchanges = 0;
    for exchange in corpus::exchanges().into_iter().filter(|exchange| exchange.frames.iter().all(|frame| frame.is_tcp))
    {
        exchanges += 1;
        let stream: Vec<u8> = exchange.frames.iter().flat_map(|frame| frame.octets.clone()).collect();
        let mut framer = Framer::new(2);
        let mut packets = Vec::new();
        // Reads of an Ethernet segment each: a packet of these lies in at most two of them.
        for read in stream.chunks(1_448) {
            framer.push(Bytes::copy_from_slice(read));
            while let Some(packet) = framer.next_packet().unwrap() {
                packets.push(packet);
            }
        }
        assert_eq!(framer.partial_octets(), 0);
        assert!(packets.iter().eq(exchange.frames.iter().map(|frame| &frame.octets)), "{}", exchange.name);
    }
    assert_eq!(exchanges, 2);
}
