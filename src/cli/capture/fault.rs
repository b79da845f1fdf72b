//! What cannot be read in a capture, with the figures.

use std::io;
use std::net::IpAddr;

use super::{Ending, Flow};
use crate::wire;

/// Something in a capture that cannot be read, and where.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// Number of the frame, counted from 1; 0 before the first.
    pub frame: u64,
    /// Whose octets they are, if that is known.
    pub flow: Option<Flow>,
    /// What is wrong. Boxed, as faults are rare and travel in results.
    pub reason: Box<Reason>,
}

impl Fault {
    /// A fault in a frame whose flow is not known.
    pub(super) fn at_frame(frame: u64, reason: impl Into<Reason>) -> Self {
        Self { frame, flow: None, reason: Box::new(reason.into()) }
    }

    /// A fault in what a flow carried.
    pub(super) fn in_flow(frame: u64, flow: Flow, reason: impl Into<Reason>) -> Self {
        Self { frame, flow: Some(flow), reason: Box::new(reason.into()) }
    }

    /// Whether the file cannot be read any further.
    #[must_use]
    pub fn ends_file(&self) -> bool {
        matches!(*self.reason, Reason::File(_))
    }
}

/// What is wrong in a capture.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file itself is broken here.
    #[error(transparent)]
    File(#[from] FileError),
    /// A pcapng block whose fields contradict each other. The next one is read.
    #[error("a pcapng block of type {kind:#x} cannot be read: its {octets} octets contradict themselves")]
    Block {
        /// Type of the block.
        kind: u32,
        /// Octets of it.
        octets: usize,
    },
    /// A pcapng packet of an interface that the file has not described.
    #[error("interface {id} is not described; the file has described {known}")]
    Interface {
        /// Number of the interface.
        id: u32,
        /// Interfaces described so far.
        known: usize,
    },
    /// Frames of a kind that this program does not know. Said once for each kind.
    #[error("frames of link type {0} are not known here; they are left out")]
    LinkType(u16),
    /// A header that contradicts itself.
    #[error("{layer}: {text}")]
    Header {
        /// Which one.
        layer: String,
        /// What is wrong.
        text: String,
    },
    /// The frame was cut when it was captured, and what is left cannot be used.
    #[error("cut when it was captured: {have} of {stated} octets are here")]
    Cut {
        /// Octets captured.
        have: usize,
        /// Octets that there were.
        stated: usize,
    },
    /// An IP packet whose fragments did not all come.
    #[error("fragments are missing: {have} octets of a packet from {from} to {destination} are here", from = .source_address)]
    FragmentsMissing {
        /// Who sent it.
        source_address: IpAddr,
        /// To whom.
        destination: IpAddr,
        /// Octets that came.
        have: usize,
    },
    /// IP fragments that contradict each other.
    #[error("fragments contradict each other: {0}")]
    Fragments(String),
    /// Octets of a stream are not in the capture.
    #[error("{} are missing in the capture; with them goes the {what} that they belong to", octets_text(.octets))]
    Gap {
        /// How many, if that can be told.
        octets: Option<u64>,
        /// What they were part of.
        what: &'static str,
    },
    /// The stream was joined in the middle of something.
    #[error("the capture begins in the middle of this stream: {skipped} octets before the first {what} are left out")]
    Joined {
        /// Octets left out.
        skipped: u64,
        /// What was looked for.
        what: &'static str,
    },
    /// A stream ended inside something.
    #[error("{ending} inside a {what}: {have} octets of it are here")]
    Unfinished {
        /// How the stream ended.
        ending: Ending,
        /// Octets that came.
        have: usize,
        /// What is unfinished.
        what: &'static str,
    },
    /// A stream that does not continue with a HEP packet. The next one is looked for.
    #[error(transparent)]
    Frame(#[from] wire::FrameError),
    /// Octets that are not a HEP packet.
    #[error(transparent)]
    Rejected(#[from] wire::Rejected),
    /// A stream that does not continue with a SIP message. The next one is looked for.
    #[error(transparent)]
    Sip(#[from] super::sip::SipError),
}

fn octets_text(octets: &Option<u64>) -> String {
    match octets {
        Some(octets) => format!("{octets} octets of this stream"),
        None => "octets of this stream, it is not known how many,".to_owned(),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ")
}

/// Why a capture file cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It has no octets.
    #[error("is empty")]
    Empty,
    /// It begins like no capture file.
    #[error("is neither pcap nor pcapng: it begins with {}", hex(.first))]
    NotACapture {
        /// Its first octets, at most four.
        first: Vec<u8>,
    },
    /// It must be unpacked first.
    #[error("is compressed with {with}: unpack it first, for instance with `{with} -dk`")]
    Compressed {
        /// With what.
        with: &'static str,
    },
    /// A pcapng section in neither byte order.
    #[error("has a section of unknown byte order ({magic:#010x})")]
    ByteOrder {
        /// What stands where the byte order should.
        magic: u32,
    },
    /// A length that cannot be right.
    #[error("has a frame or block of {stated} octets, which may be {min} to {max}: it is damaged here")]
    Length {
        /// What it says.
        stated: u64,
        /// The shortest possible.
        min: usize,
        /// The longest that we take.
        max: usize,
    },
    /// More interfaces than we take.
    #[error("describes more than {max} interfaces")]
    Interfaces {
        /// How many we take.
        max: usize,
    },
    /// The end of the file comes too early.
    #[error("ends inside a frame: {have} of {needed} octets are there")]
    Truncated {
        /// Octets left.
        have: usize,
        /// Octets needed.
        needed: usize,
    },
}
