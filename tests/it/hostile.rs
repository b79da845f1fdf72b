use std::time::{Duration, Instant};

use hepgate::filter::{Budget, LoadError, Part, Verdict};
use hepgate::ledger::FaultKind;

use crate::support::bench::{Bench, NOW, call, fault_of, load, work};
use crate::support::guest::{self, Guest};

const LEN: &str = r#"(import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))"#;
const LOG: &str = r#"(import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const OPEN: &str = r#"(import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))"#;
const RELAY: &str = r#"
    (import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))
    (import "hep:filter/sending@0.1.0" "[method]collector.relay" (func $relay (param i32 i32 i32 i32)))"#;
const SET_PAYLOAD: &str = r#"
    (import "hep:filter/packets@0.1.0" "[method]batch.set-payload" (func $set (param i32 i32 i32 i32 i32)))"#;

/// `$times` in a body becomes that many rounds of what stands in it.
fn rounds(body: &str, times: u64) -> String {
    format!(
        "(local.set $i (i32.const 0))
         (block $done (loop $next
           (br_if $done (i32.eq (local.get $i) (i32.const {times})))
           {body}
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    )
}

#[test]
fn an_endless_loop_ends_wherever_it_is() {
    let forever = "(loop $l (br $l))";
    for (what, guest) in [
        ("init", Guest { init: forever, ..Guest::default() }),
        ("start", Guest { definitions: "(func $s (loop $l (br $l))) (start $s)", ..Guest::default() }),
    ] {
        let mut bench = Bench::new(guest);
        let begun = Instant::now();
        let fault = bench.start().unwrap_err();
        assert_eq!(fault.kind, FaultKind::Deadline, "{what}: {fault}");
        assert!(fault.text.starts_with("took longer than 200 ms"), "{what}: {fault}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
    }
    // A string for `log` has the guest's allocator called, so to speak: a list that the host hands over does.
    let guest = Guest {
        imports: r#"(import "hep:filter/config@0.1.0" "get" (func $get (param i32 i32 i32)))"#,
        definitions: r#"(data (i32.const 256) "colour") (global $spin (mut i32) (i32.const 0))"#,
        on_batch: "(global.set $spin (i32.const 1)) (call $get (i32.const 256) (i32.const 6) (global.get $out))
                   (loop $l (br_if $l (global.get $spin)))",
        ..Guest::default()
    };
    assert_eq!(fault_of(guest).kind, FaultKind::Deadline);
}

#[test]
fn endless_recursion_ends_at_the_stack() {
    let guest = Guest {
        definitions: "(func $down (param i64) (result i64) (i64.add (i64.const 1) (call $down (local.get 0))))",
        on_batch: "(drop (call $down (i64.const 1)))",
        ..Guest::default()
    };
    let fault = fault_of(guest);
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.text.contains("call stack exhausted"), "{fault}");
}

/// The guest has 2 pages of 65 536 octets; it may have as many as the limit says, and not one more.
#[test]
fn memory_grows_to_its_limit_and_no_further() {
    for (grow, fits) in [(14, true), (15, false)] {
        let on_batch = format!("(if (i32.eq (i32.const -1) (memory.grow (i32.const {grow}))) (then (unreachable)))");
        let guest = Guest { on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::with(guest, |filter| filter.limits.memory_octets_max = 16 << 16);
        let mut instance = bench.start().unwrap();
        let result = call(&mut instance, &mut work(&[b"one"]));
        if fits {
            result.unwrap();
            assert_eq!(instance.memory_octets(), 16 << 16);
        } else {
            let fault = result.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Limit, "{fault}");
            assert!(fault.text.starts_with("passed memory_octets_max: 1114112 of 1048576"), "{fault}");
        }
    }
}

/// The encoder gives a component a table of its own, so the limit is found by growing into it.
#[test]
fn tables_grow_to_their_limit_and_no_further() {
    let grow = |by: u32| {
        let on_batch = format!(
            "(if (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const {by}))) (then (unreachable)))"
        );
        let guest = Guest { definitions: "(table $t 1 funcref)", on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::with(guest, |filter| filter.limits.table_elements_max = 100);
        let mut instance = bench.start().unwrap();
        call(&mut instance, &mut work(&[b"one"])).map(drop)
    };
    let most = (0..100).rev().find(|by| grow(*by).is_ok()).unwrap();
    assert!(most > 50, "{most}");
    let fault = grow(most + 1).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Limit);
    assert!(fault.text.starts_with("passed table_elements_max: 101 of 100"), "{fault}");
}

#[test]
fn a_component_that_begins_with_more_than_it_may_have_is_not_loaded() {
    let wasm = guest::component(Guest::default());
    let error = load(&wasm, |filter| filter.limits.memory_octets_max = 1 << 16).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("memory") && text.contains("memory_octets_max is 65536"), "{text}");
}

#[test]
fn a_component_of_as_many_octets_as_it_may_have_is_loaded_and_no_longer_one() {
    let wasm = guest::component(Guest::default());
    load(&wasm, |filter| filter.limits.component_octets_max = wasm.len()).unwrap();
    let error = load(&wasm, |filter| filter.limits.component_octets_max = wasm.len() - 1).unwrap_err();
    assert!(error.to_string().contains("component_octets_max is"), "{error}");
}

#[test]
fn what_is_no_filter_is_refused_in_one_sentence() {
    let whole = guest::component(Guest::default());
    let refused = |wasm: &[u8]| {
        let error = load(wasm, |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Unfit { .. }), "{error}");
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    for length in [0, 4, 8, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    let other = |import: &str| {
        let wat = format!("(component (import \"{import}\" (instance (export \"f\" (func)))))");
        refused(&wat::parse_str(wat).unwrap())
    };
    let text = other("evil:power/all@1.0.0");
    assert!(text.contains("imports what filters do not have: evil:power/all@1.0.0"), "{text}");
    let text = other("hep:filter/packets@0.2.0");
    assert!(text.contains("hep:filter/packets@0.2.0"), "{text}");
}

#[test]
fn a_list_of_verdicts_that_is_none_is_an_error_of_the_call() {
    for (what, on_batch) in [
        (
            "beyond the memory",
            "(i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 0x7fffffff))",
        ),
        (
            "no verdict",
            "(i32.store8 (i32.const 1024) (i32.const 9))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 2))",
        ),
        ("a result beyond the memory", "(return (i32.const 0x7ffffff0))"),
    ] {
        let fault = fault_of(Guest { on_batch, ..Guest::default() });
        assert!(matches!(fault.kind, FaultKind::BadResult | FaultKind::Trap | FaultKind::Limit), "{what}: {fault}");
    }
}

#[test]
fn a_text_that_is_not_utf8_ends_the_call() {
    let guest = Guest {
        imports: LOG,
        definitions: r#"(data (i32.const 256) "\ff\fe")"#,
        on_batch: "(call $log (i32.const 0) (i32.const 256) (i32.const 2))",
        ..Guest::default()
    };
    let fault = fault_of(guest);
    assert!(fault.text.contains("utf-8") || fault.text.contains("UTF-8"), "{fault}");
}

#[test]
fn a_flood_of_log_lines_is_counted_beyond_its_limit() {
    let flood = rounds("(call $log (i32.const 0) (i32.const 256) (i32.const 4))", 20);
    let guest =
        Guest { imports: LOG, definitions: r#"(data (i32.const 256) "line")"#, on_batch: &flood, ..Guest::default() };
    let mut bench = Bench::with(guest, |filter| filter.limits.log_lines_max = 16);
    let mut instance = bench.start().unwrap();
    call(&mut instance, &mut work(&[b"one"])).unwrap();
    let (lines, unwritten) = instance.take_log();
    assert_eq!((lines.len(), unwritten), (16, 4));
    assert!(lines.iter().all(|line| line.text == "line"));
}

#[test]
fn a_log_line_is_cut_at_its_limit_and_shows_that_it_was() {
    for (octets, shown) in [(64, 64), (65, 65)] {
        let on_batch = format!(
            "(memory.fill (i32.const 256) (i32.const 97) (i32.const {octets}))
             (call $log (i32.const 0) (i32.const 256) (i32.const {octets}))"
        );
        let guest = Guest { imports: LOG, on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::with(guest, |filter| filter.limits.log_line_octets_max = 64);
        let mut instance = bench.start().unwrap();
        call(&mut instance, &mut work(&[b"one"])).unwrap();
        let text = instance.take_log().0.remove(0).text;
        assert_eq!(text.chars().count(), shown, "{text}");
        assert_eq!(text.ends_with('…'), octets > 64, "{text}");
    }
}

#[test]
fn a_call_may_make_as_many_host_calls_as_its_limit_and_not_one_more() {
    for (calls, fits) in [(100, true), (101, false)] {
        let flood = rounds("(drop (call $len (local.get $batch)))", calls);
        let guest = Guest { imports: LEN, on_batch: &flood, ..Guest::default() };
        let mut bench = Bench::with(guest, |filter| filter.limits.host_calls_max = 100);
        let result = call(&mut bench.start().unwrap(), &mut work(&[b"one"]));
        if fits {
            result.unwrap();
        } else {
            let fault = result.unwrap_err();
            assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::Limit, "passed host_calls_max: 101 of 100"));
        }
    }
}

/// No loop and no function of its own: nothing in which the epoch would be looked at.
#[test]
fn host_calls_in_a_row_end_at_the_deadline_too() {
    let calls = "(drop (call $len (local.get $batch)))".repeat(9_000);
    let guest = Guest { imports: LEN, on_batch: &calls, ..Guest::default() };
    let mut bench = Bench::new(guest);
    let mut instance = bench.start().unwrap();
    let mut work = work(&[b"one"]);
    let fault =
        instance.on_batch(&mut work, &Part::run(0, 1), Budget::computing(Duration::from_nanos(1)), NOW).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Deadline, "{fault}");
    assert!(fault.text.contains("in host calls"), "{fault}");
}

/// Handles of packets and collectors, in a host that also counts its own.
#[test]
fn a_filter_holds_as_many_handles_as_it_may_and_not_one_more() {
    let open = |times: u64| {
        let flood = rounds("(call $open (i32.const 256) (i32.const 5) (global.get $out))", times);
        let guest = Guest {
            imports: OPEN,
            definitions: r#"(data (i32.const 256) "homer")"#,
            on_batch: &flood,
            ..Guest::default()
        };
        let mut bench = Bench::with(guest, |filter| filter.limits.handles_max = 32);
        call(&mut bench.start().unwrap(), &mut work(&[b"one"])).map(drop)
    };
    let most = (1..=64).rev().find(|times| open(*times).is_ok()).unwrap();
    // The batch's own handle may be one of them.
    assert!((30..=32).contains(&most), "{most}");
    open(most + 1).unwrap_err();
}

#[test]
fn a_collector_that_was_not_granted_cannot_be_opened() {
    for (name, verdict) in [("homer", Verdict::Pass), ("other", Verdict::Skip)] {
        let definitions = format!("(data (i32.const 256) \"{name}\")");
        // The answer's first octet (0: ok, 1: error) is the verdict.
        let on_batch = "(call $open (i32.const 256) (i32.const 5) (global.get $out))
            (i32.store8 (i32.const 1024) (i32.load8_u (global.get $out)))
            (i32.store (global.get $verdicts) (i32.const 1024))
            (i32.store offset=4 (global.get $verdicts) (i32.const 1))";
        let guest = Guest { imports: OPEN, definitions: &definitions, on_batch, ..Guest::default() };
        let mut bench = Bench::new(guest);
        let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
        assert_eq!(outcome.verdicts, [verdict], "{name}");
    }
}

#[test]
fn a_call_sends_as_much_as_it_may_and_the_rest_is_an_error_it_can_handle() {
    let relay = rounds(
        "(call $relay (i32.load offset=4 (global.get $out)) (local.get $batch) (i32.const 0) (i32.const 512))",
        10,
    );
    let on_batch = format!("(call $open (i32.const 256) (i32.const 5) (global.get $out)) {relay}");
    let guest = Guest {
        imports: RELAY,
        definitions: r#"(data (i32.const 256) "homer")"#,
        on_batch: &on_batch,
        ..Guest::default()
    };
    let mut bench = Bench::with(guest, |filter| filter.limits.sends_max = 4);
    let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
    assert_eq!(outcome.sent.len(), 4, "sends_max");
    let octets = outcome.sent[0].packet.packet.octets().len();
    for (octets_max, sent) in [(3 * octets, 3), (3 * octets - 1, 2)] {
        let mut bench = Bench::with(guest, |filter| filter.limits.send_octets_max = octets_max);
        let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
        assert_eq!(outcome.sent.len(), sent, "send_octets_max = {octets_max}");
    }
}

#[test]
fn a_call_that_fails_has_sent_and_changed_nothing() {
    let on_batch = "(call $open (i32.const 256) (i32.const 5) (global.get $out))
        (call $relay (i32.load offset=4 (global.get $out)) (local.get $batch) (i32.const 0) (i32.const 512))
        (call $set (local.get $batch) (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 512))
        (unreachable)";
    let imports = [RELAY, SET_PAYLOAD].concat();
    let guest =
        Guest { imports: &imports, definitions: r#"(data (i32.const 256) "homer")"#, on_batch, ..Guest::default() };
    // `fault_of` sees that the work is as it was; without an outcome there is nothing sent.
    assert_eq!(fault_of(guest).kind, FaultKind::Trap);
}

#[test]
fn a_payload_is_set_up_to_the_longest_packet_and_a_longer_one_is_an_error_it_can_handle() {
    let set = |octets: usize| {
        let on_batch = format!(
            "(call $set (local.get $batch) (i32.const 0) (i32.const 2048) (i32.const {octets}) (global.get $out))
             (i32.store8 (i32.const 1024) (i32.load8_u (global.get $out)))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 1))"
        );
        let guest = Guest { imports: SET_PAYLOAD, on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::new(guest);
        let mut work = work(&[b"one"]);
        let outcome = call(&mut bench.start().unwrap(), &mut work).unwrap();
        (outcome.verdicts[0], work.packets[0].packet.octets().len())
    };
    let (_, with_three) = set(3);
    let most = 65_535 - (with_three - 3);
    assert_eq!(set(most), (Verdict::Pass, 65_535));
    assert_eq!(set(most + 1), (Verdict::Skip, with_three), "an error, and the packet is as it was");
}

#[test]
fn octets_that_are_handed_over_have_a_limit_for_one_host_call_and_one_for_all() {
    // The host lifts what the guest hands over: a payload of so many octets.
    let set = |octets: usize, times: u64, change: &dyn Fn(&mut hepgate::config::Filter)| {
        let one = format!(
            "(call $set (local.get $batch) (i32.const 0) (i32.const 2048) (i32.const {octets}) (global.get $out))"
        );
        let on_batch = rounds(&one, times);
        let guest = Guest { imports: SET_PAYLOAD, on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::with(guest, change);
        call(&mut bench.start().unwrap(), &mut work(&[b"one"])).map(drop)
    };
    set(4_096, 1, &|filter| filter.limits.hostcall_octets_max = 16_384).unwrap();
    let fault = set(20_000, 1, &|filter| filter.limits.hostcall_octets_max = 16_384).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Limit, "{fault}");
    assert!(fault.text.contains("hostcall_octets_max"), "{fault}");
    set(1_000, 10, &|filter| filter.limits.moved_octets_max = 100_000).unwrap();
    let fault = set(1_000, 100, &|filter| filter.limits.moved_octets_max = 100_000).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Limit, "{fault}");
    assert!(fault.text.starts_with("passed moved_octets_max: "), "{fault}");
}

/// Bulk memory operations are not interrupted, so the memory limit is what bounds them.
#[test]
fn a_guest_that_fills_its_memory_again_and_again_ends_soon_after_its_deadline() {
    let guest = Guest {
        on_batch: "(drop (memory.grow (i32.const 250)))
            (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 16000000)) (br $l))",
        ..Guest::default()
    };
    let begun = Instant::now();
    assert_eq!(fault_of(guest).kind, FaultKind::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_batch_that_a_guest_keeps_ends_the_call() {
    let fault = fault_of(Guest { on_batch: "(return (global.get $verdicts))", ..Guest::default() });
    assert!(fault.text.contains("borrow"), "{fault}");
}

#[test]
fn a_packet_is_not_made_of_more_than_a_packet_holds() {
    const PACK: &str = r#"(import "hep:filter/packing@0.1.0" "[static]packet.pack" (func $pack
        (param i32 i64 i64 i32 i32 i64 i64 i32 i32 i32 i32 i32 i32)))"#;
    for (octets, verdict) in [(65_535, Verdict::Pass), (65_536, Verdict::Skip)] {
        let on_batch = format!(
            "(call $pack (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 5060)
               (i32.const 1) (i64.const 2) (i64.const 0) (i32.const 5060)
               (i32.const 17) (i32.const 1) (i32.const 2048) (i32.const {octets}) (global.get $out))
             (i32.store8 (i32.const 1024) (i32.load8_u (global.get $out)))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 1))"
        );
        let mut bench = Bench::new(Guest { imports: PACK, on_batch: &on_batch, ..Guest::default() });
        let outcome = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
        assert_eq!(outcome.verdicts, [verdict], "{octets}");
    }
}

/// A guest may keep a packet that it makes for as long as it runs: nothing that it adds to it is free.
#[test]
fn a_packet_is_not_made_of_empty_parts_without_end() {
    const PARTS: &str = r#"
        (import "hep:filter/packing@0.1.0" "[static]packet.pack-parts" (func $parts
            (param i32 i64 i64 i32 i32 i64 i64 i32 i32 i32 i32)))
        (import "hep:filter/packing@0.1.0" "[method]packet.add-payload-part" (func $part
            (param i32 i32 i32 i32 i32 i32)))"#;
    for (times, verdict) in [(65_535 / 6, Verdict::Pass), (65_535 / 6 + 1, Verdict::Skip)] {
        let add = rounds(
            "(call $part (local.get $j) (i32.const 256) (i32.const 0) (i32.const 256) (i32.const 0) (i32.const 512))",
            times,
        );
        let on_batch = format!(
            "(call $parts (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 5060)
               (i32.const 1) (i64.const 2) (i64.const 0) (i32.const 5060) (i32.const 17) (i32.const 1) (i32.const 512))
             (local.set $j (i32.load (i32.const 516)))
             {add}
             (i32.store8 (i32.const 1024) (i32.load8_u (i32.const 512)))
             (i32.store (global.get $verdicts) (i32.const 1024))
             (i32.store offset=4 (global.get $verdicts) (i32.const 1))"
        );
        let guest = Guest { imports: PARTS, on_batch: &on_batch, ..Guest::default() };
        let mut bench = Bench::with(guest, |filter| filter.limits.host_calls_max = 100_000);
        let mut instance = bench.start().unwrap();
        let budget = Budget::computing(Duration::from_secs(5));
        let outcome = instance.on_batch(&mut work(&[b"one"]), &Part::run(0, 1), budget, NOW).unwrap();
        assert_eq!(outcome.verdicts, [verdict], "{times}");
    }
}

/// Fuel means the same on every machine: a call of twice as many packets has twice as much, and one less is too few.
#[test]
fn a_call_has_fuel_for_each_of_its_packets_and_no_more() {
    let guest = Guest { on_batch: &rounds("", 1_000), ..Guest::default() };
    let runs = |fuel: u64, packets: &[&'static [u8]]| {
        let mut bench = Bench::counting(guest, |filter| filter.limits.fuel_per_packet_max = fuel);
        call(&mut bench.start().unwrap(), &mut work(packets)).map(drop)
    };
    let (mut too_few, mut enough) = (1_000, 1_000_000);
    while enough - too_few > 1 {
        let middle = (too_few + enough) / 2;
        if runs(middle, &[b"one"]).is_ok() { enough = middle } else { too_few = middle }
    }
    let fault = runs(too_few, &[b"one"]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Limit);
    assert!(fault.text.starts_with("passed fuel_per_packet_max"), "{fault}");
    // It does the same for two packets, so half of it is enough for each.
    runs(enough.div_ceil(2), &[b"one", b"two"]).unwrap();
    runs(0, &[b"one"]).unwrap();
}
