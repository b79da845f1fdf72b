use std::io::Write;
use std::net::TcpStream;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

/// Replaces every payload by `s`, which is what another filter skips at.
const SAYS_SKIP: Guest<'_> = Guest {
    imports: r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.set-payload" (func $set (param i32 i32 i32 i32 i32)))"#,
    definitions: r#"(data (i32.const 2048) "s")"#,
    init: "",
    on_batch: r#"
        (local.set $j (call $len (local.get $batch)))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (call $set (local.get $batch) (local.get $i) (i32.const 2048) (i32.const 1) (global.get $out))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))"#,
    on_tick: "",
    on_stop: "",
    on_alloc: "",
};

/// Opens the collector `side` and relays every packet to it, so many times.
fn relays(times: u32) -> (String, String) {
    let definitions = r#"(data (i32.const 2048) "side") (global $side (mut i32) (i32.const 0))"#.to_owned();
    let on_batch = format!(
        r#"
        (local.set $j (call $len (local.get $batch)))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (local.set $k (i32.const 0))
          (loop $again
            (call $relay (global.get $side) (local.get $batch) (local.get $i) (global.get $out))
            (local.set $k (i32.add (local.get $k) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $k) (i32.const {times}))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))"#
    );
    (definitions, on_batch)
}

const SENDING: &str = r#"
    (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
    (import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))
    (import "hep:filter/sending@0.1.0" "[method]collector.relay" (func $relay (param i32 i32 i32 i32)))"#;

const OPEN_SIDE: &str = r#"
    (call $open (i32.const 2048) (i32.const 4) (global.get $out))
    (if (i32.load8_u (global.get $out)) (then unreachable))
    (global.set $side (i32.load offset=4 (global.get $out)))"#;

/// For filters that behave, where it matters that they stay in the fast lane: a loaded machine may well take a thread
/// away for longer than the default of 2 ms.
const PATIENT: &str = "limits = { fast_deadline = \"200ms\" }";

/// Spins for so many rounds at every call, then passes all.
fn spinner(rounds: u32) -> String {
    format!(
        "(loop $spin (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $spin (i32.lt_u (local.get $i) (i32.const {rounds}))))"
    )
}

struct Setup {
    folder: tempfile::TempDir,
    config: String,
    out: UdpSink,
}

impl Setup {
    fn new() -> Self {
        let out = UdpSink::new();
        let config = [BOTH_LISTENERS, &collector("out", &out.to())].concat();
        Self { folder: tempfile::tempdir().unwrap(), config, out }
    }

    fn filter(mut self, name: &str, guest: Guest<'_>, more: &str) -> Self {
        guest::write(self.folder.path(), name, guest);
        self.config += &filter(name, more);
        self
    }

    fn start(self, tenants: &str) -> (Gateway, UdpSink) {
        (Gateway::start_in(self.folder, &format!("{}{tenants}", self.config)), self.out)
    }
}

fn tenant(filters: &str, more: &str) -> String {
    format!("[[tenant]]\nname = \"default\"\nfilters = [{filters}]\nroute = [\"out\"]\n{more}\n")
}

#[test]
fn a_filter_sees_what_the_one_before_it_changed_over_udp_and_tcp() {
    let setup = Setup::new().filter("says-skip", SAYS_SKIP, "").filter("by-first", BY_FIRST_OCTET, "");
    let (gateway, out) = setup.start(&tenant("\"says-skip\", \"by-first\"", ""));
    udp_agent(gateway.listener("udp")).send(&packet(b"pass over udp")).unwrap();
    TcpStream::connect(gateway.listener("tcp")).unwrap().write_all(&packet(b"pass over tcp")).unwrap();
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 2);
    assert_eq!(gateway.metrics().get("hepgate_filter_edited_packets_total", &[("filter", "says-skip")]), 2);
    assert!(out.is_empty());
    gateway.stop();
}

#[test]
fn a_skip_sticks_whatever_the_other_filters_say_and_they_still_run() {
    // The second filter fails on every packet: it is counted, and the first one's skip stands.
    let traps = Guest { on_batch: "unreachable", ..Guest::default() };
    let setup = Setup::new().filter("by-first", BY_FIRST_OCTET, "").filter("traps", traps, "").filter(
        "last",
        Guest::default(),
        "",
    );
    let (gateway, out) = setup.start(&tenant("\"by-first\", \"traps\", \"last\"", ""));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"skip")).unwrap();
    agent.send(&packet(b"drop")).unwrap();
    agent.send(&packet(b"pass")).unwrap();
    assert_eq!(out.next(), packet(b"pass"));
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 1);
    let metrics = gateway.metrics();
    assert_eq!(metrics.get("hepgate_filter_failed_packets_total", &[("filter", "traps")]), 2);
    assert_eq!(metrics.get("hepgate_filter_packets_total", &[("filter", "last")]), 2, "a dropped packet ends at once");
    gateway.stop();
}

#[test]
fn a_failure_is_decided_by_the_filter_and_else_by_the_tenant_if_all_failed() {
    let traps = Guest { on_batch: "unreachable", ..Guest::default() };
    for (filters, tenant_says, arrives) in [
        // Filter settings, the tenant's on_error, whether the packet arrives.
        (&[("a", "")][..], "pass", true),
        (&[("a", "")], "drop", false),
        (&[("a", ""), ("b", "")], "drop", false),
        (&[("a", ""), ("fine", "")], "drop", true),
        (&[("a", "on_error = \"pass\"")], "drop", true),
        (&[("a", "on_error = \"pass\""), ("b", "")], "drop", false),
        (&[("a", "on_error = \"drop\""), ("fine", "")], "pass", false),
    ] {
        let mut setup = Setup::new();
        for (name, more) in filters {
            setup = setup.filter(name, if *name == "fine" { Guest::default() } else { traps }, more);
        }
        let names: Vec<String> = filters.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let (gateway, out) = setup.start(&tenant(&names.join(", "), &format!("on_error = \"{tenant_says}\"")));
        udp_agent(gateway.listener("udp")).send(&packet(b"one")).unwrap();
        let counts =
            [("hepgate_tenant_routed_packets_total", arrives), ("hepgate_tenant_dropped_packets_total", !arrives)];
        for (metric, yes) in counts {
            gateway.await_metric(metric, &[], u64::from(yes));
        }
        if arrives {
            assert_eq!(out.next(), packet(b"one"), "{filters:?} {tenant_says}");
        } else {
            assert_eq!(
                gateway.metrics().get("hepgate_tenant_dropped_packets_total", &[("reason", "filter-failed")]),
                1
            );
        }
        gateway.stop();
    }
}

#[test]
fn a_filter_relays_to_a_second_collector_and_skips_the_route() {
    let side = UdpSink::new();
    let (definitions, on_batch) = relays(1);
    let relay =
        Guest { imports: SENDING, definitions: &definitions, init: OPEN_SIDE, on_batch: &on_batch, ..Guest::default() };
    let mut setup = Setup::new();
    setup.config += &collector("side", &side.to());
    let setup = setup.filter("relay", relay, "collectors = [\"side\"]").filter("by-first", BY_FIRST_OCTET, "");
    let (gateway, out) = setup.start(&tenant("\"relay\", \"by-first\"", ""));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"skip")).unwrap();
    agent.send(&packet(b"pass")).unwrap();
    assert_eq!(side.take(2), [packet(b"skip"), packet(b"pass")]);
    assert_eq!(out.next(), packet(b"pass"));
    gateway.await_metric("hepgate_collector_filter_sent_packets_total", &[("collector", "side")], 2);
    assert!(out.is_empty() && side.is_empty());
    gateway.stop();
}

#[test]
fn a_filter_that_floods_sends_no_more_than_it_may() {
    let side = UdpSink::new();
    let (definitions, on_batch) = relays(1_000);
    let flood =
        Guest { imports: SENDING, definitions: &definitions, init: OPEN_SIDE, on_batch: &on_batch, ..Guest::default() };
    let mut setup = Setup::new();
    setup.config += &collector("side", &side.to());
    let setup = setup.filter("flood", flood, "collectors = [\"side\"]\nlimits = { sends_max = 5 }");
    let (gateway, out) = setup.start(&tenant("\"flood\"", ""));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"pass")).unwrap();
    assert_eq!(out.next(), packet(b"pass"));
    assert_eq!(side.take(5), vec![packet(b"pass"); 5]);
    gateway.await_metric("hepgate_filter_sent_packets_total", &[], 5);
    assert!(side.is_empty());
    gateway.stop();
}

#[test]
fn a_filter_that_wants_a_collector_it_was_not_granted_keeps_the_gateway_from_starting() {
    let (definitions, on_batch) = relays(1);
    let relay =
        Guest { imports: SENDING, definitions: &definitions, init: OPEN_SIDE, on_batch: &on_batch, ..Guest::default() };
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "relay", relay);
    let config = [BOTH_LISTENERS, &collector("side", "hep_udp:127.0.0.1:9"), &filter("relay", ""), &{
        "[[tenant]]\nname = \"default\"\nfilters = [\"relay\"]\n".to_owned()
    }];
    let path = folder.path().join("hepgate.toml");
    std::fs::write(&path, config.concat()).unwrap();
    let output = std::process::Command::new(crate::support::gateway::HEPGATE)
        .args(["run", "--config"])
        .arg(&path)
        .env("XDG_CACHE_HOME", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("filter \"relay\" does not start: "), "{text}");
}

#[test]
fn a_chain_that_misses_its_deadline_moves_to_the_slow_lane_and_the_packets_after_it_flow_in_order() {
    let setup = Setup::new().filter("by-first", BY_FIRST_OCTET, &format!("on_error = \"drop\"\n{PATIENT}"));
    let (gateway, out) = setup.start(&tenant("\"by-first\"", ""));
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    stream.write_all(&packet(b"pass 0")).unwrap();
    assert_eq!(out.next(), packet(b"pass 0"));
    assert_eq!(gateway.metrics().sum("hepgate_filter_slow_lane_moves_total"), 0);
    stream.write_all(&packet(b"loop")).unwrap();
    for index in 1..200 {
        stream.write_all(&packet(format!("pass {index}").as_bytes())).unwrap();
    }
    let looped = gateway_dropped(&gateway, 1);
    assert!(looped >= 1);
    // Packets that came together with the one that loops share its fate; those after it arrive, in order.
    let first = out.next();
    let first: usize = String::from_utf8(first[17..].to_vec()).unwrap().parse().unwrap();
    for index in first + 1..200 {
        assert_eq!(out.next(), packet(format!("pass {index}").as_bytes()));
    }
    assert_eq!(gateway.metrics().sum("hepgate_filter_slow_lane_moves_total"), 1);
    assert_eq!(gateway.metrics().get("hepgate_filter_faults_total", &[("kind", "deadline")]), 2, "once in each lane");
    gateway.stop();
}

fn gateway_dropped(gateway: &Gateway, least: u64) -> u64 {
    let mut dropped = 0;
    eventually("a packet is dropped", || {
        dropped = gateway.metrics().get("hepgate_tenant_dropped_packets_total", &[("reason", "filter-failed")]);
        dropped >= least
    });
    dropped
}

#[test]
fn a_chain_that_behaves_goes_back_to_the_fast_lane() {
    let mut setup = Setup::new().filter("by-first", BY_FIRST_OCTET, "");
    setup.config = format!("[sandbox]\nslow_healthy_after = \"10ms\"\n{}", setup.config);
    let (gateway, out) = setup.start(&tenant("\"by-first\"", ""));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"loop")).unwrap();
    assert_eq!(out.next(), packet(b"loop"), "on_error is pass");
    let mut sent = 0;
    eventually("the chain is back", || {
        agent.send(&packet(b"pass")).unwrap();
        assert_eq!(out.next(), packet(b"pass"));
        sent += 1;
        !gateway.lines_saying("chain is back in the fast lane").is_empty()
    });
    agent.send(&packet(b"pass again")).unwrap();
    assert_eq!(out.next(), packet(b"pass again"));
    gateway.await_metric("hepgate_tenant_routed_packets_total", &[], sent + 2);
    gateway.stop();
}

#[test]
fn over_tcp_a_slow_chain_makes_the_agent_wait_and_loses_nothing() {
    // Some milliseconds for every call: in the slow lane at once, with a queue far shorter than what comes.
    let spin = spinner(2_000_000);
    let mut setup = Setup::new().filter("slow", Guest { on_batch: &spin, ..Guest::default() }, "");
    setup.config = format!("[sandbox]\nslow_queue_batches = 1\n{}", setup.config);
    let (gateway, _out) = setup.start(&tenant("\"slow\"", "lane = \"slow\"\n"));
    let mut streams: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(gateway.listener("tcp")).unwrap()).collect();
    let count = 500;
    for _ in 0..count {
        for stream in &mut streams {
            stream.write_all(&packet(&[b'x'; 1_000])).unwrap();
        }
    }
    gateway.await_metric("hepgate_tenant_routed_packets_total", &[], 4 * count);
    assert_eq!(gateway.metrics().sum("hepgate_tenant_dropped_packets_total"), 0);
    gateway.stop();
}

#[test]
fn over_udp_what_a_slow_chain_has_no_room_for_is_dropped_and_counted() {
    let spin = spinner(20_000_000);
    let mut setup = Setup::new().filter("slow", Guest { on_batch: &spin, ..Guest::default() }, "");
    setup.config = format!("[sandbox]\nslow_queue_batches = 1\n{}", setup.config);
    let (gateway, _out) = setup.start(&tenant("\"slow\"", "lane = \"slow\"\n"));
    let agent = udp_agent(gateway.listener("udp"));
    let mut sent = 0;
    eventually("packets are dropped for want of room", || {
        agent.send(&packet(b"pass")).unwrap();
        sent += 1;
        gateway.metrics().get("hepgate_tenant_dropped_packets_total", &[("reason", "slow-lane-full")]) > 0
    });
    gateway.await_metric("hepgate_tenant_received_packets_total", &[], sent);
    gateway.await_quiet();
    gateway.stop();
}

#[test]
fn a_tenant_whose_filter_never_ends_costs_another_tenant_nothing() {
    let other = UdpSink::new();
    let never = Guest { on_batch: "(loop $forever (br $forever))", ..Guest::default() };
    let mut setup = Setup::new();
    setup.config += &collector("other", &other.to());
    let setup = setup.filter("never", never, "").filter("by-first", BY_FIRST_OCTET, PATIENT);
    let tenants = "[[tenant]]\nname = \"hostile\"\nfilters = [\"never\"]\nroute = [\"out\"]\n\
        [[tenant.match]]\nlistener = \"tcp\"\n\
        [[tenant]]\nname = \"honest\"\nfilters = [\"by-first\"]\nroute = [\"other\"]\n";
    let (gateway, _out) = setup.start(tenants);
    let mut hostile = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let honest = udp_agent(gateway.listener("udp"));
    for index in 0..300 {
        hostile.write_all(&packet(b"pass")).unwrap();
        let mine = packet(format!("pass {index}").as_bytes());
        honest.send(&mine).unwrap();
        assert_eq!(other.next(), mine);
    }
    let metrics = gateway.metrics();
    assert!(metrics.get("hepgate_filter_faults_total", &[("tenant", "hostile"), ("kind", "deadline")]) > 0);
    assert_eq!(metrics.get("hepgate_filter_faults_total", &[("tenant", "honest")]), 0);
    assert_eq!(metrics.get("hepgate_filter_slow_lane_moves_total", &[("tenant", "honest")]), 0);
    gateway.stop();
}

#[test]
fn a_filter_that_ticks_is_called_without_packets() {
    // It relays nothing: it logs, which is seen.
    let logs = r#"(import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
    let ticks = Guest {
        imports: logs,
        definitions: r#"(data (i32.const 2048) "tick")"#,
        on_tick: "(call $log (i32.const 2) (i32.const 2048) (i32.const 4))",
        ..Guest::default()
    };
    let setup = Setup::new().filter("ticks", ticks, "tick = \"20ms\"");
    let (gateway, out) = setup.start(&tenant("\"ticks\"", ""));
    // The first packet makes the instance.
    udp_agent(gateway.listener("udp")).send(&packet(b"pass")).unwrap();
    assert_eq!(out.next(), packet(b"pass"));
    eventually("it ticks", || gateway.lines_saying("tick").len() >= 3);
    gateway.stop();
}

#[test]
fn packets_of_nobody_are_dropped_and_counted_and_a_tenant_without_a_route_keeps_none() {
    let setup = Setup::new();
    let tenants = "[[tenant]]\nname = \"elsewhere\"\nroute = [\"out\"]\n[[tenant.match]]\nsource = \"192.0.2.0/24\"\n\
        [[tenant]]\nname = \"no-route\"\n[[tenant.match]]\nlistener = \"tcp\"\n";
    let (gateway, out) = setup.start(tenants);
    udp_agent(gateway.listener("udp")).send(&packet(b"pass")).unwrap();
    TcpStream::connect(gateway.listener("tcp")).unwrap().write_all(&packet(b"pass")).unwrap();
    gateway.await_metric("hepgate_listener_dropped_packets_total", &[("reason", "no-tenant"), ("listener", "udp")], 1);
    gateway.await_metric("hepgate_tenant_dropped_packets_total", &[("reason", "no-route"), ("tenant", "no-route")], 1);
    assert!(out.is_empty());
    gateway.stop();
}
