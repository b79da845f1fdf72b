//! `redact` beyond SIP: correlation ids, JSON, and the chunks beside the payload.

use hepgate::wire::Packet;
use serde_json::Value;

use super::{corpus_packets, hep3, read, shipped, through};
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

const CALL: &str = "1-12469@192.0.2.1";

/// The body of the first generic chunk of that kind.
fn chunk(packet: &Packet, kind: u16) -> String {
    let chunk = packet.chunks().find(|chunk| (chunk.id.vendor.0, chunk.id.kind) == (0, kind)).unwrap();
    String::from_utf8(chunk.body.to_vec()).unwrap()
}

/// What an agent captures of one call: SIP, a report of RTCP, a log line, and OpenSIPS' correlation without a payload.
fn one_call(agent_id: u32) -> Vec<Vec<u8>> {
    let agent_id = agent_id.to_be_bytes();
    let sip = format!("BYE sip:alice@h.org SIP/2.0\r\nFrom: <sip:+49301234567@h.org>;tag=1\r\nCall-ID: {CALL}\r\n\r\n");
    let report = format!(r#"{{"call_id":"{CALL}","caller":"alice","ssrc":4369,"mos":4.2,"text":"alice@h"}}"#);
    let extra = format!(r#"{{"isup":"9-9@h","sip":"{CALL}"}}"#);
    let with = |kind: u8, more: &[(u16, u16, &[u8])]| {
        hep3(&[&[(0, 0x0b, &[kind][..]), (0, 0x0c, &agent_id), (0, 0x11, CALL.as_bytes())], more].concat())
    };
    vec![
        with(1, &[(0, 0x0f, sip.as_bytes())]),
        with(5, &[(0, 0x0f, report.as_bytes())]),
        with(100, &[(0, 0x0f, b"a line without a name")]),
        with(1, &[(0, 0x65, extra.as_bytes())]),
    ]
}

/// The pseudonyms of the call and of its user.
fn pseudonyms(sink: &UdpSink) -> (String, String) {
    let [sip, report, log, correlation] = [(); 4].map(|()| read(&sink.next()));
    let call = chunk(&sip, 0x11);
    assert_eq!(call.len(), CALL.len());
    assert_ne!(call, CALL);
    for packet in [&report, &log, &correlation] {
        assert_eq!(chunk(packet, 0x11), call);
    }
    let text = String::from_utf8(sip.payload().to_vec()).unwrap();
    assert!(text.contains(&format!("Call-ID: {call}\r\n")), "{text}");
    let report: Value = serde_json::from_slice(report.payload()).unwrap();
    assert_eq!((&report["call_id"], &report["mos"]), (&call.clone().into(), &4.2.into()));
    assert_eq!((&report["ssrc"], &report["text"]), (&4_369.into(), &"xxxxxxx".into()));
    let extra: Value = serde_json::from_str(&chunk(&correlation, 0x65)).unwrap();
    assert_eq!(extra["sip"], call);
    let user = report["caller"].as_str().unwrap().to_owned();
    assert!(text.starts_with(&format!("BYE sip:{user}@h.org ")), "{text}");
    (call, user)
}

#[test]
fn a_call_has_one_pseudonym_in_all_that_speaks_of_it_and_another_in_every_realm() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "0123456789abcdef\n").unwrap();
    let tenant = |name: &str, agents: &str| {
        format!(
            "[[tenant]]\nname = \"{name}\"\nfilters = [\"redact\"]\nroute = [\"out\"]\n\
             [tenant.config.redact]\nrealm = \"{name}\"\n{agents}"
        )
    };
    let sink = UdpSink::new();
    let key = folder.path().join("key");
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &shipped(
            "redact",
            &format!(
                "on_error = \"drop\"\nconfig = {{ key = {{ file = \"{}\" }}, call_ids = \"pseudonym\", pass_types = 100 }}",
                key.display()
            ),
        ),
        &tenant("north", "[[tenant.match]]\nagent_id = 1\n[[tenant.match]]\nagent_id = 2\n"),
        &tenant("south", ""),
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let [north, also_north, south] = [1, 2, 3].map(|agent_id| {
        one_call(agent_id).iter().for_each(|packet| assert_eq!(agent.send(packet).unwrap(), packet.len()));
        pseudonyms(&sink)
    });
    assert_eq!(north, also_north);
    assert_ne!(north.0, south.0);
    assert_ne!(north.1, south.1);
    gateway.stop();
}

#[test]
fn reports_of_real_agents_keep_their_figures_and_lose_their_cname() {
    let sink = UdpSink::new();
    let gateway = through("redact", "", &sink);
    let agent = udp_agent(gateway.listener("udp"));
    let reports = corpus_packets().into_iter().filter(|(name, _)| name.starts_with("rtpengine"));
    let mut with_cname = 0;
    for (name, octets) in reports {
        agent.send(&octets).unwrap();
        let after = read(&sink.next());
        let before = read(&octets);
        let expected = String::from_utf8(before.payload().to_vec()).unwrap().replace("\"corpus\"", "\"xxxxxx\"");
        with_cname += usize::from(expected.contains("xxxxxx"));
        assert_eq!(String::from_utf8(after.payload().to_vec()).unwrap(), expected, "{name}");
        assert_eq!(chunk(&after, 0x11), chunk(&before, 0x11));
        assert_eq!(after.octets().len(), octets.len());
    }
    assert_eq!(with_cname, 4);
    gateway.stop();
}

#[test]
fn chunks_beside_the_payload_are_hidden_as_far_as_is_said() {
    let chunks: [(u16, u16, &[u8]); 8] = [
        (0, 0x0b, &[1]),
        (0, 0x0e, b"myhep"),
        (0, 0x11, CALL.as_bytes()),
        (0, 0x13, b"fra-1"),
        (0, 0x22, b"52.5,13.4"),
        (0, 0x26, b"alice"),
        (8, 0x01, b"bob"),
        (0, 0x0f, b"BYE sip:h.org SIP/2.0\r\n\r\n"),
    ];
    let hidden = |kinds: &[(u16, u16)]| {
        let fill: Vec<Vec<u8>> = chunks.iter().map(|(_, _, body)| vec![b'x'; body.len()]).collect();
        let of = |(place, (vendor, kind, body)): (usize, &(u16, u16, &'static [u8]))| {
            (*vendor, *kind, if kinds.contains(&(*vendor, *kind)) { fill[place].clone() } else { body.to_vec() })
        };
        let all: Vec<(u16, u16, Vec<u8>)> = chunks.iter().enumerate().map(of).collect();
        hep3(&all.iter().map(|(vendor, kind, body)| (*vendor, *kind, &body[..])).collect::<Vec<_>>())
    };
    for (config, kinds) in [
        ("", &[(0, 0x22), (0, 0x26)][..]),
        ("config = { chunks = \"keep\" }", &[]),
        ("config = { chunks = \"hide\" }", &[(0, 0x0e), (0, 0x13), (0, 0x22), (0, 0x26), (8, 0x01)]),
    ] {
        let sink = UdpSink::new();
        let gateway = through("redact", config, &sink);
        udp_agent(gateway.listener("udp")).send(&hidden(&[])).unwrap();
        assert_eq!(sink.next(), hidden(kinds), "{config}");
        gateway.stop();
    }
}
