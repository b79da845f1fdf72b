//! What the benches share: the packet, the arguments, and how a figure is taken.
#![allow(dead_code, reason = "no bench needs all of it")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version};

/// Octets of the packet that everything is measured with: a SIP INVITE in HEP3.
pub(crate) const PACKET_OCTETS: usize = 738;

/// Whether this run only checks that the bench works (`-- --quick`). Cargo's own `--bench` means nothing here.
pub(crate) fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// The parts of the packet. Its microseconds are free: receivers keep whatever stands there.
pub(crate) fn invite(microseconds: u32) -> Pack {
    let mut payload = String::from(
        "INVITE sip:bob@biloxi.example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP pc33.atlanta.example.com:5060;branch=z9hG4bKnashds8;rport\r\n\
         Max-Forwards: 70\r\n\
         To: Bob <sip:bob@biloxi.example.com>\r\n\
         From: Alice <sip:alice@atlanta.example.com>;tag=1928301774\r\n\
         Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n\
         CSeq: 314159 INVITE\r\n\
         Contact: <sip:alice@pc33.atlanta.example.com>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: 150\r\n\r\n\
         v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 49170 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
    );
    let mut pack = Pack {
        ip_protocol: 17,
        flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5060".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1_800_000_000, microseconds }),
        payload_type: PayloadType::SIP,
        agent_id: 2_001,
        chunks: vec![(ChunkId::CORRELATION_ID, Bytes::from_static(b"a84b4c76e66710"))],
        payload: Some(Bytes::new()),
    };
    let without = pack.encode(Version::Hep3).unwrap().len();
    // A media attribute as long as is needed.
    let missing = PACKET_OCTETS - without - payload.len() - "a=x:\r\n".len();
    payload.push_str(&format!("a=x:{}\r\n", "-".repeat(missing)));
    pack.payload = Some(payload.into());
    pack
}

/// The packet's octets.
pub(crate) fn octets(microseconds: u32) -> Bytes {
    let octets = invite(microseconds).encode(Version::Hep3).unwrap();
    assert_eq!(octets.len(), PACKET_OCTETS);
    octets
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Calls `work`, which handles `packets` packets, often enough for a figure: nanoseconds per packet, the median of
/// several rounds. A quick run calls it once.
pub(crate) fn nanos_per_packet<T>(packets: usize, mut work: impl FnMut() -> T) -> f64 {
    const ROUNDS: usize = 15;
    const ROUND_NANOS: u128 = 40_000_000;
    let mut once = |calls: u128| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        start.elapsed().as_nanos()
    };
    let first = once(1);
    if is_quick() {
        return as_f64(first) / as_f64(packets as u128);
    }
    let trial = once(1_000.min(1 + ROUND_NANOS / first.max(1)));
    let calls = (1_000 * ROUND_NANOS / trial.max(1)).max(1);
    let rounds = (0..ROUNDS).map(|_| as_f64(once(calls)) / as_f64(calls * packets as u128));
    median(rounds.collect())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn as_f64(n: u128) -> f64 {
    n as f64
}
