use hepgate::config::CollectorId;
use hepgate::wire::{Chunk, ChunkId, Packet, PayloadType, Vendor};

use crate::support::bench::{Bench, NOW, call, work};
use crate::support::guest::Guest;

const CHUNKS: &str = r#"
    (import "hep:filter/packets@0.1.0" "[method]batch.set-chunk-value" (func $set
        (param i32 i32 i32 i32 i32 i64 i64 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.chunk-value" (func $get (param i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.sender" (func $sender (param i32 i32 i32)))"#;

/// The forms, as the interface numbers them.
const UINT8: u32 = 0;
const UINT16: u32 = 1;
const UINT32: u32 = 2;
const INET4: u32 = 3;
const INET6: u32 = 4;
const UTF8: u32 = 5;
const OCTETS: u32 = 6;

/// Sets chunk (9, kind) to a value of that form.
fn set(kind: u16, form: u32, first: u64, second: u64) -> String {
    format!(
        "(call $set (local.get $batch) (i32.const 0) (i32.const 9) (i32.const {kind}) (i32.const {form})
           (i64.const {first}) (i64.const {second}) (i32.const 512))\n"
    )
}

/// Reads chunk (9, kind) in that form, and sets chunk (9, `to`) to the 48 octets of the answer as the guest has them.
fn get(kind: u16, form: u32, to: u16) -> String {
    format!(
        "(memory.fill (i32.const 1024) (i32.const 0) (i32.const 48))
         (call $get (local.get $batch) (i32.const 0) (i32.const 9) (i32.const {kind}) (i32.const {form})
           (i32.const 1024))\n{}",
        set(to, OCTETS, 1_024, 48)
    )
}

/// The packet after a guest with that body has had it.
fn after(on_batch: &str) -> Packet {
    let definitions = r#"(data (i32.const 256) "\c3\a4\ff")"#;
    let mut bench = Bench::new(Guest { imports: CHUNKS, definitions, on_batch, ..Guest::default() });
    let mut work = work(&[b"one"]);
    call(&mut bench.start().unwrap(), &mut work).unwrap();
    work.packets.remove(0).packet
}

fn body(packet: &Packet, kind: u16) -> Vec<u8> {
    let id = ChunkId { vendor: Vendor(9), kind };
    packet.chunks().find(|chunk: &Chunk<'_>| chunk.id == id).unwrap().body.to_vec()
}

const SIX: u128 = 0x2001_0db8_0000_0000_0000_0000_0000_0007;

#[test]
fn a_chunk_of_any_vendor_is_set_to_a_value_of_each_form() {
    let (high, low) = (0x2001_0db8_0000_0000, 7);
    let packet = after(
        &[
            set(1, UINT8, 0x12, 0),
            set(2, UINT16, 0x1234, 0),
            set(3, UINT32, 0x1234_5678, 0),
            set(4, INET4, 0xc000_0201, 0),
            set(5, INET6, high, low),
            set(6, UTF8, 256, 2),
            set(7, OCTETS, 256, 3),
        ]
        .concat(),
    );
    let bodies: Vec<Vec<u8>> = (1..=7).map(|kind| body(&packet, kind)).collect();
    let expected: [&[u8]; 7] = [
        &[0x12],
        &[0x12, 0x34],
        &[0x12, 0x34, 0x56, 0x78],
        &[192, 0, 2, 1],
        &SIX.to_be_bytes(),
        "ä".as_bytes(),
        &[0xc3, 0xa4, 0xff],
    ];
    assert_eq!(bodies, expected);
}

#[test]
fn a_chunk_is_read_in_each_form_and_one_that_does_not_fit_is_an_error() {
    let packet = after(
        &[
            set(1, UINT8, 0x12, 0),
            set(2, UINT16, 0x1234, 0),
            set(3, UINT32, 0x1234_5678, 0),
            set(5, INET6, 0x2001_0db8_0000_0000, 7),
            set(7, OCTETS, 256, 3),
            get(1, UINT8, 21),
            get(2, UINT16, 22),
            get(3, UINT32, 23),
            get(3, INET4, 24),
            get(5, INET6, 25),
            get(7, OCTETS, 27),
            // What is not there, of the wrong width, and no UTF-8.
            get(8, UINT8, 30),
            get(1, UINT16, 31),
            get(3, INET6, 32),
            get(7, UTF8, 33),
        ]
        .concat(),
    );
    // As the guest has it: whether it is an error; whether there is one; the form; from 24 on the value.
    let word = |kind: u16, at: usize| u32::from_le_bytes(body(&packet, kind)[at..at + 4].try_into().unwrap());
    let long = |kind: u16, at: usize| u64::from_le_bytes(body(&packet, kind)[at..at + 8].try_into().unwrap());
    for (kind, form, value) in
        [(21, UINT8, 0x12), (22, UINT16, 0x1234), (23, UINT32, 0x1234_5678), (24, INET4, 0x1234_5678)]
    {
        let answer = body(&packet, kind);
        assert_eq!((answer[0], answer[8], u32::from(answer[16]), word(kind, 24)), (0, 1, form, value), "{kind}");
    }
    assert_eq!((body(&packet, 25)[16], long(25, 24), long(25, 32)), (4, 0x2001_0db8_0000_0000, 7));
    assert_eq!((body(&packet, 27)[16], word(27, 28)), (6, 3));
    assert_eq!((body(&packet, 30)[0], body(&packet, 30)[8]), (0, 0), "not there");
    // wrong-width is the fifth of the errors, with the width that is needed; other is the last.
    assert_eq!((body(&packet, 31)[0], body(&packet, 31)[8], word(31, 12)), (1, 4, 2));
    assert_eq!((body(&packet, 32)[0], body(&packet, 32)[8], word(32, 12)), (1, 4, 16));
    assert_eq!((body(&packet, 33)[0], body(&packet, 33)[8]), (1, 7));
}

/// As in `hep_set`: what must agree with something else is set together with it.
#[test]
fn the_family_and_the_time_are_not_set_by_themselves() {
    for (vendor, kind, form, refused) in [
        (0, 0x01, UINT8, true),
        (0, 0x09, UINT32, true),
        (0, 0x0a, UINT32, true),
        // Another vendor's numbers are its own, and the rest is free.
        (9, 0x01, UINT8, false),
        (0, 0x0c, UINT32, false),
        (0, 0x02, UINT8, false),
    ] {
        let packet = after(&format!(
            "(call $set (local.get $batch) (i32.const 0) (i32.const {vendor}) (i32.const {kind}) (i32.const {form})
               (i64.const 10) (i64.const 0) (i32.const 1024)) {}",
            set(30, OCTETS, 1_024, 8)
        ));
        // Whether it is an error, and which: other is the last.
        let answer = body(&packet, 30);
        assert_eq!((answer[0] == 1, answer[0] == 1 && answer[4] == 7), (refused, refused), "{vendor} {kind}");
    }
}

/// `$hep_net`.
#[test]
fn a_filter_learns_who_sent_us_a_packet_over_what() {
    let packet = after(&format!(
        "(call $sender (local.get $batch) (i32.const 0) (i32.const 1024)) {}
         (call $set (local.get $batch) (i32.const 0) (i32.const 9) (i32.const 2) (i32.const {OCTETS})
           (i64.load32_u (i32.const 1024)) (i64.load32_u (i32.const 1028)) (i32.const 512))
         (call $set (local.get $batch) (i32.const 0) (i32.const 9) (i32.const 3) (i32.const {OCTETS})
           (i64.load32_u (i32.const 1096)) (i64.load32_u (i32.const 1100)) (i32.const 512))",
        set(1, OCTETS, 1_024, 80)
    ));
    assert_eq!((body(&packet, 2), body(&packet, 3)), (b"udp".to_vec(), b"udp".to_vec()), "transport, listener");
    let record = body(&packet, 1);
    // Two endpoints from 8 and from 40 on: the family, the address 8 further, the port 24 further.
    let endpoint = |at: usize| {
        let address = u32::from_le_bytes(record[at + 8..at + 12].try_into().unwrap());
        (record[at], address, u16::from_le_bytes([record[at + 24], record[at + 25]]))
    };
    assert_eq!(endpoint(8), (1, 0xc633_6401, 40_000), "198.51.100.1:40000");
    assert_eq!(endpoint(40), (1, 0xc633_6402, 5_656), "198.51.100.2:5656");
}

const SENDING: &str = r#"
    (import "hep:filter/packing@0.1.0" "[static]packet.pack-parts" (func $parts
        (param i32 i64 i64 i32 i32 i64 i64 i32 i32 i32 i32)))
    (import "hep:filter/packing@0.1.0" "[method]packet.add-payload-part" (func $part
        (param i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/packing@0.1.0" "[method]packet.add-correlation" (func $correlation
        (param i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/packing@0.1.0" "[method]packet.add-chunk-value" (func $chunk
        (param i32 i32 i32 i32 i64 i64 i32)))
    (import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))
    (import "hep:filter/sending@0.1.0" "[method]collector.send" (func $send (param i32 i32 i32)))
    (import "hep:filter/sending@0.1.0" "[method]collector.correlate" (func $correlate
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

const TEXTS: &str = r#"
    (data (i32.const 256) "homer")
    (data (i32.const 264) "text")
    (data (i32.const 272) "a line")
    (data (i32.const 280) "tm")
    (data (i32.const 288) "sip")
    (data (i32.const 296) "call-1")
    (data (i32.const 304) "isup")
    (data (i32.const 312) "call-2")"#;

/// A packet of two parts with a correlation and a chunk, made at `$i` and sent to the collector `$j`.
const MAKE: &str = "
    (call $open (i32.const 256) (i32.const 5) (i32.const 512))
    (local.set $j (i32.load (i32.const 516)))
    (call $parts (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 5060)
      (i32.const 1) (i64.const 2) (i64.const 0) (i32.const 5070) (i32.const 17) (i32.const 100) (i32.const 512))
    (local.set $i (i32.load (i32.const 516)))
    (call $part (local.get $i) (i32.const 264) (i32.const 4) (i32.const 272) (i32.const 6) (i32.const 512))
    (call $part (local.get $i) (i32.const 280) (i32.const 2) (i32.const 280) (i32.const 2) (i32.const 512))
    (call $correlation (local.get $i) (i32.const 288) (i32.const 3) (i32.const 296) (i32.const 6) (i32.const 512))
    (call $chunk (local.get $i) (i32.const 9) (i32.const 1) (i32.const 2) (i64.const 0x12345678) (i64.const 0)
      (i32.const 512))
    (call $send (local.get $j) (local.get $i) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then unreachable))";

fn sent(mut bench: Bench) -> Packet {
    let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
    assert_eq!((outcome.sent.len(), outcome.sent[0].to), (1, CollectorId(3)));
    outcome.sent[0].packet.packet.clone()
}

fn chunk(packet: &Packet, id: ChunkId) -> Option<String> {
    let body = packet.chunks().find(|chunk| chunk.id == id)?.body.to_vec();
    Some(String::from_utf8(body).unwrap())
}

#[test]
fn a_packet_of_parts_is_made_as_homer5_on_says() {
    let guest = Guest { imports: SENDING, definitions: TEXTS, on_batch: MAKE, ..Guest::default() };
    let packet = sent(Bench::new(guest));
    assert_eq!((packet.payload(), packet.head().agent_id), (&b"a line:tm"[..], 2_001));
    assert_eq!((packet.head().payload_type, packet.head().captured_at), (PayloadType::LOG, Some(NOW)));
    assert_eq!((packet.head().source_port, packet.head().destination_port), (5_060, 5_070));
    assert_eq!(chunk(&packet, ChunkId::CORRELATION_ID).as_deref(), Some("call-1"));
    assert_eq!(chunk(&packet, ChunkId::EXTRA_CORRELATION), None);
    assert_eq!(body(&packet, 1), [0x12, 0x34, 0x56, 0x78]);
    let packet = sent(Bench::packing(guest, |proto_hep| proto_hep.homer5_delim = "##".to_owned()));
    assert_eq!(packet.payload(), b"a line##tm");
    let packet = sent(Bench::packing(guest, |proto_hep| proto_hep.homer5_on = false));
    assert_eq!(packet.payload(), br#"{"text":"a line","tm":"tm"}"#);
    assert_eq!(chunk(&packet, ChunkId::CORRELATION_ID), None);
    assert_eq!(chunk(&packet, ChunkId::EXTRA_CORRELATION).as_deref(), Some(r#"{"sip":"call-1"}"#));
}

#[test]
fn what_filters_make_leaves_compressed_if_compressed_payload_says_so() {
    let guest = Guest { imports: SENDING, definitions: TEXTS, on_batch: MAKE, ..Guest::default() };
    let packet = sent(Bench::packing(guest, |proto_hep| proto_hep.compressed_payload = true));
    let compressed = packet.chunks().find(|chunk| chunk.id == ChunkId::COMPRESSED_PAYLOAD).unwrap();
    assert_eq!(compressed.body[..2], [0x78, 0x9c], "zlib");
    assert!(packet.chunks().all(|chunk| chunk.id != ChunkId::PAYLOAD));
    assert_eq!(packet.readable_payload(), b"a line:tm");
    let packet = sent(Bench::new(guest));
    assert!(packet.chunks().all(|chunk| chunk.id != ChunkId::COMPRESSED_PAYLOAD), "not by default");
}

#[test]
fn correlate_sends_both_ids_in_one_packet() {
    let correlate = |second: u32| {
        format!(
            "(call $open (i32.const 256) (i32.const 5) (i32.const 512))
             (local.set $j (i32.load (i32.const 516)))
             (call $correlate (local.get $j) (i32.const 288) (i32.const 3) (i32.const 296) (i32.const 6)
               (i32.const {second}) (i32.const {}) (i32.const 312) (i32.const 6) (i32.const 512))
             (i32.store8 (i32.const 1024) (i32.load8_u (i32.const 512)))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 1))",
            if second == 288 { 3 } else { 4 }
        )
    };
    let on_batch = correlate(304);
    let guest = Guest { imports: SENDING, definitions: TEXTS, on_batch: &on_batch, ..Guest::default() };
    let packet = sent(Bench::new(guest));
    assert_eq!(chunk(&packet, ChunkId::EXTRA_CORRELATION).as_deref(), Some(r#"{"isup":"call-2","sip":"call-1"}"#));
    assert_eq!(chunk(&packet, ChunkId::CORRELATION_ID).as_deref(), Some("call-1"));
    assert_eq!((packet.head().payload_type.0, packet.head().agent_id, packet.payload().len()), (0x60, 2_001, 0));
    // The same type twice is an error, which the guest shows as its verdict, and nothing is sent.
    let on_batch = correlate(288);
    let mut bench = Bench::new(Guest { imports: SENDING, definitions: TEXTS, on_batch: &on_batch, ..Guest::default() });
    let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
    assert_eq!((outcome.verdicts, outcome.sent), (vec![hepgate::filter::Verdict::Skip], Vec::new()));
}

/// As for whole payloads and chunks.
#[test]
fn a_packet_of_parts_is_not_made_of_more_than_a_packet_holds() {
    // A part counts for its name of four octets and, as a chunk does, for six more.
    for (octets, verdict) in
        [(65_535 - 4 - 6, hepgate::filter::Verdict::Pass), (65_536 - 4 - 6, hepgate::filter::Verdict::Skip)]
    {
        let on_batch = format!(
            "(call $parts (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 5060)
               (i32.const 1) (i64.const 2) (i64.const 0) (i32.const 5070) (i32.const 17) (i32.const 100)
               (i32.const 512))
             (memory.fill (i32.const 2048) (i32.const 120) (i32.const {octets}))
             (call $part (i32.load (i32.const 516)) (i32.const 264) (i32.const 4) (i32.const 2048)
               (i32.const {octets}) (i32.const 512))
             (i32.store8 (i32.const 1024) (i32.load8_u (i32.const 512)))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 1))"
        );
        let guest = Guest { imports: SENDING, definitions: TEXTS, on_batch: &on_batch, ..Guest::default() };
        let outcome = call(&mut Bench::new(guest).start().unwrap(), &mut work(&[b"one"])).unwrap();
        assert_eq!(outcome.verdicts, [verdict], "{octets}");
    }
}
