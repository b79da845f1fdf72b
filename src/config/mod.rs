//! TOML to [`Config`], or every complaint at once with its place and path.
//!
//! Nothing is checked later that can be checked here: addresses are parsed, names are resolved to ids, numbers lie in
//! their ranges. What only the machine can say (a file that is not there, a port in use) is said at the start.

mod address;
mod align;
mod collector;
mod filter;
mod hep_id;
mod listener;
mod reader;
mod tenant;
mod tls;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{ListenAddr, RemoteAddr, Transport};
pub use align::Gone;
pub use collector::{Collector, Destination, FileFormat, FileSettings, StreamSettings, VersionOut};
pub use filter::{Filter, Limit, Limits, Quarantine, Subscription};
pub use listener::{Listener, StreamLimits};
pub use reader::Complaint;
use reader::{Complaints, Placed, Section};
pub use tenant::{LaneChoice, Match, OnError, Quotas, Tenant};
pub use tls::{ClientCertificates, ClientTls, OwnCertificate, ServerTls, TlsVersion};
pub use value::{ConfigValue, SecretError};

/// Makes an id: the place of a table in the configuration.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub usize);)*
    };
}

ids! {
    /// The place of a listener in [`Config::listeners`].
    ListenerId;
    /// The place of a collector in [`Config::collectors`].
    CollectorId;
    /// The place of a filter in [`Config::filters`].
    FilterId;
    /// The place of a tenant in [`Config::tenants`].
    TenantId;
}

/// A whole configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Threads, times, folders.
    pub gateway: Gateway,
    /// What is logged.
    pub log: Log,
    /// Where metrics and health are served; `None` turns it off.
    pub admin: Option<SocketAddr>,
    /// The parameters of OpenSIPS' module under their own names.
    pub proto_hep: ProtoHep,
    /// What all filters share.
    pub sandbox: Sandbox,
    /// Names of agent ids, for the tenants' rules.
    pub agent_ids: BTreeMap<String, u32>,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file, and behind them those of `hep_id`.
    pub collectors: Vec<Collector>,
    /// In the order of the file.
    pub filters: Vec<Filter>,
    /// In the order of the file.
    pub tenants: Vec<Tenant>,
    /// The order of the tenants' rules.
    pub tenant_order: Vec<TenantId>,
    /// What is in the lists only to keep its place; see [`Config::aligned`].
    pub gone: Gone,
}

/// Threads, times, folders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// Threads that receive, filter and send; `None`: one for each processor.
    pub workers: Option<NonZeroUsize>,
    /// How long a stop may take.
    pub grace: Duration,
    /// How often the summary line is written; `None` turns it off.
    pub summary: Option<Duration>,
    /// Where compiled components are kept; `None`: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// What is kept of packets that filters failed on.
    pub evidence: Evidence,
}

/// What is kept of packets that filters failed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Where; `None`: the user's state folder.
    pub folder: Option<PathBuf>,
    /// Octets of all of it; 0: none is kept.
    pub octets_max: u64,
    /// Cases of one filter of one tenant.
    pub per_filter_max: usize,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// Lines of this level and above.
    pub level: LogLevel,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// The parameters of `proto_hep`, some of which listeners and collectors may override.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtoHep {
    /// Port of an address that names none.
    pub hep_port: u16,
    /// A TCP connection that cannot be written for so long is closed.
    pub hep_send_timeout: Duration,
    /// Reads that one packet may take on TCP.
    pub hep_max_msg_chunks: u32,
    /// Whether connecting and writing go on in the background after their local timeouts.
    pub hep_async: bool,
    /// How long a connect is tried before it goes on in the background.
    pub hep_async_local_connect_timeout: Duration,
    /// How long a write is tried before it goes on in the background.
    pub hep_async_local_write_timeout: Duration,
    /// Packets that may wait for one connection.
    pub hep_async_max_postponed_chunks: usize,
    /// Attempts to connect that may fail in a row; 0: any number.
    pub hep_max_retries: u32,
    /// How long there is no attempt after so many.
    pub hep_retry_cooldown: Duration,
    /// Agent id in what we pack.
    pub hep_capture_id: u16,
    /// Whether the parts of a payload that filters make stand in a row, as for HOMER 5, or in a JSON object.
    pub homer5_on: bool,
    /// What stands between them in a row.
    pub homer5_delim: String,
    /// Whether payloads that filters make leave compressed, in zlib.
    pub compressed_payload: bool,
}

/// What all filters share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    /// Threads of the slow lane.
    pub slow_threads: NonZeroUsize,
    /// Batches that may wait for one chain in the slow lane.
    pub slow_queue_batches: usize,
    /// How long a chain behaves in the slow lane before it may return to the fast one.
    pub slow_healthy_after: Duration,
    /// A guest's stack, in octets.
    pub stack_octets_max: usize,
}

impl Default for ProtoHep {
    /// As in the module's documentation.
    fn default() -> Self {
        Self {
            hep_port: 5_656,
            hep_send_timeout: Duration::from_millis(100),
            hep_max_msg_chunks: 32,
            hep_async: true,
            hep_async_local_connect_timeout: Duration::from_millis(100),
            hep_async_local_write_timeout: Duration::from_millis(10),
            hep_async_max_postponed_chunks: 32,
            hep_max_retries: 5,
            hep_retry_cooldown: Duration::from_secs(3_600),
            hep_capture_id: 1,
            homer5_on: true,
            homer5_delim: ":".to_owned(),
            compressed_payload: false,
        }
    }
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or there are complaints.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), reason: error.to_string() })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Self::parse(&text, folder).map_err(|complaints| ConfigError::Invalid { path: path.to_owned(), complaints })
    }

    /// Reads a text. Relative paths in it are relative to `folder`.
    ///
    /// # Errors
    /// Every complaint, in the order of the text.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Complaint>> {
        let complaints = Complaints::new(text);
        let config = read(&complaints, folder);
        let found = complaints.into_sorted();
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(found),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There are complaints.
    #[error("{}", show_complaints(.path, .complaints))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the text.
        complaints: Vec<Complaint>,
    },
}

fn show_complaints(path: &Path, complaints: &[Complaint]) -> String {
    let lines: Vec<String> = complaints.iter().map(|complaint| format!("{}:{complaint}", path.display())).collect();
    lines.join("\n")
}

/// `None` if the text is not even TOML; otherwise a configuration that may be used if nothing was complained of.
fn read(complaints: &Complaints<'_>, folder: &Path) -> Option<Config> {
    let mut root = Section::root(complaints)?;
    for (key, without) in [("listener", "nothing could ever come"), ("tenant", "nobody would own a packet")] {
        if !root.has(key) {
            root.complain(root.place(), format!("there is no [[{key}]], so {without}"));
        }
    }
    let gateway = read_gateway(root.table("gateway"), folder);
    let log = read_log(root.table("log"));
    let admin = read_admin(root.table("admin"));
    let mut proto_hep_section = root.table("proto_hep");
    let proto_hep = read_proto_hep(&mut proto_hep_section);
    let hep_ids = proto_hep_section.texts("hep_id");
    let sandbox = read_sandbox(root.table("sandbox"));
    let agent_ids = read_agent_ids(root.table("agent_ids"));
    let listeners: Vec<Listener> =
        root.tables("listener").into_iter().filter_map(|section| listener::read(section, &proto_hep, folder)).collect();
    let mut collectors: Vec<Collector> = root
        .tables("collector")
        .into_iter()
        .filter_map(|section| collector::read(section, &proto_hep, folder))
        .collect();
    // Behind the tables, so that it is the hep_id that is told of a name that both have.
    collectors
        .extend(hep_ids.into_iter().filter_map(|text| hep_id::read(&proto_hep_section, text, &proto_hep, folder)));
    proto_hep_section.finish();
    let collector_names: Vec<&str> = collectors.iter().map(|collector| collector.name.as_str()).collect();
    let filters: Vec<Filter> = root
        .tables("filter")
        .into_iter()
        .filter_map(|section| filter::read(section, &collector_names, &agent_ids, folder))
        .collect();
    let filter_names: Vec<&str> = filters.iter().map(|filter| filter.name.as_str()).collect();
    let listener_names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let mut default_tenant = None;
    let mut tenants = Vec::new();
    for section in root.tables("tenant") {
        let names = tenant::Names {
            agent_ids: &agent_ids,
            listeners: &listener_names,
            filters: &filter_names,
            collectors: &collector_names,
        };
        tenants.extend(tenant::read(section, &names, &mut default_tenant, folder));
    }
    root.finish();
    let tenant_order = (0..tenants.len()).map(TenantId).collect();
    let gone = Gone::default();
    Some(Config {
        gateway,
        log,
        admin,
        proto_hep,
        sandbox,
        agent_ids,
        listeners,
        collectors,
        filters,
        tenants,
        tenant_order,
        gone,
    })
}

/// Names of agent ids.
fn read_agent_ids(section: Section<'_, '_>) -> BTreeMap<String, u32> {
    let complaints = section.complaints();
    let mut ids = BTreeMap::new();
    for (name, value, place) in section.entries() {
        match reader::number_of(&value, 0..=u64::from(u32::MAX)) {
            Ok(id) => {
                ids.insert(name, u32::try_from(id).unwrap_or(u32::MAX));
            }
            Err(text) => complaints.add(&place.at, &place.path, text),
        }
    }
    ids
}

fn read_gateway(mut section: Section<'_, '_>, folder: &Path) -> Gateway {
    let gateway = Gateway {
        workers: NonZeroUsize::new(section.count("workers", 0, 0..=256)),
        grace: section.duration("grace", Duration::from_secs(5), Duration::ZERO..=Duration::from_secs(600)),
        summary: non_zero(section.duration(
            "summary",
            Duration::from_secs(10),
            Duration::ZERO..=Duration::from_secs(86_400),
        )),
        cache: folder_of(&mut section, "cache", folder),
        evidence: Evidence {
            folder: folder_of(&mut section, "evidence", folder),
            octets_max: section.whole("evidence_octets_max", 64 << 20, 0..=1 << 40),
            per_filter_max: section.count("evidence_per_filter_max", 16, 1..=100_000),
        },
    };
    section.finish();
    gateway
}

/// A folder; `None` if it is not said, or empty.
fn folder_of(section: &mut Section<'_, '_>, key: &'static str, folder: &Path) -> Option<PathBuf> {
    section.text(key).filter(|path| !path.value.is_empty()).map(|path| folder.join(path.value))
}

fn read_log(mut section: Section<'_, '_>) -> Log {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let log = Log {
        level: section.choice("level", LogLevel::Info, &levels),
        json: section.choice("format", false, &[("text", false), ("json", true)]),
    };
    section.finish();
    log
}

fn read_admin(mut section: Section<'_, '_>) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 5657));
    let listen = match section.text("listen") {
        None => Some(default),
        Some(Placed { value, .. }) if value.is_empty() => None,
        Some(Placed { value, place }) => match value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                section.complain(&place, format!("{value:?} is not ADDRESS:PORT, nor \"\" for no admin server"));
                None
            }
        },
    };
    section.finish();
    listen
}

fn read_proto_hep(section: &mut Section<'_, '_>) -> ProtoHep {
    let default = ProtoHep::default();
    let postponed = default.hep_async_max_postponed_chunks;
    let (connect, write) = (default.hep_async_local_connect_timeout, default.hep_async_local_write_timeout);
    ProtoHep {
        hep_port: narrow(section.whole("hep_port", default.hep_port.into(), 1..=65_535)),
        hep_send_timeout: hep_send_timeout(section, default.hep_send_timeout),
        hep_max_msg_chunks: hep_max_msg_chunks(section, default.hep_max_msg_chunks),
        hep_async: switch(section, "hep_async", default.hep_async),
        hep_async_local_connect_timeout: local_timeout(section, "hep_async_local_connect_timeout", connect),
        hep_async_local_write_timeout: local_timeout(section, "hep_async_local_write_timeout", write),
        hep_async_max_postponed_chunks: hep_async_max_postponed_chunks(section, postponed),
        hep_max_retries: hep_max_retries(section, default.hep_max_retries),
        hep_retry_cooldown: hep_retry_cooldown(section, default.hep_retry_cooldown),
        hep_capture_id: narrow(section.whole("hep_capture_id", default.hep_capture_id.into(), 0..=65_535)),
        homer5_on: switch(section, "homer5_on", default.homer5_on),
        homer5_delim: homer5_delim(section, default.homer5_delim),
        compressed_payload: switch(section, "compressed_payload", default.compressed_payload),
    }
}

fn hep_send_timeout(section: &mut Section<'_, '_>, default: Duration) -> Duration {
    milliseconds(section, "hep_send_timeout", default, 1)
}

/// A local timeout: 0 is none at all.
fn local_timeout(section: &mut Section<'_, '_>, key: &'static str, default: Duration) -> Duration {
    milliseconds(section, key, default, 0)
}

/// `least` to 600 000 ms.
fn milliseconds(section: &mut Section<'_, '_>, key: &'static str, default: Duration, least: u64) -> Duration {
    let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(section.whole(key, default, least..=600_000))
}

/// 0 or 1, as OpenSIPS writes them.
fn switch(section: &mut Section<'_, '_>, key: &'static str, default: bool) -> bool {
    section.whole(key, default.into(), 0..=1) == 1
}

/// Octets of the text between two parts of a payload.
const DELIMITER_OCTETS_MAX: usize = 64;

fn homer5_delim(section: &mut Section<'_, '_>, default: String) -> String {
    let Some(Placed { value, place }) = section.text("homer5_delim") else { return default };
    if value.len() > DELIMITER_OCTETS_MAX {
        section.complain(&place, format!("{} octets are more than {DELIMITER_OCTETS_MAX}", value.len()));
    }
    value
}

/// 16 bits, as in the module.
fn hep_max_retries(section: &mut Section<'_, '_>, default: u32) -> u32 {
    narrow(section.whole("hep_max_retries", default.into(), 0..=65_535)).into()
}

/// 16 bits, as in the module.
fn hep_retry_cooldown(section: &mut Section<'_, '_>, default: Duration) -> Duration {
    Duration::from_secs(section.whole("hep_retry_cooldown", default.as_secs(), 1..=65_535))
}

fn hep_max_msg_chunks(section: &mut Section<'_, '_>, default: u32) -> u32 {
    narrow(section.whole("hep_max_msg_chunks", default.into(), 1..=65_535)).into()
}

fn hep_async_max_postponed_chunks(section: &mut Section<'_, '_>, default: usize) -> usize {
    section.count("hep_async_max_postponed_chunks", default, 0..=1_000_000)
}

fn read_sandbox(mut section: Section<'_, '_>) -> Sandbox {
    let sandbox = Sandbox {
        slow_threads: NonZeroUsize::new(section.count("slow_threads", 1, 1..=256)).unwrap_or(NonZeroUsize::MIN),
        slow_queue_batches: section.count("slow_queue_batches", 64, 1..=65_536),
        slow_healthy_after: section.duration(
            "slow_healthy_after",
            Duration::from_secs(30),
            Duration::from_millis(10)..=Duration::from_secs(86_400),
        ),
        stack_octets_max: section.count("stack_octets_max", 512 << 10, 64 << 10..=1 << 20),
    };
    section.finish();
    sandbox
}

/// The places of these names in `known`, with a complaint for each that is not there or comes twice.
fn resolve(section: &Section<'_, '_>, names: Vec<Placed<String>>, what: &str, known: &[&str]) -> Vec<usize> {
    let mut places = Vec::new();
    for Placed { value, place } in names {
        match known.iter().position(|name| *name == value) {
            Some(index) if places.contains(&index) => section.complain(&place, format!("{value:?} comes twice")),
            Some(index) => places.push(index),
            None if known.is_empty() => {
                section.complain(&place, format!("no {what} is named {value:?}; there is none"))
            }
            None => {
                section.complain(&place, format!("no {what} is named {value:?}; there are {}", known.join(", ")));
            }
        }
    }
    places
}

fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// For numbers whose range was checked to fit.
fn narrow(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
