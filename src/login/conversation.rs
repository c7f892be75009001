//! The words between this child and whoever wants to log in.

use crate::sys::poll::{self, Poll};
use crate::sys::{clock, inherit, message};
use crate::wire::login::{MESSAGE_MAX, Say};
use crate::wire::pubkey::CHALLENGE;
use crate::wire::roles;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a try may take; people look for their passwords.
const PATIENCE: Duration = Duration::from_secs(120);
/// As fived itself asks.
pub const PASSWORD: &[u8] = b"Enter Password: ";

/// A failure is told only at a multiple of this since the last word was heard
/// ([`Conversation::wait_for_beat`]): longer than what the modules of PAM do differently for
/// somebody who does not exist, short enough for who has mistyped.
const BEAT: Duration = Duration::from_millis(500);

pub struct Conversation {
    channel: OwnedFd,
    until: Duration,
    /// When the last word was heard.
    heard: Option<Duration>,
}

impl Conversation {
    pub fn open() -> Result<Conversation, String> {
        let channel = inherit::take(roles::CHANNEL).map_err(|e| format!("channel: {e}"))?;
        Ok(Conversation { channel, until: clock::monotonic() + PATIENCE, heard: None })
    }

    /// Asks; None: nobody answers in time.
    pub fn ask(&mut self, prompt: &[u8]) -> Option<Vec<u8>> {
        self.say(&Say::Ask(prompt.to_vec()));
        match self.hear()? {
            Say::Line(line) => Some(line),
            _ => None,
        }
    }

    pub fn tell(&mut self, text: &[u8]) {
        self.say(&Say::Tell(text.to_vec()));
    }

    /// The challenge, and the signature as it came.
    pub fn signature(&mut self) -> Option<([u8; CHALLENGE], Vec<u8>)> {
        match self.hear()? {
            Say::Signature { challenge, text } => Some((challenge, text)),
            _ => None,
        }
    }

    /// Has anybody answered anything?
    pub fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Waits until the time tells nothing of how much work was done since the last word, unless
    /// that was more than a beat.
    pub fn wait_for_beat(&self) {
        let Some(heard) = self.heard else { return };
        let over = clock::monotonic().saturating_sub(heard).as_nanos() % BEAT.as_nanos();
        std::thread::sleep(BEAT.saturating_sub(Duration::from_nanos(over as u64)));
    }

    fn say(&mut self, say: &Say) {
        if let Some(bytes) = say.encode() {
            // Whoever has gone is noticed when it does not answer.
            let _ = message::send_message(self.channel.as_fd(), &bytes, &[], true);
        }
    }

    fn hear(&mut self) -> Option<Say> {
        let left = self.until.saturating_sub(clock::monotonic());
        let mut polls = [Poll::new(self.channel.as_fd(), true, false)];
        if left.is_zero() || poll::wait(&mut polls, Some(left)).ok()? == 0 {
            return None;
        }
        let mut bytes = vec![0; MESSAGE_MAX];
        let (n, _) = message::receive_message(self.channel.as_fd(), &mut bytes, false).ok()?;
        let say = Say::decode(&bytes[..n])?;
        self.heard = Some(clock::monotonic());
        Some(say)
    }
}
