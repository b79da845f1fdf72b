//! Whose packet it is: the tenants' rules, in their order.

use std::net::IpAddr;

use crate::config::{ListenerId, Match, Tenant, TenantId};

/// Whose packet it is.
#[derive(Clone, Debug)]
pub struct TenantTable {
    rules: Vec<(Match, TenantId)>,
    default: Option<TenantId>,
    /// The last answer: packets of one sender come one after the other.
    last: Option<(ListenerId, IpAddr, Option<TenantId>)>,
}

impl TenantTable {
    /// The rules of these tenants.
    #[must_use]
    pub fn new(tenants: &[Tenant]) -> Self {
        let mut rules = Vec::new();
        let mut default = None;
        for (index, tenant) in tenants.iter().enumerate() {
            let id = TenantId(index);
            if tenant.matches.is_empty() {
                default = default.or(Some(id));
            }
            rules.extend(tenant.matches.iter().map(|rule| (rule.clone(), id)));
        }
        Self { rules, default, last: None }
    }

    /// The tenant of a packet that came through this listener from this address: that of the first rule that matches,
    /// else the default tenant, if there is one.
    pub fn find(&mut self, listener: ListenerId, source: IpAddr) -> Option<TenantId> {
        if let Some((last_listener, last_source, tenant)) = self.last
            && (last_listener, last_source) == (listener, source)
        {
            return tenant;
        }
        // An IPv4 peer of a dual-stack socket is the IPv4 address that its rule names.
        let address = source.to_canonical();
        let matches = |rule: &Match| {
            rule.listener.is_none_or(|wanted| wanted == listener)
                && rule.source.is_none_or(|network| network.contains(&address))
        };
        let found = self.rules.iter().find(|(rule, _)| matches(rule)).map(|(_, tenant)| *tenant).or(self.default);
        self.last = Some((listener, source, found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LaneChoice, OnError};

    fn tenant(name: &str, matches: Vec<Match>) -> Tenant {
        Tenant {
            name: name.into(),
            matches,
            filters: Vec::new(),
            route: Vec::new(),
            on_error: OnError::Pass,
            lane: LaneChoice::Auto,
        }
    }

    fn rule(listener: Option<usize>, source: Option<&str>) -> Match {
        Match { listener: listener.map(ListenerId), source: source.map(|network| network.parse().unwrap()) }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_else_the_default_tenant() {
        let mut table = TenantTable::new(&[
            tenant("a", vec![rule(Some(0), Some("10.0.0.0/8")), rule(None, Some("2001:db8::/32"))]),
            tenant("b", vec![rule(None, Some("10.1.0.0/16"))]),
            tenant("rest", vec![]),
        ]);
        for (listener, source, expected) in [
            (0, "10.1.2.3", 0),
            (1, "10.1.2.3", 1),
            (1, "10.2.2.3", 2),
            (1, "2001:db8::1", 0),
            (0, "::ffff:10.1.2.3", 0),
            (0, "192.0.2.1", 2),
        ] {
            let found = table.find(ListenerId(listener), source.parse().unwrap());
            assert_eq!(found, Some(TenantId(expected)), "{listener} {source}");
            assert_eq!(table.find(ListenerId(listener), source.parse().unwrap()), found);
        }
    }

    #[test]
    fn without_a_default_tenant_an_unknown_packet_is_nobodys() {
        let mut table = TenantTable::new(&[tenant("a", vec![rule(Some(0), None)])]);
        assert_eq!(table.find(ListenerId(1), "10.0.0.1".parse().unwrap()), None);
        assert_eq!(table.find(ListenerId(0), "10.0.0.1".parse().unwrap()), Some(TenantId(0)));
    }
}
