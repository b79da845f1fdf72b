//! What is different between a packet before and after a filter, in words.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::cli::printer::{hex, visible};
use crate::wire::{ChunkId, Head, Packet, Payload, Vendor};

/// Lines of a payload that are shown of one change.
const LINES_MAX: usize = 8;

/// The changes, each in one line; none if the packets say the same.
pub(super) fn changes(before: &Packet, after: &Packet) -> Vec<String> {
    let mut changes = Vec::new();
    let (was, is) = (before.head(), after.head());
    let mut scalar = |name: &str, was: String, is: String| {
        if was != is {
            changes.push(format!("{name}: {was} -> {is}"));
        }
    };
    scalar("version", was.version.number().to_string(), is.version.number().to_string());
    scalar("source", endpoint(was.source, was.source_port), endpoint(is.source, is.source_port));
    scalar(
        "destination",
        endpoint(was.destination, was.destination_port),
        endpoint(is.destination, is.destination_port),
    );
    scalar("IP protocol", was.ip_protocol.to_string(), is.ip_protocol.to_string());
    scalar("payload type", was.payload_type.0.to_string(), is.payload_type.0.to_string());
    scalar("agent id", was.agent_id.to_string(), is.agent_id.to_string());
    scalar("captured at", captured_at(was), captured_at(is));
    changes.extend(chunk_changes(before, after));
    changes.extend(payload_changes(before, after));
    changes
}

fn endpoint(address: Option<IpAddr>, port: u16) -> String {
    address.map_or_else(|| "none".to_owned(), |address| SocketAddr::new(address, port).to_string())
}

fn captured_at(head: &Head) -> String {
    head.captured_at.map_or_else(|| "none".to_owned(), |at| format!("{}.{:06}", at.seconds, at.microseconds))
}

/// Chunks beside those that the scalars and the payload are.
fn chunk_changes(before: &Packet, after: &Packet) -> Vec<String> {
    let (was, is) = (by_id(before), by_id(after));
    let ids: std::collections::BTreeSet<Place> = was.keys().chain(is.keys()).copied().collect();
    ids.into_iter()
        .filter_map(|place| {
            let id = place.id();
            match (was.get(&place), is.get(&place)) {
                (was, is) if was == is => None,
                _ if id == ChunkId::AUTH_KEY => Some(format!("{id}: changed")),
                (Some(was), Some(is)) => Some(format!("{id}: {} -> {}", all(was), all(is))),
                (Some(was), None) => Some(format!("{id}: {} removed", all(was))),
                (None, Some(is)) => Some(format!("{id}: {} added", all(is))),
                (None, None) => None,
            }
        })
        .collect()
}

/// A chunk's id in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u16, u16);

impl Place {
    const fn id(self) -> ChunkId {
        ChunkId { vendor: Vendor(self.0), kind: self.1 }
    }
}

/// Bodies by id, without the generic chunks that are scalars or payload.
fn by_id(packet: &Packet) -> BTreeMap<Place, Vec<&[u8]>> {
    let mut bodies: BTreeMap<Place, Vec<&[u8]>> = BTreeMap::new();
    for chunk in packet.chunks() {
        let is_told_otherwise =
            chunk.id.vendor == Vendor::GENERIC && matches!(chunk.id.kind, 0x01..=0x0c | 0x0f | 0x10);
        if !is_told_otherwise {
            bodies.entry(Place(chunk.id.vendor.0, chunk.id.kind)).or_default().push(chunk.body);
        }
    }
    bodies
}

fn all(bodies: &[&[u8]]) -> String {
    bodies.iter().map(|body| shown(body)).collect::<Vec<_>>().join(", ")
}

/// Text in quotes, anything else in hexadecimal.
fn shown(octets: &[u8]) -> String {
    match str::from_utf8(octets) {
        Ok(text) if octets.iter().all(|octet| matches!(octet, b' '..)) => format!("\"{}\"", visible(text)),
        _ => format!("0x{}", visible(&hex(octets))),
    }
}

fn payload_changes(before: &Packet, after: &Packet) -> Vec<String> {
    let (was, is) = (before.readable_payload(), after.readable_payload());
    let mut changes = Vec::new();
    match (before.head().payload, after.head().payload) {
        (Payload::Absent, Payload::Absent) => return changes,
        (Payload::Absent, _) => return vec![format!("payload: added, {} octets", is.len())],
        (_, Payload::Absent) => return vec![format!("payload: removed, {} octets", was.len())],
        (Payload::Compressed(_), Payload::Plain(_)) => changes.push("payload: not compressed any more".to_owned()),
        (Payload::Plain(_), Payload::Compressed(_)) => changes.push("payload: compressed".to_owned()),
        _ => {}
    }
    if was == is {
        return changes;
    }
    let lines = |octets: &'_ [u8]| octets.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (was_lines, is_lines) = (lines(was), lines(is));
    if was_lines.len() != is_lines.len() {
        changes.push(format!("payload: {} octets -> {} octets", was.len(), is.len()));
        return changes;
    }
    let differing: Vec<String> = (1_usize..)
        .zip(was_lines.iter().zip(&is_lines))
        .filter(|(_, (was, is))| was != is)
        .map(|(number, (was, is))| {
            format!("payload line {number}: {} -> {}", shown(was.trim_ascii_end()), shown(is.trim_ascii_end()))
        })
        .collect();
    let more = differing.len().saturating_sub(LINES_MAX);
    changes.extend(differing.into_iter().take(LINES_MAX));
    if more > 0 {
        changes.push(format!("payload: {more} more lines"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{CapturedAt, Draft, Pack, PayloadType, Version, decode};

    fn packet(version: Version) -> Packet {
        let pack = Pack {
            ip_protocol: 17,
            flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5060".parse().unwrap())),
            captured_at: Some(CapturedAt { seconds: 5, microseconds: 7 }),
            payload_type: PayloadType::SIP,
            agent_id: 1,
            chunks: if version == Version::Hep3 { vec![(ChunkId::AUTH_KEY, Bytes::from_static(b"k"))] } else { vec![] },
            payload: Some(Bytes::from_static(b"BYE sip:bob SIP/2.0\r\nTo: bob\r\n\r\n")),
        };
        decode(pack.encode(version).unwrap()).unwrap()
    }

    fn changed(version: Version, edit: impl FnOnce(&mut Draft)) -> Vec<String> {
        let before = packet(version);
        let mut draft = Draft::new(&before);
        edit(&mut draft);
        changes(&before, &draft.into_packet())
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        assert_eq!(changed(Version::Hep3, |_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_change_is_a_line_with_what_was_and_what_is() {
        let lines = changed(Version::Hep3, |draft| {
            draft.set_flow("192.0.2.9:1".parse().unwrap(), "192.0.2.2:5060".parse().unwrap()).unwrap();
            draft.set_agent_id(7).unwrap();
            draft.set_captured_at(CapturedAt { seconds: 6, microseconds: 0 }).unwrap();
            draft.add_chunk(ChunkId::CORRELATION_ID, b"a@b").unwrap();
            draft.add_chunk(ChunkId { vendor: Vendor(8), kind: 1 }, &[0, 255]).unwrap();
            draft.set_chunk(ChunkId::AUTH_KEY, b"other").unwrap();
            draft.mask(&[(4, 7)], b'x').unwrap();
        });
        assert_eq!(
            lines,
            [
                "source: 192.0.2.1:5060 -> 192.0.2.9:1",
                "agent id: 1 -> 7",
                "captured at: 5.000007 -> 6.000000",
                "authentication key (0x000e): changed",
                "correlation id (0x0011): \"a@b\" added",
                "chunk 0x0001 of vendor 8: 0x00ff added",
                "payload line 1: \"BYE sip:bob SIP/2.0\" -> \"BYE xxxxxxx SIP/2.0\"",
            ]
        );
    }

    #[test]
    fn of_a_payload_so_many_lines_are_shown_and_the_others_counted() {
        let lines = |lines: usize| "a\n".repeat(lines).into_bytes();
        let changed_lines = |count: usize| {
            let mut before = Draft::new(&packet(Version::Hep3));
            before.set_payload(&lines(count)).unwrap();
            let mut after = Draft::new(&before.to_packet());
            after.set_payload(&lines(count).to_ascii_uppercase()).unwrap();
            changes(&before.into_packet(), &after.into_packet())
        };
        assert_eq!(changed_lines(LINES_MAX).len(), LINES_MAX);
        let more = changed_lines(LINES_MAX + 2);
        assert_eq!((more.len(), more.last().unwrap().as_str()), (LINES_MAX + 1, "payload: 2 more lines"));
    }

    #[test]
    fn an_older_version_that_becomes_a_newer_one_is_told_by_what_it_says() {
        let lines = changed(Version::Hep1, |draft| draft.set_agent_id(9).unwrap());
        assert_eq!(lines, ["version: 1 -> 3", "agent id: 0 -> 9"]);
    }
}
