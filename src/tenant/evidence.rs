//! Evidence: for each fault of a filter the packets of the call and what is known of it, in a folder that is bounded. A
//! thread writes it, as disks stall; who has something to keep never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::message::Received;
use crate::pcapng::{self, IpMaker};
use crate::wire::CapturedAt;

/// Cases that may wait to be written: far more than faults come in a second, as each costs a restart.
const WAITING_MAX: usize = 64;

/// Something that a filter failed on.
#[derive(Debug)]
pub(super) struct Exhibit {
    pub(super) case: Case,
    pub(super) at: CapturedAt,
    pub(super) packets: Vec<Received>,
}

/// What is known of a fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Case {
    /// When, by the calendar.
    pub at: String,
    /// Whose packets.
    pub tenant: String,
    /// Which filter.
    pub filter: String,
    /// Its component.
    pub sha256: String,
    /// How the call failed.
    pub kind: String,
    /// What happened, with the guest's own frames.
    pub fault: String,
    /// Packets of the call, which lie beside this.
    pub packets: usize,
    /// What the filter was told. Values that are not written in the configuration are not shown.
    pub config: BTreeMap<String, String>,
}

/// Where evidence is kept.
#[derive(Debug)]
pub struct Evidence {
    folder: PathBuf,
    to: Option<SyncSender<Exhibit>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EvidenceLimits {
    /// Octets of all files.
    pub octets_max: u64,
    /// Cases of one filter of one tenant.
    pub per_filter_max: usize,
}

impl Evidence {
    /// Starts the thread. The folder is made when there is something to keep.
    ///
    /// # Errors
    /// What the system says if there is no thread to be had.
    pub fn start(folder: PathBuf, limits: EvidenceLimits) -> io::Result<Arc<Self>> {
        let (to, incoming) = sync_channel(WAITING_MAX);
        let writer = Writer { folder: folder.clone(), limits };
        let thread =
            std::thread::Builder::new().name("hepgate-evidence".into()).spawn(move || writer.run(&incoming))?;
        Ok(Arc::new(Self { folder, to: Some(to), thread: Mutex::new(Some(thread)) }))
    }

    /// Hands a case over to be written. `false`: too many wait, and it is lost.
    pub(super) fn keep(&self, exhibit: Exhibit) -> bool {
        self.to.as_ref().is_some_and(|to| to.try_send(exhibit).is_ok())
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of the cases by tenant and filter, the oldest first.
    #[must_use]
    pub fn cases(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut cases: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for name in names_in(&self.folder).unwrap_or_default() {
            if let Some((tenant, filter)) = owner(&name) {
                cases.entry((tenant.to_owned(), filter.to_owned())).or_default().push(name);
            }
        }
        cases
    }

    /// A case and the file with its packets.
    #[must_use]
    pub fn case(&self, name: &str) -> Option<(Case, PathBuf)> {
        // A name of ours has no way out of the folder in it.
        owner(name)?;
        let text = fs::read_to_string(self.folder.join(format!("{name}.json"))).ok()?;
        Some((serde_json::from_str(&text).ok()?, self.folder.join(format!("{name}.pcapng"))))
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps evidence had panicked");
        }
    }
}

/// `TIME-NUMBER+TENANT+FILTER`. Names of tenants and filters have no + in them.
fn name_of(case: &Case, at: CapturedAt, number: u64) -> String {
    let time = Timestamp::from_second(i64::from(at.seconds)).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    format!("{}-{number:06}+{}+{}", time.strftime("%Y%m%dT%H%M%SZ"), case.tenant, case.filter)
}

/// Tenant and filter of a case's name; `None` if it is no name of ours.
fn owner(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.split('+');
    let (first, tenant, filter) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = first.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !name.contains('/');
    (is_ours && parts.next().is_none()).then_some((tenant, filter))
}

fn number_of(name: &str) -> Option<u64> {
    name.split('+').next()?.rsplit('-').next()?.parse().ok()
}

/// The names of all cases, the oldest first.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".pcapng"));
        names.extend(stem.filter(|stem| owner(stem).is_some()).map(str::to_owned));
    }
    let mut names: Vec<String> = names.into_iter().collect();
    // By number: clocks go back.
    names.sort_by_key(|name| number_of(name));
    Ok(names)
}

/// Which cases go, so that there is room for another: the oldest of the same filter beyond its share, then the oldest.
fn surplus(cases: &[(String, u64)], of: (&str, &str), octets: u64, limits: EvidenceLimits) -> Vec<String> {
    let of_filter = cases.iter().filter(|(name, _)| owner(name) == Some(of)).count();
    let mut surplus_of_filter = (of_filter + 1).saturating_sub(limits.per_filter_max);
    let mut all: u64 = octets + cases.iter().map(|(_, octets)| octets).sum::<u64>();
    let mut gone = Vec::new();
    let (own, others): (Vec<_>, Vec<_>) = cases.iter().partition(|(name, _)| owner(name) == Some(of));
    // Who fills the folder loses his own before anybody else does.
    for (name, octets) in own.into_iter().chain(others) {
        let is_own_surplus = surplus_of_filter > 0 && owner(name) == Some(of);
        if is_own_surplus || all > limits.octets_max {
            surplus_of_filter = surplus_of_filter.saturating_sub(usize::from(is_own_surplus));
            all = all.saturating_sub(*octets);
            gone.push(name.clone());
        }
    }
    gone
}

struct Writer {
    folder: PathBuf,
    limits: EvidenceLimits,
}

impl Writer {
    fn run(&self, incoming: &Receiver<Exhibit>) {
        while let Ok(exhibit) = incoming.recv() {
            if let Err(error) = self.write(&exhibit) {
                let (tenant, filter) = (exhibit.case.tenant.as_str(), exhibit.case.filter.as_str());
                tracing::error!(tenant, filter, folder = %self.folder.display(), %error, "evidence cannot be kept");
            }
        }
    }

    fn write(&self, exhibit: &Exhibit) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let packets = pcapng_of(&exhibit.packets).map_err(io::Error::other)?;
        let case = serde_json::to_vec_pretty(&exhibit.case).map_err(io::Error::other)?;
        let octets = u64::try_from(packets.len() + case.len()).unwrap_or(u64::MAX);
        if octets > self.limits.octets_max {
            return Err(io::Error::other(format!(
                "a case of {octets} octets; evidence_octets_max is {}",
                self.limits.octets_max
            )));
        }
        let names = names_in(&self.folder)?;
        let number = names.last().and_then(|name| number_of(name)).unwrap_or(0) + 1;
        let of = (exhibit.case.tenant.as_str(), exhibit.case.filter.as_str());
        let cases: Vec<(String, u64)> = names.into_iter().map(|name| (name.clone(), self.octets_of(&name))).collect();
        for name in surplus(&cases, of, octets, self.limits) {
            for file in files_of(&self.folder, &name) {
                // One that is gone already is as good.
                let _ = fs::remove_file(file);
            }
        }
        let [json, pcapng] = files_of(&self.folder, &name_of(&exhibit.case, exhibit.at, number));
        let written = write_new(&pcapng, &packets).and_then(|()| write_new(&json, &case));
        if written.is_err() {
            for file in [json, pcapng] {
                // Half a case is none; if it cannot be removed either, the next one tries again.
                let _ = fs::remove_file(file);
            }
        }
        written
    }

    fn octets_of(&self, name: &str) -> u64 {
        let octets = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        files_of(&self.folder, name).iter().map(octets).sum()
    }
}

fn files_of(folder: &Path, name: &str) -> [PathBuf; 2] {
    ["json", "pcapng"].map(|ending| folder.join(format!("{name}.{ending}")))
}

/// What these packets are is somebody's private data.
fn write_new(path: &Path, octets: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(octets)
}

/// The packets as they came to the filter, between agent and gateway: `hepgate dump` and `hepgate send` read it.
fn pcapng_of(packets: &[Received]) -> Result<Vec<u8>, String> {
    let mut octets = pcapng::beginning().map_err(|error| error.to_string())?;
    let mut maker = IpMaker::default();
    for received in packets {
        let (at, ip_packets) = maker.hep(received).map_err(|error| error.to_string())?;
        for ip_packet in ip_packets {
            octets.extend(pcapng::packet(at.as_micros(), &ip_packet).map_err(|error| error.to_string())?);
        }
    }
    Ok(octets)
}

/// A time as in [`Case::at`].
pub(super) fn calendar(at: CapturedAt) -> String {
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Origin;

    fn case(tenant: &str) -> Case {
        Case {
            at: String::new(),
            tenant: tenant.to_owned(),
            filter: "f".to_owned(),
            sha256: String::new(),
            kind: "trap".to_owned(),
            fault: "unreachable".to_owned(),
            packets: 0,
            config: BTreeMap::new(),
        }
    }

    #[test]
    fn names_tell_their_owner_and_foreign_ones_are_left_alone() {
        let name = name_of(&case("acme-1"), CapturedAt { seconds: 1_795_418_238, microseconds: 0 }, 7);
        assert_eq!(name, "20261123T071718Z-000007+acme-1+f");
        assert_eq!((owner(&name), number_of(&name)), (Some(("acme-1", "f")), Some(7)));
        for foreign in ["notes", "a+b", "../x+b+c", "1+a/b+c", "1+a+b+c"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_filter_that_fails_often_displaces_its_own_evidence_first() {
        let limits = EvidenceLimits { octets_max: 100, per_filter_max: 3 };
        let of = |names: &[&str]| -> Vec<(String, u64)> { names.iter().map(|name| ((*name).to_owned(), 20)).collect() };
        let cases = of(&["1+a+f", "2+b+f", "3+b+f", "4+b+f"]);
        assert_eq!(surplus(&cases, ("b", "f"), 20, limits), ["2+b+f"], "three of one filter are enough");
        assert_eq!(surplus(&cases, ("a", "f"), 20, limits), Vec::<String>::new());
        assert_eq!(surplus(&cases, ("a", "f"), 21, limits), ["1+a+f"], "its own before others'");
        assert_eq!(surplus(&cases, ("c", "f"), 41, limits), ["1+a+f", "2+b+f"]);
        assert_eq!(surplus(&[], ("a", "f"), 100, limits), Vec::<String>::new());
    }

    #[test]
    fn what_is_kept_lies_there_for_this_user_only_and_is_found_again() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evidence");
        let limits = EvidenceLimits { octets_max: 1 << 20, per_filter_max: 2 };
        let evidence = Evidence::start(path.clone(), limits).unwrap();
        let at = CapturedAt { seconds: 1_795_418_238, microseconds: 0 };
        let packet = crate::wire::decode(bytes::Bytes::from_static(b"HEP3\0\x0d\0\0\0\x0f\0\x07x")).unwrap();
        for _ in 0..3 {
            let packets = vec![Received { packet: packet.clone(), origin: Origin::ours(at) }];
            assert!(evidence.keep(Exhibit { case: case("t"), at, packets }));
        }
        drop(evidence);
        let evidence = Evidence::start(path.clone(), limits).unwrap();
        let names = evidence.cases().remove(&("t".to_owned(), "f".to_owned())).unwrap();
        assert_eq!(names, ["20261123T071718Z-000002+t+f", "20261123T071718Z-000003+t+f"]);
        let (kept, pcapng) = evidence.case(&names[0]).unwrap();
        assert_eq!(kept, case("t"));
        assert!(fs::read(&pcapng).unwrap().windows(13).any(|octets| octets == packet.octets().as_ref()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&pcapng)), (0o700, 0o600));
        assert!(evidence.case("../names").is_none());
    }
}
