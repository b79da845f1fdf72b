//! Packets on their way through a chain.

use std::sync::Arc;

use crate::message::Received;
use crate::wire::{Packet, SipIndex};

/// What the filters so far have said of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// A filter has answered `skip`.
    pub skipped: bool,
    /// Nobody sees it any more; it goes at the next [`Work::sweep`].
    pub gone: bool,
    /// Filters that failed on it and leave it to the tenant what becomes of it.
    pub failures: u32,
}

/// Some of the packets of a [`Work`], in their order: what one call is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// `None`: these are one after the other.
    picked: Option<Arc<[usize]>>,
    first: usize,
    len: usize,
}

impl Part {
    /// `len` packets from `first` on.
    #[must_use]
    pub const fn run(first: usize, len: usize) -> Self {
        Self { picked: None, first, len }
    }

    /// The packets at these places, which rise.
    #[must_use]
    pub fn picked(places: Vec<usize>) -> Self {
        Self { len: places.len(), first: 0, picked: Some(places.into()) }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the work the packet of that index is.
    #[must_use]
    pub fn place(&self, index: usize) -> Option<usize> {
        if index >= self.len {
            return None;
        }
        match &self.picked {
            None => Some(self.first + index),
            Some(places) => places.get(self.first + index).copied(),
        }
    }

    /// The places of all of them.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter_map(|index| self.place(index))
    }

    /// Its two halves.
    #[must_use]
    pub fn halves(&self) -> [Self; 2] {
        let half = self.len / 2;
        let (mut left, mut right) = (self.clone(), self.clone());
        left.len = half;
        right.first += half;
        right.len -= half;
        [left, right]
    }
}

/// Packets on their way through a chain, each with its mark.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// The packets, as the filters so far have left them.
    pub packets: Vec<Received>,
    /// One for each packet.
    pub marks: Vec<Mark>,
    /// What the filters so far had looked up in payloads that are SIP: each message is read once for all filters of a
    /// chain, and once more if its payload was edited. Empty until somebody asks.
    indices: Vec<Option<Box<SipIndex>>>,
}

impl PartialEq for Work {
    /// What was looked up is no difference.
    fn eq(&self, other: &Self) -> bool {
        self.packets == other.packets && self.marks == other.marks
    }
}

impl Eq for Work {}

impl Work {
    /// Packets that no filter has seen.
    #[must_use]
    pub fn new(packets: Vec<Received>) -> Self {
        let marks = vec![Mark::default(); packets.len()];
        Self { packets, marks, indices: Vec::new() }
    }

    /// The packet at that place, and where what lies in its payload.
    pub(super) fn sip(&mut self, place: usize) -> Option<(&Received, &SipIndex)> {
        if self.indices.len() != self.packets.len() {
            self.indices.resize_with(self.packets.len(), || None);
        }
        let received = self.packets.get(place)?;
        let index = self.indices.get_mut(place)?;
        Some((received, index.get_or_insert_with(|| Box::new(SipIndex::of(received.packet.readable_payload())))))
    }

    /// Puts an edited packet in its place.
    pub(super) fn replace(&mut self, place: usize, packet: Packet) {
        let Some(received) = self.packets.get_mut(place) else { return };
        received.packet = packet;
        if let Some(index) = self.indices.get_mut(place) {
            *index = None;
        }
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Removes the packets that are gone.
    pub fn sweep(&mut self) {
        self.keep(|mark| !mark.gone);
    }

    /// Removes the packets whose marks are not wanted, in one pass and with the order kept.
    pub fn keep(&mut self, wanted: impl Fn(&Mark) -> bool) {
        if self.marks.iter().all(&wanted) {
            return;
        }
        let mut marks = self.marks.iter();
        self.packets.retain(|_| marks.next().is_some_and(&wanted));
        let mut marks = self.marks.iter();
        self.indices.retain(|_| marks.next().is_some_and(&wanted));
        self.marks.retain(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Origin;
    use crate::wire::{CapturedAt, decode};

    #[test]
    fn a_message_is_indexed_anew_when_its_packet_was_edited_and_keeps_its_index_when_others_go() {
        // HEP1: a header of 16 octets, and SIP.
        let packet = |text: &str| {
            let header = [1, 16, 2, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            decode([&header[..], text.as_bytes()].concat().into()).unwrap()
        };
        let texts = ["BYE sip:a SIP/2.0\r\nTo: a\r\n\r\n", "ACK sip:a SIP/2.0\r\nTo: b\r\n\r\n"];
        let origin = Origin::ours(CapturedAt::default());
        let mut work = Work::new(texts.map(|text| Received { packet: packet(text), origin }).to_vec());
        let to = |work: &mut Work, place| {
            let (received, sip) = work.sip(place)?;
            sip.header(received.packet.payload(), b"to").map(<[u8]>::to_vec)
        };
        assert_eq!([0, 1, 2].map(|place| to(&mut work, place)), [Some(b"a".to_vec()), Some(b"b".to_vec()), None]);
        work.replace(1, packet("INVITE sip:a SIP/2.0\r\nVia: x\r\nTo: c\r\n\r\n"));
        assert_eq!(to(&mut work, 1), Some(b"c".to_vec()));
        work.marks[0].gone = true;
        work.sweep();
        assert_eq!([0, 1].map(|place| to(&mut work, place)), [Some(b"c".to_vec()), None]);
    }

    #[test]
    fn the_halves_of_a_part_are_its_packets_in_order() {
        for part in [Part::run(3, 5), Part::picked(vec![1, 4, 5, 9, 11])] {
            let [left, right] = part.halves();
            let halves: Vec<usize> = left.places().chain(right.places()).collect();
            assert_eq!(halves, part.places().collect::<Vec<_>>());
            assert_eq!((left.len(), right.len()), (2, 3));
            let [one, other] = right.halves()[1].halves();
            assert_eq!((one.len(), other.len()), (1, 1));
            assert_eq!(other.place(0), part.place(4));
            assert_eq!(part.place(5), None);
        }
    }
}
