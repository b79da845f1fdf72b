//! Packets of real senders gone wrong: what a fuzzer does, on every machine and the same each time.

use hepgate::wire::deflate;

use crate::corpus;
use crate::laws::dice::Dice;
use crate::laws::{decoding, editing, framing, inflating, packing, repacking, scanning};
use crate::mutate::mutate;

/// Rounds unless `HEPGATE_FUZZ_ROUNDS` says otherwise: a few seconds in a debug build.
const ROUNDS: u64 = 20_000;

/// Packets that are put behind each other for a stream, at most.
const STREAM_PACKETS_MAX: usize = 4;

#[test]
fn the_laws_hold_for_packets_of_real_senders_gone_wrong() {
    let rounds = std::env::var("HEPGATE_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let seeds: Vec<Vec<u8>> =
        corpus::exchanges().into_iter().flat_map(|exchange| exchange.frames).map(|frame| frame.octets).collect();
    for round in 0..rounds {
        one_round(round, &seeds);
    }
}

fn one_round(round: u64, seeds: &[Vec<u8>]) {
    // Octets that depend on the round alone, so that a round that fails can be run again by itself.
    let script = noise(round, 256);
    let mut dice = Dice::new(&script);
    let octets = wrong_packet(seeds, &mut dice);
    let _shown_if_it_fails = Shown { round, octets: &octets };
    decoding(&octets);
    repacking(&octets);
    // What stands behind the packet says how it is edited and how the stream is split.
    editing(&[&octets[..], &script].concat());
    packing(&script);
    // Most of them begin with SIP behind the chunks: scan what is there from any octet on.
    let sip = octets.windows(4).position(|part| part == b"SIP/").unwrap_or(0);
    let line = octets[..sip].iter().rposition(|octet| *octet == b'\x0f' || *octet < b' ').map_or(sip, |at| at + 1);
    if round.is_multiple_of(8) {
        scanning(&octets[line.min(octets.len())..]);
    }
    if round.is_multiple_of(64) {
        // Costs more than all of the others together: deflate begins with a table of 64 KiB.
        inflating(&mutate(deflate(&octets).unwrap(), &octets, &mut dice));
    }
    let packets = 1 + dice.below(STREAM_PACKETS_MAX);
    let mut stream: Vec<u8> = (1..packets).flat_map(|_| seeds[dice.below(seeds.len())].clone()).collect();
    stream.extend_from_slice(&octets);
    stream.extend_from_slice(&script[..8]);
    framing(&stream);
}

fn wrong_packet(seeds: &[Vec<u8>], dice: &mut Dice<'_>) -> Vec<u8> {
    let packet = seeds[dice.below(seeds.len())].clone();
    let other = &seeds[dice.below(seeds.len())];
    mutate(packet, other, dice)
}

/// So many octets of a generator started with that number (splitmix64).
fn noise(start: u64, octets: usize) -> Vec<u8> {
    let mut state = start;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    std::iter::repeat_with(next).flat_map(u64::to_le_bytes).take(octets).collect()
}

/// Prints the round and its octets if a law panics.
struct Shown<'a> {
    round: u64,
    octets: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("round {}: {:02x?}", self.round, self.octets);
        }
    }
}
