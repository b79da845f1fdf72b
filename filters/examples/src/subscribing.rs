//! Which packets come at all.

use hepgate_filter::subscription::{self, Network, SubscribeError};
use hepgate_filter::{IpAddress, SIP};

use crate::checks::Checks;

// example: subscription.payload-types
/// What is no SIP passes without a call.
fn only_sip() -> Result<(), SubscribeError> {
    subscription::payload_types(&[SIP])
}
// end

// example: subscription.agent-ids
/// Two sites.
fn only_our_agents() -> Result<(), SubscribeError> {
    subscription::agent_ids(&[2_000, 2_001])
}
// end

// example: subscription.sip-methods
/// Calls, and whether somebody is there: with the responses to them.
fn only_calls() -> Result<(), SubscribeError> {
    subscription::sip_methods(&["INVITE".to_owned(), "BYE".to_owned(), "OPTIONS".to_owned()])
}
// end

// example: subscription.networks
/// From or to 192.0.2.0/24.
fn only_our_network() -> Result<(), SubscribeError> {
    subscription::networks(&[Network { address: IpAddress::Ipv4(0xc000_0200), prefix: 24 }])
}
// end

/// What they keep away is seen in what becomes of the packets.
pub(crate) fn check(checks: &mut Checks) {
    checks.is("subscription.payload-types", only_sip().is_ok(), true);
    checks.is("subscription.agent-ids", only_our_agents().is_ok(), true);
    checks.is("subscription.sip-methods", only_calls().is_ok(), true);
    checks.is("subscription.networks", only_our_network().is_ok(), true);
}
