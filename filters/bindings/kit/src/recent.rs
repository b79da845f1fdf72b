//! What was seen lately: a map that forgets what is oldest when it is full, so that its memory is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keys with values, of which the oldest goes when there is no room for one more.
#[derive(Clone, Debug)]
pub struct Recent<K, V> {
    values: HashMap<K, V>,
    /// Keys, the one that came first in front.
    order: VecDeque<K>,
    entries_max: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    /// Empty, with room for so many keys, at least one.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), entries_max: entries_max.max(1) }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    /// Sets a key's value and gives the one that had to go for it, if any. A key that was there keeps its age.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.values.insert(key, value).is_some() {
            return None;
        }
        self.order.push_back(key);
        if self.order.len() > self.entries_max { self.forget_oldest() } else { None }
    }

    /// Forgets the oldest keys as long as `is_over` says so of their values.
    pub fn forget_while(&mut self, mut is_over: impl FnMut(&V) -> bool) {
        while self.order.front().and_then(|key| self.values.get(key)).is_some_and(&mut is_over) {
            self.forget_oldest();
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget_oldest(&mut self) -> Option<V> {
        let key = self.order.pop_front()?;
        self.values.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_the_newest() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.insert('a', 1), None);
        assert_eq!(recent.insert('b', 2), None);
        assert_eq!(recent.insert('a', 3), None, "it was there");
        assert_eq!(recent.insert('c', 4), Some(3), "a is the oldest nevertheless");
        assert_eq!((recent.get(&'a'), recent.get(&'b'), recent.get(&'c')), (None, Some(&2), Some(&4)));
        assert_eq!(recent.len(), 2);
    }

    #[test]
    fn what_is_over_is_forgotten_from_the_front() {
        let mut recent = Recent::new(8);
        for at in [1, 2, 9, 3] {
            recent.insert(at, at);
        }
        recent.forget_while(|at| *at < 5);
        assert_eq!(recent.len(), 2, "3 came after 9 and waits for it");
        recent.forget_while(|_| true);
        assert!(recent.is_empty());
    }
}
