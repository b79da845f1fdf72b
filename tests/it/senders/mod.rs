//! Needs the programs of `tests/packages`, so a plain `cargo test` leaves them out; `tests/run` runs them. A
//! program that is missing then is a failure.

mod hep_js;
mod kamailio;
mod program;
mod readers;
mod rtpengine;
mod sipcapture;
mod sipgrep;
mod sngrep;
mod tap;
mod tls_peers;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hepgate::wire::{Packet, decode};

use crate::support::captures::payloads;
use crate::support::gateway::Gateway;
use crate::support::settings::{BOTH_LISTENERS, collector};
use tap::Tap;

/// A gateway that writes what comes into files, and a tap through which a sender reaches it.
struct Rig {
    gateway: Gateway,
    tap: Tap,
}

/// What a sender sent, and what became of it.
struct Arrived {
    /// Octet for octet as the file of HEP has it, which is as the sender sent it.
    packets: Vec<Packet>,
    /// The pcapng of the captured packets.
    captured: PathBuf,
    /// Keeps the file.
    _folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let config = [
            BOTH_LISTENERS,
            &format!("{}format = \"hep\"\n", collector("hep", "file:out")),
            &collector("captured", "file:out"),
            "[[tenant]]\nname = \"default\"\nroute = [\"hep\", \"captured\"]\n",
        ];
        let gateway = Gateway::start(&config.concat());
        let tap = Tap::start(gateway.listener("udp"), gateway.listener("tcp"));
        Self { gateway, tap }
    }

    /// Waits for so many packets, stops the gateway, and sees that the file holds what the sender sent.
    fn finish(self, count: usize) -> Arrived {
        let count_wide = u64::try_from(count).unwrap();
        self.gateway.await_metric("hepgate_collector_sent_packets_total", &[("collector", "hep")], count_wide);
        self.gateway.await_quiet();
        let metrics = self.gateway.metrics();
        assert_eq!(metrics.sum("hepgate_listener_rejected_packets_total"), 0, "{}", self.gateway.log_text());
        let ended = self.gateway.stop();
        let sent = self.tap.packets();
        let arrived = payloads(&ended.files("out", "hep-")[0]);
        assert_eq!(arrived.len(), count);
        assert_eq!(arrived, sent, "what arrived is not what was sent");
        let captured = ended.files("out", "captured-").remove(0);
        let packets = arrived.into_iter().map(|octets| decode(Bytes::from(octets)).unwrap()).collect();
        Arrived { packets, captured, _folder: ended.folder }
    }
}

impl Arrived {
    fn texts(&self) -> Vec<String> {
        self.packets.iter().map(|packet| String::from_utf8_lossy(packet.payload()).into_owned()).collect()
    }
}

/// Two calls of SIPp, twelve SIP messages, no HEP.
fn sip_call() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/sip-call.pcap")
}

/// The SIP messages of that capture, read without anything of the gateway's.
fn sip_call_messages() -> Vec<Vec<u8>> {
    use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError, traits::PcapReaderIterator};
    let mut reader = LegacyPcapReader::new(1 << 20, std::fs::File::open(sip_call()).unwrap()).unwrap();
    let mut messages = Vec::new();
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                if let PcapBlockOwned::Legacy(block) = block {
                    let sliced = etherparse::SlicedPacket::from_ethernet(block.data).unwrap();
                    let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
                    messages.push(udp.payload().to_vec());
                }
                reader.consume(offset);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(messages.len(), 12);
    messages
}
