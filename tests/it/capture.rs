//! Captures of every kind, built in memory, and damaged ones.

pub(crate) mod build;

use std::io::Cursor;
use std::path::Path;

use hepgate::cli::capture::{Capture, Fault, Finder, HepFinder, Out, Piece, SipFinder, What};
use proptest::prelude::*;

use build::{ETHERNET, Frame, OPTIONS, Pcap, Pcapng, SCTP, TIME, ethernet, frames, hep_in, hep3, protocol, tcp, udp};

const AGENT: &str = "198.51.100.1:40000";
const COLLECTOR: &str = "198.51.100.2:9060";

/// Frames with one HEP packet in a datagram each.
fn datagrams(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|n| udp(AGENT, COLLECTOR, &hep3(n, OPTIONS))).collect()
}

/// The numbers of the packets and the captured times, relative to `TIME`, in microseconds.
fn numbers(file: Vec<u8>) -> (Vec<u32>, Vec<Option<i64>>, Vec<String>) {
    let (packets, faults) = hep_in(file, &[]);
    let numbers = packets.iter().map(|found| found.what.head().agent_id - 2000).collect();
    let relative = |micros: u64| micros.cast_signed() - TIME.cast_signed();
    let times = packets.iter().map(|found| found.at.micros.map(relative)).collect();
    (numbers, times, faults)
}

fn pieces(file: Vec<u8>, ports: &[u16]) -> Vec<Result<Piece, Fault>> {
    Capture::new(Cursor::new(file), ports).unwrap().collect()
}

#[test]
fn every_byte_order_and_resolution_of_pcap_gives_the_same() {
    let frames = frames(datagrams(3).iter().map(|packet| ethernet(&[], packet)));
    for big_endian in [false, true] {
        for nanoseconds in [false, true] {
            let file = Pcap { big_endian, nanoseconds, ..ETHERNET }.file(&frames);
            assert_eq!(numbers(file), (vec![0, 1, 2], vec![Some(0), Some(1000), Some(2000)], vec![]));
        }
    }
}

#[test]
fn every_byte_order_resolution_and_offset_of_pcapng_gives_the_same() {
    let frames = frames(datagrams(2).iter().map(|packet| ethernet(&[], packet)));
    let offset = 1_000_000_000_i64;
    for big_endian in [false, true] {
        let offset_octets = if big_endian { offset.to_be_bytes() } else { offset.to_le_bytes() };
        for (resolution, per_second) in
            [(None, 1_000_000), (Some(3), 1000), (Some(9), 1_000_000_000), (Some(0x94), 1 << 20)]
        {
            for with_offset in [false, true] {
                let mut pcapng = Pcapng::new(big_endian);
                let resolution_octets = [resolution.unwrap_or(6)];
                let mut options: Vec<(u16, &[u8])> = vec![(2, b"eth0")];
                options.extend(resolution.map(|_| (9, resolution_octets.as_slice())));
                options.extend(with_offset.then_some((14, offset_octets.as_slice())));
                pcapng.interface(1, 0, &options);
                for frame in &frames {
                    let micros = frame.micros - if with_offset { offset.unsigned_abs() * 1_000_000 } else { 0 };
                    let units = u128::from(micros) * per_second / 1_000_000;
                    pcapng.packet(0, u64::try_from(units).unwrap(), frame);
                }
                let (found, times, faults) = numbers(pcapng.file);
                assert_eq!((found, faults), (vec![0, 1], vec![]), "{resolution:?}");
                // 2^-20 s is a little less than a microsecond, so that the last one may be cut off.
                let near = |time: Option<i64>, wanted: i64| (wanted - 1..=wanted).contains(&time.unwrap());
                assert!(near(times[0], 0) && near(times[1], 1000), "{resolution:?} {times:?}");
            }
        }
    }
}

#[test]
fn times_before_the_epoch_and_after_the_end_of_time_are_held() {
    let frame = &frames(datagrams(1).iter().map(|packet| ethernet(&[], packet)))[0];
    for (offset, resolution, units, wanted) in [
        (-100_i64, 6, 5, 0),
        (i64::MAX, 0, u64::MAX, u64::MAX),
        (0, 0x7f, u64::MAX, 0),
        (0, 0xff, u64::MAX, 0),
        (0, 19, u64::MAX, 1_844_674),
    ] {
        let mut pcapng = Pcapng::new(false);
        pcapng.interface(1, 0, &[(9, &[resolution]), (14, &offset.to_le_bytes())]);
        pcapng.packet(0, units, frame);
        let (packets, _) = hep_in(pcapng.file, &[]);
        assert_eq!(packets[0].at.micros, Some(wanted), "{offset} {resolution}");
    }
}

#[test]
fn pcapng_may_have_several_interfaces_and_sections_and_blocks_of_other_kinds() {
    let packets = datagrams(4);
    let frames =
        frames([ethernet(&[], &packets[0]), packets[1].clone(), packets[2].clone(), ethernet(&[], &packets[3])]);
    let mut pcapng = Pcapng::new(false);
    pcapng.interface(1, 0, &[]);
    pcapng.interface(101, 0, &[(9, &[9])]);
    pcapng.block(5, &[0; 12]);
    pcapng.packet(0, frames[0].micros, &frames[0]);
    pcapng.packet(1, frames[1].micros * 1000, &frames[1]);
    pcapng.block(0x0bad, b"four");
    // A new section counts its interfaces anew, and may have another byte order.
    pcapng.section(true);
    pcapng.interface(101, 0, &[]);
    pcapng.packet(0, frames[2].micros, &frames[2]);
    pcapng.packet(1, frames[3].micros, &frames[3]);
    let (found, times, faults) = numbers(pcapng.file);
    assert_eq!((found, times), (vec![0, 1, 2], vec![Some(0), Some(1000), Some(2000)]));
    assert_eq!(faults, ["4: interface 1 is not described; the file has described 1"]);
}

#[test]
fn simple_packets_have_no_time_and_are_cut_at_the_snap_length() {
    let frames = frames(datagrams(2));
    let mut pcapng = Pcapng::new(true);
    pcapng.interface(101, 300, &[]);
    pcapng.simple_packet(&frames[0]);
    let cut = Frame { octets: frames[1].octets[..100].to_vec(), ..frames[1].clone() };
    pcapng.simple_packet(&cut);
    let (found, times, faults) = numbers(pcapng.file);
    assert_eq!((found, times), (vec![0], vec![None]));
    let (have, stated) = (100 - 28, frames[1].octets.len() - 28);
    assert_eq!(faults, [format!("2: cut when it was captured: {have} of {stated} octets are here")]);
}

#[test]
fn every_link_type_gives_the_same() {
    let ipv4 = datagrams(1).remove(0);
    let ipv6 = udp("[2001:db8::1]:40000", "[2001:db8::2]:9060", &hep3(0, OPTIONS));
    for packet in [ipv4, ipv6] {
        let protocol = protocol(&packet).0.to_be_bytes();
        let [family_le, family_be] = [2_u32, 30].map(|family| family.to_le_bytes());
        let cooked = [&[0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], protocol.as_slice(), &packet].concat();
        let cooked2 = [protocol.as_slice(), &[0; 18], &packet].concat();
        for (link, frame) in [
            (1, ethernet(&[], &packet)),
            (1, ethernet(&[100], &packet)),
            (1, ethernet(&[100, 200], &packet)),
            (12, packet.clone()),
            (101, packet.clone()),
            (228, packet.clone()),
            (229, packet.clone()),
            (0, [family_le.as_slice(), &packet].concat()),
            (108, [&[0, 0, 0, 24], packet.as_slice()].concat()),
            (0, [family_be.as_slice(), &packet].concat()),
            (113, cooked),
            (276, cooked2),
            // A frame check sequence of 4 octets, announced in the upper half.
            (0x2400_0001, [ethernet(&[], &packet), vec![1, 2, 3, 4]].concat()),
        ] {
            let file = Pcap { link, ..ETHERNET }.file(&frames([frame]));
            assert_eq!(numbers(file), (vec![0], vec![Some(0)], vec![]), "link type {link}");
        }
    }
}

#[test]
fn a_link_type_that_is_not_known_is_told_once() {
    let file = Pcap { link: 147, ..ETHERNET }.file(&frames(datagrams(3)));
    assert_eq!(numbers(file).2, ["1: frames of link type 147 are not known here; they are left out"]);
}

#[test]
fn frames_of_something_else_are_nothing() {
    let mut sctp = datagrams(1).remove(0);
    sctp[9] = SCTP.0;
    let arp = [&[0xff; 12], [8, 6].as_slice(), &[0; 46]].concat();
    let spanning_tree = [&[0xff; 12], [0, 38].as_slice(), &[0x42; 46]].concat();
    let file = ETHERNET.file(&frames([arp, spanning_tree, ethernet(&[], &sctp)]));
    assert_eq!(numbers(file), (vec![], vec![], vec![]));
}

#[test]
fn fragments_of_both_ip_versions_are_put_together_in_any_order() {
    let payload = [OPTIONS, &[b'x'; 3000]].concat();
    let packet = hep3(7, &payload);
    for (from, to) in [(AGENT, COLLECTOR), ("[2001:db8::1]:40000", "[2001:db8::2]:9060")] {
        let fragments = build::fragments(&udp(from, to, &packet), 800);
        assert_eq!(fragments.len(), 4);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let file = ETHERNET.file(&frames(order.map(|n| ethernet(&[], &fragments[n]))));
            let (packets, faults) = hep_in(file, &[9060]);
            assert_eq!((packets.len(), faults.len()), (1, 0), "{faults:?}");
            assert_eq!((packets[0].what.octets(), packets[0].at.frame), (&packet, 4));
        }
        let file = ETHERNET.file(&frames([0, 1, 3].map(|n| ethernet(&[], &fragments[n]))));
        let faults = hep_in(file, &[]).1;
        assert!(faults[0].starts_with("1: fragments are missing: "), "{faults:?}");
    }
}

/// Two packets on a TCP connection, as segments with their place in the stream.
fn stream() -> (Vec<u8>, impl Fn(usize, usize) -> Vec<u8>) {
    let octets = [hep3(0, OPTIONS), hep3(1, OPTIONS), hep3(2, OPTIONS)].concat();
    let stream = octets.clone();
    // It wraps inside the first packet.
    let first = u32::MAX - 50;
    let segment = move |from: usize, to: usize| {
        let sequence = first.wrapping_add(u32::try_from(from).unwrap());
        ethernet(&[], &tcp(AGENT, COLLECTOR, sequence, "", &octets[from..to]))
    };
    (stream, segment)
}

fn handshake() -> Vec<u8> {
    ethernet(&[], &tcp(AGENT, COLLECTOR, u32::MAX - 51, "S", b""))
}

#[test]
fn tcp_segments_in_any_order_and_sent_again_give_each_packet_once() {
    let (octets, segment) = stream();
    let end = octets.len();
    for order in [
        vec![(0, 10), (10, 200), (200, end)],
        vec![(200, end), (10, 200), (0, 10)],
        vec![(0, 10), (0, 10), (5, 200), (10, 200), (150, end), (0, end)],
        vec![(0, end)],
    ] {
        let segments = order.iter().map(|(from, to)| segment(*from, *to));
        let file = ETHERNET.file(&frames([handshake()].into_iter().chain(segments)));
        let (found, _, faults) = numbers(file);
        assert_eq!((found, faults), (vec![0, 1, 2], vec![]), "{order:?}");
    }
}

#[test]
fn a_segment_that_is_missing_costs_the_packet_that_it_belongs_to() {
    let (octets, segment) = stream();
    let one = octets.len() / 3;
    let file = ETHERNET.file(&frames([
        handshake(),
        segment(0, one + 20),
        segment(one + 40, 2 * one + 30),
        segment(2 * one + 30, octets.len()),
    ]));
    let (found, _, faults) = numbers(file);
    assert_eq!(found, [0, 2]);
    let fault =
        "3: 20 octets of this stream are missing in the capture; with them goes the HEP packet that they belong to";
    assert_eq!(faults, [fault]);
}

#[test]
fn a_segment_that_was_cut_is_a_gap_at_once() {
    let (octets, segment) = stream();
    let one = octets.len() / 3;
    let mut all = frames([handshake(), segment(0, one), segment(one, 2 * one), segment(2 * one, octets.len())]);
    all[2].octets.truncate(120);
    let (found, _, faults) = numbers(ETHERNET.file(&all));
    assert_eq!(found, [0, 2]);
    let missing = one - (120 - 14 - 20 - 20);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with(&format!("3: {missing} octets of this stream are missing")), "{faults:?}");
}

#[test]
fn a_capture_that_begins_in_a_stream_finds_the_next_packet() {
    let (octets, segment) = stream();
    let file = ETHERNET.file(&frames([segment(100, octets.len())]));
    let (found, _, faults) = numbers(file);
    assert_eq!(found, [1, 2]);
    assert!(faults[0].contains("the capture begins in the middle of this stream"), "{faults:?}");
}

#[test]
fn a_reset_and_a_new_connection_on_the_same_ports_are_told_apart() {
    let again = |sequence, flags, octets: &[u8]| ethernet(&[], &tcp(AGENT, COLLECTOR, sequence, flags, octets));
    let packet = |n| hep3(n, OPTIONS);
    let file = ETHERNET.file(&frames([
        again(99, "S", b""),
        again(100, "", &packet(0)),
        again(100 + 20, "", b"left over"),
        again(200, "R", b""),
        again(899, "S", b""),
        again(900, "F", &packet(1)),
        again(4_000_000_899, "S", b""),
        again(4_000_000_900, "", &packet(2)),
    ]));
    let (found, _, faults) = numbers(file);
    assert_eq!((found, faults), (vec![0, 1, 2], vec![]));
}

#[test]
fn only_ports_that_were_named_are_read() {
    let others = [
        udp(AGENT, "198.51.100.2:5060", OPTIONS),
        udp("198.51.100.2:9060", AGENT, b"an answer"),
        tcp(AGENT, "198.51.100.2:80", 1, "S", b""),
        tcp(AGENT, "198.51.100.2:80", 2, "", b"GET / HTTP/1.1\r\n"),
    ];
    let all: Vec<Vec<u8>> = datagrams(1).into_iter().chain(others).map(|packet| ethernet(&[], &packet)).collect();
    let (packets, faults) = hep_in(ETHERNET.file(&frames(all.clone())), &[9060]);
    assert_eq!(packets.len(), 1);
    assert_eq!(faults, ["3: not HEP: 9 octets that begin with 61 6e 20 61"]);
    let (packets, faults) = hep_in(ETHERNET.file(&frames(all)), &[]);
    assert_eq!((packets.len(), faults.len()), (1, 0));
}

#[test]
fn a_file_that_ends_inside_a_frame_gives_what_is_before_it() {
    let frames = frames(datagrams(2).iter().map(|packet| ethernet(&[], packet)));
    let mut pcapng = Pcapng::new(false);
    pcapng.interface(1, 0, &[]);
    for frame in &frames {
        pcapng.packet(0, frame.micros, frame);
    }
    for file in [ETHERNET.file(&frames), pcapng.file] {
        let whole = file.len();
        let (found, _, faults) = numbers(file[..whole - 5].to_vec());
        assert_eq!(found, [0]);
        assert!(faults[0].starts_with("2: ends inside a frame: "), "{faults:?}");
        // Not even the header of the next one.
        let record = frames[1].octets.len() + 16;
        let faults = numbers(file[..whole - record + 3].to_vec()).2;
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
}

#[test]
fn what_is_no_capture_says_what_it_is() {
    for (file, wanted) in [
        (b"".as_slice(), "file is empty"),
        (b"hi", "file is neither pcap nor pcapng: it begins with 68 69"),
        (b"not a capture, only text", "file is neither pcap nor pcapng: it begins with 6e 6f 74 20"),
        (b"\x1f\x8b\x08\0", "file is compressed with gzip: unpack it first, for instance with `gzip -dk`"),
        (b"\xd4\xc3\xb2\xa1\x02", "file is neither pcap nor pcapng: it begins with d4 c3 b2 a1"),
    ] {
        assert_eq!(hep_in(file.to_vec(), &[]).1, [wanted]);
    }
}

#[test]
fn a_damaged_length_ends_the_file_and_a_damaged_block_does_not() {
    let mut file = ETHERNET.file(&frames(datagrams(2).iter().map(|packet| ethernet(&[], packet))));
    file[24 + 8 + 3] = 0x7f;
    let faults = numbers(file).2;
    assert!(faults[0].starts_with("1: has a frame or block of 2130706"), "{faults:?}");

    let frames = frames(datagrams(2));
    let mut pcapng = Pcapng::new(false);
    pcapng.interface(101, 0, &[]);
    let before = pcapng.file.len();
    pcapng.packet(0, TIME, &frames[0]);
    // The captured length reaches beyond the block.
    pcapng.file[before + 20 + 2] = 1;
    pcapng.packet(0, TIME, &frames[1]);
    let (found, _, faults) = numbers(pcapng.file);
    assert_eq!(found, [1]);
    assert!(faults[0].starts_with("1: a pcapng block of type 0x6 cannot be read"), "{faults:?}");
}

#[test]
fn headers_that_were_cut_or_make_no_sense_are_faults_with_their_frame() {
    let packet = ethernet(&[], &datagrams(1).remove(0));
    let mut all = frames([packet.clone(), packet.clone(), packet.clone(), packet]);
    all[0].octets.truncate(10);
    all[1].octets.truncate(30);
    all[2].octets[14] = 0x43;
    let (found, _, faults) = numbers(ETHERNET.file(&all));
    assert_eq!(found, [0]);
    let stated = all[0].stated;
    assert_eq!(faults[0], format!("1: cut when it was captured: 10 of {stated} octets are here"));
    assert_eq!(faults[1], format!("2: cut when it was captured: 30 of {stated} octets are here"));
    assert!(faults[2].starts_with("3: IP header: "), "{faults:?}");
}

#[test]
fn a_stream_has_a_beginning_and_an_end() {
    let (octets, segment) = stream();
    let file = ETHERNET.file(&frames([handshake(), segment(0, octets.len())]));
    let what: Vec<What> = pieces(file, &[]).into_iter().map(|piece| piece.unwrap().what).collect();
    assert!(matches!(
        what.as_slice(),
        [What::Begin { joined: false }, What::Octets(_), What::End(hepgate::cli::capture::Ending::CaptureEnds)]
    ));
}

#[test]
fn the_sip_of_a_capture_is_found_in_datagrams_and_streams() {
    let invite = b"INVITE sip:bob@example.com SIP/2.0\r\nl: 4\r\n\r\nbody".as_slice();
    let stream = [invite, b"\r\n\r\n", OPTIONS].concat();
    let to = "198.51.100.2:5060";
    let tcp = |at: usize, end: usize| tcp(AGENT, to, u32::try_from(at).unwrap() + 100, "", &stream[at..end]);
    let all = [
        udp(AGENT, to, invite),
        udp(AGENT, to, b"\r\n\r\n"),
        build::tcp(AGENT, to, 99, "S", b""),
        tcp(0, 10),
        tcp(40, stream.len()),
        tcp(10, 40),
    ];
    let file = ETHERNET.file(&frames(all.iter().map(|packet| ethernet(&[], packet))));
    let capture = Capture::new(Cursor::new(file), &[5060]).unwrap();
    let found: Vec<_> = capture.find(SipFinder::new()).map(|found| found.unwrap()).collect();
    let texts: Vec<(u64, &[u8])> = found.iter().map(|found| (found.at.frame, found.what.as_ref())).collect();
    // The first of the stream is complete with the octets from 10 to 40; the second is all in the frame before.
    assert_eq!(texts, [(1, invite), (6, invite), (5, OPTIONS)]);
}

/// Drains a capture through both finders.
fn read_all(file: &[u8], ports: &[u16]) {
    let Ok(capture) = Capture::new(Cursor::new(file), ports) else { return };
    let (mut hep, mut sip) = (HepFinder::new(ports.is_empty()), SipFinder::new());
    let (mut packets, mut messages) = (Out::new(), Out::new());
    for piece in capture.flatten() {
        hep.piece(&piece, &mut packets);
        sip.piece(&piece, &mut messages);
    }
}

/// Captures of every kind, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seeds: Vec<Vec<u8>> = ["opensips-tracer-v3-tcp", "sngrep-v2-udp", "sip-call"]
        .map(|name| std::fs::read(corpus.join(name).with_extension("pcap")).unwrap())
        .to_vec();
    let all = frames(datagrams(3).iter().map(|packet| ethernet(&[100], packet)));
    for big_endian in [false, true] {
        let mut pcapng = Pcapng::new(big_endian);
        pcapng.interface(1, 0, &[(9, &[9]), (14, &[0, 0, 0, 0, 0, 0, 0, 1])]);
        for frame in &all {
            pcapng.packet(0, frame.micros, frame);
        }
        pcapng.simple_packet(&all[0]);
        seeds.push(pcapng.file);
    }
    for (from, to) in [(AGENT, COLLECTOR), ("[2001:db8::1]:40000", "[2001:db8::2]:9060")] {
        let fragments = build::fragments(&udp(from, to, &hep3(1, &[b'x'; 900])), 304);
        seeds.push(Pcap { link: 101, ..ETHERNET }.file(&frames(fragments)));
    }
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damage_makes_it_panic(
        seed in prop::sample::select(seeds()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        named in any::<bool>(),
    ) {
        let mut file = seed;
        for (index, octet) in damage {
            let at = index.index(file.len());
            file[at] = octet;
        }
        if let Some(cut) = cut {
            let end = cut.index(file.len());
            file.truncate(end);
        }
        read_all(&file, if named { &[19160, 9060, 15060] } else { &[] });
    }

    #[test]
    fn no_octets_behind_a_good_header_make_it_panic(
        link in prop::sample::select(vec![0_u32, 1, 12, 101, 108, 113, 228, 229, 276, 9]),
        octets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
    ) {
        read_all(&Pcap { link, ..ETHERNET }.file(&frames(octets)), &[]);
    }

    #[test]
    fn any_cut_copy_and_order_of_a_connection_gives_the_same_packets(
        cuts in prop::collection::vec((1..300usize, 0..6usize, any::<bool>()), 1..40),
    ) {
        let (octets, segment) = stream();
        let mut sent = Vec::new();
        let mut at = 0;
        for &(length, delay, twice) in cuts.iter().cycle() {
            let end = (at + length).min(octets.len());
            sent.push((sent.len() + delay, segment(at, end)));
            if twice {
                sent.push((sent.len() + 2 * delay, segment(at.saturating_sub(7), end)));
            }
            at = end;
            if at == octets.len() {
                break;
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let all = [handshake()].into_iter().chain(sent.into_iter().map(|(_, segment)| segment));
        let (found, _, faults) = numbers(ETHERNET.file(&frames(all)));
        prop_assert_eq!((found, faults), (vec![0, 1, 2], vec![]));
    }
}
