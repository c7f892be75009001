//! The holder of a session: a process that belongs to no terminal and copies between the session's
//! streams and the descriptors that callers hand over. One thread polls all of them and never waits
//! in a write.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | the loop, and what ends it |
//! | `callers.rs` | who asks, and what they are told |
//! | `calls.rs` | a call: its request, its answer, its bytes both ways |
//! | `forwards.rs` | the forwards of the configuration |
//! | `liveness.rs` | is the server still there? |
//!
//! It goes when nothing was open for `persist`, when the server says go-away and the last stream
//! has ended, when the session breaks, and when it is told to (`-O exit`, SIGTERM). Its socket goes
//! first, so that no caller is stranded. Memory: what a call's output does not take, at most its
//! window (256 KiB to 4 MiB, 16 MiB in all); input that was sent before the answer, at most 64 KiB
//! a call; 512 KiB of frames.

mod callers;
mod calls;
mod forwards;
mod liveness;

use super::error::Error;
use super::open::{Request, Session};
use super::paths;
use super::server::lost;
use crate::link::pump::{Event, Pump};
use crate::link::{Error as LinkError, Link};
use crate::sys::poll::Poll;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, local, process, socket};
use crate::wire::yamux::{Mux, StreamId};
use callers::Callers;
use calls::{Call, Pending};
pub use forwards::Forwards;
use liveness::Liveness;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the last frames may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Where new callers find the session.
pub struct SessionSocket {
    listener: OwnedFd,
    path: PathBuf,
    inode: u64,
    /// The session drains: nobody finds it to make a call.
    retired: bool,
}

impl SessionSocket {
    /// Listens at a path where nobody does any more; the directory is this user's alone.
    pub fn open(path: &Path) -> Result<SessionSocket, Error> {
        let said = || Error::system(path.display().to_string());
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(said()(e)),
            _ => {}
        }
        let before = process::set_umask(0o177);
        let listener = local::listen(path);
        process::set_umask(before);
        let inode = std::fs::symlink_metadata(path).map_err(said())?.ino();
        Ok(SessionSocket {
            listener: listener.map_err(said())?,
            path: path.into(),
            inode,
            retired: false,
        })
    }

    /// Whoever comes for a session finds another one; whoever asks about sessions (-O) still finds
    /// this one. For the holder alone.
    fn retire(&mut self) {
        if self.retired {
            return;
        }
        self.retired = true;
        let to = paths::retired(&self.path, std::process::id());
        // Another holder may have taken the place; where it stays, its callers are told to go
        // elsewhere.
        if self.is_its_own() && std::fs::rename(&self.path, &to).is_ok() {
            self.path = to;
        }
    }

    fn is_its_own(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode)
    }

    /// Nobody comes in any more. For the holder alone: whoever forked it drops a copy, which
    /// changes nothing.
    fn close(self) {
        // Another holder may have taken the place.
        if self.is_its_own() {
            // Where it stays, the next caller finds nobody behind it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for SessionSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Why the holder ends.
enum End {
    /// Nobody needs it, or it was told to go.
    Done,
    /// The session is no more; why.
    Broken(String),
}

pub struct Holder {
    link: Link,
    pump: Pump<Call>,
    /// The stream on which the session's first request was sent, until its call comes.
    first: Option<(StreamId, Request)>,
    /// For -O.
    name: String,
    /// None: for its one caller alone, or no longer for new ones.
    socket: Option<SessionSocket>,
    forwards: Forwards,
    shared: bool,
    persist: Duration,
    /// How many descriptors this process may have.
    descriptors: usize,
    callers: Callers,
    /// Calls for which the server has no room now.
    waiting: VecDeque<Pending>,
    liveness: Liveness,
    now: Duration,
    began: Duration,
    /// When the last call ended.
    idle: Duration,
    told_to_go: bool,
}

impl Holder {
    /// A holder of `session`, whose first caller is at the other end of `first`.
    pub fn new(
        session: Session,
        name: String,
        (socket, mut forwards): (Option<SessionSocket>, Forwards),
        persist: Duration,
        first: OwnedFd,
    ) -> Holder {
        forwards.claim();
        let now = clock::monotonic();
        let liveness = Liveness::new(session.link.socket(), now);
        let mut pump = Pump::new(session.mux);
        if session.first.is_none() {
            pump.listen();
        }
        Holder {
            link: session.link,
            pump,
            first: session.first,
            name,
            shared: socket.is_some(),
            socket,
            forwards,
            persist,
            descriptors: process::raise_nofile()
                .map_or(256, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            callers: Callers::new(first),
            waiting: VecDeque::new(),
            liveness,
            now,
            began: now,
            idle: now,
            told_to_go: false,
        }
    }

    /// Holds the session until nobody needs it. Returns the process's exit status.
    pub fn run(mut self) -> u8 {
        process::set_name("five-holder");
        if let Some(socket) = &self.socket {
            // Where this fails, a caller does not see whose process is silent.
            let _ = local::listen_again(socket.as_fd());
        }
        let ended = self.hold();
        // First of all nobody new comes.
        self.forwards.close();
        self.close_socket();
        let why = match &ended {
            Ok(End::Done) => "the session was ended (five -O exit)".to_string(),
            Ok(End::Broken(why)) => why.clone(),
            Err(e) => e.to_string(),
        };
        self.lose_all(&why, matches!(ended, Ok(End::Done)));
        if matches!(ended, Ok(End::Done)) {
            self.say_goodbye();
        } else {
            // Requests that a silent server may yet read are made elsewhere by now.
            let _ = socket::drop_unsent(self.link.socket());
        }
        u8::from(ended.is_err())
    }

    fn hold(&mut self) -> Result<End, Error> {
        let signals = Signals::new(&[Signal::Term, Signal::Int, Signal::Hup])
            .map_err(Error::system("signals"))?;
        loop {
            if let Err(why) = self.turn() {
                return Ok(End::Broken(why));
            }
            if self.told_to_go || self.is_over() {
                return Ok(End::Done);
            }
            match self.wait(&signals) {
                Ok(()) => {}
                Err(LinkError::System(e)) => return Err(Error::system("poll")(e)),
                Err(e) => return Ok(End::Broken(lost(&e))),
            }
        }
    }

    fn close_socket(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
    }

    fn is_over(&self) -> bool {
        let leaving = self.mux().leaving() && self.has_nothing_open();
        leaving || self.over_at().is_some_and(|at| self.now >= at)
    }

    /// No stream, and no call that waits for one.
    fn has_nothing_open(&self) -> bool {
        self.pump.is_empty() && self.waiting.is_empty()
    }

    /// When nobody needs it any more. None: somebody does.
    fn over_at(&self) -> Option<Duration> {
        let unneeded = self.callers.is_empty() && self.has_nothing_open();
        let persist = if self.shared { self.persist } else { Duration::ZERO };
        unneeded.then(|| self.idle.saturating_add(persist))
    }

    fn mux(&self) -> &Mux {
        self.pump.mux()
    }

    /// One turn: what the server says, what is due, what is sent.
    fn turn(&mut self) -> Result<(), String> {
        self.pump.begin_turn();
        self.now = self.pump.now();
        if self.pump.take_said() {
            self.liveness.said(self.pump.mux_mut(), self.now);
        }
        let done = self.events();
        if self.pump.take_heard() {
            self.liveness.heard(self.now);
        }
        done?;
        // Silence is the liveness's matter: the multiplexer asks for no signs of life.
        self.pump.tick();
        let open = self.pump.streams().any(|(_, s)| s.owner.is_answered());
        self.liveness.tick(self.pump.mux_mut(), open, self.now)?;
        if self.liveness.is_away() {
            self.tell_of_outage();
        }
        if self.mux().leaving() {
            // Whoever comes now makes a session under the new table, and listens for its forwards.
            self.forwards.close();
            if let Some(socket) = &mut self.socket {
                socket.retire();
            }
        }
        self.next_in_line();
        self.callers.deaf().into_iter().for_each(|id| self.caller_gone(id));
        self.give_out().map_err(|e| lost(&e))
    }

    fn give_out(&mut self) -> Result<(), LinkError> {
        if !self.pump.is_sent(&self.link) {
            self.liveness.said(self.pump.mux_mut(), self.now);
        }
        let sent = self.pump.give_out(&mut self.link);
        // That was said above.
        self.pump.take_said();
        sent
    }

    fn events(&mut self) -> Result<(), String> {
        while let Some(event) = self.pump.event(&mut self.link).map_err(|e| lost(&e))? {
            match event {
                // A server opens none.
                Event::Opened(_) => {}
                Event::Said(id) => self.said(id),
                Event::Finished(id) => self.finished(id),
                Event::Unread(id, e) => self.output_broke(id, Some(e)),
                Event::InputBroke(id) => self.input_broke(id),
                Event::Hung { id, broken: true } => self.output_broke(id, None),
                Event::Hung { id, broken: false } => self.output_gone(id),
                Event::Closed(_, stream) => self.ended(&stream.owner),
                Event::Reset(_, stream) => self.reset(*stream),
                Event::Over => return Err(lost(&LinkError::Closed)),
                Event::GivenUp(code) => {
                    return Err(format!("the server gave the session up (code {code})"));
                }
                Event::Broken(why) => {
                    return Err(format!("what the server says is no yamux: {why}"));
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, signals: &Signals) -> Result<(), LinkError> {
        let due = self.deadline();
        let mut polls = vec![
            Poll::new(signals.as_fd(), true, false),
            self.socket
                .as_ref()
                .filter(|_| self.has_room_for_callers())
                .map_or(Poll::none(), |d| Poll::new(d.as_fd(), true, false)),
            self.liveness.poll(),
        ];
        let (fixed, callers) = (polls.len(), self.callers.ids());
        polls.extend(self.callers.polls(self.has_room_for_calls()));
        polls.extend(self.forwards.polls(self.has_room_for_applications(), self.now));
        let ready = self.pump.wait(&mut self.link, &mut polls, due)?;
        self.now = self.pump.now();
        if !ready {
            return Ok(());
        }
        let (told, arrived, probed) =
            (polls[0].readable(), polls[1].readable(), polls[2].writable());
        let spoken: Vec<(u32, bool)> = callers
            .iter()
            .zip(&polls[fixed..fixed + callers.len()])
            .filter(|(_, p)| p.readable() || p.hung())
            .map(|(id, p)| (*id, p.hung()))
            .collect();
        let at_forwards: Vec<bool> =
            polls[fixed + callers.len()..].iter().map(Poll::readable).collect();
        drop(polls);
        if probed {
            self.liveness.reached(self.link.socket(), self.now);
        }
        self.pump.serve(&mut self.link);
        spoken.into_iter().for_each(|(id, hung)| self.hear_caller(id, hung));
        if arrived {
            self.admit();
        }
        self.take_applications(&at_forwards);
        if told {
            self.told_to_go = signals.next().is_some_and(|r| r.signal != Signal::Hup);
        }
        Ok(())
    }

    /// When something is due though nobody moves.
    fn deadline(&self) -> Duration {
        let retry = self.waiting.front().and_then(|p| p.again);
        let paused = self.forwards.deadline(self.now);
        self.over_at()
            .into_iter()
            .chain(retry)
            .chain(paused)
            .fold(self.liveness.deadline(), Duration::min)
    }

    /// The server need not find out by itself.
    fn say_goodbye(&mut self) {
        let until = clock::monotonic() + FAREWELL_TIMEOUT;
        self.pump.go_away();
        if self.pump.send_rest(&mut self.link, until) {
            self.link.say_end();
        }
    }
}
