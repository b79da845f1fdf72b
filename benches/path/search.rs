//! The highest rate at which nothing is lost, and how long packets take at half of it.

use std::time::Duration;

use crate::common::{as_f64, is_quick, median};
use crate::load::process::Carrier;
use crate::load::run::{Load, Run, run};
use crate::load::traffic::Transport;
use crate::results::Limit;

/// Where the search begins, and how near to each other its two ends must be, in percent.
const FIRST_RATE: usize = 20_000;
const PRECISION_PERCENT: usize = 4;
/// Where it ends: nobody here sends so much.
const LAST_RATE: usize = 5_000_000;
/// Who sends less than this part of what it should is at its end.
const PACE: f64 = 0.97;
/// Who has so much left to do when the agent is done has not kept up.
const LAG_MAX: Duration = Duration::from_millis(100);

/// Where a rate failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Agent,
    Before,
    Within,
    Behind,
    Backlog,
}

impl Ends {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "the agent",
            Self::Before => "loss before it",
            Self::Within => "loss within it",
            Self::Behind => "loss behind it",
            Self::Backlog => "a backlog that grows",
        }
    }
}

/// The highest rate; over UDP by search, of a stream the one at which overload went through, as a stream makes the agent
/// wait and loses nothing. Then the latency at half of it.
pub(crate) fn limit(
    path: &str,
    (name, carrier): (&'static str, Carrier),
    load: &Load,
    overload: &[Run],
    seconds: usize,
    rounds: usize,
) -> Limit {
    let count = |rate: usize| if is_quick() { 300 } else { rate * seconds };
    let (rate, ended_by) = match load.from {
        Transport::Tcp => {
            (to_rate(median(overload.iter().map(|run| run.arrived_rate).collect())), "what it took at overload")
        }
        Transport::Udp => {
            let try_once =
                |rate| failed(&run(carrier, &Load { rate: Some(rate), count: count(rate), ..load.clone() }), rate);
            // What else the machine does may spoil one run.
            let (rate, ends) = highest(|rate| try_once(rate).and_then(|_| try_once(rate)));
            (rate, ends.map_or("the search", Ends::as_str))
        }
    };
    let half = rate / 2;
    let at_half = Load { rate: Some(half), count: count(half), ..load.clone() };
    let runs: Vec<Run> = match load.to {
        Some(_) => (0..rounds).map(|_| run(carrier, &at_half)).collect(),
        None => Vec::new(),
    };
    let permille =
        |permille| (!runs.is_empty()).then(|| median(runs.iter().filter_map(|run| run.permille(permille)).collect()));
    let lost: usize = runs.iter().map(|run| run.sent - run.arrived).sum();
    let limit = Limit {
        path: path.to_owned(),
        carrier: name,
        rate,
        ended_by,
        took: [500, 990, 999].map(permille),
        lost_at_half: lost,
    };
    limit.print();
    limit
}

/// Doubles until it fails, then halves the distance between what went and what did not. What it found must go once
/// more.
fn highest(mut try_rate: impl FnMut(usize) -> Option<Ends>) -> (usize, Option<Ends>) {
    if is_quick() {
        return (FIRST_RATE / 10, try_rate(FIRST_RATE / 10));
    }
    let (mut good, mut bad, mut ends) = (0, FIRST_RATE, None);
    while bad < LAST_RATE {
        match try_rate(bad) {
            None => (good, bad) = (bad, bad * 2),
            failed => {
                ends = failed;
                break;
            }
        }
    }
    while (bad - good) * 100 > bad * PRECISION_PERCENT && bad > 100 {
        let middle = usize::midpoint(good, bad);
        match try_rate(middle) {
            None => good = middle,
            failed => (bad, ends) = (middle, failed),
        }
    }
    while good > 100 {
        match try_rate(good) {
            None => break,
            failed => (good, ends) = (good * (100 - PRECISION_PERCENT) / 100, failed),
        }
    }
    (good, ends)
}

fn failed(run: &Run, rate: usize) -> Option<Ends> {
    let wanted = as_f64(rate as u128) * PACE;
    match run {
        _ if is_quick() => None,
        Run { before: 1.., .. } => Some(Ends::Before),
        Run { behind: 1.., .. } => Some(Ends::Behind),
        run if run.within() != 0 => Some(Ends::Within),
        run if run.sent_rate < wanted => Some(Ends::Agent),
        // Nothing is lost yet, but it did not keep up.
        run if run.lag > LAG_MAX => Some(Ends::Backlog),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "packets per second")]
const fn to_rate(rate: f64) -> usize {
    rate as usize
}
