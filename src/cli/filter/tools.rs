//! Programs of other tool chains: found in the path, run, and what to do where one is missing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why a filter was not built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum ToolError {
    #[error("{what} is missing; this installs it:\n  {install}{also}")]
    Missing { what: String, install: String, also: &'static str },
    #[error("{program}: {reason}")]
    Run { program: String, reason: io::Error },
    #[error("{program} failed ({status}); what it says stands above")]
    Failed { program: String, status: ExitStatus },
    #[error("{program} has made no {}", .path.display())]
    Nothing { program: String, path: PathBuf },
}

/// The first of these programs that is in the path.
pub(super) fn find(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The same, or how to install it.
pub(super) fn need(names: &[&str], install: &str) -> Result<PathBuf, ToolError> {
    find(names).ok_or_else(|| missing(names.first().copied().unwrap_or_default(), install))
}

pub(super) fn missing(what: &str, install: &str) -> ToolError {
    ToolError::Missing { what: what.to_owned(), install: install.to_owned(), also: "" }
}

/// A program that is to work in a folder.
pub(super) fn program(path: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(path);
    // What it says is told on standard error: on standard output there is the result.
    command.current_dir(folder).stdin(Stdio::null()).stdout(io::stderr());
    command
}

/// Runs it to its end.
pub(super) fn run(command: &mut Command) -> Result<(), ToolError> {
    let program = name_of(command);
    let status = command.status().map_err(|reason| ToolError::Run { program: program.clone(), reason })?;
    if status.success() { Ok(()) } else { Err(ToolError::Failed { program, status }) }
}

/// Whether it does; what it says is not told.
pub(super) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What it writes on standard output.
pub(super) fn output(command: &mut Command) -> Result<String, ToolError> {
    let program = name_of(command);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|reason| ToolError::Run { program: program.clone(), reason })?;
    if !output.status.success() {
        return Err(ToolError::Failed { program, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn name_of(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_told_with_the_command_that_installs_it() {
        let error = need(&["hepgate-no-such-program"], "apt-get install it").unwrap_err();
        assert_eq!(error.to_string(), "hepgate-no-such-program is missing; this installs it:\n  apt-get install it");
        assert!(need(&["hepgate-no-such-program", "sh"], "").is_ok());
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_status() {
        let error = run(&mut program("false", Path::new("."))).unwrap_err();
        assert_eq!(error.to_string(), "false failed (exit status: 1); what it says stands above");
        assert_eq!(output(program("echo", Path::new(".")).arg("a")).unwrap(), "a\n");
    }
}
