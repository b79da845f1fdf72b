//! The filter that is measured.

use crate::guest::Guest;

/// The filter, by the host function that it gets the scalars from, and by how many octets, and items of that list, those of
/// a packet take. Port and length of the payload lie at the same place in both.
macro_rules! trivial {
    ($scalars:literal, $octets:literal, $items:literal) => {
        Guest {
            imports: concat!(
                r#"
        (import "hep:filter/packets@0.1.0" "[method]batch."#,
                $scalars,
                r#"" (func $scalars (param i32 i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.payloads" (func $payloads (param i32 i32 i32)))"#
            ),
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
            // At $out: the scalars' list, the payloads' list, a sum. $k: this packet's payload.
            on_batch: concat!(
                r"
        (call $scalars (local.get $batch) (global.get $out))
        (call $payloads (local.get $batch) (i32.const 64) (i32.add (global.get $out) (i32.const 8)))
        (local.set $j (i32.div_u (i32.load offset=4 (global.get $out)) (i32.const ",
                $items,
                r")))
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
          (i32.store (global.get $out) (i32.add (i32.load (global.get $out)) (i32.const ",
                $octets,
                r")))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))"
            ),
            on_tick: "",
            on_stop: "",
            on_alloc: "",
        }
    };
}

/// Reads the scalars of all packets and the first 64 octets of every payload, in two host calls. Drops what does not
/// come from port 5060 and what does not begin with an I, so that both must have been read.
pub(crate) const TRIVIAL: Guest<'_> = trivial!("packed-scalars", "64", "16");
/// The same with the scalars as records.
#[allow(dead_code, reason = "one bench compares them")]
pub(crate) const TRIVIAL_RECORDS: Guest<'_> = trivial!("scalars", "72", "1");

/// Adds up every octet of every payload, one by one: nothing but a loop, which is what epoch and fuel cost the most in.
#[allow(dead_code, reason = "one bench compares them")]
pub(crate) const EVERY_OCTET: Guest<'_> = Guest {
    imports: r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.payloads" (func $payloads (param i32 i32 i32)))"#,
    definitions: "",
    init: "",
    // $i: where, $j: the end, $k: the sum, which is kept so that nobody leaves the loop out.
    on_batch: r"
        (call $payloads (local.get $batch) (i32.const -1) (global.get $out))
        (local.set $i (i32.load (global.get $out)))
        (local.set $j (i32.add (local.get $i) (i32.load offset=4 (global.get $out))))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (local.set $k (i32.add (local.get $k) (i32.load8_u (local.get $i))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
        (i32.store offset=16 (global.get $out) (local.get $k))",
    on_tick: "",
    on_stop: "",
    on_alloc: "",
};
