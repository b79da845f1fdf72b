//! Packets on their way through a chain.

use crate::message::Received;

/// What the filters so far have said of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// A filter has answered `skip`.
    pub skipped: bool,
    /// Nobody sees it any more; it goes at the next [`Work::sweep`].
    pub gone: bool,
    /// Filters that failed on it and leave it to the tenant what becomes of it.
    pub failures: u32,
}

/// Packets on their way through a chain, each with its mark.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// The packets, as the filters so far have left them.
    pub packets: Vec<Received>,
    /// One for each packet.
    pub marks: Vec<Mark>,
}

impl Work {
    /// Packets that no filter has seen.
    #[must_use]
    pub fn new(packets: Vec<Received>) -> Self {
        let marks = vec![Mark::default(); packets.len()];
        Self { packets, marks }
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Removes the packets that are gone.
    pub fn sweep(&mut self) {
        self.keep(|mark| !mark.gone);
    }

    /// Removes the packets whose marks are not wanted, in one pass and with the order kept.
    pub fn keep(&mut self, wanted: impl Fn(&Mark) -> bool) {
        if self.marks.iter().all(&wanted) {
            return;
        }
        let mut marks = self.marks.iter();
        self.packets.retain(|_| marks.next().is_some_and(&wanted));
        self.marks.retain(wanted);
    }
}
