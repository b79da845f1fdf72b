//! What in a URI says who somebody is.

use std::ops::Range;

use crate::hide::Hider;

/// Schemes that may stand before a user. A word that is none of them may be the user.
const SCHEMES: [&[u8]; 12] =
    [b"sip", b"sips", b"tel", b"urn", b"http", b"https", b"im", b"pres", b"mailto", b"xmpp", b"h323", b"cid"];
/// Parameters of URIs and headers whose values say nothing about people.
const PARAMETERS: [&[u8]; 30] = [
    b"tag",
    b"branch",
    b"received",
    b"rport",
    b"transport",
    b"maddr",
    b"ttl",
    b"lr",
    b"ob",
    b"user",
    b"method",
    b"expires",
    b"q",
    b"reg-id",
    b"index",
    b"reason",
    b"privacy",
    b"screen",
    b"party",
    b"id-type",
    b"refresher",
    b"cause",
    b"alias",
    b"keep",
    b"comp",
    b"text-reason",
    b"counter",
    b"limit",
    b"r2",
    b"nat",
];

/// Parameters whose values are hidden and whose names say nothing. The name of any other is hidden too.
const HIDDEN: [&[u8]; 4] = [b"+sip.instance", b"phone-context", b"purpose", b"isub"];

/// Hides what a URI (or what stands where one should) says about people. `run` is all of it, without brackets.
pub fn hide(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let Some(uri) = octets.get(run.clone()) else { return };
    let scheme = scheme(uri);
    let start = run.start + scheme.map_or(0, |scheme| scheme.len() + 1);
    if let Some(at) = uri.iter().rposition(|octet| *octet == b'@').map(|at| run.start + at)
        && at >= start
    {
        if at == start {
            // No user before it: what is behind it may be one.
            return hider.text(octets, start..run.end);
        }
        user(octets, start..at, hider);
        return host(octets, at + 1..run.end, hider);
    }
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"tel") => number(octets, start..run.end, hider),
        Some(scheme) if is_sip(scheme) => {
            let rest = octets.get(start..run.end).unwrap_or_default();
            let end = start + rest.iter().position(|octet| matches!(octet, b';' | b'?')).unwrap_or(rest.len());
            // A user without a host: forgotten, disguised, or torn off.
            if !is_host(octets.get(start..end).unwrap_or_default()) {
                user(octets, start..end, hider);
            }
            host(octets, end..run.end, hider);
        }
        Some(scheme) if scheme.eq_ignore_ascii_case(b"urn") => {}
        Some(_) => hider.text(octets, start..run.end),
        None if uri == b"*" => {}
        None => hider.text(octets, run),
    }
}

/// Hides every URI in a text: what follows a scheme, up to white space, a quote or a bracket.
pub fn hide_all_in(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let mut from = run.start;
    while let Some(colon) = octets.get(from..run.end).and_then(|rest| rest.iter().position(|octet| *octet == b':')) {
        let colon = from + colon;
        let before = octets.get(run.start..colon).unwrap_or_default();
        let word = before.iter().rev().take_while(|octet| octet.is_ascii_alphanumeric()).count();
        from = colon + 1;
        let is_uri = SCHEMES
            .iter()
            .any(|scheme| before.get(before.len() - word..).is_some_and(|word| word.eq_ignore_ascii_case(scheme)));
        if is_uri {
            let rest = octets.get(colon..run.end).unwrap_or_default();
            let ends = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b'"' | b'<' | b'>');
            let end = colon + rest.iter().position(ends).unwrap_or(rest.len());
            hide(octets, colon - word..end, hider);
            from = end;
        }
    }
}

/// Hides the values of parameters that nobody vouches for. `run` begins at a `;` or before it.
pub fn hide_parameters(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let mut start = run.start;
    while start < run.end {
        let rest = octets.get(start..run.end).unwrap_or_default();
        let end = start + end_of_parameter(rest);
        let parameter = octets.get(start..end).unwrap_or_default();
        match parameter.iter().position(|octet| *octet == b'=') {
            Some(equals) => {
                let name = parameter.get(..equals).unwrap_or_default().trim_ascii();
                let known = PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known));
                let value = parameter.get(equals + 1..).unwrap_or_default();
                if !known && !HIDDEN.iter().any(|hidden| name.eq_ignore_ascii_case(hidden)) {
                    hider.text(octets, start..start + equals);
                    hider.text(octets, start + equals + 1..end);
                } else if !known || value.contains(&b'"') || value.contains(&b'@') || value.contains(&b':') {
                    hider.text(octets, start + equals + 1..end);
                }
            }
            None if PARAMETERS.iter().any(|known| parameter.trim_ascii().eq_ignore_ascii_case(known)) => {}
            None => hider.text(octets, start..end),
        }
        start = end + 1;
    }
}

/// Where the next `;` outside quotes is.
fn end_of_parameter(rest: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (place, octet) in rest.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return place,
            _ => {}
        }
    }
    rest.len()
}

/// The scheme, if it is one that we know.
fn scheme(uri: &[u8]) -> Option<&[u8]> {
    let scheme = uri.get(..uri.iter().position(|octet| *octet == b':')?)?;
    SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(scheme)
}

const fn is_sip(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips")
}

/// The user part, up to the `@`: the user itself, and its password and parameters.
fn user(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let part = octets.get(run.clone()).unwrap_or_default();
    let end = run.start + part.iter().position(|octet| matches!(octet, b':' | b';')).unwrap_or(part.len());
    hider.user(octets, run.start..end);
    hider.octets(octets, end..run.end);
}

/// Behind the `@`: a host is kept, headers (`?`) are hidden, and so are parameters that nobody vouches for.
fn host(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let rest = octets.get(run.clone()).unwrap_or_default();
    let end = run.start + rest.iter().position(|octet| matches!(octet, b';' | b'?')).unwrap_or(rest.len());
    if !may_be_host(octets.get(run.start..end).unwrap_or_default()) {
        hider.text(octets, run.start..end);
    }
    let rest = octets.get(run.clone()).unwrap_or_default();
    let headers = run.start + rest.iter().position(|octet| *octet == b'?').unwrap_or(rest.len());
    if let Some(semicolon) = rest.iter().position(|octet| *octet == b';').filter(|at| run.start + at < headers) {
        hide_parameters(octets, run.start + semicolon + 1..headers, hider);
    }
    hider.text(octets, headers.saturating_add(1)..run.end);
}

/// A telephone number, and parameters that can hold another.
fn number(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let rest = octets.get(run.clone()).unwrap_or_default();
    let end = run.start + rest.iter().position(|octet| *octet == b';').unwrap_or(rest.len());
    hider.user(octets, run.start..end);
    if end < run.end {
        hide_parameters(octets, end + 1..run.end, hider);
    }
}

/// Whether it can be a host, with a port.
fn may_be_host(host: &[u8]) -> bool {
    let host = host.trim_ascii();
    if !host.is_empty() && host.iter().all(|octet| octet.is_ascii_digit() || *octet == b':') {
        // A number that got behind an @.
        return false;
    }
    let part = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_');
    let port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    match host {
        [b'[', rest @ ..] => rest.iter().all(|octet| octet.is_ascii_hexdigit() || matches!(octet, b':' | b']' | b'.')),
        _ => match host.iter().position(|octet| *octet == b':').and_then(|colon| host.split_at_checked(colon)) {
            Some((name, [_, number @ ..])) => name.iter().all(part) && port(number),
            _ => host.iter().all(part),
        },
    }
}

/// Whether it can only be a host: a name with a dot, or an IP address.
fn is_host(host: &[u8]) -> bool {
    may_be_host(host) && (host.starts_with(b"[") || host.contains(&b'.'))
}
