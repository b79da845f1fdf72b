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
        let late = || format!("took longer than {} ms", deadline.as_millis());
        match error.downcast_ref::<Refused>() {
            Some(Refused::Limit(passed)) => return Self::new(FaultKind::Limit, passed.to_string()),
            Some(Refused::TooLate) => return Self::new(FaultKind::Deadline, format!("{}, in host calls", late())),
            None => {}
        }
        let text = clean(&format!("{error:#}"), TEXT_OCTETS_MAX);
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::new(FaultKind::Deadline, format!("{}: {text}", late())),
            Some(Trap::OutOfFuel) => Self::new(FaultKind::Limit, format!("passed fuel_per_packet_max: {text}")),
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

/// Why a host call ends the call that made it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A limit of ours.
    #[error(transparent)]
    Limit(#[from] LimitPassed),
    /// The call's time is over.
    #[error("the call's time is over")]
    TooLate,
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

/// Octets of a guest's text in a fault: room for some frames, whose names are the guest's word and of any length.
pub(super) const TEXT_OCTETS_MAX: usize = 2_000;

/// A guest's text as it may stand in a log: in one line, cut to so many octets, and without characters that move a
/// terminal's cursor or turn the order of what is read.
pub(super) fn clean(text: &str, octets_max: usize) -> String {
    let cut = text.floor_char_boundary(octets_max);
    let (kept, rest) = text.split_at(cut);
    let mut line = String::with_capacity(kept.len());
    for part in kept.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(part.chars().map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER }));
    }
    if !rest.is_empty() {
        line.push('…');
    }
    line
}

fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_is_one_line_without_tricks_and_cut() {
        for (text, octets_max, expected) in [
            ("a\nb\r\n\tc", 100, "a b c"),
            ("\u{1b}[2Jgone", 100, "\u{fffd}[2Jgone"),
            ("x\u{202e}y\u{2066}z\u{feff}", 100, "x\u{fffd}y\u{fffd}z\u{fffd}"),
            ("12345", 5, "12345"),
            ("123456", 5, "12345…"),
            ("ää", 3, "ä…"),
        ] {
            assert_eq!(clean(text, octets_max), expected, "{text:?}");
        }
    }
}
