//! `[[tenant]]`: who owns which packets, what they go through and where they go.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::reader::{Placed, Section, number_of};
use super::value::{self, ConfigValue};
use super::{CollectorId, FilterId, ListenerId};

/// Who owns which packets, what they go through and where they go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// As in logs and metrics.
    pub name: String,
    /// Rules of which one must match; none: the default tenant.
    pub matches: Vec<Match>,
    /// The chain, in its order.
    pub filters: Vec<FilterId>,
    /// The collectors that a packet goes to after the filters.
    pub route: Vec<CollectorId>,
    /// What becomes of a packet that every filter failed on.
    pub on_error: OnError,
    /// Where the chain runs.
    pub lane: LaneChoice,
    /// How much may come.
    pub quotas: Quotas,
    /// What filters of the chain are told by this tenant, beside or instead of what they are told by all.
    pub config: BTreeMap<FilterId, BTreeMap<String, ConfigValue>>,
}

/// A rule: every part of it that is there must match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// The packet came through this listener.
    pub listener: Option<ListenerId>,
    /// The peer's address lies in this network.
    pub source: Option<IpNet>,
    /// The peer has shown a certificate with this name (TLS).
    pub client_name: Option<String>,
    /// The packet has one of these authentication keys (0x0e). Empty: any, or none.
    pub authentication_keys: Vec<ConfigValue>,
    /// It is of this agent (0x0c).
    pub agent_id: Option<u32>,
    /// Of the agent of this name (0x13).
    pub agent_name: Option<String>,
    /// Of this group (0x29).
    pub group_id: Option<String>,
}

/// How much of a tenant may come; what is beyond it is dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// Packets in a second; 0: any number.
    pub packets_per_second_max: u64,
    /// Octets of packets in a second; 0: any number.
    pub octets_per_second_max: u64,
    /// For how long at these rates may come at once after a rest.
    pub burst: Duration,
    /// Connections that its packets come from at a time; 0: any number.
    pub connections_max: usize,
}

impl Default for Quotas {
    /// No quota at all.
    fn default() -> Self {
        let burst = Duration::from_secs(1);
        Self { packets_per_second_max: 0, octets_per_second_max: 0, burst, connections_max: 0 }
    }
}

/// What becomes of a packet that a filter failed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// It goes on as if the filter had answered `pass`.
    Pass,
    /// It is dropped and counted.
    Drop,
}

/// Where a tenant's chain runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneChoice {
    /// In the fast lane, until it misses a deadline there.
    Auto,
    /// In the fast lane, always.
    Fast,
    /// In the slow lane, always.
    Slow,
}

/// The names that a tenant may refer to.
pub(super) struct Names<'a> {
    pub(super) agent_ids: &'a BTreeMap<String, u32>,
    pub(super) listeners: &'a [&'a str],
    pub(super) filters: &'a [&'a str],
    pub(super) collectors: &'a [&'a str],
}

/// `default` is the default tenant, if one was read before: it takes everything, so it must be the last.
pub(super) fn read(
    mut section: Section<'_, '_>,
    names: &Names<'_>,
    default: &mut Option<String>,
    folder: &Path,
) -> Option<Tenant> {
    let name = section.name("tenant");
    let matches: Vec<Match> = section.tables("match").into_iter().map(|rule| read_match(rule, names, folder)).collect();
    let chain = section.texts("filters");
    let filters = super::resolve(&section, chain, "filter", names.filters);
    let to = section.texts("route");
    let route = super::resolve(&section, to, "collector", names.collectors);
    let on_error = section.choice("on_error", OnError::Pass, &[("pass", OnError::Pass), ("drop", OnError::Drop)]);
    let lanes = [("auto", LaneChoice::Auto), ("fast", LaneChoice::Fast), ("slow", LaneChoice::Slow)];
    let lane = section.choice("lane", LaneChoice::Auto, &lanes);
    let quotas = read_quotas(&mut section);
    let filters: Vec<FilterId> = filters.into_iter().map(FilterId).collect();
    let config = read_config(section.table("config"), &filters, names, folder);
    if let Some(default) = default {
        section.complain(
            section.place(),
            format!("never reached: tenant {default:?} before it has no [[tenant.match]] and takes everything"),
        );
    } else if matches.is_empty() {
        default.clone_from(&name);
    }
    section.finish();
    let route = route.into_iter().map(CollectorId).collect();
    Some(Tenant { name: name?, matches, filters, route, on_error, lane, quotas, config })
}

fn read_quotas(section: &mut Section<'_, '_>) -> Quotas {
    let default = Quotas::default();
    Quotas {
        packets_per_second_max: section.whole("packets_per_second_max", 0, 0..=100_000_000),
        octets_per_second_max: section.whole("octets_per_second_max", 0, 0..=1 << 40),
        burst: section.duration("burst", default.burst, Duration::from_millis(10)..=Duration::from_secs(60)),
        connections_max: section.count("connections_max", 0, 0..=1_000_000),
    }
}

/// One table for each filter of the chain that is told something by this tenant.
fn read_config(
    section: Section<'_, '_>,
    chain: &[FilterId],
    names: &Names<'_>,
    folder: &Path,
) -> BTreeMap<FilterId, BTreeMap<String, ConfigValue>> {
    let complaints = section.complaints();
    let mut config = BTreeMap::new();
    for (name, told, place) in section.subtables() {
        match chain.iter().find(|id| names.filters.get(id.0).is_some_and(|filter| *filter == name)) {
            Some(id) => {
                config.insert(*id, value::read_all(told, folder));
            }
            None => complaints.add(&place.at, &place.path, format!("no filter of this tenant's is named {name:?}")),
        }
    }
    config
}

/// What a rule may name.
const RULE_KEYS: [&str; 7] =
    ["listener", "source", "client_name", "authentication_keys", "agent_id", "agent_name", "group_id"];

fn read_match(mut section: Section<'_, '_>, names: &Names<'_>, folder: &Path) -> Match {
    if !RULE_KEYS.iter().any(|key| section.has(key)) {
        section.complain(section.place(), format!("a rule names at least one of {}", RULE_KEYS.join(", ")));
    }
    let listener = section.text("listener").and_then(|listener| {
        super::resolve(&section, vec![listener], "listener", names.listeners).first().map(|index| ListenerId(*index))
    });
    let source = section
        .text("source")
        .and_then(|Placed { value, place }| network(&value).map_err(|text| section.complain(&place, text)).ok());
    let client_name = section.text("client_name").map(|name| name.value.to_ascii_lowercase());
    let has_keys = section.has("authentication_keys");
    let keys = section.list("authentication_keys");
    if has_keys && keys.is_empty() {
        section.complain(section.place(), "authentication_keys without a key in it matches nothing");
    }
    let keys = keys.into_iter().filter_map(|(key, place)| value::read_secret(&section, key, &place, folder)).collect();
    let agent_id = read_agent_id(&mut section, names.agent_ids);
    let agent_name = section.text("agent_name").map(|name| name.value);
    let group_id = section.text("group_id").map(|id| id.value);
    section.finish();
    Match { listener, source, client_name, authentication_keys: keys, agent_id, agent_name, group_id }
}

fn read_agent_id(section: &mut Section<'_, '_>, agent_ids: &BTreeMap<String, u32>) -> Option<u32> {
    let (value, place) = section.value("agent_id")?;
    agent_id(&value, agent_ids).map_err(|text| section.complain(&place, text)).ok()
}

/// A number, or a name of one in `[agent_ids]`.
pub(super) fn agent_id(value: &DeValue<'_>, agent_ids: &BTreeMap<String, u32>) -> Result<u32, String> {
    if let DeValue::String(name) = value {
        let id = agent_ids.get(name.as_ref()).copied();
        return id.ok_or_else(|| format!("no agent id is named {name:?} in [agent_ids]"));
    }
    let id = number_of(value, 0..=u64::from(u32::MAX))?;
    Ok(u32::try_from(id).unwrap_or(u32::MAX))
}

/// A network, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
    network.map_err(|_| format!("{text:?} is neither a network nor an address"))
}
