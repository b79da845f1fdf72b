//! What is examined: hostile guests, and what must come of each.

use std::sync::Arc;

use super::Check;
use super::ward::{Called, Complaint, DEADLINE, Patient, packet};
use crate::filter::{Belongings, Budget, Fault, Outcome, Surroundings, Work};
use crate::guest::{Guest, component, component_with};
use crate::ledger::FaultKind;
use crate::message::wall_clock;

const FOREVER: &str = "(loop $forever (br $forever))";
const LOG: &str = r#"(import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const LEN: &str = r#"(import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))"#;
const PAYLOAD: &str =
    r#"(import "hep:filter/packets@0.1.0" "[method]batch.payload" (func $payload (param i32 i32 i32 i32 i32)))"#;
const SET: &str = r#"
    (import "hep:filter/packets@0.1.0" "[method]batch.set-payload" (func $set (param i32 i32 i32 i32 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.mask" (func $mask (param i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.set-chunk" (func $chunk (param i32 i32 i32 i32 i32 i32 i32)))"#;
const SENDING: &str = r#"
    (import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))
    (import "hep:filter/sending@0.1.0" "[method]collector.relay" (func $relay (param i32 i32 i32 i32)))"#;
const STATE: &str = r#"(import "hep:filter/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i64 i32)))"#;
const METRICS: &str = r#"
    (import "hep:filter/metrics@0.1.0" "[static]counter.declare" (func $declare (param i32 i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/metrics@0.1.0" "[method]counter.add" (func $count (param i32 i32 i32 i64 i32)))"#;
const CONFIG: &str = r#"(import "hep:filter/config@0.1.0" "all" (func $all (param i32)))"#;
const CLOCK: &str = r#"(import "hep:filter/clock@0.1.0" "wall" (func $wall (result i64)))"#;

/// A body so many times, with the round in `$i`.
fn rounds(times: u32, body: &str) -> String {
    format!(
        "(loop $next {body} (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $i) (i32.const {times}))))"
    )
}

/// Ends the call with a trap if that is 0.
fn must(condition: &str) -> String {
    format!("(if (i32.eqz {condition}) (then unreachable))")
}

fn expect(fault: &Fault, kind: FaultKind, part: &str) -> Result<String, Complaint> {
    if fault.kind == kind && fault.text.contains(part) {
        return Ok(short(fault));
    }
    Err(Complaint::NotHeld(format!("{}: {fault}", fault.kind)))
}

/// What happened, without the guest's frames.
fn short(fault: &Fault) -> String {
    let text = fault.text.as_str();
    if text.starts_with("passed ") {
        return text.split_once(", then: ").map_or(text, |(passed, _)| passed).to_owned();
    }
    let last = text.rsplit_once(": ").map_or(text, |(_, last)| last);
    if last.contains(' ') { last.to_owned() } else { text.to_owned() }
}

fn well(called: Called) -> Result<(Outcome, Patient), Complaint> {
    let Called { result, patient, .. } = called;
    result.map(|outcome| (outcome, patient)).map_err(|fault| Complaint::NotHeld(format!("the call failed: {fault}")))
}

pub(super) fn exactly(what: &str, actual: usize, allowed: usize) -> Result<String, Complaint> {
    let text = format!("{actual} {what} of {allowed}");
    if actual == allowed { Ok(text) } else { Err(Complaint::NotHeld(text)) }
}

/// What is examined, in the order in which it is told.
pub(super) const CHECKS: [Check; 37] = [
    Check {
        what: "an endless loop in init",
        run: |ward| {
            ward.ends(|ward| match ward.start(Guest { init: FOREVER, ..Guest::default() })? {
                Err(fault) => Ok(fault),
                Ok(_) => Err(Complaint::NotHeld("it started".to_owned())),
            })
        },
    },
    Check {
        what: "an endless loop in a start function",
        run: |ward| {
            let definitions = "(func $s (loop $l (br $l))) (start $s)";
            ward.ends(|ward| match ward.start(Guest { definitions, ..Guest::default() })? {
                Err(fault) => Ok(fault),
                Ok(_) => Err(Complaint::NotHeld("it started".to_owned())),
            })
        },
    },
    Check {
        what: "an endless loop in on-batch",
        run: |ward| ward.ends(|ward| ward.fault(Guest { on_batch: FOREVER, ..Guest::default() })),
    },
    Check {
        what: "an endless loop in cabi_realloc",
        run: |ward| {
            let on_batch =
                "(call $payload (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 9) (global.get $out))";
            let guest = Guest { imports: PAYLOAD, on_batch, on_alloc: FOREVER, ..Guest::default() };
            ward.ends(|ward| ward.fault(guest))
        },
    },
    Check {
        what: "instructions without end, where they are counted",
        run: |ward| {
            let guest = Guest { on_batch: FOREVER, ..Guest::default() };
            let filter =
                ward.load_with(&component(guest)?, |settings| settings.limits.fuel_per_packet_max = 100_000)?;
            let surroundings = Surroundings::for_trial(Arc::new([]), filter.limits());
            let started = filter.start(surroundings, Budget::computing(DEADLINE), wall_clock(), &mut Vec::new());
            let instance = started.map_err(|fault| Complaint::NotHeld(format!("did not start: {fault}")))?;
            let mut patient = Patient { instance, belongings: Belongings::new(filter.limits()) };
            match patient.call(&mut Work::new(vec![packet()])) {
                Err(fault) => expect(&fault, FaultKind::Limit, "passed fuel_per_packet_max"),
                Ok(_) => Err(Complaint::NotHeld("the call ended well".to_owned())),
            }
        },
    },
    Check {
        what: "host calls without end",
        run: |ward| {
            let on_batch = "(loop $l (drop (call $len (local.get $batch))) (br $l))";
            let fault = ward.fault(Guest { imports: LEN, on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "passed host_calls_max: 1001 of 1000")
        },
    },
    Check {
        what: "memory filled in bulk, which nothing interrupts",
        run: |ward| {
            // Grown to all it may have, and filled again and again: what the memory limit bounds is the overshoot.
            let on_batch = "(drop (memory.grow (i32.const 2)))
                (loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 262144)) (br $l))";
            ward.ends(|ward| ward.fault(Guest { on_batch, ..Guest::default() }))
        },
    },
    Check {
        what: "recursion without end",
        run: |ward| {
            let definitions =
                "(func $down (param i64) (result i64) (i64.add (i64.const 1) (call $down (local.get 0))))";
            let fault =
                ward.fault(Guest { definitions, on_batch: "(drop (call $down (i64.const 1)))", ..Guest::default() })?;
            expect(&fault, FaultKind::Trap, "call stack exhausted")
        },
    },
    Check {
        what: "memory without end",
        run: |ward| {
            let on_batch = "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable";
            let fault = ward.fault(Guest { on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "passed memory_octets_max: 327680 of 262144")
        },
    },
    Check {
        what: "tables without end",
        run: |ward| {
            let on_batch = "(loop $l (br_if $l (i32.ne (i32.const -1)
                (table.grow $t (ref.null func) (i32.const 1))))) unreachable";
            let fault = ward.fault(Guest { definitions: "(table $t 1 funcref)", on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "passed table_elements_max: 201 of 200")
        },
    },
    Check {
        what: "handles without end",
        run: |ward| {
            let on_batch = rounds(100, "(call $open (i32.const 256) (i32.const 7) (global.get $out))");
            let definitions = r#"(data (i32.const 256) "granted")"#;
            let fault = ward.fault(Guest { imports: SENDING, definitions, on_batch: &on_batch, ..Guest::default() })?;
            expect(&fault, fault.kind, "handle limit")
        },
    },
    Check {
        what: "a giant list returned",
        run: |ward| {
            let on_batch = "(i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 100000))";
            let fault = ward.fault(Guest { on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "hostcall_octets_max")
        },
    },
    Check {
        what: "a list of the wrong length",
        run: |ward| {
            let on_batch = "(i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 2))";
            let fault = ward.fault(Guest { on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::BadResult, "2 verdicts for 1 packets")
        },
    },
    Check {
        what: "a list beyond the guest's memory",
        run: |ward| {
            let on_batch = "(i32.store (global.get $verdicts) (i32.const 0x7ffffff0))
                (i32.store offset=4 (global.get $verdicts) (i32.const 1))";
            let fault = ward.fault(Guest { on_batch, ..Guest::default() })?;
            Ok(format!("ended: {}", short(&fault)))
        },
    },
    Check {
        what: "a verdict that is none",
        run: |ward| {
            let on_batch = "(i32.store8 (i32.const 1024) (i32.const 9))
                (i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 1))";
            let fault = ward.fault(Guest { on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::BadResult, "")
        },
    },
    Check {
        what: "a text that is not UTF-8",
        run: |ward| {
            let definitions = r#"(data (i32.const 256) "\ff\fe")"#;
            let on_batch = "(call $log (i32.const 0) (i32.const 256) (i32.const 2))";
            let fault = ward.fault(Guest { imports: LOG, definitions, on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::BadResult, "utf-8")
        },
    },
    Check {
        what: "a giant text handed over",
        run: |ward| {
            let on_batch = "(drop (memory.grow (i32.const 2)))
                (call $log (i32.const 0) (i32.const 0) (i32.const 200000))";
            let fault = ward.fault(Guest { imports: LOG, on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "hostcall_octets_max")
        },
    },
    Check {
        what: "octets moved without end",
        run: |ward| {
            let body = "(call $log (i32.const 0) (i32.const 0) (i32.const 60000))";
            let fault = ward.fault(Guest { imports: LOG, on_batch: &rounds(5, body), ..Guest::default() })?;
            expect(&fault, FaultKind::Limit, "passed moved_octets_max")
        },
    },
    Check {
        what: "a flood of packets sent",
        run: |ward| {
            let on_batch = format!(
                "(call $open (i32.const 256) (i32.const 7) (global.get $out)) {}",
                rounds(
                    100,
                    "(call $relay (i32.load offset=4 (global.get $out)) (local.get $batch) (i32.const 0) (i32.const 512))"
                )
            );
            let definitions = r#"(data (i32.const 256) "granted")"#;
            let guest = Guest { imports: SENDING, definitions, on_batch: &on_batch, ..Guest::default() };
            let (outcome, _) = well(ward.call(guest)?)?;
            exactly("packets sent", outcome.sent.len(), 8)
        },
    },
    Check {
        what: "a flood of log lines",
        run: |ward| {
            let on_batch = rounds(100, "(call $log (i32.const 0) (i32.const 256) (i32.const 500))");
            let (_, mut patient) = well(ward.call(Guest { imports: LOG, on_batch: &on_batch, ..Guest::default() })?)?;
            let (lines, unwritten) = patient.instance.take_log();
            let longest = lines.iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
            if longest > 65 || unwritten != 96 {
                return Err(Complaint::NotHeld(format!(
                    "{longest} characters in a line, {unwritten} lines counted away"
                )));
            }
            exactly("lines written", lines.len(), 4)
        },
    },
    Check {
        what: "a flood of state",
        run: |ward| {
            let on_batch = rounds(
                60,
                "(i32.store8 (i32.const 256) (i32.add (i32.const 33) (local.get $i)))
                 (call $set (i32.const 256) (i32.const 1) (i32.const 512) (i32.const 1000) (i32.const 0) (i64.const 0)
                   (i32.const 512))",
            );
            let (_, patient) = well(ward.call(Guest { imports: STATE, on_batch: &on_batch, ..Guest::default() })?)?;
            let (keys, octets) = patient.belongings.remembered.used();
            if octets > 4_096 || keys == 0 {
                return Err(Complaint::NotHeld(format!("{keys} keys, {octets} octets of 4096")));
            }
            Ok(format!("{keys} keys, {octets} octets of 4096"))
        },
    },
    Check {
        what: "a flood of series in metrics",
        run: |ward| {
            let definitions = r#"(data (i32.const 256) "flood") (data (i32.const 280) "x") (global $c (mut i32) (i32.const 0))
                (data (i32.const 288) "\18\01\00\00\01\00\00\00")"#;
            let init = "(call $declare (i32.const 256) (i32.const 5) (i32.const 256) (i32.const 5) (i32.const 288)
                (i32.const 1) (i32.const 512)) (global.set $c (i32.load (i32.const 516)))";
            let on_batch = rounds(
                60,
                "(i32.store8 (i32.const 280) (i32.add (i32.const 33) (local.get $i)))
                 (call $count (global.get $c) (i32.const 288) (i32.const 1) (i64.const 1) (i32.const 512))",
            );
            let guest = Guest { imports: METRICS, definitions, init, on_batch: &on_batch, ..Guest::default() };
            let (_, patient) = well(ward.call(guest)?)?;
            exactly("series", patient.belongings.metrics.series(), 16)
        },
    },
    Check {
        what: "a batch kept after its call",
        run: |ward| {
            let definitions = "(global $kept (mut i32) (i32.const 0))";
            // Not given back, it ends the first call; the handle is of no use in a second.
            let on_batch = "(global.set $kept (local.get $batch)) (return (global.get $verdicts))";
            let fault = ward.fault(Guest { imports: LEN, definitions, on_batch, ..Guest::default() })?;
            Ok(format!("ended: {}", short(&fault)))
        },
    },
    Check {
        what: "a collector that was not granted",
        run: |ward| {
            let definitions = r#"(data (i32.const 256) "secrets")"#;
            let on_batch = format!(
                "(call $open (i32.const 256) (i32.const 7) (global.get $out)) {}",
                must("(i32.load8_u (global.get $out))")
            );
            well(ward.call(Guest { imports: SENDING, definitions, on_batch: &on_batch, ..Guest::default() })?)?;
            Ok("refused with an error that it can handle".to_owned())
        },
    },
    Check {
        what: "an edit beyond the payload",
        run: |ward| {
            let on_batch = format!(
                "(i32.store (i32.const 600) (i32.const 5)) (i32.store (i32.const 604) (i32.const 1000))
                 (call $mask (local.get $batch) (i32.const 0) (i32.const 600) (i32.const 1) (i32.const 42) (i32.const 512)) {}",
                must("(i32.load8_u (i32.const 512))")
            );
            let called = ward.call(Guest { imports: SET, on_batch: &on_batch, ..Guest::default() })?;
            let unchanged = called.unchanged;
            well(called)?;
            if unchanged { Ok("refused; the packet is as it was".to_owned()) } else { Err(changed()) }
        },
    },
    Check {
        what: "an edit that makes a packet longer than one can be",
        run: |ward| {
            let on_batch = format!(
                "(call $set (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 65530) (i32.const 512)) {}",
                must("(i32.load8_u (i32.const 512))")
            );
            let called = ward.call(Guest { imports: SET, on_batch: &on_batch, ..Guest::default() })?;
            let unchanged = called.unchanged;
            well(called)?;
            if unchanged { Ok("refused; the packet is as it was".to_owned()) } else { Err(changed()) }
        },
    },
    Check {
        what: "a chunk that cannot be set",
        run: |ward| {
            // The IP family, by itself.
            let on_batch = format!(
                "(call $chunk (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)
                   (i32.const 512)) {}",
                must("(i32.load8_u (i32.const 512))")
            );
            let called = ward.call(Guest { imports: SET, on_batch: &on_batch, ..Guest::default() })?;
            let unchanged = called.unchanged;
            well(called)?;
            if unchanged { Ok("refused; the packet is as it was".to_owned()) } else { Err(changed()) }
        },
    },
    Check {
        what: "a call that fails after it has edited",
        run: |ward| {
            let on_batch =
                "(call $set (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 512)) unreachable";
            let fault = ward.fault(Guest { imports: SET, on_batch, ..Guest::default() })?;
            expect(&fault, FaultKind::Trap, "unreachable")?;
            Ok("undone as a whole".to_owned())
        },
    },
    Check {
        what: "a clock to measure with",
        run: |ward| {
            let on_batch = format!(
                "(i64.store (i32.const 600) (call $wall)) {} {} {}",
                rounds(100_000, ""),
                must("(i64.eq (call $wall) (i64.load (i32.const 600)))"),
                must("(i64.eqz (i64.rem_u (call $wall) (i64.const 1000)))")
            );
            well(ward.call(Guest { imports: CLOCK, on_batch: &on_batch, ..Guest::default() })?)?;
            Ok("it stands still during a call, rounded to 1 ms".to_owned())
        },
    },
    Check {
        what: "what the operator told somebody else",
        run: |ward| {
            let on_batch =
                format!("(call $all (global.get $out)) {}", must("(i32.eqz (i32.load offset=4 (global.get $out)))"));
            well(ward.call(Guest { imports: CONFIG, on_batch: &on_batch, ..Guest::default() })?)?;
            Ok("0 values: it was told nothing".to_owned())
        },
    },
    Check {
        what: "a WASI power that is called",
        run: |ward| {
            let wasm = with_wasi()?;
            let filter = ward.load(&wasm)?;
            let stubs = filter.stubs().join(", ");
            let surroundings = Surroundings::for_trial(Arc::new([]), filter.limits());
            match filter.start(surroundings, Budget::computing(DEADLINE), wall_clock(), &mut Vec::new()) {
                Err(fault) => Ok(format!("{stubs} is an empty stub: {}", short(&fault))),
                Ok(_) => Err(Complaint::NotHeld("it was there".to_owned())),
            }
        },
    },
    Check {
        what: "a component of another world",
        run: |ward| ward.refused(&wat("(component)")?, "does not export hep:filter/callbacks@0.1.0"),
    },
    Check {
        what: "a component that wants what nobody has",
        run: |ward| {
            let wasm = wat(r#"(component (import "evil:power/all@1.0.0" (instance (export "f" (func)))))"#)?;
            ward.refused(&wasm, "imports what filters do not have: evil:power/all@1.0.0")
        },
    },
    Check {
        what: "a component of another version",
        run: |ward| {
            let wasm = wat(r#"(component (import "hep:filter/packets@0.2.0" (instance (export "f" (func)))))"#)?;
            ward.refused(&wasm, "hep:filter/packets@0.2.0")
        },
    },
    Check {
        what: "a core module instead of a component",
        run: |ward| ward.refused(&wat("(module)")?, "is a WebAssembly core module, not a component"),
    },
    Check {
        what: "a component cut off, and octets at random",
        run: |ward| {
            let whole = component(Guest::default())?;
            let mut cuts = 0;
            for length in (0..whole.len()).step_by(97) {
                if ward.load(whole.get(..length).unwrap_or_default()).is_ok() {
                    return Err(Complaint::NotHeld(format!("{length} octets of {} were loaded", whole.len())));
                }
                cuts += 1;
            }
            let mut noise = whole;
            let mut state = 0x9e37_79b9_u32;
            for octet in noise.iter_mut().skip(8) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *octet = u8::try_from(state >> 24).unwrap_or(0);
            }
            ward.refused(&noise, "cannot be compiled")?;
            Ok(format!("{cuts} cuts and noise refused"))
        },
    },
    Check {
        what: "more functions than may be compiled",
        run: |ward| {
            let definitions = "(func (nop))".repeat(10_000);
            let wasm = component(Guest { definitions: &definitions, ..Guest::default() })?;
            ward.refused(&wasm, "functions; functions_max is 500")
        },
    },
];

fn changed() -> Complaint {
    Complaint::NotHeld("the packet was changed".to_owned())
}

fn wat(text: &str) -> Result<Vec<u8>, Complaint> {
    wat::parse_str(text).map_err(|error| Complaint::NotLoaded(error.to_string()))
}

/// A filter that calls a function of WASI in its `init`.
fn with_wasi() -> Result<Vec<u8>, Complaint> {
    let guest = Guest {
        imports: r#"(import "wasi:cli/exit@0.2.0" "leave" (func $leave))"#,
        init: "(call $leave)",
        ..Guest::default()
    };
    let wasi = "package wasi:cli@0.2.0; interface exit { leave: func(); }";
    let world = "package doctor:guest; world greedy { include hep:filter/filter@0.1.0; import wasi:cli/exit@0.2.0; }";
    Ok(component_with(guest, &[wasi, world], "greedy")?)
}
