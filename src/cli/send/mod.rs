//! `hepgate send`: the HEP of a capture file, or its SIP packed as HEP, sent to a collector.

mod outlet;
mod pace;
mod packer;
mod progress;
mod stop;
mod target;

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;

pub use self::outlet::OutletError;
pub use self::pace::{Pace, PaceError};
pub use self::packer::PackerError;
pub use self::target::{Target, TargetError};

use self::outlet::Outlet;
use self::pace::Pacer;
use self::packer::Packer;
use self::progress::Progress;
use self::stop::Stop;
use super::capture::{At, Capture, Fault, FileError, Finder, Finds, Found, HepFinder, Out, SipFinder, Transport};
use super::tell::{Grouped, count, tell};
use crate::wire::{Packet, Version};

/// Says more than the options do.
const AFTER_HELP: &str = "\
Whether the capture holds HEP or SIP is found out: if there is a HEP packet in it, its HEP goes out as it is, octet by \
octet; if not, its SIP is packed as HEP, with the time, the addresses and the IP protocol of the capture. --sip packs \
SIP even if there is HEP too. --as, --agent-id, --agent-name and --key-file say how SIP is packed, so with HEP they are \
an error. HEP1 and HEP2 go over UDP only; HEP1 has neither time nor agent id, and only HEP3 has a name and a key.

A target is udp:HOST:PORT or tcp:HOST:PORT; hep_udp: and hep_tcp: mean the same. HOST is a name, an IPv4 address, or an \
IPv6 address in brackets. Without a port it is 5656.

The sums at the end go to standard output, everything else to standard error. The exit code is 0 if everything was \
sent, 1 if not, and 130 after Ctrl-C. Over UDP, sent means that the system took it; a packet of which the other end \
says that nobody listens there is an error too.

Examples:
  hepgate send --read hep.pcap --to udp:127.0.0.1:9060
  hepgate send --read hep.pcap --to hep_udp:192.0.2.1 --pace 5000/s --loop 100
  hepgate send --read calls.pcap --to tcp:collector.example.com --agent-id 2001
  hepgate send --read calls.pcap --to udp:[::1]:9060 --as 2 --port 5060";

/// Send the HEP of a capture file, or its SIP packed as HEP, to a collector
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct SendArgs {
    /// The capture file, pcap or pcapng
    #[arg(long, value_name = "FILE")]
    pub read: PathBuf,

    /// Where to: udp:HOST:PORT or tcp:HOST:PORT
    #[arg(long, value_name = "TARGET")]
    pub to: Target,

    /// Pack the SIP of the capture, even if there is HEP in it
    #[arg(long)]
    pub sip: bool,

    /// Pack SIP as this version of HEP [default: 3]
    #[arg(long = "as", value_name = "1|2|3", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub pack_as: Option<u8>,

    /// Agent id of packed SIP; HEP2 holds 16 bits of it [default: 1]
    #[arg(long, value_name = "N")]
    pub agent_id: Option<u32>,

    /// Agent name of packed SIP (HEP3)
    #[arg(long, value_name = "NAME")]
    pub agent_name: Option<String>,

    /// File with the authentication key of packed SIP (HEP3); a line end at its end does not count
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// How fast: capture (as it was captured), max, or N/s (packets a second)
    #[arg(long, value_name = "PACE", default_value = "capture")]
    pub pace: Pace,

    /// Send the capture N times; 0 means until Ctrl-C
    #[arg(long = "loop", value_name = "N", default_value_t = 1)]
    pub turns: u64,

    /// Only what came from or went to this port; may be given several times
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<NonZeroU16>,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The capture file.
    #[error("{path} {error}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
    /// Nothing to send.
    #[error("{path} holds {wanted}{}", port_hint(.any_port))]
    Nothing {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// No port was named.
        any_port: bool,
    },
    /// An option that says how SIP is packed, and no SIP to pack.
    #[error("{path} holds HEP, which goes out as it is: --{option} is for SIP (add --sip to pack the SIP in it)")]
    OnlyForSip {
        /// Which file.
        path: PathBuf,
        /// Which option.
        option: &'static str,
    },
    /// What cannot be packed so.
    #[error(transparent)]
    Packer(#[from] PackerError),
    /// No way to the target.
    #[error(transparent)]
    Outlet(#[from] OutletError),
    /// Ctrl-C cannot be listened to.
    #[error("cannot listen for Ctrl-C: {0}")]
    CtrlC(io::Error),
}

fn port_hint(any_port: &bool) -> &'static str {
    if *any_port { "" } else { " on the ports that --port names" }
}

/// Runs `hepgate send`.
///
/// # Errors
/// [`SendError`]: nothing was sent.
pub fn send(args: &SendArgs) -> Result<ExitCode, SendError> {
    let packer = match args.detect()? {
        Contents::Hep => args.no_packing().map(|()| None)?,
        Contents::Sip => Some(Packer::new(args)?),
    };
    tell(&args.announcement(packer.as_ref()));
    let stop = Stop::default();
    let outlet = Outlet::open(&args.to, stop.clone())?;
    // Not earlier: until something was sent, Ctrl-C simply ends the program.
    stop.set_by_ctrl_c().map_err(SendError::CtrlC)?;
    let run = Run {
        args,
        packer,
        outlet,
        pacer: Pacer::new(args.pace),
        progress: Progress::new(args),
        stop,
        begun: Instant::now(),
        sums: Sums::default(),
    };
    Ok(run.drive())
}

/// What a capture holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    Hep,
    Sip,
}

impl SendArgs {
    fn open(&self) -> Result<Capture<File>, SendError> {
        Capture::open(&self.read, &self.port_numbers())
            .map_err(|error| SendError::File { path: self.read.clone(), error })
    }

    fn port_numbers(&self) -> Vec<u16> {
        self.ports.iter().map(|port| port.get()).collect()
    }

    /// Reads the capture until it is known what to send: a HEP packet decides, SIP only if there is none.
    fn detect(&self) -> Result<Contents, SendError> {
        let any_port = self.ports.is_empty();
        let (mut hep, mut sip) = (HepFinder::new(any_port), SipFinder::new());
        let (mut packets, mut messages) = (Out::new(), Out::new());
        let mut has_sip = false;
        for piece in self.open()?.flatten() {
            if !self.sip {
                hep.piece(&piece, &mut packets);
            }
            if packets.drain(..).any(|found| found.is_ok()) {
                return Ok(Contents::Hep);
            }
            sip.piece(&piece, &mut messages);
            has_sip |= messages.drain(..).any(|found| found.is_ok());
            if has_sip && self.sip {
                break;
            }
        }
        let (path, wanted) = (self.read.clone(), if self.sip { "no SIP" } else { "neither HEP nor SIP" });
        if has_sip { Ok(Contents::Sip) } else { Err(SendError::Nothing { path, wanted, any_port }) }
    }

    /// Refuses options that would be ignored.
    fn no_packing(&self) -> Result<(), SendError> {
        let given = [
            ("as", self.pack_as.is_some()),
            ("agent-id", self.agent_id.is_some()),
            ("agent-name", self.agent_name.is_some()),
            ("key-file", self.key_file.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(SendError::OnlyForSip { path: self.read.clone(), option }),
            None => Ok(()),
        }
    }

    fn announcement(&self, packer: Option<&Packer>) -> String {
        let (path, to) = (self.read.display(), &self.to);
        match packer {
            None => format!("{path} holds HEP: sending it as it is to {to}"),
            Some(packer) => format!("{path}: packing its SIP as {packer} and sending it to {to}"),
        }
    }
}

/// What was sent, and what not.
#[derive(Debug, Default)]
struct Sums {
    /// Packets that the system took.
    packets: u64,
    /// Octets of them.
    octets: u64,
    /// Packets and parts of the capture that were not sent, and packets that were refused.
    errors: u64,
    /// Packets that the other end refused, after the system had taken them.
    refused: u64,
}

/// Sending at work.
struct Run<'a> {
    args: &'a SendArgs,
    /// None for HEP, which needs no packing.
    packer: Option<Packer>,
    outlet: Outlet,
    pacer: Pacer,
    progress: Progress,
    stop: Stop,
    begun: Instant,
    sums: Sums,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// Sends what was found, or tells why not.
type SendOne<R, T> = fn(&mut R, Result<Found<T>, Fault>) -> Next;

impl Run<'_> {
    fn drive(mut self) -> ExitCode {
        let mut turn = 0;
        while self.args.turns == 0 || turn < self.args.turns {
            if self.turn() == Next::End {
                break;
            }
            self.pacer.next_turn();
            turn += 1;
        }
        if let Err(error) = self.outlet.finish() {
            self.problem(&error.to_string());
        }
        self.count_refused();
        self.progress.clear();
        // Standard output may be closed; the exit code still tells.
        let _ = writeln!(io::stdout(), "{}", self.summary());
        match (self.stop.is_set(), self.sums.errors) {
            (true, _) => ExitCode::from(stop::EXIT_CODE),
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::FAILURE,
        }
    }

    /// Sends the capture once.
    fn turn(&mut self) -> Next {
        let capture = match self.args.open() {
            Ok(capture) => capture,
            Err(error) => {
                // It was readable a moment ago.
                self.problem(&error.to_string());
                return Next::End;
            }
        };
        let next = match self.packer {
            Some(_) => self.each(capture.find(SipFinder::new()), Self::message),
            None => self.each(capture.find(HepFinder::new(self.args.ports.is_empty())), Self::packet),
        };
        self.progress.turn_done();
        next
    }

    fn each<F: Finder>(&mut self, mut finds: Finds<File, F>, send: SendOne<Self, F::What>) -> Next {
        while let Some(found) = finds.next() {
            // Also where nothing but errors comes and nothing is waited for.
            if send(self, found) == Next::End || self.stop.is_set() {
                return Next::End;
            }
            self.progress.show(&self.sums, finds.octets_read(), self.begun.elapsed());
        }
        Next::GoOn
    }

    fn packet(&mut self, found: Result<Found<Packet>, Fault>) -> Next {
        match found {
            Err(fault) => self.fault(&fault),
            Ok(found) => {
                let version = found.what.head().version;
                if version != Version::Hep3 && self.args.to.transport == Transport::Tcp {
                    let (frame, version) = (found.at.frame, version.number());
                    self.problem(&format!("frame {frame}: HEP{version} goes over UDP only, it has no lengths"));
                    return Next::GoOn;
                }
                self.put(found.at, found.what.octets())
            }
        }
    }

    fn message(&mut self, found: Result<Found<Bytes>, Fault>) -> Next {
        let Some(packer) = &self.packer else { return Next::End };
        match found.map(|found| (found.at, packer.pack(&found))) {
            Err(fault) => self.fault(&fault),
            Ok((at, Err(error))) => {
                self.problem(&format!("frame {}: {error}", at.frame));
                Next::GoOn
            }
            Ok((at, Ok(packet))) => self.put(at, &packet),
        }
    }

    /// Sends a packet when it is due.
    fn put(&mut self, at: At, packet: &[u8]) -> Next {
        if self.wait(at) == Next::End {
            return Next::End;
        }
        let result = self.outlet.put(packet);
        self.count_refused();
        match result {
            Ok(()) => {
                self.sums.packets += 1;
                self.sums.octets += packet.len() as u64;
                Next::GoOn
            }
            Err(error) => {
                self.problem(&format!("frame {}: {error}", at.frame));
                if error.is_final() { Next::End } else { Next::GoOn }
            }
        }
    }

    fn wait(&mut self, at: At) -> Next {
        let due = self.pacer.due(at.micros);
        loop {
            let left = due.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                break;
            }
            // A capture with a damaged time may ask for centuries, which no clock can wait for in one go.
            if self.stop.wait(left.min(Duration::from_secs(3600))) {
                break;
            }
        }
        if self.stop.is_set() { Next::End } else { Next::GoOn }
    }

    fn fault(&mut self, fault: &Fault) -> Next {
        let flow = fault.flow.map(|flow| format!(", {flow}")).unwrap_or_default();
        self.problem(&format!("frame {}{flow}: {fault}", fault.frame));
        Next::GoOn
    }

    fn problem(&mut self, text: &str) {
        self.sums.errors += 1;
        self.progress.problem(text);
    }

    /// Tells it once; how many they were is told at the end.
    fn count_refused(&mut self) {
        let refused = self.outlet.refused();
        if self.sums.refused == 0 && refused > 0 {
            self.progress.tell(&format!("{} refuses packets: nobody listens on that port", self.outlet.to()));
        }
        self.sums.errors += refused - self.sums.refused;
        self.sums.refused = refused;
    }

    fn summary(&self) -> String {
        let elapsed = self.begun.elapsed();
        let (seconds, rate) = (elapsed.as_secs_f64(), progress::rate(self.sums.packets, elapsed));
        let packets = count(self.sums.packets, "packet");
        let octets = count(self.sums.octets, "octet");
        let errors = count(self.sums.errors, "error");
        let stopped = if self.stop.is_set() { "stopped: " } else { "" };
        let refused = match self.sums.refused {
            0 => String::new(),
            refused => format!(" ({} refused)", Grouped(refused)),
        };
        format!("{stopped}sent {packets}, {octets} in {seconds:.3} s, {rate} packets/s, {errors}{refused}")
    }
}
