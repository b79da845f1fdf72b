//! `hepgate filter diff`: the packets that two filters treat differently.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::record::Place;
use super::trial::TrialArgs;
use super::try_out::write_difference;
use super::{FilterError, wide};
use crate::cli::printer::one_line;
use crate::cli::tell::{Grouped, count};

/// Show the packets of captures that two filters, or two versions of one, treat differently
///
/// Both get the same packets, configuration, time and limits. Lines with - are of the first, lines with + of the second.
/// The exit code is 1 if there is any difference.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The first component, say the old version
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The second one
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the options of a trial")]
    pub trial: TrialArgs,
}

/// Runs `hepgate filter diff`.
pub(super) fn diff(args: &DiffArgs) -> Result<ExitCode, FilterError> {
    let input = args.trial.input()?;
    let run = |file| args.trial.subject(file, false)?.run(&input.packets, usize::from(args.trial.batch));
    let (old, new) = (run(&args.old)?, run(&args.new)?);
    let mut text = String::new();
    let differences = old.record.differences(&new.record);
    let mut packets = 0_u64;
    for difference in &differences {
        if let Place::Packet(index) = difference.place {
            packets += 1;
            if let Some(received) = input.packets.get(index) {
                text.push_str(&one_line(&received.packet));
                text.push('\n');
            }
        }
        write_difference(&mut text, difference);
    }
    for (sign, run) in [('-', &old), ('+', &new)] {
        for (packet, fault) in &run.faults {
            let which = packet.map_or_else(String::new, |index| format!("packet {}: ", index + 1));
            text.push_str(&format!("{sign} failed: {which}{fault}\n"));
        }
    }
    for fault in &input.faults {
        text.push_str(&format!("not read: {fault}\n"));
    }
    let (all, other) = (count(wide(input.packets.len()), "packet"), Grouped(packets));
    text.push_str(&match differences.is_empty() {
        true => format!("no difference in {all}\n"),
        false => format!("{other} of {all} treated differently\n"),
    });
    io::stdout().write_all(text.as_bytes())?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
