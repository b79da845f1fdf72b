//! SIP reads the same in the guest as in the host, however broken it is.
#![allow(clippy::unwrap_used, reason = "a test may")]

use hepgate_kit::sip::{LINES_MAX, OCTETS_MAX, Sip, cseq_method, parameter, uri, user};

#[path = "../../../../src/wire/sip.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "the host's own reader, for comparison")]
mod host;

const MESSAGES: [&[u8]; 5] = [
    b"INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP a\r\ni : abc@example.org \r\nSubject: one\r\n two\r\n\
        \tthree\r\nFrom: \"A <\\\" b\" <sip:a:b@c;d>;tag=e\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\nCall-ID: in-the-body\r\n",
    b"\r\n\r\nSIP/2.0 180 Ringing\nVia: x\ncseq:4711\tINVITE\nt:<tel:+49-30>;tag=1\nCall-ID:\n here\n\n",
    b"BYE sip:a SIP/2.0\rFrom:\r\rTo: x",
    b"REGISTER sip:a SIP/2.0\n folded at once\n: no name\nCall-ID: 1\nCALL-ID: 2",
    b"OPTIONS sip:a SIP/2.0\r\nP-Charging-Vector: icid-value=\"a;b\";orig-ioi=c\r\nCSeq:9\r\n\r\n",
];
const NAMES: [&str; 12] =
    ["Call-ID", "i", "I", "CSEQ", "via", "From", "f", "to", "Subject", "P-Charging-Vector", "", "no colon"];
/// What breaks lines, names and values.
const ODD: &[u8] = b"\r\n\r\n \t:;,\"\\<>@=/?\0\xff SIP/2.0i";

/// xorshift64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

fn mutated(random: &mut Random) -> Vec<u8> {
    let mut message = MESSAGES[random.below(MESSAGES.len())].to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(message.len());
        match random.below(6) {
            0 => message.truncate(at),
            1 => message.insert(at, ODD[random.below(ODD.len())]),
            2 => drop(message.drain(at..(at + 8).min(message.len()))),
            3 => {
                let part = message[at..(at + 30).min(message.len())].to_vec();
                message.splice(at..at, part);
            }
            4 if at < message.len() => message[at] = u8::try_from(random.below(256)).unwrap(),
            _ if at < message.len() => message[at] = ODD[random.below(ODD.len())],
            _ => {}
        }
    }
    message
}

fn check(message: &[u8]) {
    let sip = Sip::parse(message);
    assert_eq!(sip.and_then(|sip| sip.method()), host::sip_method(message), "{}", message.escape_ascii());
    for name in NAMES {
        let value = sip.and_then(|sip| sip.header(name));
        assert_eq!(value, host::sip_header(message, name.as_bytes()), "{name}: {}", message.escape_ascii());
    }
    let Some(sip) = sip else { return };
    // These have no other reader; that they come back is what is looked for.
    let _ = (sip.status(), sip.request_uri().map(user), sip.body());
    for header in sip.headers() {
        let _ = (uri(header.value).map(user), parameter(header.value, "tag"), cseq_method(header.value));
    }
}

#[test]
fn broken_sip_reads_in_the_guest_as_in_the_host() {
    let mut random = Random(0x4845_5033);
    for message in MESSAGES {
        for length in 0..=message.len() {
            check(&message[..length]);
        }
    }
    for _ in 0..50_000 {
        check(&mutated(&mut random));
    }
}

#[test]
fn no_more_is_looked_at_than_the_host_looks_at() {
    for times in [LINES_MAX - 3, LINES_MAX - 2, LINES_MAX - 1, LINES_MAX, 5_000] {
        check(format!("BYE sip:a SIP/2.0\r\n{}To: x\r\n folded\r\n\r\n", "A: b\r\n".repeat(times)).as_bytes());
    }
    for length in OCTETS_MAX - 40..OCTETS_MAX + 10 {
        check(format!("BYE sip:a SIP/2.0\r\nA: {}\r\nTo: x\r\n\r\n", "b".repeat(length)).as_bytes());
    }
    check(&b"\n".repeat(100_000));
    check(&b":".repeat(100_000));
}
