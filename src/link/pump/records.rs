//! The records of RUN on a stream (`wire::run`): sending and receiving them.
//!
//! Data stays where it is: the head of a record is put between that of its frame and the bytes that
//! were read from a local end, and what the peer sent is written to a local end from where it was
//! received. Records without data wait here until the peer's window has room for them.

use super::run::Run;
use super::stream::{LocalEnd, Stream, ToPeer};
use super::{Event, OUT_MAX, Pump};
use crate::link::Breaks;
use crate::sys::flow::Flow;
use crate::sys::socket;
use crate::wire::run::{Data, Part};
use crate::wire::yamux::StreamId;
use std::io;
use std::os::fd::AsFd;

/// What became of bytes that the peer sent.
#[derive(Debug)]
pub(in crate::link) enum Passed {
    All,
    /// A local end takes no more now.
    Blocked,
    /// Those up to the record that the service has a terminal. The owner is to hear of that before
    /// more is passed on.
    Terminal,
    /// The local end takes no more at all.
    Failed(io::Error),
    /// They are no records.
    Broken,
}

impl<T> Stream<T> {
    /// Standard error, if it is read from the local end, and now.
    pub(in crate::link) fn error_input(&self) -> Option<&Flow> {
        self.run.as_ref().and_then(|run| run.error_input())
    }

    /// The local end has no more of these data.
    pub(in crate::link) fn end_input(&mut self, what: Data) {
        let Some(run) = &mut self.run else { return };
        match what {
            Data::Main => run.main_ended(),
            Data::Errors => run.errors = None,
        }
    }

    /// The service's own reply line, as far as it has come and was not read before. None: what
    /// comes of the local end is for records.
    pub(in crate::link) fn read_reply(&mut self) -> Option<Vec<u8>> {
        let line = self.run.as_mut()?.read_reply(self.local.input(&self.to_peer)?)?;
        self.tally.send(line.len());
        Some(line)
    }

    /// The peer has finished: the output is closed. False: it may not finish here.
    pub(in crate::link) fn finish_records(&mut self) -> bool {
        let may = self.run.as_ref().is_none_or(|run| run.may_finish());
        if may {
            self.finish_output();
        }
        may
    }

    /// All that the service has sent was passed on, and with that the stream ends. A server that
    /// was running already may still read: where it did not get all of the input, it sees its
    /// connection break, so that it does not take what it has for all.
    pub(in crate::link) fn end_with_output(&self) {
        let had_all = self.is_done() || self.run.as_ref().is_none_or(|run| run.had_input());
        if let LocalEnd::Socket(connection) = &self.local
            && self.breaks != Breaks::End
            && !had_all
        {
            socket::abort(connection.as_fd());
        }
    }

    /// Passes on records to the local ends, as far as these take them. Returns how many of the
    /// bytes were taken.
    pub(in crate::link) fn pass_records(&mut self, bytes: &[u8]) -> (usize, Passed) {
        let Some(mut run) = self.run.take() else { return (bytes.len(), Passed::All) };
        let done = self.pass(&mut run, bytes);
        self.run = Some(run);
        done
    }

    fn pass(&mut self, run: &mut Run, bytes: &[u8]) -> (usize, Passed) {
        let mut at = 0;
        loop {
            let (taken, part) = run.decoder.next(&bytes[at..]);
            at += taken;
            let is_banner = matches!(part, Part::Banner(_));
            let passed = match part {
                Part::More => return (at, Passed::All),
                Part::Broken => return (at, Passed::Broken),
                Part::Banner(data) | Part::Data(Data::Main, data) => match self.write(data) {
                    Ok(n) => {
                        self.tally.receive(n);
                        // A pipe that has taken only a part may take more at once.
                        let full = n == 0 || self.output().is_some_and(Flow::is_socket);
                        (n, n < data.len() && full)
                    }
                    Err(e) => return (at, Passed::Failed(e)),
                },
                Part::Data(Data::Errors, data) => write_errors(&mut run.errors, data),
                Part::End => {
                    self.finish_output();
                    (0, false)
                }
                Part::Size(size) => {
                    run.pass_size(size);
                    (0, false)
                }
                Part::Terminal => return (at, Passed::Terminal),
                Part::Status(status) => {
                    run.ended(Some(status));
                    (0, false)
                }
            };
            let (n, blocked) = passed;
            run.decoder.took(n);
            if is_banner {
                run.took_banner(n);
            }
            at += n;
            if blocked {
                return (at, Passed::Blocked);
            }
        }
    }
}

/// Writes to standard error: how many bytes, and whether it takes no more now. What nobody reads is
/// discarded.
fn write_errors(errors: &mut Option<Flow>, data: &[u8]) -> (usize, bool) {
    let Some(flow) = errors else { return (data.len(), false) };
    match flow.write(data) {
        Ok(n) => (n, n == 0),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            (0, true)
        }
        Err(_) => {
            *errors = None;
            (data.len(), false)
        }
    }
}

impl<T> Pump<T> {
    /// From now on both sides of the stream send records. To be called before its local end is
    /// attached.
    pub fn run(&mut self, id: StreamId, run: Box<Run>) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.run = Some(run);
        }
        self.tell(id);
    }

    /// Changes what the peer is to be told besides bytes.
    pub fn note(&mut self, id: StreamId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.streams.get_mut(&id).and_then(|s| s.run_mut()) {
            change(run);
        }
        self.tell(id);
    }

    pub(super) fn tell(&mut self, id: StreamId) {
        if !self.control_due.contains(&id) {
            self.control_due.push(id);
        }
    }

    // From the peer.

    /// Records have come on a stream whose local end is known.
    pub(super) fn records(&mut self, id: StreamId, data: &[u8]) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let (taken, passed) = match s.held.is_empty() {
            true => s.pass_records(data),
            false => (0, Passed::Blocked),
        };
        self.mux.delivered(id, taken, self.now);
        match passed {
            Passed::All => {}
            Passed::Blocked => s.held.extend(&data[taken..]),
            Passed::Terminal => {
                s.held.extend(&data[taken..]);
                self.events.push_back(Event::Terminal(id));
            }
            Passed::Failed(e) => {
                self.mux.delivered(id, data.len() - taken, self.now);
                self.output_failed(id, e);
            }
            Passed::Broken => self.break_stream(id),
        }
    }

    /// The owner has acted on [`Event::Terminal`]: what came with it is passed on.
    pub fn pass_rest(&mut self, id: StreamId) {
        self.write_local(id);
    }

    /// Passes on the records that are held.
    pub(super) fn write_records(&mut self, id: StreamId) {
        while let Some(s) = self.streams.get_mut(&id) {
            let held = std::mem::take(&mut s.held);
            let (taken, passed) = s.pass_records(held.as_slices().0);
            s.held = held;
            let counts = s.consume_held(taken);
            self.mux.delivered(id, counts, self.now);
            match passed {
                Passed::All if s.held.is_empty() => return self.local_has_all(id),
                Passed::All => {}
                Passed::Blocked => return,
                Passed::Terminal => return self.events.push_back(Event::Terminal(id)),
                Passed::Failed(e) => return self.output_failed(id, e),
                Passed::Broken => return self.break_stream(id),
            }
        }
    }

    /// The stream ends by a reset: the local end broke, or the peer sent what is no record.
    pub(super) fn break_stream(&mut self, id: StreamId) {
        self.mux.reset_at_once(id);
        if let Some(stream) = self.streams.remove(&id) {
            self.events.push_back(Event::Reset(stream));
        }
    }

    // To the peer.

    /// Sends the records without data that are due, as far as the windows and the queue allow.
    pub(super) fn send_records(&mut self) {
        for id in std::mem::take(&mut self.control_due) {
            if self.has_more_to_tell(id) {
                self.tell(id);
            }
        }
    }

    /// Sends those of one stream. True: there is no room for all of them now.
    fn has_more_to_tell(&mut self, id: StreamId) -> bool {
        loop {
            let room = self.mux.send_window(id);
            let Some(s) = self.streams.get_mut(&id) else { return false };
            let open = matches!(s.to_peer, ToPeer::Open | ToPeer::Failed);
            let Some(run) = s.run.as_mut().filter(|_| open) else { return false };
            if self.out.taken() >= OUT_MAX {
                return true;
            }
            let Some(record) = run.control(room) else {
                let (incomplete, has_control) = (run.lacks_the_end(), run.has_control());
                if incomplete {
                    self.break_stream(id);
                }
                return has_control && !incomplete;
            };
            let (last, serves) = (run.has_sent_all(), run.serves());
            self.send_data(id, &record);
            match (last, serves) {
                (false, _) => {}
                (true, false) => self.local_finished(id),
                (true, true) => {
                    if let Some(stream) = self.close(id) {
                        stream.end_with_output();
                        self.events.push_back(Event::Closed(stream));
                    }
                }
            }
        }
    }

    /// Sends the service's own reply line, as far as it has come. True: what has come of the local
    /// end was sent so, and is no record.
    pub(super) fn send_reply(&mut self, id: StreamId) -> bool {
        let line = self.streams.get_mut(&id).and_then(|s| s.read_reply());
        let Some(line) = line else { return false };
        self.send_data(id, &line);
        // What was to be told after that line may be told now.
        self.tell(id);
        true
    }
}
