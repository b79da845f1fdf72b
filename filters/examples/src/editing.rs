//! What a packet says from now on.

use hepgate_filter::{Batch, ChunkId, ChunkValue, EditError, Endpoint, IpAddress, LOG, Scalars, Span};

use crate::checks::Checks;

// example: packets.batch.set-payload
/// Takes a header away, whatever it says.
fn without_user_agent(batch: &Batch, index: u32) -> Result<(), EditError> {
    let message = batch.payload(index, 0, u32::MAX);
    let lines = message.split_inclusive(|octet| *octet == b'\n');
    let rest: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"User-Agent:")).collect();
    batch.set_payload(index, &rest.concat())
}
// end

// example: packets.batch.mask
/// Hides who is called, octet for octet, so that every length stays true.
fn hide_user(batch: &Batch, index: u32) -> Result<(), EditError> {
    let line = batch.payload(index, 0, 128);
    let place = |wanted: u8| (0..).zip(&line).find(|(_, octet)| **octet == wanted).map(|(at, _): (u32, _)| at);
    let (Some(colon), Some(at)) = (place(b':'), place(b'@')) else { return Ok(()) };
    let user = Span { offset: colon + 1, length: at.saturating_sub(colon + 1) };
    batch.mask(index, &[user], b'x')
}
// end

// example: packets.batch.set-chunk
/// Gives the agent a name (`SetHEPField("NodeName", …)` of heplify-server).
fn name_agent(batch: &Batch, index: u32, name: &str) -> Result<(), EditError> {
    batch.set_chunk(index, ChunkId { vendor: 0, kind: 0x13 }, name.as_bytes())
}
// end

// example: packets.batch.set-chunk-value
/// Says the VLAN, as `hep_set("uint16", "0x12", , "…")` does.
fn set_vlan(batch: &Batch, index: u32, vlan: u16) -> Result<(), EditError> {
    batch.set_chunk_value(index, ChunkId { vendor: 0, kind: 0x12 }, &ChunkValue::Uint16(vlan))
}
// end

// example: packets.batch.add-chunk
/// Writes a note beside those that are there.
fn note(batch: &Batch, index: u32, text: &str) -> Result<(), EditError> {
    batch.add_chunk(index, ChunkId { vendor: 0x7777, kind: 2 }, text.as_bytes())
}
// end

// example: packets.batch.remove-chunk
/// Takes away where the agent is (chunk 0x22). Whether it had said it.
fn without_place(batch: &Batch, index: u32) -> Result<bool, EditError> {
    Ok(batch.remove_chunk(index, ChunkId { vendor: 0, kind: 0x22 })? > 0)
}
// end

// example: packets.batch.set-flow
/// Shows the address outside in place of the one inside.
fn from_outside(batch: &Batch, index: u32, packet: &Scalars) -> Result<(), EditError> {
    let source = Endpoint { address: IpAddress::Ipv4(0xc000_0205), port: packet.source_port };
    let destination = Endpoint { address: packet.destination, port: packet.destination_port };
    batch.set_flow(index, source, destination)
}
// end

// example: packets.batch.set-ip-protocol
/// TLS (22), for an agent that says TCP whatever it was.
fn over_tls(batch: &Batch, index: u32) -> Result<(), EditError> {
    batch.set_ip_protocol(index, 22)
}
// end

// example: packets.batch.set-payload-type
/// For an agent that sends log lines as SIP.
fn is_a_log(batch: &Batch, index: u32) -> Result<(), EditError> {
    batch.set_payload_type(index, LOG)
}
// end

// example: packets.batch.set-agent-id
/// One id for each site, whatever ids its agents have.
fn of_site(batch: &Batch, index: u32, site: u32, packet: &Scalars) -> Result<(), EditError> {
    batch.set_agent_id(index, site * 1_000 + packet.agent_id % 1_000)
}
// end

// example: packets.batch.set-captured-at
/// For an agent whose clock is an hour ahead.
fn an_hour_earlier(batch: &Batch, index: u32, packet: &Scalars) -> Result<(), EditError> {
    let hour = 3_600_000_000;
    batch.set_captured_at(index, packet.captured_at.saturating_sub(hour))
}
// end

// example: packets.batch.set-correlation-id
/// Goes by its Call-ID, as Homer looks for it.
fn by_call_id(batch: &Batch, index: u32) -> Result<(), EditError> {
    match batch.sip_header(index, "Call-ID") {
        Some(id) => batch.set_correlation_id(index, &id),
        None => Ok(()),
    }
}
// end

/// Each has a packet of its own, so that what comes out shows what it did.
pub(crate) fn check(checks: &mut Checks, batch: &Batch) {
    let scalars = batch.scalars();
    let with = |index: usize, edit: &dyn Fn(&Scalars) -> Result<(), EditError>| {
        scalars.get(index).is_some_and(|packet| edit(packet).is_ok())
    };
    let now = |index: usize| batch.scalars().into_iter().nth(index);
    let chunk = |index, vendor, kind| batch.chunk(index, ChunkId { vendor, kind });

    checks.is("packets.batch.set-payload", without_user_agent(batch, 2).is_ok(), true);
    assert!(!batch.payload(2, 0, u32::MAX).windows(9).any(|octets| octets == b"telephone"));
    checks.is("packets.batch.mask", hide_user(batch, 3).is_ok(), true);
    assert_eq!(batch.payload(3, 0, 14), b"INVITE sip:xxx");
    checks.is("packets.batch.set-chunk", name_agent(batch, 4, "edge-7").is_ok(), true);
    assert_eq!(batch.agent_name(4).as_deref(), Some(&b"edge-7"[..]));
    checks.is("packets.batch.set-chunk-value", set_vlan(batch, 5, 8).is_ok(), true);
    assert_eq!(chunk(5, 0, 0x12), Some(vec![0, 8]));
    checks.is(
        "packets.batch.add-chunk",
        (note(batch, 6, "first").is_ok(), note(batch, 6, "second").is_ok()),
        (true, true),
    );
    assert_eq!(batch.chunks(6).iter().filter(|chunk| chunk.id.kind == 2 && chunk.id.vendor == 0x7777).count(), 2);
    checks.is("packets.batch.remove-chunk", without_place(batch, 7).ok(), Some(true));
    assert_eq!(chunk(7, 0, 0x22), None);
    checks.is("packets.batch.set-flow", with(8, &|packet| from_outside(batch, 8, packet)), true);
    assert!(now(8).is_some_and(|packet| matches!(packet.source, IpAddress::Ipv4(0xc000_0205))));
    checks.is("packets.batch.set-ip-protocol", over_tls(batch, 9).is_ok(), true);
    assert_eq!(now(9).map(|packet| packet.ip_protocol), Some(22));
    checks.is("packets.batch.set-payload-type", is_a_log(batch, 10).is_ok(), true);
    assert_eq!(now(10).map(|packet| packet.payload_type), Some(LOG));
    checks.is("packets.batch.set-agent-id", with(11, &|packet| of_site(batch, 11, 5, packet)), true);
    assert_eq!(now(11).map(|packet| packet.agent_id), Some(5_000));
    checks.is("packets.batch.set-captured-at", with(12, &|packet| an_hour_earlier(batch, 12, packet)), true);
    let earlier = scalars.get(12).map(|packet| packet.captured_at - 3_600_000_000);
    assert_eq!(now(12).map(|packet| packet.captured_at), earlier);
    checks.is("packets.batch.set-correlation-id", by_call_id(batch, 13).is_ok(), true);
    assert_eq!(batch.correlation_id(13).as_deref(), Some(&b"one@192.0.2.10"[..]));
}
