//! Cuts a TCP stream into packets.

use bytes::{Bytes, BytesMut};

use super::decode::first_four;
use super::rejected::hex;
use super::{HEADER_OCTETS, MAGIC_EEP3, MAGIC_HEP3};

/// Why a stream cannot be cut any further. HEP3 has no mark to find the next packet by, so the connection must close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The next packet begins with neither magic.
    #[error("not HEP3: the packet begins with {}", hex(.first))]
    NotHep {
        /// Its first four octets, zero-filled.
        first: [u8; 4],
    },
    /// The stated length is shorter than the header.
    #[error("the header says {stated} octets, fewer than its own 6")]
    StatedLength {
        /// The stated length.
        stated: usize,
    },
    /// One packet took too many reads (`hep_max_msg_chunks`).
    #[error("after {reads} reads the packet still lacks octets: {have} are here")]
    TooManyReads {
        /// Reads that it took so far.
        reads: u32,
        /// Octets of it that came.
        have: usize,
    },
}

impl FrameError {
    /// Metric label and log field.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotHep { .. } => "not-hep",
            Self::StatedLength { .. } => "stated-length",
            Self::TooManyReads { .. } => "too-many-reads",
        }
    }
}

/// Cuts what a stream delivers into HEP3 packets.
///
/// Feed it each read with [`Framer::push`], then take packets with [`Framer::next_packet`] until it has none. Whole
/// packets are slices of what was pushed; only a packet that is split between reads is copied together. A header is
/// judged as soon as its octets are there, before anything behind it is kept.
#[derive(Debug)]
pub struct Framer {
    /// Reads that one packet may take.
    reads_max: u32,
    /// Reads that the packet at hand has taken.
    reads: u32,
    /// The beginning of a packet whose rest has not come. Shorter than that packet.
    partial: BytesMut,
    /// What the last read brought and nobody took yet.
    fresh: Bytes,
    /// Why the stream was given up, if it was.
    given_up: Option<FrameError>,
}

impl Framer {
    /// A packet that is still incomplete after `reads_max` reads ends the stream (`hep_max_msg_chunks`).
    #[must_use]
    pub fn new(reads_max: u32) -> Self {
        Self { reads_max, reads: 0, partial: BytesMut::new(), fresh: Bytes::new(), given_up: None }
    }

    /// Takes what one read brought. Call [`Framer::next_packet`] until it gives `None` before the next push. After an
    /// error nothing is taken any more.
    pub fn push(&mut self, read: Bytes) {
        if self.given_up.is_some() {
            return;
        }
        debug_assert!(self.fresh.is_empty(), "packets of the last read were not taken");
        self.fresh = read;
        self.reads = self.reads.saturating_add(1);
    }

    /// The next whole packet, or `None` if more must be read.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be cut any further, and every later call gives the same error.
    pub fn next_packet(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.given_up {
            return Err(error);
        }
        self.cut().inspect_err(|error| {
            // A packet found behind the error would be a guess. What was kept for it goes.
            *self = Self { given_up: Some(*error), ..Self::new(self.reads_max) };
        })
    }

    /// Octets of a packet whose rest has not come.
    #[must_use]
    pub fn partial_octets(&self) -> usize {
        self.partial.len()
    }

    fn cut(&mut self) -> Result<Option<Bytes>, FrameError> {
        let packet = if self.partial.is_empty() { self.cut_fresh()? } else { self.complete_partial()? };
        match packet {
            Some(packet) => {
                // What follows in this read belongs to the next packet, and is its first read.
                self.reads = 1;
                Ok(Some(packet))
            }
            None if self.partial.is_empty() => {
                self.reads = 0;
                Ok(None)
            }
            None if self.reads >= self.reads_max => {
                Err(FrameError::TooManyReads { reads: self.reads, have: self.partial.len() })
            }
            None => Ok(None),
        }
    }

    /// No packet is pending: the next one, if it is there as a whole, is a slice of `fresh`.
    fn cut_fresh(&mut self) -> Result<Option<Bytes>, FrameError> {
        match stated_octets(&self.fresh)? {
            Some(stated) if stated <= self.fresh.len() => Ok(Some(self.fresh.split_to(stated))),
            _ => {
                self.partial.extend_from_slice(&self.fresh);
                self.fresh.clear();
                Ok(None)
            }
        }
    }

    /// A packet is pending: first its header, then the rest of it, is taken out of `fresh`.
    fn complete_partial(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.len() < HEADER_OCTETS {
            self.take_until(HEADER_OCTETS);
        }
        let Some(stated) = stated_octets(&self.partial)? else { return Ok(None) };
        self.take_until(stated);
        if self.partial.len() < stated {
            return Ok(None);
        }
        // A fresh buffer for the next one: this one's memory goes with the packet.
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }

    /// Moves octets from `fresh` until the pending packet has `wanted` of them.
    fn take_until(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len()).min(self.fresh.len());
        self.partial.extend_from_slice(&self.fresh.split_to(missing));
    }
}

/// The stated length of the packet that begins here, or `None` if its header is not all there.
fn stated_octets(octets: &[u8]) -> Result<Option<usize>, FrameError> {
    let magic = octets.get(..MAGIC_HEP3.len()).unwrap_or(octets);
    if !MAGIC_HEP3.starts_with(magic) && !MAGIC_EEP3.starts_with(magic) {
        return Err(FrameError::NotHep { first: first_four(magic) });
    }
    let Some(&[_, _, _, _, l0, l1]) = octets.first_chunk::<HEADER_OCTETS>() else { return Ok(None) };
    let stated = usize::from(u16::from_be_bytes([l0, l1]));
    if stated < HEADER_OCTETS {
        return Err(FrameError::StatedLength { stated });
    }
    Ok(Some(stated))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(octets: usize) -> Vec<u8> {
        let mut packet = b"HEP3".to_vec();
        packet.extend_from_slice(&u16::try_from(octets).unwrap().to_be_bytes());
        packet.resize(octets, 0xaa);
        packet
    }

    fn drain(framer: &mut Framer, read: &[u8]) -> Result<Vec<Bytes>, FrameError> {
        framer.push(Bytes::copy_from_slice(read));
        let mut packets = Vec::new();
        while let Some(packet) = framer.next_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[test]
    fn an_error_is_labelled_without_its_figures() {
        assert_eq!(FrameError::NotHep { first: *b"HELL" }.as_str(), "not-hep");
        assert_eq!(FrameError::StatedLength { stated: 5 }.as_str(), "stated-length");
        assert_eq!(FrameError::TooManyReads { reads: 32, have: 40 }.as_str(), "too-many-reads");
    }

    #[test]
    fn whole_packets_are_slices_of_what_was_read() {
        let read = Bytes::from([packet(40), packet(6)].concat());
        let mut framer = Framer::new(32);
        framer.push(read.clone());
        let first = framer.next_packet().unwrap().unwrap();
        assert_eq!(first.as_ptr(), read.as_ptr());
        assert_eq!(framer.next_packet().unwrap().unwrap(), packet(6));
        assert_eq!(framer.next_packet(), Ok(None));
    }

    #[test]
    fn a_packet_may_take_as_many_reads_as_it_is_allowed_and_no_more() {
        let whole = packet(40);
        let mut framer = Framer::new(4);
        for part in [&whole[..1], &whole[1..2], &whole[2..3]] {
            assert_eq!(drain(&mut framer, part), Ok(vec![]));
        }
        assert_eq!(drain(&mut framer, &whole[3..]).unwrap(), std::slice::from_ref(&whole));

        for part in [&whole[..1], &whole[1..2], &whole[2..3]] {
            assert_eq!(drain(&mut framer, part), Ok(vec![]));
        }
        assert_eq!(drain(&mut framer, &whole[3..39]), Err(FrameError::TooManyReads { reads: 4, have: 39 }));
    }

    #[test]
    fn reads_count_for_each_packet_anew() {
        let whole = packet(40);
        let mut framer = Framer::new(2);
        // Every read ends one packet and begins the next: none takes more than two.
        assert_eq!(drain(&mut framer, &whole[..20]), Ok(vec![]));
        for _ in 0..10 {
            let read = [&whole[20..], &whole[..20]].concat();
            assert_eq!(drain(&mut framer, &read).unwrap(), std::slice::from_ref(&whole));
        }
    }

    #[test]
    fn an_idle_read_boundary_costs_no_reads() {
        let whole = packet(40);
        let mut framer = Framer::new(2);
        for _ in 0..10 {
            assert_eq!(drain(&mut framer, &whole).unwrap(), std::slice::from_ref(&whole));
        }
        assert_eq!(drain(&mut framer, &whole[..20]), Ok(vec![]));
        assert_eq!(drain(&mut framer, &whole[20..]).unwrap(), std::slice::from_ref(&whole));
    }

    #[test]
    fn a_greeting_is_refused_at_its_first_wrong_octet() {
        let mut framer = Framer::new(32);
        assert_eq!(drain(&mut framer, b"HEL"), Err(FrameError::NotHep { first: *b"HEL\0" }));
    }

    #[test]
    fn a_stated_length_below_the_header_is_refused_before_anything_is_kept() {
        for stated in 0..6u8 {
            let mut framer = Framer::new(32);
            let read = [b"HEP3\0".as_slice(), &[stated], &[0; 100]].concat();
            assert_eq!(drain(&mut framer, &read), Err(FrameError::StatedLength { stated: usize::from(stated) }));
            assert_eq!(framer.partial_octets(), 0);
        }
    }

    #[test]
    fn an_unfinished_packet_never_holds_more_than_it_states() {
        let whole = packet(65_535);
        let mut framer = Framer::new(1_000);
        for part in whole.chunks(1_000) {
            let _ = drain(&mut framer, part).unwrap();
            assert!(framer.partial_octets() < 65_535);
        }
        assert_eq!(framer.partial_octets(), 0);
    }
}
