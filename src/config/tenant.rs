//! `[[tenant]]`: who owns which packets, what they go through and where they go.

use ipnet::IpNet;

use super::reader::{Placed, Section};
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
}

/// A rule: every part of it that is there must match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    /// The packet came through this listener.
    pub listener: Option<ListenerId>,
    /// The peer's address lies in this network.
    pub source: Option<IpNet>,
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
    pub(super) listeners: &'a [&'a str],
    pub(super) filters: &'a [&'a str],
    pub(super) collectors: &'a [&'a str],
}

/// `default` is the default tenant, if one was read before: it takes everything, so it must be the last.
pub(super) fn read(mut section: Section<'_, '_>, names: &Names<'_>, default: &mut Option<String>) -> Option<Tenant> {
    let name = section.name("tenant");
    let matches: Vec<Match> =
        section.tables("match").into_iter().map(|rule| read_match(rule, names.listeners)).collect();
    let chain = section.texts("filters");
    let filters = super::resolve(&section, chain, "filter", names.filters);
    let to = section.texts("route");
    let route = super::resolve(&section, to, "collector", names.collectors);
    let on_error = section.choice("on_error", OnError::Pass, &[("pass", OnError::Pass), ("drop", OnError::Drop)]);
    let lanes = [("auto", LaneChoice::Auto), ("fast", LaneChoice::Fast), ("slow", LaneChoice::Slow)];
    let lane = section.choice("lane", LaneChoice::Auto, &lanes);
    if let Some(default) = default {
        section.complain(
            section.place(),
            format!("never reached: tenant {default:?} before it has no [[tenant.match]] and takes everything"),
        );
    } else if matches.is_empty() {
        default.clone_from(&name);
    }
    section.finish();
    let filters = filters.into_iter().map(FilterId).collect();
    let route = route.into_iter().map(CollectorId).collect();
    Some(Tenant { name: name?, matches, filters, route, on_error, lane })
}

fn read_match(mut section: Section<'_, '_>, listener_names: &[&str]) -> Match {
    if !["listener", "source"].iter().any(|key| section.has(key)) {
        section.complain(section.place(), "a rule names a listener, a source, or both");
    }
    let listener = section.text("listener").and_then(|listener| {
        super::resolve(&section, vec![listener], "listener", listener_names).first().map(|index| ListenerId(*index))
    });
    let source = section.text("source").and_then(|Placed { value, place }| {
        let network = value.parse().or_else(|_| value.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
        network.map_err(|_| section.complain(&place, format!("{value:?} is neither a network nor an address"))).ok()
    });
    section.finish();
    Match { listener, source }
}
