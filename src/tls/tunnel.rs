//! What both directions of TLS share.

use std::fmt::Display;

use rustls::{ConnectionCommon, SideData};

/// A connection's octets are not TLS, or one side does not trust the other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TunnelError(String);

/// Turns what goes wrong in the library into a [`TunnelError`].
pub(super) trait TunnelResult<T> {
    fn or_refuse(self) -> Result<T, TunnelError>;
}

impl<T, E: Display> TunnelResult<T> for Result<T, E> {
    fn or_refuse(self) -> Result<T, TunnelError> {
        self.map_err(|reason| TunnelError(reason.to_string()))
    }
}

/// Adds to `octets` what the connection has to send.
pub(super) fn pour<S: SideData>(connection: &mut ConnectionCommon<S>, octets: &mut Vec<u8>) {
    while connection.wants_write() {
        // Into memory: it does not fail, and it gives nothing only when there is nothing.
        if !matches!(connection.write_tls(octets), Ok(1..)) {
            break;
        }
    }
}
