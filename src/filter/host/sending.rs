//! `sending`: what leaves when the call has ended well.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::super::bindings::hep::filter::sending::{Host, HostCollector, OpenError, SendError};
use super::super::instance::Sent;
use super::super::made::MadePacket;
use super::super::state::{BatchHandle, OpenCollector, State};
use super::narrow;
use crate::message::{Origin, Received};
use crate::wire::{PackError, Version, decode};

type Handle = Resource<OpenCollector>;

impl Host for State {}

impl HostCollector for State {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Handle, OpenError>> {
        self.charge(name.len())?;
        let Some(place) = self.surroundings.grants.iter().position(|grant| grant.name == name) else {
            return Ok(Err(OpenError::NotGranted));
        };
        Ok(Ok(self.push(OpenCollector(place))?))
    }

    fn send(&mut self, to: Handle, packet: Resource<MadePacket>) -> wasmtime::Result<Result<(), SendError>> {
        let encoded = self.encode_made(&packet, Version::Hep3)?;
        self.send_made(&to, encoded)
    }

    fn correlate(
        &mut self,
        to: Handle,
        type1: String,
        id1: String,
        type2: String,
        id2: String,
    ) -> wasmtime::Result<Result<(), SendError>> {
        let agent_id = self.proto_hep.hep_capture_id.into();
        let Some(pack) = MadePacket::correlate(self.call.now.wall, agent_id, [(type1, id1), (type2, id2)]) else {
            self.charge(0)?;
            let text = "two ids are wanted, of different types".to_owned();
            return Ok(Err(SendError::BadPacket(text)));
        };
        self.send_made(&to, pack.encode(Version::Hep3))
    }

    fn relay(
        &mut self,
        to: Handle,
        batch: Resource<BatchHandle>,
        index: u32,
    ) -> wasmtime::Result<Result<(), SendError>> {
        self.check_batch(&batch)?;
        let Some((packet, received)) = self.call.packet(index).zip(self.call.received(index)) else {
            self.charge(0)?;
            return Ok(Err(SendError::NoSuchPacket));
        };
        let packet = Received { packet: packet.to_packet(), origin: received.origin };
        self.charge(0)?;
        self.queue(&to, packet)
    }

    fn drop(&mut self, collector: Handle) -> wasmtime::Result<()> {
        self.delete(collector)?;
        Ok(())
    }
}

impl State {
    fn send_made(&mut self, to: &Handle, encoded: Result<Bytes, PackError>) -> wasmtime::Result<Result<(), SendError>> {
        let octets = match encoded {
            Ok(octets) => octets,
            Err(PackError::TooLong { octets, .. }) => {
                self.charge(0)?;
                return Ok(Err(SendError::TooLong(narrow(octets))));
            }
            Err(error) => {
                self.charge(0)?;
                return Ok(Err(SendError::BadPacket(error.to_string())));
            }
        };
        self.charge(octets.len())?;
        let packet = match decode(octets) {
            Ok(packet) => packet,
            Err(error) => return Ok(Err(SendError::BadPacket(error.to_string()))),
        };
        let packet = Received { packet, origin: Origin::ours(self.call.now.wall) };
        self.queue(to, packet)
    }

    fn queue(&mut self, to: &Handle, packet: Received) -> wasmtime::Result<Result<(), SendError>> {
        if !self.call.may_send {
            return Ok(Err(SendError::Other("init cannot send".to_owned())));
        }
        let place = self.get(to)?.0;
        let Some(grant) = self.surroundings.grants.get(place) else { return Ok(Err(SendError::Other(String::new()))) };
        if grant.backlog.is_full() {
            return Ok(Err(SendError::PostponedFull));
        }
        let octets = self.call.sent_octets + packet.packet.octets().len();
        if self.call.sent.len() >= self.limits.sends_max || octets > self.limits.send_octets_max {
            return Ok(Err(SendError::Quota));
        }
        self.call.sent_octets = octets;
        self.call.sends += 1;
        self.call.sent.push(Sent { to: grant.id, packet });
        Ok(Ok(()))
    }
}
