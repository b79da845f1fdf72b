use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::eventually;
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::guest;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

/// `hepgate` asks that gateway.
fn ask(gateway: &Gateway, arguments: &[&str]) -> Output {
    Command::new(HEPGATE).args(arguments).args(["--admin", &gateway.admin()]).output().unwrap()
}

fn text(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = ask(gateway, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(gateway, &[arguments, &["--json"]].concat())).unwrap()
}

/// The cells of a table's row that has that word in it.
fn row(table: &str, word: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.split_whitespace().any(|cell| cell == word)).expect(table);
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

fn start(more: &str) -> (Gateway, UdpSink) {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &filter("f", &format!("on_error = \"drop\"\nlimits = {{ fast_deadline = \"1s\" }}\n{more}")),
        "[[tenant]]\nname = \"acme\"\nfilters = [\"f\"]\nroute = [\"out\"]\n",
    ];
    (Gateway::start_in(folder, &config.concat()), out)
}

#[test]
fn filters_tenants_and_collectors_are_shown_with_their_figures() {
    let (gateway, out) = start("");
    let agent = udp_agent(gateway.listener("udp"));
    for payload in [&b"a"[..], b"skip", b"drop", b"trap"] {
        agent.send(&packet(payload)).unwrap();
    }
    assert_eq!(out.next(), packet(b"a"));
    gateway.await_metric("hepgate_tenant_received_packets_total", &[], 4);
    gateway.await_quiet();
    let shown = row(&text(&gateway, &["filters"]), "acme");
    assert_eq!((shown[1].as_str(), shown[2].as_str()), ("f", "in service"), "{shown:?}");
    let filters = json(&gateway, &["filters"]);
    let shown_filter = &filters[0];
    assert_eq!(shown[3], shown_filter["sha256"].as_str().unwrap()[..12]);
    assert_eq!((&shown_filter["packets"], &shown_filter["dropped"]), (&3.into(), &1.into()));
    assert_eq!((&shown_filter["failed"], &shown_filter["strikes"]), (&1.into(), &1.into()));
    assert!(shown_filter["faults"]["trap"].as_u64().unwrap() >= 1, "{filters:#}");
    let memory = &shown_filter["limits"]["memory_octets_max"];
    assert_eq!((&memory["peak"], &memory["limit"]), (&131_072.into(), &16_777_216.into()));
    assert!(shown_filter["p50_us"].as_u64().is_some_and(|micros| micros >= 1), "{filters:#}");
    let shown = row(&text(&gateway, &["tenants"]), "acme");
    assert_eq!(shown[1..], ["f", "out", "4", "1", "1", "1", "1 filter-failed", "0"]);
    let shown = row(&text(&gateway, &["collectors"]), "out");
    assert_eq!(shown[2..], ["1", "1", "0", "-", "0", "0", "0"]);
    gateway.stop();
}

#[test]
fn a_filter_in_quarantine_is_listed_with_its_evidence_and_released() {
    let (gateway, out) = start("[filter.quarantine]\nstrikes_max = 2\ncool_down = \"0s\"");
    let agent = udp_agent(gateway.listener("udp"));
    let began = Instant::now();
    while gateway.metrics().sum("hepgate_filter_quarantined") == 0 {
        agent.send(&packet(b"trap")).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let shown = row(&text(&gateway, &["quarantine", "list"]), "acme");
    assert_eq!(shown[2..4], ["quarantined", "until released"]);
    assert!(shown[5].starts_with("2 faults within 60s (strikes_max); the last: "), "{shown:?}");
    let mut case = String::new();
    eventually("evidence", || {
        let list = json(&gateway, &["quarantine", "list"]);
        case = list[0]["evidence"][0].as_str().unwrap_or_default().to_owned();
        !case.is_empty()
    });
    let shown = text(&gateway, &["quarantine", "show", &case]);
    assert!(shown.contains("tenant   acme\n") && shown.contains("kind     trap\n"), "{shown}");
    let pcapng = json(&gateway, &["quarantine", "show", &case])["pcapng"].as_str().unwrap().to_owned();
    assert!(std::fs::read(pcapng).unwrap().windows(4).any(|octets| octets == b"trap"));
    assert_eq!(row(&text(&gateway, &["filters"]), "acme")[2], "quarantined");
    // Nor does a packet that would do it no harm reach it: `on_error` decides.
    gateway.await_quiet();
    let (calls, received) = (
        gateway.metrics().sum("hepgate_filter_calls_total"),
        gateway.metrics().sum("hepgate_tenant_received_packets_total"),
    );
    agent.send(&packet(b"fine")).unwrap();
    gateway.await_metric("hepgate_tenant_received_packets_total", &[], received + 1);
    gateway.await_quiet();
    assert_eq!(gateway.metrics().sum("hepgate_filter_calls_total"), calls);
    assert!(out.is_empty());
    let released = text(&gateway, &["quarantine", "release", "acme", "f"]);
    assert_eq!(released, "filter f of tenant acme is in service again\n");
    assert_eq!(text(&gateway, &["quarantine", "release", "acme", "f"]), "filter f of tenant acme was in service\n");
    gateway.await_quiet();
    agent.send(&packet(b"again")).unwrap();
    assert_eq!(out.next(), packet(b"again"));
    for (arguments, told) in [
        (&["quarantine", "release", "acme", "g"][..], "hepgate: tenant \"acme\" has no filter \"g\"\n"),
        (&["quarantine", "show", "../hepgate.toml"], "hepgate: there is no case \"../hepgate.toml\"\n"),
    ] {
        let output = ask(&gateway, arguments);
        assert!(!output.status.success());
        assert_eq!(String::from_utf8(output.stderr).unwrap(), told);
    }
    // Nor can a page on the web release it.
    assert_eq!(gateway.request("POST", "/release/acme/f", "Origin: http://evil.example\r\n").0, 403);
    gateway.stop();
}

#[test]
fn a_gateway_is_found_by_its_configuration_and_reloads_when_it_is_told() {
    let (gateway, _out) = start("");
    assert_eq!(text(&gateway, &["reload"]), "nothing has changed\n");
    let config = gateway.folder.path().join("hepgate.toml");
    let output = Command::new(HEPGATE).args(["filters", "--config"]).arg(&config).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("[admin] listen has port 0: say with --admin where the gateway listens"), "{told}");
    std::fs::write(&config, "[[listener]]\n").unwrap();
    let output = ask(&gateway, &["reload"]);
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("listener[0]: `listen` is missing") || told.contains("`name` is missing"), "{told}");
    gateway.stop();
    let nobody = Command::new(HEPGATE).args(["tenants", "--admin", "127.0.0.1:1"]).output().unwrap();
    let told = String::from_utf8(nobody.stderr).unwrap();
    assert!(told.starts_with("hepgate: the gateway at 127.0.0.1:1 does not answer: "), "{told}");
}
