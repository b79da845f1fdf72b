//! HEP in the pieces of a capture.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::{Buf, Bytes, BytesMut};

use super::{At, Ending, Fault, Finder, Flow, Found, Out, Piece, Reason, Transport, What, first_line};
use crate::wire::{self, FrameError, Framer, HEADER_OCTETS, MAGIC_EEP3, MAGIC_HEP3, Packet, Rejected, Version};

/// What is looked for, for the texts.
const WHAT: &str = "HEP packet";
/// Octets by which the beginning of a packet is known in a stream that was joined: its header and that of a chunk.
const SIGN_OCTETS: usize = HEADER_OCTETS + wire::CHUNK_HEADER_OCTETS;

/// Finds HEP packets in datagrams and streams.
///
/// Where the operator has named the ports, everything there should be HEP, and what is not is a [`Fault`]. Where not,
/// a datagram or stream that does not begin like HEP is passed over and counted. As HEP1 and HEP2 have no magic, they
/// are then only taken if they hold SIP.
#[derive(Debug)]
pub struct HepFinder {
    /// No port was named.
    any_port: bool,
    /// At most as many as the capture knows streams: each ends with [`What::End`].
    streams: HashMap<Flow, HepStream>,
    passed_over: u64,
}

impl HepFinder {
    /// `any_port`: the capture was opened without ports.
    #[must_use]
    pub fn new(any_port: bool) -> Self {
        Self { any_port, streams: HashMap::new(), passed_over: 0 }
    }
}

impl Finder for HepFinder {
    type What = Packet;

    fn piece(&mut self, piece: &Piece, out: &mut Out<Found<Packet>>) {
        match &piece.what {
            What::Datagram { octets, missing } => self.datagram(piece, octets, *missing, out),
            _ => self.stream(piece, out),
        }
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

impl HepFinder {
    fn datagram(&mut self, piece: &Piece, octets: &Bytes, missing: usize, out: &mut Out<Found<Packet>>) {
        let decoded = wire::decode(octets.clone());
        if self.any_port && !is_surely_hep(octets, &decoded) {
            self.passed_over += 1;
            return;
        }
        let (at, flow) = (piece.at, piece.flow);
        out.push_back(match decoded {
            _ if missing > 0 => {
                let (have, stated) = (octets.len(), octets.len() + missing);
                Err(Fault::in_flow(at.frame, flow, Reason::Cut { have, stated }))
            }
            Ok(packet) => Ok(Found { at, flow, what: packet }),
            Err(rejected) => Err(Fault::in_flow(at.frame, flow, rejected)),
        });
    }

    fn stream(&mut self, piece: &Piece, out: &mut Out<Found<Packet>>) {
        let any_port = self.any_port;
        let mut entry = match self.streams.entry(piece.flow) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(HepStream::new(piece.flow, any_port)),
        };
        entry.get_mut().event(piece.at, &piece.what, out);
        if matches!(piece.what, What::End(_)) {
            let stream = entry.remove();
            self.passed_over += u64::from(stream.is_other());
        }
    }
}

/// Whether a datagram on a port that nobody named is HEP, be it good or bad.
fn is_surely_hep(octets: &[u8], decoded: &Result<Packet, Rejected>) -> bool {
    match decoded {
        Ok(packet) => packet.head().version == Version::Hep3 || first_line(packet.payload()).is_some(),
        Err(Rejected::Gzip { .. }) => true,
        Err(_) => octets.starts_with(&MAGIC_HEP3) || octets.starts_with(&MAGIC_EEP3),
    }
}

/// One direction of a TCP connection.
#[derive(Debug)]
struct HepStream {
    flow: Flow,
    any_port: bool,
    state: State,
    /// A packet or a broken one was seen: this is HEP.
    is_hep: bool,
    /// The last frame with something of the unfinished packet.
    at: At,
}

#[derive(Debug)]
enum State {
    /// Packet follows packet.
    Cutting(Framer),
    /// Somewhere in a stream, looking for the next packet.
    Seeking {
        /// The last octets, in which one may begin. Fewer than [`SIGN_OCTETS`].
        tail: BytesMut,
        /// Octets left out so far.
        skipped: u64,
        /// Why we look has been said.
        reported: bool,
    },
    /// This is not HEP.
    Other,
}

impl State {
    fn cutting() -> Self {
        Self::Cutting(Framer::new(u32::MAX))
    }

    fn seeking(reported: bool) -> Self {
        Self::Seeking { tail: BytesMut::new(), skipped: 0, reported }
    }
}

impl HepStream {
    fn new(flow: Flow, any_port: bool) -> Self {
        debug_assert_eq!(flow.transport, Transport::Tcp);
        Self { flow, any_port, state: State::cutting(), is_hep: false, at: At::default() }
    }

    fn event(&mut self, at: At, what: &What, out: &mut Out<Found<Packet>>) {
        match what {
            What::Begin { joined: true } => self.state = State::seeking(false),
            What::Begin { joined: false } | What::Datagram { .. } => {}
            What::Octets(octets) => self.octets(at, octets.clone(), out),
            What::Gap { octets } => self.gap(at, *octets, out),
            What::End(ending) => self.end(at, *ending, out),
        }
    }

    /// Every turn of the loop leaves at least one octet behind, or an unfinished header.
    fn octets(&mut self, at: At, mut octets: Bytes, out: &mut Out<Found<Packet>>) {
        loop {
            match &self.state {
                State::Other => return,
                State::Seeking { .. } => match self.seek(at, &octets, out) {
                    Some(found) => octets = found,
                    None => return,
                },
                State::Cutting(_) => match self.cut(at, octets, out) {
                    Some(rest) => octets = rest,
                    None => return,
                },
            }
        }
    }

    /// Cuts packets until more octets are needed (`None`) or the stream does not go on with a packet: then gives what
    /// stands behind the first wrong octet.
    fn cut(&mut self, at: At, octets: Bytes, out: &mut Out<Found<Packet>>) -> Option<Bytes> {
        let State::Cutting(framer) = &mut self.state else { return Some(octets) };
        let kept = framer.partial_octets();
        let mut seen_at = if kept > 0 { self.at.later(at) } else { at };
        let mut cut_octets = 0;
        framer.push(octets.clone());
        let error = loop {
            match framer.next_packet() {
                Ok(Some(packet)) => {
                    cut_octets += packet.len();
                    self.is_hep = true;
                    out.push_back(self::packet(seen_at, self.flow, packet));
                    seen_at = at;
                }
                Ok(None) => {
                    self.at = seen_at;
                    return None;
                }
                Err(error) => break error,
            }
        };
        if self.any_port && !self.is_hep && matches!(error, FrameError::NotHep { .. }) {
            self.state = State::Other;
            return None;
        }
        self.is_hep = true;
        self.state = State::seeking(true);
        out.push_back(Err(Fault::in_flow(at.frame, self.flow, error)));
        // Octets of this piece that were cut off before the wrong one.
        let good = cut_octets.saturating_sub(kept);
        let wrong = usize::from(cut_octets >= kept);
        Some(octets.slice((good + wrong).min(octets.len())..))
    }

    /// Looks for the next packet and gives the octets that begin with it.
    fn seek(&mut self, at: At, octets: &Bytes, out: &mut Out<Found<Packet>>) -> Option<Bytes> {
        let State::Seeking { tail, skipped, reported } = &mut self.state else { return Some(octets.clone()) };
        tail.extend_from_slice(octets);
        let (start, found) = find_packet(tail);
        tail.advance(start);
        *skipped += start as u64;
        if !found {
            return None;
        }
        if *skipped > 0 && !*reported {
            let reason = Reason::Joined { skipped: *skipped, what: WHAT };
            out.push_back(Err(Fault::in_flow(at.frame, self.flow, reason)));
        }
        let octets = std::mem::take(tail).freeze();
        self.is_hep = true;
        self.state = State::cutting();
        Some(octets)
    }

    fn gap(&mut self, at: At, octets: Option<u64>, out: &mut Out<Found<Packet>>) {
        if self.should_be_hep() {
            out.push_back(Err(Fault::in_flow(at.frame, self.flow, Reason::Gap { octets, what: WHAT })));
        }
        // If it is not known yet, what comes behind the gap may show it.
        self.state = State::seeking(true);
    }

    fn end(&mut self, at: At, ending: Ending, out: &mut Out<Found<Packet>>) {
        let reason = match &self.state {
            State::Cutting(framer) if framer.partial_octets() > 0 && self.should_be_hep() => {
                Reason::Unfinished { ending, have: framer.partial_octets(), what: WHAT }
            }
            State::Seeking { tail, skipped, reported: false } if !self.any_port => {
                let skipped = *skipped + tail.len() as u64;
                if skipped == 0 {
                    return;
                }
                Reason::Joined { skipped, what: WHAT }
            }
            _ => return,
        };
        out.push_back(Err(Fault::in_flow(self.at.later(at).frame, self.flow, reason)));
    }

    /// Whether the operator or the octets have said that this is HEP.
    fn should_be_hep(&self) -> bool {
        let begun = matches!(&self.state, State::Cutting(framer) if framer.partial_octets() >= MAGIC_HEP3.len());
        !self.any_port || self.is_hep || begun
    }

    /// Whether octets came and no HEP was in them.
    fn is_other(&self) -> bool {
        match &self.state {
            State::Other => true,
            State::Seeking { tail, skipped, .. } => !self.is_hep && *skipped + tail.len() as u64 > 0,
            State::Cutting(_) => false,
        }
    }
}

fn packet(at: At, flow: Flow, octets: Bytes) -> Result<Found<Packet>, Fault> {
    wire::decode(octets)
        .map(|packet| Found { at, flow, what: packet })
        .map_err(|rejected| Fault::in_flow(at.frame, flow, rejected))
}

/// Where the first packet begins, or where one may begin as soon as more octets come.
fn find_packet(octets: &[u8]) -> (usize, bool) {
    for start in 0..octets.len() {
        let rest = octets.get(start..).unwrap_or_default();
        match begins_packet(rest) {
            Some(true) => return (start, true),
            None => return (start, false),
            Some(false) => {}
        }
    }
    (octets.len(), false)
}

/// Whether a packet begins here; `None` if more octets must be seen to tell. Text that merely names HEP3 is told apart
/// by the lengths that would follow.
fn begins_packet(octets: &[u8]) -> Option<bool> {
    let magic = octets.get(..MAGIC_HEP3.len()).unwrap_or(octets);
    if !MAGIC_HEP3.starts_with(magic) && !MAGIC_EEP3.starts_with(magic) {
        return Some(false);
    }
    let &[_, _, _, _, l0, l1] = octets.first_chunk::<HEADER_OCTETS>()?;
    let stated = usize::from(u16::from_be_bytes([l0, l1]));
    if stated <= HEADER_OCTETS {
        return Some(stated == HEADER_OCTETS);
    }
    let &[.., c0, c1] = octets.first_chunk::<SIGN_OCTETS>()?;
    let chunk = usize::from(u16::from_be_bytes([c0, c1]));
    Some((wire::CHUNK_HEADER_OCTETS..=stated - HEADER_OCTETS).contains(&chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ChunkId, Pack, PayloadType};

    fn flow() -> Flow {
        Flow {
            transport: Transport::Tcp,
            source: "192.0.2.1:40000".parse().unwrap(),
            destination: "192.0.2.2:9060".parse().unwrap(),
        }
    }

    fn hep(payload: &'static [u8]) -> Bytes {
        let pack = Pack {
            ip_protocol: 17,
            flow: None,
            captured_at: None,
            payload_type: PayloadType::LOG,
            agent_id: 7,
            chunks: vec![(ChunkId::AGENT_NAME, Bytes::from_static(b"HEP3 is my name"))],
            payload: Some(Bytes::from_static(payload)),
        };
        pack.encode(Version::Hep3).unwrap()
    }

    /// What comes out: payloads and the texts of faults.
    fn find(any_port: bool, events: &[What]) -> (Vec<String>, u64) {
        let mut finder = HepFinder::new(any_port);
        let mut out = Out::new();
        for (frame, what) in (1..).zip(events) {
            let piece = Piece { at: At { frame, micros: None }, flow: flow(), what: what.clone() };
            finder.piece(&piece, &mut out);
        }
        let text = |found: Result<Found<Packet>, Fault>| match found {
            Ok(found) => format!("{}: {}", found.at.frame, String::from_utf8_lossy(found.what.payload())),
            Err(fault) => format!("{}: fault: {fault}", fault.frame),
        };
        (out.into_iter().map(text).collect(), finder.passed_over())
    }

    fn begin() -> What {
        What::Begin { joined: false }
    }

    fn octets(octets: impl AsRef<[u8]>) -> What {
        What::Octets(Bytes::copy_from_slice(octets.as_ref()))
    }

    fn end() -> What {
        What::End(Ending::Closed)
    }

    #[test]
    fn packets_are_cut_wherever_the_segments_end() {
        let stream = [hep(b"one"), hep(b"two"), hep(b"three")].concat();
        for size in 1..stream.len() {
            let mut events = vec![begin()];
            events.extend(stream.chunks(size).map(octets));
            events.push(end());
            let (found, passed_over) = find(true, &events);
            let payloads: Vec<_> = found.iter().filter_map(|text| text.split(": ").nth(1)).collect();
            assert_eq!((payloads.as_slice(), passed_over), (["one", "two", "three"].as_slice(), 0), "{size}");
        }
    }

    #[test]
    fn a_packet_has_the_number_of_the_frame_that_completed_it() {
        let packet = hep(b"one");
        let (found, _) = find(true, &[begin(), octets(&packet[..9]), octets(&packet[9..]), end()]);
        assert_eq!(found, ["3: one"]);
    }

    #[test]
    fn after_a_gap_the_next_packet_is_found_whatever_the_cut() {
        let first = hep(b"lost HEP3 text in between");
        let rest = [&first[20..], &hep(b"found")].concat();
        for size in 1..rest.len() {
            let mut events = vec![begin(), octets(hep(b"one")), What::Gap { octets: Some(20) }];
            events.extend(rest.chunks(size).map(octets));
            events.push(end());
            let (found, _) = find(true, &events);
            assert_eq!(found.len(), 3, "{size}: {found:?}");
            assert_eq!(
                found[1],
                "3: fault: 20 octets of this stream are missing in the capture; \
                 with them goes the HEP packet that they belong to"
            );
            assert!(found[2].ends_with(": found"));
        }
    }

    #[test]
    fn garbage_between_packets_costs_one_fault_and_no_packet() {
        let stream = [hep(b"one").as_ref(), b"HELLO HFP\r\n", &hep(b"two")].concat();
        for size in 1..stream.len() {
            let mut events = vec![begin()];
            events.extend(stream.chunks(size).map(octets));
            let (found, _) = find(false, &events);
            assert_eq!(found.len(), 3, "{size}: {found:?}");
            assert!(found[1].contains("fault: not HEP3: the packet begins with"), "{found:?}");
            assert!(found[2].ends_with(": two"));
        }
    }

    #[test]
    fn a_stream_that_was_joined_is_read_from_its_next_packet_on() {
        let packet = hep(b"half");
        let joined = What::Begin { joined: true };
        let (found, _) = find(true, &[joined.clone(), octets([&packet[9..], &hep(b"whole")].concat()), end()]);
        let skipped = packet.len() - 9;
        let fault = format!(
            "2: fault: the capture begins in the middle of this stream: {skipped} octets before the first HEP packet are left out"
        );
        assert_eq!(found, [fault.as_str(), "2: whole"]);
        let (found, _) = find(true, &[joined, octets(hep(b"whole"))]);
        assert_eq!(found, ["2: whole"]);
    }

    #[test]
    fn a_stream_of_something_else_is_passed_over_unless_its_port_was_named() {
        let events = [begin(), octets("GET / HTTP/1.1\r\n\r\n"), octets("more"), end()];
        assert_eq!(find(true, &events), (vec![], 1));
        let (found, passed_over) = find(false, &events);
        assert_eq!(found, ["2: fault: not HEP3: the packet begins with 47 45 54 20"]);
        assert_eq!(passed_over, 0);
        assert_eq!(find(true, &[begin(), end()]), (vec![], 0), "a stream without octets is nothing");
    }

    #[test]
    fn a_stream_that_ends_inside_a_packet_says_so() {
        let packet = hep(b"cut");
        let (found, _) = find(true, &[begin(), octets(&packet[..10]), What::End(Ending::CaptureEnds)]);
        assert_eq!(found, ["3: fault: the capture ends inside a HEP packet: 10 octets of it are here"]);
    }

    #[test]
    fn datagrams_on_any_port_are_hep_only_if_they_surely_are() {
        let datagram = |octets: &[u8]| What::Datagram { octets: Bytes::copy_from_slice(octets), missing: 0 };
        let hep1 = [[1, 16, 2, 17, 0, 1, 0, 2, 127, 0, 0, 1, 127, 0, 0, 1].as_slice(), b"OPTIONS sip:a SIP/2.0\r\n"];
        let looks_like_hep1 = [1, 16, 2, 17, 0, 1, 0, 2, 127, 0, 0, 1, 127, 0, 0, 1, 3, 4, 5];
        let events = [
            datagram(&hep(b"one")),
            datagram(&hep1.concat()),
            datagram(&looks_like_hep1),
            datagram(b"\x12\x34\x01\x00 a question to a name server"),
            datagram(b"HEP3\0\x20cut"),
        ];
        let (found, passed_over) = find(true, &events);
        assert_eq!(
            found,
            ["1: one", "2: OPTIONS sip:a SIP/2.0\r\n", "5: fault: the header says 32 octets, the datagram has 9"]
        );
        assert_eq!(passed_over, 2);
        assert_eq!(find(false, &events).0.len(), 5, "on a port that was named, everything is judged");
    }

    #[test]
    fn a_datagram_that_was_cut_says_so() {
        let packet = hep(b"0123456789");
        let cut = What::Datagram { octets: packet.slice(..packet.len() - 4), missing: 4 };
        let (found, _) = find(true, &[cut]);
        let (have, stated) = (packet.len() - 4, packet.len());
        assert_eq!(found, [format!("1: fault: cut when it was captured: {have} of {stated} octets are here")]);
    }
}
