//! To collectors.

use hepgate_filter::{Batch, Collector, SendError, Verdict};

use crate::checks::Checks;
use crate::packing::log_packet;

// example: sending.collector.open
/// In `init`, so that a wrong name keeps the gateway from starting.
pub(crate) fn open(name: &str) -> Result<Collector, String> {
    Collector::open(name).map_err(|_| format!("{name:?} is not among this filter's collectors = [...]"))
}
// end

// example: sending.collector.send
/// Says a line where logs go. What is over the quota, or waits too long, is not worth an error.
fn tell(collector: &Collector, line: &str) -> Result<bool, String> {
    let packet = log_packet(line).map_err(|error| error.to_string())?;
    match collector.send(&packet) {
        Ok(()) => Ok(true),
        Err(SendError::Quota | SendError::PostponedFull) => Ok(false),
        Err(other) => Err(other.to_string()),
    }
}
// end

// example: sending.collector.correlate
/// Two legs are one call.
fn join(collector: &Collector, one_leg: &str, other_leg: &str) -> Result<(), SendError> {
    collector.correlate("sip", one_leg, "sip-leg", other_leg)
}
// end

// example: sending.collector.relay
/// To that collector instead of the tenant's route; to the route, if it cannot be sent.
fn reroute(collector: &Collector, batch: &Batch, index: u32) -> Verdict {
    match collector.relay(batch, index) {
        Ok(()) => Verdict::Skip,
        Err(_) => Verdict::Pass,
    }
}
// end

pub(crate) fn check(checks: &mut Checks, collector: &Collector, batch: &Batch) {
    checks.is("sending.collector.send", tell(collector, "a line"), Ok(true));
    checks.is("sending.collector.correlate", join(collector, "one@192.0.2.10", "two@192.0.2.10").is_ok(), true);
    checks.is("sending.collector.relay", reroute(collector, batch, 14), Verdict::Skip);
    assert!(open("nobody").is_err(), "it was not granted");
}
