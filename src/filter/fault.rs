//! How a call of a filter failed.

use std::time::Duration;

use wasmtime::Trap;

use crate::ledger::FaultKind;

/// How a call of a filter failed, for the log and the counters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Which kind.
    pub kind: FaultKind,
    /// What happened, with the figures and the guest's own frames, in one line.
    pub text: String,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What an error of a call means.
    pub(super) fn of(error: &wasmtime::Error, deadline: Duration) -> Self {
        if let Some(passed) = error.downcast_ref::<LimitPassed>() {
            return Self::new(FaultKind::Limit, passed.to_string());
        }
        let text = one_line(&format!("{error:#}"));
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                Self::new(FaultKind::Deadline, format!("took longer than {} ms: {text}", deadline.as_millis()))
            }
            Some(_) => Self::new(FaultKind::Trap, text),
            // wasmtime has no type for this one; a test holds the text.
            None if text.contains("fuel allocated for hostcalls") => Self::new(
                FaultKind::Limit,
                format!("handed over more octets in one host call than hostcall_octets_max: {text}"),
            ),
            None => Self::new(FaultKind::BadResult, text),
        }
    }
}

/// A limit of ours that a call passed. Ends the call like a trap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("passed {limit}: {actual} of {allowed}")]
pub(super) struct LimitPassed {
    /// The limit's key in the configuration.
    pub(super) limit: &'static str,
    /// What the call wanted.
    pub(super) actual: u64,
    /// What it may have.
    pub(super) allowed: u64,
}

/// A host call that no honest filter makes: it ends the call like a trap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Misuse {
    /// A `batch` handle outlived its call.
    #[error("used a batch after the call that it was given to")]
    StaleBatch,
    /// A function that cannot answer with an error was given an index beyond the batch.
    #[error("there is no packet {index} in a batch of {len}")]
    NoSuchPacket {
        /// The index given.
        index: u32,
        /// Packets of the batch.
        len: usize,
    },
}

/// An error's text in one line: a log line must not be several, and a guest can put line ends into its text.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(part.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    }
    line
}
