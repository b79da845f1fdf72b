//! `packets`: the batch of a call.

use std::sync::PoisonError;

use wasmtime::component::Resource;

use super::super::bindings::hep::filter::packets::{Host, HostBatch, Scalars, Sender, Span};
use super::super::bindings::hep::filter::types::{self, EditError};
use super::super::fault::Misuse;
use super::super::state::{BatchHandle, State, View};
use super::{
    body_of, chunk_id, from_wit_endpoint, narrow, to_wit_address, to_wit_edit_error, to_wit_endpoint, value_of,
};
use crate::wire::{CapturedAt, ChunkId, Draft, Payload, PayloadType, SIP_OCTETS_MAX, sip_header, sip_method};

/// Bits of `scalars.marks`.
const COMPRESSED: u8 = 1;
const AMBIGUOUS: u8 = 2;
const SKIPPED: u8 = 4;
const NO_PAYLOAD: u8 = 8;

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
        let method = self.call.packet(index).and_then(|packet| sip_method(packet.payload()).map(<[u8]>::to_vec));
        // A method is a token, so it is text.
        Ok(method.and_then(|method| String::from_utf8(method).ok()))
    }

    fn sip_header(&mut self, batch: Handle, index: u32, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.check_batch(&batch)?;
        self.charge_sip(index)?;
        let packet = self.call.packet(index);
        let value = packet.and_then(|packet| sip_header(packet.payload(), name.as_bytes()).map(<[u8]>::to_vec));
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

fn scalars_of(packet: &View<'_>, skipped: bool) -> Scalars {
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
