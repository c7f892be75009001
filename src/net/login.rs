//! AUTH and PUBKEY: the dialogues. Who somebody is, the parent alone decides; this thread only
//! carries words between the client and a login child.

use super::end::End;
use super::session::Session;
use crate::policy::{GroupSet, Login};
use crate::sys::{message, socket};
use crate::wire::labels::EXPORTER;
use crate::wire::login::{MESSAGE_MAX, Say, Verdict};
use crate::wire::orders::{Answer, Ask, Data, May, Method};
use crate::wire::pubkey::{self, CHALLENGE};
use crate::wire::reply;
use crate::wire::request::{DIALOGUE_MAX, SIGNATURE_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use std::os::fd::{AsFd, OwnedFd};

/// Seconds after which somebody may try again for whom there was no descriptor.
const SOON: u32 = 1;
/// Questions of a back end, at most.
const QUESTIONS: usize = 16;

impl Session {
    /// AUTH: a name, a password, and whatever else PAM asks.
    pub fn auth(&mut self) -> Result<(), End> {
        let password_first = self.may_login(Method::Password)?;
        self.write(reply::SUCCESS)?;
        self.write(reply::ENTER_USERNAME)?;
        let user = self.line(DIALOGUE_MAX)?;
        let mut password = None;
        if password_first {
            // A try is not begun before all is there that it needs: nobody holds a place while
            // somebody types.
            self.write(reply::ENTER_PASSWORD)?;
            password = Some(self.line(DIALOGUE_MAX)?);
        }
        let child = self.try_login(Method::Password, &user)?;
        let mut asked = password_first;
        for _ in 0..QUESTIONS {
            match hear(&child) {
                Some(Say::Ask(prompt)) => {
                    asked = true;
                    let line = match password.take() {
                        Some(line) => line,
                        None => {
                            self.write(&prompt)?;
                            self.line(DIALOGUE_MAX)?
                        }
                    };
                    tell(&child, &Say::Line(line));
                }
                Some(Say::Tell(text)) => self.write(&text)?,
                _ => break,
            }
        }
        drop(child);
        let early = if asked { None } else { self.channel.try_answer()? };
        if !asked && !matches!(early, Some(Answer::Login(_))) {
            // The back end had no word: a password that was sent ahead is still no request.
            self.write(reply::ENTER_PASSWORD)?;
            self.line(DIALOGUE_MAX)?;
        }
        self.verdict(early, Method::Password, &user)
    }

    /// PUBKEY: a challenge, a signature.
    pub fn pubkey(&mut self) -> Result<(), End> {
        self.may_login(Method::Pubkey)?;
        let challenge = self.challenge()?;
        self.write(&reply::challenge(&STANDARD.encode(challenge)))?;
        let line = self.line(SIGNATURE_MAX)?;
        let (user, text) = pubkey::read_answer(&line);
        let child = self.try_login(Method::Pubkey, user)?;
        tell(&child, &Say::Signature { challenge, text: text.to_vec() });
        drop(child);
        self.verdict(None, Method::Pubkey, user)
    }

    /// Both ends of a TLS connection know it, and nobody else; in a stream it is the connection's.
    /// On a plain one it is fresh.
    fn challenge(&self) -> Result<[u8; CHALLENGE], End> {
        if let Some(exporter) = self.exporter()? {
            return Ok(exporter);
        }
        let mut challenge = [0; CHALLENGE];
        SystemRandom::new().fill(&mut challenge).map_err(|_| End::System)?;
        Ok(challenge)
    }

    /// The exporter of the TLS connection that all this goes over. None: it goes over none.
    pub fn exporter(&self) -> Result<Option<[u8; CHALLENGE]>, End> {
        Ok(self.link.export(EXPORTER)?.or(self.outer))
    }

    /// Must the password be there before the try begins? Err: the session ends, with a word.
    fn may_login(&mut self, method: Method) -> Result<bool, End> {
        match self.channel.ask(&Ask::MayLogin { method }, &[])? {
            Answer::Login(May::Try { password_first }) => Ok(password_first),
            Answer::Login(May::Later { seconds }) => self.not_now(seconds),
            // Net knows the same rules, and has not asked before they held.
            _ => Err(End::System),
        }
    }

    fn not_now<T>(&mut self, seconds: u32) -> Result<T, End> {
        self.last_word(&reply::try_later(seconds))?;
        Err(End::Refused)
    }

    /// Has the parent start a login child; returns the channel to it.
    fn try_login(&mut self, method: Method, user: &[u8]) -> Result<OwnedFd, End> {
        let Ok((near, far)) = self.world.descriptors.but(socket::seqpacket()) else {
            return self.not_now(SOON);
        };
        self.facts.login = None;
        self.channel.tell(&Ask::Verify { method, user: Data::cut(user) }, &[far.as_fd()])?;
        Ok(near)
    }

    /// Waits for the parent's word, and passes it on.
    fn verdict(&mut self, early: Option<Answer>, method: Method, user: &[u8]) -> Result<(), End> {
        let answer = match early {
            Some(answer) => answer,
            None => self.channel.answer()?,
        };
        let (status, superuser, groups) = match answer {
            Answer::Verdict { status, superuser, groups } => (status, superuser, groups),
            // A penalty began meanwhile, or there was no room.
            Answer::Login(May::Later { seconds }) => return self.not_now(seconds),
            _ => return Err(End::System),
        };
        if Verdict::from_status(status as i32) == Verdict::Yes {
            let name = String::from_utf8_lossy(user).into_owned();
            self.write(&reply::logged_in(&name))?;
            self.facts.login = Some(Login { name, groups: GroupSet(groups), superuser });
            return Ok(());
        }
        let settings = &self.world.table.settings;
        let most = [settings.login_tries, settings.pubkey_tries][method as usize];
        self.tries[method as usize] += 1;
        if self.tries[method as usize] >= most {
            self.last_word(reply::LOGIN_FAILED)?;
            return Err(End::Tries);
        }
        self.write(reply::LOGIN_FAILED)
    }
}

/// The child's next word; None: it has ended.
fn hear(child: &OwnedFd) -> Option<Say> {
    let mut bytes = [0; MESSAGE_MAX];
    let (n, _) = message::receive_message(child.as_fd(), &mut bytes, true).ok()?;
    Say::decode(&bytes[..n])
}

/// A child that has ended hears nothing; its verdict tells why.
fn tell(child: &OwnedFd, say: &Say) {
    if let Some(bytes) = say.encode() {
        let _ = message::send_message(child.as_fd(), &bytes, &[], true);
    }
}
