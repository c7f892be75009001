//! Prompts and answers between this process and the client that logs in.

use crate::sys::poll::{self, Poll};
use crate::sys::{clock, inherit, message};
use crate::wire::login::{LoginMessage, MESSAGE_MAX};
use crate::wire::pubkey::CHALLENGE;
use crate::wire::roles;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long an attempt may take: people look for their passwords.
const TRY_TIMEOUT: Duration = Duration::from_secs(120);
/// fived's own prompt.
pub const PASSWORD: &[u8] = b"Enter Password: ";

/// A failure is reported only at a multiple of this time after the client's last answer
/// ([`Conversation::delay_failure`]). It is longer than the difference in time that PAM's modules
/// take for a user who exists and one who does not, and short enough for somebody who has mistyped.
const FAILURE_INTERVAL: Duration = Duration::from_millis(500);

pub struct Conversation {
    channel: OwnedFd,
    until: Duration,
    /// When the client's last answer came.
    last_answer: Option<Duration>,
}

impl Conversation {
    pub fn open() -> Result<Conversation, String> {
        let channel = inherit::take(roles::CHANNEL).map_err(|e| format!("channel: {e}"))?;
        Ok(Conversation { channel, until: clock::monotonic() + TRY_TIMEOUT, last_answer: None })
    }

    /// Asks the client; None: it does not answer in time.
    pub fn ask(&mut self, prompt: &[u8]) -> Option<Vec<u8>> {
        self.send(&LoginMessage::Prompt(prompt.to_vec()));
        match self.receive()? {
            LoginMessage::Line(line) => Some(line),
            _ => None,
        }
    }

    pub fn show(&mut self, text: &[u8]) {
        self.send(&LoginMessage::Text(text.to_vec()));
    }

    /// The challenge, and the signature as the client sent it.
    pub fn signature(&mut self) -> Option<([u8; CHALLENGE], Vec<u8>)> {
        match self.receive()? {
            LoginMessage::Signature { challenge, text } => Some((challenge, text)),
            _ => None,
        }
    }

    /// Has the client answered anything?
    pub fn has_answer(&self) -> bool {
        self.last_answer.is_some()
    }

    /// Waits, so that the time until a failure does not show how much work it took.
    pub fn delay_failure(&self) {
        let Some(last_answer) = self.last_answer else { return };
        let over =
            clock::monotonic().saturating_sub(last_answer).as_nanos() % FAILURE_INTERVAL.as_nanos();
        std::thread::sleep(FAILURE_INTERVAL.saturating_sub(Duration::from_nanos(over as u64)));
    }

    fn send(&mut self, message: &LoginMessage) {
        if let Some(bytes) = message.encode() {
            // A client that has gone is noticed when no answer comes.
            let _ = message::send_waiting(self.channel.as_fd(), &bytes, &[]);
        }
    }

    fn receive(&mut self) -> Option<LoginMessage> {
        let left = self.until.saturating_sub(clock::monotonic());
        let mut polls = [Poll::new(self.channel.as_fd(), true, false)];
        if left.is_zero() || poll::wait(&mut polls, Some(left)).ok()? == 0 {
            return None;
        }
        let mut bytes = vec![0; MESSAGE_MAX];
        let (n, _) = message::receive(self.channel.as_fd(), &mut bytes).ok()?;
        let message = LoginMessage::decode(&bytes[..n])?;
        self.last_answer = Some(clock::monotonic());
        Some(message)
    }
}
