//! One HEP packet: the octets that came, and what they say.

use std::net::IpAddr;

use bytes::Bytes;

use super::inflate::Inflated;
use super::{ChunkId, Chunks, HEADER_OCTETS, InflateError, MAGIC_EEP3};

/// The format of a packet. EEP3 is HEP3 by an older name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// Addresses and ports, then the payload. UDP only.
    Hep1,
    /// HEP1 with a time and a 16-bit agent id. UDP only.
    Hep2,
    /// Chunks.
    Hep3,
}

impl Version {
    /// 1, 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Hep1 => 1,
            Self::Hep2 => 2,
            Self::Hep3 => 3,
        }
    }

    /// The version of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hep1,
            2 => Self::Hep2,
            3 => Self::Hep3,
            _ => return None,
        })
    }
}

/// What the payload is ("capture protocol type", chunk 0x0b). An open set: senders use numbers that no list has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PayloadType(pub u8);

impl PayloadType {
    /// SIP. HEP1 and HEP2 carry nothing else.
    pub const SIP: Self = Self(1);
    /// XMPP.
    pub const XMPP: Self = Self(2);
    /// SDP.
    pub const SDP: Self = Self(3);
    /// RTP.
    pub const RTP: Self = Self(4);
    /// RTCP as JSON.
    pub const RTCP_JSON: Self = Self(5);
    /// A MOS report.
    pub const MOS: Self = Self(34);
    /// SIP as JSON.
    pub const SIP_JSON: Self = Self(50);
    /// DNS as JSON.
    pub const DNS_JSON: Self = Self(53);
    /// ISUP as JSON.
    pub const ISUP_JSON: Self = Self(54);
    /// RTSP.
    pub const RTSP: Self = Self(55);
    /// Diameter.
    pub const DIAMETER: Self = Self(56);
    /// Log lines: not in the specification, but in use.
    pub const LOG: Self = Self(100);
}

/// When the agent captured what it sends (chunks 0x09 and 0x0a, or HEP2's time header).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CapturedAt {
    /// Seconds since the epoch.
    pub seconds: u32,
    /// Microseconds on top. Values of 1 000 000 and more are kept as they came.
    pub microseconds: u32,
}

impl CapturedAt {
    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        // At most 2^32 * 10^6 + 2^32, far below 2^64.
        self.seconds as u64 * 1_000_000 + self.microseconds as u64
    }

    /// The time that lies so many microseconds after the epoch; after 2106 the seconds stop at their greatest value.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
        let microseconds = u32::try_from(micros % 1_000_000).unwrap_or(0);
        Self { seconds, microseconds }
    }
}

/// Which octets of the packet are the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Payload {
    /// There is none: a control packet, a correlation, a keep-alive.
    #[default]
    Absent,
    /// Chunk 0x0f, or what follows the header of HEP1 and HEP2.
    Plain(Span),
    /// Chunk 0x10, still compressed.
    Compressed(Span),
}

impl Payload {
    /// Where the payload lies, compressed or not.
    #[must_use]
    pub const fn span(self) -> Option<Span> {
        match self {
            Self::Absent => None,
            Self::Plain(span) | Self::Compressed(span) => Some(span),
        }
    }
}

/// A run of octets in a packet. Its offsets are as narrow as a packet lets them be, as packets are moved a lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From the first octet to the one behind the last; beyond 4 GiB there is none.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        let narrow = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// Offset of the first octet.
    #[must_use]
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// Offset behind the last one.
    #[must_use]
    pub const fn end(self) -> usize {
        self.end as usize
    }

    /// Octets in it.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // an empty span is as good as any other
    pub const fn len(self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What a packet says, as [`decode`](super::decode()) read it. Missing numbers are 0, missing addresses `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The format.
    pub version: Version,
    /// IP family as it came (0x01); decides nothing.
    pub family: u8,
    /// IP protocol as it came: 6 TCP, 17 UDP, 132 SCTP, 22 for TLS, 50 for WebSocket (0x02).
    pub ip_protocol: u8,
    /// Source of the captured packet (0x03 or 0x05).
    pub source: Option<IpAddr>,
    /// Destination of the captured packet (0x04 or 0x06).
    pub destination: Option<IpAddr>,
    /// Source port (0x07).
    pub source_port: u16,
    /// Destination port (0x08).
    pub destination_port: u16,
    /// Time of capture (0x09, 0x0a); HEP1 has none.
    pub captured_at: Option<CapturedAt>,
    /// What the payload is (0x0b); SIP for HEP1 and HEP2.
    pub payload_type: PayloadType,
    /// Who captured (0x0c); 16 bits in HEP2, 0 in HEP1.
    pub agent_id: u32,
    /// Where the payload is (0x0f or 0x10).
    pub payload: Payload,
    /// Where the correlation id is (0x11).
    pub correlation_id: Option<Span>,
    /// A receiver that takes the first payload, or ignores vendors, would read another payload or payload type than we
    /// do.
    pub ambiguous: bool,
}

impl Head {
    /// A packet of that version that says nothing.
    #[must_use]
    pub const fn empty(version: Version) -> Self {
        Self {
            version,
            family: 0,
            ip_protocol: 0,
            source: None,
            destination: None,
            source_port: 0,
            destination_port: 0,
            captured_at: None,
            payload_type: PayloadType(0),
            agent_id: 0,
            payload: Payload::Absent,
            correlation_id: None,
            ambiguous: false,
        }
    }
}

/// One HEP packet. Cloning it copies no octets.
#[derive(Clone, Debug)]
pub struct Packet {
    octets: Bytes,
    head: Head,
    inflated: Inflated,
}

impl PartialEq for Packet {
    /// Whether somebody has asked for its inflated payload is no difference.
    fn eq(&self, other: &Self) -> bool {
        self.octets == other.octets && self.head == other.head
    }
}

impl Eq for Packet {}

impl Packet {
    /// For [`decode`](super::decode()) only: `head` is what `octets` say.
    #[inline]
    pub(super) fn new(octets: Bytes, head: Head) -> Self {
        Self::with_inflated(octets, head, Inflated::of(head.payload))
    }

    /// The same if its payload may have been inflated already.
    pub(super) const fn with_inflated(octets: Bytes, head: Head, inflated: Inflated) -> Self {
        Self { octets, head, inflated }
    }

    pub(super) fn share_inflated(&self) -> Inflated {
        self.inflated.clone()
    }

    /// The packet as it came, without octets behind its stated length.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// What it says.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The payload, compressed if it came so; empty if there is none.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.span(self.head.payload.span())
    }

    /// What the payload was before it was compressed, or `None` if it is not. It is inflated when somebody first asks,
    /// once for all clones of the packet.
    ///
    /// # Errors
    /// [`InflateError`], within the default [`InflateLimits`](super::InflateLimits).
    #[must_use]
    pub fn inflated(&self) -> Option<Result<&[u8], InflateError>> {
        self.inflated.get(self.payload())
    }

    /// The payload, inflated if it came compressed. One that cannot be inflated is as it came.
    #[must_use]
    pub fn readable_payload(&self) -> &[u8] {
        self.inflated().and_then(Result::ok).unwrap_or_else(|| self.payload())
    }

    /// The correlation id; empty if there is none.
    #[must_use]
    pub fn correlation_id(&self) -> &[u8] {
        self.span(self.head.correlation_id)
    }

    /// The chunks in order; none for HEP1 and HEP2.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'_> {
        let chunks = match self.head.version {
            Version::Hep3 => self.octets.get(HEADER_OCTETS..).unwrap_or_default(),
            Version::Hep1 | Version::Hep2 => &[],
        };
        Chunks::new(chunks)
    }

    /// The body of the chunk that decides: the last one of that id.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<&[u8]> {
        self.chunks().filter(|chunk| chunk.id == id).last().map(|chunk| chunk.body)
    }

    /// Whether the packet is a HEP3 header and nothing else, which agents send to keep a connection open.
    #[must_use]
    pub fn is_keep_alive(&self) -> bool {
        self.head.version == Version::Hep3 && self.octets.len() == HEADER_OCTETS
    }

    /// Whether the packet calls itself EEP3.
    #[must_use]
    pub fn is_eep(&self) -> bool {
        self.octets.starts_with(&MAGIC_EEP3)
    }

    /// The same packet in memory of its own, so that it holds no receive buffer while it waits somewhere.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { octets: Bytes::copy_from_slice(&self.octets), head: self.head, inflated: self.inflated.clone() }
    }

    fn span(&self, span: Option<Span>) -> &[u8] {
        span.and_then(|span| self.octets.get(span.start()..span.end())).unwrap_or_default()
    }
}
