use hepgate::filter::{Outcome, Verdict};
use hepgate::ledger::FaultKind;

use crate::support::bench::{Bench, call, fault_of, load, work};
use crate::support::guest::Guest;

#[test]
fn an_empty_list_of_verdicts_passes_all() {
    let mut bench = Bench::new(Guest::default());
    let mut instance = bench.start().unwrap();
    let outcome = call(&mut instance, &mut work(&[b"one", b"two"])).unwrap();
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn verdicts_are_for_the_packets_in_their_order() {
    let on_batch = r"
        (i32.store (global.get $out) (i32.const 0x00_02_01_00)) ;; pass, skip, drop
        (i32.store (global.get $verdicts) (global.get $out))
        (i32.store offset=4 (global.get $verdicts) (i32.const 3))";
    let mut bench = Bench::new(Guest { on_batch, ..Guest::default() });
    let mut instance = bench.start().unwrap();
    let outcome = call(&mut instance, &mut work(&[b"one", b"two", b"three"])).unwrap();
    assert_eq!(outcome.verdicts, [Verdict::Pass, Verdict::Skip, Verdict::Drop]);
}

#[test]
fn a_list_of_another_length_is_an_error_of_the_call() {
    let on_batch = r"
        (i32.store (global.get $verdicts) (global.get $out))
        (i32.store offset=4 (global.get $verdicts) (i32.const 3))";
    let fault = fault_of(Guest { on_batch, ..Guest::default() });
    assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::BadResult, "3 verdicts for 2 packets"));
}

#[test]
fn a_trap_names_itself() {
    let fault = fault_of(Guest { on_batch: "(unreachable)", ..Guest::default() });
    println!("{fault}");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.text.contains("unreachable"), "{fault}");
}

#[test]
fn wasi_beside_all_of_our_interfaces_gets_stubs_that_name_themselves() {
    // `sending` uses the resources of `packets` and `packing`: they stay what they are.
    let imports = r#"
        (import "wasi:cli/exit@0.2.0" "leave" (func $leave))
        (import "wasi:io/streams@0.2.0" "[resource-drop]pipe" (func $drop-pipe (param i32)))
        (import "hep:filter/sending@0.1.0" "[method]collector.relay" (func $relay (param i32 i32 i32 i32)))
        (import "hep:filter/sending@0.1.0" "[method]collector.send" (func $send (param i32 i32 i32)))"#;
    let wasi = [
        "package wasi:io@0.2.0; interface streams { resource pipe; }",
        "package wasi:cli@0.2.0; interface exit { use wasi:io/streams@0.2.0.{pipe}; leave: func(); out: func() -> pipe; }",
        "package test:guest; world all { include hep:filter/filter@0.1.0; import wasi:cli/exit@0.2.0; }",
    ];
    let guest = Guest { imports, on_batch: "(call $leave)", ..Guest::default() };
    let wasm = hepgate::guest::component_with(guest, &wasi, "all").unwrap();
    let mut bench = Bench::of(load(&wasm, |_| {}).unwrap());
    let fault = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap_err();
    assert!(fault.text.contains("`wasi:cli/exit@0.2.0#leave`"), "{fault}");
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let fault = fault_of(Guest { on_batch: "(loop $l (br $l))", ..Guest::default() });
    println!("{fault}");
    assert_eq!(fault.kind, FaultKind::Deadline);
    assert!(fault.text.starts_with("took longer than 50 ms"), "{fault}");
}
