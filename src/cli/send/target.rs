//! Where packets are sent: `udp:host:port`, `hep_tcp:[::1]:9060`, `tcp:collector.example.com`.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::cli::capture::Transport;

/// Port of a target that names none (`hep_port`).
const HEP_PORT: u16 = 5656;

/// A transport, a host and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// UDP or TCP.
    pub transport: Transport,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Why a text is no target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// It begins with no transport.
    #[error("write udp:HOST:PORT or tcp:HOST:PORT (or hep_udp:, hep_tcp:)")]
    Transport,
    /// TLS, which `send` does not speak.
    #[error("`send` speaks UDP and TCP, not TLS")]
    Tls,
    /// No host.
    #[error("the host is missing")]
    Host,
    /// A bracket that is not closed, or something odd behind it.
    #[error("write an IPv6 address as [2001:db8::1]:5656, or without a port as [2001:db8::1]")]
    Brackets,
    /// No port number.
    #[error("`{0}` is no port: it is a number from 1 to 65535")]
    Port(String),
}

impl Target {
    /// Its addresses, in the order in which the resolver gives them.
    ///
    /// # Errors
    /// What the resolver says.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (transport, rest) = text.split_once(':').ok_or(TargetError::Transport)?;
        let transport = match transport.to_ascii_lowercase().as_str() {
            "udp" | "hep_udp" => Transport::Udp,
            "tcp" | "hep_tcp" => Transport::Tcp,
            "tls" | "hep_tls" => return Err(TargetError::Tls),
            _ => return Err(TargetError::Transport),
        };
        let (host, port) = split_port(rest)?;
        if host.is_empty() {
            return Err(TargetError::Host);
        }
        let port = port.map_or(Ok(HEP_PORT), parse_port)?;
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

/// Host without brackets, and the text of the port if there is one.
fn split_port(text: &str) -> Result<(&str, Option<&str>), TargetError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or(TargetError::Brackets)?;
        // A zone (fe80::1%eth0) is the resolver's business.
        let address = host.split_once('%').map_or(host, |(address, _)| address);
        address.parse::<Ipv6Addr>().map_err(|_| TargetError::Brackets)?;
        return match (behind, behind.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            _ => Err(TargetError::Brackets),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, port)) if port.contains(':') => Err(TargetError::Brackets),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| TargetError::Port(text.to_owned()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{}:[{host}]:{port}", transport.as_str()),
            false => write!(f, "{}:{host}:{port}", transport.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (text, shown) in [
            ("udp:127.0.0.1:9060", "udp:127.0.0.1:9060"),
            ("hep_udp:127.0.0.1:6061", "udp:127.0.0.1:6061"),
            ("HEP_TCP:collector.example.com", "tcp:collector.example.com:5656"),
            ("tcp:[::1]:9060", "tcp:[::1]:9060"),
            ("udp:[2001:db8::1]", "udp:[2001:db8::1]:5656"),
            ("udp:[fe80::1%eth0]:9060", "udp:[fe80::1%eth0]:9060"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("127.0.0.1:9060", TargetError::Transport),
            ("nothing", TargetError::Transport),
            ("tls:host:1", TargetError::Tls),
            ("udp:", TargetError::Host),
            ("udp::9060", TargetError::Host),
            ("udp:::1", TargetError::Brackets),
            ("udp:[::1", TargetError::Brackets),
            ("udp:[::1]9060", TargetError::Brackets),
            ("udp:[host]:9060", TargetError::Brackets),
            ("udp:host:0", TargetError::Port("0".into())),
            ("udp:host:65536", TargetError::Port("65536".into())),
            ("udp:host:", TargetError::Port(String::new())),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text}");
        }
    }
}
