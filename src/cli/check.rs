//! `hepgate check`: every complaint about a configuration, without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::gateway;

/// Check a configuration and its filters, and say all that is wrong with them
///
/// Reads the file, compiles the filters and starts each once for trial. Opens no port and writes no capture. Exit code
/// 0: the gateway would start with it, if the ports are free and the collectors have addresses.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration
    #[arg(default_value = super::DEFAULT_CONFIG)]
    pub file: PathBuf,
}

/// Says all complaints, each with its place.
#[must_use]
pub fn check(args: &CheckArgs) -> ExitCode {
    let config = match Config::load(&args.file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let complaints = gateway::check(&config);
    for complaint in &complaints {
        eprintln!("{}: {complaint}", args.file.display());
    }
    if complaints.is_empty() {
        println!("{}: no complaints", args.file.display());
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
