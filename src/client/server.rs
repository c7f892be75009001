//! A connection to the server, with TLS in band (SSL), to a server that is trusted; and the
//! dialogue on it before the first service.

use super::dial::{Connect, Connection};
use super::error::{Error, reason};
use super::target::Target;
use super::trust::{Identity, Verifier};
use super::{known_hosts, messages, paths};
use crate::link::{BoundedLine, Error as LinkError, Interest, Link, Received, Wait};
use crate::sys::poll;
use crate::sys::{clock, socket};
use crate::wire::answer;
use crate::wire::builtins::Builtin;
use crate::wire::labels::{ALPN, EXPORTER};
use crate::wire::line::{Fed, Line};
use crate::wire::{reply, request};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long the server may take to answer when it does not wait for a person.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a line of the server, at most.
const LINE_MAX: usize = answer::ANSWER_MAX;

/// A connection to a server that is trusted.
pub struct Server {
    pub link: Link,
    /// See [`Connection::gate`].
    pub gate: Option<OwnedFd>,
    /// The server's key, which is trusted.
    pub key: String,
    place: String,
    /// How long an answer may take.
    timeout: Duration,
    /// It has answered PUBKEY, and waits for the signature.
    pub waits_for_key: bool,
}

/// Waits for the socket alone.
struct UntilReady;

impl Wait for UntilReady {
    type End = LinkError;

    fn wait(
        &self,
        socket: BorrowedFd,
        interest: Interest,
        until: Duration,
    ) -> Result<(), LinkError> {
        loop {
            let left = until.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Err(LinkError::Timeout);
            }
            let mut polls = [interest.of(socket)];
            if poll::wait(&mut polls, Some(left)).map_err(LinkError::System)? > 0 {
                return Ok(());
            }
        }
    }
}

/// Why a connection ended, for messages.
pub fn lost(e: &LinkError) -> String {
    match e {
        LinkError::Closed => "the server ended the session".into(),
        LinkError::Truncated => "the connection broke".into(),
        LinkError::Broken(e) | LinkError::System(e) => reason(e),
        LinkError::Tls(e) => e.to_string(),
        LinkError::NoRecord(why) => format!("the server sent {why}"),
        LinkError::Timeout => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
    }
}

/// Connects, with SSL in band; `SSL` and the ClientHello are sent together. Errors: among others,
/// why the server is not trusted.
pub fn open(t: &Target, connect: Connect) -> Result<Server, Error> {
    open_knowing(t, connect, ANSWER_TIMEOUT, None).and_then(|opened| match opened {
        Opened::Trusted(server) => Ok(server),
        Opened::Unknown(key) => {
            super::trust::ask_and_add(t, &key)?;
            match open_knowing(t, connect, ANSWER_TIMEOUT, Some(&key))? {
                Opened::Trusted(server) => Ok(server),
                // Another key than the accepted one is a changed one.
                Opened::Unknown(key) => Err(unknown(t, key)),
            }
        }
    })
}

/// Connects with a Unix socket of this computer: without TLS, for nobody is in between.
pub fn open_here(t: &Target, connect: Connect) -> Result<Server, Error> {
    let Connection { socket, gate } = connect()?;
    let (link, place, timeout) = (Link::plain(socket), t.place(), ANSWER_TIMEOUT);
    Ok(Server { link, gate, key: String::new(), place, timeout, waits_for_key: false })
}

/// As [`open`] where nobody can be asked: to the server whose key was `key`, as it was trusted
/// then, or that is trusted without a question now.
pub fn open_again(
    t: &Target,
    connect: Connect,
    timeout: Duration,
    key: &str,
) -> Result<Server, Error> {
    match open_knowing(t, connect, timeout, None)? {
        Opened::Trusted(server) => Ok(server),
        Opened::Unknown(shown) if shown == key => {
            match open_knowing(t, connect, timeout, Some(key))? {
                Opened::Trusted(server) => Ok(server),
                Opened::Unknown(key) => Err(unknown(t, key)),
            }
        }
        Opened::Unknown(key) => Err(unknown(t, key)),
    }
}

fn unknown(t: &Target, key: String) -> Error {
    Error::UnknownKey { place: t.place(), key, file: paths::known_hosts(), asked: false }
}

/// What a connection has come to.
enum Opened {
    Trusted(Server),
    /// Nothing is known about the server with this key; the connection is closed.
    Unknown(String),
}

/// `accepted`: the key that somebody has just accepted; no other is trusted.
fn open_knowing(
    t: &Target,
    connect: Connect,
    timeout: Duration,
    accepted: Option<&str>,
) -> Result<Opened, Error> {
    let Connection { socket, gate } = connect()?;
    let provider = Arc::new(default_provider());
    let name = server_name(&t.host);
    let verifier = Arc::new(Verifier::new(t, name.clone(), accepted, provider.clone())?);
    let tls = |e: rustls::Error| Error::Tls { place: t.place(), why: e.to_string() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // rustls sends no server name for an address, so an address stands in for a name that must not
    // be sent.
    let name = name.unwrap_or_else(|| ServerName::from(IpAddr::from(Ipv6Addr::UNSPECIFIED)));
    let conn = ClientConnection::new(Arc::new(config), name).map_err(tls)?;
    let (link, place) = (Link::plain(socket), t.place());
    let mut server =
        Server { link, gate, key: String::new(), place, timeout, waits_for_key: false };
    let done = server.handshake(conn);
    match (verifier.identity(), done) {
        (Some(Identity::Changed { key, known, origin }), _) => {
            Err(Error::ChangedKey { place: t.place(), key, known, origin })
        }
        (Some(Identity::Bad { key, why }), _) => {
            Err(Error::BadCertificate { place: t.place(), key, why, file: paths::known_hosts() })
        }
        (Some(Identity::Unknown { key }), _) => Ok(Opened::Unknown(key)),
        (_, Err(error)) => Err(error),
        (identity, Ok(())) => {
            let suite = server.link.tls().and_then(|tls| tls.negotiated_cipher_suite());
            let suite = suite.and_then(|s| s.suite().as_str()).unwrap_or("");
            if let Some(Identity::Trusted { key, why, to_note }) = identity {
                messages::step(&format!("TLS 1.3, {suite}, {key}, trusted by {why}"));
                // If this cannot be written, nothing is lost: the certificate is checked against
                // the roots again next time.
                if to_note && let Err(error) = known_hosts::add_vouched(t) {
                    messages::step(&format!(
                        "not noted that the system's roots vouch for it: {error}"
                    ));
                }
                server.key = key;
            }
            Ok(Opened::Trusted(server))
        }
    }
}

/// The host's name as a certificate may have it. None: the name is not valid in DNS, so no
/// certificate can be for it, and it is not sent to the server.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    // Only this computer needs the zone of an IPv6 address (RFC 4007), and only the resolver the
    // last dot of a full name.
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare.strip_suffix('.').unwrap_or(bare)).ok().map(|name| name.to_owned())
}

impl Server {
    /// The error that ends a dialogue.
    fn error(&self, e: LinkError) -> Error {
        match e {
            LinkError::Timeout => {
                Error::NoAnswer { place: self.place.clone(), seconds: self.timeout.as_secs() }
            }
            LinkError::System(e) => Error::system("poll")(e),
            e => Error::Lost { what: self.place.clone(), why: lost(&e) },
        }
    }

    fn handshake(&mut self, connection: ClientConnection) -> Result<(), Error> {
        let until = clock::monotonic() + self.timeout;
        let mut connection = connection;
        let mut first = request::line(Builtin::Ssl.as_str());
        connection.write_tls(&mut first).map_err(Error::system("TLS"))?;
        self.link.write_all(&UntilReady, &first, until).map_err(|e| self.unreached(e))?;
        let rest = self.success(until)?;
        self.link.encrypt(connection);
        // What came after the line is TLS. TLS's last message is sent with the dialogue's first
        // line.
        let done = self.link.receive_bytes(&rest);
        done.and_then(|()| self.link.handshake(&UntilReady, until)).map_err(|e| match e {
            LinkError::Timeout | LinkError::System(_) => self.error(e),
            e => {
                let why = match e {
                    LinkError::Closed => "the server ended the connection".into(),
                    e => lost(&e),
                };
                Error::Tls { place: self.place.clone(), why }
            }
        })
    }

    /// The error for a connection that ends before any answer.
    fn unreached(&self, e: LinkError) -> Error {
        match e {
            LinkError::Broken(e) => Error::unreached(self.place.clone(), &e),
            e => self.error(e),
        }
    }

    /// Reads the answer to the word SSL. Returns the bytes that came after it.
    fn success(&self, until: Duration) -> Result<Vec<u8>, Error> {
        let mut line = Line::new(LINE_MAX);
        let mut bytes = [0; 4096];
        let unexpected = |bytes: &[u8]| Error::NotFived {
            place: self.place.clone(),
            reply: answer::words(bytes),
        };
        let mut received = Vec::new();
        loop {
            let n = match socket::receive(self.link.socket(), &mut bytes) {
                Ok(0) => return Err(unexpected(&received)),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    UntilReady
                        .wait(self.link.socket(), Interest::Read, until)
                        .map_err(|e| self.error(e))?;
                    continue;
                }
                // A server that closes the connection with unread input resets it.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                    return Err(unexpected(&received));
                }
                Err(e) => return Err(self.unreached(LinkError::Broken(e))),
            };
            received.extend_from_slice(&bytes[..n.min(LINE_MAX)]);
            return match line.feed(&bytes[..n]) {
                Fed::More => continue,
                Fed::TooLong => Err(unexpected(&bytes[..n])),
                Fed::Line { text, taken } if reply::is(text, reply::SUCCESS) => {
                    Ok(bytes[taken..n].to_vec())
                }
                Fed::Line { text, .. } if reply::is(text, reply::BUSY) => Err(Error::Refused {
                    place: self.place.clone(),
                    what: Builtin::Ssl.as_str(),
                    reply: reply::refusal(reply::BUSY).into(),
                }),
                Fed::Line { text, .. } => Err(match text.strip_prefix(b"-") {
                    Some(bytes) => {
                        Error::NoSsl { place: self.place.clone(), reply: answer::words(bytes) }
                    }
                    None => unexpected(text),
                }),
            };
        }
    }

    /// A value that only the two ends of this connection know.
    pub fn challenge(&self) -> Result<[u8; 32], Error> {
        self.exported(EXPORTER)
    }

    /// A value that only the two ends of this connection know, for the purpose of this label.
    pub fn exported(&self, label: &[u8]) -> Result<[u8; 32], Error> {
        let failed = |why: String| Error::Tls { place: self.place.clone(), why };
        let exported = self.link.export(label).map_err(|e| failed(lost(&e)))?;
        exported.ok_or_else(|| failed("the connection is not encrypted".into()))
    }

    /// Sends all of these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let until = clock::monotonic() + self.timeout;
        self.link.write_all(&UntilReady, bytes, until).map_err(|e| self.error(e))
    }

    /// The next line of the server, without its end.
    pub fn read_line(&mut self) -> Result<String, Error> {
        let until = clock::monotonic() + self.timeout;
        match self.link.read_line(&UntilReady, LINE_MAX, until).map_err(|e| self.error(e))? {
            BoundedLine::Line(line) => Ok(answer::words(&line)),
            BoundedLine::TooLong(part) => Err(self.unexpected(&part)),
        }
    }

    /// The error for a server that does not speak as fived does.
    fn unexpected(&self, bytes: &[u8]) -> Error {
        Error::NotFived { place: self.place.clone(), reply: answer::words(bytes) }
    }

    /// The next prompt (text without a line end, after which nothing comes for `pause`) or line;
    /// true: it is a line.
    pub fn prompt(&mut self, pause: Duration) -> Result<(String, bool), Error> {
        let deadline = clock::monotonic() + self.timeout;
        let mut text = Vec::new();
        loop {
            match self.prompted(&mut text).map_err(|e| self.error(e))? {
                Prompted::Line => return Ok((answer::words(&text), true)),
                Prompted::TooLong => return Err(self.unexpected(&text)),
                Prompted::More => {}
            }
            // Prompts usually end so: a short silence is enough.
            let pause = if text.ends_with(b": ") { pause / 10 } else { pause };
            let until = if text.is_empty() { deadline } else { clock::monotonic() + pause };
            match UntilReady.wait(self.link.socket(), Interest::Read, until) {
                Ok(()) => drop(self.link.receive().map_err(|e| self.error(e))?),
                Err(LinkError::Timeout) if !text.is_empty() => {
                    return Ok((answer::words(&text), false));
                }
                Err(e) => return Err(self.error(e)),
            }
        }
    }

    /// Takes what has come, up to the end of a line.
    fn prompted(&mut self, text: &mut Vec<u8>) -> Result<Prompted, LinkError> {
        loop {
            let bytes = match self.link.received()? {
                Received::Bytes(bytes) => bytes,
                Received::Nothing => return Ok(Prompted::More),
                Received::End => return Err(LinkError::Closed),
            };
            let end = bytes.iter().position(|b| *b == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LINE_MAX.saturating_sub(text.len());
            text.extend_from_slice(&part[..part.len().min(room)]);
            if part.len() > room {
                return Ok(Prompted::TooLong);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.link.consume(taken);
            if end.is_some() {
                return Ok(Prompted::Line);
            }
        }
    }
}

/// What [`Server::prompted`] has found.
enum Prompted {
    Line,
    TooLong,
    More,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_names_and_addresses() {
        let of = |host| server_name(host).map(|n| n.to_str().into_owned());
        for (host, name) in [
            ("server.example.", "server.example"),
            ("my_box", "my_box"),
            ("fe80::1%eth0", "fe80::1"),
            ("10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(of(host).as_deref(), Some(name));
        }
        assert!(
            ["box+2", "127.1", "m\u{fc}ller", "a..b", ""]
                .into_iter()
                .all(|host| of(host).is_none())
        );
    }
}
