//! What a packet says.

use hepgate_filter::{Batch, ChunkForm, ChunkId, ChunkValue, EditError, SIP, Verdict};

use crate::checks::Checks;

// example: packets.batch.len
/// A verdict for each packet.
fn drop_all(batch: &Batch) -> Vec<Verdict> {
    (0..batch.len()).map(|_| Verdict::Drop).collect()
}
// end

// example: packets.batch.scalars
/// How many of the packets are SIP from an agent.
fn sip_of(batch: &Batch, agent_id: u32) -> usize {
    let packets = batch.scalars();
    packets.iter().filter(|packet| packet.payload_type == SIP && packet.agent_id == agent_id).count()
}
// end

// example: packets.batch.packed-scalars
/// The same from plain numbers; `hepgate_filter::scalars` unpacks all of them for you.
fn sip_of_numbers(batch: &Batch, agent_id: u32) -> usize {
    let numbers = batch.packed_scalars();
    numbers.chunks_exact(16).filter(|packet| (packet[0] >> 16) as u8 == SIP && packet[2] == agent_id).count()
}
// end

// example: packets.batch.payload
/// The first line of a message, of at most 128 octets: what is not asked for does not move.
fn first_line(batch: &Batch, index: u32) -> Vec<u8> {
    let begin = batch.payload(index, 0, 128);
    begin.split(|octet| *octet == b'\r').next().unwrap_or_default().to_vec()
}
// end

// example: packets.batch.payloads
/// Which packets begin so. One host call for all of them; `hepgate_filter::Payloads` cuts the list for you.
fn beginning_with(batch: &Batch, prefix: &[u8]) -> Vec<bool> {
    let max = prefix.len() as u32;
    let all = batch.payloads(max);
    let mut rest = all.as_slice();
    let begins = |length: u32| {
        let (share, behind) = rest.split_at(length.min(max) as usize);
        rest = behind;
        share == prefix
    };
    batch.scalars().iter().map(|packet| packet.payload_length).map(begins).collect()
}
// end

// example: packets.batch.chunk
/// What an agent of ours says of the customer, in a chunk of its own.
fn customer(batch: &Batch, index: u32) -> Option<Vec<u8>> {
    batch.chunk(index, ChunkId { vendor: 0x7777, kind: 1 })
}
// end

// example: packets.batch.chunk-value
/// The VLAN, as `hep_get("uint16", "0x12", …)` reads it.
fn vlan(batch: &Batch, index: u32) -> Result<Option<u16>, EditError> {
    match batch.chunk_value(index, ChunkId { vendor: 0, kind: 0x12 }, ChunkForm::Uint16)? {
        Some(ChunkValue::Uint16(vlan)) => Ok(Some(vlan)),
        _ => Ok(None),
    }
}
// end

// example: packets.batch.chunks
/// How many octets of a packet are not the specification's.
fn octets_of_vendors(batch: &Batch, index: u32) -> usize {
    let chunks = batch.chunks(index);
    chunks.iter().filter(|chunk| chunk.id.vendor != 0).map(|chunk| chunk.body.len()).sum()
}
// end

// example: packets.batch.correlation-id
/// Whether a packet says to which call it belongs.
fn is_of(batch: &Batch, index: u32, call: &[u8]) -> bool {
    batch.correlation_id(index).is_some_and(|id| id == call)
}
// end

// example: packets.batch.agent-name
/// Who captured it, as a text: what agents send need not be one.
fn agent_name(batch: &Batch, index: u32) -> String {
    batch.agent_name(index).map_or_else(|| "?".to_owned(), |name| String::from_utf8_lossy(&name).into_owned())
}
// end

// example: packets.batch.sip-method
/// INVITE and its responses alike.
fn is_of_invite(batch: &Batch, index: u32) -> bool {
    batch.sip_method(index).as_deref() == Some("INVITE")
}
// end

// example: packets.batch.sip-header
/// The Call-ID, long or compact. The host reads a message once for all filters of a chain.
fn call_id(batch: &Batch, index: u32) -> Option<Vec<u8>> {
    batch.sip_header(index, "Call-ID")
}
// end

// example: packets.batch.sender
/// Whether it came to us in clear, and where.
fn in_clear(batch: &Batch, index: u32) -> Option<String> {
    let sender = batch.sender(index);
    (sender.transport != "tls").then_some(sender.listener)
}
// end

pub(crate) fn check(checks: &mut Checks, batch: &Batch) {
    checks.is("packets.batch.len", drop_all(batch), vec![Verdict::Drop; 16]);
    checks.is("packets.batch.scalars", (sip_of(batch, 2_000), sip_of(batch, 9)), (16, 0));
    let of = (sip_of_numbers(batch, 2_000), sip_of_numbers(batch, 9));
    checks.is("packets.batch.packed-scalars", of, (16, 0));
    assert_eq!(format!("{:?}", hepgate_filter::scalars(batch)), format!("{:?}", batch.scalars()), "both say the same");
    checks.is("packets.batch.payload", first_line(batch, 0), b"INVITE sip:bob@example.com SIP/2.0".to_vec());
    let invites = beginning_with(batch, b"INVITE ");
    checks.is("packets.batch.payloads", (invites.first(), invites.get(1)), (Some(&true), Some(&false)));
    checks.is("packets.batch.chunk", (customer(batch, 0), customer(batch, 1)), (Some(b"gold".to_vec()), None));
    checks.is("packets.batch.chunk-value", (vlan(batch, 0).ok(), vlan(batch, 1).ok()), (Some(Some(7)), Some(None)));
    checks.is("packets.batch.chunks", octets_of_vendors(batch, 0), 4);
    checks.is("packets.batch.correlation-id", (is_of(batch, 0, b"one"), is_of(batch, 1, b"one")), (true, false));
    checks.is("packets.batch.agent-name", (agent_name(batch, 0), agent_name(batch, 1)), ("edge-1".into(), "?".into()));
    checks.is("packets.batch.sip-method", (is_of_invite(batch, 1), is_of_invite(batch, 15)), (true, false));
    checks.is("packets.batch.sip-header", call_id(batch, 1), Some(b"one@192.0.2.10".to_vec()));
    checks.is("packets.batch.sender", in_clear(batch, 0), Some("capture".to_owned()));
}
