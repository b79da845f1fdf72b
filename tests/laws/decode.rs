//! What `decode` promises.

use std::net::IpAddr;

use bytes::Bytes;
use hepgate::wire::{
    CHUNK_HEADER_OCTETS, Chunk, ChunkId, HEADER_OCTETS, MAGIC_EEP3, MAGIC_HEP3, Packet, Payload, PayloadType, Rejected,
    Vendor, Version, decode,
};

/// Whatever the octets are, `decode` gives a packet that is sound and made of these very octets, or says what is wrong
/// with them, with figures that are true.
pub(crate) fn decoding(octets: &[u8]) {
    let input = Bytes::copy_from_slice(octets);
    match decode(input.clone()) {
        Ok(packet) => {
            assert_eq!(packet.octets().as_ptr(), input.as_ptr(), "the packet was copied");
            assert!(octets.starts_with(packet.octets()), "the packet is not the beginning of its input");
            sound(&packet);
            nothing_behind_the_packet_counts(&packet);
        }
        Err(rejected) => true_figures(&rejected, octets),
    }
}

/// What holds for every packet, however it was made.
pub(crate) fn sound(packet: &Packet) {
    assert_eq!(decode(packet.octets().clone()).as_ref(), Ok(packet), "its octets read differently");
    assert_eq!(&packet.detached(), packet);
    assert_eq!(packet.is_eep(), packet.octets().starts_with(&MAGIC_EEP3));
    spans_lie_within(packet);
    match packet.head().version {
        Version::Hep3 => {
            assert_eq!(stated_length(packet.octets()), packet.octets().len());
            assert_eq!(packet.is_keep_alive(), packet.octets().len() == HEADER_OCTETS);
            chunks_make_up_the_packet(packet);
            the_last_chunks_decide(packet);
        }
        Version::Hep1 | Version::Hep2 => {
            assert!(!packet.is_keep_alive());
            assert_eq!(packet.chunks().count(), 0);
            the_fixed_header_decides(packet);
        }
    }
}

fn stated_length(octets: &[u8]) -> usize {
    usize::from(u16_at(octets, 4))
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn spans_lie_within(packet: &Packet) {
    for span in [packet.head().payload.span(), packet.head().correlation_id].into_iter().flatten() {
        assert!(span.start() <= span.end() && span.end() <= packet.octets().len(), "{span:?}");
    }
}

fn nothing_behind_the_packet_counts(packet: &Packet) {
    if packet.head().version != Version::Hep3 {
        return;
    }
    for behind in [&b"\0"[..], b"HEP3\0\x06", &[0xff; 40]] {
        let longer = [packet.octets(), behind].concat();
        assert_eq!(decode(longer.into()).as_ref(), Ok(packet), "with {behind:02x?} behind it");
    }
}

fn chunks_make_up_the_packet(packet: &Packet) {
    let mut octets = packet.octets()[..HEADER_OCTETS].to_vec();
    for chunk in packet.chunks() {
        octets.extend_from_slice(&chunk_octets(chunk.id, chunk.body));
    }
    assert_eq!(packet.octets(), &octets);
}

/// A chunk as it stands in a packet.
pub(super) fn chunk_octets(id: ChunkId, body: &[u8]) -> Vec<u8> {
    let stated = u16::try_from(CHUNK_HEADER_OCTETS + body.len()).unwrap();
    [&id.vendor.0.to_be_bytes()[..], &id.kind.to_be_bytes(), &stated.to_be_bytes(), body].concat()
}

/// The rule of the module, told once more without a state that is carried along: of each kind the last chunk.
fn the_last_chunks_decide(packet: &Packet) {
    let head = packet.head();
    let chunks: Vec<Chunk<'_>> = packet.chunks().collect();
    let last_of = |ids: &[ChunkId]| chunks.iter().rfind(|chunk| ids.contains(&chunk.id));
    let number = |id| last_of(&[id]).map(|chunk| chunk.body.iter().fold(0, |n, octet| n << 8 | u32::from(*octet)));
    assert_eq!(u32::from(head.family), number(ChunkId::IP_FAMILY).unwrap_or(0));
    assert_eq!(u32::from(head.ip_protocol), number(ChunkId::IP_PROTOCOL).unwrap_or(0));
    assert_eq!(u32::from(head.source_port), number(ChunkId::SOURCE_PORT).unwrap_or(0));
    assert_eq!(u32::from(head.destination_port), number(ChunkId::DESTINATION_PORT).unwrap_or(0));
    assert_eq!(u32::from(head.payload_type.0), number(ChunkId::PAYLOAD_TYPE).unwrap_or(0));
    assert_eq!(head.agent_id, number(ChunkId::AGENT_ID).unwrap_or(0));

    let time = (number(ChunkId::SECONDS), number(ChunkId::MICROSECONDS));
    assert_eq!(head.captured_at.is_some(), time != (None, None));
    let captured_at = head.captured_at.unwrap_or_default();
    assert_eq!((captured_at.seconds, captured_at.microseconds), (time.0.unwrap_or(0), time.1.unwrap_or(0)));

    let source = last_of(&[ChunkId::IPV4_SOURCE, ChunkId::IPV6_SOURCE]);
    assert_eq!(head.source.map(ip_octets).as_deref(), source.map(|chunk| chunk.body));
    let destination = last_of(&[ChunkId::IPV4_DESTINATION, ChunkId::IPV6_DESTINATION]);
    assert_eq!(head.destination.map(ip_octets).as_deref(), destination.map(|chunk| chunk.body));

    let payload = last_of(&[ChunkId::PAYLOAD, ChunkId::COMPRESSED_PAYLOAD]);
    match head.payload {
        Payload::Absent => assert_eq!(payload, None),
        Payload::Plain(_) => assert_eq!(payload.unwrap().id, ChunkId::PAYLOAD),
        Payload::Compressed(_) => assert_eq!(payload.unwrap().id, ChunkId::COMPRESSED_PAYLOAD),
    }
    assert_eq!(packet.payload(), payload.map_or(&[][..], |chunk| chunk.body));
    if let Some(chunk) = payload {
        assert_eq!(packet.payload().as_ptr(), chunk.body.as_ptr(), "the same octets at another place");
    }
    assert_eq!(head.correlation_id.is_some(), last_of(&[ChunkId::CORRELATION_ID]).is_some());
    assert_eq!(packet.correlation_id(), packet.chunk(ChunkId::CORRELATION_ID).unwrap_or_default());

    let (ours, others): (Vec<&Chunk<'_>>, _) = chunks
        .iter()
        .filter(|chunk| matches!(chunk.id.kind, 0x0f | 0x10))
        .partition(|chunk| chunk.id.vendor == Vendor::GENERIC);
    let aliases_type = |chunk: &Chunk<'_>| chunk.id.kind == 0x0b && chunk.id.vendor != Vendor::GENERIC;
    assert_eq!(head.ambiguous, ours.len() > 1 || !others.is_empty() || chunks.iter().any(aliases_type));
    if !head.ambiguous {
        careless_receivers_read_the_same(packet, &chunks);
    }
}

/// What the mark is for: without it, a receiver that does not look at the vendor (heplify-server), does not know 0x10
/// (the same), or takes the first payload instead of the last one sees our payload or none.
fn careless_receivers_read_the_same(packet: &Packet, chunks: &[Chunk<'_>]) {
    let plain = |chunk: &&Chunk<'_>| chunk.id.kind == ChunkId::PAYLOAD.kind;
    let either = |chunk: &&Chunk<'_>| plain(chunk) || chunk.id.kind == ChunkId::COMPRESSED_PAYLOAD.kind;
    for seen in [
        chunks.iter().find(plain),
        chunks.iter().rfind(plain),
        chunks.iter().find(either),
        chunks.iter().rfind(either),
        chunks.iter().filter(|chunk| chunk.id.vendor == Vendor::GENERIC).find(either),
    ]
    .into_iter()
    .flatten()
    {
        assert_eq!(seen.body, packet.payload());
    }
}

pub(super) fn ip_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// HEP1 and HEP2, read once more by offsets.
fn the_fixed_header_decides(packet: &Packet) {
    let (octets, head) = (packet.octets(), packet.head());
    assert_eq!(head.version.number(), octets[0]);
    assert_eq!(head.family, octets[2]);
    assert_eq!(head.ip_protocol, octets[3]);
    assert_eq!(head.source_port, u16_at(octets, 4));
    assert_eq!(head.destination_port, u16_at(octets, 6));
    let width = if octets[2] == 10 { 16 } else { 4 };
    assert_eq!(head.source.map(ip_octets).unwrap(), octets[8..8 + width]);
    assert_eq!(head.destination.map(ip_octets).unwrap(), octets[8 + width..8 + 2 * width]);
    let mut header_octets = 8 + 2 * width;
    if head.version == Version::Hep2 {
        let time = &octets[header_octets..header_octets + 12];
        let captured_at = head.captured_at.unwrap();
        assert_eq!(captured_at.seconds.to_le_bytes(), time[..4]);
        assert_eq!(captured_at.microseconds.to_le_bytes(), time[4..8]);
        assert_eq!(head.agent_id.to_le_bytes(), [time[8], time[9], 0, 0]);
        header_octets += 12;
    } else {
        assert_eq!((head.captured_at, head.agent_id), (None, 0));
    }
    assert!(matches!(head.payload, Payload::Plain(_)));
    assert_eq!(packet.payload(), &octets[header_octets..]);
    assert_eq!(head.payload_type, PayloadType::SIP);
    assert_eq!((head.correlation_id, head.ambiguous), (None, false));

    let mut other_hp_l = octets.to_vec();
    other_hp_l[1] = !other_hp_l[1];
    assert_eq!(decode(other_hp_l.into()).unwrap().head(), head, "hp_l decides something");
}

/// Whether the octets are wrong in the way that the error says.
fn true_figures(rejected: &Rejected, octets: &[u8]) {
    let says_hep3 = octets.starts_with(&MAGIC_HEP3) || octets.starts_with(&MAGIC_EEP3);
    match *rejected {
        Rejected::NotHep { octets: given, first } => {
            assert_eq!(given, octets.len());
            let shown = octets.len().min(4);
            assert_eq!(first[..shown], octets[..shown]);
            assert_eq!(first[shown..], [0; 4][shown..]);
            assert!(!says_hep3 && !matches!(octets, [1 | 2, ..] | [0x1f, 0x8b, ..] | b"H" | b"HE" | b"HEP" | b"EEP"));
        }
        Rejected::Gzip { octets: given } => {
            assert_eq!(given, octets.len());
            assert!(octets.starts_with(&[0x1f, 0x8b]));
        }
        Rejected::TooShort { version, needed, actual } => {
            assert_eq!(actual, octets.len());
            assert!(actual < needed);
            let needed_by_octets = match (version, octets.get(2)) {
                (Version::Hep3, _) => HEADER_OCTETS,
                (Version::Hep1, Some(10)) => 40,
                (Version::Hep1, _) => 16,
                (Version::Hep2, Some(10)) => 52,
                (Version::Hep2, _) => 28,
            };
            assert_eq!(needed, needed_by_octets);
        }
        Rejected::Family { version, family } => {
            assert_eq!((version.number(), family), (octets[0], octets[2]));
            assert!(family != 2 && family != 10);
        }
        Rejected::StatedLength { stated } => {
            assert!(says_hep3);
            assert_eq!(stated, stated_length(octets));
            assert!(stated < HEADER_OCTETS);
        }
        Rejected::Truncated { stated, actual } => {
            assert!(says_hep3);
            assert_eq!((stated, actual), (stated_length(octets), octets.len()));
            assert!(actual < stated);
        }
        Rejected::ChunkHeader { at, left } => {
            assert_eq!(at + left, stated_length(octets));
            assert!((1..CHUNK_HEADER_OCTETS).contains(&left));
            assert!(a_walk_comes_by(octets, at));
        }
        Rejected::ChunkLength { at, stated, left } => {
            assert_eq!(at + left, stated_length(octets));
            assert_eq!(stated, usize::from(u16_at(octets, at + 4)));
            assert!(stated < CHUNK_HEADER_OCTETS || stated > left);
            assert!(a_walk_comes_by(octets, at));
        }
        Rejected::ChunkWidth { id, at, actual, needed } => {
            assert_eq!((id.vendor.0, id.kind), (u16_at(octets, at), u16_at(octets, at + 2)));
            assert_eq!(CHUNK_HEADER_OCTETS + actual, usize::from(u16_at(octets, at + 4)));
            assert_eq!(Some(needed), id.width());
            assert_ne!(actual, needed);
            assert!(a_walk_comes_by(octets, at));
        }
    }
    assert!(!rejected.to_string().is_empty());
}

/// Whether a chunk begins at that offset.
fn a_walk_comes_by(octets: &[u8], wanted: usize) -> bool {
    let mut at = HEADER_OCTETS;
    while at < wanted {
        let stated = usize::from(u16_at(octets, at + 4));
        assert!(stated >= CHUNK_HEADER_OCTETS, "the walk should have ended at octet {at}");
        at += stated;
    }
    at == wanted
}
