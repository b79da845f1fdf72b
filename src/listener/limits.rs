//! How many connections a listener has, altogether and of each peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::CloseReason;

/// Counts the connections of one listener over all workers. Asked when a connection comes and when it goes.
#[derive(Debug)]
pub struct ConnectionLimits {
    connections_max: usize,
    connections_per_peer_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection that was let in; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    limits: Arc<ConnectionLimits>,
    peer: IpAddr,
}

impl ConnectionLimits {
    /// At most so many, and of one peer address at most so many.
    #[must_use]
    pub fn new(connections_max: usize, connections_per_peer_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, connections_per_peer_max, open: Mutex::default() })
    }

    /// Lets a connection of that peer in, or says which limit keeps it out.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Admitted, CloseReason> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.connections_max {
            return Err(CloseReason::ConnectionsFull);
        }
        let of_peer = open.of.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.connections_per_peer_max {
            return Err(CloseReason::PeerConnectionsFull);
        }
        open.all += 1;
        open.of.insert(peer, of_peer + 1);
        Ok(Admitted { limits: Arc::clone(self), peer })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        let of_peer = open.of.get(&self.peer).copied().unwrap_or(1);
        if of_peer > 1 {
            open.of.insert(self.peer, of_peer - 1);
        } else {
            open.of.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_let_in_as_many_as_they_say_and_not_one_more() {
        let limits = ConnectionLimits::new(3, 2);
        let (a, b, c) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let first = limits.admit(a).unwrap();
        let _second = limits.admit(a).unwrap();
        assert_eq!(limits.admit(a).unwrap_err(), CloseReason::PeerConnectionsFull);
        let _third = limits.admit(b).unwrap();
        assert_eq!(limits.admit(c).unwrap_err(), CloseReason::ConnectionsFull);
        drop(first);
        let _fourth = limits.admit(a).unwrap();
        assert_eq!(limits.admit(c).unwrap_err(), CloseReason::ConnectionsFull);
    }

    #[test]
    fn nothing_is_kept_of_a_peer_that_is_gone() {
        let limits = ConnectionLimits::new(3, 2);
        drop(limits.admit([10, 0, 0, 1].into()).unwrap());
        let open = limits.open.lock().unwrap();
        assert_eq!((open.all, open.of.len()), (0, 0));
    }
}
