//! `[[filter]]`: a component, what it is told, and what it may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::reader::{Placed, Section, kind_of, number_of};
use super::value::{self, ConfigValue};
use super::{CollectorId, OnError, tenant};

/// A component, what it is told, and what it may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// As in logs, metrics and chains.
    pub name: String,
    /// The `.wasm` file.
    pub component: PathBuf,
    /// The sha256 that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// What the filter reads through the interface `config`.
    pub config: BTreeMap<String, ConfigValue>,
    /// The collectors that it may open.
    pub collectors: Vec<CollectorId>,
    /// What becomes of a packet that this filter failed on; `None` leaves it to the tenant.
    pub on_error: Option<OnError>,
    /// How often `on-tick` is called; `None`: never.
    pub tick: Option<Duration>,
    /// Which packets it sees, of those that it wants to see.
    pub subscription: Subscription,
    /// What one instance and one call of it may use.
    pub limits: Limits,
    /// When it is taken out of service.
    pub quarantine: Quarantine,
}

/// Which packets a filter sees. What is `None` is not asked; all the others must be true.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subscription {
    /// Payload types (chunk 0x0b).
    pub payload_types: Option<BTreeSet<u8>>,
    /// Agent ids (0x0c).
    pub agent_ids: Option<BTreeSet<u32>>,
    /// Methods of SIP requests, and of responses to them.
    pub sip_methods: Option<BTreeSet<String>>,
    /// Networks of the captured packet's source or destination.
    pub networks: Option<Vec<IpNet>>,
}

/// When a filter is taken out of a tenant's service, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quarantine {
    /// Faults in a window that take it out; 0: any number may happen.
    pub strikes_max: usize,
    /// How long a fault counts.
    pub strikes_window: Duration,
    /// How long it stays out; `None`: until somebody releases it.
    pub cool_down: Option<Duration>,
    /// Percent of the packets in a window that it may drop; 100: all.
    pub drop_percent_max: u64,
    /// How long is counted for that.
    pub drop_window: Duration,
}

/// What one instance of a filter, and one call of it, may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Linear memory of an instance, all its memories together.
    pub memory_octets_max: usize,
    /// Elements of its tables, all together.
    pub table_elements_max: usize,
    /// Resource handles that it holds at a time.
    pub handles_max: usize,
    /// Time of a call in the fast lane.
    pub fast_deadline: Duration,
    /// Time of a call in the slow lane.
    pub slow_deadline: Duration,
    /// Time to make an instance and run its `init`, in the slow lane and at the start.
    pub init_deadline: Duration,
    /// Instructions that a call may execute for each of its packets, as the engine counts them ("fuel"); 0: any number.
    pub fuel_per_packet_max: u64,
    /// Calls of the host that one call may make.
    pub host_calls_max: u64,
    /// Octets of lists and texts that it may hand over in one call of the host (host-call fuel).
    pub hostcall_octets_max: usize,
    /// Octets of lists and texts that the host calls of one call may move, in both directions.
    pub moved_octets_max: usize,
    /// Packets that one call may send and relay.
    pub sends_max: usize,
    /// Octets of those.
    pub send_octets_max: usize,
    /// Log lines that one call may write.
    pub log_lines_max: usize,
    /// Octets of a log line; the rest is cut.
    pub log_line_octets_max: usize,
    /// Octets of the component's file.
    pub component_octets_max: usize,
    /// Functions of the component.
    pub functions_max: usize,
    /// Octets of one of them.
    pub function_octets_max: usize,
    /// Keys that it remembers.
    pub state_keys_max: usize,
    /// Octets of keys and values that it remembers.
    pub state_octets_max: usize,
    /// Metrics of its own.
    pub metrics_max: usize,
    /// Series of them.
    pub metric_series_max: usize,
    /// Octets of a label's value.
    pub metric_label_octets_max: usize,
    /// What its clocks are rounded down to.
    pub clock_grain: Duration,
    /// Percent of `memory_octets_max` at which an instance is replaced by a fresh one, if it has grown since its start;
    /// 100: never.
    pub recycle_percent: u64,
}

impl Limits {
    /// Octets of memory by default: as much as a bulk operation, which nothing interrupts, fills in some milliseconds.
    pub const MEMORY_OCTETS: usize = 16 << 20;
    /// Elements of tables by default: the largest run times have some thousands.
    pub const TABLE_ELEMENTS: usize = 20_000;
}

/// A limit whose use can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the limit of its name")]
pub enum Limit {
    MemoryOctets,
    TableElements,
    Handles,
    FastDeadline,
    SlowDeadline,
    InitDeadline,
    HostCalls,
    MovedOctets,
    Sends,
    SendOctets,
    LogLines,
    StateKeys,
    StateOctets,
    MetricSeries,
}

impl Limit {
    /// All of them, each at its own place.
    pub const ALL: [Self; 14] = [
        Self::MemoryOctets,
        Self::TableElements,
        Self::Handles,
        Self::FastDeadline,
        Self::SlowDeadline,
        Self::InitDeadline,
        Self::HostCalls,
        Self::MovedOctets,
        Self::Sends,
        Self::SendOctets,
        Self::LogLines,
        Self::StateKeys,
        Self::StateOctets,
        Self::MetricSeries,
    ];

    /// Its key in the configuration. Times are in microseconds wherever they are numbers.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::MemoryOctets => "memory_octets_max",
            Self::TableElements => "table_elements_max",
            Self::Handles => "handles_max",
            Self::FastDeadline => "fast_deadline",
            Self::SlowDeadline => "slow_deadline",
            Self::InitDeadline => "init_deadline",
            Self::HostCalls => "host_calls_max",
            Self::MovedOctets => "moved_octets_max",
            Self::Sends => "sends_max",
            Self::SendOctets => "send_octets_max",
            Self::LogLines => "log_lines_max",
            Self::StateKeys => "state_keys_max",
            Self::StateOctets => "state_octets_max",
            Self::MetricSeries => "metric_series_max",
        }
    }
}

impl Limits {
    /// How much one of them is, times in microseconds.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match limit {
            Limit::MemoryOctets => wide(self.memory_octets_max),
            Limit::TableElements => wide(self.table_elements_max),
            Limit::Handles => wide(self.handles_max),
            Limit::FastDeadline => micros(self.fast_deadline),
            Limit::SlowDeadline => micros(self.slow_deadline),
            Limit::InitDeadline => micros(self.init_deadline),
            Limit::HostCalls => self.host_calls_max,
            Limit::MovedOctets => wide(self.moved_octets_max),
            Limit::Sends => wide(self.sends_max),
            Limit::SendOctets => wide(self.send_octets_max),
            Limit::LogLines => wide(self.log_lines_max),
            Limit::StateKeys => wide(self.state_keys_max),
            Limit::StateOctets => wide(self.state_octets_max),
            Limit::MetricSeries => wide(self.metric_series_max),
        }
    }

    /// Octets of memory at which an instance is replaced by a fresh one.
    #[must_use]
    pub fn recycle_octets(&self) -> Option<usize> {
        let percent = usize::try_from(self.recycle_percent).ok().filter(|percent| *percent < 100)?;
        Some(self.memory_octets_max / 100 * percent)
    }
}

pub(super) fn read(
    mut section: Section<'_, '_>,
    collector_names: &[&str],
    agent_ids: &BTreeMap<String, u32>,
    folder: &Path,
) -> Option<Filter> {
    let name = section.name("filter");
    let component = section.text_required("component", "the .wasm file").map(|path| folder.join(path.value));
    let sha256 = read_sha256(&mut section);
    let config = value::read_all(section.table("config"), folder);
    let granted = section.texts("collectors");
    let collectors = super::resolve(&section, granted, "collector", collector_names);
    let choices = [("tenant", None), ("pass", Some(OnError::Pass)), ("drop", Some(OnError::Drop))];
    let on_error = section.choice("on_error", None, &choices);
    let tick = section.duration("tick", Duration::ZERO, Duration::ZERO..=Duration::from_secs(86_400));
    let subscription = read_subscription(section.table("subscription"), agent_ids);
    let limits = read_limits(section.table("limits"));
    let quarantine = read_quarantine(section.table("quarantine"));
    section.finish();
    Some(Filter {
        name: name?,
        component: component?,
        sha256,
        config,
        collectors: collectors.into_iter().map(CollectorId).collect(),
        on_error,
        tick: super::non_zero(tick),
        subscription,
        limits,
        quarantine,
    })
}

fn read_sha256(section: &mut Section<'_, '_>) -> Option<[u8; 32]> {
    let Placed { value, place } = section.text("sha256").filter(|sha256| !sha256.value.is_empty())?;
    let digit = |octets: &[u8]| {
        let text = std::str::from_utf8(octets).ok()?;
        u8::from_str_radix(text, 16).ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_hexdigit()))
    };
    let octets: Option<Vec<u8>> = value.as_bytes().chunks(2).map(digit).collect();
    let sha256 = octets.filter(|_| value.len() == 64).and_then(|octets| octets.try_into().ok());
    if sha256.is_none() {
        section.complain(&place, format!("{value:?} is not a sha256: 64 hexadecimal digits"));
    }
    sha256
}

fn read_subscription(mut section: Section<'_, '_>, agent_ids: &BTreeMap<String, u32>) -> Subscription {
    let payload_types = list_of(&mut section, "payload_types", |value| number_of(&value, 0..=255));
    let payload_types: Option<BTreeSet<u64>> = payload_types;
    let ids: Option<BTreeSet<u32>> = list_of(&mut section, "agent_ids", |value| tenant::agent_id(&value, agent_ids));
    let sip_methods = list_of(&mut section, "sip_methods", |value| match value {
        DeValue::String(method) if !method.is_empty() && method.bytes().all(|octet| octet.is_ascii_graphic()) => {
            Ok(method.to_ascii_uppercase())
        }
        _ => Err("a SIP method such as \"INVITE\" is wanted".to_owned()),
    });
    let networks: Option<Vec<IpNet>> = list_of(&mut section, "networks", |value| match value {
        DeValue::String(text) => tenant::network(&text),
        value => Err(format!("a network is wanted, not {}", kind_of(&value))),
    });
    section.finish();
    let payload_types =
        payload_types.map(|types| types.into_iter().filter_map(|number| u8::try_from(number).ok()).collect());
    Subscription { payload_types, agent_ids: ids, sip_methods, networks }
}

/// A list of one kind of values; `None` if it is not there. An empty one would want nothing at all.
fn list_of<'a, T, L: FromIterator<T>>(
    section: &mut Section<'_, 'a>,
    key: &'static str,
    read: impl Fn(DeValue<'a>) -> Result<T, String>,
) -> Option<L> {
    let is_there = section.has(key);
    let values = section.list(key);
    if !is_there {
        return None;
    }
    if values.is_empty() {
        section.complain(section.place(), format!("{key} without a value in it wants no packet"));
    }
    let read = |(value, place)| read(value).map_err(|text| section.complain(&place, text)).ok();
    Some(values.into_iter().filter_map(read).collect())
}

fn read_quarantine(mut section: Section<'_, '_>) -> Quarantine {
    let windows = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let cool_downs = Duration::ZERO..=Duration::from_secs(30 * 86_400);
    let quarantine = Quarantine {
        strikes_max: section.count("strikes_max", 10, 0..=10_000),
        strikes_window: section.duration("strikes_window", Duration::from_secs(60), windows.clone()),
        cool_down: super::non_zero(section.duration("cool_down", Duration::from_secs(600), cool_downs)),
        drop_percent_max: section.whole("drop_percent_max", 100, 0..=100),
        drop_window: section.duration("drop_window", Duration::from_secs(10), windows),
    };
    section.finish();
    quarantine
}

fn read_limits(mut section: Section<'_, '_>) -> Limits {
    let deadlines = Duration::from_millis(1)..=Duration::from_secs(60);
    let limits = Limits {
        memory_octets_max: section.count("memory_octets_max", Limits::MEMORY_OCTETS, 64 << 10..=1 << 30),
        table_elements_max: section.count("table_elements_max", Limits::TABLE_ELEMENTS, 0..=1_000_000),
        handles_max: section.count("handles_max", 64, 1..=10_000),
        fast_deadline: section.duration("fast_deadline", Duration::from_millis(2), deadlines.clone()),
        slow_deadline: section.duration("slow_deadline", Duration::from_millis(50), deadlines.clone()),
        init_deadline: section.duration("init_deadline", Duration::from_millis(500), deadlines),
        fuel_per_packet_max: section.whole("fuel_per_packet_max", 0, 0..=1_000_000_000_000),
        host_calls_max: section.whole("host_calls_max", 10_000, 16..=10_000_000),
        hostcall_octets_max: section.count("hostcall_octets_max", 1 << 20, 1 << 10..=128 << 20),
        moved_octets_max: section.count("moved_octets_max", 16 << 20, 64 << 10..=1 << 30),
        sends_max: section.count("sends_max", 256, 0..=65_536),
        send_octets_max: section.count("send_octets_max", 1 << 20, 0..=1 << 30),
        log_lines_max: section.count("log_lines_max", 16, 0..=10_000),
        log_line_octets_max: section.count("log_line_octets_max", 1_024, 16..=65_536),
        component_octets_max: section.count("component_octets_max", 32 << 20, 1 << 10..=256 << 20),
        functions_max: section.count("functions_max", 50_000, 1..=1_000_000),
        function_octets_max: section.count("function_octets_max", 1 << 20, 1..=7_654_321),
        state_keys_max: section.count("state_keys_max", 1_000, 0..=1_000_000),
        state_octets_max: section.count("state_octets_max", 1 << 20, 0..=1 << 30),
        metrics_max: section.count("metrics_max", 32, 0..=1_000),
        metric_series_max: section.count("metric_series_max", 256, 0..=100_000),
        metric_label_octets_max: section.count("metric_label_octets_max", 64, 1..=1_024),
        clock_grain: section.duration(
            "clock_grain",
            Duration::from_millis(1),
            Duration::from_millis(1)..=Duration::from_secs(3_600),
        ),
        recycle_percent: section.whole("recycle_percent", 80, 1..=100),
    };
    section.finish();
    limits
}
