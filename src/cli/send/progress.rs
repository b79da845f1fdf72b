//! What the user sees while packets are sent: a bar on a terminal, and the first of the problems.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{SendArgs, Sums};
use crate::cli::tell::{Grouped, count, tell};

/// How often the bar is drawn: often enough to look alive.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Problems that are told one by one; the others are counted, as thousands of lines help nobody.
const PROBLEMS_TOLD: u64 = 10;

/// The bar, if standard error is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    drawn: Option<Instant>,
    /// Octets of the file.
    file_octets: u64,
    /// Octets of the turns through it that are done.
    done_octets: u64,
    /// Problems so far.
    problems: u64,
}

impl Progress {
    pub(super) fn new(args: &SendArgs) -> Self {
        let file_octets = std::fs::metadata(&args.read).map_or(0, |metadata| metadata.len());
        let bar = match (io::stderr().is_terminal(), args.turns) {
            (false, _) => ProgressBar::hidden(),
            (true, 0) => ProgressBar::new_spinner(),
            (true, turns) => ProgressBar::new(file_octets.saturating_mul(turns)).with_style(style()),
        };
        Self { bar, drawn: None, file_octets, done_octets: 0, problems: 0 }
    }

    /// Draws, if it is time to. `octets_read` is how far we are in the file.
    pub(super) fn show(&mut self, sums: &Sums, octets_read: u64, elapsed: Duration) {
        if self.bar.is_hidden() || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.bar.set_position(self.done_octets.saturating_add(octets_read));
        let (packets, errors) = (count(sums.packets, "packet"), count(sums.errors, "error"));
        self.bar.set_message(format!("{packets}, {}/s, {errors}", rate(sums.packets, elapsed)));
    }

    /// The file was sent once.
    pub(super) fn turn_done(&mut self) {
        self.done_octets = self.done_octets.saturating_add(self.file_octets);
    }

    /// Tells a problem, if it is among the first.
    pub(super) fn problem(&mut self, text: &str) {
        self.problems += 1;
        match self.problems {
            ..=PROBLEMS_TOLD => self.tell(text),
            _ if self.problems == PROBLEMS_TOLD + 1 => self.tell("further errors are only counted"),
            _ => {}
        }
    }

    /// Tells something beside the bar.
    pub(super) fn tell(&self, line: &str) {
        self.bar.suspend(|| tell(line));
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    // Not reachable: the template is a constant that a test tries.
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}

const TEMPLATE: &str = "[{bar:30}] {percent:>3} %  {msg}";

/// Packets a second, rounded; what was sent if hardly any time has passed.
pub(super) fn rate(packets: u64, elapsed: Duration) -> Grouped {
    let nanos = elapsed.as_nanos().max(1);
    Grouped(u64::try_from(u128::from(packets) * 1_000_000_000 / nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_understood() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn a_rate_is_packets_a_second() {
        assert_eq!(rate(10_000, Duration::from_millis(500)).to_string(), "20 000");
        assert_eq!(rate(5, Duration::ZERO).to_string(), "5 000 000 000");
    }
}
