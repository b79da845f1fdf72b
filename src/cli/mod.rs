//! The sub-commands behind `main`: each parses nothing any more, does its work, and says how it ended.

pub mod capture;
mod check;
pub mod control;
pub mod doctor;
pub mod dump;
pub mod filter;
pub mod live;
mod logging;
pub mod printer;
mod run;
pub mod send;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use check::{CheckArgs, check};
use control::{ControlArgs, ControlError, QuarantineCommand, ReloadArgs};
use doctor::DoctorArgs;
use dump::DumpArgs;
use filter::FilterCommand;
pub use run::{RunArgs, RunError, run};
use send::SendArgs;

/// Where the configuration is looked for if nobody says.
pub const DEFAULT_CONFIG: &str = "config/hepgate.toml";

/// A HEP capture gateway that runs your filters in a sandbox.
///
/// hepgate takes HEP v1, v2 and v3 over UDP and v3 over TCP, hands each packet to filters (WebAssembly components that
/// can read, change, skip or drop it and send packets of their own), and passes it on to collectors or into pcapng
/// files.
#[derive(Debug, Parser)]
#[command(name = "hepgate", version, max_term_width = 100)]
pub struct Cli {
    /// What to do; without it, the gateway runs with its default configuration.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the texts are those of the commands")]
pub enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    Dump(DumpArgs),
    Send(SendArgs),
    /// Show the filters of a running gateway: state, calls, times, memory, faults, strikes
    ///
    /// Counters are since its start, over all its workers. Times are bounds that half, and 99 of 100, of the calls kept to.
    Filters(ControlArgs),
    /// Show the tenants of a running gateway: their chains and routes, and what became of their packets
    ///
    /// Counters are since its start, over all its workers.
    Tenants(ControlArgs),
    /// Show the collectors of a running gateway: what was sent, what waits, what was dropped and why
    ///
    /// Counters are since its start, over all its workers.
    Collectors(ControlArgs),
    /// Show which filters are out of service, and the evidence; put one in service again
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    Reload(ReloadArgs),
    Doctor(DoctorArgs),
    /// Make, build, try, measure and look at filters without a gateway
    #[command(subcommand)]
    Filter(FilterCommand),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// What went wrong, in one sentence.
    pub fn execute(self) -> Result<ExitCode, CliError> {
        match self.command {
            None => Ok(run(&RunArgs { config: PathBuf::from(DEFAULT_CONFIG) })?),
            Some(Command::Run(args)) => Ok(run(&args)?),
            Some(Command::Check(args)) => Ok(check(&args)),
            Some(Command::Dump(args)) => Ok(dump::dump(&args)?),
            Some(Command::Send(args)) => Ok(send::send(&args)?),
            Some(Command::Filters(args)) => Ok(control::filters(&args)?),
            Some(Command::Tenants(args)) => Ok(control::tenants(&args)?),
            Some(Command::Collectors(args)) => Ok(control::collectors(&args)?),
            Some(Command::Quarantine(command)) => Ok(control::quarantine(&command)?),
            Some(Command::Reload(args)) => Ok(control::reload(&args)?),
            Some(Command::Doctor(args)) => Ok(doctor::doctor(&args)?),
            Some(Command::Filter(command)) => Ok(filter::execute(&command)?),
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum CliError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Dump(#[from] dump::DumpError),
    #[error(transparent)]
    Send(#[from] send::SendError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    #[error(transparent)]
    Filter(#[from] filter::FilterError),
}
