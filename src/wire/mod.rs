//! HEP on the wire, with no sockets, clocks, actors or logs in it.
//!
//! [`decode()`] turns the octets of one packet into a [`Packet`]: a few scalars and spans over the very octets that came.
//! [`Draft`] edits a packet, [`Pack`] makes one, [`Framer`] cuts a TCP stream into packets, [`inflate()`] reads a
//! compressed payload, [`sip_method()`] and [`sip_header()`] look into one that is SIP.
//!
//! The contract, for every function here and on every input:
//! - nothing panics, loops without end, or reads beyond what it was given; the work is linear in the octets given;
//! - nothing is copied that was not edited: a packet that nobody changed still is the octets that came;
//! - no policy: an unknown chunk, payload type, vendor or IP protocol is a value like any other.
//!
//! **What decides when a packet says a thing twice.** The last chunk of a kind decides, as it does in the collectors
//! behind us, so that a filter and a collector see the same packet. 0x0f and 0x10 are one kind (the payload), 0x03 and
//! 0x05 are one kind (the source), 0x04 and 0x06 are one kind (the destination). The IP family chunk is kept as it
//! came and decides nothing. The vendor is always compared. The others are kept where they are. A packet that a
//! careless receiver could read otherwise (a second payload, or another vendor's 0x0b, 0x0f or 0x10) is marked
//! [`Head::ambiguous`]. Octets after the stated length are not part of the packet.
//!
//! **What is refused.** Only what would have to be guessed: see [`Rejected`].
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod agent_id;
mod chunk;
mod decode;
mod draft;
mod framer;
mod inflate;
mod pack;
mod packet;
mod rejected;
mod sip;

pub use agent_id::AgentIdOrder;
pub use chunk::{Chunk, ChunkId, Chunks, GENERIC, Generic, Shape, Vendor};
pub use decode::decode;
pub use draft::{Draft, EditError};
pub use framer::{FrameError, Framer};
pub use inflate::{InflateError, InflateLimits, deflate, inflate};
pub use pack::{Missing, Pack, PackError, repack};
pub use packet::{CapturedAt, Head, Packet, Payload, PayloadType, Span, Version};
pub use rejected::{RejectReason, Rejected};
pub use sip::{SIP_OCTETS_MAX, SipIndex, sip_header, sip_method};

/// Octets of the HEP3 header: magic and stated length.
pub const HEADER_OCTETS: usize = 6;
/// Octets of a chunk header: vendor, type, length.
pub const CHUNK_HEADER_OCTETS: usize = 6;
/// The longest packet: the stated length is a u16.
pub const PACKET_OCTETS_MAX: usize = 65_535;
/// The longest chunk body that a chunk length can state. A packet holds a little less.
pub const CHUNK_BODY_OCTETS_MAX: usize = 65_529;
/// The longest datagram that UDP over IPv4 carries.
pub const DATAGRAM_OCTETS_MAX: usize = 65_507;

/// How a HEP3 packet begins.
pub const MAGIC_HEP3: [u8; 4] = *b"HEP3";
/// How a packet of the older name begins; the same format.
pub const MAGIC_EEP3: [u8; 4] = *b"EEP3";

/// Address family of IPv4 in chunk 0x01 and in HEP1 and HEP2.
pub const FAMILY_INET: u8 = 2;
/// Address family of IPv6 in chunk 0x01 and in HEP1 and HEP2.
pub const FAMILY_INET6: u8 = 10;
