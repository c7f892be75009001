//! Offers (-R): a service of the server that this computer serves.

use super::error::{Error, reason};
use super::{messages, paths, syntax};
use crate::sys::local::Address;
use crate::sys::{dial, local};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What the five that made an offer is told when `-O cancel` has ended it.
pub const CANCELLED: &str = "it was cancelled (five -O cancel)";

/// The addresses of one name, at most.
const ADDRESSES_MAX: usize = 8;

/// What serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A name, and a port.
    Name(String, u16),
    /// Those of a name, in the order in which they are tried, or one that was written.
    Addresses(Vec<SocketAddr>),
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
    /// `name:address:port`, with further addresses after commas, or `name:/path`. Err: the message.
    pub fn read(text: &str) -> Result<Offer, String> {
        let wrong = || format!("-R {text}: {EXPECTED}");
        let (service, local) = match text.split_once(":/") {
            // With the first slash, and no byte more than a socket's path may have.
            Some((_, path)) if path.len() >= local::NAME_MAX => {
                let most = local::NAME_MAX;
                return Err(format!("-R {text}: the path of a socket has at most {most} bytes"));
            }
            Some((service, path)) => (service, Local::Path(format!("/{path}"))),
            None => read_port(text).ok_or_else(wrong)?,
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
            Local::Name(name, port) if name.contains(':') => format!("[{name}]:{port}"),
            Local::Name(name, port) => format!("{name}:{port}"),
            Local::Addresses(all) => {
                all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
            }
            Local::Path(path) => path.clone(),
        }
    }

    /// This offer with addresses in place of a name, so that another process, which must not wait
    /// for an answer of DNS, can connect there.
    pub fn resolved(&self) -> Result<Offer, Error> {
        let failed =
            |e: &io::Error| Error::System { what: format!("-R {}", self.text()), why: reason(e) };
        let local = match &self.local {
            Local::Path(path) => Local::Path(paths::expand(path).display().to_string()),
            Local::Name(name, port) => {
                let found = (name.as_str(), *port).to_socket_addrs().map_err(|e| failed(&e))?;
                let all: Vec<_> = found.take(ADDRESSES_MAX).collect();
                if all.is_empty() {
                    return Err(failed(&io::ErrorKind::NotFound.into()));
                }
                Local::Addresses(all)
            }
            addresses => addresses.clone(),
        };
        Ok(Offer { service: self.service.clone(), local })
    }

    /// Begins a connection to what serves it.
    pub fn connect(&self) -> io::Result<Progress> {
        match &self.local {
            Local::Path(path) => {
                let fd = local::unconnected()?;
                local::connect_now(fd.as_fd(), &Address::of(Path::new(path))?)?;
                Ok(Progress::Connected(fd))
            }
            Local::Addresses(all) => {
                let none = io::ErrorKind::NotFound.into();
                Attempt::begin(all.clone().into_iter(), none)?.progress()
            }
            Local::Name(..) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// The service, and the addresses or the name that serve it. None: it is invalid.
fn read_port(text: &str) -> Option<(&str, Local)> {
    let (mut first, mut more) = (text, Vec::new());
    while let Some((before, address)) = first.rsplit_once(',') {
        let Some(address) = read_address(address) else { break };
        more.push(address);
        first = before;
    }
    let (rest, port) = first.rsplit_once(':')?;
    let (service, name) = match rest.strip_suffix(']') {
        Some(rest) => rest.rsplit_once(":[")?,
        None => rest.rsplit_once(':')?,
    };
    let written = first.get(service.len() + 1..)?;
    if let Some(address) = read_address(written) {
        more.push(address);
        more.reverse();
        return Some((service, Local::Addresses(more)));
    }
    let port = port.parse().ok().filter(|p| *p != 0)?;
    (more.is_empty() && syntax::is_host(name)).then(|| (service, Local::Name(name.into(), port)))
}

fn read_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

/// How far a connection to what serves an offer is.
pub enum Progress {
    Connected(OwnedFd),
    Connecting(Attempt),
}

/// A connection that has begun, and the addresses that are tried if it fails.
pub struct Attempt {
    fd: OwnedFd,
    rest: std::vec::IntoIter<SocketAddr>,
}

impl Attempt {
    /// With the first address where one can begin. Err: there is none; why not at the last of them,
    /// or, without any, at the one before (`error`).
    fn begin(
        mut rest: std::vec::IntoIter<SocketAddr>,
        mut error: io::Error,
    ) -> io::Result<Attempt> {
        while let Some(address) = rest.next() {
            match dial::begin(address, false) {
                Ok(fd) => return Ok(Attempt { fd, rest }),
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// What it is now. Err: no address accepts it.
    pub fn progress(self) -> io::Result<Progress> {
        let mut attempt = self;
        loop {
            match dial::look(attempt.fd.as_fd()) {
                Ok(true) => return Ok(Progress::Connected(attempt.fd)),
                Ok(false) => return Ok(Progress::Connecting(attempt)),
                Err(e) => attempt = Attempt::begin(attempt.rest, e)?,
            }
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
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
            ("web:10.0.0.1:80,[fe80::1%2]:80", "web", "10.0.0.1:80,[fe80::1%2]:80"),
            ("a,b:10.0.0.1:80", "a,b", "10.0.0.1:80"),
            ("pg:/run/x y:z", "pg", "/run/x y:z"),
        ] {
            let offer = Offer::read(text).expect(text);
            assert_eq!((offer.service.as_str(), offer.target().as_str()), (service, target));
            assert_eq!(Offer::read(&offer.text()), Ok(offer));
        }
        for text in [
            "",
            "web",
            "web:80",
            "web:h:0",
            "web:h:70000",
            ":h:80",
            "web::80",
            ":/x",
            "a b:/x",
            "web:h:80,10.0.0.1:80",
            "web:10.0.0.1:80,10.0.0.2:0",
        ] {
            assert_eq!(Offer::read(text), Err(format!("-R {text}: {EXPECTED}")));
        }
        let path = "x".repeat(local::NAME_MAX - 1);
        assert!(Offer::read(&format!("web:/{path}")).is_ok());
        let why = Offer::read(&format!("web:/{path}x")).expect_err("too long");
        assert!(why.ends_with(": the path of a socket has at most 107 bytes"), "{why}");
        let named = Offer::read("web:localhost:80").expect("an offer").resolved();
        let named = named.expect("an address");
        assert!(
            matches!(&named.local, Local::Addresses(all) if all.iter().all(|a| a.port() == 80))
        );
        assert_eq!(Offer::read(&named.text()), Ok(named), "the holder reads the same");
    }
}
