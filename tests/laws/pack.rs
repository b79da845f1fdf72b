//! What `Pack` and `repack` promise.

use std::net::SocketAddr;

use bytes::Bytes;
use hepgate::wire::{
    CapturedAt, ChunkId, DATAGRAM_OCTETS_MAX, Missing, PACKET_OCTETS_MAX, Pack, PackError, Packet, Payload,
    PayloadType, Vendor, Version, decode, repack,
};

use super::decode::sound;
use super::dice::Dice;
use super::draft::any_flow;

const VERSIONS: [Version; 3] = [Version::Hep1, Version::Hep2, Version::Hep3];

/// What a packet is given that has neither time nor agent id. Numbers that nothing else has.
const MISSING: Missing =
    Missing { captured_at: CapturedAt { seconds: 0x5151_5151, microseconds: 0x0001_5151 }, agent_id: 0x5252 };

/// A packet that could be made says what it was made of; one that could not be made really cannot be.
pub(crate) fn packing(octets: &[u8]) {
    let pack = any_pack(&mut Dice::new(octets));
    for version in VERSIONS {
        match pack.encode(version) {
            Ok(octets) => {
                let packet = decode(octets.clone()).unwrap();
                assert_eq!(packet.octets(), &octets);
                sound(&packet);
                says_its_parts(&packet, &pack, version);
            }
            Err(error) => true_refusal(&error, &pack, version),
        }
    }
}

/// Parts of any kind, most of which fit together.
fn any_pack(dice: &mut Dice<'_>) -> Pack {
    let flow = (!dice.u8().is_multiple_of(8)).then(|| any_flow(dice));
    let captured_at =
        (!dice.u8().is_multiple_of(4)).then(|| CapturedAt { seconds: dice.u32(), microseconds: dice.u32() });
    let payload = (!dice.u8().is_multiple_of(8)).then(|| {
        let length = dice.length();
        dice.octets(length).into()
    });
    let chunks = (0..dice.u8() % 4).map(|_| any_further_chunk(dice)).collect();
    Pack {
        ip_protocol: dice.u8(),
        flow,
        captured_at,
        payload_type: if dice.u8().is_multiple_of(2) { PayloadType::SIP } else { PayloadType(dice.u8()) },
        agent_id: if dice.u8().is_multiple_of(2) { u32::from(dice.u16()) } else { dice.u32() },
        chunks,
        payload,
    }
}

/// A chunk that says nothing that another field of [`Pack`] says.
fn any_further_chunk(dice: &mut Dice<'_>) -> (ChunkId, Bytes) {
    let id = match dice.u8() % 4 {
        0 => ChunkId::CORRELATION_ID,
        1 => ChunkId::VLAN_ID,
        2 => ChunkId { vendor: Vendor(1 + dice.u16() % 0x1000), kind: dice.u16() % 32 },
        _ => ChunkId::AGENT_NAME,
    };
    let length = if id == ChunkId::VLAN_ID && dice.u8() < 200 { 2 } else { dice.length() };
    (id, dice.octets(length).into())
}

fn says_its_parts(packet: &Packet, pack: &Pack, version: Version) {
    let head = packet.head();
    assert_eq!(head.version, version);
    assert_eq!(head.ip_protocol, pack.ip_protocol);
    assert_eq!(flow(packet), pack.flow);
    assert_eq!(head.payload_type, pack.payload_type);
    assert_eq!(matches!(head.payload, Payload::Plain(_)), pack.payload.is_some());
    assert_eq!(packet.payload(), pack.payload.as_deref().unwrap_or_default());
    let (captured_at, agent_id) = match version {
        Version::Hep1 => (None, 0),
        Version::Hep2 => (Some(pack.captured_at.unwrap_or_default()), pack.agent_id),
        Version::Hep3 => (pack.captured_at, pack.agent_id),
    };
    assert_eq!((head.captured_at, head.agent_id), (captured_at, agent_id));
    if let Some((source, _)) = pack.flow {
        assert_eq!(head.family, if source.is_ipv6() { 10 } else { 2 });
    }
    if version != Version::Hep3 {
        assert_eq!(packet.octets()[1], if head.family == 10 { 40 } else { 16 }, "hp_l");
        return;
    }
    // The further chunks in their order, all of them, behind what says what the packet is, before the payload.
    let mut expected: Vec<_> = pack.chunks.iter().map(|(id, body)| (*id, &body[..])).collect();
    expected.extend(pack.payload.as_ref().map(|payload| (ChunkId::PAYLOAD, &payload[..])));
    let chunks: Vec<_> = packet.chunks().map(|chunk| (chunk.id, chunk.body)).collect();
    assert_eq!(chunks[chunks.len() - expected.len()..], expected);
    let (flow_chunks, time_chunks) =
        (if pack.flow.is_some() { 5 } else { 0 }, if captured_at.is_some() { 2 } else { 0 });
    assert_eq!(chunks.len() - expected.len(), 3 + flow_chunks + time_chunks);
}

fn true_refusal(error: &PackError, pack: &Pack, version: Version) {
    assert!(!error.to_string().is_empty());
    match *error {
        PackError::TooLong { version: of, octets, octets_max } => {
            assert_eq!(of, version);
            assert_eq!((octets, octets_max), length(pack, version));
            assert!(octets > octets_max);
        }
        PackError::Width { id, actual, needed } => {
            assert!(pack.chunks.iter().any(|(other, body)| (*other, body.len()) == (id, actual)));
            assert!(id.width() == Some(needed) && needed != actual && version == Version::Hep3);
        }
        PackError::MixedFamilies { source_address, destination_address } => {
            let (source, destination) = pack.flow.unwrap();
            assert_eq!((source.ip(), destination.ip()), (source_address, destination_address));
            assert_ne!(source.is_ipv4(), destination.is_ipv4());
        }
        PackError::NoAddresses(of) => assert!(of == version && version != Version::Hep3 && pack.flow.is_none()),
        PackError::NoPayload(of) => assert!(of == version && version != Version::Hep3 && pack.payload.is_none()),
        PackError::NotSip { version: of, payload_type } => {
            assert!(of == version && version != Version::Hep3);
            assert!(payload_type == pack.payload_type && payload_type != PayloadType::SIP);
        }
        PackError::AgentId { agent_id } => {
            assert!(agent_id == pack.agent_id && agent_id > 0xffff && version == Version::Hep2);
        }
    }
}

/// Octets that the packet would have, and may have.
fn length(pack: &Pack, version: Version) -> (usize, usize) {
    let address = |wide, narrow| pack.flow.map_or(0, |(source, _)| if source.is_ipv6() { wide } else { narrow });
    let payload = pack.payload.as_ref().map_or(0, Bytes::len);
    match version {
        Version::Hep1 => (8 + address(32, 8) + payload, DATAGRAM_OCTETS_MAX),
        Version::Hep2 => (8 + address(32, 8) + 12 + payload, DATAGRAM_OCTETS_MAX),
        Version::Hep3 => {
            let flow = pack.flow.map_or(0, |_| 7 + 8 + 8) + address(22 + 22, 10 + 10);
            let time = pack.captured_at.map_or(0, |_| 10 + 10);
            let further = pack.chunks.iter().map(|(_, body)| 6 + body.len()).sum::<usize>();
            let payload = if pack.payload.is_some() { 6 + payload } else { 0 };
            (6 + flow + 7 + time + 7 + 10 + further + payload, PACKET_OCTETS_MAX)
        }
    }
}

/// A packet in another version says the same, as far as the version can; HEP1 and HEP2 come back from HEP3 as they were.
pub(crate) fn repacking(octets: &[u8]) {
    let Ok(packet) = decode(Bytes::copy_from_slice(octets)) else { return };
    for version in VERSIONS {
        match repack(&packet, version, MISSING) {
            Ok(octets) if version == packet.head().version => assert_eq!(&octets, packet.octets()),
            Ok(octets) => {
                let other = decode(octets).unwrap();
                sound(&other);
                says_the_same(&packet, &other, version);
                there_and_back(&packet, &other);
            }
            Err(error) => true_refusal_to_repack(&error, &packet, version),
        }
    }
}

fn says_the_same(packet: &Packet, other: &Packet, version: Version) {
    let (from, to) = (packet.head(), other.head());
    assert_eq!(to.version, version);
    assert_eq!(to.ip_protocol, from.ip_protocol);
    assert_eq!(flow(other), flow(packet));
    assert_eq!(to.payload_type, from.payload_type);
    assert_eq!(other.payload(), if is_readable(packet) { packet.readable_payload() } else { &[] });
    assert_eq!(is_readable(other), is_readable(packet));
    assert!(!to.ambiguous);
    let agent_id = if from.version == Version::Hep1 { MISSING.agent_id } else { from.agent_id };
    let said = (Some(from.captured_at.unwrap_or(MISSING.captured_at)), agent_id);
    assert_eq!((to.captured_at, to.agent_id), if version == Version::Hep1 { (None, 0) } else { said });
}

fn there_and_back(packet: &Packet, other: &Packet) {
    let version = packet.head().version;
    if version == Version::Hep3 || other.head().version != Version::Hep3 {
        return;
    }
    let back = repack(other, version, MISSING).unwrap();
    let mut expected = packet.octets().to_vec();
    // What HEP3 has no place for: hp_l and HEP2's padding. Both are written as OpenSIPS does.
    let time_at = if packet.head().family == 10 { 40 } else { 16 };
    expected[1] = if packet.head().family == 10 { 40 } else { 16 };
    if version == Version::Hep2 {
        expected[time_at + 10..time_at + 12].fill(0);
    }
    assert_eq!(back, expected);
}

fn true_refusal_to_repack(error: &PackError, packet: &Packet, version: Version) {
    let head = packet.head();
    let legacy = version != Version::Hep3;
    assert_ne!(version, head.version);
    match *error {
        PackError::TooLong { octets, octets_max, .. } => assert!(octets > octets_max),
        PackError::Width { .. } => panic!("{error} of chunks that were left behind"),
        PackError::MixedFamilies { source_address, destination_address } => {
            assert_eq!((head.source, head.destination), (Some(source_address), Some(destination_address)));
            assert_ne!(source_address.is_ipv4(), destination_address.is_ipv4());
        }
        PackError::NoAddresses(_) => assert!(legacy && (head.source.is_none() || head.destination.is_none())),
        PackError::NoPayload(_) => assert!(legacy && !is_readable(packet)),
        PackError::NotSip { payload_type, .. } => {
            assert!(legacy && payload_type == head.payload_type && payload_type != PayloadType::SIP);
        }
        PackError::AgentId { agent_id } => {
            assert!(version == Version::Hep2 && agent_id == head.agent_id && agent_id > 0xffff);
        }
    }
}

/// Plain, or compressed in a way that is known.
fn is_readable(packet: &Packet) -> bool {
    packet.head().payload != Payload::Absent && !matches!(packet.inflated(), Some(Err(_)))
}

fn flow(packet: &Packet) -> Option<(SocketAddr, SocketAddr)> {
    let head = packet.head();
    Some((SocketAddr::new(head.source?, head.source_port), SocketAddr::new(head.destination?, head.destination_port)))
}
