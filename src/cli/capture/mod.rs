//! Captured datagrams and TCP streams out of pcap and pcapng files, and the HEP and SIP in them.
//!
//! ```text
//! octets of the file -> file (frames) -> dissect (link, IP, fragments, UDP, TCP) -> Piece -> hep or sip -> Found
//! ```
//!
//! Only [`Capture`] reads; everything behind it takes octets and gives values, so it is tested without files. No input
//! makes it panic, and everything that it keeps has a bound. What cannot be read is a [`Fault`] with its frame number,
//! and reading goes on behind it unless the file itself is broken.

mod dissect;
mod fault;
mod file;
mod fragments;
mod hep;
mod sip;
mod stream;
mod streams;

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;

pub use self::fault::{Fault, FileError, Reason};
pub use self::hep::HepFinder;
pub use self::sip::{SipError, SipFinder, first_line};
pub use crate::config::Transport;
use crate::wire::{CapturedAt, ChunkId, Pack, PayloadType};

use self::dissect::Dissector;
use self::file::{FileParser, Step};

/// Octets asked from the file at once, so many that the calls do not count.
const READ_OCTETS: usize = 64 * 1024;

/// Which frame of the file, and when it was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct At {
    /// Number of the frame, counted from 1 as Wireshark does.
    pub frame: u64,
    /// Microseconds since the epoch; `None` if the file does not say (simple packet blocks of pcapng).
    pub micros: Option<u64>,
}

impl At {
    /// The later of two, by their place in the file.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.frame > self.frame { other } else { self }
    }
}

/// Who sent the octets to whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// UDP or TCP.
    pub transport: Transport,
    /// Who sent them.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

impl Flow {
    /// The same flow in the other direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { transport: self.transport, source: self.destination, destination: self.source }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.transport.as_str(), self.source, self.destination)
    }
}

/// A datagram, or what happened on one direction of a TCP connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The frame that brought it.
    pub at: At,
    /// Who sent it to whom.
    pub flow: Flow,
    /// What it is.
    pub what: What,
}

/// What a [`Piece`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The octets of one datagram.
    Datagram {
        /// Those that were captured.
        octets: Bytes,
        /// How many more it had.
        missing: usize,
    },
    /// A stream begins.
    Begin {
        /// Its true beginning was not captured.
        joined: bool,
    },
    /// The next octets of the stream, in order, each of them once.
    Octets(Bytes),
    /// What comes next does not continue what came before: octets are missing in the capture.
    Gap {
        /// How many, if that can be told.
        octets: Option<u64>,
    },
    /// No more octets of this stream.
    End(Ending),
}

/// Why a stream has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It was closed or reset.
    Closed,
    /// The capture has no more frames.
    CaptureEnds,
    /// Too many others have come since; see `STREAMS_MAX`.
    Forgotten,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection was closed",
            Self::CaptureEnds => "the capture ends",
            Self::Forgotten => "the stream was given up for newer ones",
        })
    }
}

/// One packet or message that was found in a capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<T> {
    /// The frame that completed it.
    pub at: At,
    /// Who sent it to whom.
    pub flow: Flow,
    /// What was found.
    pub what: T,
}

impl Found<Bytes> {
    /// A SIP message as HEP, with the time, the addresses and the IP protocol of its capture.
    #[must_use]
    pub fn to_pack(&self, agent_id: u32, chunks: Vec<(ChunkId, Bytes)>) -> Pack {
        Pack {
            ip_protocol: self.flow.transport.ip_protocol(),
            flow: Some((self.flow.source, self.flow.destination)),
            captured_at: self.at.micros.map(CapturedAt::from_micros),
            payload_type: PayloadType::SIP,
            agent_id,
            chunks,
            payload: Some(self.what.clone()),
        }
    }
}

/// Where pieces, or what was found in them, are put.
pub type Out<T> = VecDeque<Result<T, Fault>>;

/// Finds something in the pieces of a capture.
pub trait Finder {
    /// What it finds.
    type What;

    /// Takes the next piece and puts what it completes, and what is wrong with it, into `out`.
    fn piece(&mut self, piece: &Piece, out: &mut Out<Found<Self::What>>);

    /// Datagrams and streams so far in which there was nothing of the kind.
    fn passed_over(&self) -> u64;
}

/// Reads a capture file piece by piece.
///
/// After an item whose [`Fault::ends_file`] is true only what was still held back comes: pending octets and the ends
/// of streams.
#[derive(Debug)]
pub struct Capture<R> {
    reader: R,
    file: FileParser,
    dissector: Dissector,
    ready: Out<Piece>,
    scratch: Vec<u8>,
    octets_read: u64,
    ended: bool,
}

impl Capture<File> {
    /// Opens a capture file. Only datagrams and streams from or to one of `ports` are read; all if it is empty.
    ///
    /// # Errors
    /// [`FileError`]: it cannot be opened or read, or is no capture file.
    pub fn open(path: &Path, ports: &[u16]) -> Result<Self, FileError> {
        Self::new(File::open(path)?, ports)
    }
}

impl<R: Read> Capture<R> {
    /// Reads the capture file that `reader` delivers; see [`Capture::open`].
    ///
    /// # Errors
    /// [`FileError`]: it cannot be read, or is no capture file.
    pub fn new(reader: R, ports: &[u16]) -> Result<Self, FileError> {
        let mut capture = Self {
            reader,
            file: FileParser::new(),
            dissector: Dissector::new(ports),
            ready: Out::new(),
            scratch: vec![0; READ_OCTETS],
            octets_read: 0,
            ended: false,
        };
        while !capture.file.recognise()? {
            if capture.read()? == 0 {
                return Err(capture.file.unrecognised());
            }
        }
        Ok(capture)
    }

    /// What `finder` finds in the capture.
    pub fn find<F: Finder>(self, finder: F) -> Finds<R, F> {
        Finds { capture: self, finder, ready: Out::new() }
    }

    /// Takes one step: a frame, or a read.
    fn step(&mut self) -> Result<(), FileError> {
        match self.file.step()? {
            Step::Frame(frame) => self.dissector.frame(&frame, &mut self.ready),
            Step::Bad(fault) => self.ready.push_back(Err(fault)),
            Step::More if self.read()? == 0 => {
                self.file.finish()?;
                self.end();
            }
            Step::More => {}
        }
        Ok(())
    }

    fn read(&mut self) -> Result<usize, FileError> {
        let octets = loop {
            match self.reader.read(&mut self.scratch) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.file.push(self.scratch.get(..octets).unwrap_or_default());
        self.octets_read += octets as u64;
        Ok(octets)
    }

    fn end(&mut self) {
        self.dissector.end(&mut self.ready);
        self.ended = true;
    }
}

impl<R: Read> Iterator for Capture<R> {
    type Item = Result<Piece, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.step() {
                self.ready.push_back(Err(Fault::at_frame(self.file.next_frame(), error)));
                self.end();
            }
        }
    }
}

/// What a [`Finder`] finds in a capture, one after the other, with the faults of both.
#[derive(Debug)]
pub struct Finds<R, F: Finder> {
    capture: Capture<R>,
    finder: F,
    ready: Out<Found<F::What>>,
}

impl<R, F: Finder> Finds<R, F> {
    /// Datagrams and streams so far in which there was nothing of the kind.
    pub fn passed_over(&self) -> u64 {
        self.finder.passed_over()
    }

    /// Octets of the file read so far.
    pub const fn octets_read(&self) -> u64 {
        self.capture.octets_read
    }
}

impl<R: Read, F: Finder> Iterator for Finds<R, F> {
    type Item = Result<Found<F::What>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(found);
            }
            match self.capture.next()? {
                Ok(piece) => self.finder.piece(&piece, &mut self.ready),
                Err(fault) => return Some(Err(fault)),
            }
        }
    }
}
