//! What all collectors count and say.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::CollectorId;
use crate::ledger::{CollectorCount, DropReason, Page};
use crate::pace::Repeated;

/// Log lines of one collector on one worker.
const LINES_MAX: u32 = 10;
const LINES_WINDOW: Duration = Duration::from_secs(10);

/// Counts for one collector, and says what went wrong, at a bounded rate.
#[derive(Debug)]
pub struct Counter {
    id: CollectorId,
    name: String,
    page: Rc<Page>,
    said: Repeated,
}

impl Counter {
    /// For the collector of that id and name, counting on that page.
    #[must_use]
    pub fn new(id: CollectorId, name: &str, page: Rc<Page>) -> Self {
        Self { id, name: name.to_owned(), page, said: Repeated::new(LINES_MAX, LINES_WINDOW) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Packets that waited and are sent.
    pub(super) fn sent(&self, packets: usize, octets: usize) {
        if packets == 0 {
            return;
        }
        let writing = self.page.write();
        writing.collector_less(self.id, CollectorCount::Waiting, wide(packets));
        writing.collector(self.id, CollectorCount::Sent, wide(packets));
        writing.collector(self.id, CollectorCount::SentOctets, wide(octets));
    }

    /// Packets that waited and are not sent. The log says so with `what` happened.
    pub(super) fn dropped(&mut self, packets: usize, reason: DropReason, what: &dyn std::fmt::Display, now: Instant) {
        if packets == 0 {
            return;
        }
        let writing = self.page.write();
        writing.collector_less(self.id, CollectorCount::Waiting, wide(packets));
        writing.collector(self.id, CollectorCount::Dropped(reason), wide(packets));
        drop(writing);
        if let Some(unsaid) = self.said.say(now) {
            tracing::warn!(collector = self.name, packets, reason = reason.as_str(), unsaid, "dropped: {what}");
        }
    }

    pub(super) fn event(&self, count: CollectorCount) {
        self.page.write().collector(self.id, count, 1);
    }

    /// Whether one more line may be said now, and how many were not since the last.
    pub(super) fn may_say(&mut self, now: Instant) -> Option<u64> {
        self.said.say(now)
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
