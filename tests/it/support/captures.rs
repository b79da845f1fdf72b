//! What is in the captures that the gateway writes.

use std::path::Path;

/// What UDP and TCP carry in the packets of a pcapng file of raw IP.
pub(crate) fn payloads(path: &Path) -> Vec<Vec<u8>> {
    ip_packets(path)
        .iter()
        .map(|packet| match etherparse::SlicedPacket::from_ip(packet).unwrap().transport {
            Some(etherparse::TransportSlice::Udp(udp)) => udp.payload().to_vec(),
            Some(etherparse::TransportSlice::Tcp(tcp)) => tcp.payload().to_vec(),
            other => panic!("{other:?}"),
        })
        .collect()
}

pub(crate) fn ip_packets(path: &Path) -> Vec<Vec<u8>> {
    use pcap_parser::pcapng::Block;
    use pcap_parser::{PcapBlockOwned, PcapError, PcapNGReader, traits::PcapReaderIterator};
    let mut reader = PcapNGReader::new(1 << 20, std::fs::File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                if let PcapBlockOwned::NG(Block::EnhancedPacket(block)) = block {
                    packets.push(block.data[..usize::try_from(block.caplen).unwrap()].to_vec());
                }
                reader.consume(offset);
            }
            Err(PcapError::Eof) => return packets,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{error:?}"),
        }
    }
}
