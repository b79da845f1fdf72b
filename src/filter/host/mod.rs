//! What guests can call, one file for each interface of `wit/`. Every function begins with `charge`, does work that is
//! linear in what it moves, and touches nothing but the call's own state.

mod clock;
mod config;
mod log;
pub(super) mod metrics;
mod packets;
mod packing;
mod sending;
mod state;
mod subscription;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bindings::hep::filter::types;
use super::state::State;
use crate::wire::{ChunkId, EditError, PackError, Vendor};

impl types::Host for State {}

fn chunk_id(id: types::ChunkId) -> ChunkId {
    ChunkId { vendor: Vendor(id.vendor), kind: id.kind }
}

/// The octets of a value.
fn body_of(value: types::ChunkValue) -> Vec<u8> {
    match value {
        types::ChunkValue::Uint8(value) => vec![value],
        types::ChunkValue::Uint16(value) => value.to_be_bytes().to_vec(),
        types::ChunkValue::Uint32(value) | types::ChunkValue::Inet4Addr(value) => value.to_be_bytes().to_vec(),
        types::ChunkValue::Inet6Addr((high, low)) => [high.to_be_bytes(), low.to_be_bytes()].concat(),
        types::ChunkValue::Utf8String(text) => text.into_bytes(),
        types::ChunkValue::OctetString(octets) => octets,
    }
}

/// The value of octets in that form.
fn value_of(body: Vec<u8>, form: types::ChunkForm) -> Result<types::ChunkValue, types::EditError> {
    fn number<const N: usize>(body: &[u8]) -> Result<[u8; N], types::EditError> {
        body.try_into().map_err(|_| types::EditError::WrongWidth(narrow(N)))
    }
    Ok(match form {
        types::ChunkForm::Uint8 => types::ChunkValue::Uint8(u8::from_be_bytes(number(&body)?)),
        types::ChunkForm::Uint16 => types::ChunkValue::Uint16(u16::from_be_bytes(number(&body)?)),
        types::ChunkForm::Uint32 => types::ChunkValue::Uint32(u32::from_be_bytes(number(&body)?)),
        types::ChunkForm::Inet4Addr => types::ChunkValue::Inet4Addr(u32::from_be_bytes(number(&body)?)),
        types::ChunkForm::Inet6Addr => {
            let octets: [u8; 16] = number(&body)?;
            types::ChunkValue::Inet6Addr(halves(u128::from_be_bytes(octets)))
        }
        types::ChunkForm::Utf8String => {
            let text = String::from_utf8(body).map_err(|error| types::EditError::Other(error.to_string()))?;
            types::ChunkValue::Utf8String(text)
        }
        types::ChunkForm::OctetString => types::ChunkValue::OctetString(body),
    })
}

fn halves(bits: u128) -> (u64, u64) {
    let (high, low) = (bits >> 64, bits & u128::from(u64::MAX));
    (u64::try_from(high).unwrap_or(0), u64::try_from(low).unwrap_or(0))
}

fn to_wit_address(address: Option<IpAddr>) -> types::IpAddress {
    match address {
        None => types::IpAddress::None,
        Some(IpAddr::V4(address)) => types::IpAddress::Ipv4(address.to_bits()),
        Some(IpAddr::V6(address)) => types::IpAddress::Ipv6(halves(address.to_bits())),
    }
}

fn to_wit_endpoint(address: SocketAddr) -> types::Endpoint {
    types::Endpoint { address: to_wit_address(Some(address.ip())), port: address.port() }
}

fn from_wit_endpoint(endpoint: types::Endpoint) -> Option<SocketAddr> {
    let ip = match endpoint.address {
        types::IpAddress::None => return None,
        types::IpAddress::Ipv4(bits) => Ipv4Addr::from_bits(bits).into(),
        types::IpAddress::Ipv6((high, low)) => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
    };
    Some(SocketAddr::new(ip, endpoint.port))
}

fn to_wit_pack_error(error: PackError) -> types::EditError {
    match error {
        PackError::TooLong { octets, .. } => types::EditError::TooLong(narrow(octets)),
        PackError::Width { needed, .. } => types::EditError::WrongWidth(narrow(needed)),
        PackError::MixedFamilies { .. } => types::EditError::BadAddresses,
        PackError::NoAddresses(_) | PackError::NoPayload(_) | PackError::NotSip { .. } | PackError::AgentId { .. } => {
            types::EditError::NotInVersion(error.to_string())
        }
    }
}

fn to_wit_edit_error(error: EditError) -> types::EditError {
    match error {
        EditError::NoPayload => types::EditError::NoPayload,
        EditError::Range { octets, .. } => types::EditError::OutOfRange(narrow(octets)),
        EditError::Pack(error) => to_wit_pack_error(error),
        EditError::Unreadable(error) => types::EditError::Other(error.to_string()),
    }
}

/// Lengths of packets fit; anything else is as good as the greatest number.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
