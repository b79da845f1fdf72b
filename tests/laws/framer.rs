//! What `Framer` promises: a model that cuts with the whole stream at hand.

use bytes::Bytes;
use hepgate::wire::{FrameError, Framer, HEADER_OCTETS, Rejected, decode};

use super::dice::Dice;

/// However a stream is split into reads, the packets and the error are the same; a bound on the reads is kept to the
/// read; what is kept is less than a packet.
pub(crate) fn framing(stream: &[u8]) {
    let reads = split(stream, &mut Dice::new(stream));
    let whole = cut(stream, &[stream.len()], u32::MAX);
    assert_eq!(whole, cut_by_model(stream, &[stream.len()], u32::MAX));
    let in_parts = cut(stream, &reads, u32::MAX);
    assert_eq!(in_parts, cut_by_model(stream, &reads, u32::MAX));
    assert_eq!(in_parts.packets, whole.packets, "split into {reads:?}");
    let reason = |end: &Cut| end.error.map(|error| error.as_str());
    assert_eq!(reason(&in_parts), reason(&whole), "split into {reads:?}");

    let reads_max = u32::from(Dice::new(stream).u8() % 8);
    let bounded = cut(stream, &reads, reads_max);
    assert_eq!(bounded, cut_by_model(stream, &reads, reads_max), "{reads_max} reads of {reads:?}");
    assert!(whole.packets.starts_with(&bounded.packets));
}

/// What came of a stream.
#[derive(PartialEq, Eq, Debug, Default)]
struct Cut {
    packets: Vec<Bytes>,
    error: Option<FrameError>,
}

/// Ends of the reads. The stream's last octets say how it is split.
fn split(stream: &[u8], dice: &mut Dice<'_>) -> Vec<usize> {
    let longest = [1, 7, 300, 3_000][dice.below(4)];
    let mut ends = Vec::new();
    let mut end = 0;
    while end < stream.len() {
        end = stream.len().min(end + 1 + dice.below(longest));
        ends.push(end);
    }
    ends
}

fn cut(stream: &[u8], reads: &[usize], reads_max: u32) -> Cut {
    let mut framer = Framer::new(reads_max);
    let mut cut = Cut::default();
    let mut start = 0;
    for &end in reads {
        let read = Bytes::copy_from_slice(&stream[start..end]);
        framer.push(read.clone());
        start = end;
        loop {
            match framer.next_packet() {
                Ok(Some(packet)) => {
                    whole_frame(&packet);
                    cut.packets.push(packet);
                }
                Ok(None) => break,
                Err(error) => {
                    given_up(framer, error);
                    return Cut { error: Some(error), ..cut };
                }
            }
        }
        let taken = cut.packets.iter().map(Bytes::len).sum::<usize>();
        assert_eq!(framer.partial_octets(), end - taken, "octets were lost");
        assert!(framer.partial_octets() < stated_length(&stream[taken..end]).unwrap_or(HEADER_OCTETS));
    }
    cut
}

fn stated_length(octets: &[u8]) -> Option<usize> {
    let length = octets.get(4..HEADER_OCTETS)?;
    Some(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// A packet of the framer may have malformed chunks, but its header is right.
fn whole_frame(packet: &Bytes) {
    let rejected = decode(packet.clone()).map(|packet| assert!(packet.octets().len() >= HEADER_OCTETS)).err();
    assert!(
        matches!(
            rejected,
            None | Some(Rejected::ChunkHeader { .. } | Rejected::ChunkLength { .. } | Rejected::ChunkWidth { .. })
        ),
        "{rejected:?}"
    );
}

/// After an error nothing that comes later is taken for a packet.
fn given_up(mut framer: Framer, error: FrameError) {
    assert!(!error.to_string().is_empty());
    assert_eq!(framer.next_packet(), Err(error));
    framer.push(Bytes::from_static(b"HEP3\0\x06"));
    assert_eq!(framer.next_packet(), Err(error));
    assert_eq!(framer.next_packet(), Err(error));
}

/// The same with the whole stream at hand: nothing is carried from read to read but where the next packet begins.
fn cut_by_model(stream: &[u8], reads: &[usize], reads_max: u32) -> Cut {
    let mut cut = Cut::default();
    let mut start = 0;
    for (index, &end) in reads.iter().enumerate() {
        while start < end {
            let here = &stream[start..end];
            let magic = &here[..here.len().min(4)];
            if !b"HEP3".starts_with(magic) && !b"EEP3".starts_with(magic) {
                let mut first = [0; 4];
                first[..magic.len()].copy_from_slice(magic);
                return Cut { error: Some(FrameError::NotHep { first }), ..cut };
            }
            match stated_length(here) {
                Some(stated) if stated < HEADER_OCTETS => {
                    return Cut { error: Some(FrameError::StatedLength { stated }), ..cut };
                }
                Some(stated) if stated <= here.len() => {
                    cut.packets.push(Bytes::copy_from_slice(&here[..stated]));
                    start += stated;
                }
                _ => {
                    let first = reads.partition_point(|end| *end <= start);
                    let reads = u32::try_from(index + 1 - first).unwrap();
                    if reads >= reads_max {
                        return Cut { error: Some(FrameError::TooManyReads { reads, have: here.len() }), ..cut };
                    }
                    break;
                }
            }
        }
    }
    cut
}
