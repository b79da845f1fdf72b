//! What the SIP scanner promises.

use hepgate::wire::{SipIndex, sip_header, sip_method};

/// Whatever is scanned: a method is a short token; a header's value lies where its name stands before it, and has no white
/// space around it; what stands behind the first empty line changes nothing; an index knows what a scan finds.
pub(crate) fn scanning(octets: &[u8]) {
    if let Some(method) = sip_method(octets) {
        assert!((1..=32).contains(&method.len()) && method.iter().all(u8::is_ascii_graphic), "{method:?}");
        assert!(find(octets, method).is_some());
    }
    for name in ["call-id", "from", "cseq", "via", "x-nobody"] {
        let Some(value) = sip_header(octets, name.as_bytes()) else { continue };
        assert_eq!(value, value.trim_ascii());
        let stands_at = |at: usize| octets[at..].starts_with(value) && octets[..at].contains(&b':');
        assert!((0..octets.len() + 1 - value.len()).any(stands_at), "{name}");
    }
    let index = SipIndex::of(octets);
    assert_eq!(index.method(octets), sip_method(octets));
    for name in [&b"call-id"[..], b"i", b"From", b"cseq", b"via", b"x-nobody", b""] {
        assert_eq!(index.header(octets, name), sip_header(octets, name), "{}", name.escape_ascii());
    }
    let head = [octets, b"\r\n\r\n"].concat();
    let with_body = [&head[..], b"Call-ID: in the body\r\nX-Nobody: x\r\n"].concat();
    assert_eq!(sip_method(&head), sip_method(&with_body));
    for name in [&b"call-id"[..], b"x-nobody"] {
        assert_eq!(sip_header(&head, name), sip_header(&with_body, name));
    }
}

fn find(octets: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() { Some(0) } else { octets.windows(part.len()).position(|window| window == part) }
}
