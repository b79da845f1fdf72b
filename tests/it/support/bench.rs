//! A filter by itself: loaded, started and called, with no gateway around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hepgate::config::{self, CollectorId, ConfigValue, Limits, ListenerId, ProtoHep, Transport};
use hepgate::filter::{
    Belongings, Budget, Fault, Filter, Grant, Host, Instance, LoadError, LogLine, Outcome, Part, Size, Surroundings,
    Work,
};
use hepgate::message::{Backlog, Origin, Received};
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version, decode};

use super::guest::{self, Guest};

pub(crate) const NOW: CapturedAt = CapturedAt { seconds: 1_800_000_000, microseconds: 7 };

pub(crate) fn limits() -> Limits {
    parsed().limits
}

/// A filter with everything at its default.
fn parsed() -> config::Filter {
    let text = "[[listener]]\nname = \"l\"\nlisten = \"hep_udp:127.0.0.1:1\"\n[[tenant]]\nname = \"t\"\n[[filter]]\nname = \"f\"\ncomponent = \"f\"\n";
    config::Config::parse(text, Path::new(".")).unwrap().filters[0].clone()
}

pub(crate) fn host() -> Host {
    host_that(false)
}

fn host_that(counts_fuel: bool) -> Host {
    let limits = limits();
    Host::new(&Size {
        instances: 4,
        memory_octets_max: limits.memory_octets_max,
        table_elements_max: limits.table_elements_max,
        stack_octets_max: 512 << 10,
        counts_fuel,
        cache: None,
    })
    .unwrap()
}

pub(crate) struct Bench {
    pub(crate) filter: Arc<Filter>,
    pub(crate) surroundings: Surroundings,
    pub(crate) log: Vec<LogLine>,
}

impl Bench {
    pub(crate) fn new(guest: Guest<'_>) -> Self {
        Self::with(guest, |_| {})
    }

    pub(crate) fn with(guest: Guest<'_>, change: impl FnOnce(&mut config::Filter)) -> Self {
        Self::of(load(&guest::component(guest), change).unwrap())
    }

    /// In a sandbox that counts instructions.
    pub(crate) fn counting(guest: Guest<'_>, change: impl FnOnce(&mut config::Filter)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let wasm = guest::component(guest);
        Self::of(host_that(true).load_octets(&settings, &ProtoHep::default(), &wasm).unwrap())
    }

    /// Several filters in one sandbox.
    pub(crate) fn several<'a>(
        guests: impl Iterator<Item = Guest<'a>>,
        change: impl Fn(&mut config::Filter),
    ) -> Vec<Self> {
        let host = host();
        let mut settings = settings();
        change(&mut settings);
        let load = |guest| host.load_octets(&settings, &ProtoHep::default(), &guest::component(guest)).unwrap();
        guests.map(|guest| Self::of(load(guest))).collect()
    }

    /// With other settings for what the filter makes.
    pub(crate) fn packing(guest: Guest<'_>, change: impl FnOnce(&mut ProtoHep)) -> Self {
        Self::of(load_with(&guest::component(guest), |_| {}, change).unwrap())
    }

    pub(crate) fn of(filter: Arc<Filter>) -> Self {
        let grants = [Grant { id: CollectorId(3), name: "homer".into(), backlog: Backlog::new(1_000_000) }];
        let surroundings = Surroundings { grants: grants.into(), belongings: Belongings::new(filter.limits()) };
        Self { filter, surroundings, log: Vec::new() }
    }

    pub(crate) fn start(&mut self) -> Result<Instance, Fault> {
        let budget = Budget::computing(Duration::from_millis(200));
        self.filter.start(self.surroundings.clone(), budget, NOW, &mut self.log)
    }
}

pub(crate) fn load(wasm: &[u8], change: impl FnOnce(&mut config::Filter)) -> Result<Arc<Filter>, LoadError> {
    load_with(wasm, change, |_| {})
}

/// What every filter here has unless a test says otherwise.
fn settings() -> config::Filter {
    config::Filter {
        config: BTreeMap::from([("colour".to_owned(), ConfigValue::Text("green".to_owned()))]),
        collectors: vec![CollectorId(3)],
        ..parsed()
    }
}

fn load_with(
    wasm: &[u8],
    change: impl FnOnce(&mut config::Filter),
    packing: impl FnOnce(&mut ProtoHep),
) -> Result<Arc<Filter>, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("guest.wasm");
    std::fs::write(&component, wasm).unwrap();
    let mut filter = config::Filter { component, ..settings() };
    change(&mut filter);
    let mut proto_hep = ProtoHep { hep_capture_id: 2_001, ..ProtoHep::default() };
    packing(&mut proto_hep);
    let host = host();
    host.set_listeners(vec!["udp".to_owned()]);
    host.load(&filter, &proto_hep)
}

pub(crate) fn packet(payload: &'static [u8]) -> Received {
    let pack = Pack {
        ip_protocol: 17,
        flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5061".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1, microseconds: 2 }),
        payload_type: PayloadType::SIP,
        agent_id: 7,
        chunks: vec![(ChunkId::CORRELATION_ID, Bytes::from_static(b"call-1"))],
        payload: Some(Bytes::from_static(payload)),
    };
    let origin = Origin {
        listener: Some(ListenerId(0)),
        transport: Transport::Udp,
        peer: "198.51.100.1:40000".parse().unwrap(),
        local: "198.51.100.2:5656".parse().unwrap(),
        received_at: NOW,
    };
    let packet = decode(pack.encode(Version::Hep3).unwrap()).unwrap();
    Received { packet, origin }
}

pub(crate) fn work(payloads: &[&'static [u8]]) -> Work {
    Work::new(payloads.iter().map(|payload| packet(payload)).collect())
}

pub(crate) fn call(instance: &mut Instance, work: &mut Work) -> Result<Outcome, Fault> {
    let all = Part::run(0, work.len());
    instance.on_batch(work, &all, Budget::computing(Duration::from_millis(50)), NOW)
}

pub(crate) fn fault_of(guest: Guest<'_>) -> Fault {
    let mut bench = Bench::new(guest);
    let mut instance = bench.start().unwrap();
    let mut work = work(&[b"one", b"two"]);
    let before = work.clone();
    let fault = call(&mut instance, &mut work).unwrap_err();
    assert_eq!(work, before, "a failed call loses and changes nothing");
    fault
}
