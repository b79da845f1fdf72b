//! IP fragments put together, within bounds. Knows time only as frames tell it.

use std::collections::HashMap;
use std::net::IpAddr;

use etherparse::defrag::IpDefragBuf;
use etherparse::{IpFragOffset, IpNumber};

use super::{At, Fault, Out, Piece, Reason};

/// IP packets that may be incomplete at the same time. Each has at most 64 KiB, so all of them 16 MiB.
const INCOMPLETE_MAX: usize = 256;
/// Captured time after which fragments are given up: what Linux waits for (`ipfrag_time`, 30 s), in microseconds.
const PATIENCE_MICROS: u64 = 30_000_000;

/// Which IP packet a fragment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) identification: u32,
    pub(super) protocol: IpNumber,
}

/// One fragment of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) key: Key,
    pub(super) offset: IpFragOffset,
    pub(super) more: bool,
    pub(super) octets: &'a [u8],
}

/// The IP packets that lack fragments.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    incomplete: HashMap<Key, Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    /// Its first fragment that came.
    begun: At,
    buffer: IpDefragBuf,
    octets: usize,
}

impl Fragments {
    /// Takes a fragment and gives the payload of the IP packet if that was the last one that it lacked.
    pub(super) fn push(&mut self, at: At, fragment: Fragment<'_>, out: &mut Out<Piece>) -> Option<Vec<u8>> {
        self.give_up_old(at, out);
        self.make_room(fragment.key, out);
        let packet = self.incomplete.entry(fragment.key).or_insert_with(|| Incomplete {
            begun: at,
            buffer: IpDefragBuf::new(fragment.key.protocol, Vec::new(), Vec::new()),
            octets: 0,
        });
        packet.octets += fragment.octets.len();
        if let Err(error) = packet.buffer.add(fragment.offset, fragment.more, fragment.octets) {
            self.incomplete.remove(&fragment.key);
            out.push_back(Err(Fault::at_frame(at.frame, Reason::Fragments(error.to_string()))));
            return None;
        }
        if !packet.buffer.is_complete() {
            return None;
        }
        let (octets, _) = self.incomplete.remove(&fragment.key)?.buffer.take_bufs();
        Some(octets)
    }

    /// Gives up whatever is incomplete.
    pub(super) fn end(&mut self, out: &mut Out<Piece>) {
        let mut left: Vec<_> = self.incomplete.drain().collect();
        left.sort_unstable_by_key(|(_, packet)| packet.begun.frame);
        out.extend(left.into_iter().map(|(key, packet)| Err(packet.missing(key))));
    }

    fn give_up_old(&mut self, now: At, out: &mut Out<Piece>) {
        let old = |packet: &Incomplete| match (packet.begun.micros, now.micros) {
            (Some(begun), Some(now)) => now.saturating_sub(begun) > PATIENCE_MICROS,
            _ => false,
        };
        out.extend(self.incomplete.extract_if(|_, packet| old(packet)).map(|(key, packet)| Err(packet.missing(key))));
    }

    /// Gives up the oldest one if there are too many.
    fn make_room(&mut self, key: Key, out: &mut Out<Piece>) {
        if self.incomplete.len() < INCOMPLETE_MAX || self.incomplete.contains_key(&key) {
            return;
        }
        let oldest = self.incomplete.iter().min_by_key(|(_, packet)| packet.begun.frame).map(|(key, _)| *key);
        if let Some((key, packet)) = oldest.and_then(|key| self.incomplete.remove_entry(&key)) {
            out.push_back(Err(packet.missing(key)));
        }
    }
}

impl Incomplete {
    fn missing(&self, key: Key) -> Fault {
        let (source_address, destination) = (key.source, key.destination);
        Fault::at_frame(self.begun.frame, Reason::FragmentsMissing { source_address, destination, have: self.octets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(frame: u64, seconds: u64) -> At {
        At { frame, micros: Some(seconds * 1_000_000) }
    }

    fn key(identification: u32) -> Key {
        let address = IpAddr::from([192, 0, 2, 1]);
        Key { source: address, destination: address, identification, protocol: IpNumber::UDP }
    }

    fn fragment(identification: u32, eighths: u16, more: bool, octets: &[u8]) -> Fragment<'_> {
        Fragment { key: key(identification), offset: IpFragOffset::try_new(eighths).unwrap(), more, octets }
    }

    #[test]
    fn fragments_in_any_order_make_the_packet() {
        let mut fragments = Fragments::default();
        let mut out = Out::new();
        assert_eq!(fragments.push(at(1, 0), fragment(1, 2, false, b"end"), &mut out), None);
        assert_eq!(fragments.push(at(2, 0), fragment(1, 1, true, b"--middle"), &mut out), None);
        assert_eq!(fragments.push(at(3, 0), fragment(2, 0, true, b"another!"), &mut out), None);
        let whole = fragments.push(at(4, 0), fragment(1, 0, true, b"beginnin"), &mut out);
        assert_eq!(whole.unwrap(), b"beginnin--middleend");
        assert!(out.is_empty());
    }

    #[test]
    fn fragments_that_never_come_are_a_fault_after_30_seconds_or_at_the_end() {
        let mut fragments = Fragments::default();
        let mut out = Out::new();
        fragments.push(at(1, 100), fragment(1, 0, true, b"12345678"), &mut out);
        fragments.push(at(2, 131), fragment(2, 0, true, b"12345678"), &mut out);
        let fault = out.pop_front().unwrap().unwrap_err();
        assert_eq!((fault.frame, out.len()), (1, 0));
        assert_eq!(
            fault.to_string(),
            "fragments are missing: 8 octets of a packet from 192.0.2.1 to 192.0.2.1 are here"
        );
        fragments.end(&mut out);
        assert_eq!(out.pop_front().unwrap().unwrap_err().frame, 2);
    }

    #[test]
    fn the_oldest_gives_way_when_too_many_are_incomplete() {
        let mut fragments = Fragments::default();
        let mut out = Out::new();
        for identification in 0..300 {
            fragments.push(at(u64::from(identification), 0), fragment(identification, 0, true, b"12345678"), &mut out);
        }
        let frames: Vec<u64> = out.iter().map(|fault| fault.as_ref().unwrap_err().frame).collect();
        assert_eq!(frames, (0..44).collect::<Vec<u64>>());
        assert_eq!(fragments.incomplete.len(), INCOMPLETE_MAX);
    }

    #[test]
    fn fragments_that_contradict_each_other_are_a_fault() {
        let mut fragments = Fragments::default();
        let mut out = Out::new();
        fragments.push(at(1, 0), fragment(1, 1, false, b"end"), &mut out);
        fragments.push(at(2, 0), fragment(1, 4, false, b"another end"), &mut out);
        assert_eq!(out.pop_front().unwrap().unwrap_err().frame, 2);
        assert!(fragments.incomplete.is_empty());
    }
}
