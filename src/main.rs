//! The command line: parse, call, print, exit code.

use std::process::ExitCode;

use clap::Parser;
use hepgate::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute().unwrap_or_else(|error| {
        eprintln!("hepgate: {error}");
        ExitCode::FAILURE
    })
}
