//! `packing`: packets that a filter makes.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::super::bindings::hep::filter::packing::{Host, HostPacket};
use super::super::bindings::hep::filter::types::{self, EditError};
use super::super::made::MadePacket;
use super::super::state::State;
use super::{body_of, chunk_id, from_wit_endpoint, narrow, to_wit_pack_error};
use crate::wire::{CapturedAt, ChunkId, PACKET_OCTETS_MAX, Pack, PackError, PayloadType, Vendor, Version};

type Handle = Resource<MadePacket>;

/// Generic chunks that every packet we make has once, or, as 0x10, instead of another.
const WRITTEN_BY_PACK: [u16; 14] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0f, 0x10];

impl Host for State {}

impl HostPacket for State {
    fn pack(
        &mut self,
        source: types::Endpoint,
        destination: types::Endpoint,
        ip_protocol: u8,
        payload_type: u8,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<Handle, EditError>> {
        self.charge(payload.len())?;
        // No packet could hold it, and a guest must not have the host keep what no packet can hold.
        if payload.len() > PACKET_OCTETS_MAX {
            return Ok(Err(EditError::TooLong(narrow(payload.len()))));
        }
        self.make(source, destination, ip_protocol, payload_type, Some(Bytes::from(payload)))
    }

    fn pack_parts(
        &mut self,
        source: types::Endpoint,
        destination: types::Endpoint,
        ip_protocol: u8,
        payload_type: u8,
    ) -> wasmtime::Result<Result<Handle, EditError>> {
        self.charge(0)?;
        self.make(source, destination, ip_protocol, payload_type, None)
    }

    fn add_payload_part(
        &mut self,
        packet: Handle,
        name: String,
        value: String,
    ) -> wasmtime::Result<Result<(), EditError>> {
        self.charge(name.len() + value.len())?;
        let made = self.get_mut(&packet)?;
        if made.pack.payload.is_some() {
            return Ok(Err(EditError::Other("the packet has a whole payload, from pack".to_owned())));
        }
        if let Some(octets) = made.too_long_with(name.len() + value.len()) {
            return Ok(Err(EditError::TooLong(narrow(octets))));
        }
        made.parts.push((name, value));
        Ok(Ok(()))
    }

    fn add_correlation(&mut self, packet: Handle, name: String, id: String) -> wasmtime::Result<Result<(), EditError>> {
        self.charge(name.len() + id.len())?;
        let made = self.get_mut(&packet)?;
        made.correlations.retain(|(other, _)| *other != name);
        if let Some(octets) = made.too_long_with(name.len() + id.len()) {
            return Ok(Err(EditError::TooLong(narrow(octets))));
        }
        made.correlations.push((name, id));
        Ok(Ok(()))
    }

    fn set_captured_at(&mut self, packet: Handle, captured_at: u64) -> wasmtime::Result<()> {
        self.charge(0)?;
        self.get_mut(&packet)?.pack.captured_at = Some(CapturedAt::from_micros(captured_at));
        Ok(())
    }

    fn set_agent_id(&mut self, packet: Handle, agent_id: u32) -> wasmtime::Result<()> {
        self.charge(0)?;
        self.get_mut(&packet)?.pack.agent_id = agent_id;
        Ok(())
    }

    fn set_correlation_id(&mut self, packet: Handle, id: Vec<u8>) -> wasmtime::Result<Result<(), EditError>> {
        self.put_chunk(&packet, ChunkId::CORRELATION_ID, id, true)
    }

    fn set_extra_correlation(&mut self, packet: Handle, json: String) -> wasmtime::Result<Result<(), EditError>> {
        self.put_chunk(&packet, ChunkId::EXTRA_CORRELATION, json.into_bytes(), true)
    }

    fn add_chunk(
        &mut self,
        packet: Handle,
        id: types::ChunkId,
        body: Vec<u8>,
    ) -> wasmtime::Result<Result<(), EditError>> {
        self.put_chunk(&packet, chunk_id(id), body, false)
    }

    fn add_chunk_value(
        &mut self,
        packet: Handle,
        id: types::ChunkId,
        value: types::ChunkValue,
    ) -> wasmtime::Result<Result<(), EditError>> {
        self.put_chunk(&packet, chunk_id(id), body_of(value), false)
    }

    fn encode(&mut self, packet: Handle, version: u8) -> wasmtime::Result<Result<Vec<u8>, EditError>> {
        let Some(version) = Version::from_number(version) else {
            self.charge(0)?;
            return Ok(Err(EditError::NotInVersion(format!("there is no HEP{version}"))));
        };
        let encoded = self.encode_made(&packet, version)?;
        self.charge(encoded.as_ref().map_or(0, Bytes::len))?;
        Ok(encoded.map(|octets| octets.to_vec()).map_err(to_wit_pack_error))
    }

    fn drop(&mut self, packet: Handle) -> wasmtime::Result<()> {
        self.delete(packet)?;
        Ok(())
    }
}

impl State {
    fn make(
        &mut self,
        source: types::Endpoint,
        destination: types::Endpoint,
        ip_protocol: u8,
        payload_type: u8,
        payload: Option<Bytes>,
    ) -> wasmtime::Result<Result<Handle, EditError>> {
        let (Some(source), Some(destination)) = (from_wit_endpoint(source), from_wit_endpoint(destination)) else {
            return Ok(Err(EditError::BadAddresses));
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Ok(Err(EditError::BadAddresses));
        }
        let pack = Pack {
            ip_protocol,
            flow: Some((source, destination)),
            captured_at: Some(self.call.now.wall),
            payload_type: PayloadType(payload_type),
            agent_id: self.proto_hep.hep_capture_id.into(),
            chunks: Vec::new(),
            payload,
        };
        Ok(Ok(self.push(MadePacket::new(pack))?))
    }

    /// The octets of a packet that was made. Making them costs more than any other host call, with compression a
    /// millisecond: the clock is looked at each time.
    pub(super) fn encode_made(
        &mut self,
        packet: &Handle,
        version: Version,
    ) -> wasmtime::Result<Result<Bytes, PackError>> {
        self.call.check_time()?;
        Ok(self.get(packet)?.encode(version, &self.proto_hep))
    }

    /// Adds a chunk to a packet that is being made, in place of one with that id if it can only be there once. What no
    /// packet could hold is refused at once, so that an unfinished packet is never longer than a whole one.
    fn put_chunk(
        &mut self,
        packet: &Handle,
        id: ChunkId,
        body: Vec<u8>,
        once: bool,
    ) -> wasmtime::Result<Result<(), EditError>> {
        self.charge(body.len())?;
        if id.vendor == Vendor::GENERIC && WRITTEN_BY_PACK.contains(&id.kind) {
            return Ok(Err(EditError::Other(format!("{id} is set by pack or has a function of its own"))));
        }
        if let Some(needed) = id.width().filter(|needed| *needed != body.len()) {
            return Ok(Err(EditError::WrongWidth(narrow(needed))));
        }
        let made = self.get_mut(packet)?;
        if let Some(octets) = made.too_long_with(body.len()) {
            return Ok(Err(EditError::TooLong(narrow(octets))));
        }
        let pack = &mut made.pack;
        if once {
            pack.chunks.retain(|(other, _)| *other != id);
        }
        pack.chunks.push((id, Bytes::from(body)));
        Ok(Ok(()))
    }
}
