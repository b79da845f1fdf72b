//! Chunks: vendor, type, length, body. A lens over octets that judges nothing, and the table of the generic ones.

use std::fmt;

use super::{CHUNK_HEADER_OCTETS, Rejected};

/// Who defined a chunk's type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vendor(pub u16);

impl Vendor {
    /// The specification's own chunks.
    pub const GENERIC: Self = Self(0);
    /// FreeSWITCH.
    pub const FREESWITCH: Self = Self(1);
    /// Kamailio and SER.
    pub const KAMAILIO: Self = Self(2);
    /// OpenSIPS.
    pub const OPENSIPS: Self = Self(3);
    /// Asterisk.
    pub const ASTERISK: Self = Self(4);
    /// Homer.
    pub const HOMER: Self = Self(5);
    /// sipXecs.
    pub const SIPXECS: Self = Self(6);
    /// Yeti.
    pub const YETI: Self = Self(7);
    /// Genesys.
    pub const GENESYS: Self = Self(8);

    /// The vendor's name, if the specification has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::GENERIC => "generic",
            Self::FREESWITCH => "FreeSWITCH",
            Self::KAMAILIO => "Kamailio",
            Self::OPENSIPS => "OpenSIPS",
            Self::ASTERISK => "Asterisk",
            Self::HOMER => "Homer",
            Self::SIPXECS => "sipXecs",
            Self::YETI => "Yeti",
            Self::GENESYS => "Genesys",
            _ => return None,
        })
    }
}

/// Which chunk: a type means nothing without its vendor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkId {
    /// Who defined the type.
    pub vendor: Vendor,
    /// The type, in the vendor's own numbering.
    pub kind: u16,
}

impl ChunkId {
    /// A chunk of the specification itself.
    #[must_use]
    pub const fn generic(kind: u16) -> Self {
        Self { vendor: Vendor::GENERIC, kind }
    }

    /// The specification's entry for this chunk, if it is a generic one that rev. 37 knows.
    #[must_use]
    pub fn described(self) -> Option<&'static Generic> {
        if self.vendor != Vendor::GENERIC {
            return None;
        }
        GENERIC.iter().find(|entry| entry.id == self)
    }

    /// Whether the body must have a fixed width, and which, in octets.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        self.described().and_then(|entry| entry.shape.width())
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.described(), self.vendor) {
            (Some(entry), _) => write!(f, "{} (0x{:04x})", entry.name, self.kind),
            (None, Vendor::GENERIC) => write!(f, "chunk 0x{:04x}", self.kind),
            (None, vendor) => write!(f, "chunk 0x{:04x} of vendor {}", self.kind, vendor.0),
        }
    }
}

/// What a generic chunk's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One octet.
    U8,
    /// Two octets, big-endian.
    U16,
    /// Four octets, big-endian.
    U32,
    /// Eight octets, big-endian.
    U64,
    /// An IPv4 address.
    Inet4,
    /// An IPv6 address.
    Inet6,
    /// Any number of octets.
    Octets,
}

impl Shape {
    /// Octets of the body, or `None` for any number.
    #[must_use]
    pub const fn width(self) -> Option<usize> {
        match self {
            Self::U8 => Some(1),
            Self::U16 => Some(2),
            Self::U32 | Self::Inet4 => Some(4),
            Self::U64 => Some(8),
            Self::Inet6 => Some(16),
            Self::Octets => None,
        }
    }
}

/// One line of the specification's table of generic chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generic {
    /// The chunk; its vendor is [`Vendor::GENERIC`].
    pub id: ChunkId,
    /// What it holds.
    pub name: &'static str,
    /// The body's shape.
    pub shape: Shape,
}

/// Makes the named constants and the table from one list, so that neither can lack an entry of the other.
macro_rules! generic_chunks {
    ($($constant:ident = $kind:literal, $name:literal, $shape:ident;)*) => {
        impl ChunkId {
            $(#[doc = concat!("Generic chunk ", stringify!($kind), ": ", $name, ".")]
            pub const $constant: Self = Self::generic($kind);)*
        }

        /// Every generic chunk of the specification, rev. 37, and OpenSIPS' 0x65.
        pub const GENERIC: &[Generic] =
            &[$(Generic { id: ChunkId::$constant, name: $name, shape: Shape::$shape },)*];
    };
}

generic_chunks! {
    IP_FAMILY = 0x01, "IP family", U8;
    IP_PROTOCOL = 0x02, "IP protocol", U8;
    IPV4_SOURCE = 0x03, "IPv4 source", Inet4;
    IPV4_DESTINATION = 0x04, "IPv4 destination", Inet4;
    IPV6_SOURCE = 0x05, "IPv6 source", Inet6;
    IPV6_DESTINATION = 0x06, "IPv6 destination", Inet6;
    SOURCE_PORT = 0x07, "source port", U16;
    DESTINATION_PORT = 0x08, "destination port", U16;
    SECONDS = 0x09, "seconds", U32;
    MICROSECONDS = 0x0a, "microseconds", U32;
    PAYLOAD_TYPE = 0x0b, "payload type", U8;
    AGENT_ID = 0x0c, "agent id", U32;
    KEEP_ALIVE = 0x0d, "keep-alive timer", U16;
    AUTH_KEY = 0x0e, "authentication key", Octets;
    PAYLOAD = 0x0f, "payload", Octets;
    COMPRESSED_PAYLOAD = 0x10, "compressed payload", Octets;
    CORRELATION_ID = 0x11, "correlation id", Octets;
    VLAN_ID = 0x12, "VLAN id", U16;
    AGENT_NAME = 0x13, "agent name", Octets;
    SOURCE_MAC = 0x14, "source MAC", U64;
    DESTINATION_MAC = 0x15, "destination MAC", U64;
    ETHERNET_TYPE = 0x16, "Ethernet type", U16;
    TCP_FLAGS = 0x17, "TCP flags", U8;
    IP_TOS = 0x18, "IP TOS", U8;
    MOS = 0x20, "MOS", U16;
    R_FACTOR = 0x21, "R-factor", U16;
    GEO_LOCATION = 0x22, "GEO location", Octets;
    JITTER = 0x23, "jitter", U32;
    TRANSACTION_TYPE = 0x24, "transaction type", Octets;
    PAYLOAD_JSON_KEYS = 0x25, "payload JSON keys", Octets;
    TAG_VALUES = 0x26, "tags' values", Octets;
    TAG_TYPE = 0x27, "tag type", U16;
    EVENT = 0x28, "event", U16;
    GROUP_ID = 0x29, "group id", Octets;
    EXTRA_CORRELATION = 0x65, "extra correlation", Octets;
}

/// One chunk of a packet, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// Which chunk.
    pub id: ChunkId,
    /// Its body, without the header.
    pub body: &'a [u8],
}

/// The chunks of a packet, in order. Ends at the first malformed one, which [`decode`](super::decode()) has refused.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    walk: Walk<'a>,
}

impl<'a> Chunks<'a> {
    /// The chunks of `octets`, which begin behind the HEP3 header.
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self { walk: Walk::new(octets, 0) }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        match self.walk.step() {
            Ok(Some((_, chunk))) => Some(chunk),
            Ok(None) | Err(_) => None,
        }
    }
}

/// Steps through chunks and says where each began and what is wrong with the one that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// `at` is the offset of `rest` in the packet; it only serves the offsets that are given back.
    pub(super) const fn new(rest: &'a [u8], at: usize) -> Self {
        Self { rest, at }
    }

    /// The next chunk and the offset of its header. Every step but the last consumes at least the six octets of a
    /// header, so a walk ends.
    #[inline]
    pub(super) fn step(&mut self) -> Result<Option<(usize, Chunk<'a>)>, Rejected> {
        let Some((&[v0, v1, k0, k1, l0, l1], _)) = self.rest.split_first_chunk::<CHUNK_HEADER_OCTETS>() else {
            if self.rest.is_empty() {
                return Ok(None);
            }
            return Err(Rejected::ChunkHeader { at: self.at, left: self.rest.len() });
        };
        let stated = usize::from(u16::from_be_bytes([l0, l1]));
        let bad_length = Rejected::ChunkLength { at: self.at, stated, left: self.rest.len() };
        let Some((chunk, rest)) = self.rest.split_at_checked(stated) else { return Err(bad_length) };
        let Some(body) = chunk.get(CHUNK_HEADER_OCTETS..) else { return Err(bad_length) };
        let id = ChunkId { vendor: Vendor(u16::from_be_bytes([v0, v1])), kind: u16::from_be_bytes([k0, k1]) };
        let at = self.at;
        self.rest = rest;
        self.at = at + stated;
        Ok(Some((at, Chunk { id, body })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_generic_chunk_of_revision_37_once() {
        let ids: Vec<u16> = GENERIC.iter().map(|entry| entry.id.kind).collect();
        let expected: Vec<u16> = (0x01..=0x18).chain(0x20..=0x29).chain([0x65]).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn the_vendors_of_the_specification_have_names_and_no_other_has() {
        let names: Vec<_> = (0..10).map(|vendor| Vendor(vendor).name().unwrap_or("-")).collect();
        let expected = "generic FreeSWITCH Kamailio OpenSIPS Asterisk Homer sipXecs Yeti Genesys -";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn a_walk_says_where_the_malformed_chunk_is() {
        let octets = [0, 0, 0, 1, 0, 7, 2, /* next: length 5 */ 0, 0, 0, 2, 0, 5, 17];
        let mut walk = Walk::new(&octets, 6);
        assert_eq!(walk.step().unwrap().unwrap().0, 6);
        assert_eq!(walk.step(), Err(Rejected::ChunkLength { at: 13, stated: 5, left: 7 }));
    }

    #[test]
    fn a_generic_number_of_another_vendor_is_another_chunk() {
        let id = ChunkId { vendor: Vendor::GENESYS, kind: 0x0f };
        assert_ne!(id, ChunkId::PAYLOAD);
        assert_eq!(id.described(), None);
        assert_eq!(id.to_string(), "chunk 0x000f of vendor 8");
    }
}
