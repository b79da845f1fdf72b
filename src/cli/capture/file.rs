//! Octets of a pcap or pcapng file to frames. Reads nothing by itself.

use bytes::{Buf, Bytes, BytesMut};
use pcap_parser::{
    InterfaceDescriptionBlock, LegacyPcapBlock, OptionCode, PcapError, PcapHeader, nom, parse_enhancedpacketblock_be,
    parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};

use super::{At, Fault, FileError, Reason};

/// The longest frame or block taken, in octets: what Wireshark takes, and far more than an IP packet with its headers
/// has. A longer one is a damaged length, and must not make us wait for it.
const BLOCK_OCTETS_MAX: usize = 16 << 20;
/// Interfaces of one pcapng section. One capture has a few; a file that was merged from many has dozens.
const INTERFACES_MAX: usize = 4096;

/// Octets of the header of a pcap file.
const PCAP_HEADER_OCTETS: usize = 24;
/// Octets before a pcap frame: time, captured length, true length.
const RECORD_HEADER_OCTETS: usize = 16;
/// The same in the "modified" format that some old systems wrote.
const MODIFIED_RECORD_HEADER_OCTETS: usize = 24;
/// The shortest pcapng block: type, length, length.
const BLOCK_OCTETS_MIN: usize = 12;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// One captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) at: At,
    /// Link type, in the registry of tcpdump.org.
    pub(super) link: u16,
    /// What was captured of it.
    pub(super) octets: Bytes,
    /// Octets that it had.
    pub(super) stated: usize,
}

/// What a step has brought.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame.
    Frame(Frame),
    /// A block that cannot be read; the next one can.
    Bad(Fault),
    /// More octets are needed.
    More,
}

/// Cuts the octets of a capture file into frames.
#[derive(Debug)]
pub(super) struct FileParser {
    buffer: BytesMut,
    format: Option<Format>,
    frames: u64,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(Section),
}

/// Octets to a record and what follows it.
type ParseRecord = for<'a> fn(&'a [u8]) -> nom::IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// What the header of a pcap file says.
#[derive(Debug)]
struct Pcap {
    big_endian: bool,
    header_octets: usize,
    parse: ParseRecord,
    link: u16,
    units_per_second: u32,
}

/// What a pcapng section has said so far.
#[derive(Debug, Default)]
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Debug)]
struct Interface {
    link: u16,
    snap_octets: usize,
    /// Units per second; `None` if they are finer than any time that 64 bits can say.
    units_per_second: Option<u128>,
    /// Seconds to be added to every time.
    offset_seconds: i64,
}

impl FileParser {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), format: None, frames: 0 }
    }

    /// Takes the next octets of the file. Call [`FileParser::step`] until it wants more.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// Number of the frame that is read now.
    pub(super) const fn next_frame(&self) -> u64 {
        self.frames + 1
    }

    /// Finds out what file it is; `false` if more octets are needed for that.
    pub(super) fn recognise(&mut self) -> Result<bool, FileError> {
        let Some(&first) = self.buffer.first_chunk::<4>() else { return Ok(false) };
        if let Some(with) = compressed_with(first) {
            return Err(FileError::Compressed { with });
        }
        if u32::from_le_bytes(first) == SECTION_HEADER {
            self.format = Some(Format::Pcapng(Section::default()));
            return Ok(true);
        }
        let header = self.buffer.get(..PCAP_HEADER_OCTETS).unwrap_or(&self.buffer);
        match parse_pcap_header(header) {
            Ok((_, header)) => {
                self.format = Some(Format::Pcap(Pcap::new(&header)));
                self.buffer.advance(PCAP_HEADER_OCTETS);
                Ok(true)
            }
            Err(error) if error.is_incomplete() => Ok(false),
            Err(_) => Err(self.unrecognised()),
        }
    }

    /// Why a file that ends before it was recognised is none.
    pub(super) fn unrecognised(&self) -> FileError {
        if self.buffer.is_empty() {
            return FileError::Empty;
        }
        FileError::NotACapture { first: self.buffer.iter().take(4).copied().collect() }
    }

    /// The next frame, if all its octets are there.
    pub(super) fn step(&mut self) -> Result<Step, FileError> {
        match &mut self.format {
            None => Ok(Step::More),
            Some(Format::Pcap(pcap)) => pcap.step(&mut self.buffer, &mut self.frames),
            Some(Format::Pcapng(section)) => section.step(&mut self.buffer, &mut self.frames),
        }
    }

    /// Says whether the file may end here.
    pub(super) fn finish(&self) -> Result<(), FileError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let needed = match &self.format {
            Some(Format::Pcap(pcap)) => pcap.octets(&self.buffer)?.unwrap_or(pcap.header_octets),
            Some(Format::Pcapng(section)) => section.octets(&self.buffer)?.unwrap_or(BLOCK_OCTETS_MIN),
            None => PCAP_HEADER_OCTETS,
        };
        Err(FileError::Truncated { have: self.buffer.len(), needed })
    }
}

fn compressed_with(first: [u8; 4]) -> Option<&'static str> {
    match first {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        [0xfd, b'7', b'z', b'X'] => Some("xz"),
        _ => None,
    }
}

impl Pcap {
    fn new(header: &PcapHeader) -> Self {
        let big_endian = header.is_bigendian();
        Self {
            big_endian,
            header_octets: if header.is_modified_format() {
                MODIFIED_RECORD_HEADER_OCTETS
            } else {
                RECORD_HEADER_OCTETS
            },
            parse: match (header.is_modified_format(), big_endian) {
                (true, _) => parse_pcap_frame_modified,
                (false, true) => parse_pcap_frame_be,
                (false, false) => parse_pcap_frame,
            },
            // The upper half says how long a frame check sequence follows, which IP lengths tell us anyway.
            link: low_half(header.network.0),
            units_per_second: if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 },
        }
    }

    fn step(&self, buffer: &mut BytesMut, frames: &mut u64) -> Result<Step, FileError> {
        let Some(octets) = self.octets(buffer)?.filter(|octets| *octets <= buffer.len()) else {
            return Ok(Step::More);
        };
        *frames += 1;
        let record = buffer.split_to(octets);
        let Ok((_, parsed)) = (self.parse)(&record) else {
            // Not reachable: all of it is there, and any figures make a record.
            return Ok(Step::Bad(Fault::at_frame(*frames, Reason::Block { kind: 0, octets })));
        };
        let fraction = u64::from(parsed.ts_usec) * 1_000_000 / u64::from(self.units_per_second);
        let micros = u64::from(parsed.ts_sec) * 1_000_000 + fraction;
        Ok(Step::Frame(Frame {
            at: At { frame: *frames, micros: Some(micros) },
            link: self.link,
            octets: Bytes::copy_from_slice(parsed.data),
            stated: parsed.origlen as usize,
        }))
    }

    /// Octets of the record that begins here, or `None` if not even its header is there.
    fn octets(&self, buffer: &[u8]) -> Result<Option<usize>, FileError> {
        let Some(header) = buffer.get(..self.header_octets) else { return Ok(None) };
        let captured = header.get(8..).and_then(|rest| u32_at_start(rest, self.big_endian)).unwrap_or(u32::MAX);
        let stated = u64::from(captured) + self.header_octets as u64;
        checked_length(stated, self.header_octets).map(Some)
    }
}

impl Section {
    fn step(&mut self, buffer: &mut BytesMut, frames: &mut u64) -> Result<Step, FileError> {
        while let Some(octets) = self.octets(buffer)?.filter(|octets| *octets <= buffer.len()) {
            let block = buffer.split_to(octets);
            let kind = u32_at_start(&block, self.big_endian).unwrap_or(0);
            if matches!(kind, ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET) {
                *frames += 1;
            }
            match self.block(kind, &block, *frames) {
                Ok(Some(frame)) => return Ok(Step::Frame(frame)),
                Ok(None) => {}
                Err(Reason::File(error)) => return Err(error),
                Err(reason) => return Ok(Step::Bad(Fault::at_frame(*frames, reason))),
            }
        }
        Ok(Step::More)
    }

    /// Octets of the block that begins here, or `None` if they cannot be known yet. A section brings its own byte order.
    fn octets(&self, buffer: &[u8]) -> Result<Option<usize>, FileError> {
        let Some(&[_, _, _, _, l0, l1, l2, l3, o0, o1, o2, o3]) = buffer.first_chunk::<BLOCK_OCTETS_MIN>() else {
            return Ok(None);
        };
        let big_endian = if u32_at_start(buffer, false) == Some(SECTION_HEADER) {
            is_big_endian([o0, o1, o2, o3])?
        } else {
            self.big_endian
        };
        let stated = read_u32([l0, l1, l2, l3], big_endian);
        checked_length(u64::from(stated), BLOCK_OCTETS_MIN).map(Some)
    }

    /// The frame in a block, if it is of a kind that holds one.
    fn block(&mut self, kind: u32, block: &[u8], frame: u64) -> Result<Option<Frame>, Reason> {
        match kind {
            SECTION_HEADER => {
                let order = block.get(8..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
                *self = Self { big_endian: is_big_endian(order)?, interfaces: Vec::new() };
                Ok(None)
            }
            INTERFACE_DESCRIPTION => self.interface(block).map(|()| None),
            ENHANCED_PACKET => self.enhanced_packet(block, frame).map(Some),
            SIMPLE_PACKET => self.simple_packet(block, frame).map(Some),
            OBSOLETE_PACKET => Err(Reason::Block { kind, octets: block.len() }),
            // Statistics, names, secrets: nothing that we want.
            _ => Ok(None),
        }
    }

    fn interface(&mut self, block: &[u8]) -> Result<(), Reason> {
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(FileError::Interfaces { max: INTERFACES_MAX }.into());
        }
        let parse =
            if self.big_endian { parse_interfacedescriptionblock_be } else { parse_interfacedescriptionblock_le };
        let bad = Reason::Block { kind: INTERFACE_DESCRIPTION, octets: block.len() };
        let (_, description) = parse(block).map_err(|_| bad)?;
        self.interfaces.push(Interface::new(&description, self.big_endian));
        Ok(())
    }

    fn enhanced_packet(&self, block: &[u8], frame: u64) -> Result<Frame, Reason> {
        let parse = if self.big_endian { parse_enhancedpacketblock_be } else { parse_enhancedpacketblock_le };
        // Also "incomplete" means that the lengths in it are wrong: the whole block is here.
        let bad = Reason::Block { kind: ENHANCED_PACKET, octets: block.len() };
        let (_, packet) = parse(block).map_err(|_| bad)?;
        let interface = self.interface_of(packet.if_id)?;
        let captured = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
        let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        Ok(Frame {
            at: At { frame, micros: Some(interface.micros(units)) },
            link: interface.link,
            octets: Bytes::copy_from_slice(captured),
            stated: packet.origlen as usize,
        })
    }

    fn simple_packet(&self, block: &[u8], frame: u64) -> Result<Frame, Reason> {
        let parse = if self.big_endian { parse_simplepacketblock_be } else { parse_simplepacketblock_le };
        let bad = Reason::Block { kind: SIMPLE_PACKET, octets: block.len() };
        let (_, packet) = parse(block).map_err(|_| bad)?;
        let interface = self.interface_of(0)?;
        let stated = packet.origlen as usize;
        // It does not say how much of it was captured: what fits, up to the snap length.
        let octets = packet.data.get(..stated.min(interface.snap_octets)).unwrap_or(packet.data);
        Ok(Frame {
            at: At { frame, micros: None },
            link: interface.link,
            octets: Bytes::copy_from_slice(octets),
            stated,
        })
    }

    fn interface_of(&self, id: u32) -> Result<&Interface, Reason> {
        self.interfaces.get(id as usize).ok_or(Reason::Interface { id, known: self.interfaces.len() })
    }
}

impl Interface {
    /// The options are read here, as the parser takes the offset for little-endian and powers of two for invalid.
    fn new(description: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        let option = |code| description.options.iter().find(|option| option.code == code);
        let resolution = option(OptionCode::IfTsresol).and_then(|option| option.value.first().copied());
        let offset = option(OptionCode::IfTsoffset).and_then(|option| option.value.first_chunk::<8>().copied());
        let read = if big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
        Self {
            link: low_half(description.linktype.0),
            snap_octets: if description.snaplen == 0 { usize::MAX } else { description.snaplen as usize },
            units_per_second: units_per_second(resolution.unwrap_or(6)),
            offset_seconds: offset.map_or(0, read),
        }
    }

    /// Microseconds since the epoch, held within what 64 bits can say.
    fn micros(&self, units: u64) -> u64 {
        let micros = self.units_per_second.map_or(0, |per_second| u128::from(units) * 1_000_000 / per_second);
        let offset = i128::from(self.offset_seconds) * 1_000_000;
        let micros = i128::try_from(micros).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(micros.max(0)).unwrap_or(u64::MAX)
    }
}

/// `if_tsresol`: a power of ten, or with the upper bit of two.
fn units_per_second(resolution: u8) -> Option<u128> {
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(resolution & 0x7f))
}

fn is_big_endian(order: [u8; 4]) -> Result<bool, FileError> {
    match (u32::from_le_bytes(order), u32::from_be_bytes(order)) {
        (BYTE_ORDER_MAGIC, _) => Ok(false),
        (_, BYTE_ORDER_MAGIC) => Ok(true),
        (_, magic) => Err(FileError::ByteOrder { magic }),
    }
}

fn checked_length(stated: u64, min: usize) -> Result<usize, FileError> {
    usize::try_from(stated).ok().filter(|stated| (min..=BLOCK_OCTETS_MAX).contains(stated)).ok_or(FileError::Length {
        stated,
        min,
        max: BLOCK_OCTETS_MAX,
    })
}

fn u32_at_start(octets: &[u8], big_endian: bool) -> Option<u32> {
    octets.first_chunk::<4>().map(|octets| read_u32(*octets, big_endian))
}

const fn read_u32(octets: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
}

/// The link type proper.
fn low_half(network: i32) -> u16 {
    let [low, high, _, _] = network.to_le_bytes();
    u16::from_le_bytes([low, high])
}
