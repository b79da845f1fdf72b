//! Whose packet it is: the tenants' rules, in their order.
//!
//! The first rule that matches decides, but the rules are not tried one after the other. Rules that name the same things
//! (a listener and a network of 24 bits, say) have one shape, and all rules of a shape are one look into a map; so a packet
//! costs as many looks as there are shapes, and none if it is like the one before.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use subtle::ConstantTimeEq;

use crate::config::{ListenerId, Match, SecretError, Tenant, TenantId};
use crate::wire::{ChunkId, Packet};

/// Names of one certificate that are looked at, of those that a rule has.
const CLIENT_NAMES_MAX: usize = 4;

/// Whose packet it is. Each worker has one; they share the rules.
#[derive(Clone, Debug)]
pub struct TenantTable {
    rules: Arc<Rules>,
    /// The last answer: packets of one sender come one after the other.
    last: Option<(Seen, Option<TenantId>)>,
}

/// A key of a rule that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tenant {tenant:?}: authentication_keys: {reason}")]
pub struct KeyError {
    /// Whose rule.
    pub tenant: String,
    /// Why.
    pub reason: SecretError,
}

#[derive(Debug)]
struct Rules {
    shapes: Vec<Shape>,
    default: Option<TenantId>,
    client_names: Known,
    keys: Keys,
    agent_names: Known,
    group_ids: Known,
    /// Whether any rule names an agent id.
    agent_ids: bool,
}

/// All rules that name the same things.
#[derive(Debug)]
struct Shape {
    names: Names,
    /// The first rule of each set of values, and its tenant.
    /// The hash need not withstand anybody: what is in the map is the operator's, and packets only look.
    rules: HashMap<Seen, (usize, TenantId), foldhash::fast::FixedState>,
    /// The first rule of them all.
    first: usize,
}

/// What the rules of a shape name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Names {
    listener: bool,
    network: Option<(bool, u8)>,
    client_name: bool,
    key: bool,
    agent_id: bool,
    agent_name: bool,
    group_id: bool,
}

/// A text that some rule has, by its place among those.
type TextId = u32;

/// What a packet shows of what rules name. As a key of a shape's map only what its rules name is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    listener: Option<ListenerId>,
    address: Option<IpAddr>,
    client_names: [Option<TextId>; CLIENT_NAMES_MAX],
    key: Option<TextId>,
    agent_id: Option<u32>,
    agent_name: Option<TextId>,
    group_id: Option<TextId>,
}

impl Hash for Seen {
    /// What is not there is not hashed: in one map the same things are there in every key.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.address {
            Some(IpAddr::V4(address)) => state.write_u32(address.to_bits()),
            Some(IpAddr::V6(address)) => state.write_u128(address.to_bits()),
            None => {}
        }
        if let Some(ListenerId(place)) = self.listener {
            state.write_usize(place);
        }
        let [client_name, ..] = self.client_names;
        for number in [client_name, self.key, self.agent_id, self.agent_name, self.group_id].into_iter().flatten() {
            state.write_u32(number);
        }
    }
}

/// The texts that rules have.
#[derive(Debug, Default)]
struct Known(HashMap<Vec<u8>, TextId>);

impl Known {
    fn add(&mut self, text: &str) -> TextId {
        let next = TextId::try_from(self.0.len()).unwrap_or(TextId::MAX);
        *self.0.entry(text.as_bytes().to_vec()).or_insert(next)
    }

    fn find(&self, text: Option<&[u8]>) -> Option<TextId> {
        self.0.get(text?).copied()
    }
}

/// The authentication keys that rules have. How long a look takes says nothing of them: they are found by a hash that
/// nobody outside can compute, and compared in constant time.
#[derive(Default)]
struct Keys {
    hasher: RandomState,
    by_hash: HashMap<u64, Vec<(Vec<u8>, TextId)>>,
    count: TextId,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Keys {
    fn add(&mut self, key: &[u8]) -> TextId {
        if let Some(id) = self.find(key) {
            return id;
        }
        let id = self.count;
        self.count += 1;
        self.by_hash.entry(self.hasher.hash_one(key)).or_default().push((key.to_vec(), id));
        id
    }

    fn find(&self, key: &[u8]) -> Option<TextId> {
        let known = self.by_hash.get(&self.hasher.hash_one(key))?;
        known.iter().find(|(known, _)| known.ct_eq(key).into()).map(|(_, id)| *id)
    }
}

impl TenantTable {
    /// The rules of these tenants, in this order. Keys that stand elsewhere are read now.
    ///
    /// # Errors
    /// [`KeyError`]: about the first key that cannot be read.
    pub fn new<'a>(tenants: impl Iterator<Item = (TenantId, &'a Tenant)>) -> Result<Self, KeyError> {
        let mut rules = Rules {
            shapes: Vec::new(),
            default: None,
            client_names: Known::default(),
            keys: Keys::default(),
            agent_names: Known::default(),
            group_ids: Known::default(),
            agent_ids: false,
        };
        let mut place = 0;
        for (id, tenant) in tenants {
            if tenant.matches.is_empty() {
                rules.default = rules.default.or(Some(id));
            }
            for rule in &tenant.matches {
                let error = |reason| KeyError { tenant: tenant.name.clone(), reason };
                rules.add(rule, place, id).map_err(error)?;
                place += 1;
            }
        }
        rules.shapes.sort_by_key(|shape| shape.first);
        Ok(Self { rules: Arc::new(rules), last: None })
    }

    /// Whether rules name keys. Then those of packets are taken out before anybody sees them.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.rules.keys.count > 0
    }

    /// The tenant of a packet that came through this listener from this address: that of the first rule that matches,
    /// else the default tenant, if there is one. `client_names` are those in the certificate that the peer has shown.
    pub fn find(
        &mut self,
        listener: ListenerId,
        source: IpAddr,
        client_names: &[String],
        packet: &Packet,
    ) -> Option<TenantId> {
        // An IPv4 peer of a dual-stack socket is the IPv4 address that its rule names.
        let seen = self.rules.see(listener, source.to_canonical(), client_names, packet);
        if let Some((last, tenant)) = self.last
            && last == seen
        {
            return tenant;
        }
        let found = self.rules.find(&seen);
        self.last = Some((seen, found));
        found
    }
}

impl Rules {
    fn add(&mut self, rule: &Match, place: usize, tenant: TenantId) -> Result<(), SecretError> {
        let names = Names {
            listener: rule.listener.is_some(),
            network: rule.source.map(|network| (network.addr().is_ipv4(), network.prefix_len())),
            client_name: rule.client_name.is_some(),
            key: !rule.authentication_keys.is_empty(),
            agent_id: rule.agent_id.is_some(),
            agent_name: rule.agent_name.is_some(),
            group_id: rule.group_id.is_some(),
        };
        self.agent_ids |= names.agent_id;
        let values = Seen {
            listener: rule.listener,
            address: rule.source.map(|network| network.network()),
            client_names: one(rule.client_name.as_deref().map(|name| self.client_names.add(name))),
            key: None,
            agent_id: rule.agent_id,
            agent_name: rule.agent_name.as_deref().map(|name| self.agent_names.add(name)),
            group_id: rule.group_id.as_deref().map(|id| self.group_ids.add(id)),
        };
        let mut keys = vec![None];
        if names.key {
            keys.clear();
            for key in &rule.authentication_keys {
                keys.push(Some(self.keys.add(key.read()?.as_bytes())));
            }
        }
        let known = self.shapes.iter().position(|shape| shape.names == names);
        let known = known.unwrap_or_else(|| {
            self.shapes.push(Shape { names, rules: HashMap::default(), first: place });
            self.shapes.len() - 1
        });
        let Some(shape) = self.shapes.get_mut(known) else { return Ok(()) };
        for key in keys {
            if let Entry::Vacant(entry) = shape.rules.entry(Seen { key, ..values }) {
                entry.insert((place, tenant));
            }
        }
        Ok(())
    }

    /// What rules name of this packet. What none of them names stays empty, so that packets that differ in nothing else
    /// are alike.
    fn see(&self, listener: ListenerId, address: IpAddr, client_names: &[String], packet: &Packet) -> Seen {
        let mut seen = Seen { listener: Some(listener), address: Some(address), ..Seen::default() };
        if !self.client_names.0.is_empty() {
            let known = client_names.iter().filter_map(|name| self.client_names.find(Some(name.as_bytes())));
            for (place, id) in seen.client_names.iter_mut().zip(known) {
                *place = Some(id);
            }
        }
        if self.agent_ids {
            seen.agent_id = Some(packet.head().agent_id);
        }
        if self.keys.count > 0 {
            seen.key = packet.chunk(ChunkId::AUTH_KEY).and_then(|key| self.keys.find(key));
        }
        if !self.agent_names.0.is_empty() {
            seen.agent_name = self.agent_names.find(packet.chunk(ChunkId::AGENT_NAME));
        }
        if !self.group_ids.0.is_empty() {
            seen.group_id = self.group_ids.find(packet.chunk(ChunkId::GROUP_ID));
        }
        seen
    }

    fn find(&self, seen: &Seen) -> Option<TenantId> {
        let mut best: Option<(usize, TenantId)> = None;
        for shape in &self.shapes {
            if best.is_some_and(|(place, _)| place < shape.first) {
                break;
            }
            if let Some(found) = shape.find(seen)
                && best.is_none_or(|(place, _)| found.0 < place)
            {
                best = Some(found);
            }
        }
        best.map(|(_, tenant)| tenant).or(self.default)
    }
}

impl Shape {
    fn find(&self, seen: &Seen) -> Option<(usize, TenantId)> {
        let Names { listener, network, client_name, key, agent_id, agent_name, group_id } = self.names;
        let address = match (network, seen.address) {
            (None, _) => None,
            (Some((ipv4, prefix)), Some(address)) if address.is_ipv4() == ipv4 => {
                Some(IpNet::new(address, prefix).ok()?.network())
            }
            _ => return None,
        };
        let wanted = Seen {
            listener: seen.listener.filter(|_| listener),
            address,
            client_names: one(None),
            key: if key { Some(seen.key?) } else { None },
            agent_id: seen.agent_id.filter(|_| agent_id),
            agent_name: if agent_name { Some(seen.agent_name?) } else { None },
            group_id: if group_id { Some(seen.group_id?) } else { None },
        };
        if !client_name {
            return self.rules.get(&wanted).copied();
        }
        let of_name = |id: &TextId| self.rules.get(&Seen { client_names: one(Some(*id)), ..wanted }).copied();
        seen.client_names.iter().flatten().filter_map(of_name).min_by_key(|(place, _)| *place)
    }
}

fn one(name: Option<TextId>) -> [Option<TextId>; CLIENT_NAMES_MAX] {
    let mut names = [None; CLIENT_NAMES_MAX];
    names[0] = name;
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigValue, LaneChoice, OnError, Quotas};
    use crate::ledger::ids;
    use crate::wire::{Pack, PayloadType, Version, decode};

    fn tenant(name: &str, matches: Vec<Match>) -> Tenant {
        Tenant {
            name: name.into(),
            matches,
            filters: Vec::new(),
            route: Vec::new(),
            on_error: OnError::Pass,
            lane: LaneChoice::Auto,
            quotas: Quotas::default(),
            config: std::collections::BTreeMap::new(),
        }
    }

    fn table(tenants: &[Tenant]) -> Result<TenantTable, KeyError> {
        TenantTable::new(ids(tenants, TenantId))
    }

    fn rule(listener: Option<usize>, source: Option<&str>) -> Match {
        let source = source.map(|network| network.parse().unwrap());
        Match { listener: listener.map(ListenerId), source, ..Match::default() }
    }

    fn packet(agent_id: u32, chunks: &[(ChunkId, &'static str)]) -> Packet {
        let pack = Pack {
            ip_protocol: 17,
            flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5061".parse().unwrap())),
            captured_at: None,
            payload_type: PayloadType::SIP,
            agent_id,
            chunks: chunks.iter().map(|(id, body)| (*id, bytes::Bytes::from_static(body.as_bytes()))).collect(),
            payload: Some(bytes::Bytes::from_static(b"x")),
        };
        decode(pack.encode(Version::Hep3).unwrap()).unwrap()
    }

    fn find(table: &mut TenantTable, listener: usize, source: &str, names: &[&str], packet: &Packet) -> Option<usize> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = table.find(ListenerId(listener), source.parse().unwrap(), &names, packet);
        assert_eq!(table.find(ListenerId(listener), source.parse().unwrap(), &names, packet), found, "asked again");
        found.map(|tenant| tenant.0)
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_else_the_default_tenant() {
        let mut table = table(&[
            tenant("a", vec![rule(Some(0), Some("10.0.0.0/8")), rule(None, Some("2001:db8::/32"))]),
            tenant("b", vec![rule(None, Some("10.1.0.0/16"))]),
            tenant("rest", vec![]),
        ])
        .unwrap();
        for (listener, source, expected) in [
            (0, "10.1.2.3", 0),
            (1, "10.1.2.3", 1),
            (1, "10.2.2.3", 2),
            (1, "2001:db8::1", 0),
            (0, "::ffff:10.1.2.3", 0),
            (0, "192.0.2.1", 2),
        ] {
            assert_eq!(find(&mut table, listener, source, &[], &packet(1, &[])), Some(expected), "{listener} {source}");
        }
    }

    #[test]
    fn without_a_default_tenant_an_unknown_packet_is_nobodys() {
        let mut table = table(&[tenant("a", vec![rule(Some(0), None)])]).unwrap();
        assert_eq!(find(&mut table, 1, "10.0.0.1", &[], &packet(1, &[])), None);
        assert_eq!(find(&mut table, 0, "10.0.0.1", &[], &packet(1, &[])), Some(0));
    }

    #[test]
    fn a_rule_may_name_key_client_agent_and_group_and_all_of_it_must_match() {
        let text = |text: &str| Some(text.to_owned());
        let keys = |keys: &[&str]| keys.iter().map(|key| ConfigValue::Text((*key).to_owned())).collect();
        let mut table = table(&[
            tenant("keys", vec![Match { authentication_keys: keys(&["old", "new"]), ..Match::default() }]),
            tenant("client", vec![Match { client_name: text("a.example"), ..Match::default() }]),
            tenant("agent", vec![Match { agent_id: Some(7), agent_name: text("seven"), ..Match::default() }]),
            tenant("group", vec![Match { group_id: text("g"), ..rule(Some(1), None) }]),
            tenant("zero", vec![Match { agent_id: Some(0), ..Match::default() }]),
        ])
        .unwrap();
        assert!(table.has_keys());
        let (key, name, group) = (ChunkId::AUTH_KEY, ChunkId::AGENT_NAME, ChunkId::GROUP_ID);
        for (listener, names, packet, expected) in [
            (0, &[][..], packet(1, &[(key, "old")]), Some(0)),
            (0, &[], packet(1, &[(key, "new")]), Some(0)),
            (0, &[], packet(1, &[(key, "newer")]), None),
            (0, &[], packet(1, &[(key, "")]), None),
            (0, &["b.example", "a.example"], packet(1, &[]), Some(1)),
            (0, &["a.example"], packet(1, &[(key, "old")]), Some(0)),
            (0, &["b.example"], packet(1, &[]), None),
            (0, &[], packet(7, &[(name, "seven")]), Some(2)),
            (0, &[], packet(7, &[]), None),
            (0, &[], packet(8, &[(name, "seven")]), None),
            (1, &[], packet(1, &[(group, "g")]), Some(3)),
            (0, &[], packet(1, &[(group, "g")]), None),
            (0, &[], packet(0, &[]), Some(4)),
        ] {
            assert_eq!(find(&mut table, listener, "10.0.0.1", names, &packet), expected, "{names:?} {packet:?}");
        }
    }

    /// Against the rules tried one after the other, as they are written.
    #[test]
    fn many_rules_of_many_shapes_answer_as_if_they_were_tried_in_order() {
        let mut rules = Vec::new();
        for n in 0..2_000_u32 {
            let prefix = [22, 24, 28, 32][(n % 4) as usize];
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 | n.wrapping_mul(0x9e37_79b1) >> 12));
            let source = (!n.is_multiple_of(5)).then(|| IpNet::new(address, prefix).unwrap());
            let agent_id = (n.is_multiple_of(3) || source.is_none()).then_some(n % 97);
            let listener = n.is_multiple_of(7).then_some(ListenerId((n % 3) as usize));
            rules.push(Match { listener, source, agent_id, ..Match::default() });
        }
        let tenants: Vec<Tenant> = rules.iter().map(|rule| tenant("t", vec![rule.clone()])).collect();
        let mut table = table(&tenants).unwrap();
        let mut found_some = 0;
        for n in 0..5_000_u32 {
            let source = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 | n.wrapping_mul(0x85eb_ca6b) >> 12));
            let (listener, agent_id) = (ListenerId((n % 4) as usize), n % 101);
            let matches = |rule: &Match| {
                rule.listener.is_none_or(|wanted| wanted == listener)
                    && rule.source.is_none_or(|network| network.contains(&source))
                    && rule.agent_id.is_none_or(|wanted| wanted == agent_id)
            };
            let expected = rules.iter().position(matches).map(TenantId);
            assert_eq!(table.find(listener, source, &[], &packet(agent_id, &[])), expected, "{n}");
            found_some += u32::from(expected.is_some());
        }
        assert!((500..5_000).contains(&found_some), "{found_some}");
    }

    #[test]
    fn a_key_that_cannot_be_read_is_told_without_its_value() {
        let keys = vec![ConfigValue::File("/nowhere/key".into())];
        let error = table(&[tenant("a", vec![Match { authentication_keys: keys, ..Match::default() }])]);
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("tenant \"a\": authentication_keys: /nowhere/key: "), "{text}");
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = vec![ConfigValue::Text("s3cret".into())];
        let table = table(&[tenant("a", vec![Match { authentication_keys: keys, ..Match::default() }])]);
        assert!(!format!("{:?}", table.unwrap()).contains("s3cret"));
    }
}
