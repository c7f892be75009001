//! `--plain`: RFC 1078 and nothing else, with fived, inetd or xinetd. There is no session: each
//! connection is one service.
//!
//! Input waits for the server's `+`, because GNU inetd loses what comes before. xinetd writes a NUL
//! after its line, in the same segment; it is not a byte of the service.

use super::error::{Error, reason};
use super::forward::Listener;
use super::stdio::end_by_sigpipe;
use super::target::Target;
use super::{dial, messages};
use crate::link::{Breaks, Link, Tally, copy};
use crate::sys::flow::{self, CopyError, Waiting};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, socket, undo};
use crate::wire::answer::{AnswerReader, Outcome, words as shown};
use crate::wire::builtins::HELP;
use crate::wire::request;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a list of services at most: a table of 100,000 names is shorter.
pub const LIST_MAX: usize = 8 * 1024 * 1024;
/// Bytes that are shown, at most, of what follows the line of a refusal (a banner).
const REFUSAL_MAX: usize = 4096;

/// A connection whose service has been named (None: HELP), and the bytes that came after the
/// answer.
fn open(t: &Target, service: Option<&str>) -> Result<(TcpStream, Vec<u8>), Error> {
    let mut tcp = TcpStream::from(dial::connect(t)?);
    let lost = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Error::NoAnswer { place: t.place(), seconds: ANSWER_TIMEOUT.as_secs() }
        }
        _ => Error::Lost { what: t.place(), why: reason(&e) },
    };
    // One write: xinetd does not join a name that comes in pieces.
    tcp.write_all(&request::line(service.unwrap_or(HELP))).map_err(lost)?;
    let end = clock::monotonic() + ANSWER_TIMEOUT;
    let (mut answer, mut bytes) = (AnswerReader::new(false, service.is_none()), [0; 4096]);
    let rest = loop {
        let n = if service.is_none() { 0 } else { read_by(&tcp, &mut bytes, end).map_err(lost)? };
        let (taken, found) = answer.feed(&bytes[..n]);
        let rest = bytes[taken..n].strip_prefix(b"\0").unwrap_or(&bytes[taken..n]).to_vec();
        match found {
            Outcome::More if n == 0 => {
                return Err(Error::Lost {
                    what: t.place(),
                    why: "the server closed the connection without an answer".into(),
                });
            }
            Outcome::More => {}
            Outcome::Accepted => break rest,
            Outcome::NoHost | Outcome::NoRun | Outcome::Unexpected(_) => {
                return Err(Error::NotFived { place: t.place(), reply: shown(&bytes[..n]) });
            }
            Outcome::Refused(why) => {
                let mut more = rest;
                // What can still be read is shown with it; the refusal itself is known.
                while more.len() < REFUSAL_MAX
                    && let Ok(n @ 1..) = read_by(&tcp, &mut bytes, end)
                {
                    more.extend_from_slice(&bytes[..n]);
                }
                let more = more.split(|b| *b == b'\n').map(shown).filter(|l| !l.is_empty());
                let text = [why].into_iter().chain(more).collect::<Vec<_>>().join("\n");
                return Err(Error::Service {
                    service: service.unwrap_or(HELP).into(),
                    reply: text,
                    hint: "",
                });
            }
        }
    };
    tcp.set_read_timeout(None).map_err(lost)?;
    Ok((tcp, rest))
}

/// The names that HELP lists.
pub fn list(t: &Target) -> Result<Vec<u8>, Error> {
    let (tcp, mut all) = open(t, None)?;
    let (end, mut bytes) = (clock::monotonic() + ANSWER_TIMEOUT, [0; 4096]);
    loop {
        match read_by(&tcp, &mut bytes, end)
            .map_err(|e| Error::Lost { what: t.place(), why: reason(&e) })?
        {
            0 => return Ok(all),
            n => all.extend_from_slice(&bytes[..n]),
        }
        if all.len() > LIST_MAX {
            return Err(Error::NotFived { place: t.place(), reply: shown(&all) });
        }
    }
}

/// Reads what comes before the deadline.
fn read_by(mut tcp: &TcpStream, bytes: &mut [u8], end: Duration) -> io::Result<usize> {
    let left = end.saturating_sub(clock::monotonic());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    tcp.set_read_timeout(Some(left))?;
    tcp.read(bytes)
}

/// Connects standard input and output with the service until it has sent its last byte.
pub fn service(t: &Target, name: &str, no_input: bool) -> Result<(), Error> {
    let (tcp, rest) = open(t, Some(name))?;
    messages::step(&format!("{name}: started"));
    let here = Error::system("standard input and output");
    let ends = || -> io::Result<(File, File, TcpStream)> {
        let input: OwnedFd = if no_input {
            crate::sys::process::null()?
        } else {
            io::stdin().as_fd().try_clone_to_owned()?
        };
        Ok((input.into(), io::stdout().as_fd().try_clone_to_owned()?.into(), tcp.try_clone()?))
    };
    let (input, output, to) = ends().map_err(here)?;
    let sent = Arc::new(AtomicBool::new(false));
    let mut to = Input { to, sent: sent.clone() };
    std::thread::spawn(move || match flow::copy(&mut Waiting(&input), &mut to) {
        // A terminal that hung up has no more to say.
        Err(CopyError::Read(e)) if !input.is_terminal() => {
            // The service must not take what came for all of it: it sees a reset.
            socket::abort(to.to.as_fd());
            undo::exit(messages::fail(&Error::system("standard input")(e)));
        }
        // A service that reads no more input may still write, so that is no error.
        Ok(_) | Err(_) => drop(to.to.shutdown(Shutdown::Write)),
    });
    let first = Waiting(&output).write_all(&rest).map_err(CopyError::Write);
    let mut from = Output { from: &tcp, to: output.as_fd() };
    match first.and_then(|()| flow::copy(&mut from, &mut Waiting(&output))) {
        Ok(()) => Ok(()),
        Err(CopyError::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe => end_by_sigpipe(),
        // A service that ends without having read its input resets the connection.
        Err(CopyError::Read(e))
            if e.kind() == io::ErrorKind::ConnectionReset && sent.load(Ordering::Acquire) =>
        {
            Ok(())
        }
        Err(CopyError::Read(e)) => Err(Error::Lost { what: name.into(), why: reason(&e) }),
        Err(CopyError::Write(e)) => Err(Error::system("standard output")(e)),
    }
}

/// Where the input goes to, and whether any was sent.
struct Input {
    to: TcpStream,
    sent: Arc<AtomicBool>,
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.store(true, Ordering::Release);
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the output comes from. Whoever waits for it is told when nobody reads it any more, too.
struct Output<'a> {
    from: &'a TcpStream,
    to: BorrowedFd<'a>,
}

impl Read for Output<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut polls = [Poll::new(self.from.as_fd(), true, false), Poll::hangup(self.to)];
        poll::wait(&mut polls, None)?;
        if polls[1].hung() && !polls[0].readable() {
            end_by_sigpipe();
        }
        self.from.read(bytes)
    }
}

/// Serves forwards for ever, with a connection and a thread for each application.
pub fn forwards(t: &Target, listeners: &[Listener]) -> Result<(), Error> {
    std::thread::scope(|scope| {
        loop {
            let mut polls: Vec<Poll> =
                listeners.iter().map(|l| Poll::new(l.fd.as_fd(), true, false)).collect();
            poll::wait(&mut polls, None).map_err(Error::system("poll"))?;
            for (l, _) in listeners.iter().zip(&polls).filter(|(_, p)| p.readable()) {
                let Some(app) = l.accept_or_pause() else { continue };
                let report = move |error: Error| messages::info(&format!("{}: {error}", l.name));
                let work = move || relay(t, &l.service, app).unwrap_or_else(report);
                if let Err(e) = std::thread::Builder::new().spawn_scoped(scope, work) {
                    report(Error::system("thread")(e));
                }
            }
        }
    })
}

fn relay(t: &Target, service: &str, app: OwnedFd) -> Result<(), Error> {
    let (tcp, rest) = open(t, Some(service))?;
    let mut link = Link::plain(OwnedFd::from(tcp));
    // For a Unix socket TcpStream makes the same calls.
    let mut app = TcpStream::from(app);
    if app.write_all(&rest).is_ok() {
        // Either side may end at any time, which is no error.
        let _ = copy::bytes::copy(
            &mut link,
            app.as_fd(),
            &mut copy::bytes::State::new(Breaks::End, Tally::default()),
            None,
        );
    }
    Ok(())
}
