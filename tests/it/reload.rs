use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{TcpSink, UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, ROUTE, collector, filter, packet};
use crate::support::{PATIENCE, eventually};

/// A filter that counts its packets in what it remembers.
const COUNTING: &str = r#"
    (import "hep:filter/state@0.1.0" "add" (func $add (param i32 i32 i64 i32 i64 i32)))
    (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
    (import "hep:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;

/// Answers with a verdict, for which the answer of `add` is at 512 (0: it added) and the sum at 520; says goodbye with
/// its version.
fn counting(version: u32, verdict: &str) -> (String, String) {
    let definitions = format!("(data (i32.const 256) \"calls\") (data (i32.const 272) \"goodbye {version}\")");
    let on_batch = format!(
        "(local.set $j (call $len (local.get $batch)))
         (call $add (i32.const 256) (i32.const 5) (i64.extend_i32_u (local.get $j)) (i32.const 0) (i64.const 0) (i32.const 512))
         (memory.fill (i32.const 2048) {verdict} (local.get $j))
         (i32.store (global.get $verdicts) (i32.const 2048))
         (i32.store offset=4 (global.get $verdicts) (local.get $j))"
    );
    (definitions, on_batch)
}

const PASS: &str = "(i32.const 0)";
/// Skip, but drop if the sum is not what all calls, those of the version before too, come to.
const SKIP_THE_THIRD: &str = "(select (i32.const 1) (i32.const 2) (i64.eq (i64.load (i32.const 520)) (i64.const 3)))";
/// Pass if it was added, skip if there was no room.
const PASS_IF_ADDED: &str = "(i32.load8_u (i32.const 512))";

const GOODBYE: &str = "(call $log (i32.const 1) (i32.const 272) (i32.const 9))";

fn write_version(gateway: &std::path::Path, version: u32, verdict: &str) {
    let (definitions, on_batch) = counting(version, verdict);
    let guest = Guest {
        imports: COUNTING,
        definitions: &definitions,
        on_batch: &on_batch,
        on_stop: GOODBYE,
        ..Guest::default()
    };
    guest::write(gateway, "f", guest);
}

#[test]
fn a_new_version_of_a_filter_takes_over_and_remembers_what_the_old_one_did() {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    write_version(folder.path(), 0, PASS);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &filter("f", "limits = { fast_deadline = \"1s\" }"),
        "[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\nroute = [\"out\"]\n",
    ]
    .concat();
    let gateway = Gateway::start_in(folder, &config);
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"one")).unwrap();
    assert_eq!(out.next(), packet(b"one"));
    // Nothing has changed: the instance goes on.
    assert_eq!(gateway.reload(&config), (200, "nothing has changed\n".to_owned()));
    agent.send(&packet(b"two")).unwrap();
    assert_eq!(out.next(), packet(b"two"));
    gateway.await_metric("hepgate_filter_started_instances_total", &[], 1);
    write_version(gateway.folder.path(), 1, SKIP_THE_THIRD);
    assert_eq!(gateway.reload(&config), (200, "new or changed: filter f\n".to_owned()));
    eventually("the old one said goodbye", || gateway.lines_saying("goodbye 0").len() == 1);
    agent.send(&packet(b"three")).unwrap();
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 1);
    gateway.await_metric("hepgate_filter_peak_use", &[("limit", "state_keys_max")], 1);
    let ended = gateway.stop();
    assert!(out.is_empty());
    assert!(ended.lines.iter().any(|line| line["message"] == "goodbye 1"));
}

/// The sandbox of a gateway without filters was set up for filters of no memory.
#[test]
fn a_gateway_that_began_without_filters_takes_one() {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let config = [BOTH_LISTENERS, &collector("out", &out.to()), ROUTE].concat();
    let gateway = Gateway::start_in(folder, &config);
    let with = [&config, "filters = [\"f\"]\n", &filter("f", "limits = { fast_deadline = \"1s\" }")].concat();
    let (status, said) = gateway.reload(&with);
    assert_eq!(status, 200, "{said}");
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"drop")).unwrap();
    agent.send(&packet(b"pass")).unwrap();
    assert_eq!(out.next(), packet(b"pass"));
    gateway.stop();
}

#[test]
fn a_configuration_with_faults_changes_nothing_and_all_of_them_are_told() {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "good", BY_FIRST_OCTET);
    guest::write(folder.path(), "bad", Guest { init: "unreachable", ..Guest::default() });
    let config = [BOTH_LISTENERS, &collector("out", &out.to()), &filter("good", ""), ROUTE].concat();
    let gateway = Gateway::start_in(folder, &config);
    let more = [
        "[[listener]]\nname = \"taken\"\nlisten = \"hep_tcp:127.0.0.1:",
        &gateway.listener("tcp").port().to_string(),
        "\"\n",
        &filter("bad", ""),
        &filter("absent", ""),
        "[[tenant]]\nname = \"new\"\n[[tenant.match]]\nauthentication_keys = [{ file = \"nowhere.key\" }]\n",
    ]
    .concat();
    let (status, text) = gateway.reload(&format!("[sandbox]\nslow_threads = 2\n{}{config}", more));
    // The tenant stands before the one that takes the rest, so only what is meant is wrong.
    assert_eq!(status, 422, "{text}");
    for part in [
        "[sandbox] cannot change while the gateway runs: restart it",
        "filter \"bad\" does not start: ",
        "filter \"absent\": ",
        "tenant \"new\": authentication_keys: ",
        "listener \"taken\": ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (status, text) = gateway.reload("[[listener]]\nname = 7\n");
    assert_eq!(status, 422);
    assert!(text.contains("listener[0].name: a text in quotes is wanted"), "{text}");
    // It goes on as it was.
    udp_agent(gateway.listener("udp")).send(&packet(b"still here")).unwrap();
    assert_eq!(out.next(), packet(b"still here"));
    gateway.await_lines("not reloaded: ");
    // A page on the web cannot have it reload.
    assert_eq!(gateway.request("POST", "/reload", "Origin: http://evil.example\r\n").0, 403);
    gateway.stop();
}

#[test]
fn a_reload_that_is_refused_leaves_the_limits_of_what_runs() {
    let out = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    write_version(folder.path(), 0, PASS_IF_ADDED);
    let config = |keys_max: usize| {
        [
            BOTH_LISTENERS,
            &collector("out", &out.to()),
            &filter("f", &format!("limits = {{ fast_deadline = \"1s\", state_keys_max = {keys_max} }}")),
            "[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\nroute = [\"out\"]\n",
        ]
        .concat()
    };
    let gateway = Gateway::start_in(folder, &config(0));
    let (status, text) = gateway.reload(&format!("[sandbox]\nslow_threads = 2\n{}", config(1)));
    assert_eq!((status, text.as_str()), (422, "[sandbox] cannot change while the gateway runs: restart it\n"));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"one")).unwrap();
    gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], 1);
    // Not refused, it has room.
    assert_eq!(gateway.reload(&config(1)), (200, "new or changed: filter f\n".to_owned()));
    agent.send(&packet(b"two")).unwrap();
    assert_eq!(out.next(), packet(b"two"));
    gateway.stop();
}

#[test]
fn a_listener_whose_settings_change_stays_at_its_address() {
    let out = UdpSink::new();
    let config = |udp: &str, tcp: &str| {
        let listeners = format!(
            "[[listener]]\nname = \"udp\"\nlisten = \"hep_udp:127.0.0.1:0\"\n{udp}\n\
             [[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n{tcp}\n"
        );
        [&listeners, &collector("out", &out.to()), ROUTE].concat()
    };
    let gateway = Gateway::start(&config("", ""));
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&packet(b"one")).unwrap();
    assert_eq!(out.next(), packet(b"one"));
    let changed = config("receive_buffer_octets = 1_073_741_824", "idle = \"100ms\"");
    assert_eq!(gateway.reload(&changed), (200, "new or changed: listener udp, listener tcp\n".to_owned()));
    // So much no system gives: the log says what it came to.
    let wants = |line: &&serde_json::Value| line["wanted"] == 1_073_741_824;
    assert_eq!(gateway.await_lines("the receive buffer is smaller than configured").iter().filter(wants).count(), 1);
    agent.send(&packet(b"two")).unwrap();
    assert_eq!(out.next(), packet(b"two"));
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    stream.write_all(&packet(b"three")).unwrap();
    assert_eq!(out.next(), packet(b"three"));
    // The new setting is in force: it is closed for being idle.
    assert!(is_closed(&mut stream));
    gateway.stop();
}

/// Whether the other end closes it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // What was on its way when it was closed makes it a reset.
    match stream.read(&mut [0]) {
        Ok(octets) => octets == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn what_retires_does_not_wait_for_another_that_has_half_a_packet() {
    let (first, second) = (TcpSink::new(), UdpSink::new());
    let config = |listener: &str, to: &str| {
        let tcp = "[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n";
        [tcp, listener, &collector("out", to), ROUTE].concat()
    };
    let extra = "[[listener]]\nname = \"extra\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n";
    let settings = "workers = 2\nsummary = \"0s\"";
    let gateway = Gateway::start_with(tempfile::tempdir().unwrap(), settings, &config(extra, &first.to()));
    // One to the collector from each worker, and enough to the listener for each worker to have some.
    let mut to_collector = [first.accept(), first.accept()];
    let whole = packet(b"whole");
    let (begun, rest) = whole.split_at(10);
    let mut halves: Vec<TcpStream> = (0..24).map(|_| TcpStream::connect(gateway.listener("extra")).unwrap()).collect();
    for stream in &mut halves {
        stream.write_all(begun).unwrap();
    }
    gateway.await_metric("hepgate_listener_open_connections", &[("listener", "extra")], 24);
    assert_eq!(gateway.reload(&config("", &second.to())).0, 200);
    assert!(to_collector.iter_mut().all(is_closed));
    gateway.await_metric("hepgate_listener_open_connections", &[("listener", "extra")], 24);
    for stream in &mut halves {
        stream.write_all(rest).unwrap();
    }
    assert_eq!(second.take(24), vec![whole.clone(); 24]);
    assert!(halves.iter_mut().all(is_closed));
    gateway.stop();
}

#[test]
fn sighup_reloads_too_and_what_is_gone_ends_in_order() {
    let (first, second) = (UdpSink::new(), UdpSink::new());
    let config = |name: &str, sink: &UdpSink, listener: &str| {
        [
            BOTH_LISTENERS,
            listener,
            &collector(name, &sink.to()),
            &format!("[[tenant]]\nname = \"of-{name}\"\nroute = [\"{name}\"]\n"),
        ]
        .concat()
    };
    let extra = "[[listener]]\nname = \"extra\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n";
    let gateway = Gateway::start(&config("first", &first, extra));
    let connect = |name: &str| TcpStream::connect(gateway.listener(name)).unwrap();
    let mut stays = connect("tcp");
    let mut goes = connect("extra");
    for stream in [&mut stays, &mut goes] {
        stream.write_all(&packet(b"one")).unwrap();
        assert_eq!(first.next(), packet(b"one"));
    }
    let text = config("second", &second, "");
    // Written as an editor does, then the signal.
    assert_eq!(gateway.reload(&text).0, 200);
    gateway.signal(Signal::SIGHUP);
    eventually("reloaded twice", || gateway.lines_with("reloaded: ").len() == 2);
    let said = gateway.lines_with("reloaded: ");
    let said = said[0]["message"].as_str().unwrap();
    assert_eq!(
        said,
        "reloaded: new or changed: collector second, tenant of-second; gone: listener extra, collector first, tenant of-first"
    );
    assert_eq!(gateway.lines_with("reloaded: ")[1]["message"], "reloaded: nothing has changed");
    stays.write_all(&packet(b"two")).unwrap();
    assert_eq!(second.next(), packet(b"two"));
    // The other connection was closed, between two packets.
    assert!(is_closed(&mut goes));
    assert!(TcpStream::connect(gateway.listener("extra")).is_err());
    gateway.await_metric("hepgate_listener_open_connections", &[("listener", "extra")], 0);
    gateway.stop();
}

/// Descriptors and threads that a process has.
fn resources(gateway: &Gateway) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", gateway.child.id())).unwrap().count();
    (count("fd"), count("task"))
}

/// What agents do meanwhile: numbered packets over UDP and over a connection, at a constant rate, until told to stop.
struct Load {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Load {
    fn run(&self, udp: SocketAddr, tcp: SocketAddr, pace: Duration) {
        let agent: UdpSocket = udp_agent(udp);
        let mut stream = TcpStream::connect(tcp).unwrap();
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.sent.fetch_add(2, Ordering::SeqCst);
            agent.send(&packet(format!("u{number}").as_bytes())).unwrap();
            stream.write_all(&packet(format!("x{number}").as_bytes())).unwrap();
            std::thread::sleep(pace);
        }
    }
}

/// A hundred times, and looks whether anything leaks.
fn reload_often(gateway: &Gateway, first: &str, second: &str) {
    let mut after_ten = (0, 0);
    for round in 0..100 {
        let (status, answer) = gateway.reload(if round % 2 == 0 { second } else { first });
        assert_eq!(status, 200, "{answer}");
        if round == 9 {
            after_ten = resources(gateway);
        }
    }
    let (descriptors, threads) = after_ten;
    eventually("nothing leaked", || {
        let (descriptors_now, threads_now) = resources(gateway);
        descriptors_now <= descriptors + 4 && threads_now <= threads + 2
    });
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_leak_nothing() {
    let (one, two) = (UdpSink::new(), UdpSink::new());
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "a", BY_FIRST_OCTET);
    guest::write(folder.path(), "b", Guest::default());
    // Each has something that the other has not, and something that the other has in another way. On a machine that has no
    // processor to spare a sink may be read late: what waits for it is not what is examined here.
    let patient = "limits = { fast_deadline = \"1s\" }";
    let first = [
        BOTH_LISTENERS,
        &collector("one", &one.to()),
        "hep_async_max_postponed_chunks = 100_000\n",
        "[[collector]]\nname = \"files\"\nto = \"file:captures\"\n",
        &filter("a", patient),
        "[[tenant]]\nname = \"t\"\nfilters = [\"a\"]\nroute = [\"one\"]\n",
        "[[tenant.match]]\nlistener = \"udp\"\n",
        "[[tenant]]\nname = \"rest\"\nroute = [\"one\"]\nlane = \"slow\"\n",
    ]
    .concat();
    let second = [
        BOTH_LISTENERS,
        "[[listener]]\nname = \"more\"\nlisten = \"hep_udp:127.0.0.1:0\"\n",
        &collector("two", &two.to()),
        "hep_async_max_postponed_chunks = 100_000\n",
        &collector("one", &one.to()),
        "hep_async_max_postponed_chunks = 100_001\n",
        &filter("b", patient),
        &filter("a", "tick = \"1s\"\nlimits = { fast_deadline = \"2s\" }"),
        "[[tenant]]\nname = \"rest\"\nfilters = [\"b\", \"a\"]\nroute = [\"two\"]\n",
    ]
    .concat();
    let gateway = Gateway::start_in(folder, &first);
    let load = Load { stop: AtomicBool::new(false), sent: AtomicU64::new(0) };
    let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (udp, tcp) = (gateway.listener("udp"), gateway.listener("tcp"));
    std::thread::scope(|scope| {
        scope.spawn(|| load.run(udp, tcp, Duration::from_micros(500)));
        for sink in [&one, &two] {
            let (received, done) = (&received, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    if sink.next_within(Duration::from_millis(50)).is_some() {
                        received.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        // Whatever comes of it, the threads must end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            reload_often(&gateway, &first, &second);
            load.stop.store(true, Ordering::SeqCst);
            // What a sink did not read in time is not the gateway's.
            let arrived = || received.load(Ordering::SeqCst) + one.kernel_drops() + two.kernel_drops();
            let began = Instant::now();
            while arrived() < load.sent.load(Ordering::SeqCst) {
                let counted = gateway.get("/metrics").1;
                let counted = counted.lines().filter(|line| !line.ends_with(" 0") && line.contains("packets"));
                assert!(
                    began.elapsed() < Duration::from_secs(20),
                    "of {} packets {} arrived\n{}",
                    load.sent.load(Ordering::SeqCst),
                    arrived(),
                    counted.collect::<Vec<_>>().join("\n")
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }));
        load.stop.store(true, Ordering::SeqCst);
        done.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(load.sent.load(Ordering::SeqCst) > 500, "there was no load");
    gateway.stop();
}
