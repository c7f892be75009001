//! Forwards (-L): a port or a socket of this computer that leads to a service of the server.

use super::error::{Error, reason};
use super::{messages, paths, syntax};
use crate::sys::undo::SocketPath;
use crate::sys::{local, message, socket};
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

    /// This forward with the port that the system chose for its listeners, if one was to be chosen.
    fn chosen(self, listeners: &[Listener]) -> Forward {
        let at = listeners.first().and_then(|l| socket::local(l.fd.as_fd()).ok());
        match (self.local, at) {
            (LocalAddress::Port(address, 0), Some(at)) => {
                Forward { local: LocalAddress::Port(address, at.port()), ..self }
            }
            (local, _) => Forward { local, ..self },
        }
    }

    /// This forward with an absolute path, so that it means the same in another directory.
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

/// The addresses of one name, at most: the holder gets their listeners in one message.
const ADDRESSES_MAX: usize = message::FDS_MAX;

/// How many ports are tried, where the system chooses one, until it is free at all addresses.
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

    /// Accepts for a caller that may wait: pauses if the system has no room.
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

    /// The listeners of a forward, [`ADDRESSES_MAX`] at most.
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
            LocalAddress::Port(address, port) => {
                let all = addresses(address.as_deref(), *port).map_err(failed)?;
                at_one_port(tcp, &all).map_err(failed)
            }
        }
    }
}

/// Where a forward of that address or name listens: without one at the loopback addresses.
fn addresses(name: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    let at = |ip: &[IpAddr]| ip.iter().map(|ip| (*ip, port).into()).collect();
    Ok(match name {
        None => at(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        Some("*" | "") => at(&[Ipv6Addr::UNSPECIFIED.into()]),
        Some(name) => {
            let mut all = Vec::new();
            // A name may be in /etc/hosts twice with one address.
            for address in (name, port).to_socket_addrs()? {
                if all.len() < ADDRESSES_MAX && !all.contains(&address) {
                    all.push(address);
                }
            }
            all
        }
    })
}

/// Listeners at one port of all these addresses, except those that this computer does not have.
/// Where another program has one of them, whoever connects to the name could reach that.
fn at_one_port(
    listen: impl Fn(SocketAddr) -> io::Result<Listener>,
    all: &[SocketAddr],
) -> io::Result<Vec<Listener>> {
    let chosen = all.iter().any(|address| address.port() == 0);
    let mut tries = if chosen { CHOSEN_TRIES } else { 1 };
    loop {
        tries -= 1;
        match listen_at(&listen, all) {
            // The system has chosen that of the first address.
            Err(e) if tries > 0 && e.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
}

/// The same. Where the system chooses the port, all have that of the first one.
fn listen_at(
    listen: impl Fn(SocketAddr) -> io::Result<Listener>,
    all: &[SocketAddr],
) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::<Listener>::new();
    let mut error = io::ErrorKind::NotFound.into();
    for mut address in all.iter().copied() {
        if let Some(first) = listeners.first() {
            address.set_port(socket::local(first.fd.as_fd())?.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(e) if socket::is_without_family(&e) => error = e,
            Err(e) => return Err(e),
        }
    }
    if listeners.is_empty() { Err(error) } else { Ok(listeners) }
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

/// Why no socket could be made there, if it is its name: that is another file's, or too long.
fn no_socket(path: &Path, e: io::Error) -> io::Error {
    let another = |m: fs::Metadata| !m.file_type().is_socket();
    let length = std::path::absolute(path).map_or(0, |path| path.as_os_str().len());
    if e.kind() == io::ErrorKind::AddrInUse && fs::symlink_metadata(path).is_ok_and(another) {
        io::Error::other("there is a file of that name, which is no socket")
    } else if length > local::NAME_MAX {
        let most = local::NAME_MAX;
        io::Error::other(format!("its path has {length} bytes, that of a socket {most} at most"))
    } else {
        e
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
