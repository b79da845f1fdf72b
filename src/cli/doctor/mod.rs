//! `hepgate doctor`: runs hostile guests against this very build, and says limit by limit whether it held.

mod checks;
mod ward;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::filter::HostError;
use checks::CHECKS;
use ward::{Complaint, Ward};

/// Run hostile filters against this very build, and say for each limit whether it held
///
/// The filters are a few lines of WebAssembly each and run in this process, under limits far below the defaults. Nothing
/// is listened to, sent or written. Exit code 1 if any limit did not hold.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing could be examined.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum DoctorError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Runs all of it.
///
/// # Errors
/// [`DoctorError`]: there is no sandbox at all.
pub fn doctor(args: &DoctorArgs) -> Result<ExitCode, DoctorError> {
    let ward = Ward::new()?;
    let findings: Vec<Finding> = CHECKS.iter().map(|check| check.run(&ward)).collect();
    let text = if args.json { as_json(&findings) } else { as_text(&findings) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(verdict(&findings))
}

fn verdict(findings: &[Finding]) -> ExitCode {
    if findings.iter().all(|finding| finding.held.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { what, held } in findings {
        let (word, figure) = match held {
            Ok(figure) => ("held", figure),
            Err(figure) => ("NOT HELD", figure),
        };
        text += &format!("{word:<8}  {what:<width$}  {figure}\n");
    }
    let broken = findings.iter().filter(|finding| finding.held.is_err()).count();
    text += &match broken {
        0 => format!("all {} held\n", findings.len()),
        broken => format!("{broken} of {} did not hold: do not run filters that you do not trust\n", findings.len()),
    };
    text
}

fn as_json(findings: &[Finding]) -> String {
    let finding = |Finding { what, held }: &Finding| {
        let figure = held.as_ref().unwrap_or_else(|figure| figure);
        json!({ "what": what, "held": held.is_ok(), "figure": figure })
    };
    format!("{:#}\n", json!(findings.iter().map(finding).collect::<Vec<_>>()))
}

/// What came of a check.
struct Finding {
    what: &'static str,
    /// The figure, either way.
    held: Result<String, String>,
}

/// A guest that does something hostile, and what must come of it.
struct Check {
    what: &'static str,
    run: fn(&Ward) -> Result<String, Complaint>,
}

impl Check {
    fn run(&self, ward: &Ward) -> Finding {
        Finding { what: self.what, held: (self.run)(ward).map_err(|complaint| complaint.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::checks::exactly;
    use super::*;
    use crate::guest::{Guest, component};

    #[test]
    fn a_limit_that_does_not_hold_is_told_and_is_the_exit_code() {
        let finding = |held: Result<&str, &str>| Finding {
            what: "a limit",
            held: held.map(str::to_owned).map_err(str::to_owned),
        };
        let well = [finding(Ok("1 of 1"))];
        assert_eq!(as_text(&well), "held      a limit  1 of 1\nall 1 held\n");
        assert_eq!(format!("{:?}", verdict(&well)), format!("{:?}", ExitCode::SUCCESS));
        let broken = [finding(Ok("1 of 1")), finding(Err("2 of 1"))];
        assert!(as_text(&broken).contains("NOT HELD  a limit  2 of 1\n1 of 2 did not hold"), "{}", as_text(&broken));
        assert_eq!(format!("{:?}", verdict(&broken)), format!("{:?}", ExitCode::FAILURE));
        let json: serde_json::Value = serde_json::from_str(&as_json(&broken)).unwrap();
        assert_eq!((&json[0]["held"], &json[1]["held"]), (&true.into(), &false.into()));
    }

    /// The checks themselves must be able to fail: guests that do nothing hostile pass none of those that expect a fault.
    #[test]
    fn a_guest_that_behaves_is_no_proof_of_a_limit() {
        let ward = Ward::new().unwrap();
        let complaint = ward.fault(Guest::default()).unwrap_err();
        assert_eq!(complaint.to_string(), "the call ended well");
        let complaint =
            ward.ends(|ward| ward.fault(Guest { on_batch: "unreachable", ..Guest::default() })).unwrap_err();
        assert!(complaint.to_string().contains("unreachable"), "{complaint}");
        let complaint = ward.refused(&component(Guest::default()).unwrap(), "").unwrap_err();
        assert_eq!(complaint.to_string(), "it was loaded");
        assert!(exactly("lines", 5, 4).is_err());
    }
}
