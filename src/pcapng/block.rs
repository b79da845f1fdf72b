//! The octets of a pcapng file: its beginning, and one block for each packet. No file in it.

use std::borrow::Cow;

use pcap_parser::pcapng::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode, PcapNGOption, SectionHeaderBlock,
};
use pcap_parser::{Linktype, ToVec};

/// The section and the one interface, "raw IP": every packet begins with its IP header.
pub(crate) fn beginning() -> Result<Vec<u8>, WriteError> {
    let application = concat!("hepgate ", env!("CARGO_PKG_VERSION")).as_bytes();
    let length = u16::try_from(application.len()).unwrap_or(u16::MAX);
    let user_application =
        PcapNGOption { code: OptionCode::ShbUserAppl, len: length, value: Cow::Borrowed(application) };
    let mut section = SectionHeaderBlock {
        block_type: 0,
        block_len1: 0,
        bom: 0,
        major_version: 0,
        minor_version: 0,
        // Not known yet.
        section_len: -1,
        options: vec![user_application, end_of_options()],
        block_len2: 0,
    };
    let mut interface = InterfaceDescriptionBlock {
        block_type: 0,
        block_len1: 0,
        linktype: Linktype::RAW,
        reserved: 0,
        snaplen: 0,
        options: vec![
            PcapNGOption { code: OptionCode::IfTsresol, len: 1, value: Cow::Borrowed(&[MICROSECONDS, 0, 0, 0]) },
            PcapNGOption { code: OptionCode::IfTsoffset, len: 8, value: Cow::Borrowed(&[0; 8]) },
            end_of_options(),
        ],
        block_len2: 0,
        if_tsresol: MICROSECONDS,
        if_tsoffset: 0,
    };
    let mut octets = serialized(&mut section)?;
    octets.extend(serialized(&mut interface)?);
    Ok(octets)
}

/// The block of one packet, which begins with its IP header. `at` is in microseconds since the epoch.
pub(crate) fn packet(at: u64, ip_packet: &[u8]) -> Result<Vec<u8>, WriteError> {
    let length = u32::try_from(ip_packet.len()).unwrap_or(u32::MAX);
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    let mut block = EnhancedPacketBlock {
        block_type: 0,
        block_len1: 0,
        if_id: 0,
        ts_high: half(at >> 32),
        ts_low: half(at),
        caplen: length,
        origlen: length,
        data: ip_packet,
        options: Vec::new(),
        block_len2: 0,
    };
    serialized(&mut block)
}

/// `if_tsresol`: ten to the minus six seconds.
const MICROSECONDS: u8 = 6;

/// A block could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a pcapng block cannot be made: {0}")]
pub(crate) struct WriteError(String);

fn serialized(block: &mut impl ToVec) -> Result<Vec<u8>, WriteError> {
    block.to_vec().map_err(|error| WriteError(format!("{error:?}")))
}

const fn end_of_options() -> PcapNGOption<'static> {
    PcapNGOption { code: OptionCode::EndOfOpt, len: 0, value: Cow::Borrowed(&[]) }
}
