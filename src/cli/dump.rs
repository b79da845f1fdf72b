//! `hepgate dump`: the packets of a capture file, or those that come in, one a line.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::capture::{Capture, FileError, HepFinder};
use super::live::{self, LiveError};
use super::printer::{Format, Printer};
use super::tell::{Grouped, count, tell};

/// Says more about the output than the options do.
const AFTER_HELP: &str = "\
Without --read it listens itself: at the addresses of --listen, or at hep_udp:*:5656 and hep_tcp:*:5656.

Capture files are pcap or pcapng, of Ethernet (also with VLAN tags), raw IP, loopback or Linux cooked links. \
IP fragments and TCP streams are put together.

Without --port every datagram and stream is tried, and what is not HEP is passed over; HEP1 and HEP2, which have no \
magic, must hold SIP then. With --port everything from or to the port is HEP or an error.

A line for people: time (UTC; with ~ it is the capture's, as the packet has none), version, IP protocol, \
source -> destination, agent id and name, payload type, octets of the payload, and its first line if it is SIP.

A line of --json has exactly these fields:
  version           1, 2 or 3
  source            \"192.0.2.1:5060\", \"[2001:db8::1]:5060\", or null
  destination       likewise
  ip_protocol       number: 17 UDP, 6 TCP, ...
  captured_at       \"2026-11-23T07:19:14.165292Z\", or null
  payload_type      number: 1 SIP, 5 RTCP, 100 log, ...
  agent_id          number
  agent_name        text, or null
  correlation_id    text, or null
  auth_key_present  true or false; the key itself is never printed
  payload_len       octets of the payload as it came; 0 if there is none
  payload_sha256    of those octets
  chunks            [{\"vendor\", \"type\", \"hex\"}, ...] in order;
                    hex is null for the authentication key

Numbers that a packet lacks are 0. Text that is not UTF-8 has U+FFFD where it is not. What is no packet is a line \
with other fields, of which frame and flow may be null:
  {\"error\": \"...\", \"frame\": 7,
   \"flow\": {\"transport\": \"udp\", \"source\": ..., \"destination\": ...}}

At the end the sums go to standard error. The exit code is 0 if the file was read to its end, whatever was in it, \
and 1 if not.

Examples:
  hepgate dump
  hepgate dump --listen hep_udp:127.0.0.1:9060 --json
  hepgate dump --read hep.pcap
  hepgate dump --read hep.pcapng --port 9060 --count 20
  hepgate dump --read hep.pcap --json | jq 'select(.payload_type == 100)'
  tcpdump -i any -U -w - port 9060 | hepgate dump --read -";

/// Print HEP packets, those that come in or those of a capture file, one a line
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct DumpArgs {
    #[allow(rustdoc::broken_intra_doc_links, reason = "it is the help text as well")]
    /// Listen here: hep_udp:ADDRESS[:PORT] or hep_tcp:ADDRESS[:PORT]; may be given several times
    #[arg(long, value_name = "ADDRESS", conflicts_with = "read")]
    pub listen: Vec<String>,

    /// The capture file, pcap or pcapng; - is standard input
    #[arg(long, value_name = "FILE")]
    pub read: Option<PathBuf>,

    /// Of the file only what comes from or goes to this port; may be given several times
    #[arg(long = "port", value_name = "PORT", requires = "read")]
    pub ports: Vec<NonZeroU16>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,

    /// Stop after N packets
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Why nothing was dumped, or not all.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The capture file.
    #[error("{path} {error}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
    /// Where it is printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Where it listens.
    #[error(transparent)]
    Live(#[from] LiveError),
}

/// Runs `hepgate dump`.
///
/// # Errors
/// [`DumpError`]: the file cannot be read at all, or nothing can be written.
pub fn dump(args: &DumpArgs) -> Result<ExitCode, DumpError> {
    let format = if args.json { Format::Json } else { Format::text_for(&io::stdout()) };
    match &args.read {
        Some(path) => dump_file(args, path, format),
        None => Ok(live::dump(&args.listen, format, args.count)?),
    }
}

fn dump_file(args: &DumpArgs, path: &Path, format: Format) -> Result<ExitCode, DumpError> {
    let ports: Vec<u16> = args.ports.iter().map(|port| port.get()).collect();
    let is_stdin = path == Path::new("-");
    let file = |error| DumpError::File { path: path.to_owned(), error };
    let reader: Box<dyn Read> = if is_stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| file(error.into()))?)
    };
    let capture = Capture::new(reader, &ports).map_err(file)?;

    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()), format);
    // Whoever feeds us through a pipe may be watching.
    let result = print_packets(capture, &mut printer, ports.is_empty(), args.count, is_stdin);
    let result = result.and_then(|sums| printer.flush().map(|()| sums));
    match result {
        // Whoever reads has seen enough: `hepgate dump ... | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            drop(printer.into_inner().into_parts());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error.into()),
        Ok(sums) => {
            tell(&sums.to_string());
            Ok(if sums.broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

/// What was printed.
#[derive(Debug, Default)]
struct Sums {
    packets: u64,
    errors: u64,
    passed_over: u64,
    /// The file could not be read to its end.
    broken: bool,
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", count(self.packets, "packet"), count(self.errors, "error"))?;
        if self.passed_over > 0 {
            write!(f, "; {} passed over (datagrams and streams that are not HEP)", Grouped(self.passed_over))?;
        }
        Ok(())
    }
}

fn print_packets<W: Write>(
    capture: Capture<Box<dyn Read>>,
    printer: &mut Printer<W>,
    any_port: bool,
    wanted: Option<u64>,
    flush_each: bool,
) -> io::Result<Sums> {
    let mut sums = Sums::default();
    let mut packets = capture.find(HepFinder::new(any_port));
    while wanted.is_none_or(|wanted| sums.packets < wanted) {
        match packets.next() {
            None => break,
            Some(Ok(found)) => {
                sums.packets += 1;
                printer.packet(&found.what, found.at.micros)?;
            }
            Some(Err(fault)) => {
                sums.errors += 1;
                sums.broken |= fault.ends_file();
                printer.error(&fault, Some(fault.frame), fault.flow)?;
            }
        }
        if flush_each {
            printer.flush()?;
        }
    }
    sums.passed_over = packets.passed_over();
    Ok(sums)
}
