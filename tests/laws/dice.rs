//! Choices out of octets.

/// Throws that come from octets, the last octet first; when they are used up, every throw is 0.
///
/// Backwards because a HEP3 packet ends where it says: the octets behind it are free to say what happens to it.
pub(crate) struct Dice<'a> {
    rest: &'a [u8],
}

impl<'a> Dice<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let Some((&last, rest)) = self.rest.split_last() else { return 0 };
        self.rest = rest;
        last
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }

    /// A number from 0 to `n` - 1, or 0 if `n` is 0. `n` is at most 65 536.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.u16()) % n.max(1)
    }

    /// An element, or `None` if there is none.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    /// A length: mostly short, sometimes about as long as a packet may be.
    pub(crate) fn length(&mut self) -> usize {
        match self.u8() % 16 {
            15 => 60_000 + self.below(8_000),
            _ => usize::from(self.u8()),
        }
    }

    /// So many octets. They are told apart by their neighbours, so that a shift shows.
    pub(crate) fn octets(&mut self, n: usize) -> Vec<u8> {
        let first = self.u8();
        let mut octets: Vec<u8> = (first..=255).chain(0..first).collect();
        octets = octets.repeat(n / octets.len() + 1);
        octets.truncate(n);
        octets
    }
}
