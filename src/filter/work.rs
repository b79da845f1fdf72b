//! Packets on their way through a chain.

use std::sync::Arc;

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

/// Some of the packets of a [`Work`], in their order: what one call is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// `None`: these are one after the other.
    picked: Option<Arc<[usize]>>,
    first: usize,
    len: usize,
}

impl Part {
    /// `len` packets from `first` on.
    #[must_use]
    pub const fn run(first: usize, len: usize) -> Self {
        Self { picked: None, first, len }
    }

    /// The packets at these places, which rise.
    #[must_use]
    pub fn picked(places: Vec<usize>) -> Self {
        Self { len: places.len(), first: 0, picked: Some(places.into()) }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the work the packet of that index is.
    #[must_use]
    pub fn place(&self, index: usize) -> Option<usize> {
        if index >= self.len {
            return None;
        }
        match &self.picked {
            None => Some(self.first + index),
            Some(places) => places.get(self.first + index).copied(),
        }
    }

    /// The places of all of them.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter_map(|index| self.place(index))
    }

    /// Its two halves.
    #[must_use]
    pub fn halves(&self) -> [Self; 2] {
        let half = self.len / 2;
        let (mut left, mut right) = (self.clone(), self.clone());
        left.len = half;
        right.first += half;
        right.len -= half;
        [left, right]
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_part_are_its_packets_in_order() {
        for part in [Part::run(3, 5), Part::picked(vec![1, 4, 5, 9, 11])] {
            let [left, right] = part.halves();
            let halves: Vec<usize> = left.places().chain(right.places()).collect();
            assert_eq!(halves, part.places().collect::<Vec<_>>());
            assert_eq!((left.len(), right.len()), (2, 3));
            let [one, other] = right.halves()[1].halves();
            assert_eq!((one.len(), other.len()), (1, 1));
            assert_eq!(other.place(0), part.place(4));
            assert_eq!(part.place(5), None);
        }
    }
}
