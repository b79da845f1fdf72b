//! What a filter did with a capture, as far as it is the same on every machine: what golden results are made of.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::changes::changes;
use crate::cli::printer::{hex, one_line};
use crate::filter::{Fault, LogLevel, LogLine, MetricSample, MetricValue, Verdict};
use crate::wire::Packet;

/// What a filter did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// One for each packet of the capture, in order.
    pub(super) packets: Vec<Treated>,
    /// What it sent, in order.
    pub(super) sent: Vec<Sending>,
    /// The lines that it wrote.
    pub(super) log: Vec<String>,
    /// Its metrics at the end.
    pub(super) metrics: Vec<String>,
}

/// What became of a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Treated {
    pub(super) verdict: Fate,
    /// How it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) edited: Option<Edited>,
}

/// What a filter said of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    Pass,
    Skip,
    Drop,
    /// The filter has not subscribed to it.
    NotSeen,
    /// The call failed.
    Failed,
}

/// A packet that was changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edited {
    pub(super) octets: usize,
    /// Of the whole packet.
    pub(super) sha256: String,
    pub(super) changes: Vec<String>,
}

/// A packet that was sent or relayed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sending {
    pub(super) to: String,
    pub(super) packet: String,
    pub(super) octets: usize,
    pub(super) sha256: String,
}

impl Fate {
    pub(super) const ALL: [Self; 5] = [Self::Pass, Self::Skip, Self::Drop, Self::NotSeen, Self::Failed];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Drop => "drop",
            Self::NotSeen => "not seen",
            Self::Failed => "failed",
        }
    }
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Skip => Self::Skip,
            Verdict::Drop => Self::Drop,
        }
    }
}

impl Treated {
    pub(super) fn new(verdict: Fate, before: &Packet, after: &Packet) -> Self {
        let edited = (before.octets() != after.octets()).then(|| Edited {
            octets: after.octets().len(),
            sha256: sha256(after),
            changes: changes(before, after),
        });
        Self { verdict, edited }
    }
}

impl Sending {
    pub(super) fn new(to: String, packet: &Packet) -> Self {
        Self { to, packet: one_line(packet), octets: packet.octets().len(), sha256: sha256(packet) }
    }
}

impl Record {
    /// How many packets fared so.
    pub(super) fn count(&self, verdict: Fate) -> usize {
        self.packets.iter().filter(|packet| packet.verdict == verdict).count()
    }

    /// How many packets were changed.
    pub(super) fn edited(&self) -> usize {
        self.packets.iter().filter(|packet| packet.edited.is_some()).count()
    }

    /// Where two differ: first what is of one packet, then the rest, each as a line that was and one that is.
    pub(super) fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for index in 0..self.packets.len().max(other.packets.len()) {
            let (was, is) = (self.packets.get(index), other.packets.get(index));
            if was != is {
                let lines =
                    |treated: Option<&Treated>| treated.map_or_else(|| vec!["not there".to_owned()], Treated::lines);
                differences.push(Difference { place: Place::Packet(index), was: lines(was), is: lines(is) });
            }
        }
        let sendings = |record: &Self| record.sent.iter().map(Sending::line).collect::<Vec<_>>();
        for (place, was, is) in [
            (Place::Sent, sendings(self), sendings(other)),
            (Place::Log, self.log.clone(), other.log.clone()),
            (Place::Metrics, self.metrics.clone(), other.metrics.clone()),
        ] {
            if was != is {
                differences.push(Difference { place, was: without(&was, &is), is: without(&is, &was) });
            }
        }
        differences
    }
}

/// The lines that are not in the others, as often as they are not; all of them if only the order differs.
fn without(lines: &[String], others: &[String]) -> Vec<String> {
    let mut others = others.to_vec();
    let mut rest = Vec::new();
    for line in lines {
        match others.iter().position(|other| other == line) {
            Some(place) => {
                others.swap_remove(place);
            }
            None => rest.push(line.clone()),
        }
    }
    if rest.is_empty() && others.is_empty() { lines.to_vec() } else { rest }
}

/// Where two records differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) place: Place,
    pub(super) was: Vec<String>,
    pub(super) is: Vec<String>,
}

/// In what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A packet, counted from 0.
    Packet(usize),
    Sent,
    Log,
    Metrics,
}

impl Treated {
    /// The verdict, and each change.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.verdict.as_str().to_owned()];
        if let Some(edited) = &self.edited {
            lines.extend(edited.changes.iter().cloned());
            lines.push(format!("{} octets, sha256 {}", edited.octets, edited.sha256));
        }
        lines
    }
}

impl Sending {
    pub(super) fn line(&self) -> String {
        format!("to {}: {}, {} octets, sha256 {}", self.to, self.packet, self.octets, self.sha256)
    }
}

fn sha256(packet: &Packet) -> String {
    hex(&Sha256::digest(packet.octets()))
}

/// A log line with its level.
pub(super) fn log_line(line: &LogLine) -> String {
    let level = match line.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    format!("{level}: {}", line.text)
}

/// A fault with its kind.
pub(super) fn fault_line(fault: &Fault) -> String {
    format!("{}: {}", fault.kind.as_str(), fault.text)
}

/// A series, as Prometheus would write it.
pub(super) fn metric_line(sample: &MetricSample) -> String {
    let labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let value = match &sample.value {
        MetricValue::Counter(sum) => sum.to_string(),
        MetricValue::Gauge(value) => value.to_string(),
        MetricValue::Histogram(counts, sum) => {
            format!("{} values, sum {sum}, by bounds {counts:?}", counts.iter().sum::<u64>())
        }
    };
    format!("{}{labels} {value}", sample.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn record(verdicts: &[Fate], log: &[&str]) -> Record {
        let packets = verdicts.iter().map(|verdict| Treated { verdict: *verdict, edited: None }).collect();
        Record { packets, log: texts(log), ..Record::default() }
    }

    #[test]
    fn the_same_has_no_difference_and_everything_else_has_one() {
        let one = record(&[Fate::Pass, Fate::Drop], &["info: a", "info: b"]);
        assert_eq!(one.differences(&one), []);
        let other = record(&[Fate::Pass, Fate::Skip, Fate::Pass], &["info: b", "info: c"]);
        let expected = [
            (Place::Packet(1), texts(&["drop"]), texts(&["skip"])),
            (Place::Packet(2), texts(&["not there"]), texts(&["pass"])),
            (Place::Log, texts(&["info: a"]), texts(&["info: c"])),
        ];
        assert_eq!(one.differences(&other), expected.map(|(place, was, is)| Difference { place, was, is }));
    }

    #[test]
    fn another_order_is_a_difference_that_shows_all_of_it() {
        let (one, other) = (record(&[], &["a", "b"]), record(&[], &["b", "a"]));
        let expected = Difference { place: Place::Log, was: texts(&["a", "b"]), is: texts(&["b", "a"]) };
        assert_eq!(one.differences(&other), [expected]);
    }

    #[test]
    fn what_is_written_reads_back_and_an_unknown_field_is_refused() {
        let one = record(&[Fate::NotSeen, Fate::Failed], &["x"]);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), one);
        assert!(serde_json::from_str::<Record>(&text.replacen("\"log\"", "\"lag\"", 1)).is_err());
    }
}
