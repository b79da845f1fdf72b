//! Pieces of configurations, packets and filters that many tests begin with.

use bytes::Bytes;
use hepgate::wire::{CapturedAt, Pack, PayloadType};

use super::guest::Guest;

/// A listener for UDP and one for TCP, on ports that the system chooses.
pub(crate) const BOTH_LISTENERS: &str = r#"
[[listener]]
name = "udp"
listen = "hep_udp:127.0.0.1:0"
[[listener]]
name = "tcp"
listen = "hep_tcp:127.0.0.1:0"
"#;

/// A collector.
pub(crate) fn collector(name: &str, to: &str) -> String {
    format!("[[collector]]\nname = \"{name}\"\nto = \"{to}\"\n")
}

/// The only tenant, whose packets go to the collector `out`.
pub(crate) const ROUTE: &str = "[[tenant]]\nname = \"default\"\nroute = [\"out\"]\n";

/// What a SIP server says of a message from 192.0.2.1:5060 to 192.0.2.2:5070.
pub(crate) fn sip(payload: impl Into<Bytes>) -> Pack {
    Pack {
        ip_protocol: 17,
        flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5070".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1_795_418_238, microseconds: 797_310 }),
        payload_type: PayloadType::SIP,
        agent_id: 2_001,
        chunks: Vec::new(),
        payload: Some(payload.into()),
    }
}

/// A filter whose component lies in the gateway's folder.
pub(crate) fn filter(name: &str, more: &str) -> String {
    format!("[[filter]]\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\n{more}\n")
}

/// A HEP3 packet with nothing but a payload.
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let mut octets = b"HEP3\0\0".to_vec();
    octets.extend_from_slice(&[0, 0, 0, 0x0f]);
    octets.extend_from_slice(&u16::try_from(payload.len() + 6).unwrap().to_be_bytes());
    octets.extend_from_slice(payload);
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    octets[4..6].copy_from_slice(&length);
    octets
}

/// Skips packets whose payload begins with `s`, drops those with `d`, traps at `t`, never ends at `l`, and passes the
/// others.
pub(crate) const BY_FIRST_OCTET: Guest<'_> = Guest {
    imports: r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.payload" (func $payload (param i32 i32 i32 i32 i32)))"#,
    definitions: "",
    init: "",
    on_batch: r#"
        (local.set $j (call $len (local.get $batch)))
        (i32.store (global.get $verdicts) (i32.const 1024))
        (i32.store offset=4 (global.get $verdicts) (local.get $j))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (call $payload (local.get $batch) (local.get $i) (i32.const 0) (i32.const 1) (global.get $out))
          (local.set $k (i32.load8_u (i32.load (global.get $out))))
          (if (i32.eq (local.get $k) (i32.const 116)) (then unreachable))                       ;; t
          (if (i32.eq (local.get $k) (i32.const 108)) (then (loop $forever (br $forever))))     ;; l
          (i32.store8 (i32.add (i32.const 1024) (local.get $i))
            (i32.add (i32.eq (local.get $k) (i32.const 115))                                    ;; s
              (i32.mul (i32.const 2) (i32.eq (local.get $k) (i32.const 100)))))                 ;; d
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))"#,
    on_tick: "",
    on_stop: "",
    on_alloc: "",
};
