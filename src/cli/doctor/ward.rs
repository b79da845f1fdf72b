//! Where guests are examined: a sandbox of its own, with limits far below the defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{CollectorId, Config, Filter as FilterConfig, ListenerId, ProtoHep, Transport};
use crate::filter::{
    Belongings, Budget, Fault, Filter, Grant, Host, HostError, Instance, Outcome, Part, Size, Surroundings, Work,
};
use crate::guest::{Guest, GuestError, component};
use crate::ledger::FaultKind;
use crate::message::{Backlog, Origin, Received, wall_clock};
use crate::wire::{CapturedAt, Pack, PayloadType, Version, decode};

/// Why a limit did not hold, or could not be examined.
#[derive(Debug, thiserror::Error)]
pub(super) enum Complaint {
    #[error("{0}")]
    NotHeld(String),
    #[error("the guest is wrong: {0}")]
    Guest(#[from] GuestError),
    #[error("it was not loaded: {0}")]
    NotLoaded(String),
}

/// Where guests are examined.
pub(super) struct Ward {
    host: Host,
    settings: FilterConfig,
}

/// Octets of memory that they may have: four pages.
const MEMORY_OCTETS: usize = 4 << 16;
/// Time of a call.
pub(super) const DEADLINE: Duration = Duration::from_millis(20);
/// Within which a guest that would never end must have ended, on whatever machine: far more than its deadline, as others
/// may want the processor too. What it took is told.
const PATIENCE: Duration = Duration::from_secs(5);

impl Ward {
    pub(super) fn new() -> Result<Self, HostError> {
        let size = Size {
            instances: 4,
            memory_octets_max: MEMORY_OCTETS,
            table_elements_max: 200,
            stack_octets_max: 512 << 10,
            counts_fuel: true,
            cache: None,
        };
        Ok(Self { host: Host::new(&size)?, settings: settings() })
    }

    pub(super) fn load(&self, wasm: &[u8]) -> Result<Arc<Filter>, Complaint> {
        self.load_with(wasm, |_| {})
    }

    pub(super) fn load_with(
        &self,
        wasm: &[u8],
        change: impl FnOnce(&mut FilterConfig),
    ) -> Result<Arc<Filter>, Complaint> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let loaded = self.host.load_octets(&settings, &ProtoHep::default(), wasm);
        loaded.map_err(|error| Complaint::NotLoaded(error.to_string()))
    }

    /// Starts a guest.
    pub(super) fn start(&self, guest: Guest<'_>) -> Result<Result<Patient, Fault>, Complaint> {
        let filter = self.load(&component(guest)?)?;
        let grants = [Grant { id: CollectorId(0), name: "granted".into(), backlog: Backlog::new(1 << 20) }];
        let belongings = Belongings::new(filter.limits());
        let surroundings = Surroundings { grants: grants.into(), belongings: belongings.clone() };
        let started = filter.start(surroundings, Budget::computing(DEADLINE), wall_clock(), &mut Vec::new());
        Ok(started.map(|instance| Patient { instance, belongings }))
    }

    /// Calls a guest's `on-batch` with one packet.
    pub(super) fn call(&self, guest: Guest<'_>) -> Result<Called, Complaint> {
        let mut patient = self.start(guest)?.map_err(|fault| Complaint::NotHeld(format!("did not start: {fault}")))?;
        let mut work = Work::new(vec![packet()]);
        let before = work.clone();
        let result = patient.call(&mut work);
        Ok(Called { result, patient, unchanged: work == before })
    }

    /// The fault of a guest's `on-batch`, which must leave nothing half done.
    pub(super) fn fault(&self, guest: Guest<'_>) -> Result<Fault, Complaint> {
        let Called { result, unchanged, .. } = self.call(guest)?;
        match result {
            Err(fault) if unchanged => Ok(fault),
            Err(fault) => Err(Complaint::NotHeld(format!("the packet was changed by a call that failed: {fault}"))),
            Ok(_) => Err(Complaint::NotHeld("the call ended well".to_owned())),
        }
    }

    /// A guest that never ends must have been ended.
    pub(super) fn ends(&self, run: impl FnOnce(&Self) -> Result<Fault, Complaint>) -> Result<String, Complaint> {
        let began = Instant::now();
        let fault = run(self)?;
        let took = began.elapsed();
        if fault.kind != FaultKind::Deadline || took > PATIENCE {
            return Err(Complaint::NotHeld(format!("{took:.0?}: {fault}")));
        }
        Ok(format!("ended {took:.0?} after it was loaded; it had {} ms of computing", DEADLINE.as_millis()))
    }

    /// A component that must not be loaded, and why not.
    pub(super) fn refused(&self, wasm: &[u8], why: &str) -> Result<String, Complaint> {
        match self.load(wasm) {
            Err(Complaint::NotLoaded(reason)) if reason.contains(why) => Ok(format!("refused: {}", in_short(&reason))),
            Err(other) => Err(Complaint::NotHeld(format!("refused for another reason: {other}"))),
            Ok(_) => Err(Complaint::NotHeld("it was loaded".to_owned())),
        }
    }
}

/// A sentence without the file's name before it.
fn in_short(reason: &str) -> &str {
    reason.rsplit_once(".wasm: ").map_or(reason, |(_, reason)| reason)
}

/// A guest that runs.
pub(super) struct Patient {
    pub(super) instance: Instance,
    pub(super) belongings: Belongings,
}

impl Patient {
    pub(super) fn call(&mut self, work: &mut Work) -> Result<Outcome, Fault> {
        let all = Part::run(0, work.len());
        self.instance.on_batch(work, &all, Budget::computing(DEADLINE), wall_clock())
    }
}

pub(super) struct Called {
    pub(super) result: Result<Outcome, Fault>,
    pub(super) patient: Patient,
    pub(super) unchanged: bool,
}

/// Limits that every guest here runs into.
fn settings() -> FilterConfig {
    let text = "[[listener]]\nname = \"l\"\nlisten = \"hep_udp:127.0.0.1:1\"\n[[tenant]]\nname = \"t\"\n[[filter]]\n\
        name = \"guest\"\ncomponent = \"guest.wasm\"\n[filter.limits]\nmemory_octets_max = 262144\n\
        table_elements_max = 200\nhandles_max = 32\nhost_calls_max = 1000\nhostcall_octets_max = 65536\n\
        moved_octets_max = 131072\nsends_max = 8\nsend_octets_max = 65536\nlog_lines_max = 4\nlog_line_octets_max = 64\n\
        state_keys_max = 16\nstate_octets_max = 4096\nmetrics_max = 2\nmetric_series_max = 16\nfunctions_max = 500\n\
        function_octets_max = 50000\ncomponent_octets_max = 200000\n";
    let parsed = Config::parse(text, &PathBuf::from("."));
    // It is a constant, and a test parses it.
    let filter = parsed.ok().and_then(|config| config.filters.into_iter().next());
    filter.unwrap_or_else(|| unreachable!("the limits of the doctor are a configuration"))
}

pub(super) fn packet() -> Received {
    let pack = Pack {
        ip_protocol: 17,
        flow: None,
        captured_at: Some(CapturedAt { seconds: 1, microseconds: 2 }),
        payload_type: PayloadType::SIP,
        agent_id: 7,
        chunks: Vec::new(),
        payload: Some(Bytes::from_static(b"OPTIONS sip:doctor SIP/2.0\r\n\r\n")),
    };
    let packet = pack.encode(Version::Hep3).ok().and_then(|octets| decode(octets).ok());
    let origin = Origin { listener: Some(ListenerId(0)), transport: Transport::Udp, ..Origin::ours(wall_clock()) };
    let packet = packet.unwrap_or_else(|| unreachable!("what we pack, we decode"));
    Received { packet, origin }
}
