use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::support::eventually;
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

const TENANT: &str = "[[tenant]]\nname = \"default\"\n";

fn hepgate(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(HEPGATE);
    command.args(args).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command.output().unwrap()
}

/// Runs the gateway with this configuration, which must fail, and gives what it says.
fn refused(config: &str, prepare: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    std::fs::write(folder.path().join("hepgate.toml"), format!("[admin]\nlisten = \"\"\n{config}")).unwrap();
    let output = hepgate(folder.path(), &["run", "--config", "hepgate.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let complaint: Vec<&str> = said.lines().filter(|line| line.starts_with("hepgate: ")).collect();
    assert_eq!(complaint.len(), 1, "one sentence: {said}");
    assert!(!said.contains("listening"), "nothing was started: {said}");
    complaint[0].to_owned()
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let said = refused(&format!("[[listener]]\nname = \"a\"\nlisten = \"hep_udp:{address}\"\n{TENANT}"), |_| {});
    assert!(said.contains(&format!("listener \"a\": hep_udp:{address}: Address already in use")), "{said}");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let said = refused(&format!("[[listener]]\nname = \"a\"\nlisten = \"hep_tcp:{address}\"\n{TENANT}"), |_| {});
    assert!(said.contains(&format!("listener \"a\": hep_tcp:{address}: Address already in use")), "{said}");
}

#[test]
fn an_address_that_is_not_ours_is_one_sentence() {
    let said = refused(&format!("[[listener]]\nname = \"a\"\nlisten = \"hep_udp:192.0.2.1:0\"\n{TENANT}"), |_| {});
    assert!(said.contains("listener \"a\": hep_udp:192.0.2.1:0: Cannot assign requested address"), "{said}");
}

#[test]
fn a_collector_that_cannot_be_found_is_one_sentence() {
    let collector = "[[collector]]\nname = \"homer\"\nto = \"hep_udp:no-such-host.invalid:9060\"\n";
    let said = refused(&format!("{BOTH_LISTENERS}{collector}{TENANT}"), |_| {});
    assert!(said.contains("collector \"homer\": hep_udp:no-such-host.invalid:9060: "), "{said}");
}

#[test]
fn a_collector_that_cannot_be_found_leaves_no_file_begun_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = "[[collector]]\nname = \"file\"\nto = \"file:out\"\n";
    let homer = "[[collector]]\nname = \"homer\"\nto = \"hep_udp:no-such-host.invalid:9060\"\n";
    let config = format!("[admin]\nlisten = \"\"\n{BOTH_LISTENERS}{file}{homer}{TENANT}route = [\"file\"]\n");
    std::fs::write(folder.path().join("hepgate.toml"), config).unwrap();
    let output = hepgate(folder.path(), &["run", "--config", "hepgate.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hepgate: collector \"homer\": "), "{said}");
    let begun = std::fs::read_dir(folder.path().join("out")).map_or(0, Iterator::count);
    assert_eq!(begun, 0, "nothing is half started");
}

#[test]
fn a_folder_that_cannot_be_written_is_one_sentence() {
    let collector = "[[collector]]\nname = \"file\"\nto = \"file:in-the-way\"\n";
    let said = refused(&format!("{BOTH_LISTENERS}{collector}{TENANT}"), |folder| {
        std::fs::write(folder.join("in-the-way"), "").unwrap();
    });
    assert!(said.contains("collector \"file\": ") && said.contains("in-the-way: "), "{said}");
}

#[test]
fn a_component_that_is_missing_or_not_one_is_one_sentence() {
    let config = format!("{BOTH_LISTENERS}{}{TENANT}filters = [\"f\"]\n", filter("f", ""));
    let said = refused(&config, |_| {});
    assert!(said.contains("filter \"f\": ") && said.contains("f.wasm: No such file or directory"), "{said}");
    let said = refused(&config, |folder| std::fs::write(folder.join("f.wasm"), "not wasm at all").unwrap());
    assert!(said.contains("is not WebAssembly: it begins with"), "{said}");
    let said = refused(&config, |folder| {
        std::fs::write(folder.join("f.wasm"), wat::parse_str("(module)").unwrap()).unwrap();
    });
    assert!(said.contains("is a WebAssembly core module, not a component"), "{said}");
    let said = refused(&config, |folder| {
        std::fs::write(folder.join("f.wasm"), wat::parse_str("(component)").unwrap()).unwrap();
    });
    assert!(said.contains("does not export hep:filter/callbacks@0.1.0; it exports nothing"), "{said}");
}

#[test]
fn a_filter_that_does_not_start_is_one_sentence() {
    let config = format!("{BOTH_LISTENERS}{}{TENANT}filters = [\"f\"]\n", filter("f", ""));
    // Answers `err("no")`.
    let refuses = Guest {
        definitions: r#"(data (i32.const 2048) "no")"#,
        init: "(i32.store8 (global.get $ret) (i32.const 1))
               (i32.store offset=4 (global.get $ret) (i32.const 2048))
               (i32.store offset=8 (global.get $ret) (i32.const 2))",
        ..Guest::default()
    };
    let said = refused(&config, |folder| drop(guest::write(folder, "f", refuses)));
    assert!(said.contains("filter \"f\" does not start: init: no"), "{said}");
    let loops = Guest { init: "(loop $l (br $l))", ..Guest::default() };
    let said = refused(&config, |folder| drop(guest::write(folder, "f", loops)));
    assert!(said.contains("filter \"f\" does not start: took longer than 500 ms"), "{said}");
}

#[test]
fn check_says_everything_that_is_wrong_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{BOTH_LISTENERS}{}{}{TENANT}filters = [\"a\", \"b\"]\n", filter("a", ""), filter("b", ""));
    std::fs::write(folder.path().join("hepgate.toml"), &config).unwrap();
    let output = hepgate(folder.path(), &["check", "hepgate.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
    for name in ["a", "b"] {
        assert!(said.contains(&format!("hepgate.toml: filter \"{name}\": ")), "{said}");
        guest::write(folder.path(), name, BY_FIRST_OCTET);
    }
    let output = hepgate(folder.path(), &["check", "hepgate.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hepgate.toml: no complaints\n");
    std::fs::write(folder.path().join("hepgate.toml"), format!("{config}wrong = 1\n[more]\n")).unwrap();
    let output = hepgate(folder.path(), &["check", "hepgate.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    for (args, text) in [
        (&["runn"][..], "unrecognized subcommand 'runn'"),
        (&["run", "--confg", "x"], "unexpected argument '--confg' found"),
        (&["run", "--config"], "a value is required for '--config <FILE>'"),
    ] {
        let output = hepgate(folder.path(), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    }
    let output = hepgate(folder.path(), &["--version"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("hepgate {}\n", env!("CARGO_PKG_VERSION")));
    let output = hepgate(folder.path(), &["run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "hepgate: config/hepgate.toml: No such file or directory (os error 2)\n");
}

#[test]
fn a_running_gateway_says_what_it_does_and_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let config = format!(
        "{BOTH_LISTENERS}{}[[collector]]\nname = \"file\"\nto = \"file:out\"\n{TENANT}filters = [\"f\"]\nroute = [\"file\"]\n",
        filter("f", "")
    );
    let gateway = Gateway::start_with(folder, "workers = 2\nsummary = \"50ms\"", &config);
    let said = |message: &str| gateway.lines_saying(message).len();
    assert_eq!((said("listening"), said("filter"), said("collector"), said("tenant")), (2, 1, 1, 1));
    let sha256 = gateway.lines_saying("filter")[0]["sha256"].as_str().unwrap().to_owned();
    assert_eq!(sha256.len(), 64);
    assert_eq!(gateway.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(gateway.get("/readyz"), (200, "ready\n".into()));
    assert_eq!(gateway.get("/nothing").0, 404);
    assert_eq!(gateway.metrics().get("hepgate_filter_info", &[("filter", "f"), ("sha256", &sha256)]), 1);
    eventually("a summary", || !gateway.lines_with("last 0.05 s: 0 received").is_empty());
    gateway.stop();
}

#[test]
fn sigint_ends_it_in_order_and_a_second_signal_at_once() {
    let gateway = Gateway::start(&format!("{BOTH_LISTENERS}{TENANT}"));
    gateway.signal(Signal::SIGINT);
    let ended = gateway.wait();
    assert!(ended.status.success());
    ended.check_ledger();
    // A connection in the middle of a packet makes the stop wait for its grace period.
    let gateway = Gateway::start_with(
        tempfile::tempdir().unwrap(),
        "workers = 1\ngrace = \"10m\"",
        &format!("{BOTH_LISTENERS}{TENANT}"),
    );
    let mut stream = std::net::TcpStream::connect(gateway.listener("tcp")).unwrap();
    std::io::Write::write_all(&mut stream, b"HEP").unwrap();
    gateway.await_metric("hepgate_listener_open_connections", &[], 1);
    eventually("the octets are read", || gateway.metrics().sum("hepgate_listener_open_connections") == 1);
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", || !gateway.lines_saying("stopping").is_empty());
    assert_eq!(gateway.get("/readyz"), (503, "not ready\n".into()));
    gateway.signal(Signal::SIGTERM);
    let ended = gateway.wait();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.log_text().contains("stopped at once"), "{}", ended.log_text());
}

/// Whoever started it holds its standard error and has stopped reading: a pipe that is full.
#[test]
fn a_log_that_nobody_reads_stops_neither_packets_nor_the_stop() {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut full = theirs.try_clone().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[b'.'; 4_096]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    let sink = UdpSink::new();
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, admin) = (free(), TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[log]\nlevel = \"debug\"\n[admin]\nlisten = \"{admin}\"\n[[listener]]\nname = \"udp\"\n\
         listen = \"hep_udp:127.0.0.1:{port}\"\n{}{TENANT}route = [\"out\"]\n",
        collector("out", &sink.to())
    );
    std::fs::write(folder.path().join("hepgate.toml"), config).unwrap();
    let mut child = Command::new(HEPGATE)
        .args(["run", "--config", "hepgate.toml"])
        .current_dir(folder.path())
        .stderr(std::process::Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    eventually("it listens", || std::net::TcpStream::connect(admin).is_ok());
    let agent = udp_agent(([127, 0, 0, 1], port).into());
    for number in 0..100 {
        agent.send(&packet(format!("number {number}").as_bytes())).unwrap();
        // Garbage too, which is something to log.
        agent.send(b"no HEP at all, and longer than a probe").unwrap();
        assert_eq!(sink.next(), packet(format!("number {number}").as_bytes()));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let begun = std::time::Instant::now();
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some() || begun.elapsed() > std::time::Duration::from_secs(20)
    });
    if status.is_none() {
        child.kill().unwrap();
    }
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    ours.flush().unwrap();
}
