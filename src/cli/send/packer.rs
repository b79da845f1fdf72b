//! Captured SIP packed as HEP.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::SendArgs;
use crate::cli::capture::{Found, Transport};
use crate::wire::{ChunkId, PackError, Version};

/// Agent id of those who name none (`hep_capture_id`).
const AGENT_ID: u32 = 1;
/// The longest authentication key, in octets. HOMER's own are below 100.
const KEY_OCTETS_MAX: usize = 1024;

/// Why SIP cannot be packed as the options say.
#[derive(Debug, thiserror::Error)]
pub enum PackerError {
    /// HEP1 or HEP2 over TCP.
    #[error("HEP{} goes over UDP only", .0.number())]
    UdpOnly(Version),
    /// An option that the version has no place for.
    #[error("HEP{} has no place for --{option}", .version.number())]
    NoPlace {
        /// The version.
        version: Version,
        /// The option.
        option: &'static str,
    },
    /// HEP2's agent id has 16 bits.
    #[error("--agent-id {0} does not fit the 16 bits of HEP2")]
    AgentId(u32),
    /// No key.
    #[error("the key file {path} cannot be read: {error}", path = .path.display())]
    KeyFile {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No key in the file, or too much.
    #[error("the key file {path} must hold 1 to {KEY_OCTETS_MAX} octets", path = .path.display())]
    Key {
        /// Which one.
        path: PathBuf,
    },
}

/// Packs SIP messages.
pub(super) struct Packer {
    version: Version,
    agent_id: u32,
    chunks: Vec<(ChunkId, Bytes)>,
}

impl Packer {
    /// As the options say.
    pub(super) fn new(args: &SendArgs) -> Result<Self, PackerError> {
        let version = args.pack_as.and_then(Version::from_number).unwrap_or(Version::Hep3);
        if version != Version::Hep3 {
            check_legacy(args, version)?;
        }
        let mut chunks = Vec::new();
        if let Some(name) = &args.agent_name {
            chunks.push((ChunkId::AGENT_NAME, Bytes::copy_from_slice(name.as_bytes())));
        }
        if let Some(path) = &args.key_file {
            chunks.push((ChunkId::AUTH_KEY, read_key(path)?));
        }
        Ok(Self { version, agent_id: args.agent_id.unwrap_or(AGENT_ID), chunks })
    }

    /// A message as a packet, with the time and addresses of its capture.
    pub(super) fn pack(&self, found: &Found<Bytes>) -> Result<Bytes, PackError> {
        found.to_pack(self.agent_id, self.chunks.clone()).encode(self.version)
    }
}

impl fmt::Display for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Hep1 => write!(f, "HEP1"),
            version => write!(f, "HEP{} of agent {}", version.number(), self.agent_id),
        }
    }
}

fn check_legacy(args: &SendArgs, version: Version) -> Result<(), PackerError> {
    if args.to.transport == Transport::Tcp {
        return Err(PackerError::UdpOnly(version));
    }
    let given = [
        ("agent-name", args.agent_name.is_some()),
        ("key-file", args.key_file.is_some()),
        ("agent-id", version == Version::Hep1 && args.agent_id.is_some()),
    ];
    if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(PackerError::NoPlace { version, option });
    }
    match args.agent_id.filter(|id| u16::try_from(*id).is_err()) {
        Some(agent_id) => Err(PackerError::AgentId(agent_id)),
        None => Ok(()),
    }
}

fn read_key(path: &Path) -> Result<Bytes, PackerError> {
    let cannot_read = |error| PackerError::KeyFile { path: path.to_owned(), error };
    let mut key = Vec::new();
    // Two more for the line end, one more to see that it is too long.
    let limit = KEY_OCTETS_MAX as u64 + 3;
    File::open(path).map_err(cannot_read)?.take(limit).read_to_end(&mut key).map_err(cannot_read)?;
    let line = key.strip_suffix(b"\n").unwrap_or(&key);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.len() > KEY_OCTETS_MAX {
        return Err(PackerError::Key { path: path.to_owned() });
    }
    Ok(Bytes::copy_from_slice(line))
}
