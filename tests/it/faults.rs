use std::path::Path;
use std::time::{Duration, Instant};

use hepgate::wire::decode;
use serde_json::Value;

use crate::support::gateway::{Gateway, files_in};
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

const QUARANTINES: &str = "hepgate_filter_quarantines_total";

/// A gateway with one filter of that guest in the chain of the tenant `hostile`, which has the packets of port `tcp`, and
/// a tenant without filters that has those of port `udp`.
fn start(guest: Guest<'_>, settings: &str) -> (Gateway, UdpSink, UdpSink) {
    let (hostile, honest) = (UdpSink::new(), UdpSink::new());
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", guest);
    let config = [
        BOTH_LISTENERS,
        "[[listener]]\nname = \"other\"\nlisten = \"hep_udp:127.0.0.1:0\"\n",
        &collector("hostile", &hostile.to()),
        &collector("honest", &honest.to()),
        &filter("f", settings),
        "[[tenant]]\nname = \"hostile\"\nfilters = [\"f\"]\nroute = [\"hostile\"]\n",
        "[[tenant.match]]\nlistener = \"udp\"\n",
        "[[tenant]]\nname = \"honest\"\nroute = [\"honest\"]\n",
    ];
    (Gateway::start_in(folder, &config.concat()), hostile, honest)
}

/// Sends them one after the other, each when the one before is through.
fn send_each(gateway: &Gateway, listener: &str, payloads: &[&[u8]]) {
    let agent = udp_agent(gateway.listener(listener));
    for payload in payloads {
        let before = gateway.metrics().sum("hepgate_tenant_received_packets_total");
        agent.send(&packet(payload)).unwrap();
        gateway.await_metric("hepgate_tenant_received_packets_total", &[], before + 1);
        gateway.await_quiet();
    }
}

fn cases(folder: &Path) -> Vec<Value> {
    let files = files_in(&folder.join("evidence"), "2").into_iter();
    let json = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    json.map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

#[test]
fn the_packet_that_a_filter_traps_on_is_kept_as_evidence_with_all_that_is_known() {
    let settings = "config = { colour = \"green\", secret = { env = \"HOME\" } }\nlimits = { fast_deadline = \"1s\" }";
    let (gateway, hostile, _) = start(BY_FIRST_OCTET, settings);
    let agent = udp_agent(gateway.listener("udp"));
    for payload in [&b"one"[..], b"a", b"trap here", b"b"] {
        agent.send(&packet(payload)).unwrap();
    }
    // All arrive: on_error is "pass".
    assert_eq!(hostile.take(4).len(), 4);
    gateway.await_metric("hepgate_filter_evidence_cases_total", &[], 1);
    gateway.await_metric("hepgate_filter_strikes_total", &[], 1);
    let ended = gateway.stop();
    let folder = ended.folder.path();
    let found = cases(folder);
    assert_eq!(found.len(), 1, "{found:?}");
    let case = &found[0];
    assert_eq!((&case["tenant"], &case["filter"], &case["kind"]), (&"hostile".into(), &"f".into(), &"trap".into()));
    assert_eq!((&case["packets"], &case["config"]["colour"]), (&1.into(), &"green".into()));
    assert_eq!(case["config"]["secret"], "(from the environment variable HOME)");
    assert!(case["fault"].as_str().unwrap().contains("unreachable"), "{case}");
    assert!(case["fault"].as_str().unwrap().contains("wasm backtrace: 0: 0x"), "{case}");
    assert_eq!(case["sha256"].as_str().unwrap().len(), 64);
    // The packet itself, as our own reader finds it.
    let pcapng = files_in(&folder.join("evidence"), "2").pop().unwrap();
    let output = std::process::Command::new(crate::support::gateway::HEPGATE)
        .args(["dump", "--json", "--read"])
        .arg(&pcapng)
        .output()
        .unwrap();
    let dumped = String::from_utf8(output.stdout).unwrap();
    assert_eq!(dumped.lines().count(), 1, "{dumped}");
    assert!(dumped.contains("747261702068657265"), "the payload in hexadecimal: {dumped}");
    assert_eq!(std::fs::read(pcapng).unwrap().windows(9).filter(|octets| octets == b"trap here").count(), 1);
}

#[test]
fn so_many_faults_are_quarantine_in_which_on_error_decides_and_nobody_else_notices() {
    let settings = "on_error = \"drop\"\n[filter.quarantine]\nstrikes_max = 3\ncool_down = \"2s\"\n[filter.limits]\n\
                    fast_deadline = \"1s\"";
    let (gateway, hostile, honest) = start(BY_FIRST_OCTET, settings);
    send_each(&gateway, "udp", &[b"one"]);
    assert_eq!(hostile.next(), packet(b"one"));
    // Faults in a row make the filter wait before it is started again, and packets meanwhile fail without one.
    let began = Instant::now();
    while gateway.metrics().sum(QUARANTINES) == 0 {
        send_each(&gateway, "udp", &[b"trap"]);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let line = gateway.lines_saying("quarantined: taken out of service").pop().unwrap();
    assert!(line["reason"].as_str().unwrap().starts_with("3 faults within 60s (strikes_max); the last: "), "{line}");
    let strikes = gateway.metrics().sum("hepgate_filter_strikes_total");
    assert_eq!(strikes, 3);
    // Good packets do not reach it either.
    let calls = gateway.metrics().sum("hepgate_filter_calls_total");
    send_each(&gateway, "udp", &[b"four"]);
    if gateway.metrics().sum("hepgate_filter_quarantined") == 1 {
        assert_eq!(gateway.metrics().sum("hepgate_filter_calls_total"), calls);
        assert!(hostile.is_empty());
    }
    send_each(&gateway, "other", &[b"honest"]);
    assert_eq!(honest.next(), packet(b"honest"));
    // The cool-down over, it is in service again.
    gateway.await_metric("hepgate_filter_quarantined", &[], 0);
    send_each(&gateway, "udp", &[b"five"]);
    assert_eq!(hostile.next(), packet(b"five"));
    gateway.stop();
}

#[test]
fn a_filter_that_drops_more_than_it_may_is_quarantined() {
    let settings = "[filter.quarantine]\ndrop_percent_max = 50\ncool_down = \"0s\"\n[filter.limits]\n\
                    fast_deadline = \"1s\"";
    let (gateway, hostile, _) = start(BY_FIRST_OCTET, settings);
    let agent = udp_agent(gateway.listener("udp"));
    // Of 100 packets 51 dropped: one more than half.
    for index in 0..100 {
        agent.send(&packet(if index % 2 == 0 || index == 99 { b"drop" } else { b"pass" })).unwrap();
    }
    gateway.await_metric("hepgate_filter_quarantines_total", &[], 1);
    gateway.await_quiet();
    let line = gateway.lines_saying("quarantined: taken out of service").pop().unwrap();
    assert_eq!(line["reason"], "dropped 51 of 100 packets within 10s; drop_percent_max is 50");
    assert_eq!(hostile.take(49).len(), 49);
    // What it would drop goes on now, as on_error says.
    send_each(&gateway, "udp", &[b"drop"]);
    assert_eq!(hostile.next(), packet(b"drop"));
    gateway.stop();
}

/// Takes a page of memory with every call.
#[test]
fn a_filter_that_leaks_is_replaced_before_it_hits_its_limit() {
    let guest = Guest {
        on_batch: "(if (i32.eq (i32.const -1) (memory.grow (i32.const 1))) (then unreachable))",
        ..Guest::default()
    };
    let settings = "[filter.limits]\nmemory_octets_max = 1_048_576\nfast_deadline = \"1s\"";
    let (gateway, hostile, _) = start(guest, settings);
    // It begins with 2 pages of 65 536 octets, and is replaced at 80 % of 16: with the eleventh call.
    send_each(&gateway, "udp", &[&b"x"[..]; 25]);
    assert_eq!(hostile.take(25).len(), 25);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("hepgate_filter_recycled_instances_total"), 2);
    assert_eq!(metrics.sum("hepgate_filter_faults_total"), 0);
    gateway.stop();
}

#[test]
fn one_packet_in_a_thousand_that_traps_costs_nothing_but_itself() {
    let settings = "on_error = \"drop\"\n[filter.quarantine]\nstrikes_max = 0\n[filter.limits]\nfast_deadline = \"1s\"";
    let (gateway, hostile, honest) = start(BY_FIRST_OCTET, settings);
    let (agent, other) = (udp_agent(gateway.listener("udp")), udp_agent(gateway.listener("other")));
    for round in 0..1_000 {
        agent.send(&packet(if round == 500 { b"trap" } else { b"fine" })).unwrap();
        other.send(&packet(b"honest")).unwrap();
        if round % 50 == 0 {
            assert_eq!(decode(honest.next().into()).unwrap().payload(), b"honest");
            assert_eq!(decode(hostile.next().into()).unwrap().payload(), b"fine");
        }
    }
    gateway.await_metric("hepgate_tenant_received_packets_total", &[], 2_000);
    gateway.await_quiet();
    let metrics = gateway.metrics();
    assert_eq!(metrics.get("hepgate_tenant_routed_packets_total", &[("tenant", "hostile")]), 999);
    assert_eq!(metrics.get("hepgate_tenant_routed_packets_total", &[("tenant", "honest")]), 1_000);
    assert_eq!(metrics.get("hepgate_tenant_dropped_packets_total", &[("reason", "filter-failed")]), 1);
    gateway.stop();
}

#[test]
fn a_filter_that_fails_again_and_again_is_started_more_and_more_seldom() {
    let settings = "on_error = \"drop\"\n[filter.quarantine]\nstrikes_max = 0\n[filter.limits]\nfast_deadline = \"1s\"";
    let (gateway, hostile, _) = start(BY_FIRST_OCTET, settings);
    let agent = udp_agent(gateway.listener("udp"));
    for _ in 0..200 {
        agent.send(&packet(b"trap")).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.await_metric("hepgate_tenant_received_packets_total", &[("tenant", "hostile")], 200);
    gateway.await_quiet();
    // At once, once more, and then after waits that double from 100 ms: of 200 packets it fails at a few.
    let strikes = gateway.metrics().sum("hepgate_filter_strikes_total");
    assert!((3..=10).contains(&strikes), "{strikes}");
    assert!(gateway.metrics().sum("hepgate_filter_started_instances_total") <= 11);
    gateway.await_metric("hepgate_tenant_dropped_packets_total", &[("reason", "filter-failed")], 200);
    gateway.stop();
    assert!(hostile.is_empty());
}

#[test]
fn evidence_of_a_filter_is_bounded_and_the_oldest_goes() {
    let (hostile, folder) = (UdpSink::new(), tempfile::tempdir().unwrap());
    guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let config = [
        BOTH_LISTENERS,
        &collector("hostile", &hostile.to()),
        &filter("f", "[filter.quarantine]\nstrikes_max = 0\n[filter.limits]\nfast_deadline = \"1s\""),
        "[[tenant]]\nname = \"hostile\"\nfilters = [\"f\"]\nroute = [\"hostile\"]\n",
    ];
    let settings = "workers = 1\nsummary = \"0s\"\nevidence_per_filter_max = 2";
    let gateway = Gateway::start_with(folder, settings, &config.concat());
    let began = Instant::now();
    while gateway.metrics().sum("hepgate_filter_evidence_cases_total") < 4 {
        send_each(&gateway, "udp", &[b"trap"]);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let ended = gateway.stop();
    assert_eq!(cases(ended.folder.path()).len(), 2);
    let names = ended.files("evidence", "2");
    let name = names[0].file_name().unwrap().to_str().unwrap();
    assert!(name.contains("-000003+hostile+f."), "{name}");
}
