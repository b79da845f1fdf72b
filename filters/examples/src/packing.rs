//! Packets of one's own.

use hepgate_filter::{ChunkId, ChunkValue, EditError, Endpoint, IpAddress, LOG, Packet};

use crate::checks::Checks;

// example: packing.packet.pack
/// A line of a log, as HEP.
pub(crate) fn log_packet(line: &str) -> Result<Packet, EditError> {
    let here = Endpoint { address: IpAddress::Ipv4(0x7f00_0001), port: 0 };
    let udp = 17;
    Packet::pack(here, here, udp, LOG, line.as_bytes())
}
// end

// example: packing.packet.pack-parts
/// A packet whose payload is still to be told, in parts.
fn event() -> Result<Packet, EditError> {
    let here = Endpoint { address: IpAddress::Ipv4(0x7f00_0001), port: 0 };
    Packet::pack_parts(here, here, 17, LOG)
}
// end

// example: packing.packet.add-payload-part
/// `registered:bob` with `homer5_on`, and without `{"event":"registered","user":"bob"}`.
fn registered(packet: &Packet, user: &str) -> Result<(), EditError> {
    packet.add_payload_part("event", "registered")?;
    packet.add_payload_part("user", user)
}
// end

// example: packing.packet.add-correlation
/// Of which call it is. Of these two `homer5_on` lets only the first leave, as correlation id.
fn of_call(packet: &Packet, call_id: &str, ticket: &str) -> Result<(), EditError> {
    packet.add_correlation("sip", call_id)?;
    packet.add_correlation("ticket", ticket)
}
// end

// example: packing.packet.set-captured-at
/// As if it had been captured when the packet was that it is about.
fn at_the_time_of(packet: &Packet, captured_at: u64) {
    packet.set_captured_at(captured_at);
}
// end

// example: packing.packet.set-agent-id
/// In the name of the agent that it is about.
fn in_the_name_of(packet: &Packet, agent_id: u32) {
    packet.set_agent_id(agent_id);
}
// end

// example: packing.packet.set-correlation-id
/// So that Homer shows it with the call.
fn beside_call(packet: &Packet, call_id: &[u8]) -> Result<(), EditError> {
    packet.set_correlation_id(call_id)
}
// end

// example: packing.packet.set-extra-correlation
/// The other ids by which it can be found.
fn also_found_by(packet: &Packet) -> Result<(), EditError> {
    packet.set_extra_correlation(r#"{"ticket":"17"}"#)
}
// end

// example: packing.packet.add-chunk
/// The name of who sends it (chunk 0x13).
fn from_agent(packet: &Packet, name: &str) -> Result<(), EditError> {
    packet.add_chunk(ChunkId { vendor: 0, kind: 0x13 }, name.as_bytes())
}
// end

// example: packing.packet.add-chunk-value
/// A quality of one's own, as a number in a chunk of one's own.
fn with_score(packet: &Packet, score: u32) -> Result<(), EditError> {
    packet.add_chunk_value(ChunkId { vendor: 0x7777, kind: 3 }, &ChunkValue::Uint32(score))
}
// end

// example: packing.packet.encode
/// How long it is on the wire as HEP3.
fn octets(packet: &Packet) -> Result<usize, EditError> {
    Ok(packet.encode(3)?.len())
}
// end

/// Whether the packet has these octets.
fn holds(packet: &Packet, wanted: &[u8]) -> bool {
    packet.encode(3).is_ok_and(|octets| octets.windows(wanted.len()).any(|octets| octets == wanted))
}

pub(crate) fn check(checks: &mut Checks) {
    let (Ok(packet), Ok(parts)) = (log_packet("a line"), event()) else { panic!("no packet") };
    checks.is("packing.packet.pack", holds(&packet, b"a line"), true);
    checks.ran("packing.packet.pack-parts");
    let told = registered(&parts, "bob").is_ok();
    checks.is("packing.packet.add-payload-part", (told, holds(&parts, b"registered:bob")), (true, true));
    let told = of_call(&parts, "one@192.0.2.10", "17").is_ok();
    checks.is("packing.packet.add-correlation", (told, holds(&parts, b"one@192.0.2.10")), (true, true));
    at_the_time_of(&packet, 1_000_002);
    // Chunks 0x09 and 0x0a: a second, and two microseconds.
    checks.is("packing.packet.set-captured-at", holds(&packet, b"\0\0\0\x0a\0\x0a\0\0\0\x02"), true);
    in_the_name_of(&packet, 2_001);
    checks.is("packing.packet.set-agent-id", holds(&packet, b"\0\0\0\x0c\0\x0a\0\0\x07\xd1"), true);
    let told = beside_call(&packet, b"two@192.0.2.10").is_ok();
    checks.is("packing.packet.set-correlation-id", (told, holds(&packet, b"two@192.0.2.10")), (true, true));
    let told = also_found_by(&packet).is_ok();
    checks.is("packing.packet.set-extra-correlation", (told, holds(&packet, b"{\"ticket\":\"17\"}")), (true, true));
    let told = from_agent(&packet, "gateway").is_ok();
    checks.is("packing.packet.add-chunk", (told, holds(&packet, b"\0\0\0\x13\0\x0dgateway")), (true, true));
    let told = with_score(&packet, 42).is_ok();
    checks.is(
        "packing.packet.add-chunk-value",
        (told, holds(&packet, b"\x77\x77\0\x03\0\x0a\0\0\0\x2a")),
        (true, true),
    );
    checks.is("packing.packet.encode", octets(&packet).ok(), packet.encode(3).ok().map(|octets| octets.len()));
}
