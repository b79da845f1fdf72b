use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::date_time_ymd;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::corpus;
use crate::support::PATIENCE;
use crate::support::certificates::{Authority, write};
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::peers::UdpSink;
use crate::support::settings::{ROUTE, collector, packet};

const CLOSED: &str = "hepgate_listener_closed_connections_total";

const LISTENER: &str = r#"
[[listener]]
name = "tls"
listen = "hep_tls:127.0.0.1:0"
certificate = "server.pem"
key = "server.key"
"#;

fn start(folder: tempfile::TempDir, more: &str, sink: &UdpSink) -> Gateway {
    let config = [LISTENER, more, &collector("out", &sink.to()), ROUTE];
    Gateway::start_in(folder, &config.concat())
}

/// An agent that trusts that authority and may show a certificate.
pub(crate) fn agent(
    to: SocketAddr,
    authority: &Authority,
    own: Option<&(String, String)>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(client(authority, own, "gateway.test"), stream)
}

/// An agent that asks for that name.
fn agent_for(to: SocketAddr, authority: &Authority, name: &'static str) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(client(authority, None, name), stream)
}

/// An agent's side of a connection that nobody has yet.
pub(crate) fn hello(authority: &Authority) -> ClientConnection {
    client(authority, None, "gateway.test")
}

fn client(authority: &Authority, own: Option<&(String, String)>, name: &'static str) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let name = ServerName::try_from(name).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Sends and sees whether the gateway lets it: an agent that is not let in hears so at its next read.
fn is_let_in(mut agent: StreamOwned<ClientConnection, TcpStream>, octets: &[u8]) -> bool {
    if agent.write_all(octets).and_then(|()| agent.flush()).is_err() {
        return false;
    }
    agent.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let heard = agent.read_exact(&mut [0]);
    heard.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
}

#[test]
fn packets_of_real_senders_arrive_through_tls_octet_for_octet() {
    let (authority, sink, folder) = (Authority::new("ours"), UdpSink::new(), tempfile::tempdir().unwrap());
    write(folder.path(), "server", &authority.sign("gateway.test"));
    let gateway = start(folder, "", &sink);
    let mut agent = agent(gateway.listener("tls"), &authority, None);
    let mut sent = 0;
    for exchange in corpus::exchanges() {
        for frame in exchange.frames.iter().filter(|frame| frame.octets.starts_with(b"HEP3")) {
            agent.write_all(&frame.octets).unwrap();
            assert_eq!(sink.next(), frame.octets, "{}", exchange.name);
            sent += 1;
        }
    }
    assert!(sent > 30, "{sent}");
    // Many packets in few records, and one packet in many.
    let many: Vec<Vec<u8>> = (0..500).map(|number| packet(format!("packet {number}").as_bytes())).collect();
    for some in many.chunks(100) {
        // As many as the sink's socket holds for sure.
        agent.write_all(&some.concat()).unwrap();
        assert_eq!(sink.take(100), some);
    }
    let large = packet(&vec![7; 60_000]);
    agent.write_all(&large).unwrap();
    assert_eq!(sink.next(), large);
    agent.conn.send_close_notify();
    agent.flush().unwrap();
    // Only its half: who closes with our tickets unread resets the connection.
    agent.sock.shutdown(std::net::Shutdown::Write).unwrap();
    gateway.await_metric(CLOSED, &[("reason", "peer-closed")], 1);
    gateway.stop();
}

#[test]
fn who_shows_no_good_certificate_is_not_let_in_if_one_is_required() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let (own, wrong) = (authority.sign("agent"), other.sign("agent"));
    for (wanted, without) in [("required", false), ("optional", true)] {
        let (sink, folder) = (UdpSink::new(), tempfile::tempdir().unwrap());
        write(folder.path(), "server", &authority.sign("gateway.test"));
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let more = format!("client_ca = \"ca.pem\"\nclient_certificates = \"{wanted}\"\n");
        let gateway = start(folder, &more, &sink);
        let to = gateway.listener("tls");
        assert!(is_let_in(agent(to, &authority, Some(&own)), &packet(b"with")), "{wanted}");
        assert_eq!(sink.next(), packet(b"with"));
        assert_eq!(is_let_in(agent(to, &authority, None), &packet(b"without")), without, "{wanted}");
        if without {
            assert_eq!(sink.next(), packet(b"without"));
        }
        assert!(!is_let_in(agent(to, &authority, Some(&wrong)), &packet(b"wrong")), "{wanted}");
        gateway.await_metric(CLOSED, &[("reason", "handshake-failed")], if without { 1 } else { 2 });
        assert!(sink.is_empty());
        gateway.stop();
    }
}

#[test]
fn what_is_not_tls_is_closed_with_its_reason_and_no_other_notices() {
    let (authority, sink, folder) = (Authority::new("ours"), UdpSink::new(), tempfile::tempdir().unwrap());
    write(folder.path(), "server", &authority.sign("gateway.test"));
    let gateway = start(folder, "handshake_timeout = \"300ms\"\n", &sink);
    let to = gateway.listener("tls");
    let mut honest = agent(to, &authority, None);
    honest.write_all(&packet(b"one")).unwrap();
    assert_eq!(sink.next(), packet(b"one"));
    let mut plain = TcpStream::connect(to).unwrap();
    plain.write_all(&packet(b"in the clear, by mistake")).unwrap();
    gateway.await_metric(CLOSED, &[("reason", "handshake-failed")], 1);
    let silent = TcpStream::connect(to).unwrap();
    gateway.await_metric(CLOSED, &[("reason", "handshake-timeout")], 1);
    drop(silent);
    let mut broken = agent(to, &authority, None);
    broken.write_all(&packet(b"two")).unwrap();
    assert_eq!(sink.next(), packet(b"two"));
    broken.sock.write_all(b"no record at all").unwrap();
    gateway.await_metric(CLOSED, &[("reason", "tls-broken")], 1);
    honest.write_all(&packet(b"three")).unwrap();
    assert_eq!(sink.next(), packet(b"three"));
    gateway.stop();
}

#[test]
fn new_certificates_are_taken_and_connections_that_are_there_go_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (sink, folder) = (UdpSink::new(), tempfile::tempdir().unwrap());
    write(folder.path(), "server", &old.sign("gateway.test"));
    let gateway = start(folder, "", &sink);
    let to = gateway.listener("tls");
    let mut before = agent(to, &old, None);
    before.write_all(&packet(b"before")).unwrap();
    assert_eq!(sink.next(), packet(b"before"));
    // What cannot be used is told, and the old one stays.
    std::fs::write(gateway.folder.path().join("server.pem"), "no certificate").unwrap();
    crate::support::eventually("the bad file is told of", || {
        assert!(is_let_in(agent(to, &old, None), &packet(b"old")));
        assert_eq!(sink.next(), packet(b"old"));
        !gateway.lines_with("new certificates cannot be used").is_empty()
    });
    write(gateway.folder.path(), "server", &new.sign("gateway.test"));
    crate::support::eventually("the new one is used", || is_let_in(agent(to, &new, None), &packet(b"new")));
    assert_eq!(sink.next(), packet(b"new"));
    before.write_all(&packet(b"still there")).unwrap();
    assert_eq!(sink.next(), packet(b"still there"));
    gateway.stop();
}

#[test]
fn certificates_that_cannot_be_used_are_one_sentence_with_the_file_and_the_reason() {
    let authority = Authority::new("ours");
    let good = authority.sign("gateway.test");
    let expired = authority.sign_with("gateway.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.sign_with("gateway.test", |params| params.not_before = date_time_ymd(2100, 1, 1));
    let nothing = String::new();
    for (certificate, key, expected) in [
        (Some(&expired.0), Some(&expired.1), "server.pem: its certificate is valid from "),
        (Some(&early.0), Some(&early.1), "server.pem: its certificate is valid from "),
        (Some(&good.0), Some(&expired.1), "server.pem: the certificate in it and the key in "),
        (Some(&good.1), Some(&good.1), "server.pem: has no certificate in it"),
        (Some(&good.0), Some(&good.0), "server.key: has no private key in it"),
        (Some(&nothing), Some(&good.1), "server.pem: has no certificate in it"),
        (None, Some(&good.1), "server.pem: No such file or directory"),
        (Some(&good.0), None, "server.key: No such file or directory"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("server.pem", certificate), ("server.key", key)] {
            if let Some(text) = text {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
        }
        let config = format!("[admin]\nlisten = \"\"\n{LISTENER}[[tenant]]\nname = \"t\"\n");
        std::fs::write(folder.path().join("hepgate.toml"), config).unwrap();
        let out = std::process::Command::new(HEPGATE)
            .args(["run", "--config", "hepgate.toml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("hepgate: listener \"tls\": ") && said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("listening"), "{said}");
    }
}

#[test]
fn an_agent_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (sink, folder) = (UdpSink::new(), tempfile::tempdir().unwrap());
    write(folder.path(), "server", &ours.sign("gateway.test"));
    write(folder.path(), "other", &theirs.sign("other.test"));
    let sni = "[[listener.sni]]\nserver_name = \"Other.test\"\ncertificate = \"other.pem\"\nkey = \"other.key\"\n";
    let gateway = start(folder, sni, &sink);
    let to = gateway.listener("tls");
    // Each trusts only the authority of the name that it asks for.
    for (authority, name, let_in) in [
        (&ours, "gateway.test", true),
        (&theirs, "other.test", true),
        (&theirs, "OTHER.TEST", true),
        (&theirs, "gateway.test", false),
        (&ours, "other.test", false),
    ] {
        let mut agent = agent_for(to, authority, name);
        assert_eq!(agent.write_all(&packet(name.as_bytes())).and_then(|()| agent.flush()).is_ok(), let_in, "{name}");
        if let_in {
            assert_eq!(sink.next(), packet(name.as_bytes()));
        }
    }
    // It is read again, too.
    write(gateway.folder.path(), "other", &ours.sign("other.test"));
    crate::support::eventually("the new one is shown", || {
        let mut agent = agent_for(to, &ours, "other.test");
        agent.write_all(&packet(b"new")).and_then(|()| agent.flush()).is_ok()
    });
    assert_eq!(sink.next(), packet(b"new"));
    gateway.stop();
}

/// An independent TLS.
#[test]
#[ignore = "needs openssl; tests/run runs it"]
fn openssl_speaks_to_us_and_an_old_version_is_refused_if_we_say_so() {
    for (more, version, let_in) in [
        ("", "-tls1_2", true),
        ("", "-tls1_3", true),
        ("tls_min_version = \"1.3\"\n", "-tls1_2", false),
        ("tls_min_version = \"1.3\"\n", "-tls1_3", true),
    ] {
        let (authority, sink, folder) = (Authority::new("ours"), UdpSink::new(), tempfile::tempdir().unwrap());
        write(folder.path(), "server", &authority.sign("gateway.test"));
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let gateway = start(folder, more, &sink);
        let mut openssl = std::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-servername", "gateway.test", version, "-CAfile"])
            .arg(gateway.folder.path().join("ca.pem"))
            .args(["-connect", &gateway.listener("tls").to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let written = openssl.stdin.take().unwrap().write_all(&packet(b"from openssl"));
        if let_in {
            written.unwrap();
            assert_eq!(sink.next(), packet(b"from openssl"), "{more}{version}");
        } else {
            gateway.await_metric(CLOSED, &[("reason", "handshake-failed")], 1);
            assert!(sink.is_empty());
        }
        let _ = openssl.kill();
        openssl.wait().unwrap();
        gateway.stop();
    }
}
