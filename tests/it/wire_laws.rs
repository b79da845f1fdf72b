//! The laws of the codec hold for packets that proptest makes.

use bytes::Bytes;
use hepgate::wire::{
    CapturedAt, Chunk, ChunkId, Draft, EditError, MAGIC_HEP3, Packet, Payload, PayloadType, Rejected, Vendor, Version,
    decode,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::generate::{chunk, flow, hep3, hep3_of, legacy, nearly_a_packet, packet, stream, unknown_chunk};
use crate::laws::{decoding, editing, framing, inflating, packing, repacking};

/// All typed edits, one after the other, of which none names an unknown chunk.
fn edit_everything(draft: &mut Draft, payload: &[u8]) {
    draft.set_payload(payload).unwrap();
    draft.mask(&[(0, payload.len() / 2)], b'x').unwrap();
    draft.set_ip_protocol(132).unwrap();
    draft.set_payload_type(PayloadType::LOG).unwrap();
    draft.set_agent_id(70_000).unwrap();
    draft.set_captured_at(CapturedAt { seconds: 1, microseconds: 2 }).unwrap();
    draft.set_flow("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap()).unwrap();
    draft.set_flow("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5061".parse().unwrap()).unwrap();
    draft.set_chunk(ChunkId::CORRELATION_ID, b"id").unwrap();
    draft.add_chunk(ChunkId::AGENT_NAME, b"name").unwrap();
    draft.remove_chunk(ChunkId::AUTH_KEY).unwrap();
}

/// What nobody has defined: what is left when every chunk of the specification is taken away.
fn unknown<'a>(chunks: impl Iterator<Item = Chunk<'a>>) -> Vec<(ChunkId, Vec<u8>)> {
    chunks.filter(|chunk| chunk.id.described().is_none()).map(|chunk| (chunk.id, chunk.body.to_vec())).collect()
}

fn read(octets: &[u8]) -> Packet {
    decode(Bytes::copy_from_slice(octets)).unwrap()
}

fn payload_chunks(packet: &Packet) -> usize {
    packet.chunks().filter(|chunk| [ChunkId::PAYLOAD, ChunkId::COMPRESSED_PAYLOAD].contains(&chunk.id)).count()
}

proptest! {
    #[test]
    fn every_packet_decodes(octets in packet()) {
        prop_assert!(decode(octets.clone().into()).is_ok());
        decoding(&octets);
    }

    #[test]
    fn what_is_nearly_a_packet_is_read_or_refused_with_true_figures(octets in nearly_a_packet()) {
        decoding(&octets);
    }

    #[test]
    fn noise_is_read_or_refused_with_true_figures(
        magic in select(vec![&b""[..], b"HEP3", b"EEP3", b"\x01", b"\x02\x10\x02", b"\x1f\x8b"]),
        noise in vec(any::<u8>(), 0..100),
    ) {
        decoding(&[magic, &noise].concat());
    }

    #[test]
    fn every_truncation_of_a_hep3_packet_is_refused(octets in hep3()) {
        for length in 0..octets.len() {
            let rejected = decode(Bytes::copy_from_slice(&octets[..length])).unwrap_err();
            let expected = match length {
                0 => Rejected::NotHep { octets: 0, first: [0; 4] },
                1..6 => Rejected::TooShort { version: Version::Hep3, needed: 6, actual: length },
                _ => Rejected::Truncated { stated: octets.len(), actual: length },
            };
            prop_assert_eq!(rejected, expected);
        }
    }

    #[test]
    fn a_truncation_of_hep1_or_hep2_is_a_shorter_payload_or_too_short(octets in legacy()) {
        let header_octets = octets.len() - read(&octets).payload().len();
        for length in 1..octets.len() {
            match decode(Bytes::copy_from_slice(&octets[..length])) {
                Ok(packet) => prop_assert_eq!(packet.payload(), &octets[header_octets..length]),
                Err(Rejected::TooShort { actual, .. }) => prop_assert!(actual == length && length < header_octets),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn octets_behind_a_packet_change_nothing(octets in hep3(), behind in vec(any::<u8>(), 0..80)) {
        let longer = read(&[&octets[..], &behind].concat());
        prop_assert_eq!(longer.octets(), &octets);
        prop_assert_eq!(longer, read(&octets));
    }

    #[test]
    fn any_edits_of_any_packet_do_what_their_model_says(octets in packet(), script in vec(any::<u8>(), 1..160)) {
        editing(&[octets, script].concat());
    }

    #[test]
    fn an_unknown_chunk_survives_every_edit(
        chunks in vec(prop_oneof![chunk(), unknown_chunk()], 1..16),
        payload in vec(any::<u8>(), 0..60),
    ) {
        let packet = read(&hep3_of(MAGIC_HEP3, &chunks));
        let mut draft = Draft::new(&packet);
        edit_everything(&mut draft, &payload);
        prop_assert_eq!(unknown(draft.chunks()), unknown(packet.chunks()));
    }

    #[test]
    fn a_chunk_that_is_set_is_the_only_one_of_its_id_and_decides(octets in packet(), (id, body) in chunk()) {
        let mut draft = Draft::new(&read(&octets));
        draft.set_chunk(id, &body).unwrap();
        let packet = draft.into_packet();
        prop_assert_eq!(packet.chunks().filter(|chunk| chunk.id == id).count(), 1);
        prop_assert_eq!(packet.chunk(id), Some(&body[..]));
        if id == ChunkId::PAYLOAD || id == ChunkId::COMPRESSED_PAYLOAD {
            prop_assert_eq!(payload_chunks(&packet), 1);
            prop_assert_eq!(packet.payload(), &body[..]);
        }
    }

    #[test]
    fn a_mask_leaves_one_payload_chunk_and_touches_nothing_but_its_range(
        octets in packet(),
        (from, to) in any::<(Index, Index)>(),
    ) {
        let before = read(&octets);
        let mut draft = Draft::new(&before);
        if before.head().payload == Payload::Absent || matches!(before.inflated(), Some(Err(_))) {
            prop_assert_eq!(draft.mask(&[(0, 0)], b'x'), Err(EditError::NoPayload));
            return Ok(());
        }
        let length = before.readable_payload().len();
        let (from, to) = (from.index(length + 1), to.index(length + 1));
        let (from, to) = (from.min(to), from.max(to));
        draft.mask(&[(from, to - from)], b'x').unwrap();
        let after = draft.into_packet();
        prop_assert!(after.payload()[from..to].iter().all(|octet| *octet == b'x'));
        prop_assert_eq!(&after.payload()[..from], &before.readable_payload()[..from]);
        prop_assert_eq!(&after.payload()[to..], &before.readable_payload()[to..]);
        let other = |chunk: &Chunk<'_>| !matches!(chunk.id, ChunkId::PAYLOAD | ChunkId::COMPRESSED_PAYLOAD);
        prop_assert!(after.chunks().filter(other).eq(before.chunks().filter(other)));
        if after.head().version == Version::Hep3 {
            prop_assert_eq!(payload_chunks(&after), 1);
        }
    }

    #[test]
    fn a_refused_edit_changes_nothing(octets in packet(), (source, _) in flow(), width in 0..9usize) {
        let packet = read(&octets);
        let mut draft = Draft::new(&packet);
        let other_family = if source.is_ipv4() { "[::1]:1" } else { "192.0.2.1:1" };
        prop_assert!(draft.set_flow(source, other_family.parse().unwrap()).is_err());
        prop_assert!(draft.set_payload(&[b'x'; 65_536]).is_err());
        let unknown = ChunkId { vendor: Vendor(9), kind: 1 };
        prop_assert!(draft.add_chunk(unknown, &[b'x'; 65_530]).is_err());
        prop_assert!(draft.mask(&[(packet.readable_payload().len(), 1)], b'x').is_err());
        if width != 4 {
            prop_assert!(draft.set_chunk(ChunkId::SECONDS, &vec![0; width]).is_err());
        }
        prop_assert_eq!(draft.into_packet(), packet);
    }

    #[test]
    fn a_packet_says_in_every_version_what_it_was_made_of(script in vec(any::<u8>(), 0..120)) {
        packing(&script);
    }

    #[test]
    fn a_packet_says_the_same_in_every_version_that_can_hold_it(octets in packet()) {
        repacking(&octets);
    }

    #[test]
    fn hep1_and_hep2_come_back_from_hep3_as_they_were(octets in legacy()) {
        repacking(&octets);
    }

    #[test]
    fn what_is_inflated_keeps_to_its_bounds_and_what_was_deflated_comes_back(
        repeated in vec(any::<u8>(), 0..60),
        times in 1..40usize,
        noise in vec(any::<u8>(), 0..100),
    ) {
        inflating(&noise);
        inflating(&[&repeated.repeat(times)[..], &noise].concat());
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same_packets(stream in stream(), script in vec(any::<u8>(), 1..200)) {
        framing(&stream);
        // The same packets with something behind them that says how they are split.
        framing(&[stream, script].concat());
    }
}
