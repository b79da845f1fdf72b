//! Making the connection to a collector, with TLS if it is wanted.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::channel::{Channel, READ_OCTETS, broken};
use crate::config::RemoteAddr;
use crate::tls::ClientTunnel;

/// The TLS that a connection shall have.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) tunnel: ClientTunnel,
    pub(super) handshake_timeout: Duration,
}

/// A connection through which packets can go.
///
/// # Errors
/// Nobody answered, or not in time, or it was not whom we trust.
pub(super) async fn connect(
    to: RemoteAddr,
    timeout: Duration,
    wanted: Option<Wanted>,
) -> io::Result<(TcpStream, Channel)> {
    // The name is looked up each time: a collector may have moved.
    let answer = TcpStream::connect((to.host, to.port));
    let mut stream = in_time(timeout, "answer", "connect_timeout", answer).await?;
    stream.set_nodelay(true)?;
    let Some(Wanted { mut tunnel, handshake_timeout }) = wanted else { return Ok((stream, Channel::Plain)) };
    let handshake = shake_hands(&mut stream, &mut tunnel);
    in_time(handshake_timeout, "end of the TLS handshake", "handshake_timeout", handshake).await?;
    Ok((stream, Channel::Tls(Box::new(tunnel))))
}

async fn in_time<T>(
    timeout: Duration,
    what: &str,
    key: &str,
    wait: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no {what} in {} ms ({key})", timeout.as_millis()));
    tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| Err(late()))
}

async fn shake_hands(stream: &mut TcpStream, tunnel: &mut ClientTunnel) -> io::Result<()> {
    let mut octets = vec![0; READ_OCTETS];
    loop {
        say(stream, tunnel).await?;
        if !tunnel.is_handshaking() {
            return Ok(());
        }
        let read = stream.read(&mut octets).await?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the collector in the TLS handshake"));
        }
        if let Err(error) = tunnel.take(octets.get(..read).unwrap_or_default()) {
            // The collector should hear why; if it does not, we know all the same.
            let _ = say(stream, tunnel).await;
            return Err(broken(error));
        }
    }
}

async fn say(stream: &mut TcpStream, tunnel: &mut ClientTunnel) -> io::Result<()> {
    let octets = tunnel.outgoing().len();
    stream.write_all(tunnel.outgoing()).await?;
    tunnel.advance(octets);
    Ok(())
}
