//! `hepgate filter componentize`: from a core module to a component.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::tell::count;
use super::{FilterError, wide};
use crate::filter::sha256_hex;
use crate::guest;

/// Make a component of a core module, in octets (.wasm) or as text (.wat)
///
/// The module exports what a filter has under the names of the canonical ABI, such as
/// `hep:filter/callbacks@0.1.0#on-batch`, and `cabi_realloc`. What it imports of wasi_snapshot_preview1, because its tool
/// chain always does, it gets without any power: what it prints goes nowhere, and there are no files.
#[derive(Debug, Args)]
pub struct ComponentizeArgs {
    /// The core module
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to; without it, beside the module with the ending .component.wasm
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs `hepgate filter componentize`.
pub(super) fn componentize(args: &ComponentizeArgs) -> Result<ExitCode, FilterError> {
    let path = || args.file.clone();
    let module = fs::read(&args.file).map_err(|reason| FilterError::Read { path: path(), reason })?;
    let wasm = guest::componentize(&module).map_err(|reason| FilterError::NotMade { path: path(), reason })?;
    let output = args.output.clone().unwrap_or_else(|| args.file.with_extension("component.wasm"));
    fs::write(&output, &wasm).map_err(|reason| FilterError::Write { path: output.clone(), reason })?;
    let octets = count(wide(wasm.len()), "octet");
    writeln!(io::stdout(), "{}: {octets}, sha256 {}", output.display(), sha256_hex(&wasm))?;
    Ok(ExitCode::SUCCESS)
}
