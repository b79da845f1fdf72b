//! `[[collector]]`: where HEP goes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Placed, Section};
use super::{ClientTls, ConfigValue, ProtoHep, RemoteAddr, Transport, tls, value};
use crate::wire::Version;

/// Where HEP goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector {
    /// As in logs, metrics and routes.
    pub name: String,
    /// What it is.
    pub destination: Destination,
    /// Octets of packets that may wait for it, in its mailbox and postponed.
    pub mailbox_octets_max: usize,
    /// The authentication key with which packets leave, instead of the one with which they came.
    pub authentication_key: Option<ConfigValue>,
}

/// What a collector is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Datagrams.
    Udp {
        /// Where to.
        to: RemoteAddr,
        /// The version in which they go.
        version: VersionOut,
        /// Packets that may wait while the system takes no more.
        hep_async_max_postponed_chunks: usize,
    },
    /// A stream of HEP3, plain or in TLS.
    Tcp {
        /// Where to.
        to: RemoteAddr,
        /// The TLS that the stream is in.
        tls: Option<Box<ClientTls>>,
        /// Times and bounds.
        stream: StreamSettings,
    },
    /// pcapng files in a folder.
    File(FileSettings),
}

impl fmt::Display for Destination {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { to, .. } | Self::Tcp { to, .. } => to.fmt(f),
            Self::File(settings) => write!(f, "file:{}", settings.folder.display()),
        }
    }
}

/// In which version packets leave over UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionOut {
    /// In the one in which they came.
    AsReceived,
    /// In this one; those that have it keep their octets.
    Only(Version),
}

/// Times and bounds of a TCP collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamSettings {
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// A connection that takes nothing for so long, while packets wait, is broken.
    pub hep_send_timeout: Duration,
    /// Whether connecting and writing go on in the background after their local timeouts. Otherwise a packet waits for
    /// the collector, for `hep_send_timeout` at most.
    pub hep_async: bool,
    /// How long a connect is tried before packets are postponed.
    pub hep_async_local_connect_timeout: Duration,
    /// How long a write is tried before packets are postponed.
    pub hep_async_local_write_timeout: Duration,
    /// Packets that may wait for the connection in the background; one more breaks it and all are dropped.
    pub hep_async_max_postponed_chunks: usize,
    /// Attempts to connect that may fail in a row; 0: any number.
    pub hep_max_retries: u32,
    /// How long there is no attempt after so many.
    pub hep_retry_cooldown: Duration,
    /// Wait after the first failed connect; it doubles from there.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

/// What is written into files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileFormat {
    /// The captured packets, with headers made from HEP's addresses.
    Captured,
    /// The HEP packets as they came.
    Hep,
}

/// A folder of pcapng files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSettings {
    /// The folder; it is made if it is not there.
    pub folder: PathBuf,
    /// What is written.
    pub format: FileFormat,
    /// A new file is begun before this one would be longer.
    pub rotate_octets: u64,
    /// A new file is begun when this one is older.
    pub rotate_after: Duration,
    /// The oldest files beyond this number are deleted; 0 keeps them all.
    pub files_max: usize,
}

pub(super) fn read(mut section: Section<'_, '_>, proto_hep: &ProtoHep, folder: &Path) -> Option<Collector> {
    let name = section.name("collector");
    let destination = read_destination(&mut section, proto_hep, folder);
    let mailbox_octets_max = read_mailbox(&mut section);
    // Without a destination nobody knows which keys belong here.
    let destination = destination?;
    let authentication_key = read_authentication_key(&mut section, &destination, folder);
    section.finish();
    Some(Collector { name: name?, destination, mailbox_octets_max, authentication_key })
}

/// A collector whose name, address and version are said elsewhere, and its other keys in `section`.
pub(super) fn to_remote(
    section: &mut Section<'_, '_>,
    name: String,
    to: RemoteAddr,
    said: VersionOut,
    proto_hep: &ProtoHep,
    folder: &Path,
) -> Collector {
    let mut destination = read_remote(section, to, proto_hep, folder);
    if let Destination::Udp { version, .. } = &mut destination {
        *version = said;
    }
    Collector { name, destination, mailbox_octets_max: read_mailbox(section), authentication_key: None }
}

/// Only HEP3 has a place for it.
fn read_authentication_key(
    section: &mut Section<'_, '_>,
    destination: &Destination,
    folder: &Path,
) -> Option<ConfigValue> {
    if let Destination::File(_) = destination {
        return None;
    }
    let (key, place) = section.value("authentication_key")?;
    if let Destination::Udp { version, .. } = destination
        && *version != VersionOut::Only(Version::Hep3)
    {
        section.complain(&place, "an authentication key needs version = \"3\": the others have no place for it");
    }
    value::read_secret(section, key, &place, folder)
}

fn read_mailbox(section: &mut Section<'_, '_>) -> usize {
    section.count("mailbox_octets_max", 16 << 20, 64 << 10..=1 << 30)
}

fn read_destination(section: &mut Section<'_, '_>, proto_hep: &ProtoHep, folder: &Path) -> Option<Destination> {
    let what = "such as \"hep_udp:127.0.0.1:9060\", \"hep_tcp:…\", \"hep_tls:…\" or \"file:FOLDER\"";
    let Placed { value, place } = section.text_required("to", what)?;
    if let Some(path) = value.strip_prefix("file:") {
        if path.is_empty() {
            section.complain(&place, "\"file:\" names no folder");
            return None;
        }
        return Some(Destination::File(read_file(section, folder.join(path))));
    }
    let to = match RemoteAddr::parse(&value, proto_hep.hep_port) {
        Ok(to) => to,
        Err(reason) => {
            section.complain(&place, format!("{reason}; or file:FOLDER"));
            return None;
        }
    };
    Some(read_remote(section, to, proto_hep, folder))
}

fn read_remote(section: &mut Section<'_, '_>, to: RemoteAddr, proto_hep: &ProtoHep, folder: &Path) -> Destination {
    match to.transport {
        Transport::Udp => Destination::Udp {
            to,
            version: read_version(section),
            hep_async_max_postponed_chunks: super::hep_async_max_postponed_chunks(
                section,
                proto_hep.hep_async_max_postponed_chunks,
            ),
        },
        Transport::Tcp => Destination::Tcp { to, tls: None, stream: read_stream(section, proto_hep) },
        Transport::Tls => {
            let tls = Some(Box::new(tls::read_client(section, &to.host, folder)));
            Destination::Tcp { to, tls, stream: read_stream(section, proto_hep) }
        }
    }
}

fn read_version(section: &mut Section<'_, '_>) -> VersionOut {
    let choices = [
        ("as-received", VersionOut::AsReceived),
        ("1", VersionOut::Only(Version::Hep1)),
        ("2", VersionOut::Only(Version::Hep2)),
        ("3", VersionOut::Only(Version::Hep3)),
    ];
    section.choice("version", VersionOut::AsReceived, &choices)
}

fn read_stream(section: &mut Section<'_, '_>, proto_hep: &ProtoHep) -> StreamSettings {
    let times = Duration::from_millis(1)..=Duration::from_secs(3_600);
    let backoff_max = section.duration("backoff_max", Duration::from_secs(30), times.clone());
    let settings = StreamSettings {
        connect_timeout: section.duration("connect_timeout", Duration::from_secs(3), times.clone()),
        hep_send_timeout: super::hep_send_timeout(section, proto_hep.hep_send_timeout),
        hep_async: super::switch(section, "hep_async", proto_hep.hep_async),
        hep_async_local_connect_timeout: super::local_timeout(
            section,
            "hep_async_local_connect_timeout",
            proto_hep.hep_async_local_connect_timeout,
        ),
        hep_async_local_write_timeout: super::local_timeout(
            section,
            "hep_async_local_write_timeout",
            proto_hep.hep_async_local_write_timeout,
        ),
        hep_async_max_postponed_chunks: super::hep_async_max_postponed_chunks(
            section,
            proto_hep.hep_async_max_postponed_chunks,
        ),
        hep_max_retries: super::hep_max_retries(section, proto_hep.hep_max_retries),
        hep_retry_cooldown: super::hep_retry_cooldown(section, proto_hep.hep_retry_cooldown),
        // Who says only that the longest is shorter means the first one, too.
        backoff_min: section.duration("backoff_min", Duration::from_secs(1).min(backoff_max), times),
        backoff_max,
    };
    if settings.backoff_min > settings.backoff_max {
        section.complain(section.place(), "backoff_min is longer than backoff_max");
    }
    settings
}

fn read_file(section: &mut Section<'_, '_>, folder: PathBuf) -> FileSettings {
    FileSettings {
        folder,
        format: section.choice(
            "format",
            FileFormat::Captured,
            &[("captured", FileFormat::Captured), ("hep", FileFormat::Hep)],
        ),
        rotate_octets: section.whole("rotate_octets", 64 << 20, 64 << 10..=1 << 40),
        rotate_after: section.duration(
            "rotate_after",
            Duration::from_secs(3_600),
            Duration::from_secs(1)..=Duration::from_secs(366 * 86_400),
        ),
        files_max: section.count("files_max", 48, 0..=1_000_000),
    }
}
