//! What is read of SIP, whole, broken and cut.
#![allow(clippy::unwrap_used, reason = "a test may")]

use super::*;

const INVITE: &[u8] = b"INVITE sip:+4930@example.org;user=phone SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\
    Via: SIP/2.0/UDP b\r\ni : abc@example.org \r\nno header\r\n folded onto none\r\nSubject: one\r\n two\r\n\tthree\r\n\
    CSeq: 1 INVITE\r\n\r\nv=0\r\nCall-ID: in-the-body\r\n";

#[test]
fn a_request_says_method_uri_headers_and_body() {
    let sip = Sip::parse(INVITE).unwrap();
    assert!(!sip.is_response());
    assert_eq!(sip.status(), None);
    assert_eq!(sip.method(), Some(&b"INVITE"[..]));
    assert_eq!(sip.request_uri(), Some(&b"sip:+4930@example.org;user=phone"[..]));
    assert_eq!(sip.call_id(), Some(&b"abc@example.org"[..]));
    assert_eq!(sip.header("VIA"), Some(&b"SIP/2.0/UDP a"[..]));
    assert_eq!(sip.header("s"), Some(&b"one\r\n two\r\n\tthree"[..]));
    assert_eq!(sip.cseq_method(), Some(&b"INVITE"[..]));
    assert_eq!(sip.header("Contact"), None);
    assert_eq!(sip.body(), Some(&b"v=0\r\nCall-ID: in-the-body\r\n"[..]));
    let names: Vec<&[u8]> = sip.headers().map(|header| header.name).collect();
    assert_eq!(names, [&b"Via"[..], b"Via", b"i", b"Subject", b"CSeq"]);
    assert!(sip.headers().nth(2).unwrap().is("Call-ID"));
}

#[test]
fn a_response_says_its_status_and_what_it_answers() {
    let sip = Sip::parse(b"\r\nSIP/2.0 486 Busy Here\ncseq:4711\tINVITE\n\n").unwrap();
    assert_eq!(sip.status(), Some(486));
    assert_eq!(sip.method(), Some(&b"INVITE"[..]));
    assert_eq!(sip.request_uri(), None);
    assert_eq!(sip.body(), Some(&b""[..]));
    for line in ["SIP/2.0", "SIP/2.0 ", "SIP/2.0 20 OK", "SIP/2.0 +20 OK", "SIP/2.0 099 x", "SIP/2.0 2000 OK"] {
        assert_eq!(Sip::parse(line.as_bytes()).unwrap().status(), None, "{line}");
    }
}

#[test]
fn what_is_no_sip_is_none() {
    for payload in ["", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "{\"sip\":1}", "SIP"] {
        assert_eq!(Sip::parse(payload.as_bytes()), None, "{payload}");
    }
}

#[test]
fn whoever_sees_a_part_knows_whether_it_is_enough() {
    for length in 0..INVITE.len() {
        let part = INVITE.get(..length).unwrap();
        let Some(sip) = Sip::parse(part) else { continue };
        for name in ["Via", "Call-ID", "Subject", "CSeq", "Contact"] {
            let (value, is_certain) = sip.search(name);
            if is_certain {
                assert_eq!(value, Sip::parse(INVITE).unwrap().header(name), "{name} in {length}");
            }
        }
    }
    assert_eq!(Sip::parse(INVITE).unwrap().search("Contact"), (None, true));
    assert!(!Sip::parse(b"BYE sip:a SIP/2.0\r\nTo: x\r\n").unwrap().search("To").1, "more may be folded onto it");
}

#[test]
fn a_uri_and_its_user_are_found_where_they_stand() {
    for (value, found, its_user) in [
        ("<sip:+4930@example.org;user=phone>;tag=1", Some("sip:+4930@example.org;user=phone"), Some("+4930")),
        ("\"a <sip:no@b> \\\" c\" <sips:alice:secret@b>", Some("sips:alice:secret@b"), Some("alice")),
        ("sip:bob@b;tag=a@c", Some("sip:bob@b"), Some("bob")),
        ("Bob <tel:+49-30;phone-context=x>", Some("tel:+49-30;phone-context=x"), Some("+49-30")),
        ("<sip:+49;npdi@host>", Some("sip:+49;npdi@host"), Some("+49")),
        ("<sip:example.org>", Some("sip:example.org"), None),
        ("<sip:@example.org>", Some("sip:@example.org"), None),
        ("<mailto:a@b>", Some("mailto:a@b"), None),
        ("\"never closed", None, None),
        ("<", None, None),
        ("", None, None),
    ] {
        assert_eq!(uri(value.as_bytes()), found.map(str::as_bytes), "{value}");
        assert_eq!(found.and_then(|uri| user(uri.as_bytes())), its_user.map(str::as_bytes), "{value}");
    }
}

#[test]
fn a_parameter_is_found_and_freed_of_its_quotes() {
    let vector = b"icid-value=\"1;2\";icid-generated-at=10.0.0.1 ; ORIG-IOI = home";
    assert_eq!(parameter(vector, "ICID-Value"), Some(&b"1;2"[..]));
    assert_eq!(parameter(vector, "orig-ioi"), Some(&b"home"[..]));
    assert_eq!(parameter(vector, "2"), None);
    assert_eq!(parameter(b"a;b", "a"), None);
    assert_eq!(parameter(b"a=\"open", "a"), Some(&b"open"[..]));
    assert_eq!(parameter(b"", "a"), None);
}
