//! Plain SIP in the pieces of a capture.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::{Buf, Bytes, BytesMut};

use super::{At, Fault, Finder, Flow, Found, Out, Piece, Reason, What};
use crate::wire::CHUNK_BODY_OCTETS_MAX;

/// What is looked for, for the texts.
const WHAT: &str = "SIP message";
/// The longest message, in octets: what a HEP chunk can hold.
const MESSAGE_OCTETS_MAX: usize = CHUNK_BODY_OCTETS_MAX;
/// The longest start line, in octets. Most servers refuse a URI that is half as long.
const START_LINE_OCTETS_MAX: usize = 4096;
/// The longest method, in octets. The longest in use is SUBSCRIBE with 9.
const METHOD_OCTETS_MAX: usize = 32;

/// Finds SIP messages in datagrams and streams. Datagrams and streams that are no SIP are passed over and counted.
#[derive(Debug, Default)]
pub struct SipFinder {
    /// At most as many as the capture knows streams: each ends with [`What::End`].
    streams: HashMap<Flow, SipStream>,
    passed_over: u64,
}

impl SipFinder {
    /// Nothing found yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Finder for SipFinder {
    type What = Bytes;

    fn piece(&mut self, piece: &Piece, out: &mut Out<Found<Bytes>>) {
        match &piece.what {
            What::Datagram { octets, missing } => self.datagram(piece, octets, *missing, out),
            _ => self.stream(piece, out),
        }
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

impl SipFinder {
    fn datagram(&mut self, piece: &Piece, octets: &Bytes, missing: usize, out: &mut Out<Found<Bytes>>) {
        if first_line(octets).is_none() {
            self.passed_over += 1;
            return;
        }
        let (at, flow) = (piece.at, piece.flow);
        out.push_back(if missing > 0 {
            let (have, stated) = (octets.len(), octets.len() + missing);
            Err(Fault::in_flow(at.frame, flow, Reason::Cut { have, stated }))
        } else {
            Ok(Found { at, flow, what: octets.clone() })
        });
    }

    fn stream(&mut self, piece: &Piece, out: &mut Out<Found<Bytes>>) {
        let mut entry = match self.streams.entry(piece.flow) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(SipStream::default()),
        };
        entry.get_mut().event(piece, out);
        if matches!(piece.what, What::End(_)) {
            let stream = entry.remove();
            self.passed_over += u64::from(stream.has_octets && !stream.is_sip);
        }
    }
}

/// The first line of a SIP message, without its end; `None` if this is no SIP.
#[must_use]
pub fn first_line(octets: &[u8]) -> Option<&[u8]> {
    let line = octets.iter().take(START_LINE_OCTETS_MAX).position(|octet| *octet == b'\n')?;
    let line = octets.get(..line)?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (is_status_line(line) || is_request_line(line)).then_some(line)
}

fn is_status_line(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"SIP/2.0 ") else { return false };
    match rest {
        [a, b, c] | [a, b, c, b' ', ..] => [a, b, c].into_iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|octet| *octet == b' ');
    let (Some(method), Some(uri), Some(b"SIP/2.0"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let token = |octet: &u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(octet);
    (1..=METHOD_OCTETS_MAX).contains(&method.len()) && method.iter().all(token) && !uri.is_empty()
}

/// One direction of a TCP connection.
#[derive(Debug, Default)]
struct SipStream {
    cutter: SipCutter,
    has_octets: bool,
    /// A message was seen: from now on what is not SIP is a fault.
    is_sip: bool,
    /// The last frame with something of the unfinished message.
    at: At,
}

impl SipStream {
    fn event(&mut self, piece: &Piece, out: &mut Out<Found<Bytes>>) {
        match &piece.what {
            What::Begin { joined: true } => self.cutter.lose(),
            What::Begin { joined: false } | What::Datagram { .. } => {}
            What::Octets(octets) => self.octets(piece, octets, out),
            What::Gap { octets } => self.gap(piece, *octets, out),
            What::End(ending) => {
                let have = self.cutter.unfinished_octets();
                if self.is_sip && have > 0 {
                    let reason = Reason::Unfinished { ending: *ending, have, what: WHAT };
                    out.push_back(Err(Fault::in_flow(self.at.later(piece.at).frame, piece.flow, reason)));
                }
            }
        }
    }

    fn octets(&mut self, piece: &Piece, octets: &[u8], out: &mut Out<Found<Bytes>>) {
        self.has_octets = true;
        let mut at = if self.cutter.unfinished_octets() > 0 { self.at.later(piece.at) } else { piece.at };
        self.cutter.push(octets);
        loop {
            match self.cutter.next_message() {
                Ok(Some(message)) => {
                    self.is_sip = true;
                    out.push_back(Ok(Found { at, flow: piece.flow, what: message }));
                    at = piece.at;
                }
                Ok(None) => break,
                // A stream that has shown no SIP yet may be anything.
                Err(SipError::NotSip) if !self.is_sip => {}
                Err(error) => {
                    self.is_sip = true;
                    out.push_back(Err(Fault::in_flow(piece.at.frame, piece.flow, error)));
                }
            }
        }
        self.at = at;
    }

    fn gap(&mut self, piece: &Piece, octets: Option<u64>, out: &mut Out<Found<Bytes>>) {
        if self.is_sip {
            let reason = Reason::Gap { octets, what: WHAT };
            out.push_back(Err(Fault::in_flow(piece.at.frame, piece.flow, reason)));
        }
        self.cutter.lose();
    }
}

/// Why a stream does not go on with a SIP message. The next one is looked for, line by line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SipError {
    /// Neither a request line nor a status line.
    #[error("not SIP: the message begins with neither a request line nor a status line")]
    NotSip,
    /// A header without end.
    #[error("the header of a SIP message has more than {max} octets")]
    HeadTooLong {
        /// Octets that it may have.
        max: usize,
    },
    /// More than we keep.
    #[error("a SIP message of {octets} octets; HEP holds {max}")]
    TooLong {
        /// Octets that it has.
        octets: u64,
        /// Octets that it may have.
        max: usize,
    },
    /// Nobody knows where the next message begins.
    #[error("a SIP message with a Content-Length that is no number, or with two that differ")]
    ContentLength,
}

/// Cuts a stream into SIP messages by their Content-Length; a message without one has no body. Empty lines between
/// messages, which keep connections open, are skipped.
#[derive(Debug, Default)]
struct SipCutter {
    buffer: BytesMut,
    /// Octets of the buffer in which the end of the header is not.
    scanned: usize,
    /// Octets of the whole message, once its header is here.
    whole: Option<usize>,
    /// Octets to come that belong to a message which is too long.
    skip: u64,
    /// In the middle of something: every line is tried for a beginning.
    lost: bool,
}

impl SipCutter {
    fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// What was kept belongs to nothing any more: looks for the next message.
    fn lose(&mut self) {
        *self = Self { lost: true, ..Self::default() };
    }

    /// Octets of a message whose rest has not come.
    fn unfinished_octets(&self) -> usize {
        if self.lost { 0 } else { self.buffer.len() }
    }

    /// The next whole message, or `None` if more octets are needed.
    fn next_message(&mut self) -> Result<Option<Bytes>, SipError> {
        if self.whole.is_none() {
            self.skip_body();
            self.skip_empty_lines();
            if !self.find_start()? || !self.find_head()? {
                return Ok(None);
            }
        }
        let Some(message) = self.whole.and_then(|whole| self.buffer.get(..whole)) else { return Ok(None) };
        // A copy, as a message may wait long and the buffer is larger.
        let message = Bytes::copy_from_slice(message);
        self.leave(message.len());
        Ok(Some(message))
    }

    fn skip_body(&mut self) {
        let here = self.buffer.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.leave(here);
        self.skip -= here as u64;
    }

    fn skip_empty_lines(&mut self) {
        let empty = self.buffer.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        if empty > 0 {
            self.leave(empty);
        }
    }

    /// Whether the buffer begins with a start line. Says once that it does not, then tries line after line.
    fn find_start(&mut self) -> Result<bool, SipError> {
        loop {
            if first_line(&self.buffer).is_some() {
                self.lost = false;
                return Ok(true);
            }
            let line = self.buffer.iter().take(START_LINE_OCTETS_MAX).position(|octet| *octet == b'\n');
            if line.is_none() && self.buffer.len() < START_LINE_OCTETS_MAX {
                return Ok(false);
            }
            if !self.lost {
                self.lost = true;
                return Err(SipError::NotSip);
            }
            self.leave(line.map_or(START_LINE_OCTETS_MAX, |line| line + 1));
        }
    }

    /// Whether the header is here; then the length of the message is known.
    fn find_head(&mut self) -> Result<bool, SipError> {
        let Some(head) = self.head_octets() else {
            self.scanned = self.buffer.len();
            if self.scanned <= MESSAGE_OCTETS_MAX {
                return Ok(false);
            }
            self.lose();
            return Err(SipError::HeadTooLong { max: MESSAGE_OCTETS_MAX });
        };
        let Some(body) = content_length(self.buffer.get(..head).unwrap_or_default()) else {
            self.leave(head);
            self.lost = true;
            return Err(SipError::ContentLength);
        };
        let octets = body.saturating_add(head as u64);
        self.whole = usize::try_from(octets).ok().filter(|whole| *whole <= MESSAGE_OCTETS_MAX);
        if self.whole.is_none() {
            self.leave(head);
            self.skip = body;
            return Err(SipError::TooLong { octets, max: MESSAGE_OCTETS_MAX });
        }
        Ok(true)
    }

    /// Octets of the header up to the empty line that ends it, with that line.
    fn head_octets(&self) -> Option<usize> {
        // The end may have begun in what was scanned: CR LF CR and then LF.
        let from = self.scanned.saturating_sub(3);
        let rest = self.buffer.get(from..)?;
        let is_end = |at: &usize| matches!(rest.get(*at..), Some([b'\n', b'\n', ..] | [b'\n', b'\r', b'\n', ..]));
        let at = (0..rest.len()).find(is_end)?;
        let end_octets = if rest.get(at + 1) == Some(&b'\n') { 2 } else { 3 };
        Some(from + at + end_octets)
    }

    /// Leaves octets behind: a message begins or is looked for after them.
    fn leave(&mut self, octets: usize) {
        self.buffer.advance(octets);
        self.scanned = 0;
        self.whole = None;
    }
}

/// The Content-Length of a header, 0 if it has none; `None` if it cannot be understood.
fn content_length(head: &[u8]) -> Option<u64> {
    let mut known = None;
    for line in head.split(|octet| *octet == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|octet| *octet == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let name = name.trim_ascii();
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let value = value.get(1..)?.trim_ascii();
        let octets: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        if known.is_some_and(|known| known != octets) {
            return None;
        }
        known = Some(octets);
    }
    Some(known.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\r\nContent-Length: 5\r\n\r\nhello";
    const OK: &str = "SIP/2.0 200 OK\nl : 2\n\n\r\n";
    const BYE: &str = "BYE sip:bob@example.com SIP/2.0\r\nVia: x\r\n\r\n";

    fn cut(stream: &[u8], size: usize) -> Vec<Result<String, SipError>> {
        let mut cutter = SipCutter::default();
        let mut all = Vec::new();
        for part in stream.chunks(size.max(1)) {
            cutter.push(part);
            loop {
                match cutter.next_message() {
                    Ok(None) => break,
                    Ok(Some(message)) => all.push(Ok(String::from_utf8_lossy(&message).into_owned())),
                    Err(error) => all.push(Err(error)),
                }
            }
        }
        all
    }

    #[test]
    fn messages_are_cut_by_their_content_length_wherever_the_segments_end() {
        let stream = format!("\r\n\r\n{INVITE}\r\n\r\n{OK}\r\n{BYE}\r\n");
        let expected = [INVITE, OK, BYE].map(|message| Ok(message.to_owned()));
        for size in 1..stream.len() {
            assert_eq!(cut(stream.as_bytes(), size), expected, "{size}");
        }
    }

    #[test]
    fn what_is_not_sip_costs_one_error_and_no_message() {
        let stream = format!("{INVITE}some line\r\nand another\r\n{BYE}");
        for size in 1..stream.len() {
            let expected = [Ok(INVITE.to_owned()), Err(SipError::NotSip), Ok(BYE.to_owned())];
            assert_eq!(cut(stream.as_bytes(), size), expected, "{size}");
        }
    }

    #[test]
    fn a_content_length_that_cannot_be_understood_is_an_error() {
        for value in ["-1", "x", "5\r\nContent-Length: 6", "", "99999999999999999999999"] {
            let stream = format!("INVITE sip:b SIP/2.0\r\nContent-Length: {value}\r\n\r\nhello\r\n{BYE}");
            let expected = [Err(SipError::ContentLength), Ok(BYE.to_owned())];
            assert_eq!(cut(stream.as_bytes(), 7), expected, "{value}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_skipped() {
        let body = "x".repeat(70_000);
        let head = format!("MESSAGE sip:b SIP/2.0\r\nContent-Length: {}\r\n\r\n", body.len());
        let octets = (head.len() + body.len()) as u64;
        let stream = format!("{head}{body}{BYE}");
        let expected = [Err(SipError::TooLong { octets, max: MESSAGE_OCTETS_MAX }), Ok(BYE.to_owned())];
        assert_eq!(cut(stream.as_bytes(), 1000), expected);
    }

    #[test]
    fn a_header_without_end_is_given_up() {
        let stream = format!("OPTIONS sip:b SIP/2.0\r\n{}", "X: y\r\n".repeat(20_000));
        let mut errors = cut(stream.as_bytes(), 1400);
        errors.dedup();
        assert_eq!(errors, [Err(SipError::HeadTooLong { max: MESSAGE_OCTETS_MAX })]);
    }

    #[test]
    fn a_start_line_is_known_by_its_shape() {
        for line in ["INVITE sip:a SIP/2.0", "SIP/2.0 200", "SIP/2.0 183 Session Progress", "x-Y sip:a SIP/2.0"] {
            assert_eq!(first_line(format!("{line}\r\nVia: x").as_bytes()), Some(line.as_bytes()), "{line}");
        }
        for line in ["GET / HTTP/1.1", "SIP/2.0 OK", "INVITE  SIP/2.0", "INVITE sip:a SIP/2.0 x", "HEP3", ""] {
            assert_eq!(first_line(format!("{line}\r\n").as_bytes()), None, "{line}");
        }
        assert_eq!(first_line(b"INVITE sip:a SIP/2.0"), None, "a line has an end");
    }
}
