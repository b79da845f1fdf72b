//! As much of SIP as is needed to choose packets: the method, and headers. Copies nothing, looks at a bounded part of a
//! message, and takes broken SIP as far as it makes sense.
//!
//! Who wants one thing of a message asks [`sip_method`] or [`sip_header`]; who may want more makes a [`SipIndex`] of it.

use memchr::{memchr, memchr_iter, memchr2};

/// Octets of a message that are looked at: more than any header part that fits two datagrams.
pub const SIP_OCTETS_MAX: usize = 16_384;
/// Lines of a message that are looked at.
const LINES_MAX: usize = 256;
/// Octets of a method's name. Those of the registry have at most 9.
const METHOD_OCTETS_MAX: usize = 32;

/// Long and compact names of headers (RFC 3261 and its extensions).
const COMPACT: [(&[u8], u8); 19] = [
    (b"call-id", b'i'),
    (b"contact", b'm'),
    (b"content-encoding", b'e'),
    (b"content-length", b'l'),
    (b"content-type", b'c'),
    (b"from", b'f'),
    (b"subject", b's'),
    (b"supported", b'k'),
    (b"to", b't'),
    (b"via", b'v'),
    (b"event", b'o'),
    (b"refer-to", b'r'),
    (b"referred-by", b'b'),
    (b"allow-events", b'u'),
    (b"accept-contact", b'a'),
    (b"reject-contact", b'j'),
    (b"request-disposition", b'd'),
    (b"session-expires", b'x'),
    (b"identity", b'y'),
];

/// The method of a request, or that in the `CSeq` of a response. `None` for what is no SIP.
#[must_use]
pub fn sip_method(payload: &[u8]) -> Option<&[u8]> {
    method(payload, |name| sip_header(payload, name))
}

fn method<'a>(payload: &'a [u8], header: impl FnOnce(&[u8]) -> Option<&'a [u8]>) -> Option<&'a [u8]> {
    let (_, line) = lines(payload).next()?;
    if is_response(line) { method_in_sequence(header(b"cseq")?) } else { method_in_request(line) }
}

/// The method in the value of a `CSeq`.
fn method_in_sequence(sequence: &[u8]) -> Option<&[u8]> {
    let (_, method) = sequence.split_at_checked(sequence.iter().position(u8::is_ascii_whitespace)?)?;
    method_in(method.trim_ascii_start())
}

/// The method in the first line of a request.
fn method_in_request(line: &[u8]) -> Option<&[u8]> {
    // A request ends with its version; without that, any text could be one.
    let version = line.rsplit(|octet| *octet == b' ').next()?;
    if !starts_with_ignoring_case(version, b"SIP/") {
        return None;
    }
    let end = line.iter().position(|octet| *octet == b' ')?;
    method_in(line.get(..end)?).filter(|method| method.len() == end)
}

/// The value of a header, without the white space around it; the first one if there are several. `name` in any case, long
/// or compact. A value that is folded over several lines is what its lines hold, line ends and all.
#[must_use]
pub fn sip_header<'a>(payload: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    value(payload, headers(payload), name)
}

/// The value of the first of these headers that is named so.
fn value<'a>(payload: &'a [u8], headers: impl IntoIterator<Item = Header>, name: &[u8]) -> Option<&'a [u8]> {
    let names_it = |header: &Header| part(payload, header.name).is_some_and(|own| is_named(own.trim_ascii(), name));
    let header = headers.into_iter().find(names_it)?;
    Some(part(payload, header.value)?.trim_ascii())
}

/// Where what lies in a message: made in one pass over it, and then any header is found without looking at the message
/// again. It belongs to that message, and knows of it what [`sip_method`] and [`sip_header`] know.
#[derive(Clone, Debug, Default)]
pub struct SipIndex(Vec<Header>);

impl SipIndex {
    /// Of what may be SIP.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(headers(payload).collect())
    }

    /// What [`sip_method`] says of the message.
    #[must_use]
    pub fn method<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        method(payload, |name| self.header(payload, name))
    }

    /// What [`sip_header`] says of the message.
    #[must_use]
    pub fn header<'a>(&self, payload: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        value(payload, self.0.iter().copied(), name)
    }
}

/// Where a header lies, each part with white space around it.
#[derive(Clone, Copy, Debug)]
struct Header {
    name: Run,
    value: Run,
}

/// Offsets of a part of a message: its first octet, and the one behind it.
type Run = (u16, u16);

/// The headers of a message, in order; none if its first line does not name SIP. What is folded belongs to the header before
/// it, and to nobody if a line without a colon stands between.
fn headers(payload: &[u8]) -> impl Iterator<Item = Header> {
    let mut all = lines(payload);
    let is_sip = all.next().is_some_and(|(_, line)| names_sip(line));
    let mut all = all.take_while(move |(_, line)| is_sip && !line.is_empty()).peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, line) = all.next()?;
            let Some(colon) = memchr(b':', line).filter(|_| !is_folded(line)) else {
                continue;
            };
            let mut end = start + line.len();
            while let Some((start, line)) = all.next_if(|(_, line)| is_folded(line)) {
                end = start + line.len();
            }
            return Some(Header { name: run(start, start + colon), value: run(start + colon + 1, end) });
        }
    })
}

fn is_folded(line: &[u8]) -> bool {
    line.first().is_some_and(|octet| matches!(octet, b' ' | b'\t'))
}

fn run(start: usize, end: usize) -> Run {
    (narrow(start), narrow(end))
}

/// Offsets in the part that is looked at fit.
fn narrow(offset: usize) -> u16 {
    u16::try_from(offset).unwrap_or(u16::MAX)
}

fn part(payload: &[u8], (start, end): Run) -> Option<&[u8]> {
    payload.get(usize::from(start)..usize::from(end))
}

/// The lines of the part that is looked at, without their ends, each with its offset, from the first that is not empty on.
/// An end is CR LF, LF, or CR alone: broken senders write any of them.
fn lines(payload: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let part = payload.get(..SIP_OCTETS_MAX).unwrap_or(payload);
    let mut at = part.iter().position(|octet| !matches!(octet, b'\r' | b'\n')).unwrap_or(part.len());
    let mut left = LINES_MAX;
    std::iter::from_fn(move || {
        let rest = part.get(at..).filter(|rest| !rest.is_empty() && left > 0)?;
        left -= 1;
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at_checked(end)?;
        let skip = match behind {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let start = at;
        at += end + skip;
        Some((start, line))
    })
}

/// Whether "SIP/" stands in it, in any case.
fn names_sip(line: &[u8]) -> bool {
    memchr_iter(b'/', line).any(|slash| {
        let before = slash.checked_sub(3).and_then(|start| line.get(start..slash));
        before.is_some_and(|before| before.eq_ignore_ascii_case(b"SIP"))
    })
}

fn is_response(line: &[u8]) -> bool {
    starts_with_ignoring_case(line, b"SIP/")
}

fn starts_with_ignoring_case(octets: &[u8], start: &[u8]) -> bool {
    octets.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

fn is_named(line_name: &[u8], name: &[u8]) -> bool {
    if line_name.eq_ignore_ascii_case(name) {
        return true;
    }
    let compact = |a: &[u8], b: &[u8]| match b {
        [letter] => {
            COMPACT.iter().any(|(long, short)| letter.eq_ignore_ascii_case(short) && a.eq_ignore_ascii_case(long))
        }
        _ => false,
    };
    compact(line_name, name) || compact(name, line_name)
}

/// The token at the beginning.
fn method_in(octets: &[u8]) -> Option<&[u8]> {
    let is_token = |octet: &u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(octet);
    let end = octets.iter().position(|octet| !is_token(octet)).unwrap_or(octets.len());
    octets.get(..end).filter(|method| (1..=METHOD_OCTETS_MAX).contains(&method.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP a\r\ni : abc@example.org \r\n\
        Subject: one\r\n two\r\n\tthree\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\nCall-ID: in-the-body\r\n";

    #[test]
    fn the_method_is_that_of_the_request_or_of_the_responses_cseq() {
        for (payload, method) in [
            (INVITE, Some(&b"INVITE"[..])),
            (b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\n\r\n", Some(b"OPTIONS")),
            (b"invite sip:a sip/2.0\n\n", Some(b"invite")),
            (b"SIP/2.0 200 OK\r\nCSeq: 7 BYE\r\n\r\n", Some(b"BYE")),
            (b"SIP/2.0 180 Ringing\nVia: x\ncseq:4711\tINVITE\n\n", Some(b"INVITE")),
            (b"SIP/2.0 200 OK\r\nCSeq: 7\r\n\r\n", None),
            (b"SIP/2.0 200 OK\r\n\r\nCSeq: 7 BYE\r\n", None),
            (b"GET / HTTP/1.1\r\n\r\n", None),
            (b"INVITE sip:a", None),
            (b"INVITE\r\n", None),
            (b"IN\0VITE sip:a SIP/2.0\r\n", None),
            (b"", None),
            (b"\r\n\r\n", None),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF sip:a SIP/2.0", Some(b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF")),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG sip:a SIP/2.0", None),
        ] {
            assert_eq!(sip_method(payload), method, "{}", payload.escape_ascii());
            assert_eq!(SipIndex::of(payload).method(payload), method, "{}", payload.escape_ascii());
        }
    }

    #[test]
    fn a_header_is_found_by_its_long_and_its_compact_name_and_only_above_the_body() {
        for (name, value) in [
            ("call-id", Some(&b"abc@example.org"[..])),
            ("CALL-ID", Some(b"abc@example.org")),
            ("I", Some(b"abc@example.org")),
            ("v", Some(b"SIP/2.0/UDP a")),
            ("subject", Some(b"one\r\n two\r\n\tthree")),
            ("cseq", Some(b"1 INVITE")),
            ("contact", None),
            ("INVITE sip", None),
            ("", None),
        ] {
            assert_eq!(sip_header(INVITE, name.as_bytes()), value, "{name}");
            assert_eq!(SipIndex::of(INVITE).header(INVITE, name.as_bytes()), value, "{name}");
        }
        assert_eq!(sip_header(b"not SIP\r\nCall-ID: x\r\n\r\n", b"call-id"), None);
        assert_eq!(sip_header(b"BYE sip:a SIP/2.0\rFrom:\r\rTo: x", b"from"), Some(&b""[..]));
        assert_eq!(sip_header(b"BYE sip:a SIP/2.0\n folded at once\nTo: x", b"to"), Some(&b"x"[..]));
        assert_eq!(sip_header(b"BYE sip:a SIP/2.0\nTo: cut off", b"to"), Some(&b"cut off"[..]));
    }

    #[test]
    fn what_follows_a_line_that_is_no_header_is_not_the_header_before_it() {
        let payload = b"BYE sip:a SIP/2.0\nFrom: a\nno header\n folded\nTo: b\n c\n\nTo: d";
        let index = SipIndex::of(payload);
        for (name, value) in [("from", &b"a"[..]), ("to", b"b\n c")] {
            assert_eq!(sip_header(payload, name.as_bytes()), Some(value));
            assert_eq!(index.header(payload, name.as_bytes()), Some(value));
        }
    }

    #[test]
    fn no_more_is_looked_at_than_may_be() {
        let with = |filler: &str, times: usize| {
            let text = format!("BYE sip:a SIP/2.0\r\n{}To: x\r\n\r\n", filler.repeat(times));
            let found = sip_header(text.as_bytes(), b"to");
            assert_eq!(SipIndex::of(text.as_bytes()).header(text.as_bytes(), b"to"), found);
            found.is_some()
        };
        assert!(with("A: b\r\n", LINES_MAX - 2));
        assert!(!with("A: b\r\n", LINES_MAX - 1));
        // 19 octets of request line, and the line of the header itself needs 5.
        let filler = "A: ".to_owned() + &"b".repeat(95) + "\r\n";
        assert!(with(&filler, 163));
        assert!(!with(&filler, 164));
    }
}
