//! Every trap that senders are known to set has a test with its name.

use bytes::Bytes;
use hepgate::wire::{
    CapturedAt, Chunk, ChunkId, Draft, EditError, FrameError, Framer, GENERIC, Head, InflateError, MAGIC_EEP3,
    MAGIC_HEP3, Missing, Pack, PackError, Packet, Payload, PayloadType, Rejected, Vendor, Version, decode, deflate,
    repack,
};

use crate::generate::hep3_of;

const MISSING: Missing = Missing { captured_at: CapturedAt { seconds: 7, microseconds: 8 }, agent_id: 9 };

fn hep3(chunks: &[(ChunkId, &[u8])]) -> Vec<u8> {
    let chunks: Vec<_> = chunks.iter().map(|(id, body)| (*id, body.to_vec())).collect();
    hep3_of(MAGIC_HEP3, &chunks)
}

fn read(octets: &[u8]) -> Packet {
    decode(Bytes::copy_from_slice(octets)).unwrap()
}

fn refused(octets: &[u8]) -> Rejected {
    decode(Bytes::copy_from_slice(octets)).unwrap_err()
}

fn bodies<'a>(chunks: impl Iterator<Item = Chunk<'a>>) -> Vec<(ChunkId, &'a [u8])> {
    chunks.map(|chunk| (chunk.id, chunk.body)).collect()
}

const GENESYS_PAYLOAD: ChunkId = ChunkId { vendor: Vendor::GENESYS, kind: 0x0f };

/// Version, hp_l, family, UDP, ports 5060 and 5061, addresses, for HEP2 time and agent id, payload.
fn legacy(version: u8, hp_l: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![version, hp_l, family, 17, 0x13, 0xc4, 0x13, 0xc5];
    match family {
        10 => (0..32).for_each(|octet| octets.push(octet)),
        _ => octets.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]),
    }
    if version == 2 {
        octets.extend_from_slice(&[0x78, 0x56, 0x34, 0x12, 0x01, 0, 0, 0, 0x34, 0x12, 0xf6, 0x27]);
    }
    octets.extend_from_slice(payload);
    octets
}

// --- chunks ---

#[test]
fn a_chunk_length_of_0_to_5_is_refused_where_it_stands() {
    for stated in 0..6u8 {
        let mut octets = hep3(&[(ChunkId::IP_FAMILY, &[2]), (ChunkId::AGENT_NAME, b"abc")]);
        octets[18] = stated;
        assert_eq!(refused(&octets), Rejected::ChunkLength { at: 13, stated: usize::from(stated), left: 9 });
    }
}

#[test]
fn a_chunk_longer_than_the_rest_is_refused_where_it_stands() {
    for (stated, high) in [(10, 0), (256 + 9, 1), (65_280 + 9, 0xff)] {
        let mut octets = hep3(&[(ChunkId::IP_FAMILY, &[2]), (ChunkId::AGENT_NAME, b"abc")]);
        octets[17..19].copy_from_slice(&[high, if stated == 10 { 10 } else { 9 }]);
        assert_eq!(refused(&octets), Rejected::ChunkLength { at: 13, stated, left: 9 });
    }
}

#[test]
fn a_chunk_does_not_reach_into_what_stands_behind_the_packet() {
    let mut octets = hep3(&[(ChunkId::AGENT_NAME, b"abc")]);
    octets[11] = 10;
    octets.extend_from_slice(b"d more than enough");
    assert_eq!(refused(&octets), Rejected::ChunkLength { at: 6, stated: 10, left: 9 });
}

#[test]
fn fewer_than_six_octets_left_over_are_refused() {
    for left in 1..6u8 {
        let mut octets = hep3(&[(ChunkId::IP_FAMILY, &[2])]);
        octets.extend_from_slice(&vec![0; usize::from(left)]);
        octets[5] += left;
        assert_eq!(refused(&octets), Rejected::ChunkHeader { at: 13, left: usize::from(left) });
    }
}

/// The chunks that a packet's head is read from. Any other may have any width.
const DECIDING: [ChunkId; 12] = [
    ChunkId::IP_FAMILY,
    ChunkId::IP_PROTOCOL,
    ChunkId::IPV4_SOURCE,
    ChunkId::IPV4_DESTINATION,
    ChunkId::IPV6_SOURCE,
    ChunkId::IPV6_DESTINATION,
    ChunkId::SOURCE_PORT,
    ChunkId::DESTINATION_PORT,
    ChunkId::SECONDS,
    ChunkId::MICROSECONDS,
    ChunkId::PAYLOAD_TYPE,
    ChunkId::AGENT_ID,
];

#[test]
fn an_empty_body_of_a_fixed_width_chunk_is_refused() {
    for id in DECIDING {
        let needed = id.width().unwrap();
        assert_eq!(refused(&hep3(&[(id, &[])])), Rejected::ChunkWidth { id, at: 6, actual: 0, needed });
    }
}

#[test]
fn a_wrong_width_is_refused_even_if_a_later_chunk_of_the_kind_is_right() {
    for id in DECIDING {
        let needed = id.width().unwrap();
        for actual in (1..20).filter(|actual| *actual != needed) {
            let octets = hep3(&[(ChunkId::AGENT_NAME, b"a"), (id, &vec![1; actual]), (id, &vec![1; needed])]);
            assert_eq!(refused(&octets), Rejected::ChunkWidth { id, at: 13, actual, needed });
        }
    }
}

#[test]
fn a_wrong_width_of_a_chunk_that_decides_nothing_is_carried() {
    for entry in GENERIC.iter().filter(|entry| !DECIDING.contains(&entry.id)) {
        let octets = hep3(&[(entry.id, &[]), (entry.id, &[1, 2, 3])]);
        assert_eq!(bodies(read(&octets).chunks()), [(entry.id, &[][..]), (entry.id, &[1, 2, 3])]);
    }
}

#[test]
fn a_packet_may_be_one_chunk_after_the_other_with_nothing_in_them() {
    let chunks = vec![(ChunkId::generic(0x1234), Vec::new()); 10_921];
    let packet = read(&hep3_of(MAGIC_HEP3, &chunks));
    assert_eq!(packet.octets().len(), 65_532);
    assert_eq!(packet.chunks().count(), 10_921);
}

#[test]
fn a_packet_may_be_as_long_as_its_length_can_say() {
    let packet = read(&hep3(&[(ChunkId::PAYLOAD, &[b'x'; 65_523])]));
    assert_eq!((packet.octets().len(), packet.payload().len()), (65_535, 65_523));
}

#[test]
fn what_nobody_knows_is_carried() {
    let unknown = ChunkId { vendor: Vendor(0xffff), kind: 0xffff };
    let octets = hep3(&[
        (unknown, &[]),
        (ChunkId::PAYLOAD_TYPE, &[0xee]),
        (ChunkId::IP_PROTOCOL, &[0xfd]),
        (ChunkId::generic(0x7777), b"?"),
    ]);
    let packet = read(&octets);
    assert_eq!((packet.head().payload_type, packet.head().ip_protocol), (PayloadType(0xee), 0xfd));
    assert_eq!(packet.chunks().next(), Some(Chunk { id: unknown, body: &[] }));
    assert_eq!(packet.octets(), &octets);
}

#[test]
fn chunks_may_stand_behind_the_payload_as_opensips_sends_them() {
    let octets = hep3(&[
        (ChunkId::PAYLOAD, b"INVITE"),
        (ChunkId::CORRELATION_ID, b"a@b"),
        (ChunkId::EXTRA_CORRELATION, b"{}"),
        (ChunkId::IPV4_SOURCE, &[192, 0, 2, 1]),
    ]);
    let packet = read(&octets);
    assert_eq!((packet.payload(), packet.correlation_id()), (&b"INVITE"[..], &b"a@b"[..]));
    assert_eq!(packet.chunk(ChunkId::EXTRA_CORRELATION), Some(&b"{}"[..]));
    assert_eq!(packet.head().source, Some("192.0.2.1".parse().unwrap()));
}

// --- which payload ---

#[test]
fn another_vendor_s_0x0f_is_not_the_payload_but_a_careless_receiver_may_think_so() {
    for octets in [
        hep3(&[(ChunkId::PAYLOAD, b"ours"), (GENESYS_PAYLOAD, b"theirs")]),
        hep3(&[(GENESYS_PAYLOAD, b"theirs"), (ChunkId::PAYLOAD, b"ours")]),
    ] {
        let packet = read(&octets);
        assert_eq!(packet.payload(), b"ours");
        assert!(packet.head().ambiguous);
    }
    for kind in [0x0f, 0x10] {
        let packet = read(&hep3(&[(ChunkId { vendor: Vendor::GENESYS, kind }, b"theirs")]));
        assert_eq!((packet.head().payload, packet.payload()), (Payload::Absent, &[][..]));
        assert!(packet.head().ambiguous);
    }
}

#[test]
fn another_vendor_s_numbers_decide_nothing() {
    let generic: Vec<(ChunkId, Vec<u8>)> = DECIDING.map(|id| (id, vec![1; id.width().unwrap()])).to_vec();
    let theirs = |width: usize| DECIDING.map(|id| (ChunkId { vendor: Vendor::HOMER, ..id }, vec![2; width])).to_vec();
    let expected = *read(&hep3_of(MAGIC_HEP3, &generic)).head();
    for width in [0, 1, 4, 16] {
        let packet = read(&hep3_of(MAGIC_HEP3, &[&generic[..], &theirs(width)].concat()));
        // But for the mark: a receiver that does not look at the vendor takes their payload type.
        assert_eq!(packet.head(), &Head { ambiguous: true, ..expected });
    }
}

#[test]
fn the_last_of_a_plain_and_a_compressed_payload_decides_and_the_packet_is_ambiguous() {
    let packet = read(&hep3(&[(ChunkId::PAYLOAD, b"plain"), (ChunkId::COMPRESSED_PAYLOAD, b"x\x9c")]));
    assert!(matches!(packet.head().payload, Payload::Compressed(_)));
    assert_eq!((packet.payload(), packet.head().ambiguous), (&b"x\x9c"[..], true));

    let packet = read(&hep3(&[(ChunkId::COMPRESSED_PAYLOAD, b"x\x9c"), (ChunkId::PAYLOAD, b"plain")]));
    assert!(matches!(packet.head().payload, Payload::Plain(_)));
    assert_eq!((packet.payload(), packet.head().ambiguous), (&b"plain"[..], true));
}

#[test]
fn a_repeated_payload_is_ambiguous_even_if_one_of_them_is_empty() {
    let packet = read(&hep3(&[(ChunkId::PAYLOAD, b""), (ChunkId::PAYLOAD, b"shown")]));
    assert_eq!((packet.payload(), packet.head().ambiguous), (&b"shown"[..], true));
    let packet = read(&hep3(&[(ChunkId::PAYLOAD, b"hidden"), (ChunkId::PAYLOAD, b"")]));
    assert_eq!((packet.payload(), packet.head().ambiguous), (&b""[..], true));
}

#[test]
fn a_packet_without_payload_is_not_one_with_an_empty_payload() {
    let without = read(&hep3(&[(ChunkId::CORRELATION_ID, b"a")]));
    assert_eq!((without.head().payload, without.head().ambiguous), (Payload::Absent, false));
    let empty = read(&hep3(&[(ChunkId::PAYLOAD, b"")]));
    assert_eq!(empty.head().payload.span().map(|span| (span.start(), span.len())), Some((12, 0)));
    assert!(empty.head().payload.span().unwrap().is_empty());
    assert!(!empty.head().ambiguous);
    assert!(!read(&hep3(&[(ChunkId::PAYLOAD, b"x")])).head().payload.span().unwrap().is_empty());
}

#[test]
fn a_compressed_payload_is_carried_as_it_came() {
    let packet = read(&hep3(&[(ChunkId::COMPRESSED_PAYLOAD, b"x\x9c\x03\x00")]));
    assert!(matches!(packet.head().payload, Payload::Compressed(_)));
    assert_eq!(packet.payload(), b"x\x9c\x03\x00");
    assert!(!packet.head().ambiguous);
    assert_eq!(repack(&packet, Version::Hep2, MISSING), Err(PackError::NoAddresses(Version::Hep2)));
    assert_eq!(Draft::new(&packet).mask(&[(0, 1)], b'x'), Err(EditError::NoPayload));
}

#[test]
fn a_mask_of_a_compressed_payload_masks_what_it_says_and_leaves_it_plain() {
    let packet =
        read(&hep3(&[(ChunkId::COMPRESSED_PAYLOAD, &deflate(b"to bob").unwrap()), (ChunkId::AGENT_NAME, b"a")]));
    assert_eq!(packet.readable_payload(), b"to bob");
    let mut draft = Draft::new(&packet);
    let refused = EditError::Range { offset: 3, length: 4, octets: 6 };
    assert_eq!(draft.mask(&[(3, 4)], b'x'), Err(refused));
    assert_eq!(draft.to_packet(), packet);
    draft.mask(&[(3, 3)], b'x').unwrap();
    assert_eq!(draft.into_packet().octets(), &hep3(&[(ChunkId::PAYLOAD, b"to xxx"), (ChunkId::AGENT_NAME, b"a")]));
}

#[test]
fn a_compressed_payload_that_cannot_be_inflated_reads_as_it_came_and_is_not_masked() {
    let packet = read(&hep3(&[(ChunkId::COMPRESSED_PAYLOAD, b"\xffnothing known")]));
    assert_eq!(packet.inflated(), Some(Err(InflateError::Unreadable { octets: 14 })));
    assert_eq!(packet.readable_payload(), b"\xffnothing known");
    assert_eq!(Draft::new(&packet).mask(&[(0, 1)], b'x'), Err(EditError::NoPayload));
}

#[test]
fn a_payload_that_becomes_compressed_is_inflated_even_if_its_octets_were_there_before() {
    let compressed = deflate(b"to bob").unwrap();
    let without = (hep3(&[]), &b""[..], Err(InflateError::Unreadable { octets: 0 }));
    let plain = (hep3(&[(ChunkId::PAYLOAD, &compressed)]), &compressed[..], Ok(&b"to bob"[..]));
    for (octets, body, expected) in [without, plain] {
        let packet = read(&octets);
        assert_eq!(packet.inflated(), None);
        let mut draft = Draft::new(&packet);
        draft.set_chunk(ChunkId::COMPRESSED_PAYLOAD, body).unwrap();
        assert_eq!(draft.inflated(), Some(expected));
        assert_eq!(draft.into_packet().inflated(), Some(expected));
    }
}

#[test]
fn a_mask_leaves_no_second_payload_that_still_shows_it() {
    let octets = hep3(&[
        (ChunkId::PAYLOAD, b"secret"),
        (ChunkId::COMPRESSED_PAYLOAD, b"secret"),
        (ChunkId::AGENT_NAME, b"a"),
        (ChunkId::PAYLOAD, b"secret"),
        (ChunkId::AUTH_KEY, b"k"),
    ]);
    let mut draft = Draft::new(&read(&octets));
    draft.mask(&[(1, 4)], b'*').unwrap();
    let expected = [(ChunkId::AGENT_NAME, &b"a"[..]), (ChunkId::PAYLOAD, b"s****t"), (ChunkId::AUTH_KEY, b"k")];
    assert_eq!(bodies(draft.chunks()), expected);
    assert!(!draft.head().ambiguous);
}

#[test]
fn a_mask_of_a_packet_with_another_vendor_s_0x0f_leaves_it_ambiguous() {
    let octets = hep3(&[(ChunkId::PAYLOAD, b"secret"), (GENESYS_PAYLOAD, b"secret")]);
    let mut draft = Draft::new(&read(&octets));
    draft.mask(&[(0, 6)], b'*').unwrap();
    assert_eq!(bodies(draft.chunks()), [(ChunkId::PAYLOAD, &b"******"[..]), (GENESYS_PAYLOAD, b"secret")]);
    assert!(draft.head().ambiguous);
}

// --- addresses, family, time ---

#[test]
fn with_both_families_the_last_address_of_each_side_decides() {
    let (four, six) = ([192, 0, 2, 1], [0x20; 16]);
    let packet = read(&hep3(&[
        (ChunkId::IP_FAMILY, &[2]),
        (ChunkId::IPV4_SOURCE, &four),
        (ChunkId::IPV6_SOURCE, &six),
        (ChunkId::IPV6_DESTINATION, &six),
        (ChunkId::IPV4_DESTINATION, &four),
    ]));
    assert_eq!(packet.head().source, Some(six.into()));
    assert_eq!(packet.head().destination, Some(four.into()));
    // As it came; what is done about it is for others to say.
    assert_eq!(packet.head().family, 2);
}

#[test]
fn a_packet_with_addresses_of_two_families_does_not_fit_hep2() {
    let packet = read(&hep3(&[
        (ChunkId::IPV4_SOURCE, &[192, 0, 2, 1]),
        (ChunkId::IPV6_DESTINATION, &[0x20; 16]),
        (ChunkId::PAYLOAD_TYPE, &[1]),
        (ChunkId::PAYLOAD, b"x"),
    ]));
    let error = repack(&packet, Version::Hep2, MISSING).unwrap_err();
    assert!(matches!(error, PackError::MixedFamilies { .. }), "{error}");
}

#[test]
fn a_family_that_is_0_or_23_or_disagrees_with_the_addresses_decides_nothing() {
    for family in [0, 23, 10] {
        let packet = read(&hep3(&[(ChunkId::IP_FAMILY, &[family]), (ChunkId::IPV4_SOURCE, &[192, 0, 2, 1])]));
        assert_eq!(packet.head().family, family);
        assert_eq!(packet.head().source, Some("192.0.2.1".parse().unwrap()));
    }
}

#[test]
fn setting_the_flow_leaves_one_family_one_source_and_one_destination() {
    let octets = hep3(&[
        (ChunkId::IPV4_SOURCE, &[192, 0, 2, 1]),
        (ChunkId::AGENT_NAME, b"a"),
        (ChunkId::IPV6_SOURCE, &[0x20; 16]),
        (ChunkId::IP_FAMILY, &[10]),
        (ChunkId::IPV4_DESTINATION, &[192, 0, 2, 2]),
        (ChunkId::DESTINATION_PORT, &[0, 1]),
    ]);
    let mut draft = Draft::new(&read(&octets));
    draft.set_flow("198.51.100.1:16".parse().unwrap(), "198.51.100.2:17".parse().unwrap()).unwrap();
    let expected = [
        (ChunkId::AGENT_NAME, &b"a"[..]),
        (ChunkId::IPV4_SOURCE, &[198, 51, 100, 1]),
        (ChunkId::IP_FAMILY, &[2]),
        (ChunkId::IPV4_DESTINATION, &[198, 51, 100, 2]),
        (ChunkId::DESTINATION_PORT, &[0, 17]),
        (ChunkId::SOURCE_PORT, &[0, 16]),
    ];
    assert_eq!(bodies(draft.chunks()), expected);
}

/// `set_flow` used to set one chunk after the other and refused a packet that was too long only on the way.
#[test]
fn a_flow_that_makes_a_full_packet_no_longer_is_set() {
    // Without a family chunk: 7 octets more for it, 24 less for the addresses.
    let fixed = 6 + 22 + 22 + 8 + 8 + 6;
    let payload = vec![b'x'; 65_535 - fixed];
    let octets = hep3(&[
        (ChunkId::IPV6_SOURCE, &[1; 16]),
        (ChunkId::IPV6_DESTINATION, &[2; 16]),
        (ChunkId::SOURCE_PORT, &[0, 1]),
        (ChunkId::DESTINATION_PORT, &[0, 2]),
        (ChunkId::PAYLOAD, &payload),
    ]);
    assert_eq!(octets.len(), 65_535);
    let mut draft = Draft::new(&read(&octets));
    draft.set_flow("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()).unwrap();
    assert_eq!(draft.to_packet().octets().len(), 65_535 + 7 - 24);
}

#[test]
fn a_million_microseconds_and_more_are_kept_as_they_came() {
    for microseconds in [999_999, 1_000_000, u32::MAX] {
        let octets = hep3(&[(ChunkId::MICROSECONDS, &microseconds.to_be_bytes()), (ChunkId::SECONDS, &[0xff; 4])]);
        let captured_at = read(&octets).head().captured_at.unwrap();
        assert_eq!(captured_at, CapturedAt { seconds: u32::MAX, microseconds });
        assert_eq!(captured_at.as_micros(), 4_294_967_295_000_000 + u64::from(microseconds));
    }
}

#[test]
fn a_time_of_which_one_half_is_missing_is_a_time() {
    let seconds = read(&hep3(&[(ChunkId::SECONDS, &[0, 0, 0, 5])]));
    assert_eq!(seconds.head().captured_at, Some(CapturedAt { seconds: 5, microseconds: 0 }));
    let microseconds = read(&hep3(&[(ChunkId::MICROSECONDS, &[0, 0, 0, 5])]));
    assert_eq!(microseconds.head().captured_at, Some(CapturedAt { seconds: 0, microseconds: 5 }));
    assert_eq!(read(&hep3(&[])).head().captured_at, None);
    // Time 0, as hep-js sends it, is a time too.
    let zero = read(&hep3(&[(ChunkId::SECONDS, &[0; 4]), (ChunkId::MICROSECONDS, &[0; 4])]));
    assert_eq!(zero.head().captured_at, Some(CapturedAt::default()));
}

#[test]
fn a_time_in_microseconds_comes_back_up_to_2106_and_stops_there() {
    for micros in [0, 999_999, 1_000_000, 1_795_418_485_798_112, 4_294_967_295_999_999] {
        assert_eq!(CapturedAt::from_micros(micros).as_micros(), micros);
    }
    assert_eq!(CapturedAt::from_micros(u64::MAX).seconds, u32::MAX);
    assert!(CapturedAt::from_micros(u64::MAX).microseconds < 1_000_000);
}

#[test]
fn tls_and_websocket_are_ip_protocols_like_any_other() {
    for ip_protocol in [6, 17, 132, 22, 50] {
        assert_eq!(read(&hep3(&[(ChunkId::IP_PROTOCOL, &[ip_protocol])])).head().ip_protocol, ip_protocol);
    }
}

// --- the header ---

#[test]
fn octets_behind_the_stated_length_are_not_part_of_the_packet() {
    let octets = hep3(&[(ChunkId::PAYLOAD, b"first")]);
    let behind = hep3(&[(ChunkId::PAYLOAD, b"second")]);
    let packet = read(&[&octets[..], &behind].concat());
    assert_eq!((packet.octets(), packet.payload()), (&Bytes::from(octets), &b"first"[..]));
    assert!(!packet.head().ambiguous);
}

#[test]
fn a_packet_of_six_octets_is_a_keep_alive() {
    for octets in [b"HEP3\0\x06", b"EEP3\0\x06"] {
        let packet = read(octets);
        assert!(packet.is_keep_alive());
        assert_eq!(packet.head().payload, Payload::Absent);
    }
    assert!(!read(&hep3(&[(ChunkId::KEEP_ALIVE, &[0, 30])])).is_keep_alive());
    assert!(!read(&legacy(1, 16, 2, b"")).is_keep_alive());
}

#[test]
fn a_stated_length_of_0_to_5_is_refused() {
    for stated in 0..6u8 {
        let octets = [&b"HEP3\0"[..], &[stated], &[0; 50]].concat();
        assert_eq!(refused(&octets), Rejected::StatedLength { stated: usize::from(stated) });
        let mut framer = Framer::new(32);
        framer.push(octets.into());
        assert_eq!(framer.next_packet(), Err(FrameError::StatedLength { stated: usize::from(stated) }));
    }
}

#[test]
fn a_stated_length_beyond_the_datagram_is_refused() {
    let octets = hep3(&[(ChunkId::PAYLOAD, b"INVITE")]);
    assert_eq!(refused(&octets[..17]), Rejected::Truncated { stated: 18, actual: 17 });
}

#[test]
fn eep3_is_hep3_and_stays_eep3() {
    let chunks = [(ChunkId::PAYLOAD, b"INVITE".to_vec()), (ChunkId::AGENT_ID, vec![0, 0, 0, 1])];
    let packet = read(&hep3_of(MAGIC_EEP3, &chunks));
    assert!(packet.is_eep());
    assert_eq!(packet.head(), read(&hep3_of(MAGIC_HEP3, &chunks)).head());
    let mut draft = Draft::new(&packet);
    draft.set_agent_id(2).unwrap();
    assert_eq!(draft.into_packet().octets()[..4], MAGIC_EEP3);
}

#[test]
fn a_whole_packet_in_gzip_is_named_as_such() {
    let octets = [&[0x1f, 0x8b, 8, 0][..], &[0; 40]].concat();
    assert_eq!(refused(&octets), Rejected::Gzip { octets: 44 });
}

#[test]
fn a_probe_of_hfp_is_refused_on_udp_and_on_tcp() {
    assert_eq!(refused(b"HELLO HFP"), Rejected::NotHep { octets: 9, first: *b"HELL" });
    let mut framer = Framer::new(32);
    framer.push(Bytes::from_static(b"HELLO HFP"));
    assert_eq!(framer.next_packet(), Err(FrameError::NotHep { first: *b"HELL" }));
}

#[test]
fn an_empty_datagram_is_refused() {
    assert_eq!(refused(b""), Rejected::NotHep { octets: 0, first: [0; 4] });
}

#[test]
fn there_are_versions_1_to_3() {
    let numbers: Vec<u8> = (0..=255).filter_map(Version::from_number).map(Version::number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

// --- HEP1 and HEP2 ---

#[test]
fn every_hp_l_reads_the_same() {
    for (version, family) in [(1, 2), (1, 10), (2, 2), (2, 10)] {
        let expected = *read(&legacy(version, 16, family, b"INVITE")).head();
        for hp_l in 0..=255 {
            let octets = legacy(version, hp_l, family, b"INVITE");
            let packet = read(&octets);
            assert_eq!(packet.head(), &expected);
            assert_eq!((packet.payload(), packet.octets()), (&b"INVITE"[..], &Bytes::from(octets)));
        }
    }
}

#[test]
fn the_time_of_hep2_is_little_endian_and_its_padding_may_be_anything() {
    let packet = read(&legacy(2, 1, 2, b"INVITE"));
    assert_eq!(packet.head().captured_at, Some(CapturedAt { seconds: 0x1234_5678, microseconds: 1 }));
    assert_eq!(packet.head().agent_id, 0x1234);
    assert_eq!((packet.head().source_port, packet.head().destination_port), (5060, 5061));
}

#[test]
fn hep1_and_hep2_with_another_family_are_refused() {
    for family in (0..=255u8).filter(|family| ![2, 10].contains(family)) {
        for (number, version) in [(1, Version::Hep1), (2, Version::Hep2)] {
            assert_eq!(refused(&legacy(number, 16, family, b"INVITE")), Rejected::Family { version, family });
        }
    }
}

#[test]
fn hep1_and_hep2_below_their_header_are_refused() {
    for (number, version, family, needed) in
        [(1, Version::Hep1, 2, 16), (1, Version::Hep1, 10, 40), (2, Version::Hep2, 2, 28), (2, Version::Hep2, 10, 52)]
    {
        let octets = legacy(number, 16, family, b"");
        assert_eq!(octets.len(), needed);
        assert_eq!(read(&octets).payload(), b"");
        assert_eq!(refused(&octets[..needed - 1]), Rejected::TooShort { version, needed, actual: needed - 1 });
    }
}

#[test]
fn trailing_nuls_of_hep1_and_hep2_are_payload() {
    for version in [1, 2] {
        assert_eq!(read(&legacy(version, 16, 2, b"BYE\r\n\r\n\0\0")).payload(), b"BYE\r\n\r\n\0\0");
    }
}

#[test]
fn hep1_and_hep2_keep_their_version_under_every_edit_that_they_can_hold() {
    for version in [1, 2] {
        let mut draft = Draft::new(&read(&legacy(version, 1, 2, b"INVITE")));
        draft.set_payload(b"BYE").unwrap();
        draft.mask(&[(0, 1)], b'x').unwrap();
        draft.set_ip_protocol(6).unwrap();
        draft.set_payload_type(PayloadType::SIP).unwrap();
        draft.set_flow("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap()).unwrap();
        if version == 2 {
            draft.set_agent_id(0xffff).unwrap();
            draft.set_captured_at(CapturedAt { seconds: 1, microseconds: 2 }).unwrap();
        }
        let packet = draft.into_packet();
        assert_eq!(packet.head().version.number(), version);
        assert_eq!((packet.payload(), packet.head().family, packet.head().ip_protocol), (&b"xYE"[..], 10, 6));
        if version == 2 {
            assert_eq!(packet.head().agent_id, 0xffff);
            assert_eq!(packet.head().captured_at, Some(CapturedAt { seconds: 1, microseconds: 2 }));
        }
    }
}

#[test]
fn hep1_and_hep2_become_hep3_under_an_edit_that_they_cannot_hold() {
    for version in [1, 2] {
        let before = read(&legacy(version, 1, 2, b"INVITE"));
        let mut drafts = [(); 4].map(|()| Draft::new(&before));
        let [agent_id, payload_type, correlation_id, agent_name] = &mut drafts;
        agent_id.set_agent_id(0x1_0000).unwrap();
        payload_type.set_payload_type(PayloadType::LOG).unwrap();
        correlation_id.set_chunk(ChunkId::CORRELATION_ID, b"id").unwrap();
        agent_name.add_chunk(ChunkId::AGENT_NAME, b"name").unwrap();
        for after in drafts.map(Draft::into_packet) {
            assert_eq!(after.head().version, Version::Hep3);
            assert_eq!(after.payload(), b"INVITE");
            assert_eq!((after.head().source, after.head().source_port), (before.head().source, 5060));
            assert_eq!(after.head().captured_at, before.head().captured_at);
        }
    }
}

#[test]
fn a_payload_that_makes_hep2_longer_than_a_datagram_is_refused() {
    let packet = read(&legacy(2, 16, 2, b"INVITE"));
    let mut draft = Draft::new(&packet);
    draft.set_payload(&vec![b'x'; 65_507 - 28]).unwrap();
    let full = draft.to_packet();
    let too_long = |octets| PackError::TooLong { version: Version::Hep2, octets, octets_max: 65_507 };
    assert_eq!(draft.set_payload(&vec![b'x'; 65_508 - 28]), Err(too_long(65_508).into()));
    let flow = ("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap());
    assert_eq!(draft.set_flow(flow.0, flow.1), Err(too_long(65_507 + 24).into()));
    assert_eq!(draft.to_packet(), full);
    draft.set_payload(&vec![b'x'; 65_507 - 52]).unwrap();
    draft.set_flow(flow.0, flow.1).unwrap();
    assert_eq!(draft.to_packet().octets().len(), 65_507);
}

// --- lengths that are told ---

/// The figure used to leave out whatever came after the chunk that did not fit.
#[test]
fn a_packet_that_would_be_too_long_is_refused_with_all_of_its_octets() {
    let too_long = |octets| PackError::TooLong { version: Version::Hep3, octets, octets_max: 65_535 };
    let packet = read(&hep3(&[(ChunkId::PAYLOAD, b"INVITE"), (ChunkId::AGENT_NAME, b"name")]));
    let mut draft = Draft::new(&packet);
    let error = draft.set_payload(&vec![b'x'; 70_000]).unwrap_err();
    assert_eq!(error, EditError::Pack(too_long(6 + 6 + 70_000 + 10)));

    let name = ChunkId::AGENT_NAME;
    let pack = Pack {
        ip_protocol: 17,
        flow: None,
        captured_at: None,
        payload_type: PayloadType::SIP,
        agent_id: 1,
        chunks: vec![(name, vec![b'x'; 70_000].into()), (name, Bytes::new()), (name, vec![b'x'; 66_000].into())],
        payload: Some(Bytes::from_static(b"BYE")),
    };
    let octets = 6 + 7 + 7 + 10 + (6 + 70_000) + 6 + (6 + 66_000) + (6 + 3);
    assert_eq!(pack.encode(Version::Hep3), Err(too_long(octets)));
}

#[test]
fn a_packet_may_be_made_as_long_as_its_version_holds_and_no_longer() {
    let pack = |octets| Pack {
        ip_protocol: 17,
        flow: Some(("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())),
        captured_at: None,
        payload_type: PayloadType::SIP,
        agent_id: 1,
        chunks: Vec::new(),
        payload: Some(vec![b'x'; octets].into()),
    };
    // What each version writes before these octets, and how long it may get.
    for (version, before, octets_max) in
        [(Version::Hep1, 16, 65_507), (Version::Hep2, 28, 65_507), (Version::Hep3, 79, 65_535)]
    {
        assert_eq!(pack(octets_max - before).encode(version).unwrap().len(), octets_max);
        for more in [1, 2, 1_000] {
            let octets = octets_max + more;
            let too_long = PackError::TooLong { version, octets, octets_max };
            assert_eq!(pack(octets - before).encode(version), Err(too_long));
        }
    }
}

// --- streams ---

/// A later read used to put the framer back to work behind an error.
#[test]
fn a_stream_that_was_given_up_stays_given_up() {
    let keep_alive = Bytes::from_static(b"HEP3\0\x06");
    let mut framer = Framer::new(1);
    for (read, error) in [
        (&b"HELLO"[..], FrameError::NotHep { first: *b"HELL" }),
        (b"HEP3\0\x05", FrameError::StatedLength { stated: 5 }),
        (b"HEP3\0\x07", FrameError::TooManyReads { reads: 1, have: 6 }),
    ] {
        framer.push(Bytes::copy_from_slice(read));
        assert_eq!(framer.next_packet(), Err(error));
        for _ in 0..2 {
            framer.push(keep_alive.clone());
            assert_eq!(framer.next_packet(), Err(error));
        }
        framer = Framer::new(1);
    }
}

#[test]
fn a_framer_without_a_packet_holds_no_receive_buffer() {
    let packet = hep3(&[(ChunkId::PAYLOAD, &[b'x'; 100])]);
    for read in [packet.clone(), packet[..50].to_vec(), [&packet[..], &packet[..50]].concat(), b"no HEP".to_vec()] {
        let read = Bytes::from(read);
        let mut framer = Framer::new(32);
        framer.push(read.clone());
        while let Ok(Some(packet)) = framer.next_packet() {
            drop(packet);
        }
        assert!(read.is_unique(), "{} octets are still held", read.len());
    }
}

#[test]
fn two_versions_in_one_stream_end_it() {
    let mut framer = Framer::new(32);
    framer.push([&b"HEP3\0\x06"[..], &legacy(2, 16, 2, b"INVITE")].concat().into());
    assert_eq!(framer.next_packet().unwrap().unwrap(), &b"HEP3\0\x06"[..]);
    assert_eq!(framer.next_packet(), Err(FrameError::NotHep { first: [2, 16, 2, 17] }));
}
