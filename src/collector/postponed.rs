//! Packets that wait for a connection, and how far the first of them is written. No socket in it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Packets of one write. The system takes up to 1024 parts; 64 are as many as a batch has.
pub(super) const WRITE_PARTS_MAX: usize = 64;

/// Packets that wait for a connection, in order.
#[derive(Debug)]
pub(super) struct Postponed {
    packets: VecDeque<Waiting>,
    /// Octets of the first packet that are written.
    written: usize,
    packets_max: usize,
    /// How many of the first packets have memory of their own.
    detached: usize,
    /// Octets of the backlog that packets took which are gone, and which nobody was told of yet.
    freed: usize,
}

#[derive(Debug)]
struct Waiting {
    octets: Bytes,
    /// What it takes of the backlog.
    charge: usize,
    since: Instant,
}

/// What a write got rid of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Written {
    pub(super) packets: usize,
    pub(super) octets: usize,
}

impl Postponed {
    /// At most `packets_max` may wait (`hep_async_max_postponed_chunks`).
    pub(super) const fn new(packets_max: usize) -> Self {
        Self { packets: VecDeque::new(), written: 0, packets_max, detached: 0, freed: 0 }
    }

    /// Puts a packet behind the others, however many there are: what may wait is asked after the write. `charge` is what
    /// it takes of the backlog until it is gone.
    pub(super) fn push(&mut self, octets: Bytes, charge: usize, now: Instant) {
        self.packets.push_back(Waiting { octets, charge, since: now });
    }

    /// What packets took of the backlog that are gone since this was asked last.
    pub(super) const fn take_freed(&mut self) -> usize {
        std::mem::replace(&mut self.freed, 0)
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether as many wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.packets.len() >= self.packets_max
    }

    /// Whether more wait than may.
    pub(super) fn is_over(&self) -> bool {
        self.packets.len() > self.packets_max
    }

    /// Since when the first one waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.since)
    }

    /// What to write next, in order, beginning in the middle of a half-written packet.
    pub(super) fn parts(&self) -> Vec<IoSlice<'_>> {
        let mut from = self.written;
        let parts = self.packets.iter().take(WRITE_PARTS_MAX).map(|packet| {
            let rest = packet.octets.get(from..).unwrap_or_default();
            from = 0;
            IoSlice::new(rest)
        });
        parts.collect()
    }

    /// Octets of the first packets, whole.
    pub(super) fn octets_of_first(&self, packets: usize) -> usize {
        self.packets.iter().take(packets).map(|packet| packet.octets.len()).sum()
    }

    /// So many octets were written.
    pub(super) fn advance(&mut self, octets: usize) -> Written {
        let mut done = Written::default();
        self.written += octets;
        while let Some(length) = self.packets.front().map(|first| first.octets.len()) {
            if self.written < length {
                break;
            }
            self.written -= length;
            done.packets += 1;
            done.octets += length;
            self.pop();
        }
        done
    }

    /// The connection is gone: a half-written packet is never continued on another one. Gives how many that were.
    pub(super) fn forget_half_written(&mut self) -> usize {
        if self.written == 0 {
            return 0;
        }
        self.written = 0;
        self.pop()
    }

    /// Drops those that have waited for so long, and gives their number. Only without a connection.
    pub(super) fn drop_older(&mut self, than: Duration, now: Instant) -> usize {
        let mut dropped = 0;
        while self.oldest().is_some_and(|since| now.saturating_duration_since(since) >= than) {
            dropped += self.pop();
        }
        dropped
    }

    /// Drops the newest until no more wait than may, and gives their number.
    pub(super) fn drop_newest(&mut self) -> usize {
        let over = self.packets.len().saturating_sub(self.packets_max);
        self.freed += self.packets.drain(self.packets.len() - over..).map(|packet| packet.charge).sum::<usize>();
        self.detached = self.detached.min(self.packets.len());
        over
    }

    /// Drops all and gives their number.
    pub(super) fn drop_all(&mut self) -> usize {
        self.written = 0;
        let dropped = self.packets.len();
        self.freed += self.packets.drain(..).map(|packet| packet.charge).sum::<usize>();
        self.detached = 0;
        dropped
    }

    fn pop(&mut self) -> usize {
        let Some(first) = self.packets.pop_front() else { return 0 };
        self.freed += first.charge;
        self.detached = self.detached.saturating_sub(1);
        1
    }

    /// Gives what waits memory of its own, so that it holds no receive buffer.
    pub(super) fn detach(&mut self) {
        for packet in self.packets.iter_mut().skip(self.detached) {
            // Also who is the last one in a buffer: it would keep all of that.
            packet.octets = Bytes::copy_from_slice(&packet.octets);
        }
        self.detached = self.packets.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(octet: u8, octets: usize) -> Bytes {
        vec![octet; octets].into()
    }

    fn contents(postponed: &Postponed) -> Vec<u8> {
        postponed.parts().iter().flat_map(|part| part.iter().copied()).collect()
    }

    #[test]
    fn as_many_wait_as_may_and_one_more_is_over() {
        let (mut postponed, now) = (Postponed::new(2), Instant::now());
        for (full, over) in [(false, false), (true, false), (true, true)] {
            postponed.push(packet(0, 1), 1, now);
            assert_eq!((postponed.is_full(), postponed.is_over()), (full || postponed.len() >= 2, over));
        }
        assert_eq!(postponed.drop_newest(), 1);
        assert!(!postponed.is_over());
        assert_eq!(postponed.drop_all(), 2);
    }

    #[test]
    fn what_waits_holds_no_buffer_even_if_nobody_else_does() {
        let mut postponed = Postponed::new(10);
        postponed.push(Bytes::from(vec![7; 65_536]).slice(..100), 100, Instant::now());
        postponed.detach();
        let octets = postponed.packets.remove(0).unwrap().octets;
        assert!(octets.try_into_mut().unwrap().capacity() < 1_000);
    }

    #[test]
    fn what_packets_took_of_the_backlog_is_given_back_once_when_they_are_gone() {
        let (mut postponed, now) = (Postponed::new(1), Instant::now());
        for charge in [1, 10, 100, 1_000, 10_000] {
            postponed.push(packet(0, 2), charge, now);
        }
        assert_eq!(postponed.take_freed(), 0);
        postponed.advance(3);
        assert_eq!(postponed.take_freed(), 1);
        postponed.forget_half_written();
        assert_eq!(postponed.take_freed(), 10);
        postponed.drop_newest();
        assert_eq!((postponed.take_freed(), postponed.take_freed()), (11_000, 0));
        postponed.drop_all();
        assert_eq!(postponed.take_freed(), 100);
    }

    #[test]
    fn those_that_have_waited_for_so_long_go_and_no_other() {
        let (mut postponed, now, tick) = (Postponed::new(9), Instant::now(), Duration::from_millis(1));
        for late in 0..4 {
            postponed.push(packet(late, 1), 1, now + tick * u32::from(late));
        }
        assert_eq!(postponed.drop_older(tick * 100, now + tick * 99), 0);
        assert_eq!(postponed.drop_older(tick * 100, now + tick * 101), 2);
        assert_eq!(contents(&postponed), [2, 3]);
        assert_eq!(postponed.oldest(), Some(now + tick * 2));
    }

    #[test]
    fn a_half_written_packet_goes_on_where_it_stopped() {
        let mut postponed = Postponed::new(32);
        postponed.push(packet(1, 3), 1, Instant::now());
        postponed.push(packet(2, 2), 1, Instant::now());
        assert_eq!(postponed.advance(2), Written::default());
        assert_eq!(contents(&postponed), [1, 2, 2]);
        assert_eq!(postponed.advance(2), Written { packets: 1, octets: 3 });
        assert_eq!(contents(&postponed), [2]);
    }

    #[test]
    fn a_half_written_packet_is_never_continued_on_another_connection() {
        let mut postponed = Postponed::new(32);
        postponed.push(packet(1, 3), 1, Instant::now());
        postponed.push(packet(2, 2), 1, Instant::now());
        postponed.advance(1);
        assert_eq!(postponed.forget_half_written(), 1);
        assert_eq!(contents(&postponed), [2, 2]);
        assert_eq!(postponed.forget_half_written(), 0, "whole packets stay");
    }

    proptest! {
        /// However a stream is written, in whatever portions, its octets are those of the packets, in order and once.
        #[test]
        fn any_portions_write_the_packets_in_order_and_once(
            lengths in proptest::collection::vec(1usize..40, 1..30),
            portions in proptest::collection::vec(1usize..100, 1..400),
        ) {
            let mut postponed = Postponed::new(1_000);
            let mut expected = Vec::new();
            for (index, octets) in lengths.iter().enumerate() {
                let packet = packet(u8::try_from(index).unwrap(), *octets);
                expected.extend_from_slice(&packet);
                postponed.push(packet, 1, Instant::now());
            }
            let (mut stream, mut packets) = (Vec::new(), 0);
            for portion in portions {
                let next = contents(&postponed);
                let portion = portion.min(next.len());
                stream.extend_from_slice(&next[..portion]);
                packets += postponed.advance(portion).packets;
            }
            prop_assert!(expected.starts_with(&stream));
            prop_assert_eq!(packets + postponed.len(), lengths.len());
            if postponed.is_empty() {
                prop_assert_eq!(stream, expected);
            }
        }
    }
}
