//! Where the store listens, as etcd's flags have it: a URL with an address of this machine, or a socket in the file system.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A URL to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// Whether those who connect speak TLS: `https` and `unixs`.
    pub tls: bool,
    /// Where.
    pub address: ListenAddress,
}

/// What a [`ListenUrl`] listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Why a text is no [`ListenUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be listened on: {reason}")]
pub struct InvalidListenUrl {
    /// The text.
    pub url: String,
    /// What it lacks.
    pub reason: &'static str,
}

impl ListenUrl {
    /// Listens on a port, without TLS.
    pub fn http(address: SocketAddr) -> Self {
        Self { tls: false, address: ListenAddress::Tcp(address) }
    }

    /// Listens on a port, with TLS.
    pub fn https(address: SocketAddr) -> Self {
        Self { tls: true, address: ListenAddress::Tcp(address) }
    }
}

impl FromStr for ListenUrl {
    type Err = InvalidListenUrl;

    /// Reads `http://`, `https://`, `unix://` or `unixs://`. As in etcd, a name cannot be listened on, but for `localhost`.
    fn from_str(url: &str) -> Result<Self, InvalidListenUrl> {
        let invalid = |reason| InvalidListenUrl { url: url.to_owned(), reason };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("begin it with http://, https://, unix:// or unixs://"))?;
        match scheme {
            "unix" | "unixs" if rest.is_empty() => Err(invalid("name a path")),
            "unix" | "unixs" => {
                Ok(Self { tls: scheme == "unixs", address: ListenAddress::Unix(PathBuf::from(rest)) })
            }
            "http" | "https" => {
                let (host, port) = rest
                    .strip_suffix('/')
                    .unwrap_or(rest)
                    .rsplit_once(':')
                    .ok_or_else(|| invalid("name a port"))?;
                let port =
                    port.parse().map_err(|_| invalid("end it with a port, a number from 0 to 65535"))?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let host = match host {
                    "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    host => host.parse().map_err(|_| invalid("name an IP address of this machine"))?,
                };
                let address = ListenAddress::Tcp(SocketAddr::new(host, port));
                Ok(Self { tls: scheme == "https", address })
            }
            _ => Err(invalid("begin it with http://, https://, unix:// or unixs://")),
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls { "s" } else { "" };
        match &self.address {
            ListenAddress::Tcp(address) => write!(formatter, "http{secure}://{address}"),
            ListenAddress::Unix(path) => write!(formatter, "unix{secure}://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_they_are_written() {
        for text in ["http://127.0.0.1:2380", "https://[::1]:0", "unix://a/b", "unixs:///run/store"] {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), text);
        }
        assert_eq!("http://localhost:1".parse(), "http://127.0.0.1:1".parse::<ListenUrl>());
    }

    #[test]
    fn what_is_no_url_of_this_machine_is_refused() {
        for text in [
            "",
            "127.0.0.1:2380",
            "http://name:1",
            "http://1.2.3.4",
            "http://1.2.3.4:x",
            "unix://",
            "ftp://1.2.3.4:1",
        ] {
            let error = text.parse::<ListenUrl>().unwrap_err();
            assert_eq!(error.url, text);
        }
    }
}
