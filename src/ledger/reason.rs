//! Why something was not kept, closed or failed. Each reason is error text, log field and metric label.

/// Makes an enum of reasons with its labels and the list of all, which the counters are laid out by.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Metric label and log field.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a HEP packet was not kept.
    DropReason {
        /// It is a header and nothing else: it has done its work by arriving.
        KeepAlive = "keep-alive",
        /// No tenant's rules match it and there is no default tenant.
        NoTenant = "no-tenant",
        /// More packets of the tenant came than `packets_per_second_max`.
        PacketQuota = "packet-quota",
        /// More octets of the tenant came than `octets_per_second_max`.
        OctetQuota = "octet-quota",
        /// Its connection is one more than the tenant's `connections_max`.
        ConnectionQuota = "connection-quota",
        /// The worker already has as many batches of this listener as it may.
        ChainFull = "chain-full",
        /// The tenant's chain is in the slow lane and as many batches wait for it as may.
        SlowLaneFull = "slow-lane-full",
        /// A filter failed, and `on_error` says drop.
        FilterFailed = "filter-failed",
        /// The tenant has no collectors.
        NoRoute = "no-route",
        /// More octets wait for the collector than may.
        MailboxFull = "mailbox-full",
        /// More packets wait for the connection than `hep_async_max_postponed_chunks`.
        PostponedFull = "postponed-full",
        /// The connection broke while the packet was half written.
        ConnectionBroken = "connection-broken",
        /// The collector's version cannot hold it.
        CannotEncode = "cannot-encode",
        /// It does not fit a datagram or a captured packet.
        TooLong = "too-long",
        /// There is no captured packet in it that could be written.
        NotCaptured = "not-captured",
        /// The collector was not there for `hep_send_timeout`, and `hep_async` is 0.
        NotConnected = "not-connected",
        /// Nobody listens at the collector's address, or there is no way to it.
        Unreachable = "unreachable",
        /// The system refused to send or write it.
        WriteFailed = "write-failed",
        /// The gateway was stopping and its grace period was over.
        Stopping = "stopping",
    }
}

reasons! {
    /// Why a connection was closed or not taken.
    CloseReason {
        /// The peer closed it between two packets.
        PeerClosed = "peer-closed",
        /// The peer closed it in the middle of a packet.
        PeerClosedMidPacket = "peer-closed-mid-packet",
        /// Nothing came for as long as the listener's `idle`.
        Idle = "idle",
        /// What came is not HEP3.
        NotHep = "not-hep",
        /// A packet stated fewer octets than its header has.
        StatedLength = "stated-length",
        /// A packet took more reads than `hep_max_msg_chunks`.
        TooManyReads = "too-many-reads",
        /// The system reported an error, such as a reset.
        Broken = "broken",
        /// The listener has as many connections as `connections_max`.
        ConnectionsFull = "connections-full",
        /// The peer has as many connections as `connections_per_peer_max`.
        PeerConnectionsFull = "peer-connections-full",
        /// A tenant whose packets it brought has as many connections as its `connections_max`.
        TenantConnectionsFull = "tenant-connections-full",
        /// The TLS handshake took longer than `handshake_timeout`.
        HandshakeTimeout = "handshake-timeout",
        /// What came is not TLS, or the agent is not let in, or it does not trust us.
        HandshakeFailed = "handshake-failed",
        /// After the handshake something came that is not TLS.
        TlsBroken = "tls-broken",
        /// The gateway is stopping.
        Stopping = "stopping",
    }
}

reasons! {
    /// How a call of a filter failed.
    FaultKind {
        /// The guest trapped: unreachable, out of bounds, stack overflow, …
        Trap = "trap",
        /// The call took longer than its deadline.
        Deadline = "deadline",
        /// A limit on what one call may ask of the host was passed.
        Limit = "limit",
        /// It returned something that is not a list of verdicts, one for each packet.
        BadResult = "bad-result",
        /// `init` returned an error, or the instance could not be made.
        Init = "init",
        /// The host itself panicked in the call.
        HostPanic = "host-panic",
        /// The thread that ends overlong calls is late, so no guest may run.
        TickerLate = "ticker-late",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_every_reason_stands_at_its_own_place() {
        fn check<T: Copy + std::fmt::Display>(all: &[T], index: impl Fn(T) -> usize) {
            let labels: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
            assert_eq!(labels.len(), all.len());
            for (place, reason) in all.iter().enumerate() {
                assert_eq!(index(*reason), place, "{reason}");
            }
        }
        check(DropReason::ALL, |reason| reason as usize);
        check(CloseReason::ALL, |reason| reason as usize);
        check(FaultKind::ALL, |reason| reason as usize);
    }
}
