//! What the filter does with payloads as a whole.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod calls;
mod gone_wrong;
mod json;
mod sip;

use hepgate_filter::{Config, Filter, IpAddress, Scalars};

use crate::{Masked, Redact};

const KEY: &str = "0123456789abcdef";

fn filter<const N: usize>(config: [(&str, &str); N]) -> Redact {
    Redact::new(Config::of(config)).unwrap()
}

/// Chance that is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

fn packet(payload_type: u8, marks: u8) -> Scalars {
    Scalars {
        version: 3,
        ip_protocol: 17,
        payload_type,
        marks,
        source_port: 0,
        destination_port: 0,
        agent_id: 0,
        payload_length: 0,
        source: IpAddress::None,
        destination: IpAddress::None,
        captured_at: 0,
    }
}

#[test]
fn what_cannot_be_read_is_dropped_and_what_has_no_payload_passes() {
    let filter = filter([("pass_types", "100"), ("json_types", "5")]);
    let (rtcp, sip) = (&b"{\"ssrc\":1}"[..], &b"BYE sip:h.org SIP/2.0\r\n\r\n"[..]);
    for (payload_type, marks, payload, expected) in [
        (1, 0, sip, Masked::Untouched),
        (5, 0, rtcp, Masked::Untouched),
        (100, 0, b"alice called", Masked::Untouched),
        (1, 8, b"", Masked::Untouched),
        (100, 2, b"alice called", Masked::Dropped),
        (1, 1, sip, Masked::Dropped),
        (1, 8 | 2, b"", Masked::Dropped),
        (5, 0, b"alice called", Masked::Dropped),
        (1, 0, rtcp, Masked::Dropped),
        (60, 0, rtcp, Masked::Dropped),
        (1, 0, b"BYE sip:a@h.org SIP/2.0\r\n\r\n", Masked::Changed(b"BYE sip:x@h.org SIP/2.0\r\n\r\n".into())),
    ] {
        assert_eq!(filter.masked(&packet(payload_type, marks), payload), expected, "{payload_type} {marks}");
    }
}
