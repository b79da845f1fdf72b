use std::fmt::Write as _;
use std::time::Duration;

use hepgate::wire::ChunkId;

use crate::support::bench::{Bench, call, work};
use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, sip};

/// Eight octets that nobody has by chance, and as a number that a guest can look for without having them in its memory.
const CANARY: &[u8; 8] = b"CaNaRy#1";
const CANARY_NUMBER: i64 = i64::from_le_bytes(*CANARY);

fn of(agent_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut pack = sip(payload.to_vec());
    pack.agent_id = agent_id;
    pack.encode(hepgate::wire::Version::Hep3).unwrap().to_vec()
}

/// Looks through all its memory, as much as it can get, for the canary, and logs at `$found` if it is there. What stands in
/// the first 4 KiB are its own lists.
const SEARCH: &str = r"
    (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
    (local.set $j (i32.mul (memory.size) (i32.const 65536)))
    (local.set $i (i32.const 4096))
    (loop $next
      (if (i64.eq (i64.load (local.get $i)) (i64.const CANARY)) (then (call $found) (return (global.get $verdicts))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.sub (local.get $j) (i32.const 8)))))";

/// Fills its memory with the canary.
const FILL: &str = r"
    (local.set $i (i32.const 4096))
    (loop $next
      (i64.store (local.get $i) (i64.const CANARY))
      (local.set $i (i32.add (local.get $i) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 131064))))";

fn with_canary(text: &str) -> String {
    text.replace("CANARY", &CANARY_NUMBER.to_string())
}

/// Memory is used again, by whoever comes next: it must be empty by then. The victims take all that there is, so the next
/// one gets what one of them had.
#[test]
fn nothing_of_one_tenants_memory_is_there_for_the_next() {
    let small = |filter: &mut hepgate::config::Filter| filter.limits.memory_octets_max = 4 << 16;
    let (fill, search) = (with_canary(FILL), with_canary(SEARCH));
    // The search itself works: in what it has filled, it finds the canary.
    let itself = [&with_canary("(i64.store (i32.const 70000) (i64.const CANARY))"), search.as_str()].concat();
    let finds = Guest { definitions: "(func $found unreachable)", on_batch: &itself, ..Guest::default() };
    call(&mut Bench::with(finds, small).start().unwrap(), &mut work(&[b"x"])).unwrap_err();
    // Each another component: one that comes again would get the memory that it had itself.
    let others: Vec<String> =
        (0..8).map(|n| format!("(func $found unreachable) (global i32 (i32.const {n}))")).collect();
    let victim = Guest { on_batch: &fill, ..Guest::default() };
    let hostile = |definitions| Guest { definitions, on_batch: &search, ..Guest::default() };
    let guests = std::iter::once(victim).chain(others.iter().map(|others| hostile(others.as_str())));
    let mut filters = Bench::several(guests, small);
    let mut victim = filters.remove(0);
    for (number, mut hostile) in filters.into_iter().enumerate() {
        let mut victims = Vec::new();
        while let Ok(mut instance) = victim.start() {
            call(&mut instance, &mut work(&[b"x"])).unwrap();
            victims.push(instance);
            assert!(victims.len() < 10_000);
        }
        assert!(victims.len() > 200, "{}", victims.len());
        drop(victims);
        let mut instance = hostile.start().unwrap();
        call(&mut instance, &mut work(&[b"x"])).unwrap_or_else(|fault| panic!("{number}: {fault}"));
    }
}

/// Asks for all that a filter can ask for, and says all of it wherever a filter can say something.
fn nosy() -> (String, String) {
    let imports = r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.payloads" (func $payloads (param i32 i32 i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.chunk" (func $chunk (param i32 i32 i32 i32 i32)))
        (import "hep:filter/config@0.1.0" "all" (func $all (param i32)))
        (import "hep:filter/state@0.1.0" "get" (func $get (param i32 i32 i32)))
        (import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))
        (import "hep:filter/sending@0.1.0" "[static]collector.open" (func $open (param i32 i32 i32)))
        (import "hep:filter/sending@0.1.0" "[method]collector.relay" (func $relay (param i32 i32 i32 i32)))"#;
    // key, the victim's collector, its own.
    let on_batch = r#"
        (call $payloads (local.get $batch) (i32.const 1000) (i32.const 600))
        (call $log (i32.const 1) (i32.load (i32.const 600)) (i32.load (i32.const 604)))
        (call $get (i32.const 256) (i32.const 3) (i32.const 600))
        (if (i32.load8_u (i32.const 600)) (then
          (call $log (i32.const 1) (i32.load (i32.const 604)) (i32.load (i32.const 608)))))
        (call $all (i32.const 600))
        (if (i32.load (i32.const 604)) (then
          (local.set $i (i32.load (i32.const 600)))
          (call $log (i32.const 1) (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i)))))
        (call $chunk (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 14) (i32.const 600))
        (if (i32.load8_u (i32.const 600)) (then
          (call $log (i32.const 1) (i32.load (i32.const 604)) (i32.load (i32.const 608)))))
        (call $open (i32.const 264) (i32.const 10) (i32.const 600))
        (if (i32.eqz (i32.load8_u (i32.const 600))) (then
          (call $relay (i32.load (i32.const 604)) (local.get $batch) (i32.const 0) (i32.const 620))))
        (call $open (i32.const 280) (i32.const 11) (i32.const 600))
        (if (i32.eqz (i32.load8_u (i32.const 600))) (then
          (call $relay (i32.load (i32.const 604)) (local.get $batch) (i32.const 0) (i32.const 620))))"#;
    (imports.to_owned(), on_batch.to_owned())
}

/// Remembers the canary under `key`, counts it as a label, and traps when a payload says so, so that there is evidence.
fn careless() -> (String, String, String) {
    let imports = r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.payload" (func $payload (param i32 i32 i32 i32 i32)))
        (import "hep:filter/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
        (import "hep:filter/metrics@0.1.0" "[static]counter.declare" (func $declare (param i32 i32 i32 i32 i32 i32 i32)))
        (import "hep:filter/metrics@0.1.0" "[method]counter.add" (func $count (param i32 i32 i32 i64 i32)))"#;
    let init =
        "(call $declare (i32.const 256) (i32.const 3) (i32.const 256) (i32.const 3) (i32.const 296) (i32.const 1)
        (i32.const 512)) (global.set $c (i32.load (i32.const 516)))";
    let on_batch = "
        (call $set (i32.const 256) (i32.const 3) (i32.const 272) (i32.const 8) (i32.const 0) (i64.const 0) (i32.const 512))
        (call $count (global.get $c) (i32.const 304) (i32.const 1) (i64.const 1) (i32.const 512))
        (call $payload (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 1) (global.get $out))
        (if (i32.eq (i32.load8_u (i32.load (global.get $out))) (i32.const 116)) (then unreachable))";
    (imports.to_owned(), init.to_owned(), on_batch.to_owned())
}

#[test]
fn a_canary_of_one_tenant_is_found_nowhere_that_another_ones_filter_can_reach() {
    let (victims, hostiles) = (UdpSink::new(), UdpSink::new());
    let folder = tempfile::tempdir().unwrap();
    let (imports, on_batch) = nosy();
    let names =
        r#"(data (i32.const 256) "key") (data (i32.const 264) "of-victims") (data (i32.const 280) "of-hostiles")"#;
    guest::write(
        folder.path(),
        "nosy",
        Guest { imports: &imports, definitions: names, on_batch: &on_batch, ..Guest::default() },
    );
    let (imports, init, on_batch) = careless();
    // `key`, the canary; lists of one text each: the name of the label, and its value.
    let definitions = r#"(data (i32.const 256) "key") (data (i32.const 272) "CaNaRy#1") (global $c (mut i32) (i32.const 0))
        (data (i32.const 296) "\00\01\00\00\03\00\00\00") (data (i32.const 304) "\10\01\00\00\08\00\00\00")"#;
    let careless = Guest { imports: &imports, definitions, init: &init, on_batch: &on_batch, ..Guest::default() };
    guest::write(folder.path(), "careless", careless);
    std::fs::write(folder.path().join("secret"), CANARY).unwrap();
    let patient = "limits = { fast_deadline = \"1s\", log_lines_max = 100 }";
    let config = [
        BOTH_LISTENERS,
        &collector("of-victims", &victims.to()),
        &collector("of-hostiles", &hostiles.to()),
        &filter("careless", &format!("config = {{ secret = {{ file = \"secret\" }} }}\n{patient}")),
        &filter("nosy", &format!("collectors = [\"of-hostiles\"]\n{patient}")),
        "[[tenant]]\nname = \"victim\"\nfilters = [\"careless\"]\nroute = [\"of-victims\"]\n",
        "[[tenant.match]]\nauthentication_keys = [\"CaNaRy#1\"]\n[[tenant.match]]\nagent_id = 1\n",
        // The same filter of another tenant is another's, too.
        "[[tenant]]\nname = \"hostile\"\nfilters = [\"nosy\"]\nroute = [\"of-hostiles\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    for round in 0..20 {
        agent.send(&of(1, [CANARY.as_slice(), b" call"].concat().as_slice())).unwrap();
        agent.send(&of(2, format!("own {round}").as_bytes())).unwrap();
        assert!(victims.next().windows(8).any(|octets| octets == CANARY));
        // Its own packet, relayed by the filter and routed: and nothing else.
        let taken = hostiles.take(2);
        assert!(taken.iter().all(|octets| *octets == of(2, format!("own {round}").as_bytes())), "{taken:?}");
    }
    let mut key = sip(b"with a key".to_vec());
    key.chunks = vec![(ChunkId::AUTH_KEY, bytes::Bytes::from_static(CANARY))];
    agent.send(&key.encode(hepgate::wire::Version::Hep3).unwrap()).unwrap();
    victims.next();
    agent.send(&of(1, [b"trap ".as_slice(), CANARY].concat().as_slice())).unwrap();
    victims.next();
    gateway.await_metric("hepgate_filter_evidence_cases_total", &[], 1);
    let (_, page) = gateway.get("/metrics");
    let mut of_victim = 0;
    for line in page.lines().filter(|line| line.contains("CaNaRy#1")) {
        assert!(line.starts_with("hepgate_guest_key_total{tenant=\"victim\""), "{line}");
        of_victim += 1;
    }
    assert_eq!(of_victim, 1, "the canary is planted");
    let ended = gateway.stop();
    assert!(hostiles.is_empty());
    let said: Vec<_> =
        ended.lines.iter().filter(|line| line["filter"] == "nosy" && line["tenant"] == "hostile").collect();
    assert!(said.len() >= 20, "it did say something: {said:?}");
    assert!(!said.iter().any(|line| line.to_string().contains("CaNaRy")), "{said:?}");
    // Evidence lies with whose it is.
    for path in ended.files("evidence", "2") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let octets = std::fs::read(&path).unwrap();
        let has = octets.windows(8).any(|octets| octets == CANARY);
        assert!(!has || name.contains("+victim+careless."), "{name}");
    }
}

/// One tenant whose filter never ends, and three whose filters behave, at a constant rate: all of the honest ones' packets
/// arrive, none is lost in the kernel, and none waits for long.
#[test]
fn a_filter_that_burns_its_deadline_on_every_batch_slows_only_its_own_tenant() {
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "honest", BY_FIRST_OCTET);
    guest::write(folder.path(), "hostile", Guest { on_batch: "(loop $l (br $l))", ..Guest::default() });
    let hostile = UdpSink::new();
    let sinks: Vec<UdpSink> = (0..3).map(|_| UdpSink::new()).collect();
    // Never quarantined: it may go on for as long as the test does. In the slow lane it has 20 ms each time.
    let never = "[filter.limits]\nslow_deadline = \"20ms\"\n[filter.quarantine]\nstrikes_max = 0";
    let mut config = [
        BOTH_LISTENERS,
        &collector("hostile", &hostile.to()),
        &filter("honest", ""),
        &filter("hostile", never),
        "[[tenant]]\nname = \"hostile\"\nfilters = [\"hostile\"]\nroute = [\"hostile\"]\n",
        "[[tenant.match]]\nagent_id = 9\n",
    ]
    .concat();
    for (index, sink) in sinks.iter().enumerate() {
        config += &collector(&format!("c{index}"), &sink.to());
        write!(config, "[[tenant]]\nname = \"t{index}\"\nfilters = [\"honest\"]\nroute = [\"c{index}\"]\n").unwrap();
        write!(config, "[[tenant.match]]\nagent_id = {index}\n").unwrap();
    }
    let gateway = Gateway::start_in(folder, &config);
    let (agent, other) = (udp_agent(gateway.listener("udp")), udp_agent(gateway.listener("udp")));
    const ROUNDS: usize = 500;
    for round in 0..ROUNDS {
        other.send(&of(9, b"hostile")).unwrap();
        let honest: Vec<Vec<u8>> = (0..3).map(|index| of(index, format!("a {round}").as_bytes())).collect();
        for octets in &honest {
            agent.send(octets).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
        for (sink, octets) in sinks.iter().zip(&honest) {
            assert_eq!(sink.next(), *octets);
        }
    }
    gateway.await_metric("hepgate_tenant_received_packets_total", &[("tenant", "hostile")], 500);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("hepgate_listener_kernel_dropped_datagrams_total"), 0);
    assert_eq!(metrics.get("hepgate_listener_dropped_packets_total", &[("listener", "udp")]), 0);
    for index in 0..3 {
        let tenant = format!("t{index}");
        assert_eq!(metrics.get("hepgate_tenant_routed_packets_total", &[("tenant", &tenant)]), 500);
        assert_eq!(metrics.get("hepgate_tenant_dropped_packets_total", &[("tenant", &tenant)]), 0);
    }
    // It was moved out of the honest ones' way, and what came too fast for it is counted as its own.
    assert!(metrics.get("hepgate_filter_slow_lane_moves_total", &[("tenant", "hostile")]) >= 1);
    gateway.await_quiet();
    let metrics = gateway.metrics();
    let of_hostile = |name: &str| metrics.get(name, &[("tenant", "hostile")]);
    let lost = of_hostile("hepgate_tenant_dropped_packets_total");
    let passed = of_hostile("hepgate_tenant_routed_packets_total");
    assert_eq!(lost + passed, 500, "lost {lost}, passed {passed}");
    gateway.stop();
}

/// Everything hostile that a filter can do in a call, each by a tenant of its own, beside one that behaves.
const HOSTILE: &[(&str, Guest<'static>, &str)] = &[
    ("loop", Guest { on_batch: "(loop $l (br $l))", ..NOTHING }, "deadline"),
    (
        "loop-in-realloc",
        Guest { imports: PAYLOAD, on_batch: READ, on_alloc: "(loop $l (br $l))", ..NOTHING },
        "deadline",
    ),
    ("recursion", Guest { definitions: "(func $f (call $f))", on_batch: "(call $f)", ..NOTHING }, "trap"),
    ("trap", Guest { on_batch: "unreachable", ..NOTHING }, "trap"),
    (
        "memory",
        Guest {
            on_batch: "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable",
            ..NOTHING
        },
        "limit",
    ),
    (
        "table",
        Guest {
            definitions: "(table $t 1 funcref)",
            on_batch: "(loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000))))) unreachable",
            ..NOTHING
        },
        "limit",
    ),
    (
        "giant-list",
        Guest {
            on_batch: "(drop (memory.grow (i32.const 100))) (i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 6000000)) ",
            ..NOTHING
        },
        "limit",
    ),
    (
        "wrong-length",
        Guest {
            on_batch: "(i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 1000))",
            ..NOTHING
        },
        "bad-result",
    ),
    (
        "no-verdict",
        Guest {
            on_batch: "(i32.store8 (i32.const 1024) (i32.const 77)) (i32.store (global.get $verdicts) (i32.const 1024))
                (i32.store offset=4 (global.get $verdicts) (i32.const 1))",
            ..NOTHING
        },
        "bad-result",
    ),
    (
        "no-utf8",
        Guest {
            imports: LOG,
            definitions: r#"(data (i32.const 256) "\ff")"#,
            on_batch: "(call $log (i32.const 1) (i32.const 256) (i32.const 1))",
            ..NOTHING
        },
        "bad-result",
    ),
    (
        "host-calls",
        Guest { imports: LEN, on_batch: "(loop $l (drop (call $len (local.get $batch))) (br $l))", ..NOTHING },
        "limit",
    ),
    (
        "log-flood",
        Guest {
            imports: LOG,
            on_batch: "(loop $l (call $log (i32.const 1) (i32.const 0) (i32.const 10)) (br $l))",
            ..NOTHING
        },
        "limit",
    ),
    (
        "handle-flood",
        Guest {
            imports: r#"(import "hep:filter/packing@0.1.0" "[static]packet.pack" (func $pack
                (param i32 i64 i64 i32 i32 i64 i64 i32 i32 i32 i32 i32 i32)))"#,
            on_batch: "(loop $l (call $pack (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 5060)
                (i32.const 1) (i64.const 2) (i64.const 0) (i32.const 5060) (i32.const 17) (i32.const 1)
                (i32.const 0) (i32.const 60000) (i32.const 512)) (br $l))",
            ..NOTHING
        },
        "",
    ),
    ("kept-batch", Guest { on_batch: "(return (global.get $verdicts))", ..NOTHING }, ""),
];

const NOTHING: Guest<'static> =
    Guest { imports: "", definitions: "", init: "", on_batch: "", on_tick: "", on_stop: "", on_alloc: "" };
const LEN: &str = r#"(import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))"#;
const LOG: &str = r#"(import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const PAYLOAD: &str =
    r#"(import "hep:filter/packets@0.1.0" "[method]batch.payload" (func $payload (param i32 i32 i32 i32 i32)))"#;
const READ: &str = "(call $payload (local.get $batch) (i32.const 0) (i32.const 0) (i32.const 9) (global.get $out))";

#[test]
fn whatever_a_filter_does_the_other_tenants_packets_arrive_and_it_is_counted_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "honest", BY_FIRST_OCTET);
    let (honest, hostile) = (UdpSink::new(), UdpSink::new());
    let mut config = [
        BOTH_LISTENERS,
        &collector("honest", &honest.to()),
        &collector("hostile", &hostile.to()),
        &filter("honest", "limits = { fast_deadline = \"1s\" }"),
    ]
    .concat();
    // In the slow lane at once, as it is the faults that are of interest here, and not the lanes.
    for (number, (name, guest, _)) in HOSTILE.iter().enumerate() {
        guest::write(folder.path(), name, *guest);
        config += &filter(name, "[filter.limits]\nslow_deadline = \"20ms\"\n[filter.quarantine]\nstrikes_max = 3");
        write!(
            config,
            "[[tenant]]\nname = \"{name}\"\nfilters = [\"{name}\"]\nroute = [\"hostile\"]\nlane = \"slow\"\n\
             [[tenant.match]]\nagent_id = {}\n",
            100 + number
        )
        .unwrap();
    }
    config += "[[tenant]]\nname = \"honest\"\nfilters = [\"honest\"]\nroute = [\"honest\"]\n";
    let gateway = Gateway::start_in(folder, &config);
    let agent = udp_agent(gateway.listener("udp"));
    let mut sent = 0_u64;
    let began = std::time::Instant::now();
    // Until each of them has failed so often that it is out of service.
    loop {
        for number in 0..HOSTILE.len() {
            agent.send(&of(100 + u32::try_from(number).unwrap(), b"hostile")).unwrap();
            agent.send(&of(1, format!("honest {sent}").as_bytes())).unwrap();
            assert_eq!(honest.next(), of(1, format!("honest {sent}").as_bytes()));
            sent += 1;
            while hostile.next_within(Duration::from_millis(1)).is_some() {}
        }
        if gateway.metrics().sum("hepgate_filter_quarantined") == HOSTILE.len() as u64 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", gateway.log_text());
    }
    let shown = std::process::Command::new(crate::support::gateway::HEPGATE)
        .args(["filters", "--json", "--admin", &gateway.admin()])
        .output()
        .unwrap();
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&shown.stdout).unwrap();
    for (name, _, kind) in HOSTILE {
        let of_it = shown.iter().find(|filter| filter["filter"] == *name).unwrap();
        assert!(of_it["quarantine"]["reason"].as_str().unwrap().starts_with("3 faults"), "{of_it}");
        let faults = of_it["faults"].as_object().unwrap();
        assert!(!faults.is_empty() && (kind.is_empty() || faults.contains_key(*kind)), "{name}: {of_it}");
    }
    let of_honest = shown.iter().find(|filter| filter["filter"] == "honest").unwrap();
    assert_eq!((&of_honest["packets"], of_honest["faults"].as_object().unwrap().len()), (&sent.into(), 0));
    // All of them together have no more memory than their limits, which none of them was let beyond.
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 512 << 10, "{kibibytes} KiB");
    gateway.await_quiet();
    gateway.stop();
}
