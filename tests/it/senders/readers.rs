//! What tshark and sngrep show of what the gateway wrote.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::program::{Program, await_udp_port, free_port};
use super::{Arrived, Rig, sip_call};
use crate::support::PATIENCE;
use crate::support::gateway::Gateway;
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector};

/// What tshark says of every SIP message in a capture: who asks or answers what, in which call, from where, when.
fn tshark(capture: &Path) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-d", "udp.port==15060,sip", "-Y", "sip", "-T", "fields"]);
    for field in [
        "frame.time_epoch",
        "ip.src",
        "udp.srcport",
        "ip.dst",
        "udp.dstport",
        "sip.Method",
        "sip.Status-Code",
        "sip.Call-ID",
        "sip.CSeq",
        "udp.length",
    ] {
        command.args(["-e", field]);
    }
    let out = command.output().expect("tshark; tests/run installs it");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn sent_by_hepgate() -> Arrived {
    let rig = Rig::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(crate::support::gateway::HEPGATE);
    command.arg("send").arg("--read").arg(sip_call()).arg("--to").arg(format!("udp:{}", rig.tap.udp));
    Program::start(&mut command, folder.path()).finish();
    rig.finish(12)
}

#[test]
#[ignore = "needs tshark; tests/run runs it"]
fn tshark_sees_in_our_capture_what_it_sees_in_the_one_that_was_sent() {
    let arrived = sent_by_hepgate();
    let (before, after) = (tshark(&sip_call()), tshark(&arrived.captured));
    assert_eq!(before.len(), 12);
    assert!(before.iter().filter(|line| line.contains("\tINVITE\t")).count() == 2, "{before:?}");
    assert_eq!(before, after);
}

/// What a terminal of 160 columns shows, once it shows all of these.
fn screen_with(program: &str, wanted: &[&str]) -> String {
    screen_after(program, wanted, || {})
}

/// The same, after something was done while the program runs.
fn screen_after(program: &str, wanted: &[&str], act: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tmux");
    let tmux = |arguments: &[&str]| {
        let out = Command::new("tmux").arg("-S").arg(&socket).args(["-f", "/dev/null"]).args(arguments).output();
        let out = out.expect("tmux; tests/run installs it");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    tmux(&["new-session", "-d", "-x", "160", "-y", "40", &format!("exec {program}")]);
    let pid = tmux(&["display-message", "-p", "#{pane_pid}"]);
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("the terminal has no program"));
    act();
    let start = Instant::now();
    let shown = loop {
        let shown = tmux(&["capture-pane", "-p"]);
        // What is wanted twice must be there twice: the screen is drawn line by line.
        let is_there =
            |text: &&str| shown.matches(text).count() >= wanted.iter().filter(|other| *other == text).count();
        if wanted.iter().all(is_there) || start.elapsed() > PATIENCE {
            break shown;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    // sngrep outlives its terminal, and spins.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    tmux(&["kill-server"]);
    for text in wanted {
        assert!(shown.contains(text), "{text} is not in\n{shown}");
    }
    shown
}

#[test]
#[ignore = "needs sngrep and tmux; tests/run runs it"]
fn sngrep_shows_the_calls_of_our_capture() {
    let arrived = sent_by_hepgate();
    let program = format!("sngrep -F -I '{}'", arrived.captured.display());
    let shown = screen_with(&program, &["INVITE", "sipp@127.0.0.1", "service@127.0.0.1", "COMPLETED", "COMPLETED"]);
    let calls = shown.lines().filter(|line| line.contains("INVITE") && line.contains("COMPLETED")).count();
    assert_eq!(calls, 2, "{shown}");
    assert!(shown.contains("127.0.0.1:15060") && shown.contains("127.0.0.1:15061"), "{shown}");
}

/// As the collector, which gets SIP of a capture that came to us as HEP2 and leaves as HEP3, and the other way round.
#[test]
#[ignore = "needs sngrep and tmux; tests/run runs it"]
fn sngrep_shows_the_calls_that_we_send() {
    for (came, leaves) in [("2", "3"), ("3", "2")] {
        let port = free_port();
        let to = collector("out", &format!("hep_udp:127.0.0.1:{port}"));
        let version = format!("version = \"{leaves}\"\n");
        let gateway = Gateway::start(&[BOTH_LISTENERS, &to, &version, ROUTE].concat());
        let settings = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(settings.path(), format!("set eep.listen.version {leaves}\n")).unwrap();
        let program = format!("sngrep -f '{}' -L udp:127.0.0.1:{port}", settings.path().display());
        let wanted = ["INVITE", "sipp@127.0.0.1", "service@127.0.0.1", "COMPLETED"];
        let shown = screen_after(&program, &wanted, || {
            await_udp_port(port, || {});
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new(crate::support::gateway::HEPGATE);
            command.arg("send").arg("--read").arg(sip_call()).args(["--pace", "max", "--as", came]);
            command.arg("--to").arg(format!("udp:{}", gateway.listener("udp")));
            Program::start(&mut command, folder.path()).finish();
        });
        let calls = shown.lines().filter(|line| line.contains("INVITE") && line.contains("COMPLETED")).count();
        assert_eq!(calls, 2, "{shown}");
        assert!(shown.contains("127.0.0.1:15060") && shown.contains("127.0.0.1:15061"), "{shown}");
        gateway.stop();
    }
}
