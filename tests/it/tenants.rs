use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hepgate::wire::{ChunkId, Packet, Version, decode};

use crate::filters::shipped;
use crate::support::certificates::{Authority, write};
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector, packet, sip};
use crate::support::{PATIENCE, eventually};
use crate::tls::agent;

const DROPPED: &str = "hepgate_tenant_dropped_packets_total";

/// A packet of that agent with these chunks beside what every packet has.
fn of(agent_id: u32, chunks: &[(ChunkId, &'static str)]) -> Vec<u8> {
    let mut pack = sip(Bytes::from_static(b"OPTIONS sip:a SIP/2.0\r\n\r\n"));
    pack.agent_id = agent_id;
    pack.chunks = chunks.iter().map(|(id, body)| (*id, Bytes::from_static(body.as_bytes()))).collect();
    pack.encode(Version::Hep3).unwrap().to_vec()
}

fn read(octets: Vec<u8>) -> Packet {
    decode(Bytes::from(octets)).unwrap()
}

fn key_of(packet: &Packet) -> Option<&[u8]> {
    packet.chunk(ChunkId::AUTH_KEY)
}

#[test]
fn a_key_opens_its_tenant_is_taken_out_and_shown_nowhere() {
    let (one, two) = (UdpSink::new(), UdpSink::new());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("second.key"), "secret-of-two\n").unwrap();
    let config = [
        BOTH_LISTENERS,
        &collector("one", &one.to()),
        &collector("two", &two.to()),
        "version = \"3\"\nauthentication_key = { env = \"HOMER_KEY\" }\n",
        r#"
[[tenant]]
name = "one"
route = ["one"]
[[tenant.match]]
authentication_keys = ["secret-of-one", "next-of-one"]
[[tenant]]
name = "two"
route = ["two"]
[[tenant.match]]
authentication_keys = [{ file = "second.key" }]
"#,
    ];
    let gateway = Gateway::start_as(folder, "workers = 1\nsummary = \"0s\"", &config.concat(), |command| {
        command.env("HOMER_KEY", "secret-of-homer");
    });
    let agent = udp_agent(gateway.listener("udp"));
    for key in ["secret-of-one", "next-of-one", "secret-of-two", "secret-of-nobody"] {
        agent.send(&of(1, &[(ChunkId::AUTH_KEY, key)])).unwrap();
    }
    agent.send(&of(1, &[])).unwrap();
    let taken: Vec<Packet> = one.take(2).into_iter().map(read).collect();
    assert!(taken.iter().all(|packet| key_of(packet).is_none()), "{taken:?}");
    // Nothing else is gone.
    assert_eq!(taken[0].octets().as_ref(), of(1, &[]));
    assert_eq!(key_of(&read(two.next())), Some(&b"secret-of-homer"[..]));
    gateway.await_metric("hepgate_listener_dropped_packets_total", &[("reason", "no-tenant")], 2);
    let (_, metrics) = gateway.get("/metrics");
    let ended = gateway.stop();
    assert!(one.is_empty() && two.is_empty());
    for shown in [metrics, ended.log_text()] {
        assert!(!shown.contains("secret-of") && !shown.contains("next-of"), "{shown}");
    }
}

/// Without a rule that names keys they are nobody's business here, but perhaps of who comes next.
#[test]
fn without_a_rule_about_keys_a_packet_keeps_its_own() {
    let out = UdpSink::new();
    let config = [BOTH_LISTENERS, &collector("out", &out.to()), crate::support::settings::ROUTE].concat();
    let gateway = Gateway::start(&config);
    let sent = of(1, &[(ChunkId::AUTH_KEY, "theirs")]);
    udp_agent(gateway.listener("udp")).send(&sent).unwrap();
    assert_eq!(out.next(), sent);
    gateway.stop();
}

#[test]
fn agents_and_groups_have_their_tenants_by_number_alias_and_name() {
    let sinks: Vec<UdpSink> = (0..4).map(|_| UdpSink::new()).collect();
    let mut config = format!("[agent_ids]\nfrankfurt = 2001\n{BOTH_LISTENERS}");
    let rules = ["agent_id = \"frankfurt\"", "agent_id = 7\nagent_name = \"seven\"", "group_id = \"carrier\"", ""];
    for (index, sink) in sinks.iter().enumerate() {
        config += &collector(&format!("c{index}"), &sink.to());
    }
    for (index, rule) in rules.iter().enumerate() {
        write!(config, "[[tenant]]\nname = \"t{index}\"\nroute = [\"c{index}\"]\n").unwrap();
        if !rule.is_empty() {
            write!(config, "[[tenant.match]]\n{rule}\n").unwrap();
        }
    }
    let gateway = Gateway::start(&config);
    let agent = udp_agent(gateway.listener("udp"));
    for (tenant, packet) in [
        (0, of(2_001, &[])),
        (3, of(2_002, &[])),
        (1, of(7, &[(ChunkId::AGENT_NAME, "seven")])),
        (3, of(7, &[(ChunkId::AGENT_NAME, "eight")])),
        (2, of(9, &[(ChunkId::GROUP_ID, "carrier")])),
        // The first rule that matches decides.
        (0, of(2_001, &[(ChunkId::GROUP_ID, "carrier")])),
    ] {
        agent.send(&packet).unwrap();
        assert_eq!(sinks[tenant].next(), packet);
    }
    gateway.stop();
}

#[test]
fn a_certificate_s_name_is_a_tenants() {
    let authority = Authority::new("test");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "server", &authority.sign("gateway.test"));
    std::fs::write(folder.path().join("agents.pem"), authority.pem()).unwrap();
    let (ours, rest) = (UdpSink::new(), UdpSink::new());
    let config = [
        r#"
[[listener]]
name = "tls"
listen = "hep_tls:127.0.0.1:0"
certificate = "server.pem"
key = "server.key"
client_certificates = "optional"
client_ca = "agents.pem"
"#,
        &collector("ours", &ours.to()),
        &collector("rest", &rest.to()),
        r#"
[[tenant]]
name = "ours"
route = ["ours"]
[[tenant.match]]
client_name = "Probe.Example"
[[tenant]]
name = "rest"
route = ["rest"]
"#,
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let common = authority.sign_with("unused.example", |params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(rcgen::DnType::CommonName, "probe.example");
    });
    for (own, sink) in [
        (Some(authority.sign("probe.example")), &ours),
        (Some(common), &ours),
        (Some(authority.sign("other.example")), &rest),
        (None, &rest),
    ] {
        let mut agent = agent(gateway.listener("tls"), &authority, own.as_ref());
        agent.write_all(&packet(b"hello")).unwrap();
        agent.flush().unwrap();
        assert_eq!(sink.next(), packet(b"hello"));
    }
    assert!(ours.is_empty() && rest.is_empty());
    gateway.stop();
}

#[test]
fn what_is_beyond_a_tenants_quota_is_dropped_and_no_other_tenant_notices() {
    let (bounded, free) = (UdpSink::new(), UdpSink::new());
    let config = [
        BOTH_LISTENERS,
        &collector("bounded", &bounded.to()),
        &collector("free", &free.to()),
        r#"
[[tenant]]
name = "packets"
route = ["bounded"]
packets_per_second_max = 1
burst = "50s"
[[tenant.match]]
agent_id = 1
[[tenant]]
name = "octets"
route = ["bounded"]
octets_per_second_max = 1
burst = "1m"
[[tenant.match]]
agent_id = 2
[[tenant]]
name = "free"
route = ["free"]
"#,
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let began = Instant::now();
    for _ in 0..80 {
        agent.send(&of(1, &[])).unwrap();
        agent.send(&of(3, &[])).unwrap();
    }
    agent.send(&of(2, &[])).unwrap();
    agent.send(&of(2, &[])).unwrap();
    assert_eq!(free.take(80).len(), 80);
    gateway.await_metric("hepgate_tenant_received_packets_total", &[], 162);
    gateway.await_quiet();
    let seconds = began.elapsed().as_secs();
    let metrics = gateway.metrics();
    let dropped = metrics.get(DROPPED, &[("tenant", "packets"), ("reason", "packet-quota")]);
    // A burst of 50, and one more for each second that this took.
    assert!((30 - seconds - 1..=30).contains(&dropped), "{dropped} in {seconds} s");
    // The first is larger than a burst of 60 octets: it is taken, as nothing came before it.
    assert_eq!(metrics.get(DROPPED, &[("tenant", "octets"), ("reason", "octet-quota")]), 1);
    assert_eq!(metrics.get(DROPPED, &[("tenant", "free")]), 0);
    assert_eq!(metrics.get("hepgate_tenant_routed_packets_total", &[("tenant", "packets")]), 80 - dropped);
    gateway.stop();
}

#[test]
fn one_connection_more_than_a_tenant_may_have_is_closed_and_its_packets_are_counted() {
    let out = UdpSink::new();
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        "[[tenant]]\nname = \"t\"\nroute = [\"out\"]\nconnections_max = 2\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let connect = || {
        let stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut within = [connect(), connect()];
    for stream in &mut within {
        stream.write_all(&packet(b"one")).unwrap();
        assert_eq!(out.next(), packet(b"one"));
    }
    let mut beyond = connect();
    beyond.write_all(&packet(b"two")).unwrap();
    gateway.await_metric(DROPPED, &[("reason", "connection-quota")], 1);
    // It may be reset while it writes.
    let _ = beyond.write_all(&packet(b"three"));
    assert!(matches!(beyond.read(&mut [0]), Ok(0) | Err(_)));
    gateway.await_metric("hepgate_listener_closed_connections_total", &[("reason", "tenant-connections-full")], 1);
    // When one ends, there is room again.
    drop(within);
    gateway.await_metric("hepgate_listener_open_connections", &[("listener", "tcp")], 0);
    let mut again = connect();
    again.write_all(&packet(b"four")).unwrap();
    assert_eq!(out.next(), packet(b"four"));
    drop(again);
    gateway.stop();
}

#[test]
fn a_tenant_tells_a_filter_its_own_things() {
    let out = UdpSink::new();
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &shipped("discard", "config = { methods = \"OPTIONS\" }"),
        r#"
[[tenant]]
name = "own"
filters = ["discard"]
route = ["out"]
[tenant.config.discard]
methods = "REGISTER"
[[tenant.match]]
agent_id = 1
[[tenant]]
name = "rest"
filters = ["discard"]
route = ["out"]
"#,
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    for agent_id in [2, 1] {
        agent.send(&of(agent_id, &[])).unwrap();
    }
    assert_eq!(out.next(), of(1, &[]));
    gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[("tenant", "rest")], 1);
    gateway.stop();
}

#[test]
fn what_a_tenant_tells_wrongly_keeps_the_gateway_from_starting_and_is_told_by_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hepgate.toml");
    let config = [
        BOTH_LISTENERS,
        &shipped("discard", "config = { methods = \"OPTIONS\" }"),
        "[[tenant]]\nname = \"own\"\nfilters = [\"discard\"]\n[tenant.config.discard]\nmethod = \"REGISTER\"\n",
        "[[tenant.match]]\nauthentication_keys = [{ file = \"nowhere\" }]\n",
    ];
    std::fs::write(&path, config.concat()).unwrap();
    let output = std::process::Command::new(crate::support::gateway::HEPGATE).arg("check").arg(&path).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(told.contains("tenant \"own\": filter \"discard\" does not start: "), "{told}");
    assert!(told.contains("tenant \"own\": authentication_keys: ") && told.contains("nowhere: No such file"), "{told}");
}

/// As many as an operator of hosted monitoring may have.
#[test]
fn a_thousand_tenants_with_ten_thousand_rules_each_get_their_packets() {
    let out = UdpSink::new();
    let mut config = [BOTH_LISTENERS, &collector("out", &out.to())].concat();
    for tenant in 0..1_000 {
        write!(config, "[[tenant]]\nname = \"t{tenant}\"\nroute = [\"out\"]\n").unwrap();
        for rule in 0..10 {
            write!(config, "[[tenant.match]]\nsource = \"127.0.0.0/8\"\nagent_id = {}\n", tenant * 10 + rule).unwrap();
        }
    }
    let gateway = Gateway::start(&config);
    let agent = udp_agent(gateway.listener("udp"));
    for agent_id in [0, 5_005, 9_999, 10_000] {
        agent.send(&of(agent_id, &[])).unwrap();
    }
    assert_eq!(out.take(3).len(), 3);
    gateway.await_metric("hepgate_listener_dropped_packets_total", &[("reason", "no-tenant")], 1);
    eventually("all routed", || {
        let metrics = gateway.metrics();
        ["t0", "t500", "t999"]
            .iter()
            .all(|tenant| metrics.get("hepgate_tenant_routed_packets_total", &[("tenant", *tenant)]) == 1)
    });
    let began = Instant::now();
    gateway.stop();
    assert!(began.elapsed() < Duration::from_secs(20));
}
