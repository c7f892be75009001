//! What the two ends of RUN tell each other besides the service's bytes, and how far they are with
//! that: a direction has ended, so has the service, the terminal has another size.

use crate::sys::flow::Flow;
use crate::wire::run::{self, Data, Decoder, HEAD, Sender, Size, Status};

/// The most bytes of a service's own reply line.
const REPLY_MAX: usize = 512;

/// Which end of RUN is this one?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has the service.
    Service,
    /// It has the caller's standard input, output and error.
    Caller,
}

/// How far the local end's bytes have been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// More may come.
    Open,
    /// They have ended, which the peer is to be told.
    Ended,
    All,
}

/// See the module.
#[derive(Debug)]
pub struct Run {
    end: End,
    pub(super) decoder: Decoder,
    /// Where the service's standard error comes from, or goes to. None: it has none, or it is over.
    pub(super) errors: Option<Flow>,
    /// The local end is a terminal.
    pub(super) terminal: bool,
    told: Told,
    /// How the service ended, once that is known.
    status: Option<Status>,
    status_told: bool,
    /// Nobody will tell how it ended.
    forsaken: bool,
    /// The size of the caller's terminal, of which the peer is to be told.
    size: Option<Size>,
    /// The service has a terminal: the end with the service has yet to tell it, the other one was
    /// told, and its owner does not know yet.
    announces: bool,
    /// The service's own reply line, as far as it has come. None: records are sent.
    reply: Option<usize>,
}

impl Run {
    /// Of the end with the service; `errors`: its standard error, if that is not with its output.
    /// `terminal`: the local end is a terminal. `replies`: its first line is its answer to the
    /// client, and comes before the records.
    pub fn of_service(errors: Option<Flow>, terminal: bool, replies: bool) -> Box<Run> {
        let reply = replies.then_some(0);
        Run::new(End::Service, Sender::Client, (errors, terminal), reply)
    }

    /// Of the caller's end. `terminal`: it goes on telling of its size after its input has ended.
    pub fn of_caller(errors: Option<Flow>, terminal: bool) -> Box<Run> {
        Run::new(End::Caller, Sender::Server, (errors, terminal), None)
    }

    fn new(
        end: End,
        peer: Sender,
        (errors, terminal): (Option<Flow>, bool),
        reply: Option<usize>,
    ) -> Box<Run> {
        let (told, decoder) = (Told::Open, Decoder::new(peer));
        let (status, status_told, size) = (None, false, None);
        let (forsaken, announces) = (false, terminal && end == End::Service);
        let run = Run {
            end,
            decoder,
            errors,
            terminal,
            told,
            status,
            status_told,
            forsaken,
            size,
            announces,
            reply,
        };
        Box::new(run)
    }

    /// How the service ended, if that is known.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The service has ended.
    pub fn ended(&mut self, status: Status) {
        self.status.get_or_insert(status);
    }

    /// Nobody will tell how the service ends, unless that is known already.
    pub fn forsake(&mut self) {
        self.forsaken = true;
    }

    /// Is all told but the end, of which nobody knows?
    pub(in crate::link) fn is_forsaken(&self) -> bool {
        let told = self.told == Told::All && self.errors.is_none();
        self.serves() && self.forsaken && told && self.status.is_none()
    }

    /// The caller's terminal has another size.
    pub fn resized(&mut self, size: Size) {
        self.size = Some(size);
    }

    /// The service has a terminal.
    pub(super) fn terminal_given(&mut self) {
        self.announces = self.end == End::Caller;
    }

    /// Was it told that the service has a terminal? This says so once.
    pub(super) fn take_given(&mut self) -> bool {
        self.end == End::Caller && std::mem::take(&mut self.announces)
    }

    /// Must it tell of the terminal before anything else?
    fn must_announce(&self) -> bool {
        self.serves() && self.announces && self.reply.is_none()
    }

    /// Its caller's standard error, for another try.
    pub fn take_errors(&mut self) -> Option<Flow> {
        self.errors.take()
    }

    pub(super) fn main_ended(&mut self) {
        if self.told == Told::Open {
            self.told = Told::Ended;
        }
    }

    /// Is the local end still read?
    pub(super) fn reads_main(&self) -> bool {
        self.told == Told::Open && !self.must_announce()
    }

    /// Standard error, if it is read from the local end, and now.
    pub(super) fn error_input(&self) -> Option<&Flow> {
        self.errors.as_ref().filter(|_| self.serves() && self.reply.is_none())
    }

    /// The data that a local end has not taken.
    pub(super) fn waits_with(&self) -> Option<Data> {
        self.decoder.waits_with()
    }

    /// May the peer finish here, without a reset? Not within a record; and whoever leaves a
    /// terminal without ending its input is gone: the terminal is to hang up.
    pub(super) fn may_finish(&self) -> bool {
        let leaves = self.serves() && self.terminal && !self.decoder.has_ended();
        self.decoder.is_between() && !leaves
    }

    /// The next record without data, if there is one; the first `room` bytes are all that the peer
    /// takes now.
    pub(in crate::link) fn control(&mut self, room: usize) -> Option<Vec<u8>> {
        if room < run::CONTROL_MAX || self.reply.is_some() && self.told == Told::Open {
            return None;
        }
        if self.must_announce() {
            self.announces = false;
            return Some(run::terminal());
        }
        if let Some(size) = self.size.take() {
            return Some(run::size(size));
        }
        match (self.told, self.end, self.status) {
            (Told::Ended, ..) => {
                self.told = Told::All;
                Some(run::end())
            }
            (Told::All, End::Service, Some(status))
                if self.errors.is_none() && !self.status_told =>
            {
                self.status_told = true;
                Some(run::status(status))
            }
            _ => None,
        }
    }

    /// Is there something to be told, for which the peer has no room now?
    pub(super) fn is_telling(&self) -> bool {
        let ends = self.told == Told::All && self.errors.is_none() && self.status.is_some();
        self.size.is_some()
            || self.must_announce()
            || self.told == Told::Ended
            || self.serves() && ends && !self.status_told
    }

    /// Has all been told that this end will ever tell?
    pub(in crate::link) fn has_told_all(&self) -> bool {
        match self.end {
            End::Service => self.status_told,
            End::Caller => self.told == Told::All && !self.terminal,
        }
    }

    /// Is it the end with the service?
    pub(super) fn serves(&self) -> bool {
        self.end == End::Service
    }

    /// Reads the service's own reply line byte by byte, so that what follows it becomes records.
    /// None: there is no such line to read (any more).
    pub(super) fn read_reply(&mut self, input: &Flow) -> Option<Vec<u8>> {
        let before = self.reply?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while let Ok(1) = input.read(&mut byte) {
            line.push(byte[0]);
            if byte == *b"\n" || before + line.len() == REPLY_MAX {
                self.reply = None;
                return Some(line);
            }
        }
        if line.is_empty() {
            // Its end, or an error, is noticed by whoever reads next.
            self.reply = None;
            return None;
        }
        self.reply = Some(before + line.len());
        Some(line)
    }
}

/// Bytes of a record's head on that stream.
pub(super) fn head(run: Option<&Run>) -> usize {
    if run.is_some() { HEAD } else { 0 }
}
