//! The holder of a session: a process that belongs to no terminal and copies between the session's
//! streams and the descriptors that callers hand over. One thread polls all of them and never waits
//! in a write.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | the loop, and what ends it |
//! | `callers.rs` | who asks, and what they are told |
//! | `calls.rs` | a call: its request, its answer, its bytes both ways |
//! | `pulse.rs` | is the server still there? |
//!
//! It goes when nothing was open for `persist`, when the server says go-away and the last stream
//! has ended, when the session breaks, and when it is told to (`-O exit`, SIGTERM). Its socket goes
//! first, so that no caller is stranded. Memory: what a call's output does not take, at most its
//! window (256 KiB to 4 MiB, 16 MiB in all); input that was sent before the answer, at most 64 KiB
//! a call; 256 KiB of frames.

mod callers;
mod calls;
mod pulse;

use super::open::Session;
use super::paths;
use super::server::lost;
use super::trouble::Trouble;
use crate::link::{Error, Heard};
use crate::sys::poll::{self, Poll};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, local, process, socket};
use crate::wire::yamux::{CONTROL_MAX, Event, Mux, StreamId};
use callers::Callers;
use calls::{Call, Pending};
use pulse::Pulse;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of frames that wait to be sent; above it no input is read.
const OUT_MAX: usize = 256 * 1024;
/// Bytes that are taken from the session at once.
const TAKE: usize = 128 * 1024;
/// How long buffers are kept when nothing moves.
const LINGER: Duration = Duration::from_millis(50);
/// How long the last frames may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where new callers find the session.
pub struct Door {
    listener: OwnedFd,
    path: PathBuf,
    inode: u64,
    /// The session drains: nobody finds it to make a call.
    retired: bool,
}

impl Door {
    /// Listens at a path where nobody does any more; the directory is this user's alone.
    pub fn open(path: &Path) -> Result<Door, Trouble> {
        let said = || Trouble::system(path.display().to_string());
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(said()(e)),
            _ => {}
        }
        let before = process::set_umask(0o177);
        let listener = local::listen(path);
        process::set_umask(before);
        let inode = std::fs::symlink_metadata(path).map_err(said())?.ino();
        Ok(Door { listener: listener.map_err(said())?, path: path.into(), inode, retired: false })
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

impl AsFd for Door {
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
    session: Session,
    /// For -O.
    name: String,
    /// None: for its one caller alone, or no longer for new ones.
    door: Option<Door>,
    shared: bool,
    persist: Duration,
    /// How many descriptors this process may have.
    descriptors: usize,
    callers: Callers,
    calls: BTreeMap<StreamId, Call>,
    /// Calls for which the server has no room now.
    waiting: VecDeque<Pending>,
    /// The stream that had its turn last.
    turn: Option<StreamId>,
    out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
    pulse: Pulse,
    now: Duration,
    began: Duration,
    /// When the last call ended.
    idle: Duration,
    told_to_go: bool,
    /// The session's first stream has its call: what came for it may be read.
    claimed: bool,
}

impl Holder {
    /// A holder of `session`, whose first caller is at the other end of `first`.
    pub fn new(
        session: Session,
        name: String,
        door: Option<Door>,
        persist: Duration,
        first: OwnedFd,
    ) -> Holder {
        let now = clock::monotonic();
        let pulse = Pulse::new(session.link.socket(), now);
        Holder {
            session,
            name,
            shared: door.is_some(),
            door,
            persist,
            descriptors: process::raise_nofile()
                .map_or(256, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            callers: Callers::new(first),
            calls: BTreeMap::new(),
            waiting: VecDeque::new(),
            turn: None,
            out: Vec::new(),
            sent: 0,
            buffer: Vec::new(),
            pulse,
            now,
            began: now,
            idle: now,
            told_to_go: false,
            claimed: false,
        }
    }

    /// Holds the session until nobody needs it. Returns the process's exit status.
    pub fn run(mut self) -> u8 {
        process::set_name(c"five-holder");
        if let Some(door) = &self.door {
            // Where this fails, a caller does not see whose process is silent.
            let _ = local::listen_again(door.as_fd());
        }
        let ended = self.hold();
        // First of all nobody new comes.
        self.close_door();
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
            let _ = socket::drop_unsent(self.session.link.socket());
        }
        u8::from(ended.is_err())
    }

    fn hold(&mut self) -> Result<End, Trouble> {
        let signals = Signals::new(&[Signal::Term, Signal::Int, Signal::Hup])
            .map_err(Trouble::system("signals"))?;
        let mut readable = false;
        loop {
            self.now = clock::monotonic();
            // The first answer may have come with the session.
            readable |= std::mem::take(&mut self.claimed);
            if let Err(why) = self.turn(readable) {
                return Ok(End::Broken(why));
            }
            if self.told_to_go || self.is_over() {
                return Ok(End::Done);
            }
            match self.wait(&signals) {
                Ok(r) => readable = r,
                Err(e) => return Err(Trouble::system("poll")(e)),
            }
        }
    }

    fn close_door(&mut self) {
        if let Some(door) = self.door.take() {
            door.close();
        }
    }

    fn is_over(&self) -> bool {
        let nothing_open = self.calls.is_empty() && self.waiting.is_empty();
        if !nothing_open {
            return false;
        }
        if self.mux().leaving() {
            return true;
        }
        if !self.shared {
            return self.callers.is_empty();
        }
        self.callers.is_empty() && self.now >= self.idle.saturating_add(self.persist)
    }

    fn mux(&self) -> &Mux {
        &self.session.mux
    }

    /// One turn: what the server says, what is due, what is sent.
    fn turn(&mut self, readable: bool) -> Result<(), String> {
        if readable {
            self.take_in()?;
        }
        let open = self.calls.values().any(Call::is_answered);
        self.pulse.tick(&mut self.session.mux, open, self.now)?;
        if self.pulse.is_away() {
            self.tell_of_outage();
        }
        if self.session.mux.leaving() {
            // Whoever comes now makes a session under the new table.
            if let Some(door) = &mut self.door {
                door.retire();
            }
        }
        self.next_in_line();
        self.callers.deaf().into_iter().for_each(|id| self.caller_gone(id));
        self.give_out()
    }

    fn wait(&mut self, signals: &Signals) -> std::io::Result<bool> {
        let backlog = self.sent < self.out.len() || self.session.link.wants_write();
        let read = self.mux().control_queued() <= CONTROL_MAX && self.session.first.is_none();
        let room = self.out.len() < OUT_MAX && !backlog;
        let warm = !self.buffer.is_empty() || self.out.capacity() > 0 && !backlog;
        let mut polls = vec![
            Poll::new(self.session.link.socket(), read, backlog),
            Poll::new(signals.as_fd(), true, false),
            self.door
                .as_ref()
                .filter(|_| self.has_room_for_callers())
                .map_or(Poll::none(), |d| Poll::new(d.as_fd(), true, false)),
            self.pulse.poll(),
        ];
        let (fixed, callers) = (polls.len(), self.callers.ids());
        polls.extend(self.callers.polls(self.has_room_for_calls()));
        let (with_callers, ids): (usize, Vec<StreamId>) =
            (polls.len(), self.calls.keys().copied().collect());
        for (id, call) in &self.calls {
            polls.extend(call.polls(room && self.session.mux.send_window(*id) > 0));
        }
        let due = self.deadline().map(|d| d.saturating_sub(self.now));
        let timeout = if warm { Some(due.map_or(LINGER, |d| d.min(LINGER))) } else { due };
        let ready = poll::wait(&mut polls, timeout)?;
        self.now = clock::monotonic();
        if ready == 0 {
            drop(polls);
            self.cool();
            return Ok(false);
        }
        let (readable, told, knocked, probed) =
            (polls[0].readable(), polls[1].readable(), polls[2].readable(), polls[3].writable());
        let spoken: Vec<(u32, bool)> = callers
            .iter()
            .zip(&polls[fixed..with_callers])
            .filter(|(_, p)| p.readable() || p.hung())
            .map(|(id, p)| (*id, p.hung()))
            .collect();
        let ready: Vec<calls::Ready> = ids
            .iter()
            .zip(polls[with_callers..].chunks_exact(2))
            .filter_map(|(id, p)| calls::Ready::of(*id, p[0], p[1]))
            .collect();
        drop(polls);
        if probed {
            self.pulse.reached(self.session.link.socket(), self.now);
        }
        self.calls_ready(ready);
        spoken.into_iter().for_each(|(id, hung)| self.hear_caller(id, hung));
        if knocked {
            self.admit();
        }
        if told {
            self.told_to_go = signals.next().is_some_and(|r| r.signal != Signal::Hup);
        }
        Ok(readable)
    }

    /// When something is due though nobody moves.
    fn deadline(&self) -> Option<Duration> {
        let over = (self.shared && self.callers.is_empty())
            .then(|| self.idle.saturating_add(self.persist));
        let retry = self.waiting.front().and_then(|p| p.again);
        [over, retry, Some(self.pulse.deadline())].into_iter().flatten().min()
    }

    /// Nothing moves: buffers are given back.
    fn cool(&mut self) {
        self.buffer = Vec::new();
        if self.sent == self.out.len() {
            self.out = Vec::new();
            self.sent = 0;
        }
    }

    // The server.

    fn take_in(&mut self) -> Result<(), String> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = self.take_in_with(&mut buffer);
        self.buffer = buffer;
        done
    }

    fn take_in_with(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let mut taken = false;
        while self.mux().control_queued() <= CONTROL_MAX {
            let n = match self.session.link.heard().map_err(|e| lost(&e))? {
                Heard::Bytes(bytes) => {
                    let n = bytes.len().min(buffer.len());
                    buffer[..n].copy_from_slice(&bytes[..n]);
                    n
                }
                Heard::Nothing => 0,
                Heard::End => return Err(lost(&Error::Closed)),
            };
            self.session.link.consume(n);
            if n > 0 {
                self.pulse.heard(self.now);
                self.frames(&buffer[..n])?;
            } else if taken {
                return Ok(());
            } else {
                // One read of the socket a turn: the callers have theirs.
                taken = true;
                self.session.link.take_in().map_err(|e| lost(&e))?;
            }
        }
        Ok(())
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        loop {
            let (taken, event) = self.session.mux.receive(bytes, self.now);
            let none = event.is_none();
            match event {
                None | Some(Event::Opened(_) | Event::GoAway(0)) => {}
                Some(Event::Data(id, data)) => self.data(id, data),
                Some(Event::Finished(id)) => self.finished(id),
                Some(Event::Reset(id)) => self.reset(id),
                Some(Event::GoAway(code)) => {
                    return Err(format!("the server gave the session up (code {code})"));
                }
                Some(Event::Broken(why)) => {
                    return Err(format!("what the server says is no yamux: {why}"));
                }
            }
            bytes = &bytes[taken..];
            if bytes.is_empty() && none {
                return Ok(());
            }
        }
    }

    fn give_out(&mut self) -> Result<(), String> {
        loop {
            if self.out.len() < OUT_MAX {
                self.session.mux.take_control(&mut self.out);
            }
            if self.sent == self.out.len() && !self.session.link.wants_write() {
                break;
            }
            self.pulse.said(&mut self.session.mux, self.now);
            self.session.mux.take_control(&mut self.out);
            // No plaintext is taken while the socket is full.
            if !self.session.link.give_out().map_err(|e| lost(&e))? {
                return Ok(());
            }
            if self.sent < self.out.len() {
                let all = [IoSlice::new(&self.out[self.sent..])];
                self.session.link.send_parts(&all).map_err(|e| lost(&e))?;
            }
            self.out.clear();
            self.sent = 0;
            if !self.session.link.give_out().map_err(|e| lost(&e))? {
                return Ok(());
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// The server need not find out by itself.
    fn say_goodbye(&mut self) {
        let until = clock::monotonic() + LAST_WORDS;
        self.session.mux.go_away(self.now);
        while clock::monotonic() < until {
            match self.give_out() {
                Ok(()) if !self.session.link.wants_write() => break,
                Ok(()) => {
                    let mut polls = [Poll::new(self.session.link.socket(), false, true)];
                    if poll::wait(&mut polls, Some(LAST_WORDS)).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        self.session.link.say_end();
    }
}
