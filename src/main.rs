//! The command line: parse, call, print, exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hepgate::cli::dump::{self, DumpArgs};
use hepgate::cli::send::{self, SendArgs};

/// A HEP capture gateway, and tools for HEP beside it
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dump(DumpArgs),
    Send(SendArgs),
}

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("hepgate: {error}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    Ok(match cli.command {
        Command::Dump(args) => dump::dump(&args)?,
        Command::Send(args) => send::send(&args)?,
    })
}
