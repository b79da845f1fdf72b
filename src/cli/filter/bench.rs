//! `hepgate filter bench`: what a filter costs on this machine.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::trial::{Subject, TrialArgs};
use super::{FilterError, wide};
use crate::cli::tell::{Grouped, count};
use crate::filter::{Belongings, Budget, Fault, Instance, Part, Work};
use crate::message::{Received, wall_clock};

/// Packets a call that are measured.
const BATCHES: [usize; 3] = [1, 32, 64];
/// Instances that are made to see what one costs.
const STARTS: usize = 20;
/// Time of a call here: more than any gateway gives, as it is measured and not judged.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many parts the time is cut into: the median of them is told, so that what else the machine does matters less.
const SAMPLES: u32 = 15;

/// Measure a filter: nanoseconds and fuel a packet at 1, 32 and 64 packets a call, compiling, starting, memory
///
/// The packets of the captures are given to it again and again. Times are the median of fifteen samples on this machine,
/// with all limits on and host calls included; fuel is the same on every machine.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the options of a trial")]
    pub trial: TrialArgs,
    /// Milliseconds of measuring for each number of packets
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub milliseconds: u32,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What was measured.
struct Measured {
    octets: usize,
    payload_octets: u64,
    compiled_in: Duration,
    started_in: Duration,
    memory_octets: (usize, usize),
    batches: Vec<Batch>,
}

/// ... for one number of packets a call.
struct Batch {
    packets: usize,
    nanoseconds: u128,
    fuel: u64,
}

/// Runs `hepgate filter bench`.
pub(super) fn bench(args: &BenchArgs) -> Result<ExitCode, FilterError> {
    let input = args.trial.input()?;
    // Counting fuel costs time, so each has an engine of its own.
    let timed = args.trial.subject_in(&args.file, false, None)?;
    let counted = args.trial.subject(&args.file, true)?;
    let time = Duration::from_millis(args.milliseconds.into());
    let mut started: Vec<Duration> = Vec::with_capacity(STARTS);
    let mut instance = start(&timed)?;
    for _ in 0..STARTS {
        let began = Instant::now();
        instance = start(&timed)?;
        started.push(began.elapsed());
    }
    let at_start = instance.memory_octets();
    let mut batches = Vec::new();
    for packets in BATCHES {
        let calls: Vec<Work> = calls(&input.packets, packets);
        let nanoseconds = measure(&mut instance, &calls, time).map_err(|fault| timed.failed(fault))?;
        let fuel = fuel(&counted, &calls).map_err(|fault| counted.failed(fault))?;
        batches.push(Batch { packets, nanoseconds, fuel });
    }
    let payload_octets = input.packets.iter().map(|received| wide(received.packet.payload().len())).sum::<u64>();
    let measured = Measured {
        octets: timed.filter.octets(),
        payload_octets: payload_octets / wide(input.packets.len()).max(1),
        compiled_in: timed.compiled_in,
        started_in: median(&mut started),
        memory_octets: (at_start, instance.memory_octets()),
        batches,
    };
    let text = if args.json { format!("{:#}\n", measured.json()) } else { measured.text(args, input.packets.len()) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn start(subject: &Subject) -> Result<Instance, FilterError> {
    let belongings = Belongings::new(subject.filter.limits());
    let started = subject.start(&belongings, wall_clock().into(), &mut Vec::new());
    started.map_err(|fault| subject.start_error(fault))
}

/// The packets in calls of that size; the captures begin anew until the last call is full.
fn calls(packets: &[Received], size: usize) -> Vec<Work> {
    let number = packets.len().div_ceil(size);
    let mut packets = packets.iter().cycle();
    (0..number).map(|_| Work::new(packets.by_ref().take(size).cloned().collect())).collect()
}

/// Nanoseconds a packet.
fn measure(instance: &mut Instance, calls: &[Work], time: Duration) -> Result<u128, Fault> {
    let sample = time / SAMPLES;
    let mut each: Vec<u128> = Vec::new();
    while each.len() < usize::try_from(SAMPLES).unwrap_or(1) {
        let (mut took, mut packets) = (Duration::ZERO, 0);
        while took < sample {
            for call in calls {
                took += one_call(instance, call)?;
                packets += wide(call.len());
            }
        }
        each.push(took.as_nanos() / u128::from(packets.max(1)));
    }
    Ok(median(&mut each))
}

/// How long a call takes. The packets are copies, so that each call has them as they came; to copy them is not measured.
fn one_call(instance: &mut Instance, call: &Work) -> Result<Duration, Fault> {
    let mut work = call.clone();
    let all = Part::run(0, work.len());
    let now = wall_clock();
    let began = Instant::now();
    let result = instance.on_batch(&mut work, &all, Budget::computing(PATIENCE), now);
    let took = began.elapsed();
    instance.take_log();
    result.map(|_| took)
}

/// Fuel a packet, of the second round: the first may do things that are done once.
fn fuel(subject: &Subject, calls: &[Work]) -> Result<u64, Fault> {
    let belongings = Belongings::new(subject.filter.limits());
    let mut instance = subject.start(&belongings, wall_clock().into(), &mut Vec::new())?;
    let (mut fuel, mut packets) = (0, 0);
    for round in 0..2 {
        for call in calls {
            one_call(&mut instance, call)?;
            if round == 1 {
                fuel += instance.fuel_used();
                packets += wide(call.len());
            }
        }
    }
    Ok(fuel / packets.max(1))
}

fn median<T: Ord + Copy + Default>(values: &mut [T]) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Measured {
    fn text(&self, args: &BenchArgs, packets: usize) -> String {
        let mut text = format!(
            "{}: {}; {} of {} octets of payload on average, all of them given to it\n\n",
            args.file.display(),
            count(wide(self.octets), "octet"),
            count(wide(packets), "packet"),
            Grouped(self.payload_octets),
        );
        if cfg!(debug_assertions) {
            text.push_str(
                "This hepgate is a debug build: its times say nothing about one from `cargo build --release`.\n\n",
            );
        }
        let _ = writeln!(text, "packets a call   ns a packet   fuel a packet");
        for batch in &self.batches {
            let (nanoseconds, fuel) = (batch.nanoseconds.to_string(), Grouped(batch.fuel).to_string());
            let _ = writeln!(text, "{:>14}   {nanoseconds:>11}   {fuel:>13}", batch.packets);
        }
        let (at_start, at_end) = self.memory_octets;
        let _ = writeln!(text, "\ncompiled in   {:.0?}", self.compiled_in);
        let _ = writeln!(text, "started in    {:.0?}, init included", self.started_in);
        let _ = writeln!(text, "memory        {} KiB at the start, {} KiB at the end", at_start >> 10, at_end >> 10);
        text
    }

    fn json(&self) -> Value {
        let batch = |batch: &Batch| {
            let nanoseconds = u64::try_from(batch.nanoseconds).unwrap_or(u64::MAX);
            json!({ "packets": batch.packets, "ns_per_packet": nanoseconds, "fuel_per_packet": batch.fuel })
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        json!({
            "octets": self.octets,
            "payload_octets": self.payload_octets,
            "batches": self.batches.iter().map(batch).collect::<Vec<_>>(),
            "compiled_in_us": micros(self.compiled_in),
            "started_in_us": micros(self.started_in),
            "memory_octets_at_start": self.memory_octets.0,
            "memory_octets_at_end": self.memory_octets.1,
        })
    }
}
