//! Addresses as OpenSIPS writes them: `hep_udp:127.0.0.1:6061`, `hep_tcp:[::1]:6061`, and without a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// How HEP travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// Datagrams: HEP1, HEP2 and HEP3.
    Udp,
    /// A stream: HEP3 only.
    Tcp,
    /// The same through TLS.
    Tls,
}

impl Transport {
    /// As in logs, metrics and the filter interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The number that IP has for it: 17 or 6.
    #[must_use]
    pub const fn ip_protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp | Self::Tls => 6,
        }
    }
}

/// Where a listener binds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenAddr {
    /// What comes there.
    pub transport: Transport,
    /// The address; `None` is `*`: every address of the host, IPv6 and IPv4, or IPv4 alone where there is no IPv6.
    pub ip: Option<IpAddr>,
    /// The port; 0 lets the system choose one.
    pub port: u16,
}

impl ListenAddr {
    /// Reads `hep_udp:HOST[:PORT]`. `HOST` is an address (IPv6 in brackets) or `*`.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (transport, rest) = split_transport(text)?;
        let (host, port) = split_port(rest, default_port)?;
        if host == "*" {
            return Ok(Self { transport, ip: None, port });
        }
        let ip =
            host.parse().map_err(|_| format!("{host:?} is not an IP address; a listener takes one, or * for all"))?;
        Ok(Self { transport, ip: Some(ip), port })
    }

    /// What to bind, in the order in which to try.
    #[must_use]
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match self.ip {
            Some(ip) => vec![SocketAddr::new(ip, self.port)],
            None => vec![
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port),
                SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), self.port),
            ],
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hep_{}:", self.transport.as_str())?;
        match self.ip {
            Some(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            None => write!(f, "*:{}", self.port),
        }
    }
}

/// A collector's address: a name or an IP address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RemoteAddr {
    /// How packets go there.
    pub transport: Transport,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl RemoteAddr {
    /// Reads `hep_udp:HOST[:PORT]`, where HOST may be a name.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (transport, rest) = split_transport(text)?;
        Self::parse_at(transport, rest, default_port)
    }

    /// Reads `HOST[:PORT]`, for a transport that was said elsewhere.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse_at(transport: Transport, text: &str, default_port: u16) -> Result<Self, String> {
        let (host, port) = split_port(text, default_port)?;
        if host.is_empty() || host == "*" {
            return Err(format!("{text:?} names no host to send to"));
        }
        if host.contains(char::is_whitespace) {
            return Err(format!("{host:?} has a space in it, so it is no host"));
        }
        if port == 0 {
            return Err(format!("{text:?} names port 0, to which nothing can be sent"));
        }
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, host, port } = self;
        let transport = transport.as_str();
        if host.contains(':') {
            return write!(f, "hep_{transport}:[{host}]:{port}");
        }
        write!(f, "hep_{transport}:{host}:{port}")
    }
}

fn split_transport(text: &str) -> Result<(Transport, &str), String> {
    if let Some(rest) = text.strip_prefix("hep_udp:") {
        return Ok((Transport::Udp, rest));
    }
    if let Some(rest) = text.strip_prefix("hep_tcp:") {
        return Ok((Transport::Tcp, rest));
    }
    if let Some(rest) = text.strip_prefix("hep_tls:") {
        return Ok((Transport::Tls, rest));
    }
    Err(format!("{text:?} does not begin with hep_udp:, hep_tcp: or hep_tls:"))
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn split_port(text: &str, default_port: u16) -> Result<(&str, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks a closing ]"))?;
            match (rest, rest.strip_prefix(':')) {
                ("", _) => (host, None),
                (_, Some(port)) => (host, Some(port)),
                _ => return Err(format!("{text:?}: after ] comes :PORT or nothing")),
            }
        }
        None if text.matches(':').count() > 1 => {
            return Err(format!("{text:?}: an IPv6 address stands in brackets, as in [::1]:5656"));
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        None => Ok((host, default_port)),
        Some(port) => {
            let number = port.parse().map_err(|_| format!("{port:?} is not a port between 0 and 65535"))?;
            Ok((host, number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_written_as_in_opensips() {
        for (text, shown) in [
            ("hep_udp:127.0.0.1:6061", "hep_udp:127.0.0.1:6061"),
            ("hep_tcp:10.0.0.1", "hep_tcp:10.0.0.1:5656"),
            ("hep_udp:[::1]:6061", "hep_udp:[::1]:6061"),
            ("hep_tcp:[::]", "hep_tcp:[::]:5656"),
            ("hep_udp:*:9060", "hep_udp:*:9060"),
            ("hep_udp:*", "hep_udp:*:5656"),
            ("hep_tls:*:9061", "hep_tls:*:9061"),
        ] {
            assert_eq!(ListenAddr::parse(text, 5656).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_listener_is_refused_with_its_reason() {
        for (text, reason) in [
            ("udp:127.0.0.1:6061", "does not begin with hep_udp:, hep_tcp: or hep_tls:"),
            ("hep_udp:::1:6061", "an IPv6 address stands in brackets"),
            ("hep_udp:localhost:6061", "is not an IP address"),
            ("hep_udp:127.0.0.1:66000", "is not a port between 0 and 65535"),
            ("hep_udp:127.0.0.1:", "is not a port between 0 and 65535"),
            ("hep_udp:[::1", "lacks a closing ]"),
            ("hep_udp:[::1]6061", "after ] comes :PORT or nothing"),
        ] {
            let refused = ListenAddr::parse(text, 5656).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn a_collector_may_be_a_name() {
        for (text, shown) in [
            ("hep_udp:homer.example.org:9060", "hep_udp:homer.example.org:9060"),
            ("hep_tcp:homer", "hep_tcp:homer:5656"),
            ("hep_tcp:[2001:db8::1]:9060", "hep_tcp:[2001:db8::1]:9060"),
        ] {
            assert_eq!(RemoteAddr::parse(text, 5656).unwrap().to_string(), shown);
        }
        for text in ["hep_udp:", "hep_udp:*:9060", "hep_udp:homer:0"] {
            assert!(RemoteAddr::parse(text, 5656).is_err(), "{text}");
        }
    }
}
