//! `subscription`: which packets a filter wants to see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::bindings::hep::filter::subscription::{Host, Network, SubscribeError};
use super::super::bindings::hep::filter::types::IpAddress;
use super::super::fault::clean;
use super::super::state::State;
use crate::config::Subscription;

/// Values of one list.
const VALUES_MAX: usize = 1_024;
/// Octets of a method's name.
const METHOD_OCTETS_MAX: usize = 32;

impl Host for State {
    fn payload_types(&mut self, types: Vec<u8>) -> wasmtime::Result<Result<(), SubscribeError>> {
        self.subscribe(types.len(), types.len(), |subscription| {
            subscription.payload_types = Some(types.into_iter().collect());
            Ok(())
        })
    }

    fn agent_ids(&mut self, ids: Vec<u32>) -> wasmtime::Result<Result<(), SubscribeError>> {
        self.subscribe(ids.len(), ids.len() * size_of::<u32>(), |subscription| {
            subscription.agent_ids = Some(ids.into_iter().collect());
            Ok(())
        })
    }

    fn sip_methods(&mut self, methods: Vec<String>) -> wasmtime::Result<Result<(), SubscribeError>> {
        self.subscribe(methods.len(), methods.iter().map(String::len).sum(), |subscription| {
            let is_method = |method: &String| {
                (1..=METHOD_OCTETS_MAX).contains(&method.len()) && method.bytes().all(|octet| octet.is_ascii_graphic())
            };
            if let Some(wrong) = methods.iter().find(|method| !is_method(method)) {
                return Err(SubscribeError::BadValue(clean(wrong, METHOD_OCTETS_MAX)));
            }
            subscription.sip_methods = Some(methods.into_iter().map(|method| method.to_ascii_uppercase()).collect());
            Ok(())
        })
    }

    fn networks(&mut self, networks: Vec<Network>) -> wasmtime::Result<Result<(), SubscribeError>> {
        self.subscribe(networks.len(), networks.len() * size_of::<IpNet>(), |subscription| {
            subscription.networks = Some(networks.into_iter().map(network).collect::<Result<_, _>>()?);
            Ok(())
        })
    }
}

impl State {
    fn subscribe(
        &mut self,
        values: usize,
        octets: usize,
        say: impl FnOnce(&mut Subscription) -> Result<(), SubscribeError>,
    ) -> wasmtime::Result<Result<(), SubscribeError>> {
        self.charge(octets)?;
        let Some(subscription) = &mut self.subscribing else { return Ok(Err(SubscribeError::NotNow)) };
        if !(1..=VALUES_MAX).contains(&values) {
            return Ok(Err(SubscribeError::BadLength));
        }
        Ok(say(subscription))
    }
}

fn network(network: Network) -> Result<IpNet, SubscribeError> {
    let address: IpAddr = match network.address {
        IpAddress::None => return Err(SubscribeError::BadValue("a network without an address".to_owned())),
        IpAddress::Ipv4(bits) => Ipv4Addr::from_bits(bits).into(),
        IpAddress::Ipv6((high, low)) => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
    };
    let net = IpNet::new(address, network.prefix);
    net.map_err(|_| SubscribeError::BadValue(format!("{address}/{}", network.prefix)))
}
