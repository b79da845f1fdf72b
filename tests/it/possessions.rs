use std::time::Duration;

use hepgate::filter::{Budget, MetricValue, Now, Part, Verdict};
use hepgate::ledger::FaultKind;
use hepgate::wire::CapturedAt;

use crate::support::bench::{Bench, NOW, call, work};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector, filter, packet, sip};

/// What these guests import, under short names.
const ALL: &str = r#"
    (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
    (import "hep:filter/clock@0.1.0" "wall" (func $wall (result i64)))
    (import "hep:filter/clock@0.1.0" "monotonic" (func $monotonic (result i64)))
    (import "hep:filter/state@0.1.0" "get" (func $get (param i32 i32 i32)))
    (import "hep:filter/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
    (import "hep:filter/state@0.1.0" "remove" (func $remove (param i32 i32) (result i32)))
    (import "hep:filter/state@0.1.0" "add" (func $add (param i32 i32 i64 i32 i64 i32)))
    (import "hep:filter/metrics@0.1.0" "[static]counter.declare" (func $counter (param i32 i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/metrics@0.1.0" "[method]counter.add" (func $count (param i32 i32 i32 i64 i32)))
    (import "hep:filter/metrics@0.1.0" "[static]gauge.declare" (func $gauge (param i32 i32 i32 i32 i32 i32 i32)))
    (import "hep:filter/metrics@0.1.0" "[method]gauge.set" (func $gauge-set (param i32 i32 i32 f64 i32)))
    (import "hep:filter/subscription@0.1.0" "payload-types" (func $types (param i32 i32 i32)))
    (import "hep:filter/subscription@0.1.0" "agent-ids" (func $agents (param i32 i32 i32)))
    (import "hep:filter/subscription@0.1.0" "sip-methods" (func $methods (param i32 i32 i32)))
    (import "hep:filter/subscription@0.1.0" "networks" (func $networks (param i32 i32 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.sip-header" (func $header (param i32 i32 i32 i32 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.sip-method" (func $method (param i32 i32 i32)))
    (import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;

/// `key` at 256, `other` at 264, `calls` at 272; a list of one text (`INVITE`) at 288.
const DATA: &str = r#"
    (data (i32.const 256) "key") (data (i32.const 264) "other") (data (i32.const 272) "calls")
    (data (i32.const 280) "INVITE") (data (i32.const 288) "\18\01\00\00\06\00\00\00")
    (data (i32.const 296) "i") (global $handle (mut i32) (i32.const 0))
    ;; Answers the octet that `$at` has: 0 is pass, 1 is skip, 2 is drop.
    (func $answer (param $at i32)
      (i32.store8 (i32.const 1024) (i32.load8_u (local.get $at)))
      (i32.store (i32.const 32) (i32.const 1024))
      (i32.store (i32.const 36) (i32.const 1)))
    (func $answer-is (param $verdict i32)
      (i32.store8 (i32.const 512) (local.get $verdict)) (call $answer (i32.const 512)))"#;

const VERDICTS: [Verdict; 3] = [Verdict::Pass, Verdict::Skip, Verdict::Drop];

fn guest<'a>(init: &'a str, on_batch: &'a str) -> Guest<'a> {
    Guest { imports: ALL, definitions: DATA, init, on_batch, ..Guest::default() }
}

/// The one answer to one packet.
fn answer(bench: &mut Bench) -> Verdict {
    let mut instance = bench.start().unwrap();
    call(&mut instance, &mut work(&[b"one"])).unwrap().verdicts[0]
}

/// `set(key, octets long)`, with its answer at 512: 0 ok, 1 an error, whose number is at 520.
fn set(key: u32, octets: u32, ttl: Option<u64>) -> String {
    let (some, ttl) = (i32::from(ttl.is_some()), ttl.unwrap_or(0));
    format!(
        "(call $set (i32.const {key}) (i32.const 3) (i32.const 2048) (i32.const {octets}) (i32.const {some})
           (i64.const {ttl}) (i32.const 512))\n"
    )
}

#[test]
fn what_is_remembered_outlives_the_instance_and_a_failed_call_remembers_nothing() {
    // Answers skip if the key is there; then sets it.
    let there = "(call $get (i32.const 256) (i32.const 3) (i32.const 512))";
    let on_batch = format!("{there} (call $answer (i32.const 512)) {}", set(256, 7, None));
    let mut bench = Bench::new(guest("", &on_batch));
    assert_eq!(answer(&mut bench), Verdict::Pass);
    // Another instance of the same filter and tenant.
    assert_eq!(answer(&mut bench), Verdict::Skip);
    assert_eq!(bench.surroundings.belongings.remembered.used(), (1, 3 + 7 + 64));
    // Somebody else's.
    assert_eq!(answer(&mut Bench::new(guest("", &on_batch))), Verdict::Pass);
    // A call that fails has set nothing, also if it saw itself what it had set.
    let on_batch = format!("{} {there} (if (i32.load8_u (i32.const 512)) (then unreachable))", set(256, 7, None));
    let mut bench = Bench::new(guest("", &on_batch));
    let fault = call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert_eq!(bench.surroundings.belongings.remembered.used(), (0, 0));
}

#[test]
fn a_key_is_forgotten_when_its_time_is_over() {
    let on_batch = format!(
        "(call $get (i32.const 256) (i32.const 3) (i32.const 512)) (call $answer (i32.const 512)) {}",
        "(if (i32.eqz (i32.load8_u (i32.const 512))) (then ".to_owned() + &set(256, 1, Some(2_000)) + "))"
    );
    let mut bench = Bench::new(guest("", &on_batch));
    let mut instance = bench.start().unwrap();
    for (milliseconds, verdict) in [(0, Verdict::Pass), (1_999, Verdict::Skip), (2_000, Verdict::Pass)] {
        let now = CapturedAt::from_micros(NOW.as_micros() + milliseconds * 1_000);
        let budget = Budget::computing(Duration::from_millis(50));
        let outcome = instance.on_batch(&mut work(&[b"one"]), &Part::run(0, 1), budget, now).unwrap();
        assert_eq!(outcome.verdicts, [verdict], "{milliseconds}");
    }
}

/// Each error has its number: too many keys 0, too many octets 1, bad key 2, not a number 3.
#[test]
fn a_filter_remembers_as_much_as_it_may_and_is_told_why_not_more() {
    for (keys_max, octets_max, octets, verdict) in [(1, 77, 10, 0), (1, 76, 10, 1), (0, 1_000, 10, 1)] {
        let on_batch = format!("{} (call $answer (i32.const 512))", set(256, octets, None));
        let mut bench = Bench::with(guest("", &on_batch), |filter| {
            filter.limits.state_keys_max = keys_max;
            filter.limits.state_octets_max = octets_max;
        });
        assert_eq!(answer(&mut bench), VERDICTS[verdict], "{keys_max} {octets_max}");
    }
    for (call, error) in [
        (
            "(call $set (i32.const 256) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 512))",
            2,
        ),
        (
            "(call $set (i32.const 256) (i32.const 257) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 512))",
            2,
        ),
        ("(call $add (i32.const 256) (i32.const 3) (i64.const 1) (i32.const 0) (i64.const 0) (i32.const 512))", 3),
    ] {
        let on_batch = format!(
            "{} {call} (if (i32.ne (i32.load8_u (i32.const 512)) (i32.const 1)) (then unreachable))
             (if (i32.ne (i32.load8_u (i32.const 520)) (i32.const {error})) (then unreachable))",
            set(256, 3, None)
        );
        assert_eq!(call_of(&on_batch), [], "{call}");
    }
    // As many keys as one call can name, until it is told to stop: the host keeps no more than it may.
    let flood = "(loop $more
        (i32.store8 (i32.const 256) (i32.add (i32.const 48) (i32.rem_u (local.get $i) (i32.const 64))))
        (i32.store8 (i32.const 257) (i32.add (i32.const 48) (i32.div_u (local.get $i) (i32.const 64))))
        (call $set (i32.const 256) (i32.const 3) (i32.const 2048) (i32.const 100) (i32.const 0) (i64.const 0) (i32.const 512))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 5000))))";
    let mut bench = Bench::with(guest("", flood), |filter| filter.limits.state_octets_max = 10_000);
    call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap();
    let (keys, octets) = bench.surroundings.belongings.remembered.used();
    assert_eq!((keys, octets), (59, 59 * 167), "of 10 000 octets");
}

fn call_of(on_batch: &str) -> Vec<Verdict> {
    call(&mut Bench::new(guest("", on_batch)).start().unwrap(), &mut work(&[b"one"])).unwrap().verdicts
}

#[test]
fn what_is_added_is_summed_over_calls_and_instances() {
    let add = "(call $add (i32.const 256) (i32.const 3) (i64.const 5) (i32.const 0) (i64.const 0) (i32.const 512))";
    // The sum is at 520, behind the octet that says ok.
    let on_batch = format!(
        "{add} {add}
         (call $answer-is (i32.add (i64.eq (i64.load (i32.const 520)) (i64.const 10))
           (i32.mul (i32.const 2) (i64.eq (i64.load (i32.const 520)) (i64.const 20)))))"
    );
    let mut bench = Bench::new(guest("", &on_batch));
    assert_eq!(answer(&mut bench), Verdict::Skip, "10");
    assert_eq!(answer(&mut bench), Verdict::Drop, "20");
    // What this call removed is 0 for it.
    let on_batch = format!(
        "(drop (call $remove (i32.const 256) (i32.const 3))) {add}
         (call $answer-is (i64.eq (i64.load (i32.const 520)) (i64.const 5)))"
    );
    let filter = Bench::new(guest("", &on_batch)).filter;
    bench.filter = filter;
    assert_eq!(answer(&mut bench), Verdict::Skip);
}

const DECLARE: &str = "
    (call $counter (i32.const 272) (i32.const 5) (i32.const 272) (i32.const 5) (i32.const 288) (i32.const 1) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then unreachable))
    (global.set $handle (i32.load (i32.const 516)))";

#[test]
fn metrics_are_declared_in_init_counted_in_calls_and_shared_by_instances() {
    let count = "(call $count (global.get $handle) (i32.const 288) (i32.const 1) (i64.const 3) (i32.const 512))
        (call $answer (i32.const 512))";
    let mut bench = Bench::new(guest(DECLARE, count));
    assert_eq!(answer(&mut bench), Verdict::Pass);
    assert_eq!(answer(&mut bench), Verdict::Pass);
    let samples = bench.surroundings.belongings.metrics.samples();
    assert_eq!(samples.len(), 1);
    assert_eq!((samples[0].name.as_str(), &samples[0].value), ("calls", &MetricValue::Counter(6)));
    assert_eq!(samples[0].labels, [("INVITE".to_owned(), "INVITE".to_owned())]);
    // A call that fails has counted nothing.
    let failing = Bench::new(guest(DECLARE, &format!("{count} unreachable"))).filter;
    bench.filter = failing;
    call(&mut bench.start().unwrap(), &mut work(&[b"one"])).unwrap_err();
    assert_eq!(bench.surroundings.belongings.metrics.samples(), samples);
    // Not in a call: the first error, 0.
    let declare = DECLARE.replace("(if (i32.load8_u (i32.const 512)) (then unreachable))", "");
    let late =
        format!("{declare} (call $answer-is (i32.add (i32.load8_u (i32.const 512)) (i32.load8_u (i32.const 516))))");
    assert_eq!(call_of(&late), [Verdict::Skip]);
}

#[test]
fn a_flood_of_series_is_refused_beyond_its_limit() {
    let flood = "(loop $more
        (i32.store16 (i32.const 280) (i32.add (i32.const 0x4141) (local.get $i)))
        (call $count (global.get $handle) (i32.const 288) (i32.const 1) (i64.const 1) (i32.const 512))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 25))))
        (call $answer (i32.const 512))";
    for (series_max, verdict) in [(25, Verdict::Pass), (24, Verdict::Skip)] {
        let mut bench = Bench::with(guest(DECLARE, flood), |filter| filter.limits.metric_series_max = series_max);
        assert_eq!(answer(&mut bench), verdict, "{series_max}");
        assert_eq!(bench.surroundings.belongings.metrics.series(), series_max);
    }
    let count = "(call $count (global.get $handle) (i32.const 288) (i32.const 1) (i64.const 3) (i32.const 512))
        (call $answer (i32.const 512))";
    for (octets_max, verdict) in [(6, Verdict::Pass), (5, Verdict::Skip)] {
        let mut bench = Bench::with(guest(DECLARE, count), |filter| filter.limits.metric_label_octets_max = octets_max);
        assert_eq!(answer(&mut bench), verdict, "{octets_max}");
    }
    let mut none = Bench::with(guest(DECLARE, ""), |filter| filter.limits.metrics_max = 0);
    assert_eq!(none.start().unwrap_err().kind, FaultKind::Trap, "the guest traps when it is refused");
}

#[test]
fn clocks_stand_still_in_a_call_and_are_as_coarse_as_the_operator_says() {
    let on_batch = "
        (local.set $i (i32.const 0))
        (i64.store (i32.const 600) (call $wall))
        (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 100000))))
        (call $answer-is (i32.and
          (i64.eq (i64.load (i32.const 600)) (call $wall))
          (i32.and (i64.eqz (i64.rem_u (call $wall) (i64.const 10000))) (i64.eq (call $monotonic) (i64.const 70000)))))";
    let mut bench = Bench::with(guest("", on_batch), |filter| filter.limits.clock_grain = Duration::from_millis(10));
    let now = Now { wall: NOW, monotonic: Duration::from_micros(79_999) };
    let budget = Budget::computing(Duration::from_millis(50));
    let mut instance = bench.start().unwrap();
    let outcome = instance.on_batch(&mut work(&[b"one"]), &Part::run(0, 1), budget, now).unwrap();
    assert_eq!(outcome.verdicts, [Verdict::Skip]);
}

/// Subscribes to `INVITE` and skips all that it sees; in a chain with others it must not see more.
#[test]
fn a_filter_sees_what_it_subscribed_to_and_the_operator_may_narrow_it() {
    let init = "(call $methods (i32.const 288) (i32.const 1) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then unreachable))";
    // Skips all it sees.
    let on_batch = "
        (local.set $j (call $len (local.get $batch)))
        (memory.fill (i32.const 1024) (i32.const 1) (local.get $j))
        (i32.store (global.get $verdicts) (i32.const 1024))
        (i32.store offset=4 (global.get $verdicts) (local.get $j))";
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", guest(init, on_batch));
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &filter("f", "limits = { fast_deadline = \"1s\" }\n[filter.subscription]\nagent_ids = [2001]"),
        "[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let of = |agent_id: u32, payload: &'static str| {
        let mut pack = sip(payload);
        pack.agent_id = agent_id;
        pack.encode(hepgate::wire::Version::Hep3).unwrap()
    };
    let agent = udp_agent(gateway.listener("udp"));
    let bye = "BYE sip:a SIP/2.0\r\n\r\n";
    let invite = "INVITE sip:a SIP/2.0\r\n\r\n";
    let sent = [
        of(2_001, bye),
        of(2_001, invite),
        of(7, invite),
        packet(b"x").into(),
        of(2_001, "SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n"),
    ];
    for octets in &sent {
        agent.send(octets).unwrap();
    }
    // In order, without the two that it was subscribed to.
    assert_eq!(out.take(3), [sent[0].to_vec(), sent[2].to_vec(), sent[3].to_vec()]);
    gateway.await_metric("hepgate_filter_packets_total", &[], 2);
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 2);
    gateway.stop();
}

#[test]
fn a_subscription_is_checked_and_only_init_may_say_it() {
    let number = |call: &str| {
        let init = format!(
            "(i32.store (i32.const 512) (i32.const 0)) {call}
             (i32.store8 (i32.const 700) (i32.add (i32.load8_u (i32.const 512)) (i32.load8_u (i32.const 516))))"
        );
        let guest = guest(&init, "(call $answer-is (i32.load8_u (i32.const 700)))");
        call_first(guest)
    };
    // ok is 0; the errors are 1 more than their number: bad length 2, bad value 3.
    assert_eq!(number("(call $types (i32.const 256) (i32.const 1) (i32.const 512))"), 0);
    assert_eq!(number("(call $types (i32.const 256) (i32.const 0) (i32.const 512))"), 2);
    assert_eq!(number("(call $agents (i32.const 256) (i32.const 1025) (i32.const 512))"), 2);
    // A network of IPv4 (1), 10.0.0.0, with a prefix of 33 bits.
    let network = "(i32.store (i32.const 800) (i32.const 1)) (i32.store (i32.const 808) (i32.const 0x0a000000))
        (i32.store8 (i32.const 824) (i32.const PREFIX)) (call $networks (i32.const 800) (i32.const 1) (i32.const 512))";
    assert_eq!(number(&network.replace("PREFIX", "32")), 0);
    assert_eq!(number(&network.replace("PREFIX", "33")), 3);
    let late = "(call $types (i32.const 256) (i32.const 1) (i32.const 512)) (call $answer (i32.const 512))";
    assert_eq!(call_of(late), [Verdict::Skip], "not now");
}

/// The octet that the one packet was answered with; beyond the verdicts it would be an error, so 3 is told by a trap.
fn call_first(guest: Guest<'_>) -> usize {
    match call(&mut Bench::new(guest).start().unwrap(), &mut work(&[b"one"])) {
        Ok(outcome) => {
            outcome.verdicts.first().map_or(0, |verdict| VERDICTS.iter().position(|v| v == verdict).unwrap())
        }
        Err(_) => 3,
    }
}

#[test]
fn a_filter_reads_method_and_headers_of_sip_without_the_payload_crossing() {
    let payload = b"BYE sip:a SIP/2.0\r\nCall-ID: 12345\r\n\r\n";
    let on_batch = "
        (call $method (local.get $batch) (i32.const 0) (i32.const 512))
        (call $header (local.get $batch) (i32.const 0) (i32.const 296) (i32.const 1) (i32.const 528))
        (call $answer-is (i32.and
          (i32.and (i32.load8_u (i32.const 512)) (i32.eq (i32.load (i32.const 520)) (i32.const 3)))
          (i32.and (i32.load8_u (i32.const 528)) (i32.eq (i32.load (i32.const 536)) (i32.const 5)))))";
    let mut bench = Bench::new(guest("", on_batch));
    let outcome = call(&mut bench.start().unwrap(), &mut work(&[payload])).unwrap();
    assert_eq!(outcome.verdicts, [Verdict::Skip]);
}

#[test]
fn the_last_call_of_a_filter_is_made_when_the_gateway_stops_in_both_lanes() {
    for lane in ["fast", "slow"] {
        let out = UdpSink::new();
        let folder = tempfile::tempdir().unwrap();
        let guest = Guest { on_stop: "(call $log (i32.const 1) (i32.const 272) (i32.const 5))", ..guest("", "") };
        guest::write(folder.path(), "f", guest);
        let config = [
            BOTH_LISTENERS,
            &collector("out", &out.to()),
            &filter("f", ""),
            &format!("[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\nroute = [\"out\"]\nlane = \"{lane}\"\n"),
        ];
        let gateway = Gateway::start_in(folder, &config.concat());
        udp_agent(gateway.listener("udp")).send(&packet(b"x")).unwrap();
        assert_eq!(out.next(), packet(b"x"));
        assert!(gateway.lines_saying("calls").is_empty());
        let ended = gateway.stop();
        let said = ended.lines.iter().filter(|line| line["message"] == "calls").count();
        assert_eq!(said, 1, "{lane}");
    }
}

#[test]
fn a_filters_metrics_stand_on_the_page_of_the_gateway() {
    let count = "(call $count (global.get $handle) (i32.const 288) (i32.const 1) (i64.const 3) (i32.const 512))";
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", guest(DECLARE, count));
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &filter("f", ""),
        "[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    udp_agent(gateway.listener("udp")).send(&packet(b"x")).unwrap();
    assert_eq!(out.next(), packet(b"x"));
    let labels = [("tenant", "t"), ("filter", "f"), ("INVITE", "INVITE")];
    eventually("counted", || {
        let (_, page) = gateway.get("/metrics");
        page.contains("hepgate_guest_calls_total") && gateway.metrics().get("hepgate_guest_calls_total", &labels) == 3
    });
    gateway.await_metric("hepgate_filter_peak_use", &[("limit", "metric_series_max")], 1);
    gateway.stop();
}

#[test]
fn two_tenants_with_the_same_filter_remember_and_count_apart() {
    let (one, two) = (UdpSink::new(), UdpSink::new());
    let folder = tempfile::tempdir().unwrap();
    let count = "(call $count (global.get $handle) (i32.const 288) (i32.const 1) (i64.const 1) (i32.const 512))";
    // The first packet passes, and every later one is skipped.
    let on_batch = format!(
        "(call $get (i32.const 256) (i32.const 3) (i32.const 512)) (call $answer (i32.const 512)) {} {count}",
        set(256, 7, None)
    );
    guest::write(folder.path(), "f", guest(DECLARE, &on_batch));
    let config = [
        BOTH_LISTENERS,
        "[[listener]]\nname = \"other\"\nlisten = \"hep_udp:127.0.0.1:0\"\n",
        &collector("one", &one.to()),
        &collector("two", &two.to()),
        &filter("f", "limits = { fast_deadline = \"1s\" }"),
        "[[tenant]]\nname = \"one\"\nfilters = [\"f\"]\nroute = [\"one\"]\n",
        "[[tenant.match]]\nlistener = \"udp\"\n",
        "[[tenant]]\nname = \"two\"\nfilters = [\"f\"]\nroute = [\"two\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let skipped = |tenant: &str, packets: u64| {
        gateway.await_metric("hepgate_tenant_skipped_packets_total", &[("tenant", tenant)], packets);
    };
    for (listener, sink, tenant, other) in [("udp", &one, "one", "two"), ("other", &two, "two", "one")] {
        let agent = udp_agent(gateway.listener(listener));
        agent.send(&packet(b"first")).unwrap();
        assert_eq!(sink.next(), packet(b"first"), "{tenant}");
        agent.send(&packet(b"later")).unwrap();
        skipped(tenant, 1);
        gateway.await_metric("hepgate_guest_calls_total", &[("tenant", tenant)], 2);
        skipped(other, u64::from(tenant == "two"));
    }
    gateway.stop();
}
