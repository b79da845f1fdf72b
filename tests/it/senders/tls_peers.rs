//! TLS of another family: OpenSSL as the collector, stunnel on either side.

use std::process::Command;

use super::program::{Program, free_port};
use super::{sip_call, sip_call_messages};
use crate::support::certificates::{Authority, write};
use crate::support::eventually;
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::peers::{TcpSink, UdpSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet};

/// A folder with an authority, and a certificate of it for either side.
fn folder() -> tempfile::TempDir {
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    write(folder.path(), "collector", &authority.sign("collector.test"));
    write(folder.path(), "gateway", &authority.sign("gateway.test"));
    folder
}

fn start(port: u16, more: &str, files: &tempfile::TempDir) -> Gateway {
    let own = files.path().display();
    let tls = format!(
        "ca = \"{own}/ca.pem\"\ncertificate = \"{own}/gateway.pem\"\nkey = \"{own}/gateway.key\"\n\
         server_name = \"collector.test\"\nhep_max_retries = 0\nbackoff_max = \"100ms\"\n"
    );
    let to = collector("out", &format!("hep_tls:127.0.0.1:{port}"));
    Gateway::start(&[BOTH_LISTENERS, &to, &tls, more, ROUTE].concat())
}

fn numbered(number: usize) -> Vec<u8> {
    packet(format!("{number} {}", "x".repeat(number * 37 % 30_000)).as_bytes())
}

#[test]
#[ignore = "needs openssl; tests/run runs it"]
fn openssl_gets_what_we_send_octet_for_octet() {
    for version in ["-tls1_2", "-tls1_3"] {
        let (files, port) = (folder(), free_port());
        let path = |name: &str| files.path().join(name);
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", version, "-verify_return_error", "-Verify", "1", "-CAfile"]);
        command.arg(path("ca.pem")).arg("-cert").arg(path("collector.pem")).arg("-key").arg(path("collector.key"));
        command.args(["-accept", &format!("127.0.0.1:{port}")]);
        let mut openssl = Program::start_apart(&mut command, files.path());
        let gateway = start(port, "hep_async_max_postponed_chunks = 100000\n", &files);
        let agent = udp_agent(gateway.listener("udp"));
        let mut sent = Vec::new();
        for number in 0..300 {
            agent.send(&numbered(number)).unwrap();
            sent.extend(numbered(number));
            let all = u64::try_from(number).unwrap() + 1;
            gateway.await_metric("hepgate_tenant_routed_packets_total", &[], all);
        }
        eventually("OpenSSL has all of it", || {
            openssl.assert_running();
            openssl.octets().len() >= sent.len()
        });
        openssl.assert_running();
        assert!(openssl.octets() == sent, "{version}");
        gateway.stop();
    }
}

/// stunnel is ready when it says so.
fn stunnel(text: &str, files: &tempfile::TempDir, name: &str) -> Program {
    let folder = files.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("stunnel.conf");
    std::fs::write(&path, format!("foreground = yes\npid =\n{text}")).unwrap();
    let program = Program::start(Command::new("stunnel").arg(&path), &folder);
    eventually("stunnel is ready", || program.said().contains("Configuration successful"));
    program
}

#[test]
#[ignore = "needs stunnel; tests/run runs it"]
fn stunnel_before_a_collector_gets_what_we_send() {
    let (files, port, sink) = (folder(), free_port(), TcpSink::new());
    let own = files.path().display();
    let text = format!(
        "[hep]\naccept = 127.0.0.1:{port}\nconnect = {}\ncert = {own}/collector.pem\nkey = {own}/collector.key\n\
         CAfile = {own}/ca.pem\nverifyChain = yes\nrequireCert = yes\n",
        sink.to().replace("hep_tcp:", "")
    );
    let stunnel = stunnel(&text, &files, "server");
    let gateway = start(port, "", &files);
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&numbered(0)).unwrap();
    let mut out = sink.accept();
    assert_eq!(next_packet(&mut out), numbered(0));
    for number in 1..300 {
        agent.send(&numbered(number)).unwrap();
        assert_eq!(next_packet(&mut out), numbered(number), "{}", stunnel.said());
    }
    gateway.stop();
}

#[test]
#[ignore = "needs stunnel; tests/run runs it"]
fn stunnel_before_a_sender_is_let_in() {
    let (files, port, sink) = (folder(), free_port(), UdpSink::new());
    let own = files.path().display();
    let listener = format!(
        "[[listener]]\nname = \"tls\"\nlisten = \"hep_tls:127.0.0.1:0\"\ncertificate = \"{own}/gateway.pem\"\n\
         key = \"{own}/gateway.key\"\nclient_ca = \"{own}/ca.pem\"\nclient_certificates = \"required\"\n"
    );
    let gateway = Gateway::start(&[&listener, &collector("out", &sink.to()), ROUTE].concat());
    let text = format!(
        "[hep]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = {}\ncert = {own}/collector.pem\n\
         key = {own}/collector.key\nCAfile = {own}/ca.pem\nverifyChain = yes\ncheckHost = gateway.test\n",
        gateway.listener("tls")
    );
    let stunnel = stunnel(&text, &files, "client");
    let mut command = Command::new(HEPGATE);
    command.args(["send", "--pace", "max", "--to", &format!("tcp:127.0.0.1:{port}"), "--read"]).arg(sip_call());
    Program::start(&mut command, &files.path().join("client")).finish();
    for message in sip_call_messages() {
        let came = sink.next();
        let packet = hepgate::wire::decode(came.into()).unwrap();
        assert_eq!(packet.payload(), message, "{}", stunnel.said());
    }
    gateway.stop();
}
