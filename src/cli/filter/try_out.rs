//! `hepgate filter test`: what a filter does with captures, and whether that is what it should do.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::record::{Difference, Fate, Place, Record};
use super::trial::{Input, Run, Subject, TrialArgs};
use super::{FilterError, wide};
use crate::cli::printer::one_line;
use crate::cli::tell::{Grouped, count};

/// Says more than the options do.
const AFTER_HELP: &str = "\
There is no gateway and no network: the packets come from the captures, time is that of the captures, and what the \
filter sends is shown. So the same run gives the same results everywhere, but for times, fuel and memory.

--expect compares them with those in a file, which --update writes. The file is JSON: what became of each packet, what \
was sent, the log, and the metrics.

The exit code is 1 if a call failed or the results are not those expected.

Examples:
  hepgate filter test redact.wasm --read calls.pcap
  hepgate filter test discard.wasm --read calls.pcap --set methods=OPTIONS
  hepgate filter test report.wasm --read calls.pcap --set collector=homer --collector homer --tick 10s
  hepgate filter test mine.wasm --read calls.pcap --expect expected.json --update
  hepgate filter test mine.wasm --read calls.pcap --expect expected.json";

/// Run a filter over captures, with no gateway and no network, and show what it does
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TestArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the options of a trial")]
    pub trial: TrialArgs,
    /// Compare what it does with the results in this file
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Write the results into the file of --expect instead
    #[arg(long, requires = "expect")]
    pub update: bool,
    /// Only the sums, not each packet
    #[arg(short, long)]
    pub quiet: bool,
    /// The results as JSON, as --expect has them
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

/// Runs `hepgate filter test`.
pub(super) fn test(args: &TestArgs) -> Result<ExitCode, FilterError> {
    let input = args.trial.input()?;
    let subject = args.trial.subject(&args.file, true)?;
    let run = subject.run(&input.packets, usize::from(args.trial.batch))?;
    let mut text = String::new();
    if args.json {
        text = json(&run.record);
    } else {
        head(&mut text, args, &input, &subject);
        if !args.quiet {
            packets(&mut text, &input, &run.record);
        }
        sums(&mut text, &subject, &run);
    }
    io::stdout().write_all(text.as_bytes())?;
    let as_expected = args.expect.as_deref().map_or(Ok(true), |path| expectation(path, args.update, &run.record))?;
    Ok(if as_expected && run.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the results, or compares them with those that are there; what differs is told on standard error.
fn expectation(path: &Path, update: bool, record: &Record) -> Result<bool, FilterError> {
    let path_of = || path.to_owned();
    if update {
        fs::write(path, json(record)).map_err(|reason| FilterError::Write { path: path_of(), reason })?;
        writeln!(io::stderr(), "written to {}", path.display())?;
        return Ok(true);
    }
    let text = fs::read_to_string(path).map_err(|reason| FilterError::Read { path: path_of(), reason })?;
    let expected: Record =
        serde_json::from_str(&text).map_err(|reason| FilterError::Expectation { path: path_of(), reason })?;
    let differences = expected.differences(record);
    if differences.is_empty() {
        writeln!(io::stderr(), "as expected by {}", path.display())?;
        return Ok(true);
    }
    let mut text = format!("not as expected by {}: - is expected, + is what it did\n", path.display());
    for difference in &differences {
        write_difference(&mut text, difference);
    }
    io::stderr().write_all(text.as_bytes())?;
    Ok(false)
}

fn json(record: &Record) -> String {
    // There is nothing in it that JSON could not say.
    serde_json::to_string_pretty(record).unwrap_or_default() + "\n"
}

/// Where it was, and the lines.
pub(super) fn write_difference(text: &mut String, difference: &Difference) {
    let place = match difference.place {
        Place::Packet(index) => format!("packet {}", index + 1),
        Place::Sent => "sent".to_owned(),
        Place::Log => "log".to_owned(),
        Place::Metrics => "metrics".to_owned(),
    };
    let _ = writeln!(text, "{place}");
    for (sign, lines) in [('-', &difference.was), ('+', &difference.is)] {
        for line in lines {
            let _ = writeln!(text, "  {sign} {line}");
        }
    }
}

fn head(text: &mut String, args: &TestArgs, input: &Input, subject: &Subject) {
    let octets = count(wide(subject.filter.octets()), "octet");
    let _ = writeln!(text, "{}: {octets}, sha256 {}", args.file.display(), subject.filter.sha256_hex());
    let files: Vec<String> = args.trial.read.iter().map(|path| path.display().to_string()).collect();
    let packed = if input.packed { ", with SIP packed as HEP3" } else { "" };
    let _ = writeln!(text, "{} of {}{packed}", count(wide(input.packets.len()), "packet"), files.join(", "));
    for fault in &input.faults {
        let _ = writeln!(text, "not read: {fault}");
    }
}

fn packets(text: &mut String, input: &Input, record: &Record) {
    let _ = writeln!(text);
    for (number, (received, treated)) in (1..).zip(input.packets.iter().zip(&record.packets)) {
        let _ = writeln!(text, "{number:>5}  {:<8}  {}", treated.verdict.as_str(), one_line(&received.packet));
        for change in treated.edited.iter().flat_map(|edited| &edited.changes) {
            let _ = writeln!(text, "       {:<8}    {change}", "");
        }
    }
    let _ = writeln!(text);
}

fn sums(text: &mut String, subject: &Subject, run: &Run) {
    let record = &run.record;
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<9} {value}");
    };
    let verdicts = Fate::ALL.map(|fate| (record.count(fate), fate.as_str()));
    let verdicts: Vec<String> = verdicts
        .iter()
        .enumerate()
        .filter(|(place, (count, _))| *place < 3 || *count > 0)
        .map(|(_, (count, name))| format!("{} {name}", Grouped(wide(*count))))
        .collect();
    line("verdicts", &format!("{}; {} changed", verdicts.join(", "), Grouped(wide(record.edited()))));
    several(&mut line, "sent", record.sent.iter().map(|sending| format!("to {}: {}", sending.to, sending.packet)));
    several(&mut line, "log", record.log.iter().cloned());
    several(&mut line, "metrics", record.metrics.iter().cloned());
    if run.keys > 0 {
        line("state", &count(wide(run.keys), "key"));
    }
    several(
        &mut line,
        "failed",
        run.faults.iter().map(|(packet, fault)| match packet {
            Some(index) => format!("packet {}: {fault}", index + 1),
            None => fault.clone(),
        }),
    );
    let each = |sum: u128| sum.checked_div(u128::from(run.seen)).unwrap_or(0);
    line(
        "time",
        &format!(
            "{} in {}, {} ns a packet seen; the longest call {}",
            shown(run.time),
            count(run.calls, "call"),
            each(run.time.as_nanos()),
            shown(run.longest_call),
        ),
    );
    line("fuel", &format!("{}, {} a packet seen", Grouped(run.fuel), each(u128::from(run.fuel))));
    let memory_max = subject.filter.limits().memory_octets_max;
    line("memory", &format!("{} KiB of {} KiB", run.memory_octets >> 10, memory_max >> 10));
}

/// One line for each, the name before the first.
fn several(line: &mut impl FnMut(&str, &str), name: &str, values: impl Iterator<Item = String>) {
    let mut name = Some(name);
    for value in values {
        line(name.take().unwrap_or(""), &value);
    }
    if let Some(name) = name.filter(|name| *name != "failed") {
        line(name, "nothing");
    }
}

fn shown(time: Duration) -> String {
    format!("{time:.1?}")
}
