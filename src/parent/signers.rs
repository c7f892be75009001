//! The keys processes (`crate::keys`): one for each configuration that somebody still uses,
//! started, asked, replaced.
//!
//! A session's signature is asked for and not waited for; the session is told when it comes. One of
//! a session is on its way at most. So many ([`ASKED`]) are asked at a time and the rest wait here,
//! so that nothing is ever held in the channel. What was asked of a process that died is asked of
//! the next one, [`TRIES`] times at most; one that answers nothing for [`SILENT`] is ended. The
//! keys are in a sealed file that this process never looks into.

use super::catalog;
use super::channel::{Broken, Channel};
use super::children::Role;
use super::config::Config;
use super::nets::{PAUSE, STARTS, WINDOW, two};
use super::run::{Parent, Timer};
use crate::log;
use crate::sys::message::{self, Fds};
use crate::sys::poll::{self, Poll};
use crate::sys::process::{self, Exit};
use crate::sys::spawn::{CList, Child, Env, Launch, Spawner, Stderr};
use crate::sys::{memfd, socket};
use crate::wire::orders::{Answer, Data, Message, ORDER};
use crate::wire::signing::{self, FromKeys, ToKeys};
use mio::Token;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use zeroize::Zeroizing;

/// `argv[0]` of a keys process.
pub const ROLE: &str = "fived-keys";
/// Signatures that one process is asked for at a time: enough for any number of processors to have
/// work.
const ASKED: usize = 64;
/// How often a signature is asked for, each time of another process.
const TRIES: u32 = 3;
/// So long a process that was asked may answer nothing.
const SILENT: Duration = Duration::from_secs(5);
/// So long a signature may wait while no process can be started; later the handshake fails.
const WAITS: Duration = Duration::from_secs(15);
/// How long a process may take to say whether a key is one.
const LOOKS: Duration = Duration::from_secs(10);

/// A signature that a session waits for.
pub struct Asked {
    session: usize,
    pair: u32,
    scheme: u16,
    message: Data,
    tries: u32,
    since: Duration,
}

/// The process that signs for one configuration.
struct Process {
    token: usize,
    child: Child,
    channel: Channel,
}

/// Who signs for one configuration, whether a process of it runs or not.
struct Signer {
    config: Rc<Config>,
    process: Option<Process>,
    starts: Vec<Duration>,
    /// What the process was asked, by the number that was said to it, and when it said or heard
    /// something last.
    asked: BTreeMap<u64, Asked>,
    heard: Duration,
    waiting: VecDeque<Asked>,
    /// Is a timer set?
    watched: bool,
}

#[derive(Default)]
pub struct Signers {
    all: Vec<Signer>,
    /// The last question's number.
    number: u64,
}

impl Signers {
    fn with_token(&mut self, token: usize) -> Option<&mut Signer> {
        self.all.iter_mut().find(|s| s.process.as_ref().is_some_and(|p| p.token == token))
    }

    /// Is that a keys process's token?
    pub fn has(&mut self, token: usize) -> bool {
        self.with_token(token).is_some()
    }

    fn of(&mut self, config: &Rc<Config>) -> Option<&mut Signer> {
        self.all.iter_mut().find(|s| Rc::ptr_eq(&s.config, config))
    }

    /// Their channel, for what it holds.
    pub fn channel(&mut self, token: usize) -> Option<&mut Channel> {
        self.with_token(token)?.process.as_mut().map(|p| &mut p.channel)
    }

    /// A session has ended: what it waits for is not asked any more.
    pub fn forget(&mut self, session: usize) {
        self.all.iter_mut().for_each(|s| s.waiting.retain(|a| a.session != session));
    }

    /// Ends them.
    pub fn end(&self) {
        self.all.iter().filter_map(|s| s.process.as_ref()).for_each(|p| p.child.kill());
    }
}

impl Parent {
    /// Starts the keys process of the table of now.
    pub fn start_signer(&mut self) {
        let config = self.config.clone();
        if config.keys.secret.is_none() {
            return;
        }
        if self.signers.of(&config).is_none() {
            let heard = self.now;
            let (asked, waiting) = (BTreeMap::new(), VecDeque::new());
            self.signers.all.push(Signer {
                config: config.clone(),
                process: None,
                starts: Vec::new(),
                asked,
                heard,
                waiting,
                watched: false,
            });
        }
        self.start_signer_of(&config);
    }

    fn start_signer_of(&mut self, config: &Rc<Config>) {
        let now = self.now;
        let Some(s) = self.signers.of(config).filter(|s| s.process.is_none()) else { return };
        s.starts.retain(|&s| s + WINDOW > now);
        if s.starts.len() > STARTS {
            return self.signer_again();
        }
        s.starts.push(now);
        match self.try_start_signer(config) {
            Ok(()) => self.ask_signer(config),
            Err(e) => {
                log::warn(&format!("keys: {e}"));
                self.signer_again();
            }
        }
    }

    fn signer_again(&mut self) {
        self.at(self.now + PAUSE, Timer::SignersAgain);
    }

    /// Whoever has no process gets one.
    pub fn signers_again(&mut self) {
        let without: Vec<_> = self
            .signers
            .all
            .iter()
            .filter(|s| s.process.is_none())
            .map(|s| s.config.clone())
            .collect();
        without.iter().for_each(|config| self.start_signer_of(config));
    }

    fn try_start_signer(&mut self, config: &Rc<Config>) -> Result<(), String> {
        let secret = config.keys.secret.as_ref().ok_or("no keys")?;
        let (child, ours) = launch(
            &mut self.spawner,
            if self.options.background { Stderr::Null } else { Stderr::Ours },
        )?;
        let token = self.new_token();
        let started = Channel::new(ours, Token(token), self.poll.registry(), &self.retries)
            .map_err(|e| format!("poll: {e}"))
            .and_then(|mut channel| {
                let registry = self.poll.registry();
                channel
                    .send(registry, &ToKeys::Pairs, Some(secret.as_fd()))
                    .map_err(|e| format!("{e:?}"))?;
                channel.send(registry, &ToKeys::Serve, None).map_err(|e| format!("{e:?}"))?;
                Ok(channel)
            });
        let channel = match started {
            Ok(channel) => channel,
            Err(e) => {
                child.end();
                return Err(e);
            }
        };
        self.children.add(child.pid, Role::Keys(token));
        let now = self.now;
        if let Some(s) = self.signers.of(config) {
            s.process = Some(Process { token, child, channel });
            s.heard = now;
        }
        Ok(())
    }

    /// A session's handshake is to be signed.
    pub fn sign(
        &mut self,
        session: usize,
        pair: u32,
        scheme: u16,
        message: Data,
    ) -> Result<(), Broken> {
        let since = self.now;
        let Some(s) = self.sessions.get(&session) else { return Ok(()) };
        let config = s.config.clone();
        match self.signers.of(&config) {
            Some(s) => {
                s.waiting.push_back(Asked { session, pair, scheme, message, tries: 0, since })
            }
            None => return self.tell_signature(session, Answer::NotSigned),
        }
        self.ask_signer(&config);
        Ok(())
    }

    /// Asks what waits, as much as may be asked at a time.
    fn ask_signer(&mut self, config: &Rc<Config>) {
        let (now, registry, signers) = (self.now, self.poll.registry(), &mut self.signers);
        let number = &mut signers.number;
        let Some(s) = signers.all.iter_mut().find(|s| Rc::ptr_eq(&s.config, config)) else {
            return;
        };
        let mut broken = None;
        while let Some(p) = s.process.as_mut().filter(|_| s.asked.len() < ASKED)
            && let Some(mut asked) = s.waiting.pop_front()
        {
            if s.asked.is_empty() {
                s.heard = now;
            }
            *number += 1;
            asked.tries += 1;
            let order = ToKeys::Sign {
                number: *number,
                pair: asked.pair,
                scheme: asked.scheme,
                message: asked.message.clone(),
            };
            let sent = p.channel.send(registry, &order, None);
            s.asked.insert(*number, asked);
            if let Err(why) = sent {
                broken = Some((p.token, why));
                break;
            }
        }
        let idle = s.asked.is_empty() && s.waiting.is_empty();
        let watch = !s.watched && !idle;
        s.watched |= watch;
        if watch {
            self.at(now + PAUSE, Timer::SignersLook);
        }
        if let Some((token, why)) = broken {
            self.signer_broken(token, &why);
        }
    }

    /// One answer of a keys process. Ok(false): there is none now.
    pub fn signer_order(&mut self, token: usize) -> Result<bool, Broken> {
        let now = self.now;
        let Some(s) = self.signers.with_token(token) else { return Ok(false) };
        let Some(p) = s.process.as_ref() else { return Ok(false) };
        let Some((answer, fds)) = p.channel.receive::<FromKeys>()? else { return Ok(false) };
        s.heard = now;
        let (number, answer) = match (answer, two(fds)) {
            // It was looked at when the table was read.
            (FromKeys::Pair { .. }, (None, None)) => return Ok(true),
            (FromKeys::Signed { number, signature }, (None, None)) => {
                (number, Answer::Signed(signature))
            }
            (FromKeys::NotSigned { number }, (None, None)) => (number, Answer::NotSigned),
            _ => return Err(Broken::Nonsense),
        };
        let asked = s.asked.remove(&number).ok_or(Broken::Nonsense)?;
        let config = s.config.clone();
        if let Err(why) = self.tell_signature(asked.session, answer) {
            self.broken(asked.session, why);
        }
        self.ask_signer(&config);
        Ok(true)
    }

    /// Its channel is of no use, or it answers nothing.
    pub fn signer_broken(&mut self, token: usize, why: &Broken) {
        let Some(p) = self.signers.with_token(token).and_then(|s| s.process.as_ref()) else {
            return;
        };
        if *why == Broken::Nonsense {
            log::warn(&format!("keys: pid {}: an answer that is none; it is ended", p.child.pid));
        }
        p.child.kill();
    }

    /// A keys process has ended: another has its questions.
    pub fn signer_ended(&mut self, token: usize, exit: Exit) {
        while let Ok(true) = self.signer_order(token) {}
        // One that nobody needs any more was ended, and is known to nobody.
        let Some(s) = self.signers.with_token(token) else { return };
        let Some(p) = s.process.take() else { return };
        log::warn(&format!("keys: pid {} ended ({exit:?})", p.child.pid));
        let (again, given_up): (Vec<Asked>, Vec<Asked>) =
            std::mem::take(&mut s.asked).into_values().partition(|a| a.tries < TRIES);
        again.into_iter().rev().for_each(|a| s.waiting.push_front(a));
        self.give_up(given_up);
        self.signers_again();
    }

    fn give_up(&mut self, all: Vec<Asked>) {
        for a in all {
            if let Err(why) = self.tell_signature(a.session, Answer::NotSigned) {
                self.broken(a.session, why);
            }
        }
    }

    /// Looks after those that were asked: who says nothing is ended, what waits for too long is
    /// given up.
    pub fn look_after_signers(&mut self) {
        let now = self.now;
        let (mut late, mut busy) = (Vec::new(), false);
        for s in &mut self.signers.all {
            s.watched = false;
            if let Some(p) =
                s.process.as_ref().filter(|_| !s.asked.is_empty() && s.heard + SILENT <= now)
            {
                log::warn(&format!(
                    "keys: pid {}: nothing was signed for {} s; it is ended",
                    p.child.pid,
                    SILENT.as_secs()
                ));
                p.child.kill();
                // It is told of once; its end is on its way.
                s.heard = now;
            }
            let split =
                s.waiting.iter().position(|a| a.since + WAITS > now).unwrap_or(s.waiting.len());
            late.extend(s.waiting.drain(..split));
            s.watched = !(s.asked.is_empty() && s.waiting.is_empty());
            busy |= s.watched;
        }
        self.give_up(late);
        if busy {
            self.at(now + PAUSE, Timer::SignersLook);
        }
    }

    /// Those that no net process needs any more go.
    pub fn retire_signers(&mut self) {
        let (current, nets) = (&self.config, &self.nets);
        self.signers.all.retain(|s| {
            let needed = Rc::ptr_eq(&s.config, current)
                || nets.values().any(|n| Rc::ptr_eq(&n.config, &s.config));
            if let Some(p) = s.process.as_ref().filter(|_| !needed) {
                p.child.kill();
            }
            needed
        });
    }
}

/// In the background nobody reads our standard error, and whoever called fived may wait for its
/// end.
fn launch(spawner: &mut Spawner, stderr: Stderr) -> Result<(Child, OwnedFd), String> {
    let (ours, theirs) = socket::seqpacket().map_err(|e| format!("channel: {e}"))?;
    let null = process::null().map_err(|e| format!("/dev/null: {e}"))?;
    let argv = CList::new([ROLE]).map_err(|e| e.to_string())?;
    let env = Env::new().finish();
    let launch =
        Launch { stderr, extra: Some(theirs.as_fd()), ..catalog::role(&argv, &env, &null) };
    let child = spawner.start(&launch).map_err(|f| f.to_string())?;
    Ok((child, ours))
}

/// Has keys looked at while a configuration is read: by a process of its own, which is started for
/// the first of them and ended with this.
pub struct Inspector<'s> {
    spawner: &'s mut Spawner,
    process: Option<(Child, OwnedFd)>,
}

impl Inspector<'_> {
    pub fn new(spawner: &mut Spawner) -> Inspector<'_> {
        Inspector { spawner, process: None }
    }

    /// The hash of the public key of this certificate (DER), and the schemes that its key (PEM) can
    /// sign by. Err: what is wrong.
    pub fn look(&mut self, certificate: &[u8], key: &[u8]) -> Result<([u8; 32], Vec<u16>), String> {
        let text = Zeroizing::new(signing::encode(&[(certificate, key)]));
        let file = memfd::sealed(&text).map_err(|e| format!("memory file: {e}"))?;
        if self.process.is_none() {
            self.process =
                Some(launch(self.spawner, Stderr::Ours).map_err(|e| format!("keys process: {e}"))?);
        }
        let (_, channel) = self.process.as_ref().ok_or("keys process: none")?;
        let said = |e: std::io::Error| format!("keys process: {e}");
        message::send_message(channel.as_fd(), &ToKeys::Pairs.encode(), &[file.as_fd()], false)
            .map_err(said)?;
        if poll::wait(&mut [Poll::new(channel.as_fd(), true, false)], Some(LOOKS)).map_err(said)?
            == 0
        {
            return Err(format!("keys process: no answer for {} s", LOOKS.as_secs()));
        }
        let mut bytes = [0; ORDER];
        let (n, _): (usize, Fds) =
            message::receive_message(channel.as_fd(), &mut bytes, false).map_err(said)?;
        match FromKeys::decode(&bytes[..n]) {
            Some(FromKeys::Pair { hash, schemes }) => Ok((hash, schemes)),
            Some(FromKeys::Wrong(why)) => Err(String::from_utf8_lossy(why.bytes()).into_owned()),
            _ => Err("keys process: it ended without an answer".into()),
        }
    }
}

impl Drop for Inspector<'_> {
    fn drop(&mut self) {
        if let Some((child, channel)) = self.process.take() {
            drop(channel);
            child.end();
        }
    }
}
