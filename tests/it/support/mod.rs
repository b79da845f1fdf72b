//! What several of the test modules need.

pub(crate) mod bench;
pub(crate) mod captures;
pub(crate) mod certificates;
pub(crate) mod gateway;
pub(crate) mod guest;
pub(crate) mod peers;
pub(crate) mod settings;
pub(crate) mod soak;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. No test is as long as this unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes. For what another process or thread does, of which there is no other sign.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
