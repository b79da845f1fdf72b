//! What decoding, cutting a stream and encoding cost: nanoseconds and allocations per packet.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;

use std::alloc::System;
use std::hint::black_box;

use bytes::Bytes;
use hepgate::wire::{ChunkId, Draft, Framer, Version, decode};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use common::{PACKET_OCTETS, as_f64, invite, is_quick, nanos_per_packet, octets};

/// Counts what is allocated.
#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Packets in one read of the stream.
const STREAM_PACKETS: usize = 64;

fn main() {
    println!("codec, {PACKET_OCTETS}-octet SIP INVITE in HEP3{}", if is_quick() { " (quick: no figures)" } else { "" });
    let packet = octets(7);
    check(&packet);

    let none = report("decode", 1, || decode(packet.clone()).unwrap());
    assert!(none == 0.0, "decode allocates {none} times a packet: it must only take slices");

    let whole = stream(&packet);
    let cut = report("framer, whole packets, and decode", STREAM_PACKETS, || cut(std::slice::from_ref(&whole)));
    assert!(cut < 0.1, "the framer allocates {cut} times a packet: whole packets must be slices");

    // As TCP delivers it: a read ends inside a packet.
    let reads = [whole.slice(..whole.len() / 2 + 100), whole.slice(whole.len() / 2 + 100..)];
    report("framer, two reads with a packet split, and decode", STREAM_PACKETS, || self::cut(&reads));

    let pack = invite(7);
    report("encode HEP3", 1, || pack.encode(Version::Hep3).unwrap());
    report("encode HEP2", 1, || pack.encode(Version::Hep2).unwrap());

    let decoded = decode(packet).unwrap();
    report("edit: correlation id replaced", 1, || {
        let mut draft = Draft::new(&decoded);
        draft.set_chunk(ChunkId::CORRELATION_ID, b"another-call-id").unwrap();
        draft.into_packet()
    });
}

/// That what is measured does what it should.
fn check(packet: &Bytes) {
    let decoded = decode(packet.clone()).unwrap();
    assert_eq!(decoded.octets(), packet);
    assert_eq!(decoded.head().captured_at, invite(7).captured_at);
    assert_eq!(decoded.payload(), invite(7).payload.unwrap());
    let whole = stream(packet);
    for at in [1, 5, 738, 739, 30_000] {
        assert_eq!(cut(&[whole.slice(..at), whole.slice(at..)]), STREAM_PACKETS);
    }
    let hep2 = decode(invite(7).encode(Version::Hep2).unwrap()).unwrap();
    assert_eq!(hep2.payload(), decoded.payload());
}

fn stream(packet: &Bytes) -> Bytes {
    packet.repeat(STREAM_PACKETS).into()
}

/// Cuts and decodes what these reads bring, and says how many packets that were.
fn cut(reads: &[Bytes]) -> usize {
    let mut framer = Framer::new(32);
    let mut count = 0;
    for read in reads {
        framer.push(read.clone());
        while let Some(packet) = framer.next_packet().unwrap() {
            black_box(decode(packet).unwrap());
            count += 1;
        }
    }
    count
}

/// Prints the figures of `work`, which handles `packets` packets, and gives the allocations per packet.
fn report<T>(what: &str, packets: usize, mut work: impl FnMut() -> T) -> f64 {
    // Before the clock: the first call may fill something that stays.
    black_box(work());
    const CALLS: usize = 100;
    let region = Region::new(COUNTING);
    for _ in 0..CALLS {
        black_box(work());
    }
    let change = region.change();
    let allocations = as_f64((change.allocations + change.reallocations) as u128) / as_f64((CALLS * packets) as u128);
    let nanos = nanos_per_packet(packets, work);
    println!("  {what:<52} {nanos:>8.1} ns  {allocations:>6.3} allocations");
    allocations
}
