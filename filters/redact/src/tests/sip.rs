//! SIP.

use super::{Dice, filter};
use crate::headers::is_technical;
use hepgate_filter::SIP;

/// What no redacted message may hold.
const CANARIES: [&str; 6] = ["alice", "bob", "4930123", "secret", "Wonder", "canary"];

fn redact(text: &str) -> String {
    let redacted = filter([]).redacted(SIP, text.as_bytes()).unwrap_or_else(|| panic!("not SIP: {text}"));
    assert_eq!(redacted.len(), text.len());
    String::from_utf8(redacted).unwrap()
}

fn header(line: &str) -> String {
    let message = redact(&format!("OPTIONS sip:h.org SIP/2.0\r\n{line}\r\n\r\n"));
    message.strip_prefix("OPTIONS sip:h.org SIP/2.0\r\n").unwrap().strip_suffix("\r\n\r\n").unwrap().to_owned()
}

#[test]
fn a_message_keeps_what_is_technical() {
    let message = redact(
        "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n\
         From: \"Alice Wonder\" <sip:alice@example.com:5070;transport=tcp>;tag=1928\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: a84b4c@192.0.2.1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: 53\r\n\r\n\
         v=0\r\no=alice 1 1 IN IP4 192.0.2.1\r\ns=Wonder\r\nm=audio 4000 RTP/AVP 0\r\n",
    );
    assert_eq!(
        message,
        "INVITE sip:xxx@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n\
         From: xxxxxx xxxxxxx <sip:xxxxx@example.com:5070;transport=tcp>;tag=1928\r\nTo: <sip:xxx@example.com>\r\n\
         Call-ID: a84b4c@192.0.2.1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: 53\r\n\r\n\
         v=0\r\no=xxxxx 1 1 IN IP4 192.0.2.1\r\ns=xxxxxx\r\nm=audio 4000 RTP/AVP 0\r\n"
    );
}

#[test]
fn users_are_hidden_however_they_are_written() {
    for (line, expected) in [
        ("f: <sip:alice@h>", "f: <sip:xxxxx@h>"),
        ("FROM : sip:alice@h;tag=1", "FROM : sip:xxxxx@h;tag=1"),
        ("From: sip:alice@h ;tag=1", "From: sip:xxxxx@h ;tag=1"),
        ("To: <SIPS:alice:secret@h;lr>", "To: <SIPS:xxxxxxxxxxxx@h;lr>"),
        ("To: <sip:alice;day=tue@h>", "To: <sip:xxxxxxxxxxxxx@h>"),
        ("To: <sip:a,alice@h>, Bob <tel:+4930123>", "To: <sip:xxxxxxx@h>, xxx <tel:xxxxxxxx>"),
        ("To: <tel:4930123;phone-context=+4930123>", "To: <tel:xxxxxxx;phone-context=xxxxxxxx>"),
        ("To: <sip:h.org?Subject=secret&To=alice%40h>", "To: <sip:h.org?xxxxxxxxxxxxxxxxxxxxxxxxxxx>"),
        ("To: <sip:alice@h?Subject=secret>", "To: <sip:xxxxx@h?xxxxxxxxxxxxxx>"),
        ("To: <sip:bob>", "To: <sip:xxx>"),
        ("To: sip:bob", "To: sip:xxx"),
        ("To: <sip:+4930123>", "To: <sip:xxxxxxxx>"),
        ("To: <sip:192.0.2.1:5060>", "To: <sip:192.0.2.1:5060>"),
        ("To: <sip:[2001:db8::1]:5060>", "To: <sip:[2001:db8::1]:5060>"),
        ("To: <alice:secret@h>", "To: <xxxxxxxxxxxx@h>"),
        ("To: <sip:@alice>", "To: <sip:xxxxxx>"),
        ("To: alice", "To: xxxxx"),
        ("To: alice bob", "To: xxxxx xxx"),
        ("To: <alice", "To: <xxxxx"),
        ("To: \"alice\" bob <sip:h.org>", "To: xxxxxxx xxx <sip:h.org>"),
        ("To: \"a\\\"<sip:alice@h>\" <sip:h.org>;tag=2", "To: xxxxxxxxxxxxxxxxxx <sip:h.org>;tag=2"),
        ("Contact: *", "Contact: *"),
        (
            "Contact: <sip:alice@h>;+sip.instance=\"<urn:uuid:1>\";expires=5",
            "Contact: <sip:xxxxx@h>;+sip.instance=xxxxxxxxxxxxxx;expires=5",
        ),
        ("Contact: <sip:h.org>;canary", "Contact: <sip:h.org>;xxxxxx"),
        ("Refer-To: <sip:alice@h?Replaces=canary>", "Refer-To: <sip:xxxxx@h?xxxxxxxxxxxxxxx>"),
        ("Via: SIP/2.0/UDP h;branch=1\r\n ;received=192.0.2.9", "Via: SIP/2.0/UDP h;branch=1\r\n ;received=192.0.2.9"),
        ("From: \"Alice\r\n Wonder\"\r\n\t<sip:alice@h>", "From: xxxxxx\r\n xxxxxxx\r\n\t<sip:xxxxx@h>"),
        ("Subject: canary alice", "Subject: xxxxxx xxxxx"),
        ("X-Unknown: 4930123", "X-Unknown: xxxxxxx"),
        ("Authorization: Digest username=\"alice\"", "Authorization: xxxxxx xxxxxxxxxxxxxxxx"),
        ("alice is no header", "xxxxx xx xx xxxxxx"),
        ("alice: 1", "xxxxx: x"),
        ("Reason: SIP;cause=200;text=see sip:alice@h", "Reason: SIP;cause=200;text=see sip:xxxxx@h"),
        ("Call-Info: <http://h/alice.png>;purpose=icon", "Call-Info: <http:xxxxxxxxxxxxx>;purpose=xxxx"),
    ] {
        assert_eq!(header(line), expected, "{line}");
    }
}

#[test]
fn bodies_are_hidden_and_lines_stay_lines() {
    let with = |headers: &str, body: &str| {
        let message = redact(&format!("MESSAGE sip:h.org SIP/2.0\r\n{headers}\r\n\r\n{body}"));
        message.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert_eq!(with("Content-Type: text/plain", "alice, secret\r\nbob"), "xxxxxx xxxxxx\r\nxxx");
    assert_eq!(with("CSeq: 1 MESSAGE", "alice"), "xxxxx");
    assert_eq!(with("c: application/sdp\r\nContent-Type: text/plain", "s=alice"), "xxxxxxx");
    assert_eq!(
        with("c: Application/SDP;x=y", "v=0\na=crypto:1 secret\na=sendrecv\nalice"),
        "v=0\na=cryptoxx xxxxxx\na=sendrecv\nxxxxx"
    );
    assert_eq!(
        with(
            "c: application/sdp",
            "a=ssrc:1 cname:alice\na=identity:YWxpY2U\na=acap:1 crypto:1 secret\na=rtpmap:0 PCMU/8000"
        ),
        "a=ssrcxx xxxxxxxxxxx\na=identityxxxxxxxx\na=acapxx xxxxxxxx xxxxxx\na=rtpmap:0 PCMU/8000"
    );
    assert_eq!(with("c: application/sdp\r\ne: gzip", "v=0\r\n"), "xxxxx");
    let kept = filter([("bodies", "keep")]).redacted(SIP, b"MESSAGE sip:h.org SIP/2.0\r\n\r\nalice").unwrap();
    assert!(kept.ends_with(b"alice"));
}

#[test]
fn what_is_not_sip_is_not_taken_for_it() {
    let filter = filter([]);
    for octets in [
        &b"{\"alice\":1}"[..],
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        b"INVITE SIP/2.0\r\n",
        b"alice",
        b"alice@h.org x SIP/2.0\r\n",
        b" x SIP/2.0\r\n",
        b"SIP/2.0 200 OK\rFrom: \"alice\"\r\n\r\n",
        b"BYE sip:h.org SIP/2.0\r\nVia: x\rFrom: \"alice\"\r\n\r\n",
    ] {
        assert_eq!(filter.redacted(SIP, octets), None, "{}", octets.escape_ascii());
    }
    for keep_alive in [&b""[..], b"\r\n\r\n", b"\0\0\0\0"] {
        assert_eq!(filter.redacted(SIP, keep_alive).unwrap(), keep_alive);
    }
}

/// Messages that hold every canary where it may stand, cut and mangled: whatever still reads as SIP hides them all, as
/// long as what was changed is not the canary's own place.
#[test]
fn no_canary_survives_in_messages_gone_wrong() {
    let seed = "INVITE sip:bob@h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9\r\nFrom: \"Wonder\" <sip:alice@h>;tag=1\r\n\
                To: Wonder <sip:bob@h>\r\nP-Asserted-Identity: <tel:+4930123>, \"Wonder\" <sip:alice@h>\r\n\
                Subject: secret\r\nX-Other: canary\r\nContact: sip:alice@h\r\nCall-ID: 1@h\r\nContent-Type: text/plain\r\n\
                \r\nsecret canary alice";
    let names = ["f", "t", "m", "r", "b", "Diversion", "Route"];
    let mut dice = Dice(1);
    let mut dice = move |below: usize| dice.below(below);
    let filter = filter([]);
    let mut sip = 0;
    for _ in 0..20_000 {
        let mut octets = seed.as_bytes().to_vec();
        for _ in 0..=dice(4) {
            let at = dice(octets.len());
            match dice(6) {
                0 => octets[at] = b"<>\"\\,;:@ \r\n?=%\0\xff"[dice(16)],
                1 => octets.truncate(at.max(16)),
                2 => octets.insert(at, b"<>\"\\,;@ \n"[dice(9)]),
                3 => {
                    octets.remove(at);
                }
                4 => {
                    let line = format!("\r\n{}: alice <sip:bob@h>;x=secret", names[dice(names.len())]);
                    octets.splice(at..at, line.into_bytes());
                }
                _ => octets[at] = octets[at].to_ascii_uppercase(),
            }
        }
        let Some(redacted) = filter.redacted(SIP, &octets) else { continue };
        sip += 1;
        assert_eq!(redacted.len(), octets.len());
        let text = String::from_utf8_lossy(&redacted).to_lowercase();
        for canary in CANARIES {
            let unfolded = String::from_utf8_lossy(&octets).to_lowercase().replace("\n ", " ").replace("\n\t", " ");
            // A line feed that went lost, or a folded line, makes what follows a part of a technical header.
            let may_stay = unfolded.split('\n').any(|line| {
                let technical = line.split_once(':').is_some_and(|(name, _)| is_technical(name.trim().as_bytes()));
                technical && line.contains(&canary.to_lowercase())
            });
            assert!(
                may_stay || !text.contains(&canary.to_lowercase()),
                "{canary} in {text}\nof {}",
                octets.escape_ascii()
            );
        }
    }
    assert!(sip > 15_000, "{sip}");
}
