//! Which packets a filter sees: what it said in `init`, narrowed by what the operator says. Asked natively, so that a packet
//! that does not match costs no call and never crosses into the guest.

use crate::config::Subscription;
use crate::wire::{Packet, PayloadType, sip_method};

/// Which packets a filter sees.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// What the filter said.
    pub filter: Subscription,
    /// What the operator says.
    pub operator: Subscription,
}

impl Wanted {
    /// Whether it is everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the filter sees that packet.
    #[must_use]
    pub fn wants(&self, packet: &Packet) -> bool {
        wants(&self.filter, packet) && wants(&self.operator, packet)
    }
}

/// What is not said is not asked; all that is said must be true.
fn wants(subscription: &Subscription, packet: &Packet) -> bool {
    let Subscription { payload_types, agent_ids, sip_methods, networks } = subscription;
    let head = packet.head();
    if payload_types.as_ref().is_some_and(|types| !types.contains(&head.payload_type.0)) {
        return false;
    }
    if agent_ids.as_ref().is_some_and(|ids| !ids.contains(&head.agent_id)) {
        return false;
    }
    if let Some(networks) = networks {
        let mut addresses = [head.source, head.destination].into_iter().flatten();
        if !addresses.any(|address| networks.iter().any(|network| network.contains(&address.to_canonical()))) {
            return false;
        }
    }
    let Some(methods) = sip_methods else { return true };
    let is_sip = head.payload_type == PayloadType::SIP;
    let method = sip_method(packet.readable_payload()).filter(|_| is_sip);
    method.is_some_and(|method| methods.iter().any(|wanted| method.eq_ignore_ascii_case(wanted.as_bytes())))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Pack, Version, decode};

    fn packet(agent_id: u32, payload_type: PayloadType, payload: &'static str) -> Packet {
        let pack = Pack {
            ip_protocol: 17,
            flow: Some(("192.0.2.1:5060".parse().unwrap(), "198.51.100.2:5061".parse().unwrap())),
            captured_at: None,
            payload_type,
            agent_id,
            chunks: Vec::new(),
            payload: Some(Bytes::from_static(payload.as_bytes())),
        };
        decode(pack.encode(Version::Hep3).unwrap()).unwrap()
    }

    #[test]
    fn all_that_is_said_must_be_true_and_nothing_else_is_asked() {
        const INVITE: &str = "INVITE sip:a SIP/2.0\r\n\r\n";
        let invite = packet(7, PayloadType::SIP, INVITE);
        assert!(Wanted::default().is_all() && Wanted::default().wants(&invite));
        let types = |types: &[u8]| Subscription {
            payload_types: Some(types.iter().copied().collect()),
            ..Subscription::default()
        };
        let agents =
            |ids: &[u32]| Subscription { agent_ids: Some(ids.iter().copied().collect()), ..Subscription::default() };
        let methods = |methods: &[&str]| Subscription {
            sip_methods: Some(methods.iter().map(|method| (*method).to_owned()).collect()),
            ..Subscription::default()
        };
        let networks = |networks: &[&str]| Subscription {
            networks: Some(networks.iter().map(|network| network.parse().unwrap()).collect()),
            ..Subscription::default()
        };
        for (subscription, wanted) in [
            (types(&[1]), true),
            (types(&[5, 100]), false),
            (agents(&[6, 7]), true),
            (agents(&[8]), false),
            (methods(&["BYE", "INVITE"]), true),
            (methods(&["BYE"]), false),
            (networks(&["192.0.2.0/24"]), true),
            (networks(&["198.51.100.2/32"]), true),
            (networks(&["203.0.113.0/24", "2001:db8::/32"]), false),
            (Subscription { agent_ids: agents(&[8]).agent_ids, ..types(&[1]) }, false),
        ] {
            assert_eq!(wants(&subscription, &invite), wanted, "{subscription:?}");
            let operator = Wanted { operator: subscription.clone(), ..Wanted::default() };
            assert_eq!(operator.wants(&invite), wanted);
            assert_eq!(Wanted { filter: subscription, operator: types(&[1]) }.wants(&invite), wanted);
        }
        assert!(!wants(&methods(&["INVITE"]), &packet(7, PayloadType::LOG, INVITE)), "a log line is no SIP");
        assert!(wants(&methods(&["BYE"]), &packet(7, PayloadType::SIP, "SIP/2.0 200 OK\r\nCSeq: 1 BYE\r\n\r\n")));
        assert!(!wants(&methods(&["BYE"]), &packet(7, PayloadType::SIP, "garbage")));
    }
}
