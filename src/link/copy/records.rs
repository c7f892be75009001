//! Copies records both ways between a link and a service that was asked for by RUN. On a stream of
//! MULTIPLEX the pump does this.

use super::{Copied, FromPeer, Waited, wait};
use crate::link::pump::{LocalEnd, Passed, Run, Stream};
use crate::link::{Breaks, Error, Link, Received, Tally};
use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use crate::sys::{clock, socket};
use crate::wire::run::{self, Data, HEAD};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Bytes of a record at most.
const RECORD: usize = 64 * 1024;
/// How many bytes are read from the local end at once.
const TAKE: usize = 2 * (RECORD - HEAD);
/// How often the client of a terminal that has finished sending is asked whether it is still there:
/// nothing else would report that it has closed its connection while the service is silent.
const PROBE_EVERY: Duration = Duration::from_secs(60);

/// How far a copy is, for whoever goes on with it.
pub struct State {
    stream: Box<Stream<()>>,
    from_peer: FromPeer,
    /// When the client is asked next whether it is still there. None: it has not finished sending.
    probe_at: Option<Duration>,
    /// What the link has not taken: from there on.
    out: (Vec<u8>, usize),
}

impl State {
    /// Nothing was copied yet.
    pub fn new(connection: Flow, run: Box<Run>, breaks: Breaks) -> State {
        let stream = Stream::of_run(LocalEnd::Socket(connection), run, breaks);
        State { stream, from_peer: FromPeer::Open, probe_at: None, out: (Vec::new(), 0) }
    }

    /// How many bytes were copied.
    pub fn tally(&self) -> Tally {
        self.stream.tally()
    }

    /// What is told besides bytes.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        self.stream.run_mut()
    }

    /// What is waited for while nothing moves: whether the peer sends anything or ends, and what
    /// can be read here.
    pub fn reads(&self) -> (bool, [Option<BorrowedFd<'_>>; 2]) {
        (self.from_peer.reads() || self.awaits_end(), self.inputs())
    }

    /// When the copy must go on even if nothing has come.
    pub fn deadline(&self) -> Option<Duration> {
        self.probe_at
    }

    /// What can be read here: output, and standard error.
    fn inputs(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.stream.input(), self.stream.error_input()].map(|f| f.map(AsFd::as_fd))
    }

    /// Is it of interest that the peer finishes sending, even if it is not read?
    fn awaits_end(&self) -> bool {
        self.hangs_up() && self.probe_at.is_none()
    }

    fn hangs_up(&self) -> bool {
        self.stream.run().is_some_and(Run::hangs_up)
    }

    /// The service sees its connection break.
    pub fn abort(&self) {
        if let LocalEnd::Socket(connection) = self.stream.local() {
            socket::abort(connection.as_fd());
        }
    }
}

struct RecordCopy<'a> {
    link: &'a mut Link,
    state: &'a mut State,
}

/// Copies until the service has ended, or the link is gone; or until nothing has moved for `idle`,
/// or `other` has something to read. On an error the service sees its connection break.
pub fn copy(
    link: &mut Link,
    state: &mut State,
    other: Option<BorrowedFd>,
    idle: Option<Duration>,
) -> Result<Copied, Error> {
    link.read_ahead();
    let mut copy = RecordCopy { link, state };
    let done = copy.run(other, idle);
    if done.is_err() {
        copy.state.abort();
    }
    done
}

impl RecordCopy<'_> {
    fn run(&mut self, other: Option<BorrowedFd>, idle: Option<Duration>) -> Result<Copied, Error> {
        loop {
            self.deliver()?;
            self.probe();
            self.tell()?;
            let sent = self.send()?;
            if sent && self.state.run_mut().is_none_or(|run| run.has_sent_all()) {
                if self.state.from_peer != FromPeer::Done {
                    self.state.stream.end_with_output();
                }
                self.link.half_close();
                return Ok(Copied::All);
            }
            let [main, errors] = self.state.inputs();
            let blocked = self.state.from_peer == FromPeer::Blocked;
            let output = self.state.stream.output().filter(|_| blocked);
            let poll = |fd, read, write| Some(Poll::new(fd, read, write));
            let local = match (main.filter(|_| sent), output) {
                (Some(fd), output) => poll(fd, true, output.is_some()),
                (None, Some(output)) => poll(output.as_fd(), false, true),
                (None, None) => None,
            };
            let mut polls = [
                self.peer(sent),
                local.unwrap_or(Poll::none()),
                errors.filter(|_| sent).map_or(Poll::none(), |fd| Poll::new(fd, true, false)),
                other.map_or(Poll::none(), |fd| Poll::new(fd, true, false)),
            ];
            let buffers_freed = self.state.out.0.capacity() == 0 && !self.link.has_buffers();
            match wait(&mut polls, buffers_freed, idle)? {
                Waited::Ready => {}
                Waited::Idle if sent && !blocked => return Ok(Copied::Idle),
                Waited::Idle | Waited::Quiet => {
                    self.release_buffers();
                    continue;
                }
            }
            let [peer, local, errors, other] = polls;
            let (ended, hung, peer) = (peer.ended(), peer.hung(), peer.readable());
            let (output, main) = (local.writable(), local.readable());
            let (errors, other) = (errors.readable(), other.readable());
            self.note_end(ended, hung)?;
            if output {
                self.state.from_peer = FromPeer::Open;
            }
            if peer && self.state.from_peer != FromPeer::Blocked && !self.link.holds() {
                self.link.receive()?;
            }
            if main {
                self.take(Data::Main)?;
            }
            if errors {
                self.take(Data::Errors)?;
            }
            if other {
                return Ok(Copied::Other);
            }
        }
    }

    /// The entry for the peer in poll(2)'s list.
    fn peer(&self, sent: bool) -> Poll<'_> {
        let socket = self.link.socket();
        match self.watches_end() {
            true => Poll::end(socket, self.state.awaits_end(), !sent),
            false => Poll::new(socket, self.is_read(), !sent),
        }
    }

    /// Is the peer read?
    fn is_read(&self) -> bool {
        self.state.from_peer.reads() && !self.link.eof()
    }

    /// Is the peer not read, but its end of interest?
    fn watches_end(&self) -> bool {
        self.state.hangs_up() && !self.is_read()
    }

    /// The connection of a peer that is not read has ended: in the peer's direction, or in both.
    fn note_end(&mut self, ended: bool, hung: bool) -> Result<(), Error> {
        match self.watches_end() {
            true if hung => return Err(Error::Broken(ErrorKind::ConnectionReset.into())),
            true if ended => self.state.probe_at = Some(clock::monotonic()),
            _ => {}
        }
        Ok(())
    }

    /// Asks a peer that has finished sending, if it is time, whether it is still there.
    fn probe(&mut self) {
        let Some(at) = self.state.probe_at else { return };
        let now = clock::monotonic();
        if at <= now {
            self.state.probe_at = Some(now + PROBE_EVERY);
            self.state.run_mut().into_iter().for_each(Run::probe);
        }
    }

    /// Frees the buffers: the connection is idle.
    fn release_buffers(&mut self) {
        let (out, done) = &self.state.out;
        if *done == out.len() {
            self.state.out = (Vec::new(), 0);
        }
        self.link.release_buffers();
    }

    /// Sends what waits. True: all of it was sent.
    fn send(&mut self) -> Result<bool, Error> {
        let (out, done) = &mut self.state.out;
        while *done < out.len() {
            // TLS takes all, and must take no more before that was sent.
            if !self.link.send_queued()? {
                return Ok(false);
            }
            let n = self.link.send_parts(&[IoSlice::new(&out[*done..])])?;
            if n == 0 {
                return Ok(false);
            }
            *done += n;
        }
        out.clear();
        *done = 0;
        self.link.send_queued()
    }

    /// Puts in the queue what the peer is to be told.
    fn tell(&mut self) -> Result<(), Error> {
        let State { stream, out, .. } = &mut *self.state;
        let Some(run) = stream.run_mut() else { return Ok(()) };
        while let Some(record) = run.control(usize::MAX) {
            out.0.extend(record);
        }
        // Nobody will ever know how the service ended.
        if run.lacks_the_end() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Passes on what has been received from the peer.
    fn deliver(&mut self) -> Result<(), Error> {
        let State { stream, from_peer, .. } = &mut *self.state;
        while from_peer.reads() {
            let bytes = match self.link.received()? {
                Received::Bytes(bytes) => bytes,
                Received::Nothing => return Ok(()),
                Received::End => {
                    *from_peer = FromPeer::Done;
                    if stream.finish_records() {
                        return Ok(());
                    }
                    return match stream.run().is_none_or(Run::is_between_records) {
                        true => Err(Error::Truncated),
                        false => self.break_link("a record of RUN that is cut off"),
                    };
                }
            };
            if *from_peer == FromPeer::Discarding {
                let n = bytes.len();
                self.link.consume(n);
                continue;
            }
            let (taken, passed) = stream.pass_records(bytes);
            self.link.consume(taken);
            match passed {
                // A client tells of no terminal.
                Passed::All | Passed::Terminal => {}
                Passed::Blocked => *from_peer = FromPeer::Blocked,
                Passed::Failed(e) => {
                    stream.breaks.note(&e);
                    *from_peer = FromPeer::Discarding;
                }
                Passed::Broken => return self.break_link("no record of RUN"),
            }
        }
        Ok(())
    }

    /// The peer sees the connection break.
    fn break_link<T>(&self, why: &str) -> Result<T, Error> {
        socket::abort(self.link.socket());
        Err(Error::Broken(std::io::Error::new(ErrorKind::InvalidData, why)))
    }

    /// Reads what the service has written.
    fn take(&mut self, what: Data) -> Result<(), Error> {
        let State { stream, out: (out, _), .. } = &mut *self.state;
        if let Some(line) = stream.read_reply() {
            out.extend(line);
            return Ok(());
        }
        let input = match what {
            Data::Main => stream.input(),
            Data::Errors => stream.error_input(),
        };
        let Some(input) = input else { return Ok(()) };
        let at = out.len();
        let read = input.read_pieces(out, HEAD, RECORD - HEAD, TAKE);
        for record in out[at..].chunks_mut(RECORD) {
            let head = run::head(what, record.len() - HEAD);
            record[..HEAD].copy_from_slice(&head);
        }
        match (read, what) {
            (Ok(n @ 1..), _) => stream.tally.send(n),
            (Err(e), _) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            (read, Data::Main) if stream.breaks.is_break(&read) => {
                return self.break_link("the service broke its connection");
            }
            (_, what) => stream.end_input(what),
        }
        Ok(())
    }
}
