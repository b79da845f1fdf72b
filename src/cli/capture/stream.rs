//! One direction of a TCP connection put back in order. Knows neither flows nor files.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use super::{At, Ending, What};

/// Octets that may wait behind a hole. A sender keeps at most its receiver's window in flight, which is below 1 MiB on
/// nearly every connection; whoever waits for more waits for octets that were not captured.
const PENDING_OCTETS_MAX: usize = 1 << 20;
/// Segments that may wait behind a hole: 1 MiB in segments of Ethernet's usual 1 448 octets is 724 of them. Bounds the
/// bookkeeping when segments are tiny.
const PENDING_SEGMENTS_MAX: usize = 1024;
/// Captured time that a hole may stay open, in microseconds: whoever misses octets sends again after 200 ms, 400 ms and so
/// on (Linux), so that after ten seconds five attempts are over.
const HOLE_MICROS_MAX: u64 = 10_000_000;
/// How far a segment may lie from what is expected, in octets, and still belong here: Linux lets a receive window grow
/// to 6 MiB (`tcp_rmem`). One farther off begins the stream anew.
const WINDOW_OCTETS_MAX: u32 = 16 << 20;

/// One captured segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) at: At,
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) octets: Bytes,
    /// Octets behind those that were sent but not captured.
    pub(super) cut: usize,
}

/// What has happened on a stream, in order.
pub(super) type Events = Vec<(At, What)>;

/// One direction of a TCP connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    state: State,
    /// Sequence number of the first octet, to know a repeated SYN by.
    first: u32,
    /// Sequence number of the next octet wanted.
    next: u32,
    /// Its place in the stream, counted in 64 bits so that it never wraps.
    position: u64,
    /// Place behind the last octet, once a FIN has told it.
    end: Option<u64>,
    /// Segments behind a hole, by the place of their first octet.
    pending: BTreeMap<u64, Waiting>,
    pending_octets: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Nothing has come yet.
    #[default]
    New,
    Open,
    /// Ended; late copies of what it carried are known as such.
    Closed,
}

#[derive(Debug)]
struct Waiting {
    at: At,
    octets: Bytes,
    cut: usize,
}

impl Stream {
    /// Takes the next captured segment.
    pub(super) fn push(&mut self, segment: Segment, events: &mut Events) {
        let Segment { at, sequence, syn, fin, octets, cut } = segment;
        if !syn && !fin && octets.is_empty() && cut == 0 {
            return;
        }
        let sequence = sequence.wrapping_add(u32::from(syn));
        match self.state {
            State::New => self.begin(at, sequence, !syn, events),
            State::Open | State::Closed if syn && sequence != self.first => {
                self.close(at, Ending::Closed, events);
                self.begin(at, sequence, false, events);
            }
            State::Open if self.is_far(sequence) => self.jump(at, sequence, events),
            State::Closed if self.is_far(sequence) => self.begin(at, sequence, true, events),
            State::Open | State::Closed => {}
        }
        if self.state != State::Open {
            return;
        }
        self.accept(sequence, fin, Waiting { at, octets, cut }, events);
        self.drain(events);
        while self.hole_is_hopeless(at) {
            self.give_up_hole(events);
        }
        self.close_at_end(at, events);
    }

    /// Gives up every hole, delivers what waits behind them, and ends the stream if it has not ended.
    pub(super) fn close(&mut self, at: At, ending: Ending, events: &mut Events) {
        self.give_up_holes(events);
        if self.state == State::Open {
            events.push((at, What::End(ending)));
        }
        self.state = State::Closed;
    }

    /// Delivers what waits, with gaps for what is missing.
    pub(super) fn give_up_holes(&mut self, events: &mut Events) {
        while !self.pending.is_empty() {
            self.give_up_hole(events);
        }
    }

    /// Octets that wait behind a hole.
    pub(super) const fn pending_octets(&self) -> usize {
        self.pending_octets
    }

    fn begin(&mut self, at: At, sequence: u32, joined: bool, events: &mut Events) {
        *self = Self { state: State::Open, first: sequence, next: sequence, ..Self::default() };
        events.push((at, What::Begin { joined }));
    }

    /// The segment belongs to none of what was seen: the capture lacks a lot, or this is another connection.
    fn jump(&mut self, at: At, sequence: u32, events: &mut Events) {
        self.give_up_holes(events);
        events.push((at, What::Gap { octets: None }));
        self.next = sequence;
        self.end = None;
    }

    fn is_far(&self, sequence: u32) -> bool {
        let ahead = sequence.wrapping_sub(self.next);
        let behind = self.next.wrapping_sub(sequence);
        ahead.min(behind) > WINDOW_OCTETS_MAX
    }

    /// Puts the new part of a segment at its place.
    fn accept(&mut self, sequence: u32, fin: bool, mut segment: Waiting, events: &mut Events) {
        let (ahead, behind) = (sequence.wrapping_sub(self.next), self.next.wrapping_sub(sequence));
        let (place, known) = if behind <= WINDOW_OCTETS_MAX {
            (self.position, u64::from(behind))
        } else {
            (self.position + u64::from(ahead), 0)
        };
        if known > segment.length() {
            return;
        }
        segment.skip(known);
        if fin && self.end.is_none() {
            self.end = Some(place + segment.length());
        }
        if segment.length() == 0 {
            return;
        }
        if place == self.position {
            self.deliver(segment, events);
        } else {
            self.wait(place, segment);
        }
    }

    fn deliver(&mut self, segment: Waiting, events: &mut Events) {
        self.advance(segment.length());
        if !segment.octets.is_empty() {
            events.push((segment.at, What::Octets(segment.octets)));
        }
        if segment.cut > 0 {
            events.push((segment.at, What::Gap { octets: Some(segment.cut as u64) }));
        }
    }

    fn advance(&mut self, octets: u64) {
        self.position += octets;
        // Sequence numbers wrap: the lower half is what counts.
        let [a, b, c, d, ..] = octets.to_le_bytes();
        self.next = self.next.wrapping_add(u32::from_le_bytes([a, b, c, d]));
    }

    fn wait(&mut self, place: u64, segment: Waiting) {
        if self.pending.get(&place).is_some_and(|known| known.octets.len() >= segment.octets.len()) {
            return;
        }
        self.pending_octets += segment.octets.len();
        if let Some(shorter) = self.pending.insert(place, segment) {
            self.pending_octets -= shorter.octets.len();
        }
    }

    /// Delivers what waits and can now be delivered.
    fn drain(&mut self, events: &mut Events) {
        while let Some(entry) = self.pending.first_entry() {
            let place = *entry.key();
            if place > self.position {
                return;
            }
            let mut segment = entry.remove();
            self.pending_octets -= segment.octets.len();
            segment.skip(self.position - place);
            if segment.length() > 0 {
                self.deliver(segment, events);
            }
        }
    }

    /// Whether too much waits behind the first hole, or too long.
    fn hole_is_hopeless(&self, now: At) -> bool {
        let Some((_, first)) = self.pending.first_key_value() else { return false };
        let waited = now.micros.zip(first.at.micros).map_or(0, |(now, then)| now.saturating_sub(then));
        self.pending_octets > PENDING_OCTETS_MAX
            || self.pending.len() > PENDING_SEGMENTS_MAX
            || waited > HOLE_MICROS_MAX
    }

    /// Goes on behind the first hole.
    fn give_up_hole(&mut self, events: &mut Events) {
        let Some((&place, segment)) = self.pending.first_key_value() else { return };
        let missing = place.saturating_sub(self.position);
        if missing > 0 {
            events.push((segment.at, What::Gap { octets: Some(missing) }));
        }
        self.advance(missing);
        self.drain(events);
    }

    fn close_at_end(&mut self, at: At, events: &mut Events) {
        if self.end.is_some_and(|end| end <= self.position) {
            self.close(at, Ending::Closed, events);
        }
    }
}

impl Waiting {
    fn length(&self) -> u64 {
        self.octets.len() as u64 + self.cut as u64
    }

    /// Leaves out the first octets.
    fn skip(&mut self, octets: u64) {
        let octets = usize::try_from(octets).unwrap_or(usize::MAX);
        let captured = octets.min(self.octets.len());
        self.octets.advance(captured);
        self.cut -= (octets - captured).min(self.cut);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: u32 = 1000;

    fn segment(frame: u64, sequence: u32, octets: &[u8]) -> Segment {
        let at = At { frame, micros: None };
        Segment { at, sequence, syn: false, fin: false, octets: Bytes::copy_from_slice(octets), cut: 0 }
    }

    fn syn(sequence: u32) -> Segment {
        Segment { syn: true, ..segment(0, sequence.wrapping_sub(1), b"") }
    }

    fn fin(frame: u64, sequence: u32, octets: &[u8]) -> Segment {
        Segment { fin: true, ..segment(frame, sequence, octets) }
    }

    /// What a stream makes of segments, as text: `<` begins, `~` joined, `|` ends, `(n)` a gap.
    fn told(segments: impl IntoIterator<Item = Segment>) -> String {
        let mut stream = Stream::default();
        let mut events = Events::new();
        for segment in segments {
            stream.push(segment, &mut events);
        }
        assert_eq!(stream.pending_octets(), stream.pending.values().map(|waiting| waiting.octets.len()).sum::<usize>());
        text(&events)
    }

    fn text(events: &Events) -> String {
        let part = |(_, what): &(At, What)| match what {
            What::Begin { joined } => if *joined { "~" } else { "<" }.to_owned(),
            What::Octets(octets) => String::from_utf8_lossy(octets).into_owned(),
            What::Gap { octets: Some(octets) } => format!("({octets})"),
            What::Gap { octets: None } => "(?)".to_owned(),
            What::End(_) => "|".to_owned(),
            What::Datagram { .. } => unreachable!(),
        };
        events.iter().map(part).collect()
    }

    #[test]
    fn segments_in_order_are_delivered_as_they_come() {
        let segments = [syn(FIRST), segment(1, 1000, b"one"), segment(2, 1003, b"two"), fin(3, 1006, b"end")];
        assert_eq!(told(segments), "<onetwoend|");
    }

    #[test]
    fn segments_out_of_order_wait_for_those_before_them() {
        let segments = [
            syn(FIRST),
            fin(1, 1009, b""),
            segment(2, 1006, b"end"),
            segment(3, 1003, b"two"),
            segment(4, 1000, b"one"),
        ];
        assert_eq!(told(segments), "<onetwoend|");
    }

    #[test]
    fn copies_and_overlaps_are_delivered_once() {
        let segments = [
            syn(FIRST),
            syn(FIRST),
            segment(1, 1000, b"abc"),
            segment(2, 1000, b"abc"),
            segment(3, 1001, b"bcde"),
            segment(4, 1008, b"ij"),
            segment(5, 1008, b"ijk"),
            segment(6, 1007, b"hi"),
            segment(7, 1004, b"efgh"),
            segment(8, 999, b"?"),
            fin(9, 1011, b""),
            fin(10, 1011, b""),
            segment(11, 1000, b"abc"),
        ];
        assert_eq!(told(segments), "<abcdefghijk|");
    }

    #[test]
    fn octets_carry_the_frame_that_brought_them() {
        let mut stream = Stream::default();
        let mut events = Events::new();
        for segment in [syn(FIRST), segment(1, 1003, b"two"), segment(2, 1000, b"one")] {
            stream.push(segment, &mut events);
        }
        let frames: Vec<u64> = events.iter().map(|(at, _)| at.frame).collect();
        assert_eq!((text(&events).as_str(), frames.as_slice()), ("<onetwo", [0, 2, 1].as_slice()));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let first = u32::MAX - 1;
        let segments = [syn(first), segment(1, first.wrapping_add(4), b"ef"), segment(2, first, b"abcd")];
        assert_eq!(told(segments), "<abcdef");
    }

    #[test]
    fn a_stream_without_its_syn_is_joined() {
        assert_eq!(told([segment(1, 5000, b""), segment(2, 5000, b"abc"), segment(3, 5003, b"d")]), "~abcd");
    }

    #[test]
    fn a_keep_alive_probe_is_nothing() {
        let segments = [syn(FIRST), segment(1, 1000, b"abc"), segment(2, 1002, b""), segment(3, 1002, b"c")];
        assert_eq!(told(segments), "<abc");
    }

    #[test]
    fn octets_that_were_cut_off_are_a_gap() {
        let cut = Segment { cut: 2, ..segment(1, 1000, b"abc") };
        assert_eq!(told([syn(FIRST), cut.clone(), segment(2, 1005, b"f")]), "<abc(2)f");
        assert_eq!(told([syn(FIRST), segment(2, 1005, b"f"), cut]), "<abc(2)f");
    }

    #[test]
    fn a_hole_that_nothing_fills_is_given_up_when_too_much_waits() {
        let filler = vec![b'x'; 60_000];
        let mut segments = vec![syn(FIRST), segment(1, 1000, b"one")];
        segments.extend((0..20).map(|n| segment(2, 1103 + n * 60_000, &filler)));
        let told = told(segments);
        assert!(told.starts_with("<one(100)xxx"), "{}", &told[..40]);
        assert_eq!(told.len(), "<one(100)".len() + 20 * 60_000);
    }

    #[test]
    fn a_hole_is_given_up_after_ten_seconds() {
        let at = |seconds: u64| At { frame: 1, micros: Some(seconds * 1_000_000) };
        let segments = [
            syn(FIRST),
            Segment { at: at(100), ..segment(1, 1001, b"b") },
            Segment { at: at(110), ..segment(1, 1003, b"d") },
            Segment { at: at(111), ..segment(1, 1004, b"e") },
            Segment { at: at(111), ..segment(1, 1000, b"a") },
            Segment { at: at(112), ..segment(1, 1002, b"c") },
        ];
        assert_eq!(told(segments), "<(1)bcde");
    }

    #[test]
    fn tiny_segments_behind_a_hole_are_bounded_too() {
        let mut stream = Stream::default();
        let mut events = Events::new();
        stream.push(syn(FIRST), &mut events);
        for n in 0..100_000 {
            // Every second octet is missing.
            stream.push(segment(1, 1001 + 2 * n, b"x"), &mut events);
            assert!(stream.pending.len() <= PENDING_SEGMENTS_MAX);
        }
    }

    #[test]
    fn a_stream_that_ends_with_a_hole_delivers_what_waits() {
        let mut stream = Stream::default();
        let mut events = Events::new();
        for segment in [syn(FIRST), segment(1, 1000, b"a"), segment(2, 1004, b"c"), segment(3, 1008, b"d")] {
            stream.push(segment, &mut events);
        }
        stream.close(At::default(), Ending::CaptureEnds, &mut events);
        assert_eq!(text(&events), "<a(3)c(3)d|");
    }

    #[test]
    fn a_new_syn_begins_a_new_stream() {
        let segments =
            [syn(FIRST), segment(1, 1000, b"old"), segment(2, 1010, b"waits"), syn(77_000), segment(3, 77_000, b"new")];
        assert_eq!(told(segments), "<old(7)waits|<new");
        let after_fin = [syn(FIRST), fin(1, 1000, b"old"), syn(77_000), segment(2, 77_000, b"new")];
        assert_eq!(told(after_fin), "<old|<new");
    }

    #[test]
    fn a_segment_far_from_everything_begins_anew_and_so_does_the_next() {
        let far = 0x8000_0000;
        let segments =
            [syn(FIRST), segment(1, 1000, b"one"), segment(2, far, b"?"), segment(3, 1003, b"two"), fin(4, 1006, b"")];
        assert_eq!(told(segments), "<one(?)?(?)two|");
    }

    /// Octets and a list of cuts, copies and delays.
    fn shuffled() -> impl Strategy<Value = (u32, Vec<u8>, Vec<(usize, usize, bool)>)> {
        let step = (1..400usize, 0..24usize, any::<bool>());
        (any::<u32>(), prop::collection::vec(any::<u8>(), 0..6000), prop::collection::vec(step, 60))
    }

    proptest! {
        #[test]
        fn any_cut_copy_and_order_within_a_window_gives_the_same_octets((first, octets, steps) in shuffled()) {
            // Cut into segments which overlap the one before now and then, some sent twice, each delayed by some places.
            let mut sent = Vec::new();
            let mut at = 0;
            let mut steps = steps.iter().cycle();
            while at < octets.len() {
                let &(length, delay, twice) = steps.next().unwrap();
                let start = if twice { at.saturating_sub(length / 2) } else { at };
                let end = (at + length).min(octets.len());
                let sequence = first.wrapping_add(u32::try_from(start).unwrap());
                let place = sent.len();
                sent.push((place + delay, segment(1, sequence, &octets[start..end])));
                if twice {
                    sent.push((place + 2 * delay, segment(1, sequence, &octets[start..end])));
                }
                at = end;
            }
            let end = first.wrapping_add(u32::try_from(octets.len()).unwrap());
            sent.push((sent.len(), fin(1, end, b"")));
            sent.sort_by_key(|(place, _)| *place);

            let mut stream = Stream::default();
            let mut events = Events::new();
            stream.push(syn(first), &mut events);
            for (_, segment) in sent {
                stream.push(segment, &mut events);
            }
            let mut got = Vec::new();
            for (_, what) in &events {
                match what {
                    What::Octets(octets) => got.extend_from_slice(octets),
                    What::Begin { joined: false } | What::End(Ending::Closed) => {}
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(got, octets);
            prop_assert!(matches!(events.last(), Some((_, What::End(_)))));
        }

        #[test]
        fn any_segments_at_all_keep_the_bounds(segments in prop::collection::vec(
            (any::<u32>(), any::<[bool; 2]>(), 0..50usize, 0..9usize), 0..200
        )) {
            let mut stream = Stream::default();
            let mut events = Events::new();
            for (sequence, [syn, fin], length, cut) in segments {
                let sequence = sequence % 5_000;
                let segment = Segment { syn: syn && fin, fin, cut, ..segment(1, sequence, &vec![0; length]) };
                stream.push(segment, &mut events);
                let waiting: usize = stream.pending.values().map(|waiting| waiting.octets.len()).sum();
                prop_assert_eq!(stream.pending_octets(), waiting);
            }
        }
    }
}
