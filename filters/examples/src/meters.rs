//! Metrics of one's own.

use hepgate_filter::{Counter, Gauge, Histogram, MetricError};

use crate::checks::Checks;

// example: metrics.counter.declare
/// In `init`. On /metrics it is `hepgate_guest_calls`.
fn calls() -> Result<Counter, MetricError> {
    Counter::declare("calls", "Calls by how they ended", &["ended".to_owned()])
}
// end

// example: metrics.counter.add
/// Several at once are one host call.
fn count_calls(calls: &Counter, ended: &str, by: u64) -> Result<(), MetricError> {
    calls.add(&[ended.to_owned()], by)
}
// end

// example: metrics.gauge.declare
/// Without labels it is one series.
pub(crate) fn waiting() -> Result<Gauge, MetricError> {
    Gauge::declare("waiting", "Calls that are not answered yet", &[])
}
// end

// example: metrics.gauge.set
/// What it is now: instances share the series, so the last one that says so is right.
pub(crate) fn set_waiting(waiting: &Gauge, calls: u32) -> Result<(), MetricError> {
    waiting.set(&[], f64::from(calls))
}
// end

// example: metrics.histogram.declare
/// Up to a second, up to ten, and longer: the last bound is added.
fn ringing() -> Result<Histogram, MetricError> {
    Histogram::declare("ringing_seconds", "How long it rang", &[], &[1.0, 10.0])
}
// end

// example: metrics.histogram.observe
/// From the times of capture.
fn observe_ringing(ringing: &Histogram, invite_at: u64, answer_at: u64) -> Result<(), MetricError> {
    let microseconds = answer_at.saturating_sub(invite_at);
    ringing.observe(&[], microseconds as f64 / 1_000_000.0)
}
// end

#[derive(Debug)]
pub(crate) struct Meters {
    calls: Counter,
    ringing: Histogram,
}

impl Meters {
    pub(crate) fn declare(checks: &mut Checks) -> Result<Self, MetricError> {
        let meters = Self { calls: calls()?, ringing: ringing()? };
        checks.ran("metrics.counter.declare");
        checks.ran("metrics.histogram.declare");
        Ok(meters)
    }

    /// What they count is seen in the results.
    pub(crate) fn check(&self, checks: &mut Checks) {
        checks.is("metrics.counter.add", count_calls(&self.calls, "answered", 2).is_ok(), true);
        checks.is("metrics.histogram.observe", observe_ringing(&self.ringing, 1_000_000, 3_500_000).is_ok(), true);
    }
}
