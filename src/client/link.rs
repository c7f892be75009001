//! TLS on a connection, as a dialogue speaks it (lines, each wait with a deadline) and as the
//! holder does (never waiting).

use super::target::Target;
use super::trouble::{Trouble, reason};
use super::trust::{Seen, Verifier};
use super::{dial, known_hosts, paths, words};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, socket};
use crate::wire::answer;
use crate::wire::line::{Fed, Line};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long the server may take for any answer that needs nobody's thought.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What PUBKEY signs on an encrypted connection (RFC 9266 does so with another label).
const EXPORTER: &[u8] = b"EXPORTER-fived-pubkey";
const ALPN: &[u8] = b"tcpmux";
/// Bytes of a line that the server says at most.
const LINE_MAX: usize = answer::ANSWER_MAX;

pub struct Link {
    pub tls: Box<ClientConnection>,
    pub socket: OwnedFd,
    /// The server's TCP has ended.
    pub eof: bool,
    /// The server has ended the session in order (close_notify): all that it said before was heard.
    pub over: bool,
    place: String,
}

/// The connection is of no more use; why, for a person.
pub type Broken = String;

/// A connection, with SSL in band: the word and the ClientHello go together. The server is trusted,
/// or what is wrong is told.
pub fn open(t: &Target) -> Result<Link, Trouble> {
    open_knowing(t, None)
}

/// `accepted`: the key that somebody has just accepted; no other will do.
fn open_knowing(t: &Target, accepted: Option<&str>) -> Result<Link, Trouble> {
    let socket = dial::connect(t)?;
    let provider = Arc::new(default_provider());
    let name = server_name(&t.host);
    let verifier = Arc::new(Verifier::new(t, name.clone(), accepted, provider.clone())?);
    let tls = |e: rustls::Error| Trouble::Tls { place: t.place(), why: e.to_string() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // An address is not told to the server: that is how a name stays unsaid too.
    let name = name.unwrap_or_else(|| ServerName::from(IpAddr::from(Ipv6Addr::UNSPECIFIED)));
    let conn = ClientConnection::new(Arc::new(config), name).map_err(tls)?;
    let mut link = Link { tls: Box::new(conn), socket, eof: false, over: false, place: t.place() };
    link.tls.set_buffer_limit(None);
    let shaken = link.shake_hands();
    match (verifier.seen(), shaken) {
        (Some(Seen::Changed { key, known, origin }), _) => {
            Err(Trouble::ChangedKey { place: t.place(), key, known, origin })
        }
        (Some(Seen::Bad { key, why }), _) => {
            Err(Trouble::BadCertificate { place: t.place(), key, why, file: paths::known_hosts() })
        }
        (Some(Seen::Unknown { key }), _) => {
            drop(link);
            super::trust::learn(t, &key)?;
            open_knowing(t, Some(&key))
        }
        (_, Err(trouble)) => Err(trouble),
        (seen, Ok(())) => {
            let suite =
                link.tls.negotiated_cipher_suite().map_or("", |s| s.suite().as_str().unwrap_or(""));
            if let Some(Seen::Trusted { key, why, to_note }) = seen {
                words::step(&format!("TLS 1.3, {suite}, {key}, trusted by {why}"));
                // Where it cannot be written, the roots vouch for it the next time too.
                if to_note && let Err(trouble) = known_hosts::add_vouched(t) {
                    words::step(&format!(
                        "not noted that the system's roots vouch for it: {trouble}"
                    ));
                }
            }
            Ok(link)
        }
    }
}

/// The host's name as a certificate may have it. None: DNS has no such name, no certificate can be
/// for it, and the server is not told it.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    // The zone of an IPv6 address (RFC 4007) is this computer's matter, the last dot of a full name
    // the resolver's.
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare.strip_suffix('.').unwrap_or(bare)).ok().map(|name| name.to_owned())
}

impl Link {
    fn no_answer(&self) -> Trouble {
        Trouble::NoAnswer { place: self.place.clone(), seconds: PATIENCE.as_secs() }
    }

    /// Waits for the socket.
    fn wait(&self, read: bool, deadline: Duration) -> Result<(), Trouble> {
        loop {
            let left = deadline.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Err(self.no_answer());
            }
            let mut polls = [Poll::new(self.socket.as_fd(), read, !read)];
            if poll::wait(&mut polls, Some(left)).map_err(Trouble::system("poll"))? > 0 {
                return Ok(());
            }
        }
    }

    fn shake_hands(&mut self) -> Result<(), Trouble> {
        let deadline = clock::monotonic() + PATIENCE;
        let mut first = b"SSL\r\n".to_vec();
        self.tls.write_tls(&mut first).map_err(Trouble::system("TLS"))?;
        self.send(&first, deadline)?;
        let rest = self.success(deadline)?;
        let place = self.place.clone();
        let failed = move |why: String| Trouble::Tls { place: place.clone(), why };
        // What came behind the line is TLS.
        let mut from = rest.as_slice();
        while !from.is_empty() {
            self.tls.read_tls(&mut from).map_err(|e| failed(reason(&e)))?;
            self.tls.process_new_packets().map_err(|e| failed(e.to_string()))?;
        }
        while self.tls.is_handshaking() {
            self.flush(deadline)?;
            if !self.tls.is_handshaking() {
                break;
            }
            self.wait(true, deadline)?;
            if let Err(why) = self.take_in() {
                // The alert tells the server, as far as it goes at once.
                let _ = self.give_out();
                return Err(failed(why));
            }
            if self.eof && self.tls.is_handshaking() {
                return Err(failed("the server ended the connection".into()));
            }
        }
        // Its last message goes with what the dialogue says first.
        Ok(())
    }

    /// Bytes that are no TLS.
    fn send(&self, mut bytes: &[u8], deadline: Duration) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            match socket::send(self.socket.as_fd(), bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(false, deadline)?,
                Err(e) => {
                    return Err(Trouble::Unreached { place: self.place.clone(), why: reason(&e) });
                }
            }
        }
        Ok(())
    }

    /// The answer to the word SSL; what came behind it.
    fn success(&self, deadline: Duration) -> Result<Vec<u8>, Trouble> {
        let mut line = Line::new(LINE_MAX);
        let mut bytes = [0; 4096];
        let strange = |said: &[u8]| Trouble::NotFived {
            place: self.place.clone(),
            said: answer::words(said),
        };
        let mut heard = Vec::new();
        loop {
            let n = match socket::receive(self.socket.as_fd(), &mut bytes) {
                Ok(0) => return Err(strange(&heard)),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(true, deadline)?;
                    continue;
                }
                // Who ends it without reading all resets it.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(strange(&heard)),
                Err(e) => {
                    return Err(Trouble::Unreached { place: self.place.clone(), why: reason(&e) });
                }
            };
            heard.extend_from_slice(&bytes[..n.min(LINE_MAX)]);
            return match line.feed(&bytes[..n]) {
                Fed::More => continue,
                Fed::TooLong => Err(strange(&bytes[..n])),
                Fed::Line { text: b"+ Success", taken } => Ok(bytes[taken..n].to_vec()),
                Fed::Line { text: b"-Service busy", .. } => Err(Trouble::Refused {
                    place: self.place.clone(),
                    what: "SSL",
                    said: "Service busy".into(),
                }),
                Fed::Line { text, .. } => Err(match text.strip_prefix(b"-") {
                    Some(said) => {
                        Trouble::NoSsl { place: self.place.clone(), said: answer::words(said) }
                    }
                    None => strange(text),
                }),
            };
        }
    }

    /// What both ends know of this connection and nobody else does.
    pub fn challenge(&self) -> Result<[u8; 32], Trouble> {
        let exported = self.tls.export_keying_material([0; 32], EXPORTER, Some(&[]));
        exported.map_err(|e| Trouble::Tls { place: self.place.clone(), why: e.to_string() })
    }

    /// Says this, whole.
    pub fn say(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let deadline = clock::monotonic() + PATIENCE;
        self.tls.writer().write_all(bytes).map_err(Trouble::system("TLS"))?;
        self.flush(deadline)
    }

    fn flush(&mut self, deadline: Duration) -> Result<(), Trouble> {
        loop {
            match self.give_out() {
                Ok(true) => return Ok(()),
                Ok(false) => self.wait(false, deadline)?,
                Err(why) => return Err(self.lost(why)),
            }
        }
    }

    fn lost(&self, why: String) -> Trouble {
        Trouble::Lost { what: self.place.clone(), why }
    }

    /// The next line that the server says, without its end.
    pub fn line(&mut self) -> Result<String, Trouble> {
        let deadline = clock::monotonic() + PATIENCE;
        let mut line = Line::new(LINE_MAX);
        loop {
            match self.tls.reader().fill_buf() {
                Ok([]) => return Err(self.lost("the server ended the session".into())),
                Ok(bytes) => {
                    let (said, taken) = match line.feed(bytes) {
                        Fed::More => (None, bytes.len()),
                        Fed::TooLong => {
                            return Err(Trouble::NotFived {
                                place: self.place.clone(),
                                said: answer::words(bytes),
                            });
                        }
                        Fed::Line { text, taken } => (Some(answer::words(text)), taken),
                    };
                    self.tls.reader().consume(taken);
                    if let Some(said) = said {
                        return Ok(said);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock && !self.eof => {
                    self.wait(true, deadline)?;
                    self.take_in().map_err(|why| self.lost(why))?;
                }
                Err(_) => return Err(self.lost("the connection broke".into())),
            }
        }
    }

    /// A prompt (text without a line end, when no more comes for `pause`) or a line. The second: is
    /// it a line?
    pub fn prompt(&mut self, pause: Duration) -> Result<(String, bool), Trouble> {
        let deadline = clock::monotonic() + PATIENCE;
        let mut text = Vec::new();
        loop {
            let mut byte = [0];
            match self.tls.reader().read(&mut byte) {
                Ok(0) => return Err(self.lost("the server ended the session".into())),
                Ok(_) if byte[0] == b'\n' => return Ok((answer::words(&text), true)),
                Ok(_) if text.len() >= LINE_MAX => {
                    return Err(Trouble::NotFived {
                        place: self.place.clone(),
                        said: answer::words(&text),
                    });
                }
                Ok(_) => text.push(byte[0]),
                Err(e) if e.kind() == ErrorKind::WouldBlock && !self.eof => {
                    // The usual end of a prompt needs no long look.
                    let pause = if text.ends_with(b": ") { pause / 10 } else { pause };
                    let until = if text.is_empty() { deadline } else { clock::monotonic() + pause };
                    if let Err(trouble) = self.wait(true, until) {
                        return if text.is_empty() {
                            Err(trouble)
                        } else {
                            Ok((answer::words(&text), false))
                        };
                    }
                    self.take_in().map_err(|why| self.lost(why))?;
                }
                Err(_) => return Err(self.lost("the connection broke".into())),
            }
        }
    }

    // Without waiting.

    /// Ends the session in order, as far as the socket takes it.
    pub fn close(&mut self) {
        self.tls.send_close_notify();
        // What is not taken at once is not waited for: the server hears of the end all the same.
        let _ = self.give_out();
    }

    /// Takes in what the socket has: one read, decrypted. To be called when there is no plaintext
    /// left.
    pub fn take_in(&mut self) -> Result<(), Broken> {
        match self.tls.read_tls(&mut socket::Stream(self.socket.as_fd())) {
            Ok(0) => self.eof = true,
            Ok(_) => {
                self.tls.process_new_packets().map_err(|e| e.to_string())?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(reason(&e)),
        }
        Ok(())
    }

    /// Plaintext that has come; 0: none yet. Err: the end.
    pub fn plaintext(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        match self.tls.reader().read(buffer) {
            Ok(0) => {
                self.over = true;
                Err("the server ended the session".into())
            }
            Ok(n) => Ok(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock && !self.eof => Ok(0),
            Err(_) => Err("the connection broke".into()),
        }
    }

    /// Sends what is encrypted, as far as the socket takes it. True: all of it.
    pub fn give_out(&mut self) -> Result<bool, Broken> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut socket::Stream(self.socket.as_fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(reason(&e)),
            }
        }
        Ok(true)
    }
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
