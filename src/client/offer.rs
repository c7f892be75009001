//! Offers (-R): a service of the server that this computer serves.

use super::error::{Error, reason};
use super::{messages, paths, syntax};
use crate::sys::local::Address;
use crate::sys::{dial, local};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What the five that made an offer is told when `-O cancel` has ended it.
pub const CANCELLED: &str = "it was cancelled (five -O cancel)";

/// What serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A name or an address, and a port.
    Port(String, u16),
    /// A Unix socket.
    Path(String),
}

/// An offer as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub service: String,
    pub local: Local,
}

/// An offer, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    pub offer: Offer,
    pub origin: Origin,
}

/// Who asked for a forward, or for an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It ends with the session, which it does not keep.
    Configuration,
    /// -O: it keeps the session until it is cancelled.
    Order,
    /// Of an offer: a caller, with which it ends.
    Caller,
}

impl Origin {
    /// For `-O list`.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Configuration => "configuration",
            Origin::Order => "order",
            Origin::Caller => "call",
        }
    }
}

/// What is expected, for messages.
pub const EXPECTED: &str = "expected SERVICE:ADDRESS:PORT or SERVICE:/PATH";

impl Offer {
    /// `name:address:port` or `name:/path`. Err: the message.
    pub fn read(text: &str) -> Result<Offer, String> {
        let wrong = || format!("-R {text}: {EXPECTED}");
        let (service, local) = match text.split_once(":/") {
            // With the first slash, and no byte more than a socket's path may have.
            Some((_, path)) if path.len() >= local::NAME_MAX => {
                let most = local::NAME_MAX;
                return Err(format!("-R {text}: the path of a socket has at most {most} bytes"));
            }
            Some((service, path)) => (service, Local::Path(format!("/{path}"))),
            None => {
                let (rest, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
                let (service, address) = match rest.strip_suffix(']') {
                    Some(rest) => rest.rsplit_once(":[").ok_or_else(wrong)?,
                    None => rest.rsplit_once(':').ok_or_else(wrong)?,
                };
                if !syntax::is_host(address) {
                    return Err(wrong());
                }
                (service, Local::Port(address.into(), port))
            }
        };
        match syntax::is_name(service) && !service.contains(char::is_whitespace) {
            true => Ok(Offer { service: service.into(), local }),
            false => Err(wrong()),
        }
    }

    /// As [`Offer::read`] reads it.
    pub fn text(&self) -> String {
        format!("{}:{}", self.service, self.target())
    }

    /// What serves it, for messages.
    pub fn target(&self) -> String {
        match &self.local {
            Local::Port(address, port) if address.contains(':') => format!("[{address}]:{port}"),
            Local::Port(address, port) => format!("{address}:{port}"),
            Local::Path(path) => path.clone(),
        }
    }

    /// The same with an address in place of a name, so that another process, which must not wait
    /// for an answer of DNS, can connect there.
    pub fn resolved(&self) -> Result<Offer, Error> {
        let failed =
            |e: &io::Error| Error::System { what: format!("-R {}", self.text()), why: reason(e) };
        let local = match &self.local {
            Local::Path(path) => Local::Path(paths::expand(path).display().to_string()),
            Local::Port(name, port) => {
                let mut all = (name.as_str(), *port).to_socket_addrs().map_err(|e| failed(&e))?;
                let address = all.next().ok_or_else(|| failed(&io::ErrorKind::NotFound.into()))?;
                Local::Port(address.ip().to_string(), *port)
            }
        };
        Ok(Offer { service: self.service.clone(), local })
    }

    /// Begins a connection to what serves it. True: it is connected already.
    pub fn connect(&self) -> io::Result<(OwnedFd, bool)> {
        match &self.local {
            Local::Path(path) => {
                let fd = local::unconnected()?;
                local::connect_now(fd.as_fd(), &Address::of(Path::new(path))?)?;
                Ok((fd, true))
            }
            Local::Port(address, port) => {
                let ip = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
                let fd = dial::begin(SocketAddr::new(ip, *port), false)?;
                let connected = dial::look(fd.as_fd())?;
                Ok((fd, connected))
            }
        }
    }
}

/// Is a connection that has begun connected now? Err: it will not be.
pub fn is_connected(fd: &OwnedFd) -> io::Result<bool> {
    dial::look(fd.as_fd())
}

/// The configuration's offers. One whose address is not found is reported; the others are offered
/// all the same.
pub fn resolve_all(offers: &[Offer]) -> Vec<Offer> {
    let mut all = Vec::new();
    for offer in offers {
        match offer.resolved() {
            Ok(offer) => all.push(offer),
            Err(error) => messages::info(&format!("{error}; the configuration asks for it")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read() {
        for (text, service, target) in [
            ("web:127.0.0.1:8080", "web", "127.0.0.1:8080"),
            ("web:localhost:8080", "web", "localhost:8080"),
            ("a:b:[::1]:80", "a:b", "[::1]:80"),
            ("pg:/run/x y:z", "pg", "/run/x y:z"),
        ] {
            let offer = Offer::read(text).expect(text);
            assert_eq!((offer.service.as_str(), offer.target().as_str()), (service, target));
            assert_eq!(Offer::read(&offer.text()), Ok(offer));
        }
        for text in
            ["", "web", "web:80", "web:h:0", "web:h:70000", ":h:80", "web::80", ":/x", "a b:/x"]
        {
            assert_eq!(Offer::read(text), Err(format!("-R {text}: {EXPECTED}")));
        }
        let path = "x".repeat(local::NAME_MAX - 1);
        assert!(Offer::read(&format!("web:/{path}")).is_ok());
        let why = Offer::read(&format!("web:/{path}x")).expect_err("too long");
        assert!(why.ends_with(": the path of a socket has at most 107 bytes"), "{why}");
        let named =
            Offer::read("web:localhost:80").expect("an offer").resolved().expect("an address");
        assert!(matches!(named.local, Local::Port(a, 80) if a.parse::<std::net::IpAddr>().is_ok()));
    }
}
