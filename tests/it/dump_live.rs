use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::corpus;
use crate::support::gateway::HEPGATE;
use crate::support::peers::udp_agent;
use crate::support::settings::packet;

/// `hepgate dump` at a UDP and a TCP port that the system chose.
struct Dump {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Lines<BufReader<ChildStderr>>,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Dump {
    fn start(more: &[&str]) -> Self {
        let listen = ["--listen", "hep_udp:127.0.0.1:0", "--listen", "hep_tcp:127.0.0.1:0"];
        let mut command = Command::new(HEPGATE);
        command.arg("dump").args(listen).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |transport: &str| {
            let line = said.next().unwrap().unwrap();
            line.strip_prefix(&format!("listening at hep_{transport}:"))
                .unwrap_or_else(|| panic!("{line}"))
                .parse()
                .unwrap()
        };
        let (udp, tcp) = (address("udp"), address("tcp"));
        Self { child, lines, said, udp, tcp }
    }

    fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// Ctrl-C, and the last line that it says.
    fn interrupt(&mut self) -> String {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        self.last_words()
    }

    fn last_words(&mut self) -> String {
        let said = self.said.by_ref().map(Result::unwrap).last().unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // A test that failed leaves no process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_comes_over_udp_and_tcp_is_printed_as_from_a_file() {
    for exchange in corpus::exchanges() {
        let mut dump = Dump::start(&["--json"]);
        let (agent, mut stream) = (udp_agent(dump.udp), TcpStream::connect(dump.tcp).unwrap());
        let count = exchange.frames.len();
        let mut live = Vec::new();
        for frame in &exchange.frames {
            if frame.is_tcp {
                stream.write_all(&frame.octets).unwrap();
            } else {
                agent.send(&frame.octets).unwrap();
            }
            live.push(dump.next_json());
        }
        assert_eq!(dump.interrupt(), format!("{count} packets, 0 errors"));
        let file = format!("{}/tests/corpus/{}.pcap", env!("CARGO_MANIFEST_DIR"), exchange.name);
        let output = Command::new(HEPGATE).args(["dump", "--json", "--read", &file]).output().unwrap();
        let from_file: Vec<Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(live, from_file, "{}", exchange.name);
    }
}

#[test]
fn what_is_not_hep_is_an_error_line_with_its_sender() {
    let mut dump = Dump::start(&["--json"]);
    let agent = udp_agent(dump.udp);
    agent.send(b"GET / HTTP/1.1").unwrap();
    let error = dump.next_json();
    assert_eq!(error["error"], "not HEP: 14 octets that begin with 47 45 54 20");
    assert_eq!(error["flow"]["source"], agent.local_addr().unwrap().to_string());
    let mut stream = TcpStream::connect(dump.tcp).unwrap();
    stream.write_all(b"HELLO HFP").unwrap();
    let error = dump.next_json();
    assert!(error["error"].as_str().unwrap().starts_with("not HEP"), "{error}");
    assert_eq!(error["flow"]["transport"], "tcp");
    assert_eq!(dump.interrupt(), "0 packets, 2 errors");
}

#[test]
fn it_ends_after_as_many_packets_as_wanted() {
    let mut dump = Dump::start(&["--count", "2"]);
    let mut stream = TcpStream::connect(dump.tcp).unwrap();
    stream.write_all(&[packet(b"one"), packet(b"two"), packet(b"three")].concat()).unwrap();
    assert_eq!(dump.last_words(), "2 packets, 0 errors");
    assert_eq!(dump.lines.by_ref().count(), 2);
}

#[test]
fn a_wrong_address_and_a_port_in_use_are_one_sentence() {
    let dump = Dump::start(&[]);
    for (listen, text) in [
        (
            "udp:127.0.0.1:1",
            "hepgate: --listen: \"udp:127.0.0.1:1\" does not begin with hep_udp:, hep_tcp: or hep_tls:".to_owned(),
        ),
        (
            "hep_tls:127.0.0.1:1",
            "hepgate: --listen: \"hep_tls:127.0.0.1:1\": dump listens over hep_udp: and hep_tcp:".to_owned(),
        ),
        (
            &format!("hep_tcp:{}", dump.tcp),
            format!("hepgate: listener \"hep_tcp:{0}\": hep_tcp:{0}: Address", dump.tcp),
        ),
    ] {
        let output = Command::new(HEPGATE).args(["dump", "--listen", listen]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&text) && said.lines().count() == 1, "{said}");
    }
}
