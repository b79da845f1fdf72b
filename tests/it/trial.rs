use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::capture::build::{built, ethernet, file, frames, udp};
use crate::support::gateway::HEPGATE;
use crate::support::guest::{self, Guest};
use crate::support::settings::{BY_FIRST_OCTET, packet};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn hepgate(command: &str, files: &[&Path], options: &[&str]) -> Output {
    Command::new(HEPGATE).args(["filter", command]).args(files).args(options).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a filter over plain SIP of a real call.
fn over_the_call(command: &str, files: &[&Path], options: &[&str]) -> Output {
    let call = repository("tests/corpus/sip-call.pcap");
    hepgate(command, files, &[&["--read", call.to_str().unwrap()], options].concat())
}

/// A capture of HEP packets with these payloads, a second after the other.
fn capture(payloads: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
    let packets: Vec<Vec<u8>> = payloads.iter().map(|payload| packet(payload)).collect();
    built(packets.iter().map(|packet| udp("198.51.100.1:40000", "198.51.100.2:9060", packet)))
}

#[test]
fn results_are_the_same_every_time_whatever_the_batch_and_another_result_is_told_line_by_line() {
    let (folder, redact) = (tempfile::tempdir().unwrap(), repository("filters/redact.wasm"));
    let golden = folder.path().join("expected.json");
    let expect = ["--expect", golden.to_str().unwrap()];
    let written = over_the_call("test", &[&redact], &[&expect[..], &["--update"]].concat());
    assert!(written.status.success() && errors(&written).starts_with("written to "), "{}", errors(&written));
    for batch in ["1", "5", "64"] {
        let again = over_the_call("test", &[&redact], &[&expect[..], &["--batch", batch]].concat());
        assert!(again.status.success() && errors(&again).starts_with("as expected by "), "{}", errors(&again));
    }
    let other = over_the_call("test", &[&redact], &[&expect[..], &["--set", "bodies=keep"]].concat());
    assert_eq!(other.status.code(), Some(1));
    let told = errors(&other);
    assert!(told.contains("packet 1\n  - pass\n"), "{told}");
    assert!(told.contains("  - payload line 14: \"o=user1 "), "{told}");
    assert!(!told.contains("  + payload line 14"), "{told}");
}

#[test]
fn what_the_filter_did_stands_in_a_table() {
    let report = repository("filters/report.wasm");
    let options = ["--set", "collector=homer", "--collector", "homer", "--tick", "300ms"];
    let output = over_the_call("test", &[&report], &options);
    assert!(output.status.success(), "{}", errors(&output));
    let text = out(&output);
    for part in [
        "12 packets of ",
        ", with SIP packed as HEP3\n",
        "    1  pass      2026-11-23 07:17:18.797310   HEP3  udp 127.0.0.1:15060 -> 127.0.0.1:15061  agent 1  SIP  511",
        "verdicts  12 pass, 0 skip, 0 drop; 0 changed\n",
        "sent      to homer: 2026-11-23 07:17:19.0",
        " LOG ",
        "log       nothing\n",
        " in 5 calls, ",
        " KiB of 16384 KiB\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // Ticks at 0.3 and 0.6 s of a call of 0.7 s, by the clock of the capture.
    assert_eq!(text.matches("to homer: ").count(), 2, "{text}");
    let fuel = text.lines().find(|line| line.starts_with("fuel ")).unwrap();
    assert!(!fuel.contains("fuel      0,"), "{fuel}");
    let quiet = out(&over_the_call("test", &[&report], &[&options[..], &["--quiet"]].concat()));
    assert!(!quiet.contains("    1  pass") && quiet.contains("verdicts  12 pass"), "{quiet}");
}

#[test]
fn only_the_packet_that_a_filter_traps_on_has_failed() {
    let (_folder, capture) = capture(&[b"pass", b"skip", b"trap", b"drop", b"pass"]);
    let folder = tempfile::tempdir().unwrap();
    let filter = guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let output = hepgate("test", &[&filter], &["--read", capture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    let verdicts: Vec<&str> =
        text.lines().filter(|line| line.contains("HEP3")).map(|line| line.get(7..17).unwrap().trim()).collect();
    assert_eq!(verdicts, ["pass", "skip", "failed", "drop", "pass"], "{text}");
    assert!(text.contains("failed    packet 3: trap: "), "{text}");
    assert!(text.contains("unreachable"), "{text}");
    let json: Value =
        serde_json::from_str(&out(&hepgate("test", &[&filter], &["--read", capture.to_str().unwrap(), "--json"])))
            .unwrap();
    assert_eq!(json["packets"][2]["verdict"], "failed");
}

#[test]
fn a_call_that_never_ends_is_ended_and_told() {
    let (_folder, capture) = capture(&[b"pass", b"loop"]);
    let folder = tempfile::tempdir().unwrap();
    let filter = guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let options = ["--read", capture.to_str().unwrap(), "--limit", "slow_deadline=20ms"];
    let text = out(&hepgate("test", &[&filter], &options));
    assert!(text.contains("verdicts  1 pass, 0 skip, 0 drop, 1 failed; 0 changed"), "{text}");
    assert!(text.contains("failed    packet 2: deadline: took longer than 20 ms"), "{text}");
}

#[test]
fn what_a_filter_has_not_subscribed_to_it_does_not_see() {
    let (_folder, capture) = capture(&[b"trap", b"trap"]);
    let folder = tempfile::tempdir().unwrap();
    let imports = format!(
        "{}(import \"hep:filter/subscription@0.1.0\" \"payload-types\" (func $types (param i32 i32 i32)))",
        BY_FIRST_OCTET.imports
    );
    // Payload type 9, of which there is none.
    let init =
        "(i32.store8 (i32.const 2048) (i32.const 9)) (call $types (i32.const 2048) (i32.const 1) (global.get $out))";
    let filter = guest::write(folder.path(), "f", Guest { imports: &imports, init, ..BY_FIRST_OCTET });
    let output = hepgate("test", &[&filter], &["--read", capture.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(out(&output).contains("verdicts  0 pass, 0 skip, 0 drop, 2 not seen; 0 changed"), "{}", out(&output));
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let report = repository("filters/report.wasm");
    let core = at("core.wasm", &wat::parse_str("(module)").unwrap());
    let not_golden = at("golden.json", b"{\"packets\": 7}");
    let lengthy = guest::write(folder.path(), "lengthy", Guest { init: "unreachable", ..Guest::default() });
    let wrong_count = guest::write(
        folder.path(),
        "count",
        Guest {
            on_batch: "(i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 3))",
            ..Guest::default()
        },
    );
    for (file, options, wanted) in [
        (&report, &["--set", "x"][..], "wants KEY=VALUE"),
        (&report, &[], "init: config key \"collector\" is missing: where the reports go; --set KEY=VALUE sets it"),
        (&report, &["--set", "collector=a", "--set", "evry=1"], "config key \"evry\" is unknown; known here: "),
        (&report, &["--limit", "memory=1"], "filter[0].limits.memory: unknown key; known here: "),
        (&report, &["--tick", "often"], "filter[0].tick"),
        (&core, &[], "is a WebAssembly core module, not a component"),
        (&lengthy, &[], "it did not start: "),
        (&wrong_count, &["--expect", not_golden.to_str().unwrap()], "are no results of `hepgate filter test`"),
        (&repository("filters/none.wasm"), &[], "No such file"),
    ] {
        let output = over_the_call("test", &[file], options);
        assert!(!output.status.success());
        assert!(errors(&output).contains(wanted), "{wanted}\n{}", errors(&output));
    }
    let output = over_the_call("test", &[&wrong_count], &["--batch", "1"]);
    assert!(out(&output).contains("failed    packet 1: bad-result: 3 verdicts for 1 packets"), "{}", out(&output));
    let empty = at("empty.pcap", &fs::read(repository("tests/corpus/sip-call.pcap")).unwrap()[..24]);
    let output = hepgate("test", &[&report], &["--read", empty.to_str().unwrap()]);
    assert!(errors(&output).contains("empty.pcap: holds neither HEP nor SIP"), "{}", errors(&output));
}

#[test]
fn two_filters_are_told_apart_by_the_packets_that_they_treat_differently() {
    let (_folder, capture) = capture(&[b"pass", b"skip", b"drop"]);
    let folder = tempfile::tempdir().unwrap();
    let one = guest::write(folder.path(), "one", BY_FIRST_OCTET);
    let passes_all = guest::write(folder.path(), "other", Guest::default());
    let read = ["--read", capture.to_str().unwrap()];
    let same = hepgate("diff", &[&one, &one], &read);
    assert_eq!((same.status.code(), out(&same)), (Some(0), "no difference in 3 packets\n".to_owned()));
    let differ = hepgate("diff", &[&one, &passes_all], &read);
    assert_eq!(differ.status.code(), Some(1));
    let text = out(&differ);
    assert!(text.contains("\npacket 2\n  - skip\n  + pass\n"), "{text}");
    assert!(text.contains("\npacket 3\n  - drop\n  + pass\n"), "{text}");
    assert!(text.ends_with("\n2 of 3 packets treated differently\n") && !text.contains("packet 1\n"), "{text}");
}

#[test]
fn a_bench_tells_times_and_the_same_fuel_each_time() {
    let discard = repository("filters/discard.wasm");
    let measured = || -> Value {
        let output = over_the_call("bench", &[&discard], &["--milliseconds", "15", "--json"]);
        serde_json::from_str(&out(&output)).unwrap_or_else(|error| panic!("{error}: {}", errors(&output)))
    };
    let (one, other) = (measured(), measured());
    assert_eq!(one["octets"], fs::metadata(&discard).unwrap().len());
    for (place, packets) in [1, 32, 64].into_iter().enumerate() {
        let (one, other) = (&one["batches"][place], &other["batches"][place]);
        assert_eq!(one["packets"], packets);
        assert!(one["ns_per_packet"].as_u64().unwrap() > 0, "{one}");
        assert!(one["fuel_per_packet"].as_u64().unwrap() > 0, "{one}");
        assert_eq!(one["fuel_per_packet"], other["fuel_per_packet"]);
    }
    assert!(one["memory_octets_at_start"].as_u64().unwrap() >= 65_536);
    let text = out(&over_the_call("bench", &[&discard], &["--milliseconds", "15"]));
    assert!(text.contains("packets a call   ns a packet   fuel a packet\n"), "{text}");
}

/// What is needed of WASI's first version by tool chains that know no components.
const FROM_ANOTHER_TOOL_CHAIN: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "hep:filter/packets@0.1.0" "[resource-drop]batch" (func $drop-batch (param i32)))
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "hep:filter/callbacks@0.1.0#init") (result i32)
      (i32.store (i32.const 64) (i32.const 128))
      (i32.store (i32.const 68) (i32.const 5))
      ;; It prints five octets, and all of them are said to be written.
      (if (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)) (then (call $exit (i32.const 1))))
      (if (i32.ne (i32.const 5) (i32.load (i32.const 72))) (then unreachable))
      (i32.const 16))
    (func (export "hep:filter/callbacks@0.1.0#on-batch") (param i32) (result i32)
      (call $drop-batch (local.get 0))
      (i32.const 32)))"#;

#[test]
fn a_core_module_becomes_a_component_without_wasi_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("f.wat");
    fs::write(&text, FROM_ANOTHER_TOOL_CHAIN).unwrap();
    let octets = folder.path().join("g.wasm");
    fs::write(&octets, wat::parse_str(FROM_ANOTHER_TOOL_CHAIN).unwrap()).unwrap();
    for (file, made) in [(&text, "f.component.wasm"), (&octets, "g.component.wasm")] {
        let output = hepgate("componentize", &[file], &[]);
        assert!(output.status.success(), "{}", errors(&output));
        let made = folder.path().join(made);
        let octets = fs::metadata(&made).unwrap().len();
        assert!(out(&output).starts_with(&made.display().to_string()) && out(&output).contains("sha256 "));
        assert!(octets > 500, "{octets}");
        let inspected = out(&hepgate("inspect", &[&made], &[]));
        assert!(inspected.contains("a gateway may run it") && !inspected.contains("wasi"), "{inspected}");
        let tried = over_the_call("test", &[&made], &["--quiet"]);
        assert!(tried.status.success(), "{}", errors(&tried));
        assert!(out(&tried).contains("verdicts  12 pass, 0 skip, 0 drop; 0 changed"), "{}", out(&tried));
    }
}

#[test]
fn which_world_a_core_module_is_for_is_told_by_what_it_exports() {
    let folder = tempfile::tempdir().unwrap();
    let tick = "(func (export \"hep:filter/ticker@0.1.0#on-tick\"))";
    let stop = "(func (export \"hep:filter/last-call@0.1.0#on-stop\"))";
    for (name, has_tick, has_stop) in [("t", true, false), ("s", false, true), ("ts", true, true), ("n", false, false)]
    {
        let more = [(tick, has_tick), (stop, has_stop)].map(|(text, is_there)| if is_there { text } else { "" });
        let module = FROM_ANOTHER_TOOL_CHAIN.strip_suffix(')').unwrap();
        let path = folder.path().join(format!("{name}.wat"));
        fs::write(&path, format!("{module}{})", more.concat())).unwrap();
        let output = hepgate("componentize", &[&path], &[]);
        assert!(output.status.success(), "{}", errors(&output));
        let inspected = out(&hepgate("inspect", &[&path.with_extension("component.wasm")], &[]));
        assert_eq!(inspected.contains("exports       hep:filter/ticker@0.1.0"), has_tick, "{inspected}");
        assert_eq!(inspected.contains("exports       hep:filter/last-call@0.1.0"), has_stop, "{inspected}");
    }
}

#[test]
fn a_silence_in_a_capture_causes_so_many_ticks_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let filter = guest::write(folder.path(), "f", Guest { on_tick: "(nop)", ..Guest::default() });
    let packets = [packet(b"pass"), packet(b"pass")];
    let packets = packets.iter().map(|packet| ethernet(&[], &udp("198.51.100.1:40000", "198.51.100.2:9060", packet)));
    let mut frames = frames(packets);
    for (silence, calls) in [(999_999, 999), (1_000_000, 1_000), (1_000_000_000_000, 1_000)] {
        frames[1].micros = frames[0].micros + silence;
        let (_folder, capture) = file(&frames);
        let output = hepgate("test", &[&filter], &["--read", capture.to_str().unwrap(), "--tick", "1ms"]);
        // Each packet is a call, too.
        let wanted = format!(" in {} calls, ", Grouped(calls + 2));
        assert!(out(&output).contains(&wanted), "{wanted}\n{}", out(&output));
    }
}

/// As figures are shown: digits in groups of three.
struct Grouped(u64);

impl std::fmt::Display for Grouped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1_000 { write!(f, "{}", self.0) } else { write!(f, "{} {:03}", self.0 / 1_000, self.0 % 1_000) }
    }
}

#[test]
fn what_cannot_become_a_component_is_refused_with_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let component = guest::write(folder.path(), "component", Guest::default());
    let refused = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        errors(&hepgate("componentize", &[&path], &[]))
    };
    let already = errors(&hepgate("componentize", &[&component], &[]));
    assert!(already.ends_with("it is a component already\n"), "{already}");
    let lacks = refused("empty.wat", "(module)");
    assert!(
        lacks.contains("it does not export hep:filter/callbacks@0.1.0#init and hep:filter/callbacks@0.1.0#on-batch")
    );
    let broken = refused("broken.wat", "(module (func (unknown)))");
    assert!(broken.contains("broken.wat: cannot be made a component: ") && broken.contains("unknown"), "{broken}");
    let powers = FROM_ANOTHER_TOOL_CHAIN.replacen(
        "\"proc_exit\" (func $exit (param i32))",
        "\"no_such\" (func $exit (param i32))",
        1,
    );
    let powers = refused("powers.wat", &powers);
    assert!(powers.contains("no_such"), "{powers}");
    assert!(!folder.path().join("powers.component.wasm").exists());
}
