//! What the two ends of RUN send each other besides the service's bytes: that a direction has
//! ended, how the service ended, and the size of the terminal; and how much of that was sent.

use crate::sys::clock;
use crate::sys::flow::Flow;
use crate::wire::run::{self, Data, Decoder, HEAD, Sender, Size, Status};
use std::time::Duration;

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

/// The state of the main bytes of the local end: a service's output, or a caller's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Main {
    /// More may come.
    Open,
    /// They have ended, and the record that says so was not sent yet.
    Ended,
    /// That record was sent.
    EndSent,
}

/// What is known of how the service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServiceEnd {
    /// Nothing yet.
    Unknown,
    /// It ends with its connection, and well if that is before this time. Then somebody else may
    /// have ended it.
    WithConnection(Duration),
    /// Nothing, and nothing will be: whoever could report it is gone, or output was lost.
    NeverKnown,
    Known(Status),
    /// The peer was sent the record of it.
    Sent(Status),
}

/// Is the local end a terminal?
#[derive(Debug)]
pub enum Terminal {
    None,
    /// The caller's, whose sizes are sent even after its input has ended.
    OfCaller,
    /// The service's, which has a process of its own: that is told each size here, and that the
    /// service has ended.
    OfService(Flow),
}

/// See the module.
#[derive(Debug)]
pub struct Run {
    end: End,
    pub(super) decoder: Decoder,
    /// Where the service's standard error comes from, or goes to. None: it has none, or it is over.
    pub(super) errors: Option<Flow>,
    terminal: Terminal,
    main: Main,
    service_end: ServiceEnd,
    /// The new size of the caller's terminal, which was not sent to the peer yet.
    size: Option<Size>,
    /// The service has a terminal, and the peer was not told so yet.
    announces: bool,
    /// Bytes of the banner that the local end has taken.
    banner: u32,
    /// An empty record is to be sent.
    probes: bool,
    /// The service's own reply line, as far as it has come. None: records are sent.
    reply: Option<usize>,
}

impl Run {
    /// Of the end with the service; `errors`: its standard error, if that is not with its output.
    /// `replies`: its first line is its answer to the client, and comes before the records.
    pub fn of_service(errors: Option<Flow>, terminal: Terminal, replies: bool) -> Box<Run> {
        let reply = replies.then_some(0);
        Run::new(End::Service, Sender::Client, errors, terminal, reply)
    }

    /// Of the caller's end. `is_terminal`: new sizes of it are sent even after its input has ended.
    pub fn of_caller(errors: Option<Flow>, is_terminal: bool) -> Box<Run> {
        let terminal = if is_terminal { Terminal::OfCaller } else { Terminal::None };
        Run::new(End::Caller, Sender::Server, errors, terminal, None)
    }

    fn new(
        end: End,
        peer: Sender,
        errors: Option<Flow>,
        terminal: Terminal,
        reply: Option<usize>,
    ) -> Box<Run> {
        let announces = matches!(terminal, Terminal::OfService(_));
        let run = Run {
            end,
            decoder: Decoder::new(peer),
            errors,
            terminal,
            main: Main::Open,
            service_end: ServiceEnd::Unknown,
            size: None,
            announces,
            banner: 0,
            probes: false,
            reply,
        };
        Box::new(run)
    }

    /// How the service ended, if that is known.
    pub fn status(&self) -> Option<Status> {
        match self.service_end {
            ServiceEnd::Known(status) | ServiceEnd::Sent(status) => Some(status),
            ServiceEnd::Unknown | ServiceEnd::WithConnection(_) | ServiceEnd::NeverKnown => None,
        }
    }

    /// The service has ended. `status`: None: it will never be known how, unless that is known
    /// already.
    pub fn ended(&mut self, status: Option<Status>) {
        if matches!(self.service_end, ServiceEnd::Unknown | ServiceEnd::NeverKnown) {
            self.service_end = status.map_or(ServiceEnd::NeverKnown, ServiceEnd::Known);
        }
        if let (Terminal::OfService(sizes), Some(_)) = (&self.terminal, status) {
            // The terminal hangs up when what is there has been passed on, whoever has it still.
            sizes.finish();
        }
    }

    /// Nobody will tell how the service ends: it was running already, and ends with its connection.
    /// `until`: when `server_timeout` ends it.
    pub fn ends_with_connection(&mut self, until: Option<Duration>) {
        self.service_end = ServiceEnd::WithConnection(until.unwrap_or(Duration::MAX));
    }

    /// Was everything sent but the service's end, which will never be known?
    pub(in crate::link) fn lacks_the_end(&self) -> bool {
        self.serves() && self.output_is_over() && self.service_end == ServiceEnd::NeverKnown
    }

    /// Was all of the service's output and of its standard error sent?
    fn output_is_over(&self) -> bool {
        self.main == Main::EndSent && self.errors.is_none()
    }

    /// The caller's terminal has another size.
    pub fn resized(&mut self, size: Size) {
        self.size = Some(size);
    }

    pub(super) fn took_banner(&mut self, n: usize) {
        self.banner = self.banner.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// How many bytes of the output, the first ones, are a banner, as far as it has come.
    pub fn banner(&self) -> u32 {
        self.banner
    }

    /// Must the record about the terminal be sent before anything else?
    fn must_announce(&self) -> bool {
        self.serves() && self.announces && self.reply.is_none()
    }

    /// Its caller's standard error, for another attempt.
    pub fn take_errors(&mut self) -> Option<Flow> {
        self.errors.take()
    }

    pub(super) fn main_ended(&mut self) {
        if self.main != Main::Open {
            return;
        }
        self.main = Main::Ended;
        if let ServiceEnd::WithConnection(until) = self.service_end {
            self.service_end = match clock::monotonic() < until {
                true => ServiceEnd::Known(Status::Exited(0)),
                false => ServiceEnd::NeverKnown,
            };
        }
    }

    /// Is the local end still read?
    pub(super) fn reads_main(&self) -> bool {
        self.main == Main::Open && !self.must_announce()
    }

    /// Standard error, if it is read from the local end, and now.
    pub(super) fn error_input(&self) -> Option<&Flow> {
        self.errors.as_ref().filter(|_| self.serves() && self.reply.is_none())
    }

    /// The data that a local end has not taken.
    pub(super) fn waits_with(&self) -> Option<Data> {
        self.decoder.waits_with()
    }

    /// Does the service's terminal hang up as soon as the peer has left?
    pub(in crate::link) fn hangs_up(&self) -> bool {
        matches!(self.terminal, Terminal::OfService(_))
    }

    /// The service's terminal gets this size. If its process has not read hundreds of them, it is
    /// kept from that by the terminal's users, and this one is lost.
    pub(super) fn pass_size(&self, size: Size) {
        if let Terminal::OfService(sizes) = &self.terminal {
            // An error: that process has ended, and so has the local end.
            let _ = sizes.write(&size.bytes());
        }
    }

    /// Sends the peer an empty record of output: its system answers with a reset if it has closed
    /// its connection.
    pub(in crate::link) fn probe(&mut self) {
        self.probes = true;
    }

    /// May the peer finish here, without a reset? Not within a record; and whoever leaves a
    /// terminal without ending its input is gone: the terminal is to hang up.
    pub(super) fn may_finish(&self) -> bool {
        let leaves = self.hangs_up() && !self.decoder.has_ended();
        self.decoder.is_between() && !leaves
    }

    /// Has the service got all of its input, and the end of it?
    pub(super) fn had_input(&self) -> bool {
        self.decoder.has_ended()
    }

    /// Has all of a record come, or nothing?
    pub(in crate::link) fn is_between_records(&self) -> bool {
        self.decoder.is_between()
    }

    /// The next record without data, if there is one; the first `room` bytes are all that the peer
    /// takes now.
    pub(in crate::link) fn control(&mut self, room: usize) -> Option<Vec<u8>> {
        if room < run::CONTROL_MAX || self.reply.is_some() && self.main == Main::Open {
            return None;
        }
        if self.must_announce() {
            self.announces = false;
            return Some(run::terminal());
        }
        if let Some(size) = self.size.take() {
            return Some(run::size(size));
        }
        if std::mem::take(&mut self.probes) && self.main == Main::Open {
            return Some(run::head(Data::Main, 0).to_vec());
        }
        match (self.main, self.end, self.service_end) {
            (Main::Ended, ..) => {
                self.main = Main::EndSent;
                Some(run::end())
            }
            (Main::EndSent, End::Service, ServiceEnd::Known(status)) if self.errors.is_none() => {
                self.service_end = ServiceEnd::Sent(status);
                Some(run::status(status))
            }
            _ => None,
        }
    }

    /// Is there a record without data to be sent, for which the peer's window has no space now?
    pub(super) fn has_control(&self) -> bool {
        let end_is_due = self.serves()
            && self.output_is_over()
            && matches!(self.service_end, ServiceEnd::Known(_));
        self.size.is_some() || self.must_announce() || self.main == Main::Ended || end_is_due
    }

    /// Was everything sent that this end will ever send?
    pub(in crate::link) fn has_sent_all(&self) -> bool {
        match self.end {
            End::Service => matches!(self.service_end, ServiceEnd::Sent(_)),
            End::Caller => {
                self.main == Main::EndSent && !matches!(self.terminal, Terminal::OfCaller)
            }
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
