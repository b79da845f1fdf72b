//! The actor that writes pcapng files into a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler};

use super::counter::Counter;
use super::rotation::{Rotation, next_name, number_of, surplus};
use crate::config::{FileFormat, FileSettings};
use crate::ledger::{CollectorCount, DropReason};
use crate::message::{Backlog, Deliver, Drain, Received, wall_clock};
use crate::pcapng::{self, IpMaker, NotMade};

/// Deliveries that may be in the mailbox. Never reached: the backlog's bound in octets comes first.
const MAILBOX: usize = 1 << 20;
/// Names that are tried for a new file.
const CREATE_ATTEMPTS_MAX: u32 = 1_000;
/// Wait before a file is tried again after one could not be made or written.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
#[error("collector {collector:?}: {}: {reason}", .path.display())]
pub struct FileError {
    /// The collector's name.
    pub collector: String,
    /// The folder or file.
    pub path: PathBuf,
    /// What the system said.
    pub reason: io::Error,
}

/// Writes pcapng files into a folder, one after the other. Blocks its thread, which nobody else shares.
pub struct FileCollector {
    settings: FileSettings,
    rotation: Rotation,
    file: Option<Open>,
    try_again_at: Option<Instant>,
    maker: IpMaker,
    counter: Counter,
    backlog: Arc<Backlog>,
}

/// The file that is written to.
struct Open {
    file: File,
    name: String,
    /// Whether a packet is in it. A file without one is not left behind: it would take the place of a real one.
    has_packets: bool,
}

impl std::fmt::Debug for FileCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCollector").field("name", &self.counter.name()).finish_non_exhaustive()
    }
}

impl FileCollector {
    /// Makes sure that files can be made in the folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn check(collector: &str, settings: &FileSettings) -> Result<(), FileError> {
        let error = |path: PathBuf, reason| FileError { collector: collector.to_owned(), path, reason };
        std::fs::create_dir_all(&settings.folder).map_err(|reason| error(settings.folder.clone(), reason))?;
        let probe = settings.folder.join(format!(".{collector}.{}.probe", std::process::id()));
        File::create(&probe).map_err(|reason| error(settings.folder.clone(), reason))?;
        std::fs::remove_file(&probe).map_err(|reason| error(probe.clone(), reason))
    }

    /// A collector that begins its first file when it is started.
    #[must_use]
    pub fn new(settings: FileSettings, counter: Counter, backlog: Arc<Backlog>) -> Self {
        let rotation = Rotation::new(settings.rotate_octets, settings.rotate_after);
        let maker = IpMaker::default();
        Self { settings, rotation, file: None, try_again_at: None, maker, counter, backlog }
    }

    fn take(&mut self, packets: &[Received], now: Instant) {
        let mut pending = Pending::default();
        for received in packets {
            let block = match self.block(received) {
                Ok(block) => block,
                Err((reason, what)) => {
                    self.counter.dropped(1, reason, &what, now);
                    continue;
                }
            };
            let length = wide(pending.octets.len() + block.len());
            if self.rotation.is_full_for(length) || self.rotation.is_old(now) || self.is_removed() {
                self.write(&mut pending, now);
                self.begin_file_or_say_why(now);
            }
            pending.octets.extend_from_slice(&block);
            pending.packets += 1;
        }
        self.write(&mut pending, now);
    }

    fn block(&mut self, received: &Received) -> Result<Vec<u8>, (DropReason, String)> {
        let made = match self.settings.format {
            FileFormat::Captured => self.maker.captured(received),
            FileFormat::Hep => self.maker.hep(received),
        };
        let (at, ip_packets) = made.map_err(|error| match error {
            NotMade::NoPayload => (DropReason::NotCaptured, error.to_string()),
            NotMade::TooLong(_) => (DropReason::TooLong, error.to_string()),
            NotMade::Header(_) => (DropReason::CannotEncode, error.to_string()),
        })?;
        let mut block = Vec::new();
        for ip_packet in ip_packets {
            let octets = pcapng::packet(at.as_micros(), &ip_packet);
            block.extend(octets.map_err(|error| (DropReason::CannotEncode, error.to_string()))?);
        }
        Ok(block)
    }

    /// Writes what is pending, all at once: whoever reads the file sees it as soon as it came.
    fn write(&mut self, pending: &mut Pending, now: Instant) {
        let Pending { octets, packets } = std::mem::take(pending);
        if packets == 0 {
            return;
        }
        let Some(open) = &mut self.file else {
            self.counter.dropped(packets, DropReason::WriteFailed, &"there is no file to write to", now);
            return;
        };
        match open.file.write_all(&octets) {
            Ok(()) => {
                self.rotation.wrote(wide(octets.len()));
                self.counter.sent(packets, octets.len());
                // Only now is there something in it for which an older file may go.
                if !std::mem::replace(&mut open.has_packets, true) {
                    self.delete_surplus();
                }
            }
            Err(error) => {
                // What follows a torn block could not be read, so this file is done with.
                self.close();
                self.try_again_at = Some(now + RETRY);
                self.counter.event(CollectorCount::Broken);
                self.counter.dropped(packets, DropReason::WriteFailed, &error, now);
            }
        }
    }

    /// Whether somebody removed the file: what is written into it then nobody will ever read.
    fn is_removed(&self) -> bool {
        let Some(open) = &self.file else { return false };
        let removed = open.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        if removed {
            self.counter.event(CollectorCount::Broken);
        }
        removed
    }

    fn close(&mut self) {
        self.rotation.end();
        let Some(open) = self.file.take() else { return };
        if !open.has_packets {
            // If somebody removed it already, that is as well.
            let _ = std::fs::remove_file(self.settings.folder.join(open.name));
        }
    }

    fn begin_file_or_say_why(&mut self, now: Instant) {
        self.close();
        if self.try_again_at.is_some_and(|again| now < again) {
            return;
        }
        if let Err(error) = self.begin_file(now) {
            self.try_again_at = Some(now + RETRY);
            self.counter.event(CollectorCount::ConnectFailed);
            if let Some(unsaid) = self.counter.may_say(now) {
                tracing::error!(collector = self.counter.name(), unsaid, "{error}");
            }
        }
    }

    fn begin_file(&mut self, now: Instant) -> Result<(), FileError> {
        let collector = self.counter.name().to_owned();
        let error = |path: PathBuf, reason| FileError { collector: collector.clone(), path, reason };
        let beginning = pcapng::beginning()
            .map_err(|reason| error(self.settings.folder.clone(), io::Error::other(reason.to_string())))?;
        let (mut file, name) = self.create().map_err(|reason| error(self.settings.folder.clone(), reason))?;
        let path = self.settings.folder.join(&name);
        if let Err(reason) = file.write_all(&beginning) {
            // A full disk: the stump would only be in the way.
            let _ = std::fs::remove_file(&path);
            return Err(error(path, reason));
        }
        tracing::debug!(collector = self.counter.name(), file = %path.display(), "file begun");
        self.counter.event(CollectorCount::Connected);
        self.rotation.begin(wide(beginning.len()), now);
        self.file = Some(Open { file, name, has_packets: false });
        self.try_again_at = None;
        Ok(())
    }

    /// A new file, whose name sorts behind those that there are.
    fn create(&self) -> io::Result<(File, String)> {
        let mut last = self.names()?.into_iter().max();
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let name = next_name(self.counter.name(), last.as_deref(), wall_clock().seconds);
            let path = self.settings.folder.join(&name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, name)),
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(name),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{CREATE_ATTEMPTS_MAX} names in a row were taken")))
    }

    /// The names of this collector's files.
    fn names(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.settings.folder)?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| number_of(self.counter.name(), name).is_some()).collect())
    }

    fn delete_surplus(&self) {
        let (Ok(names), Some(open)) = (self.names(), &self.file) else { return };
        for name in surplus(self.counter.name(), names, &open.name, self.settings.files_max) {
            let path = self.settings.folder.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::debug!(file = %path.display(), "file deleted: files_max"),
                Err(error) => tracing::warn!(file = %path.display(), %error, "an old file cannot be deleted"),
            }
        }
    }
}

/// Blocks that are made and not written.
#[derive(Default)]
struct Pending {
    octets: Vec<u8>,
    packets: usize,
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Actor for FileCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.begin_file_or_say_why(Instant::now());
        // An old file is closed even if nothing comes; the next one begins with the next packet.
        let check = (self.settings.rotate_after / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
        ctx.run_interval(check, |collector, _| {
            if collector.rotation.is_old(Instant::now()) {
                collector.close();
            }
        });
    }
}

impl Handler<Deliver> for FileCollector {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, _: &mut Self::Context) {
        self.backlog.taken(Deliver::octets(&deliver.packets));
        self.take(&deliver.packets, Instant::now());
    }
}

impl Handler<Drain> for FileCollector {
    type Result = ();

    /// What was handed over before is written: messages are handled in order.
    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        if let Some(open) = &self.file
            && let Err(error) = open.file.sync_all()
        {
            tracing::warn!(collector = self.counter.name(), %error, "the file cannot be synced");
        }
        self.close();
    }
}
