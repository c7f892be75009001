//! Forwards (-L): a port or a socket of this computer that leads to a service of the server.

use super::error::{Error, reason};
use super::{messages, paths, syntax};
use crate::sys::undo::SocketPath;
use crate::sys::{local, socket};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// Where applications connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddress {
    /// None: the loopback addresses.
    Port(Option<String>, u16),
    Path(String),
}

/// A forward as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub local: LocalAddress,
    pub service: String,
}

impl Forward {
    /// `[address:]port:service`, or `path:service` (a path has a `/`). Err: the
    /// message.
    pub fn read(text: &str) -> Result<Forward, String> {
        let wrong = || format!("-L {text}: expected [address:]port:service or path:service");
        let (local, service) = text.rsplit_once(':').ok_or_else(wrong)?;
        if !syntax::is_name(service) {
            return Err(wrong());
        }
        let local = if local.contains('/') {
            LocalAddress::Path(local.into())
        } else {
            let (address, port) =
                local.rsplit_once(':').map_or((None, local), |(a, p)| (Some(a), p));
            let bare = |a: &str| {
                a.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(a).to_string()
            };
            LocalAddress::Port(address.map(bare), port.parse().map_err(|_| wrong())?)
        };
        Ok(Forward { local, service: service.into() })
    }

    /// The same with the port that the system chose for its listeners, if one was to be chosen.
    fn chosen(self, listeners: &[Listener]) -> Forward {
        let at = listeners.first().and_then(|l| socket::local(l.fd.as_fd()).ok());
        match (self.local, at) {
            (LocalAddress::Port(address, 0), Some(at)) => {
                Forward { local: LocalAddress::Port(address, at.port()), ..self }
            }
            (local, _) => Forward { local, ..self },
        }
    }

    /// The same with an absolute path, so that it means the same in another directory.
    pub fn absolute(&self) -> Result<Forward, Error> {
        let local = match &self.local {
            LocalAddress::Path(path) => {
                let path = paths::expand(path);
                let path = std::path::absolute(&path)
                    .map_err(Error::system(path.display().to_string()))?;
                LocalAddress::Path(path.display().to_string())
            }
            port => port.clone(),
        };
        Ok(Forward { local, service: self.service.clone() })
    }

    /// As [`Forward::read`] reads it.
    pub fn text(&self) -> String {
        format!("{}:{}", self.name(), self.service)
    }

    /// The local end, for messages.
    pub fn name(&self) -> String {
        match &self.local {
            LocalAddress::Port(None, port) => port.to_string(),
            LocalAddress::Port(Some(a), port) if a.contains(':') => format!("[{a}]:{port}"),
            LocalAddress::Port(Some(a), port) => format!("{a}:{port}"),
            LocalAddress::Path(path) => path.clone(),
        }
    }
}

/// A listener of a forward. When it is dropped, its socket in the file system is removed.
pub struct Listener {
    // It is dropped before the descriptor: once nobody listens, another five may replace the file.
    /// None: it has a port.
    file: Option<SocketPath>,
    pub fd: OwnedFd,
    pub service: String,
    /// For messages.
    pub name: String,
    /// The system chose its port (port 0 was asked for).
    pub chosen: bool,
}

/// How long no connection is accepted after the system had no descriptor or memory for one.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many ports are tried, where the system chooses one, until it is free in both families.
const CHOSEN_TRIES: u32 = 16;

/// What a listener has.
pub enum Accepted {
    Application(OwnedFd),
    Nobody,
    /// The system has no descriptor or memory for it now; poll(2) would report it again at once.
    NoRoom,
}

impl Listener {
    /// From now on this process removes the socket in the file system, whichever process made it.
    pub fn claim(&mut self) {
        self.file.iter_mut().for_each(SocketPath::claim);
    }

    /// Another process will remove the socket.
    pub fn disown(&mut self) {
        self.file.iter_mut().for_each(SocketPath::disown);
    }

    /// Prints where it leads.
    pub fn announce(&self) {
        let text = format!("{} leads to {}", self.name, self.service);
        // A port that the system chose is shown nowhere else.
        if self.chosen { messages::info(&text) } else { messages::step(&text) }
    }

    /// The next application that has connected.
    pub fn accept(&self) -> Accepted {
        let accepted = match self.file {
            Some(_) => local::accept(self.fd.as_fd()),
            None => socket::accept(self.fd.as_fd()).map(|(fd, _)| fd.our_own()),
        };
        match accepted {
            Ok(fd) => {
                // A Unix socket has no such delay.
                let _ = socket::set_nodelay(fd.as_fd(), true);
                Accepted::Application(fd)
            }
            Err(e) if socket::is_scarcity(&e) => Accepted::NoRoom,
            Err(_) => Accepted::Nobody,
        }
    }

    /// The same for a caller that may wait: pauses if the system has no room.
    pub fn accept_or_pause(&self) -> Option<OwnedFd> {
        match self.accept() {
            Accepted::Application(fd) => return Some(fd),
            Accepted::Nobody => {}
            Accepted::NoRoom => std::thread::sleep(ACCEPT_PAUSE),
        }
        None
    }

    /// A listener of `f` that another process has opened. This one removes its socket in the file
    /// system.
    pub fn adopt(f: &Forward, fd: OwnedFd) -> Listener {
        let file = match &f.local {
            LocalAddress::Path(path) => Some(SocketPath::adopt(Path::new(path))),
            LocalAddress::Port(..) => None,
        };
        Listener { fd, service: f.service.clone(), name: f.name(), chosen: false, file }
    }

    /// The listeners of a forward: two for the loopback's two families.
    pub fn open(f: &Forward) -> Result<Vec<Listener>, Error> {
        let failed =
            |e: io::Error| Error::System { what: format!("-L {}", f.text()), why: reason(&e) };
        let chosen = matches!(f.local, LocalAddress::Port(_, 0));
        let at = |fd: OwnedFd, name: String, file| {
            let service = f.service.clone();
            Listener { fd, service, name, chosen, file }
        };
        let tcp = |address: SocketAddr| -> io::Result<Listener> {
            let fd = socket::listen(address, false)?;
            let name = socket::local(fd.as_fd())?.to_string();
            Ok(at(fd, name, None))
        };
        match &f.local {
            LocalAddress::Path(path) => {
                let path = paths::expand(path);
                let (fd, file) = SocketPath::bind(&path, local::listen_stream)
                    .map_err(|e| failed(no_socket(&path, e)))?;
                Ok(vec![at(fd, path.display().to_string(), Some(file))])
            }
            LocalAddress::Port(None, port) => loopback(tcp, *port).map_err(failed),
            LocalAddress::Port(Some(address), port) => {
                let address = match address.as_str() {
                    "*" | "" => SocketAddr::from((IpAddr::from(Ipv6Addr::UNSPECIFIED), *port)),
                    name => (name, *port)
                        .to_socket_addrs()
                        .map_err(failed)?
                        .next()
                        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?,
                };
                Ok(vec![tcp(address).map_err(failed)?])
            }
        }
    }
}

/// Listeners at the same port for both families; a computer without IPv6 has one alone. Where
/// another program has one of the two, whoever connects to `localhost` could reach that.
fn loopback(
    listen: impl Fn(SocketAddr) -> io::Result<Listener>,
    port: u16,
) -> io::Result<Vec<Listener>> {
    let mut tries = if port == 0 { CHOSEN_TRIES } else { 1 };
    loop {
        tries -= 1;
        let first = listen((Ipv4Addr::LOCALHOST, port).into())?;
        let same = socket::local(first.fd.as_fd())?.port();
        match listen((Ipv6Addr::LOCALHOST, same).into()) {
            Ok(second) => return Ok(vec![first, second]),
            Err(e) if socket::is_without_family(&e) => return Ok(vec![first]),
            // The system has chosen that of the first family.
            Err(_) if tries > 0 => {}
            Err(e) => return Err(e),
        }
    }
}

/// Opens a forward that another process will have: as that process is to know it, and its
/// listeners.
pub fn open(f: &Forward) -> Result<(Forward, Vec<Listener>), Error> {
    let listeners = Listener::open(f)?;
    Ok((f.absolute()?.chosen(&listeners), listeners))
}

/// The configuration's forwards and their listeners. One that cannot be opened is reported; the
/// others are opened all the same.
pub fn open_all(forwards: &[Forward]) -> Vec<(Forward, Vec<Listener>)> {
    let mut all = Vec::new();
    for f in forwards {
        match open(f) {
            Ok(opened) => all.push(opened),
            Err(error) => messages::info(&format!("{error}; the configuration asks for it")),
        }
    }
    all
}

/// Why no socket could be made there, if it is that another file has its name.
fn no_socket(path: &Path, e: io::Error) -> io::Error {
    let another = |m: fs::Metadata| !m.file_type().is_socket();
    match e.kind() == io::ErrorKind::AddrInUse && fs::symlink_metadata(path).is_ok_and(another) {
        true => io::Error::other("there is a file of that name, which is no socket"),
        false => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read() {
        let of = |text| {
            let f = Forward::read(text)?;
            assert_eq!(Forward::read(&f.text()), Ok(f.clone()), "another process reads the same");
            Ok::<_, String>((f.name(), f.service))
        };
        for (text, name, service) in [
            ("5432:postgres", "5432", "postgres"),
            ("127.0.0.1:80:web", "127.0.0.1:80", "web"),
            ("[::1]:80:web", "[::1]:80", "web"),
            ("*:80:web", "*:80", "web"),
            ("/run/user/1000/pg:postgres", "/run/user/1000/pg", "postgres"),
            ("./pg:postgres", "./pg", "postgres"),
        ] {
            assert_eq!(of(text), Ok((name.into(), service.into())), "{text}");
        }
        for text in ["", "5432", "x:web", "5432:", ":web", "70000:web"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
