//! What in a body says who somebody is.

use std::ops::Range;

use crate::hide::Hider;

/// Attributes that describe media and say nothing about people. The value of any other is hidden: names (`ssrc` with
/// its `cname`, `identity`), keys (`crypto`, `acap`, `ice-pwd`), and what is not known here.
const ATTRIBUTES: [&[u8]; 30] = [
    b"rtpmap",
    b"fmtp",
    b"rtcp",
    b"rtcp-mux",
    b"rtcp-fb",
    b"rtcp-xr",
    b"rtcp-rsize",
    b"ptime",
    b"maxptime",
    b"sendrecv",
    b"sendonly",
    b"recvonly",
    b"inactive",
    b"framerate",
    b"quality",
    b"setup",
    b"connection",
    b"mid",
    b"group",
    b"candidate",
    b"ice-ufrag",
    b"ice-lite",
    b"ice-options",
    b"fingerprint",
    b"silenceSupp",
    b"extmap",
    b"curr",
    b"des",
    b"conf",
    b"T38FaxVersion",
];

/// Hides in SDP (RFC 8866) who somebody is: the user name of `o=`, the texts of `s=`, `i=`, `u=`, `e=` and `p=`, the
/// values of attributes that nobody vouches for, and every line that is not SDP. Media, addresses and formats stay.
pub fn sdp(octets: &mut [u8], body: Range<usize>, hider: &Hider) {
    let mut start = body.start;
    while start < body.end {
        let rest = octets.get(start..body.end).unwrap_or_default();
        let end = start + rest.iter().position(|octet| matches!(octet, b'\r' | b'\n')).unwrap_or(rest.len());
        line(octets, start..end, hider);
        start = end + 1;
    }
}

fn line(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let Some(line) = octets.get(run.clone()) else { return };
    let value = run.start + 2..run.end;
    match line {
        [] => {}
        [b's' | b'i' | b'u' | b'e' | b'p', b'=', b'-'] => {}
        [b's' | b'i' | b'u' | b'e' | b'p' | b'k', b'=', ..] => hider.text(octets, value),
        [b'o', b'=', name @ ..] => {
            let end = name.iter().position(|octet| *octet == b' ').unwrap_or(name.len());
            if name.get(..end) != Some(b"-") {
                hider.user(octets, value.start..value.start + end);
            }
        }
        [b'a', b'=', attribute @ ..] => {
            let name = attribute.split(|octet| *octet == b':').next().unwrap_or_default();
            if !ATTRIBUTES.contains(&name) || attribute.contains(&b'@') {
                hider.text(octets, value.start + name.len()..value.end);
            }
        }
        [b'v' | b'c' | b'b' | b't' | b'r' | b'z' | b'm', b'=', ..] => {}
        _ => hider.text(octets, run),
    }
}
