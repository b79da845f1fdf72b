//! Packets as lines: for people, or JSON. Used by every `dump`, whether of a file or live.
//!
//! The authentication key is never printed, in either form.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use sha2::{Digest, Sha256};

use super::capture::Flow;
use crate::wire::{CapturedAt, Chunk, ChunkId, Head, Packet, Payload, PayloadType, Version};

/// The longest text of a packet in a line for people, in characters: a first line of SIP is rarely longer.
const TEXT_CHARS_MAX: usize = 160;
/// How wide a column may grow, in characters: an IPv6 address with port has at most 47. One long agent name must not push
/// the lines of all others off the screen.
const COLUMN_CHARS_MAX: usize = 48;

/// How packets are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A line a packet, for people.
    Text {
        /// With colours.
        colour: bool,
    },
    /// A JSON object a line.
    Json,
}

impl Format {
    /// Lines for people, with colours if `out` is a terminal and nobody has set `NO_COLOR`.
    pub fn text_for(out: &impl IsTerminal) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Text { colour: out.is_terminal() && !no_colour }
    }
}

/// Prints packets and errors, each as one line.
///
/// A packet in JSON has exactly these fields, in this order:
///
/// | field | value |
/// |---|---|
/// | `version` | 1, 2 or 3 |
/// | `source`, `destination` | of the captured packet: `"192.0.2.1:5060"`, `"[2001:db8::1]:5060"`, or null if the packet has no such address; a missing port is 0 |
/// | `ip_protocol` | number as it came; 0 if missing |
/// | `captured_at` | RFC 3339, UTC, microseconds: `"2026-11-23T07:19:14.165292Z"`; null if the packet has no time. Microseconds of 1 000 000 and more carry into the seconds |
/// | `payload_type`, `agent_id` | number; 0 if missing |
/// | `agent_name`, `correlation_id` | text, octets that are not UTF-8 replaced by U+FFFD; null if missing |
/// | `auth_key_present` | whether there is an authentication key (chunk 0x0e); the key itself is never printed |
/// | `payload_len` | octets of the payload as it came, compressed or not; 0 if there is none |
/// | `payload_sha256` | of those octets, in hex |
/// | `chunks` | every chunk in order: `vendor`, `type`, and the body as `hex`, which is null for the authentication key; empty for HEP1 and HEP2 |
///
/// An error in JSON is `{"error": "…", "frame": …, "flow": {"transport", "source", "destination"}}`; `frame` and `flow`
/// are null where there is none.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    format: Format,
    widths: Widths,
}

/// Widths of the columns so far: they grow, so that lines stand below each other without reading ahead.
#[derive(Debug, Default)]
struct Widths {
    transport: usize,
    source: usize,
    destination: usize,
    agent: usize,
    payload_type: usize,
    length: usize,
}

impl<W: Write> Printer<W> {
    /// Prints into `out`.
    pub fn new(out: W, format: Format) -> Self {
        Self { out, format, widths: Widths::default() }
    }

    /// Prints a packet. `seen_micros`, microseconds since the epoch, stands in for a time that the packet itself has
    /// not, in lines for people.
    ///
    /// # Errors
    /// What writing says.
    pub fn packet(&mut self, packet: &Packet, seen_micros: Option<u64>) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(&PacketLine::new(packet)),
            Format::Text { colour } => {
                let line = text_line(packet, seen_micros, colour, &mut self.widths);
                writeln!(self.out, "{line}")
            }
        }
    }

    /// Prints what is no packet, and where it was.
    ///
    /// # Errors
    /// What writing says.
    pub fn error(&mut self, error: &dyn Display, frame: Option<u64>, flow: Option<Flow>) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(&ErrorLine {
                error: error.to_string(),
                frame,
                flow: flow.map(|flow| FlowLine {
                    transport: flow.transport.as_str(),
                    source: flow.source,
                    destination: flow.destination,
                }),
            }),
            Format::Text { colour } => {
                let paint = Paint { colour };
                write!(self.out, "{}", paint.bad("error"))?;
                if let Some(frame) = frame {
                    write!(self.out, " in frame {frame}")?;
                }
                if let Some(flow) = flow {
                    write!(self.out, ", {flow}")?;
                }
                writeln!(self.out, ": {}", visible(&error.to_string()))
            }
        }
    }

    /// Brings what was printed on its way.
    ///
    /// # Errors
    /// What writing says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Where it was printed.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn json(&mut self, line: &impl Serialize) -> io::Result<()> {
        line.serialize(&mut Serializer::with_formatter(&mut self.out, Careful))?;
        self.out.write_all(b"\n")
    }
}

/// JSON as short as can be, with every treacherous character escaped: JSON itself only asks for those below U+0020, and
/// a terminal may obey others.
struct Careful;

impl Formatter for Careful {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        // Most text, and all that is hex.
        if fragment.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            return out.write_all(fragment.as_bytes());
        }
        for part in fragment.split_inclusive(is_treacherous) {
            let plain = part.trim_end_matches(is_treacherous);
            out.write_all(plain.as_bytes())?;
            for unit in part.get(plain.len()..).unwrap_or_default().encode_utf16() {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct PacketLine<'a> {
    version: u8,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    ip_protocol: u8,
    captured_at: Option<String>,
    payload_type: u8,
    agent_id: u32,
    agent_name: Option<Cow<'a, str>>,
    correlation_id: Option<Cow<'a, str>>,
    auth_key_present: bool,
    payload_len: usize,
    payload_sha256: String,
    chunks: Vec<ChunkLine>,
}

#[derive(Serialize)]
struct ChunkLine {
    vendor: u16,
    r#type: u16,
    hex: Option<String>,
}

#[derive(Serialize)]
struct ErrorLine {
    error: String,
    frame: Option<u64>,
    flow: Option<FlowLine>,
}

#[derive(Serialize)]
struct FlowLine {
    transport: &'static str,
    source: SocketAddr,
    destination: SocketAddr,
}

impl<'a> PacketLine<'a> {
    fn new(packet: &'a Packet) -> Self {
        let head = packet.head();
        let address = |ip: Option<IpAddr>, port| ip.map(|ip| SocketAddr::new(ip, port));
        Self {
            version: head.version.number(),
            source: address(head.source, head.source_port),
            destination: address(head.destination, head.destination_port),
            ip_protocol: head.ip_protocol,
            captured_at: head.captured_at.and_then(|at| time(at.as_micros(), "%Y-%m-%dT%H:%M:%S%.6fZ")),
            payload_type: head.payload_type.0,
            agent_id: head.agent_id,
            agent_name: packet.chunk(ChunkId::AGENT_NAME).map(String::from_utf8_lossy),
            correlation_id: head.correlation_id.map(|_| String::from_utf8_lossy(packet.correlation_id())),
            auth_key_present: packet.chunk(ChunkId::AUTH_KEY).is_some(),
            payload_len: packet.payload().len(),
            payload_sha256: hex(&Sha256::digest(packet.payload())),
            chunks: packet.chunks().map(ChunkLine::new).collect(),
        }
    }
}

impl ChunkLine {
    fn new(chunk: Chunk<'_>) -> Self {
        let is_secret = chunk.id == ChunkId::AUTH_KEY;
        Self { vendor: chunk.id.vendor.0, r#type: chunk.id.kind, hex: (!is_secret).then(|| hex(chunk.body)) }
    }
}

pub(super) fn hex(octets: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 0x0f)]).collect()
}

/// A time in UTC, or `None` if it lies beyond the year 9999.
fn time(micros: u64, format: &str) -> Option<String> {
    let timestamp = Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok()?;
    Some(timestamp.strftime(format).to_string())
}

/// `2026-11-23 07:19:14.165292  HEP3  udp 192.0.2.1:5060 -> 192.0.2.2:5060  agent 7 name  SIP  502  INVITE …`
fn text_line(packet: &Packet, seen_micros: Option<u64>, colour: bool, widths: &mut Widths) -> String {
    let head = packet.head();
    let paint = Paint { colour };
    let transport = fitted(ip_protocol_name(head.ip_protocol), &mut widths.transport);
    let source = fitted(address_text(head.source, head.source_port), &mut widths.source);
    let destination = fitted(address_text(head.destination, head.destination_port), &mut widths.destination);
    let agent = fitted(agent_text(packet), &mut widths.agent);
    let payload_type = fitted(payload_type_name(head.payload_type), &mut widths.payload_type);
    let length = match head.payload {
        Payload::Absent => "-".to_owned(),
        Payload::Plain(_) | Payload::Compressed(_) => packet.payload().len().to_string(),
    };
    widths.length = widths.length.max(length.len());
    let mut line = format!(
        "{}  {}  {transport} {source} -> {destination}  {agent}  {}  {length:>width$}  ",
        paint.faint(&time_text(head, seen_micros)),
        paint.faint(&format!("{}{}", if packet.is_eep() { "EEP" } else { "HEP" }, head.version.number())),
        paint.name(&payload_type),
        width = widths.length,
    );
    line.push_str(&paint.text(&payload_text(packet), packet.payload()));
    line.truncate(line.trim_end().len());
    line
}

/// The same without colours and columns.
pub(super) fn one_line(packet: &Packet) -> String {
    text_line(packet, None, false, &mut Widths::default())
}

fn time_text(head: &Head, seen_micros: Option<u64>) -> String {
    let format = "%Y-%m-%d %H:%M:%S%.6f";
    let own = head.captured_at.map(CapturedAt::as_micros).and_then(|micros| time(micros, format));
    let seen = || seen_micros.and_then(|micros| time(micros, format)).map(|time| format!("{time}~"));
    // One column wider than the time, for the mark of a time that is not the packet's own.
    format!("{:<27}", own.or_else(seen).unwrap_or_else(|| "-".to_owned()))
}

fn address_text(ip: Option<IpAddr>, port: u16) -> String {
    ip.map_or_else(|| "-".to_owned(), |ip| SocketAddr::new(ip, port).to_string())
}

fn agent_text(packet: &Packet) -> String {
    let name = packet.chunk(ChunkId::AGENT_NAME).map(String::from_utf8_lossy).unwrap_or_default();
    match packet.head().version {
        // It has no agent id.
        Version::Hep1 => "agent -".to_owned(),
        _ => format!("agent {} {}", packet.head().agent_id, visible(&name)).trim_end().to_owned(),
    }
}

fn payload_text(packet: &Packet) -> String {
    match packet.head().payload {
        Payload::Absent if packet.is_keep_alive() => "(keep-alive)".to_owned(),
        Payload::Absent => "(no payload)".to_owned(),
        Payload::Compressed(_) => "(compressed)".to_owned(),
        Payload::Plain(_) if packet.head().payload_type == PayloadType::SIP => {
            let line = packet.payload().split(|octet| matches!(octet, b'\r' | b'\n')).find(|line| !line.is_empty());
            visible(&String::from_utf8_lossy(line.unwrap_or_default()))
        }
        Payload::Plain(_) => String::new(),
    }
}

fn ip_protocol_name(ip_protocol: u8) -> String {
    match ip_protocol {
        0 => "-".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        // Not the registry of IP protocols, but what senders mean by them.
        22 => "tls".to_owned(),
        50 => "ws".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("ip{other}"),
    }
}

fn payload_type_name(payload_type: PayloadType) -> String {
    let name = match payload_type.0 {
        1 => "SIP",
        2 => "XMPP",
        3 => "SDP",
        4 => "RTP",
        5 => "RTCP",
        6 => "MGCP",
        7 => "MEGACO",
        8 => "M2UA",
        9 => "M3UA",
        10 => "IAX",
        11 => "H.322",
        12 => "H.321",
        13 => "M2PA",
        34 | 35 => "MOS",
        50 => "SIP-JSON",
        53 => "DNS",
        54 => "ISUP",
        55 => "RTSP",
        56 => "DIAMETER",
        57 => "GSM-MAP",
        58 => "RTCP-PION",
        60 => "CDR",
        61 => "VERTO",
        100 => "LOG",
        other => return format!("type {other}"),
    };
    name.to_owned()
}

/// The text in its column, which grows if it must.
fn fitted(text: String, width: &mut usize) -> String {
    *width = (*width).max(text.chars().count().min(COLUMN_CHARS_MAX));
    format!("{text:<width$}", width = *width)
}

/// The text with every character made visible that would move the cursor, change colours or turn the reading
/// direction; and not too long.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        if is_treacherous(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn name(self, text: &str) -> String {
        self.with("36", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// Requests stand out; answers by their class.
    fn text(self, text: &str, payload: &[u8]) -> String {
        match payload.strip_prefix(b"SIP/2.0 ") {
            Some([b'1', ..]) => self.with("33", text),
            Some([b'2', ..]) => self.with("32", text),
            Some(_) => self.with("31", text),
            None => self.with("1", text),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{self, Pack};

    fn packet(name: &[u8], payload: &'static [u8]) -> Packet {
        let pack = Pack {
            ip_protocol: 132,
            flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5061".parse().unwrap())),
            captured_at: None,
            payload_type: PayloadType::SIP,
            agent_id: 7,
            chunks: vec![(ChunkId::AGENT_NAME, Bytes::copy_from_slice(name))],
            payload: Some(Bytes::from_static(payload)),
        };
        wire::decode(pack.encode(Version::Hep3).unwrap()).unwrap()
    }

    fn printed(format: Format, packets: &[Packet]) -> Vec<String> {
        let mut printer = Printer::new(Vec::new(), format);
        for packet in packets {
            printer.packet(packet, None).unwrap();
        }
        String::from_utf8(printer.into_inner()).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn colours_mark_what_a_line_is_about_and_leave_its_text_as_it_is() {
        let packets = [packet(b"edge", b"BYE sip:bob SIP/2.0\r\n"), packet(b"edge", b"SIP/2.0 404 Not Found\r\n")];
        let plain = printed(Format::Text { colour: false }, &packets);
        let coloured = printed(Format::Text { colour: true }, &packets);
        assert!(coloured[0].ends_with("\x1b[1mBYE sip:bob SIP/2.0\x1b[0m"), "{}", coloured[0]);
        assert!(coloured[1].ends_with("\x1b[31mSIP/2.0 404 Not Found\x1b[0m"), "{}", coloured[1]);
        let bare = |line: &String| {
            line.split('\x1b').map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect::<String>()
        };
        assert_eq!(coloured.iter().map(bare).collect::<Vec<_>>(), plain);
    }

    #[test]
    fn a_long_name_is_cut_and_does_not_widen_the_lines_after_it() {
        let lines = printed(Format::Text { colour: false }, &[packet(&[b'n'; 5000], b"x"), packet(b"edge", b"x")]);
        assert!(lines[0].contains(&format!("agent 7 {}…  SIP", "n".repeat(TEXT_CHARS_MAX))));
        assert!(lines[1].len() < 150, "{}", lines[1]);
    }

    #[test]
    fn an_error_without_frame_or_flow_is_null_there() {
        let mut printer = Printer::new(Vec::new(), Format::Json);
        printer.error(&"it \u{9b}broke", None, None).unwrap();
        let line = String::from_utf8(printer.into_inner()).unwrap();
        assert_eq!(line, "{\"error\":\"it \\u009bbroke\",\"frame\":null,\"flow\":null}\n");
    }
}
