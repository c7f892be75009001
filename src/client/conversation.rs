//! A channel to a holder on which calls are made: messages to the holder, and what it reports.
//!
//! A holder that has reported much to this process, which has not received it, takes no more from
//! it (`UNSENT_MAX` in `holder/callers.rs`). So while there is no room for a message, what comes is
//! received and kept until it is asked for: neither waits for the other.

use super::channel::{Channel, HOLDER_TIMEOUT};
use crate::sys::clock;
use crate::sys::message::{self, Failed};
use crate::sys::poll::{self, Poll};
use crate::wire::handover::{Ask, MESSAGE_MAX, Notice};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How soon a holder that returns calls goes on with it.
const RETURNED_WITHIN: Duration = Duration::from_millis(20);
/// The pause before a message is sent again for which the system had no memory or descriptors.
const SCARCE_PAUSE: Duration = Duration::from_millis(10);

/// What a holder has reported.
pub enum Report {
    Notice(Notice),
    /// Nothing more so far.
    Nothing,
    /// The holder has ended, or says what is no notice.
    Gone,
}

/// See the module.
pub struct Conversation {
    channel: Channel,
    /// What was received while there was no room for a message.
    kept: VecDeque<Notice>,
    gone: bool,
}

impl Conversation {
    pub fn new(channel: Channel) -> Conversation {
        Conversation { channel, kept: VecDeque::new(), gone: false }
    }

    /// See [`Channel::stopped`].
    pub fn stopped(&self) -> Option<String> {
        self.channel.stopped()
    }

    pub fn poll(&self) -> Poll<'_> {
        Poll::new(self.channel.fd.as_fd(), true, false)
    }

    /// Was something received that nobody has asked for yet? Then poll(2) does not report it.
    pub fn has_kept(&self) -> bool {
        self.gone || !self.kept.is_empty()
    }

    /// Sends a message. `WouldBlock`: the holder takes nothing.
    pub fn send(&mut self, ask: &Ask, fds: &[BorrowedFd]) -> io::Result<()> {
        let (bytes, end) = (ask.encode(), clock::monotonic() + HOLDER_TIMEOUT);
        loop {
            let fd = self.channel.fd.as_fd();
            let failed = match message::send(fd, &bytes, fds) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            let left = end.saturating_sub(clock::monotonic());
            let (room, pause) = match Failed::of(&failed) {
                Failed::Full => (true, left),
                Failed::Scarce => (false, left.min(SCARCE_PAUSE)),
                Failed::Gone | Failed::Broken => return Err(failed),
            };
            if left.is_zero() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let mut polls = [Poll::new(fd, !self.gone, room)];
            poll::wait(&mut polls, Some(pause))?;
            if polls[0].readable() {
                self.keep();
            }
        }
    }

    /// Sends a message if there is room for it; a holder that has ended or was stopped is noticed
    /// elsewhere.
    pub fn tell(&self, ask: &Ask) {
        let _ = message::send(self.channel.fd.as_fd(), &ask.encode(), &[]);
    }

    /// Receives what has come, for later.
    fn keep(&mut self) {
        loop {
            match self.receive() {
                Report::Notice(notice) => self.kept.push_back(notice),
                Report::Nothing => return,
                Report::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// The next report; does not wait.
    pub fn next(&mut self) -> Report {
        match self.kept.pop_front() {
            Some(notice) => Report::Notice(notice),
            None if self.gone => Report::Gone,
            None => self.receive(),
        }
    }

    fn receive(&self) -> Report {
        let mut bytes = [0; MESSAGE_MAX];
        loop {
            return match message::receive(self.channel.fd.as_fd(), &mut bytes) {
                Ok((n @ 1.., _)) => {
                    Notice::decode(&bytes[..n]).map_or(Report::Gone, Report::Notice)
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => Report::Nothing,
                // This comes once, if the holder ended before it had read everything; what it sent
                // comes after it.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => continue,
                _ => Report::Gone,
            };
        }
    }

    /// A holder that ends has more to return than its channel takes at once, and waits only for a
    /// moment; a new session may take long to make, so all that comes is received before.
    pub fn more_comes(&self) -> bool {
        let mut polls = [self.poll()];
        poll::wait(&mut polls, Some(RETURNED_WITHIN)).is_ok() && polls[0].readable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    /// More than a channel holds: each message is answered twice, and nothing is received from who
    /// does not receive the answers.
    #[test]
    fn a_holder_that_waits_until_it_is_heard_is_heard() {
        const MESSAGES: u32 = 20_000;
        let (ours, theirs) = socket::seqpacket().expect("a channel");
        let holder = std::thread::spawn(move || {
            let mut bytes = [0; MESSAGE_MAX];
            for tag in 0..MESSAGES {
                message::receive_waiting(theirs.as_fd(), &mut bytes).expect("a message");
                for answer in [Notice::Taken { tag }, Notice::Waiting { tag }] {
                    message::send_waiting(theirs.as_fd(), &answer.encode(), &[])
                        .expect("an answer");
                }
            }
        });
        let mut all = Conversation::new(Channel { fd: ours, pid: 0 });
        for tag in 0..MESSAGES {
            all.send(&Ask::Input { tag, bytes: Vec::new() }, &[]).expect("sent");
        }
        assert!(all.has_kept());
        let mut next = || loop {
            match all.next() {
                Report::Nothing => drop(poll::wait(&mut [all.poll()], None).expect("poll")),
                Report::Notice(notice) => break Some(notice),
                Report::Gone => break None,
            }
        };
        for tag in 0..MESSAGES {
            assert_eq!(next(), Some(Notice::Taken { tag }));
            assert_eq!(next(), Some(Notice::Waiting { tag }));
        }
        assert_eq!(next(), None);
        holder.join().expect("it has answered all");
    }
}
