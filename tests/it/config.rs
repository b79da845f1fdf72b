use std::path::Path;
use std::time::Duration;

use hepgate::config::{
    CollectorId, Complaint, Config, ConfigError, ConfigValue, Destination, OnError, ProtoHep, StreamSettings,
};

/// What every configuration needs.
const LEAST: &str = "
[[listener]]
name = \"udp\"
listen = \"hep_udp:127.0.0.1:5656\"
[[tenant]]
name = \"default\"
";

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hepgate.toml")).unwrap()
}

fn parse(text: &str) -> Result<Config, Vec<Complaint>> {
    Config::parse(text, Path::new("/folder"))
}

fn complaints(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The manual with every key and table header uncommented that stands behind this.
fn uncommented(prefix: &str) -> String {
    let uncomment = |line: &str| match line.strip_prefix(prefix) {
        Some(rest) if is_key(rest) || is_header(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    manual().lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

fn is_key(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
}

fn is_header(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']') && !line.contains(' ')
}

/// Headers of tables whose keys are the operator's own.
const OPEN_TABLES: [&str; 2] = ["[tenant.config.discard]", "[agent_ids]"];

#[test]
fn the_manual_is_the_default_configuration_and_every_key_in_it_stands_at_its_default() {
    let manual = parse(&manual()).unwrap();
    let spelt_out = uncommented("# ");
    // The uncommenting works: keys of every table are in it.
    for key in ["workers", "grace", "level", "listen", "hep_port", "slow_threads", "receive_buffer_octets", "idle"]
        .into_iter()
        .chain(["mailbox_octets_max", "files_max", "on_error", "memory_octets_max", "component_octets_max", "lane"])
    {
        let is_set = |line: &str| line.starts_with(&format!("{key} = "));
        assert!(spelt_out.lines().any(is_set), "{key}");
    }
    assert_eq!(parse(&spelt_out).unwrap(), manual);
}

#[test]
fn the_examples_in_the_manual_are_right_and_their_keys_stand_at_their_defaults() {
    let spelt_out = parse(&uncommented("#   ")).unwrap();
    let collectors = "
        [[collector]]
        name = \"homer\"
        to = \"hep_tcp:homer.example.org:9060\"
        [[collector]]
        name = \"centre\"
        to = \"hep_tls:hepgate.example.org:5657\"
        ca = \"centre-ca.pem\"
        certificate = \"probe.pem\"
        key = \"probe.key\"
        authentication_key = { env = \"HOMER_KEY\" }
        [[collector]]
        name = \"opensips\"
        to = \"hep_udp:192.0.2.7:5656\"";
    let hep_ids = "[proto_hep]
        hep_id = [\"[homer5] 192.0.2.8:9060; transport=udp; version=3\", \"[homer6] [2001:db8::8]:9060\"]";
    let least = parse(&format!("{hep_ids}{LEAST}{collectors}")).unwrap();
    assert_eq!(least.collectors.len(), 5);
    assert_eq!(spelt_out.collectors[1..], least.collectors[..]);
    let tenant = &spelt_out.tenants[0];
    assert_eq!((tenant.matches.len(), tenant.config.len()), (1, 1));
    let rule = &tenant.matches[0];
    assert_eq!((rule.agent_id, rule.authentication_keys.len()), (Some(2_001), 2));
}

#[test]
fn a_key_that_nobody_knows_is_an_error_at_every_level() {
    let text = uncommented("# ");
    let headers: Vec<usize> =
        text.lines().enumerate().filter(|(_, line)| line.starts_with('[')).map(|(index, _)| index).collect();
    assert!(headers.len() >= 12, "{headers:?}");
    for header in headers {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.insert(header + 1, "planted = 1");
        let found = complaints(&lines.join("\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("{}:1: ", header + 2)), "{found:?}");
        assert!(found[0].contains(".planted: unknown key; known here: "), "{found:?}");
    }
    assert_eq!(complaints(&format!("planted = 1\n{LEAST}")).len(), 1);
}

#[test]
fn every_key_that_is_known_stands_in_the_manual() {
    // All keys that are commented out, and all examples.
    let text = uncommented("# ");
    let examples = uncommented("#   ");
    let is_set = |key: &str| {
        let sets = |line: &str| line.starts_with(&format!("{key} = "));
        text.lines().any(sets) || examples.lines().any(sets)
    };
    let mut known = std::collections::BTreeSet::new();
    for manual in [&text, &examples] {
        let is_ours = |line: &str| line.starts_with('[') && !OPEN_TABLES.contains(&line);
        for header in manual.lines().enumerate().filter(|(_, line)| is_ours(line)).map(|(index, _)| index) {
            let mut lines: Vec<&str> = manual.lines().collect();
            lines.insert(header + 1, "planted = 1");
            let found = complaints(&lines.join("\n"));
            let (_, keys) = found[0].split_once("unknown key; known here: ").unwrap();
            known.extend(keys.split(", ").map(str::to_owned));
        }
    }
    assert!(known.len() > 70, "{known:?}");
    // Tables, which have headers instead.
    let tables = ["match", "limits", "sni", "config", "quarantine", "subscription"];
    let missing: Vec<&String> = known.iter().filter(|key| !tables.contains(&key.as_str()) && !is_set(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_number_is_taken_at_its_edges_and_refused_one_beyond() {
    let tcp = "[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:1\"\n";
    let file = "[[collector]]\nname = \"c\"\nto = \"file:c\"\n";
    let to_tcp = "[[collector]]\nname = \"c\"\nto = \"hep_tcp:c\"\n";
    let to_udp = "[[collector]]\nname = \"c\"\nto = \"hep_udp:c\"\n";
    let limits = "[[filter]]\nname = \"f\"\ncomponent = \"f\"\n[filter.limits]\n";
    let quarantine = "[[filter]]\nname = \"f\"\ncomponent = \"f\"\n[filter.quarantine]\n";
    let udp = "[[listener]]\nname = \"u\"\nlisten = \"hep_udp:127.0.0.1:1\"\n";
    for (table, key, least, most) in [
        ("[gateway]\n", "workers", 0, 256),
        ("[proto_hep]\n", "hep_port", 1, 65_535),
        ("[proto_hep]\n", "hep_send_timeout", 1, 600_000),
        ("[proto_hep]\n", "hep_max_msg_chunks", 1, 65_535),
        ("[proto_hep]\n", "hep_async_max_postponed_chunks", 0, 1_000_000),
        ("[proto_hep]\n", "hep_async", 0, 1),
        ("[proto_hep]\n", "hep_async_local_connect_timeout", 0, 600_000),
        ("[proto_hep]\n", "hep_async_local_write_timeout", 0, 600_000),
        ("[proto_hep]\n", "hep_max_retries", 0, 65_535),
        ("[proto_hep]\n", "hep_retry_cooldown", 1, 65_535),
        ("[proto_hep]\n", "hep_capture_id", 0, 65_535),
        ("[proto_hep]\n", "homer5_on", 0, 1),
        ("[proto_hep]\n", "compressed_payload", 0, 1),
        ("[sandbox]\n", "slow_threads", 1, 256),
        ("[sandbox]\n", "slow_queue_batches", 1, 65_536),
        ("[sandbox]\n", "stack_octets_max", 65_536, 1_048_576),
        (udp, "receive_buffer_octets", 4_096, 1 << 30),
        (tcp, "connections_max", 1, 1_000_000),
        (tcp, "connections_per_peer_max", 1, 1_000_000),
        (tcp, "hep_max_msg_chunks", 1, 65_535),
        (file, "mailbox_octets_max", 65_536, 1 << 30),
        (file, "rotate_octets", 65_536, 1 << 40),
        (file, "files_max", 0, 1_000_000),
        (to_tcp, "hep_send_timeout", 1, 600_000),
        (to_tcp, "hep_async_max_postponed_chunks", 0, 1_000_000),
        (to_tcp, "hep_async", 0, 1),
        (to_tcp, "hep_async_local_connect_timeout", 0, 600_000),
        (to_tcp, "hep_async_local_write_timeout", 0, 600_000),
        (to_tcp, "hep_max_retries", 0, 65_535),
        (to_tcp, "hep_retry_cooldown", 1, 65_535),
        (to_udp, "hep_async_max_postponed_chunks", 0, 1_000_000),
        ("", "packets_per_second_max", 0, 100_000_000),
        ("", "octets_per_second_max", 0, 1 << 40),
        ("", "connections_max", 0, 1_000_000),
        ("[[tenant.match]]\n", "agent_id", 0, u32::MAX.into()),
        ("[agent_ids]\n", "a", 0, u32::MAX.into()),
        ("[gateway]\n", "evidence_octets_max", 0, 1 << 40),
        ("[gateway]\n", "evidence_per_filter_max", 1, 100_000),
        (limits, "recycle_percent", 1, 100),
        (limits, "functions_max", 1, 1_000_000),
        (limits, "fuel_per_packet_max", 0, 1_000_000_000_000),
        (limits, "function_octets_max", 1, 7_654_321),
        (limits, "state_keys_max", 0, 1_000_000),
        (limits, "state_octets_max", 0, 1 << 30),
        (limits, "metrics_max", 0, 1_000),
        (limits, "metric_series_max", 0, 100_000),
        (limits, "metric_label_octets_max", 1, 1_024),
        (quarantine, "strikes_max", 0, 10_000),
        (quarantine, "drop_percent_max", 0, 100),
        (limits, "memory_octets_max", 65_536, 1 << 30),
        (limits, "table_elements_max", 0, 1_000_000),
        (limits, "handles_max", 1, 10_000),
        (limits, "host_calls_max", 16, 10_000_000),
        (limits, "hostcall_octets_max", 1_024, 128 << 20),
        (limits, "moved_octets_max", 65_536, 1 << 30),
        (limits, "sends_max", 0, 65_536),
        (limits, "send_octets_max", 0, 1 << 30),
        (limits, "log_lines_max", 0, 10_000),
        (limits, "log_line_octets_max", 16, 65_536),
        (limits, "component_octets_max", 1_024, 256 << 20),
    ] {
        let with = |value: i64| parse(&format!("{LEAST}{table}{key} = {value}\n"));
        assert!(with(least).is_ok(), "{key} = {least}");
        assert!(with(most).is_ok(), "{key} = {most}");
        for beyond in [least - 1, most + 1] {
            let found = with(beyond).unwrap_err();
            assert_eq!(found.len(), 1, "{key} = {beyond}: {found:?}");
            assert_eq!(found[0].text, format!("{beyond} is not between {least} and {most}"), "{key}");
        }
    }
}

#[test]
fn every_time_is_taken_at_its_edges_and_refused_one_beyond() {
    let tcp = "[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:1\"\n";
    let file = "[[collector]]\nname = \"c\"\nto = \"file:c\"\n";
    let to_tcp = "[[collector]]\nname = \"c\"\nto = \"hep_tcp:c\"\n";
    let to_tls = "[[collector]]\nname = \"c\"\nto = \"hep_tls:c\"\n";
    let filter = "[[filter]]\nname = \"f\"\ncomponent = \"f\"\n";
    let limits = "[[filter]]\nname = \"f\"\ncomponent = \"f\"\n[filter.limits]\n";
    let quarantine = "[[filter]]\nname = \"f\"\ncomponent = \"f\"\n[filter.quarantine]\n";
    for (table, key, below, least, most, above) in [
        ("[gateway]\n", "grace", "", "0s", "10m", "600001ms"),
        ("[gateway]\n", "summary", "", "0s", "1d", "86400001ms"),
        ("[sandbox]\n", "slow_healthy_after", "9ms", "10ms", "1d", "86400001ms"),
        (tcp, "idle", "99ms", "100ms", "1d", "86400001ms"),
        (file, "rotate_after", "999ms", "1s", "366d", "31622400001ms"),
        (to_tcp, "connect_timeout", "0s", "1ms", "1h", "3600001ms"),
        (to_tcp, "backoff_min", "0s", "1ms", "30s", "3600001ms"),
        (to_tls, "handshake_timeout", "99ms", "100ms", "10m", "600001ms"),
        (to_tcp, "backoff_max", "0s", "1ms", "1h", "3600001ms"),
        (filter, "tick", "", "0s", "1d", "86400001ms"),
        ("", "burst", "9ms", "10ms", "1m", "60001ms"),
        (quarantine, "strikes_window", "999ms", "1s", "1d", "86400001ms"),
        (quarantine, "cool_down", "", "0s", "30d", "2592000001ms"),
        (quarantine, "drop_window", "999ms", "1s", "1d", "86400001ms"),
        (limits, "clock_grain", "0s", "1ms", "1h", "3600001ms"),
        (limits, "fast_deadline", "0s", "1ms", "60s", "60001ms"),
        (limits, "slow_deadline", "0s", "1ms", "1m", "60001ms"),
        (limits, "init_deadline", "0s", "1ms", "1m", "60001ms"),
    ] {
        let with = |value: &str| parse(&format!("{LEAST}{table}{key} = \"{value}\"\n"));
        for good in [least, most] {
            assert!(with(good).is_ok(), "{key} = {good}: {:?}", with(good));
        }
        for bad in [below, above].into_iter().filter(|bad| !bad.is_empty()) {
            assert_eq!(with(bad).unwrap_err().len(), 1, "{key} = {bad}");
        }
    }
}

#[test]
fn all_complaints_come_at_once_with_their_places_and_paths() {
    let text = r#"
[gateway]
workers = "two"
[[listener]]
name = "udp"
listen = "hep_udp:nowhere"
[[listener]]
name = "udp"
listen = "hep_udp:127.0.0.1:70000"
idle = "10s"
[[collector]]
name = "homer"
to = "ftp:homer"
[[filter]]
name = "f f"
component = "f.wasm"
config = { key = { files = "x" }, list = [1] }
collectors = ["homer", "nobody"]
[filter.limits]
memory = 1
[[tenant]]
name = "a"
filters = ["f", "g"]
route = ["homer", 7]
[[tenant.match]]
source = "10.0.0.0/33"
[[tenant.match]]
[[tenant]]
name = "b"
[[tenant]]
name = "c"
"#;
    let expected = [
        "3:11: gateway.workers: a whole number is wanted, not a text",
        "6:10: listener[0].listen: \"nowhere\" is not an IP address; a listener takes one, or * for all",
        "8:8: listener[1].name: another [[listener]] is named \"udp\"",
        "9:10: listener[1].listen: \"70000\" is not a port between 0 and 65535",
        "13:6: collector[0].to: \"ftp:homer\" does not begin with hep_udp:, hep_tcp: or hep_tls:; or file:FOLDER",
        "15:8: filter[0].name: \"f f\" is not a name: 1 to 64 of a-z, A-Z, 0-9, -, _ and .",
        "17:18: filter[0].config.key: a table here is { file = \"…\" } or { env = \"…\" }",
        "17:42: filter[0].config.list: a text, a whole number, true or false is wanted, not a list",
        "18:15: filter[0].collectors[0]: no collector is named \"homer\"; there is none",
        "18:24: filter[0].collectors[1]: no collector is named \"nobody\"; there is none",
        "20:1: filter[0].limits.memory: unknown key; known here: ",
        "23:12: tenant[0].filters[0]: no filter is named \"f\"; there is none",
        "23:17: tenant[0].filters[1]: no filter is named \"g\"; there is none",
        "24:10: tenant[0].route[0]: no collector is named \"homer\"; there is none",
        "24:19: tenant[0].route[1]: a text in quotes is wanted, not a whole number",
        "26:10: tenant[0].match[0].source: \"10.0.0.0/33\" is neither a network nor an address",
        "27:1: tenant[0].match[1]: a rule names at least one of listener, source, client_name, ",
        "30:1: tenant[2]: never reached: tenant \"b\" before it has no [[tenant.match]] and takes everything",
    ];
    let found = complaints(text);
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "found    {found}\nexpected {expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hepgate.toml");
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: No such file or directory (os error 2)", path.display()));
    std::fs::write(&path, "[[listener]]\nname = \n").unwrap();
    let error = Config::load(&path).unwrap_err();
    assert!(matches!(&error, ConfigError::Invalid { complaints, .. } if complaints.len() == 1), "{error}");
    assert!(error.to_string().starts_with(&format!("{}:2:8: ", path.display())), "{error}");
}

#[test]
fn proto_hep_s_parameters_are_the_defaults_of_listeners_and_collectors() {
    let text = r#"
[proto_hep]
hep_port = 9060
hep_send_timeout = 250
hep_max_msg_chunks = 7
hep_async_max_postponed_chunks = 9
hep_async = 0
hep_async_local_connect_timeout = 3
hep_async_local_write_timeout = 4
hep_max_retries = 0
hep_retry_cooldown = 60
[[listener]]
name = "a"
listen = "hep_tcp:127.0.0.1"
[[listener]]
name = "b"
listen = "hep_tcp:127.0.0.1:1"
hep_max_msg_chunks = 8
[[collector]]
name = "a"
to = "hep_tcp:homer"
[[collector]]
name = "b"
to = "hep_tcp:homer:1"
hep_send_timeout = 251
hep_async_max_postponed_chunks = 10
hep_async = 1
hep_async_local_connect_timeout = 30
hep_async_local_write_timeout = 40
hep_max_retries = 70
hep_retry_cooldown = 600
[[tenant]]
name = "t"
"#;
    let config = parse(text).unwrap();
    let chunks: Vec<u32> = config.listeners.iter().map(|listener| listener.stream.hep_max_msg_chunks).collect();
    assert_eq!((config.listeners[0].listen.port, chunks), (9_060, vec![7, 8]));
    let streams: Vec<StreamSettings> = config
        .collectors
        .iter()
        .map(|collector| match &collector.destination {
            Destination::Tcp { to, stream, .. } => {
                assert_eq!(to.port, if collector.name == "a" { 9_060 } else { 1 });
                *stream
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let a = StreamSettings {
        hep_send_timeout: Duration::from_millis(250),
        hep_async_max_postponed_chunks: 9,
        hep_async: false,
        hep_async_local_connect_timeout: Duration::from_millis(3),
        hep_async_local_write_timeout: Duration::from_millis(4),
        hep_max_retries: 0,
        hep_retry_cooldown: Duration::from_secs(60),
        // Not of proto_hep.
        ..streams[0]
    };
    let b = StreamSettings {
        hep_send_timeout: Duration::from_millis(251),
        hep_async_max_postponed_chunks: 10,
        hep_async: true,
        hep_async_local_connect_timeout: Duration::from_millis(30),
        hep_async_local_write_timeout: Duration::from_millis(40),
        hep_max_retries: 70,
        hep_retry_cooldown: Duration::from_secs(600),
        ..streams[0]
    };
    assert_eq!(streams, [a, b]);
}

#[test]
fn proto_hep_s_parameters_have_the_defaults_of_the_module() {
    let text = "[[collector]]\nname = \"c\"\nto = \"hep_tcp:homer\"\n";
    let config = parse(&format!("{LEAST}{text}")).unwrap();
    let Destination::Tcp { to, stream, .. } = &config.collectors[0].destination else { panic!("{config:?}") };
    assert_eq!(to.port, 5_656);
    let milliseconds = [
        stream.hep_send_timeout,
        stream.hep_async_local_connect_timeout,
        stream.hep_async_local_write_timeout,
        stream.hep_retry_cooldown,
    ];
    assert_eq!(milliseconds.map(|time| time.as_millis()), [100, 100, 10, 3_600_000]);
    assert_eq!((stream.hep_async, stream.hep_async_max_postponed_chunks, stream.hep_max_retries), (true, 32, 5));
    assert_eq!((config.listeners[0].stream.hep_max_msg_chunks, config.proto_hep.hep_capture_id), (32, 1));
    let ProtoHep { homer5_on, homer5_delim, compressed_payload, .. } = &config.proto_hep;
    assert_eq!((*homer5_on, homer5_delim.as_str(), *compressed_payload), (true, ":", false));
}

#[test]
fn the_delimiter_of_homer_5_has_any_64_octets_and_no_more() {
    let with = |octets: usize| parse(&format!("[proto_hep]\nhomer5_delim = \"{}\"\n{LEAST}", "#".repeat(octets)));
    assert_eq!(with(64).unwrap().proto_hep.homer5_delim.len(), 64);
    assert_eq!(with(0).unwrap().proto_hep.homer5_delim, "");
    assert_eq!(with(65).unwrap_err()[0].text, "65 octets are more than 64");
}

#[test]
fn the_first_wait_is_not_longer_than_the_longest() {
    let with = |more: &str| parse(&format!("{LEAST}[[collector]]\nname = \"c\"\nto = \"hep_tcp:c\"\n{more}"));
    let waits = |more: &str| match &with(more).unwrap().collectors[0].destination {
        Destination::Tcp { stream, .. } => [stream.backoff_min, stream.backoff_max].map(|wait| wait.as_millis()),
        other => panic!("{other:?}"),
    };
    assert_eq!(waits(""), [1_000, 30_000]);
    assert_eq!(waits("backoff_max = \"200ms\"\n"), [200, 200]);
    assert_eq!(waits("backoff_min = \"30s\"\n"), [30_000, 30_000]);
    let found = with("backoff_min = \"30001ms\"\n").unwrap_err();
    assert_eq!((found.len(), found[0].text.as_str()), (1, "backoff_min is longer than backoff_max"));
}

#[test]
fn certificates_for_further_names_are_complained_of_at_their_places() {
    let tls =
        "[[listener]]\nname = \"t\"\nlisten = \"hep_tls:127.0.0.1:1\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    let named = |name: &str| format!("[[listener.sni]]\nserver_name = \"{name}\"\ncertificate = \"b\"\nkey = \"k\"\n");
    let config = parse(&[LEAST, tls, &named("B.example")].concat()).unwrap();
    let names: Vec<&String> = config.listeners[1].tls.as_ref().unwrap().named.keys().collect();
    assert_eq!(names, ["b.example"]);
    let found =
        complaints(&[LEAST, tls, &named("b"), &named("B"), &named("192.0.2.1 x"), "[[listener.sni]]\n"].concat());
    let expected = [
        "listener[1].sni[1].server_name: another certificate is for \"B\"",
        "listener[1].sni[2].server_name: \"192.0.2.1 x\" is no name that an agent can ask for",
        "listener[1].sni[3]: `certificate` is missing",
        "listener[1].sni[3]: `key` is missing",
        "listener[1].sni[3]: `server_name` is missing: the name that agents ask for",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "found    {found}\nexpected {expected}");
    }
    let plain = complaints(&[LEAST, &named("b")].concat());
    assert!(plain.iter().any(|found| found.contains("listener[0].sni: unknown key")), "{plain:?}");
}

#[test]
fn the_tls_of_a_collector_is_checked_as_far_as_it_can_be_without_its_files() {
    let with = |more: &str| parse(&format!("{LEAST}[[collector]]\nname = \"c\"\nto = \"hep_tls:{more}\n"));
    let tls = |more: &str| match with(more).unwrap().collectors.remove(0).destination {
        Destination::Tcp { tls: Some(tls), .. } => *tls,
        other => panic!("{other:?}"),
    };
    let plain = tls("homer.example.org\"");
    assert_eq!((plain.ca, plain.own, plain.server_name.as_str()), (None, None, "homer.example.org"));
    assert_eq!(tls("[2001:db8::1]:1\"").server_name, "2001:db8::1");
    let full = tls("192.0.2.1\"\nca = \"ca.pem\"\ncertificate = \"/c.pem\"\nkey = \"k\"\nserver_name = \"homer\"");
    assert_eq!((full.ca.as_deref(), full.server_name.as_str()), (Some(Path::new("/folder/ca.pem")), "homer"));
    let own = full.own.unwrap();
    assert_eq!((own.certificate.as_path(), own.key.as_path()), (Path::new("/c.pem"), Path::new("/folder/k")));
    for (more, expected) in [
        ("homer\"\nkey = \"k\"", "certificate and key belong together: both, or neither"),
        ("homer\"\ncertificate = \"c\"", "certificate and key belong together: both, or neither"),
        ("homer\"\nserver_name = \"two words\"", "\"two words\" is no name or address that a certificate has"),
        ("homer\"\ntls_min_version = \"1.1\"", "\"1.1\" is not one of \"1.2\", \"1.3\""),
    ] {
        let found = with(more).unwrap_err();
        assert_eq!((found.len(), found[0].text.as_str()), (1, expected), "{found:?}");
    }
    // What is TLS's is unknown without it.
    let plain = parse(&format!("{LEAST}[[collector]]\nname = \"c\"\nto = \"hep_tcp:c\"\nca = \"x\"\n")).unwrap_err();
    assert!(plain[0].text.starts_with("unknown key"), "{plain:?}");
}

#[test]
fn what_a_filter_is_told_may_come_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
    let text = r#"
[[filter]]
name = "f"
component = "f.wasm"
config = { a = "text", b = 7, c = true, d = { file = "key" }, e = { env = "PATH" }, f = { file = "none" } }
on_error = "drop"
"#;
    let config = Config::parse(&format!("{LEAST}{text}"), folder.path()).unwrap();
    let filter = &config.filters[0];
    assert_eq!(filter.on_error, Some(OnError::Drop));
    assert_eq!(filter.component, folder.path().join("f.wasm"));
    let read = |key: &str| filter.config[key].read();
    for (key, value) in [("a", "text"), ("b", "7"), ("c", "true"), ("d", "s3cret")] {
        assert_eq!(read(key).unwrap(), value);
    }
    assert_eq!(read("e").unwrap(), std::env::var("PATH").unwrap());
    assert!(read("f").unwrap_err().to_string().contains("none: No such file"), "{:?}", read("f"));
    assert!(ConfigValue::Environment("HEPGATE_NOT_THERE".into()).read().is_err());
    // What is told may be a secret: it is not shown.
    assert!(!format!("{config:?}").contains("s3cret") && !format!("{config:?}").contains("\"text\""));
}

#[test]
fn grants_and_routes_are_resolved_to_the_places_of_their_collectors() {
    let text = r#"
[[collector]]
name = "a"
to = "hep_udp:a"
[[collector]]
name = "b"
to = "hep_udp:b"
[[filter]]
name = "f"
component = "f.wasm"
collectors = ["b"]
"#;
    let config = parse(&format!("{text}{LEAST}filters = [\"f\"]\nroute = [\"b\", \"a\"]\n")).unwrap();
    assert_eq!(config.filters[0].collectors, [CollectorId(1)]);
    assert_eq!(config.tenants[0].route, [CollectorId(1), CollectorId(0)]);
}

#[test]
fn a_hep_id_is_a_collector_with_everything_else_at_its_default() {
    let hep_ids = "[proto_hep]
hep_port = 9060
hep_send_timeout = 250
hep_id = [\"[a] 10.0.0.1; transport=udp\", \"[b] [2001:db8::1]:1\", \"[c] old; version=2\"]
";
    let tables = "[proto_hep]
hep_port = 9060
hep_send_timeout = 250
[[collector]]
name = \"a\"
to = \"hep_udp:10.0.0.1\"
version = \"3\"
[[collector]]
name = \"b\"
to = \"hep_tcp:[2001:db8::1]:1\"
[[collector]]
name = \"c\"
to = \"hep_udp:old\"
version = \"2\"
";
    let route = "route = [\"b\", \"c\"]\n";
    assert_eq!(parse(&format!("{hep_ids}{LEAST}{route}")), parse(&format!("{tables}{LEAST}{route}")));
    // They stand behind the tables.
    let both = parse(&format!("{hep_ids}[[collector]]\nname = \"z\"\nto = \"file:z\"\n{LEAST}{route}")).unwrap();
    let names: Vec<&str> = both.collectors.iter().map(|collector| collector.name.as_str()).collect();
    assert_eq!((names, &both.tenants[0].route[..]), (vec!["z", "a", "b", "c"], &[CollectorId(2), CollectorId(3)][..]));
}

#[test]
fn what_is_wrong_with_a_hep_id_is_told_at_its_place() {
    let text = r#"[proto_hep]
hep_id = [
  "[homer] 10.0.0.1:9060; transport=udp",
  "[homer] 10.0.0.2:9060",
  "[tls] 10.0.0.3; transport=tls; version=2", 7,
  "[two words] 10.0.0.4",
  "[] 10.0.0.4", "[last] ::1",
  "[old] 10.0.0.5; transport=tcp; version=1", "[table] 10.0.0.6",
]
[[collector]]
name = "table"
to = "file:f"
"#;
    let expected = [
        "4:3: proto_hep.hep_id[1]: another [[collector]] is named \"homer\"",
        "5:3: proto_hep.hep_id[2]: transport=tls takes version 3 only; version 2 goes over udp",
        "5:47: proto_hep.hep_id[3]: a text in quotes is wanted, not a whole number",
        "6:3: proto_hep.hep_id[4]: \"two words\" is not a name",
        "7:3: proto_hep.hep_id[5]: \"\" is not a name",
        "7:18: proto_hep.hep_id[6]: \"::1\": an IPv6 address stands in brackets",
        "8:3: proto_hep.hep_id[7]: transport=tcp takes version 3 only; version 1 goes over udp",
        "8:47: proto_hep.hep_id[8]: another [[collector]] is named \"table\"",
    ];
    let found = complaints(&format!("{text}{LEAST}"));
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "found    {found}\nexpected {expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}
