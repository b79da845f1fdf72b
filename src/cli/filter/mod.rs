//! `hepgate filter`: makes, builds, tries and looks at filters without a gateway.

mod bench;
mod build;
mod changes;
mod componentize;
mod diff;
mod inspect;
mod language;
mod new;
mod record;
mod templates;
mod tools;
mod trial;
mod try_out;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

pub use bench::BenchArgs;
pub use build::BuildArgs;
pub use componentize::ComponentizeArgs;
pub use diff::DiffArgs;
pub use inspect::InspectArgs;
pub use language::Language;
pub use new::NewArgs;
pub use tools::ToolError;
pub use trial::{Setting, TrialArgs};
pub use try_out::TestArgs;

use super::capture::FileError;
use crate::filter::{Fault, HostError, LoadError};
use crate::guest::{GuestError, MendError};

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the texts are those of the commands")]
pub enum FilterCommand {
    New(NewArgs),
    Build(BuildArgs),
    Componentize(ComponentizeArgs),
    Inspect(InspectArgs),
    Test(TestArgs),
    Diff(DiffArgs),
    Bench(BenchArgs),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum FilterError {
    #[error("{}: {reason}", .path.display())]
    Read { path: PathBuf, reason: io::Error },
    #[error("{}: cannot be written: {reason}", .path.display())]
    Write { path: PathBuf, reason: io::Error },
    #[error("{}: is no WebAssembly component: {reason}", .path.display())]
    NoComponent { path: PathBuf, reason: String },
    #[error("{name:?} is no name for a filter: a letter from a to z, then letters, digits and -; 64 at most")]
    Name { name: String },
    #[error("{}: is there already, and not empty", .path.display())]
    Taken { path: PathBuf },
    #[error(
        "{}: holds no filter's source: there is none of Cargo.toml, filter.c, go.mod, filter.js, filter.ts and filter.py; \
         `hepgate filter new` makes a folder with one",
        .path.display()
    )]
    NoFolder { path: PathBuf },
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("{}: cannot be made a component: {reason}", .path.display())]
    NotMade { path: PathBuf, reason: GuestError },
    #[error("{}: {reason}; use the version that package.json names", .path.display())]
    NotMended { path: PathBuf, reason: MendError },
    #[error("{path} {reason}", path = .path.display())]
    Capture { path: PathBuf, reason: FileError },
    #[error("{}: holds neither HEP nor SIP", .path.display())]
    Nothing { path: PathBuf },
    #[error("what was given with --set, --limit, --collector or --tick is refused:\n{0}")]
    Settings(String),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{}: it did not start: {fault}{hint}", .path.display())]
    Start { path: PathBuf, fault: Fault, hint: String },
    #[error("{}: a call failed: {fault}", .path.display())]
    Call { path: PathBuf, fault: Fault },
    #[error("{}: are no results of `hepgate filter test`: {reason} (--update writes them anew)", .path.display())]
    Expectation { path: PathBuf, reason: serde_json::Error },
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Does what was asked for.
///
/// # Errors
/// [`FilterError`].
pub fn execute(command: &FilterCommand) -> Result<ExitCode, FilterError> {
    match command {
        FilterCommand::New(args) => new::new(args),
        FilterCommand::Build(args) => build::build(args),
        FilterCommand::Componentize(args) => componentize::componentize(args),
        FilterCommand::Inspect(args) => inspect::inspect(args),
        FilterCommand::Test(args) => try_out::test(args),
        FilterCommand::Diff(args) => diff::diff(args),
        FilterCommand::Bench(args) => bench::bench(args),
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
