//! What of a SIP message is hidden. Whatever is not known to say nothing about people is.
//!
//! - Start line: the user part of the request URI; of a response's reason, every URI.
//! - Headers that name calls ([`ids`]): as the settings say, which leave them as they are or make them pseudonyms.
//! - Headers that name somebody ([`NAMES`]): display names, quoted texts, user parts, and parameters that nobody
//!   vouches for. The hosts stay.
//! - Headers that are known to be technical ([`is_technical`]) stay, but for URIs in them.
//! - Every other header is hidden, its name too unless it is known ([`PRIVATE`]), and so are lines that are no header.
//! - Bodies: SDP keeps media, addresses and formats; anything else is hidden whole, and octet by octet if it is
//!   encoded.

use std::ops::Range;

use crate::headers::{NAMES, PRIVATE, is_in, is_technical};
use crate::hide::Hider;
use crate::{body, ids, uri};

/// What the headers say about the body.
#[derive(Default)]
struct Body {
    /// A Content-Type other than SDP was seen.
    other: bool,
    sdp: bool,
    encoded: bool,
}

/// Hides in place. `false`: it is not SIP, and nothing was done. A payload of nothing but line ends is a keep-alive.
pub fn redact(octets: &mut [u8], hider: &Hider, keep_bodies: bool) -> bool {
    let blank = |octet: &u8| matches!(octet, b'\r' | b'\n' | b'\0');
    let Some(start) = octets.iter().position(|octet| !blank(octet)) else { return true };
    if has_bare_cr(octets.get(start..).unwrap_or_default()) {
        return false;
    }
    let line = start..end_of_line(octets, start);
    if !start_line(octets, line.clone(), hider) {
        return false;
    }
    let mut body = Body::default();
    let mut next = line.end + 1;
    while next < octets.len() {
        let header = next..end_of_header(octets, next);
        if octets.get(header.clone()).unwrap_or_default().trim_ascii().is_empty() {
            let rest = header.end + 1..octets.len();
            hide_body(octets, rest, &body, hider, keep_bodies);
            return true;
        }
        next = header.end + 1;
        hide_header(octets, header, &mut body, hider);
    }
    true
}

/// Whether there is a carriage return without a line feed before the body. Some end a line there and some do not, so
/// nobody can say which header it is in.
fn has_bare_cr(sip: &[u8]) -> bool {
    let mut rest = sip;
    while let Some(cr) = rest.iter().position(|octet| *octet == b'\r') {
        match rest.get(cr + 1) {
            Some(b'\n') => {}
            // Cut off behind it.
            None => return false,
            Some(_) => return true,
        }
        if rest.get(cr + 2..).is_some_and(|behind| behind.starts_with(b"\r\n")) {
            return false;
        }
        rest = rest.get(cr + 2..).unwrap_or_default();
    }
    false
}

/// Where the line ends: at its line feed, or with the payload.
fn end_of_line(octets: &[u8], start: usize) -> usize {
    let rest = octets.get(start..).unwrap_or_default();
    start + rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len())
}

/// Where the header ends: at the line feed that no folded line follows.
fn end_of_header(octets: &[u8], start: usize) -> usize {
    let mut end = end_of_line(octets, start);
    let is_blank = octets.get(start..end).unwrap_or_default().trim_ascii().is_empty();
    while !is_blank && matches!(octets.get(end + 1), Some(b' ' | b'\t')) {
        end = end_of_line(octets, end + 1);
    }
    end
}

fn start_line(octets: &mut [u8], run: Range<usize>, hider: &Hider) -> bool {
    let line = octets.get(run.clone()).unwrap_or_default();
    if line.get(..8).is_some_and(|version| version.eq_ignore_ascii_case(b"SIP/2.0 ")) {
        uri::hide_all_in(octets, run.start + 8..run.end, hider);
        return true;
    }
    let version = line.trim_ascii_end();
    let Some(version_at) = version.len().checked_sub(8) else { return false };
    if !version.get(version_at..).is_some_and(|version| version.eq_ignore_ascii_case(b" SIP/2.0")) {
        return false;
    }
    let Some(space) = line.iter().position(|octet| *octet == b' ').filter(|space| *space < version_at) else {
        return false;
    };
    // Whatever is no method may be anything, a name for example.
    if space == 0 || !line.iter().take(space).all(|octet| is_method_octet(*octet)) {
        return false;
    }
    uri::hide(octets, run.start + space + 1..run.start + version_at, hider);
    true
}

fn hide_header(octets: &mut [u8], run: Range<usize>, body: &mut Body, hider: &Hider) {
    let header = octets.get(run.clone()).unwrap_or_default();
    let Some(colon) = header.iter().position(|octet| *octet == b':') else { return hider.text(octets, run) };
    let name = header.get(..colon).unwrap_or_default().trim_ascii();
    let value = header.get(colon + 1..).unwrap_or_default();
    let is = |names: &[&[u8]]| is_in(names, name);
    if is(&[b"content-type", b"c"]) {
        let kind = value.split(|octet| *octet == b';').next().unwrap_or_default().trim_ascii();
        let sdp = kind.eq_ignore_ascii_case(b"application/sdp");
        (body.sdp, body.other) = (body.sdp || sdp, body.other || !sdp);
    }
    if is(&[b"content-encoding", b"e"]) && !value.trim_ascii().eq_ignore_ascii_case(b"identity") {
        body.encoded = true;
    }
    let prefixed = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let value = run.start + colon + 1..run.end;
    if hider.hides_call_ids()
        && let Some(form) = ids::Form::of_header(name)
    {
        ids::hide_in_header(octets, value, form, hider);
    } else if is(&NAMES) {
        hide_names(octets, value, hider);
    } else if is_technical(name) {
        uri::hide_all_in(octets, value, hider);
    } else if is(&PRIVATE) || prefixed(b"x-") || prefixed(b"p-") {
        hider.text(octets, value);
    } else {
        hider.text(octets, run.start..run.start + colon);
        hider.text(octets, value);
    }
}

/// Methods are tokens (RFC 3261, 25.1); all that there are have no other letters.
const fn is_method_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

/// A list of addresses with display names and parameters, between commas.
pub fn hide_names(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let mut start = run.start;
    while start < run.end {
        let rest = octets.get(start..run.end).unwrap_or_default();
        let Parts { open, close, end } = parts(rest);
        let (open, close, end) = (open.map(|at| start + at), close.map(|at| start + at), start + end);
        if let Some(open) = open {
            hider.text(octets, start..open);
            match close {
                Some(close) => {
                    uri::hide(octets, open + 1..close, hider);
                    hide_behind(octets, close + 1..end, hider);
                }
                // Torn: where the user ends cannot be said.
                None => hider.text(octets, open + 1..end),
            }
        } else {
            hide_bare(octets, start..end, hider);
        }
        start = end + 1;
    }
}

/// What stands behind the bracket: parameters, and nothing else that is kept.
fn hide_behind(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let rest = octets.get(run.clone()).unwrap_or_default();
    let semicolon = run.start + rest.iter().position(|octet| *octet == b';').unwrap_or(rest.len());
    hider.text(octets, run.start..semicolon);
    uri::hide_parameters(octets, semicolon + 1..run.end, hider);
}

/// An address without brackets: its parameters are the header's.
fn hide_bare(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let rest = octets.get(run.clone()).unwrap_or_default();
    let first = rest.iter().position(|octet| !octet.is_ascii_whitespace()).unwrap_or(rest.len());
    let last = rest.trim_ascii_end().len();
    if first >= last {
        return;
    }
    let text = rest.get(first..last).unwrap_or_default();
    if text.iter().any(|octet| octet.is_ascii_whitespace() || *octet == b'"') {
        // Not one word, so not an address: nothing of it can be vouched for.
        let spaced = text.iter().position(|octet| octet.is_ascii_whitespace() || *octet == b'"').unwrap_or(0);
        let word = text.get(..spaced).unwrap_or_default();
        // Parameters may be folded or spaced: `sip:a@b ;tag=1`.
        let behind = text.get(spaced..).unwrap_or_default().trim_ascii_start();
        if behind.first() == Some(&b';') && !word.is_empty() {
            let at = run.start + last - behind.len();
            uri::hide(octets, run.start + first..run.start + first + spaced, hider);
            uri::hide_parameters(octets, at + 1..run.start + last, hider);
        } else {
            hider.text(octets, run.start + first..run.start + last);
        }
        return;
    }
    uri::hide(octets, run.start + first..run.start + last, hider);
}

/// Where the brackets of a list's first element are, and where it ends.
struct Parts {
    open: Option<usize>,
    close: Option<usize>,
    end: usize,
}

fn parts(list: &[u8]) -> Parts {
    let mut parts = Parts { open: None, close: None, end: list.len() };
    let (mut quoted, mut escaped) = (false, false);
    for (place, octet) in list.iter().enumerate() {
        let inside = parts.open.is_some() && parts.close.is_none();
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !inside => quoted = !quoted,
            _ if quoted => {}
            b'<' if parts.open.is_none() => parts.open = Some(place),
            b'>' if inside => parts.close = Some(place),
            b',' if !inside => {
                parts.end = place;
                break;
            }
            _ => {}
        }
    }
    parts
}

fn hide_body(octets: &mut [u8], body: Range<usize>, said: &Body, hider: &Hider, keep: bool) {
    if keep || body.start >= body.end {
    } else if said.encoded {
        hider.octets(octets, body);
    } else if said.sdp && !said.other {
        body::sdp(octets, body, hider);
    } else {
        hider.text(octets, body);
    }
}
