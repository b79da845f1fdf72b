//! `packets`: the batch of a call.

use std::net::IpAddr;
use std::sync::PoisonError;

use wasmtime::component::Resource;

use super::super::bindings::hep::filter::packets::{Host, HostBatch, Scalars, Sender, Span};
use super::super::bindings::hep::filter::types::{self, EditError};
use super::super::fault::Misuse;
use super::super::state::{BatchHandle, State, View};
use super::{
    body_of, chunk_id, from_wit_endpoint, narrow, to_wit_address, to_wit_edit_error, to_wit_endpoint, value_of,
};
use crate::wire::{CapturedAt, ChunkId, Draft, Payload, PayloadType, SIP_OCTETS_MAX, SipIndex, sip_header, sip_method};

/// Bits of `scalars.marks`.
const COMPRESSED: u8 = 1;
const AMBIGUOUS: u8 = 2;
const SKIPPED: u8 = 4;
const NO_PAYLOAD: u8 = 8;

/// The scalars of a packet as `packed-scalars` gives them.
type PackedScalars = [u32; 16];
type Handle = Resource<BatchHandle>;
type Edited<T = ()> = wasmtime::Result<Result<T, EditError>>;

impl Host for State {}

impl HostBatch for State {
    fn len(&mut self, batch: Handle) -> wasmtime::Result<u32> {
        self.check_batch(&batch)?;
        self.charge(0)?;
        Ok(narrow(self.call.part.len()))
    }

    fn scalars(&mut self, batch: Handle) -> wasmtime::Result<Vec<Scalars>> {
        self.check_batch(&batch)?;
        self.charge(self.call.part.len() * size_of::<Scalars>())?;
        Ok(self.call.packets().map(|(packet, skipped)| scalars_of(&packet, skipped)).collect())
    }

    fn packed_scalars(&mut self, batch: Handle) -> wasmtime::Result<Vec<u32>> {
        self.check_batch(&batch)?;
        self.charge(self.call.part.len() * size_of::<PackedScalars>())?;
        let mut numbers = Vec::with_capacity(self.call.part.len() * size_of::<PackedScalars>() / size_of::<u32>());
        for (packet, skipped) in self.call.packets() {
            numbers.extend(packed_scalars_of(&packet, skipped));
        }
        Ok(numbers)
    }

    fn payload(&mut self, batch: Handle, index: u32, offset: u32, max: u32) -> wasmtime::Result<Vec<u8>> {
        self.check_batch(&batch)?;
        let packet = self.call.packet(index).ok_or_else(|| self.no_such_packet(index))?;
        let rest = packet.payload().get(wide(offset)..).unwrap_or_default();
        let octets = rest.get(..wide(max)).unwrap_or(rest).to_vec();
        self.charge(octets.len())?;
        Ok(octets)
    }

    fn payloads(&mut self, batch: Handle, max: u32) -> wasmtime::Result<Vec<u8>> {
        self.check_batch(&batch)?;
        let share = |packet: &View<'_>| packet.payload().len().min(wide(max));
        let octets = self.call.packets().map(|(packet, _)| share(&packet)).sum();
        self.charge(octets)?;
        let mut all = Vec::with_capacity(octets);
        for (packet, _) in self.call.packets() {
            all.extend_from_slice(packet.payload().get(..share(&packet)).unwrap_or_default());
        }
        Ok(all)
    }

    fn chunk(&mut self, batch: Handle, index: u32, id: types::ChunkId) -> wasmtime::Result<Option<Vec<u8>>> {
        self.check_batch(&batch)?;
        self.body_of(index, chunk_id(id))
    }

    fn chunk_value(
        &mut self,
        batch: Handle,
        index: u32,
        id: types::ChunkId,
        form: types::ChunkForm,
    ) -> Edited<Option<types::ChunkValue>> {
        self.check_batch(&batch)?;
        let body = self.body_of(index, chunk_id(id))?;
        Ok(body.map(|body| value_of(body, form)).transpose())
    }

    fn chunks(&mut self, batch: Handle, index: u32) -> wasmtime::Result<Vec<types::Chunk>> {
        self.check_batch(&batch)?;
        let packet = self.call.packet(index).ok_or_else(|| self.no_such_packet(index))?;
        let mut moved = 0;
        let mut chunks = Vec::new();
        for chunk in packet.chunks() {
            moved += chunk.body.len() + size_of::<types::Chunk>();
            let id = types::ChunkId { vendor: chunk.id.vendor.0, kind: chunk.id.kind };
            chunks.push(types::Chunk { id, body: chunk.body.to_vec() });
        }
        self.charge(moved)?;
        Ok(chunks)
    }

    fn correlation_id(&mut self, batch: Handle, index: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        self.check_batch(&batch)?;
        self.body_of(index, ChunkId::CORRELATION_ID)
    }

    fn agent_name(&mut self, batch: Handle, index: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        self.check_batch(&batch)?;
        self.body_of(index, ChunkId::AGENT_NAME)
    }

    fn sip_method(&mut self, batch: Handle, index: u32) -> wasmtime::Result<Option<String>> {
        self.check_batch(&batch)?;
        self.charge_sip(index)?;
        let method = self.call.sip(index, SipIndex::method, sip_method);
        // A method is a token, so it is text.
        Ok(method.and_then(|method| String::from_utf8(method).ok()))
    }

    fn sip_header(&mut self, batch: Handle, index: u32, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.check_batch(&batch)?;
        self.charge_sip(index)?;
        let wanted = name.as_bytes();
        let value =
            self.call.sip(index, |sip, payload| sip.header(payload, wanted), |payload| sip_header(payload, wanted));
        self.charge(name.len() + value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn sender(&mut self, batch: Handle, index: u32) -> wasmtime::Result<Sender> {
        self.check_batch(&batch)?;
        self.charge(size_of::<Sender>())?;
        let origin = self.call.received(index).ok_or_else(|| self.no_such_packet(index))?.origin;
        let names = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let listener = origin.listener.and_then(|id| names.get(id.0)).cloned().unwrap_or_default();
        drop(names);
        Ok(Sender {
            transport: origin.transport.as_str().to_owned(),
            peer: to_wit_endpoint(origin.peer),
            local: to_wit_endpoint(origin.local),
            listener,
        })
    }

    fn set_payload(&mut self, batch: Handle, index: u32, payload: Vec<u8>) -> Edited {
        self.edit(&batch, index, payload.len(), |draft| draft.set_payload(&payload))
    }

    fn mask(&mut self, batch: Handle, index: u32, spans: Vec<Span>, with: u8) -> Edited {
        let masked = spans.iter().map(|span| wide(span.length)).fold(0, usize::saturating_add);
        // A compressed payload is written anew as it reads.
        let has = self.call.packet(index).map_or(0, |packet| packet.payload().len());
        self.edit(&batch, index, masked.saturating_add(has), |draft| {
            let runs: Vec<(usize, usize)> = spans.iter().map(|span| (wide(span.offset), wide(span.length))).collect();
            draft.mask(&runs, with)
        })
    }

    fn set_chunk(&mut self, batch: Handle, index: u32, id: types::ChunkId, body: Vec<u8>) -> Edited {
        self.set_body(&batch, index, id, &body, Draft::set_chunk)
    }

    fn set_chunk_value(&mut self, batch: Handle, index: u32, id: types::ChunkId, value: types::ChunkValue) -> Edited {
        self.set_chunk(batch, index, id, body_of(value))
    }

    fn add_chunk(&mut self, batch: Handle, index: u32, id: types::ChunkId, body: Vec<u8>) -> Edited {
        self.set_body(&batch, index, id, &body, Draft::add_chunk)
    }

    fn remove_chunk(&mut self, batch: Handle, index: u32, id: types::ChunkId) -> Edited<u32> {
        self.edit(&batch, index, 0, |draft| draft.remove_chunk(chunk_id(id)).map(narrow))
    }

    fn set_flow(&mut self, batch: Handle, index: u32, from: types::Endpoint, to: types::Endpoint) -> Edited {
        let (Some(source), Some(destination)) = (from_wit_endpoint(from), from_wit_endpoint(to)) else {
            self.check_batch(&batch)?;
            self.charge(0)?;
            return Ok(Err(EditError::BadAddresses));
        };
        self.edit(&batch, index, 0, |draft| draft.set_flow(source, destination))
    }

    fn set_ip_protocol(&mut self, batch: Handle, index: u32, ip_protocol: u8) -> Edited {
        self.edit(&batch, index, 0, |draft| draft.set_ip_protocol(ip_protocol))
    }

    fn set_payload_type(&mut self, batch: Handle, index: u32, payload_type: u8) -> Edited {
        self.edit(&batch, index, 0, |draft| draft.set_payload_type(PayloadType(payload_type)))
    }

    fn set_agent_id(&mut self, batch: Handle, index: u32, agent_id: u32) -> Edited {
        self.edit(&batch, index, 0, |draft| draft.set_agent_id(agent_id))
    }

    fn set_captured_at(&mut self, batch: Handle, index: u32, captured_at: u64) -> Edited {
        self.edit(&batch, index, 0, |draft| draft.set_captured_at(CapturedAt::from_micros(captured_at)))
    }

    fn set_correlation_id(&mut self, batch: Handle, index: u32, correlation_id: Vec<u8>) -> Edited {
        self.edit(&batch, index, correlation_id.len(), |draft| {
            draft.set_chunk(ChunkId::CORRELATION_ID, &correlation_id)
        })
    }

    /// Guests only borrow batches, so there is none that they could drop.
    fn drop(&mut self, _: Handle) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl State {
    fn no_such_packet(&self, index: u32) -> Misuse {
        Misuse::NoSuchPacket { index, len: self.call.part.len() }
    }

    fn body_of(&mut self, index: u32, id: ChunkId) -> wasmtime::Result<Option<Vec<u8>>> {
        let packet = self.call.packet(index).ok_or_else(|| self.no_such_packet(index))?;
        let body = packet.chunks().filter(|chunk| chunk.id == id).last().map(|chunk| chunk.body.to_vec());
        self.charge(body.as_ref().map_or(0, Vec::len))?;
        Ok(body)
    }

    fn set_body(
        &mut self,
        batch: &Handle,
        index: u32,
        id: types::ChunkId,
        body: &[u8],
        edit: impl FnOnce(&mut Draft, ChunkId, &[u8]) -> Result<(), crate::wire::EditError>,
    ) -> Edited {
        let id = chunk_id(id);
        if let Some((_, why)) = NOT_BY_ITSELF.iter().find(|(other, _)| *other == id) {
            self.check_batch(batch)?;
            self.charge(body.len())?;
            return Ok(Err(EditError::Other(format!("{id} cannot be set by itself: {why}"))));
        }
        self.edit(batch, index, body.len(), |draft| edit(draft, id, body))
    }

    /// To look into SIP costs what is looked at.
    fn charge_sip(&mut self, index: u32) -> wasmtime::Result<()> {
        let octets = self.call.packet(index).ok_or_else(|| self.no_such_packet(index))?.payload().len();
        self.charge(octets.min(SIP_OCTETS_MAX))?;
        Ok(())
    }

    /// An edit costs what it hands over and what the packet has, as most edits write the packet anew.
    fn edit<T>(
        &mut self,
        batch: &Handle,
        index: u32,
        octets: usize,
        edit: impl FnOnce(&mut Draft) -> Result<T, crate::wire::EditError>,
    ) -> Edited<T> {
        self.check_batch(batch)?;
        let has = self.call.received(index).map_or(0, |received| received.packet.octets().len());
        self.charge(octets.saturating_add(has))?;
        let Some(draft) = self.call.draft(index) else { return Ok(Err(EditError::NoSuchPacket)) };
        Ok(edit(draft).map_err(to_wit_edit_error))
    }
}

/// What is set by a function of its own, together with what it must agree with: as in `hep_set`.
const NOT_BY_ITSELF: [(ChunkId, &str); 3] = [
    (ChunkId::IP_FAMILY, "set-flow sets it with the addresses"),
    (ChunkId::SECONDS, "set-captured-at sets it with the microseconds"),
    (ChunkId::MICROSECONDS, "set-captured-at sets it with the seconds"),
];

fn marks_of(packet: &View<'_>, skipped: bool) -> u8 {
    let head = packet.head();
    let mut marks = 0;
    for (mark, applies) in [
        (COMPRESSED, packet.is_unreadable()),
        (AMBIGUOUS, head.ambiguous),
        (SKIPPED, skipped),
        (NO_PAYLOAD, head.payload == Payload::Absent),
    ] {
        if applies {
            marks |= mark;
        }
    }
    marks
}

fn packed_scalars_of(packet: &View<'_>, skipped: bool) -> PackedScalars {
    let head = packet.head();
    let of_octets = |octets: [u8; 4]| u32::from_le_bytes(octets);
    let captured_at = head.captured_at.map_or(0, CapturedAt::as_micros);
    let (source_kind, [s0, s1, s2, s3]) = packed_address(head.source);
    let (destination_kind, [d0, d1, d2, d3]) = packed_address(head.destination);
    [
        of_octets([head.version.number(), head.ip_protocol, head.payload_type.0, marks_of(packet, skipped)]),
        u32::from(head.source_port) | u32::from(head.destination_port) << 16,
        head.agent_id,
        narrow(packet.payload().len()),
        low_half(captured_at),
        low_half(captured_at >> 32),
        of_octets([source_kind, destination_kind, 0, 0]),
        0,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ]
}

/// What kind of address it is, and its numbers.
fn packed_address(address: Option<IpAddr>) -> (u8, [u32; 4]) {
    match address {
        None => (0, [0; 4]),
        Some(IpAddr::V4(address)) => (4, [address.to_bits(), 0, 0, 0]),
        Some(IpAddr::V6(address)) => {
            let bits = address.to_bits();
            (6, [96, 64, 32, 0].map(|from| u32::try_from((bits >> from) & u128::from(u32::MAX)).unwrap_or(0)))
        }
    }
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

fn scalars_of(packet: &View<'_>, skipped: bool) -> Scalars {
    let head = packet.head();
    let marks = marks_of(packet, skipped);
    Scalars {
        version: head.version.number(),
        ip_protocol: head.ip_protocol,
        payload_type: head.payload_type.0,
        marks,
        source_port: head.source_port,
        destination_port: head.destination_port,
        agent_id: head.agent_id,
        payload_length: narrow(packet.payload().len()),
        source: to_wit_address(head.source),
        destination: to_wit_address(head.destination),
        captured_at: head.captured_at.map_or(0, CapturedAt::as_micros),
    }
}

/// A guest's number as an index.
fn wide(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Pack, Packet, Version, decode};

    fn packet(from: &str, to: &str) -> Packet {
        let pack = Pack {
            ip_protocol: 17,
            flow: Some((from.parse().unwrap(), to.parse().unwrap())),
            captured_at: Some(CapturedAt { seconds: 1_795_418_238, microseconds: 797_310 }),
            payload_type: PayloadType::SIP,
            agent_id: 0x8765_4321,
            chunks: Vec::new(),
            payload: Some(bytes::Bytes::from_static(b"OPTIONS")),
        };
        decode(pack.encode(Version::Hep3).unwrap()).unwrap()
    }

    /// An address as its four numbers say.
    fn address(kind: u8, [n0, n1, n2, n3]: [u32; 4]) -> types::IpAddress {
        let both = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        match kind {
            0 => types::IpAddress::None,
            4 => types::IpAddress::Ipv4(n0),
            6 => types::IpAddress::Ipv6((both(n0, n1), both(n2, n3))),
            _ => panic!("{kind}"),
        }
    }

    #[test]
    fn packed_scalars_say_what_the_records_say() {
        let nothing = decode(bytes::Bytes::from_static(b"HEP3\0\x0d\0\0\0\x0b\0\x07\x05")).unwrap();
        for packet in [
            packet("192.0.2.1:5060", "255.255.255.255:65535"),
            packet("[2001:db8::7:8]:5061", "[ff02::ffff:ffff]:1"),
            nothing,
        ] {
            for skipped in [false, true] {
                let view = View::AsReceived(&packet);
                let scalars = scalars_of(&view, skipped);
                let [kinds, ports, agent_id, payload_length, low, high, ends, zero, s @ .., d0, d1, d2, d3] =
                    packed_scalars_of(&view, skipped);
                let [version, ip_protocol, payload_type, marks] = kinds.to_le_bytes();
                let [source_kind, destination_kind, 0, 0] = ends.to_le_bytes() else { panic!("{ends}") };
                let unpacked = Scalars {
                    version,
                    ip_protocol,
                    payload_type,
                    marks,
                    source_port: u16::try_from(ports & 0xffff).unwrap(),
                    destination_port: u16::try_from(ports >> 16).unwrap(),
                    agent_id,
                    payload_length,
                    source: address(source_kind, s),
                    destination: address(destination_kind, [d0, d1, d2, d3]),
                    captured_at: u64::from(high) << 32 | u64::from(low),
                };
                assert_eq!(format!("{unpacked:?}"), format!("{scalars:?}"));
                assert_eq!(zero, 0);
            }
        }
    }
}
