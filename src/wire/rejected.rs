//! Why octets are not a packet, with the figures.

use super::{ChunkId, Version};

/// Why octets are not HEP, or not HEP that can be read without guessing.
///
/// A chunk that decides nothing here is not judged: an unknown chunk, another vendor's, or a VLAN id of three octets
/// is carried as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejected {
    /// Neither magic nor a HEP1 or HEP2 version octet.
    #[error("not HEP: {} octets that begin with {}", .octets, hex(.first))]
    NotHep {
        /// Octets given.
        octets: usize,
        /// The first four, zero-filled.
        first: [u8; 4],
    },
    /// A whole packet in gzip, as heplify may send it.
    #[error("a whole packet compressed with gzip: {octets} octets that begin with 1f 8b")]
    Gzip {
        /// Octets given.
        octets: usize,
    },
    /// Too few octets for the header.
    #[error("too short: HEP{} needs {needed} octets, here are {actual}", .version.number())]
    TooShort {
        /// The version that the first octets announce.
        version: Version,
        /// Octets of its header.
        needed: usize,
        /// Octets given.
        actual: usize,
    },
    /// HEP1 or HEP2 with an address family whose layout is unknown.
    #[error("HEP{} with address family {family}: neither 2 (IPv4) nor 10 (IPv6)", .version.number())]
    Family {
        /// The version octet.
        version: Version,
        /// The family octet.
        family: u8,
    },
    /// The stated length is shorter than the header that states it.
    #[error("the header says {stated} octets, fewer than its own 6")]
    StatedLength {
        /// The stated length.
        stated: usize,
    },
    /// The stated length is longer than what came.
    #[error("the header says {stated} octets, the datagram has {actual}")]
    Truncated {
        /// The stated length.
        stated: usize,
        /// Octets given.
        actual: usize,
    },
    /// Octets are left over that cannot be a chunk header.
    #[error("{left} octets are left over at octet {at}, too few for a chunk header of 6")]
    ChunkHeader {
        /// Offset in the packet.
        at: usize,
        /// Octets left.
        left: usize,
    },
    /// A chunk length below 6 or beyond the packet.
    #[error("the chunk at octet {at} says {stated} octets; it may say 6 to {left}")]
    ChunkLength {
        /// Offset of the chunk header in the packet.
        at: usize,
        /// The stated length.
        stated: usize,
        /// Octets left in the packet.
        left: usize,
    },
    /// A scalar of another width than the specification's.
    #[error("{id} at octet {at} has a body of {actual} octets, not {needed}")]
    ChunkWidth {
        /// Which chunk.
        id: ChunkId,
        /// Offset of the chunk header in the packet.
        at: usize,
        /// Octets of its body.
        actual: usize,
        /// Octets that the specification gives it.
        needed: usize,
    },
}

impl Rejected {
    /// The reason without its figures.
    #[must_use]
    pub const fn reason(&self) -> RejectReason {
        match self {
            Self::NotHep { .. } => RejectReason::NotHep,
            Self::Gzip { .. } => RejectReason::Gzip,
            Self::TooShort { .. } => RejectReason::TooShort,
            Self::Family { .. } => RejectReason::Family,
            Self::StatedLength { .. } => RejectReason::StatedLength,
            Self::Truncated { .. } => RejectReason::Truncated,
            Self::ChunkHeader { .. } => RejectReason::ChunkHeader,
            Self::ChunkLength { .. } => RejectReason::ChunkLength,
            Self::ChunkWidth { .. } => RejectReason::ChunkWidth,
        }
    }
}

/// A [`Rejected`] without its figures: metric label and log field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "described at the variants of `Rejected`")]
pub enum RejectReason {
    NotHep,
    Gzip,
    TooShort,
    Family,
    StatedLength,
    Truncated,
    ChunkHeader,
    ChunkLength,
    ChunkWidth,
}

impl RejectReason {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::NotHep,
        Self::Gzip,
        Self::TooShort,
        Self::Family,
        Self::StatedLength,
        Self::Truncated,
        Self::ChunkHeader,
        Self::ChunkLength,
        Self::ChunkWidth,
    ];

    /// Metric label and log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotHep => "not-hep",
            Self::Gzip => "gzip",
            Self::TooShort => "too-short",
            Self::Family => "family",
            Self::StatedLength => "stated-length",
            Self::Truncated => "truncated",
            Self::ChunkHeader => "chunk-header",
            Self::ChunkLength => "chunk-length",
            Self::ChunkWidth => "chunk-width",
        }
    }
}

/// Four octets as people read them.
pub(super) fn hex(octets: &[u8; 4]) -> String {
    let [a, b, c, d] = octets;
    format!("{a:02x} {b:02x} {c:02x} {d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_place() {
        for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }

    #[test]
    fn every_reason_has_a_label() {
        let labels = RejectReason::ALL.map(RejectReason::as_str).join(" ");
        let expected = "not-hep gzip too-short family stated-length truncated chunk-header chunk-length chunk-width";
        assert_eq!(labels, expected);
    }

    #[test]
    fn a_reason_is_that_of_its_error() {
        let (id, version) = (ChunkId::SECONDS, Version::Hep1);
        let errors = [
            Rejected::NotHep { octets: 0, first: [0; 4] },
            Rejected::Gzip { octets: 2 },
            Rejected::TooShort { version, needed: 16, actual: 1 },
            Rejected::Family { version, family: 0 },
            Rejected::StatedLength { stated: 5 },
            Rejected::Truncated { stated: 7, actual: 6 },
            Rejected::ChunkHeader { at: 6, left: 1 },
            Rejected::ChunkLength { at: 6, stated: 5, left: 6 },
            Rejected::ChunkWidth { id, at: 6, actual: 0, needed: 4 },
        ];
        assert_eq!(errors.map(|error| error.reason()), RejectReason::ALL);
    }

    #[test]
    fn a_text_names_the_figures() {
        let text = Rejected::Truncated { stated: 624, actual: 600 }.to_string();
        assert_eq!(text, "the header says 624 octets, the datagram has 600");
        let text = Rejected::NotHep { octets: 10, first: *b"HELL" }.to_string();
        assert_eq!(text, "not HEP: 10 octets that begin with 48 45 4c 4c");
    }
}
