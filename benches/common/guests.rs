//! The filter that is measured.

use crate::guest::Guest;

/// Reads the scalars of all packets and the first 64 octets of every payload, in two host calls. Drops what does not
/// come from port 5060 and what does not begin with an I, so that both must have been read.
pub(crate) const TRIVIAL: Guest<'_> = Guest {
    imports: r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.scalars" (func $scalars (param i32 i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.payloads" (func $payloads (param i32 i32 i32)))"#,
    definitions: r"
        (func $sum (param $at i32) (result i64)
          (i64.xor
            (i64.xor
              (i64.xor (i64.load (local.get $at)) (i64.load offset=8 (local.get $at)))
              (i64.xor (i64.load offset=16 (local.get $at)) (i64.load offset=24 (local.get $at))))
            (i64.xor
              (i64.xor (i64.load offset=32 (local.get $at)) (i64.load offset=40 (local.get $at)))
              (i64.xor (i64.load offset=48 (local.get $at)) (i64.load offset=56 (local.get $at))))))",
    init: "",
    // At $out: the scalars' list, the payloads' list, a sum. $k: this packet's payload. A packet's scalars take 72 octets.
    on_batch: r"
        (call $scalars (local.get $batch) (global.get $out))
        (call $payloads (local.get $batch) (i32.const 64) (i32.add (global.get $out) (i32.const 8)))
        (local.set $j (i32.load offset=4 (global.get $out)))
        (local.set $k (i32.load offset=8 (global.get $out)))
        (i32.store (global.get $verdicts) (i32.const 1024))
        (i32.store offset=4 (global.get $verdicts) (local.get $j))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (i32.store8 (i32.add (i32.const 1024) (local.get $i))
            (i32.mul (i32.const 2) (i32.or
              (i32.ne (i32.load16_u offset=4 (i32.load (global.get $out))) (i32.const 5060))
              (i32.ne (i32.load8_u (local.get $k)) (i32.const 73)))))
          (if (i32.lt_u (i32.load offset=12 (i32.load (global.get $out))) (i32.const 64))
            (then (local.set $k (i32.add (local.get $k) (i32.load offset=12 (i32.load (global.get $out))))))
            (else
              (i64.store offset=16 (global.get $out)
                (i64.add (i64.load offset=16 (global.get $out)) (call $sum (local.get $k))))
              (local.set $k (i32.add (local.get $k) (i32.const 64)))))
          (i32.store (global.get $out) (i32.add (i32.load (global.get $out)) (i32.const 72)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))",
    on_tick: "",
    on_stop: "",
    on_alloc: "",
};
