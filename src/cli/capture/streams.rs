//! The table of TCP streams, with its bounds.

use std::collections::HashMap;

use super::stream::{Events, Segment, Stream};
use super::{At, Ending, Flow, Out, Piece};

/// Streams known at the same time, each direction of a connection being one. Whoever cuts packets out of a stream may
/// keep up to 64 KiB of an unfinished one, so this bounds that too: 256 MiB.
const STREAMS_MAX: usize = 4096;
/// How many of them are forgotten at once when there are too many, the longest idle first: finding them costs a sort.
const FORGET_AT_ONCE: usize = STREAMS_MAX / 4;
/// Octets that may wait behind holes in all streams together.
const PENDING_OCTETS_MAX: usize = 64 << 20;

/// Every TCP stream of a capture.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<Flow, Entry>,
    /// Sum over the streams.
    pending_octets: usize,
}

#[derive(Debug, Default)]
struct Entry {
    stream: Stream,
    /// The last frame with something of it.
    used: u64,
}

impl Streams {
    /// Takes a segment of a flow.
    pub(super) fn push(&mut self, flow: Flow, segment: Segment, out: &mut Out<Piece>) {
        let at = segment.at;
        let says_something = segment.syn || !segment.octets.is_empty() || segment.cut > 0;
        if !self.streams.contains_key(&flow) {
            if !says_something {
                return;
            }
            self.make_room(at, out);
        }
        let entry = self.streams.entry(flow).or_default();
        entry.used = at.frame;
        let before = entry.stream.pending_octets();
        let mut events = Events::new();
        entry.stream.push(segment, &mut events);
        self.pending_octets = self.pending_octets + entry.stream.pending_octets() - before;
        put(flow, events, out);
        if self.pending_octets > PENDING_OCTETS_MAX {
            self.give_up_holes(out);
        }
    }

    /// Ends both directions of a connection that was reset.
    pub(super) fn reset(&mut self, flow: Flow, at: At, out: &mut Out<Piece>) {
        self.remove(flow, at, Ending::Closed, out);
        self.remove(flow.reversed(), at, Ending::Closed, out);
    }

    /// Ends every stream: the capture has no more frames.
    pub(super) fn end(&mut self, at: At, out: &mut Out<Piece>) {
        for flow in self.longest_idle_first() {
            self.remove(flow, at, Ending::CaptureEnds, out);
        }
    }

    fn remove(&mut self, flow: Flow, at: At, ending: Ending, out: &mut Out<Piece>) {
        let Some(mut entry) = self.streams.remove(&flow) else { return };
        self.pending_octets -= entry.stream.pending_octets();
        let mut events = Events::new();
        entry.stream.close(at, ending, &mut events);
        put(flow, events, out);
    }

    fn make_room(&mut self, at: At, out: &mut Out<Piece>) {
        if self.streams.len() < STREAMS_MAX {
            return;
        }
        for flow in self.longest_idle_first().into_iter().take(FORGET_AT_ONCE) {
            self.remove(flow, at, Ending::Forgotten, out);
        }
    }

    /// Gives up holes, those of the longest idle streams first, until half of the room is free again.
    fn give_up_holes(&mut self, out: &mut Out<Piece>) {
        for flow in self.longest_idle_first() {
            if self.pending_octets <= PENDING_OCTETS_MAX / 2 {
                return;
            }
            let Some(entry) = self.streams.get_mut(&flow) else { continue };
            self.pending_octets -= entry.stream.pending_octets();
            let mut events = Events::new();
            entry.stream.give_up_holes(&mut events);
            put(flow, events, out);
        }
    }

    fn longest_idle_first(&self) -> Vec<Flow> {
        let mut flows: Vec<_> = self.streams.iter().map(|(flow, entry)| (entry.used, *flow)).collect();
        flows.sort_unstable();
        flows.into_iter().map(|(_, flow)| flow).collect()
    }
}

fn put(flow: Flow, events: Events, out: &mut Out<Piece>) {
    out.extend(events.into_iter().map(|(at, what)| Ok(Piece { at, flow, what })));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Transport, What};
    use super::*;

    fn flow(n: u16) -> Flow {
        Flow {
            transport: Transport::Tcp,
            source: ([192, 0, 2, 1], n).into(),
            destination: ([192, 0, 2, 2], 9060).into(),
        }
    }

    fn segment(frame: u64, sequence: u32, octets: Bytes) -> Segment {
        Segment { at: At { frame, micros: None }, sequence, syn: false, fin: false, octets, cut: 0 }
    }

    fn count(out: &Out<Piece>, wanted: impl Fn(&What) -> bool) -> usize {
        out.iter().filter(|piece| wanted(&piece.as_ref().unwrap().what)).count()
    }

    #[test]
    fn the_longest_idle_are_forgotten_when_there_are_too_many() {
        let mut streams = Streams::default();
        let mut out = Out::new();
        for n in 0..=u16::try_from(STREAMS_MAX).unwrap() {
            streams.push(flow(n), segment(u64::from(n), 1, Bytes::from_static(b"x")), &mut out);
        }
        assert_eq!(count(&out, |what| *what == What::End(Ending::Forgotten)), FORGET_AT_ONCE);
        assert!(!streams.streams.contains_key(&flow(0)));
        assert!(streams.streams.contains_key(&flow(u16::try_from(FORGET_AT_ONCE).unwrap())));
        streams.end(At::default(), &mut out);
        let ended = count(&out, |what| matches!(what, What::End(_)));
        assert_eq!(ended, count(&out, |what| matches!(what, What::Begin { .. })), "every stream ends once");
    }

    #[test]
    fn what_waits_in_all_streams_together_is_bounded() {
        let mut streams = Streams::default();
        let mut out = Out::new();
        let octets = Bytes::from(vec![0; 65_000]);
        for n in 0..100 {
            streams.push(flow(n), segment(0, 1, Bytes::from_static(b"x")), &mut out);
            for place in 0..15 {
                streams.push(flow(n), segment(1, 1000 + place * 65_000, octets.clone()), &mut out);
                assert!(streams.pending_octets <= PENDING_OCTETS_MAX);
                let sum: usize = streams.streams.values().map(|entry| entry.stream.pending_octets()).sum();
                assert_eq!(streams.pending_octets, sum);
            }
        }
        assert!(count(&out, |what| matches!(what, What::Gap { .. })) > 0);
    }

    #[test]
    fn a_reset_ends_both_directions() {
        let mut streams = Streams::default();
        let mut out = Out::new();
        let (there, back) = (flow(1), flow(1).reversed());
        streams.push(there, segment(1, 1, Bytes::from_static(b"x")), &mut out);
        streams.push(back, segment(2, 1, Bytes::from_static(b"y")), &mut out);
        streams.reset(back, At::default(), &mut out);
        assert_eq!(count(&out, |what| *what == What::End(Ending::Closed)), 2);
        assert!(streams.streams.is_empty());
    }

    #[test]
    fn a_segment_that_says_nothing_makes_no_stream() {
        let mut streams = Streams::default();
        let mut out = Out::new();
        streams.push(flow(1), segment(1, 1, Bytes::new()), &mut out);
        assert!(streams.streams.is_empty() && out.is_empty());
    }
}
