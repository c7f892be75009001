//! The keys processes (`crate::keys`), one for each configuration that is still in use: started,
//! asked for signatures, replaced.
//!
//! The parent asks for a session's signature and does not wait; the session gets it when it comes.
//! A session has one request at a time. A process is asked for a few signatures at a time, and the
//! other requests wait here, where the sources of their clients take turns: an RSA signature takes
//! milliseconds, and one source may have a hundred handshakes. Where a process ends, its open
//! requests go to the next one; each request goes to at most [`TRIES_MAX`] processes. The parent
//! ends a process that has not answered for [`ANSWER_TIMEOUT`]. The keys are in a sealed file that
//! the parent never reads.

use super::channel::{Broken, Channel};
use super::children::Role;
use super::config::Config;
use super::config::inspector;
use super::context::{Context, Timer};
use super::start_limit::{PAUSE, StartLimit};
use super::tokens::{KeysToken, SessionToken};
use crate::log;
use crate::policy::{BySource, Source};
use crate::sys::clock;
use crate::sys::process::{self, Exit};
use crate::sys::spawn::{Child, Stderr};
use crate::wire::orders::{Answer, Data, KeysPhase};
use crate::wire::signing::{FromKeys, ToKeys};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// Signatures that one process is asked for at a time, for each processor: enough to keep it busy
/// while the parent does something else. What was asked for is before everybody who comes later.
const ASKED_PER_PROCESSOR: usize = 8;
/// How many processes a request goes to, one after another.
const TRIES_MAX: u32 = 3;
/// How long a process that was asked may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one that was killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How long a request may wait while no process can be started; after that the handshake fails.
const WAIT_TIMEOUT: Duration = Duration::from_secs(15);

/// What is to be signed in a handshake, and the number of the pair whose key signs.
pub struct ToSign {
    pub pair: u32,
    pub scheme: u16,
    pub message: Data,
}

/// A signature that a session waits for.
struct Request {
    session: SessionToken,
    source: Source,
    what: ToSign,
    tries: u32,
    since: Duration,
}

/// The process that signs for one configuration.
struct Process {
    token: KeysToken,
    child: Child,
    channel: Channel,
}

/// What signs for one configuration, whether its process runs now or not.
struct Signer {
    config: Rc<Config>,
    process: Option<Process>,
    starts: StartLimit,
    /// What the process was asked for, by number.
    asked: BTreeMap<u64, Request>,
    /// The process has owed an answer since then.
    since: Duration,
    waiting: BySource<Request>,
    /// Is a timer set to look after it?
    watched: bool,
}

pub struct Signers {
    all: Vec<Signer>,
    /// How many signatures one process is asked for at a time.
    asked_max: usize,
    /// The number of the last request.
    number: u64,
    answers: Vec<(SessionToken, Answer)>,
}

impl Signers {
    pub fn new() -> Signers {
        let processors = process::processors();
        let asked_max = processors * ASKED_PER_PROCESSOR;
        Signers { all: Vec::new(), asked_max, number: 0, answers: Vec::new() }
    }

    fn with_token(&mut self, token: KeysToken) -> Option<&mut Signer> {
        self.all.iter_mut().find(|s| s.process.as_ref().is_some_and(|p| p.token == token))
    }

    /// Is that a keys process's token?
    pub fn has(&mut self, token: KeysToken) -> bool {
        self.with_token(token).is_some()
    }

    fn of(&mut self, config: &Rc<Config>) -> Option<&mut Signer> {
        self.all.iter_mut().find(|s| Rc::ptr_eq(&s.config, config))
    }

    /// Sends a process what its channel holds.
    pub fn flush(&mut self, cx: &Context, token: KeysToken) -> Result<(), Broken> {
        let process = self.with_token(token).and_then(|s| s.process.as_mut());
        process.map_or(Ok(()), |p| p.channel.flush(cx.registry()))
    }

    /// The answers for sessions that wait: a signature, or that there is none.
    pub fn answers(&mut self) -> Vec<(SessionToken, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// A session has ended: its request is dropped if no process was asked yet.
    pub fn forget(&mut self, session: SessionToken) {
        self.all.iter_mut().for_each(|s| drop(s.waiting.take_if(|r| r.session == session)));
    }

    /// Ends all keys processes. They are gone then: one that ended after fived would be one that
    /// remains, for the service manager. Whoever keeps one in the kernel keeps nobody waiting for
    /// long.
    pub fn end(&mut self) {
        let all: Vec<Child> =
            self.all.iter_mut().filter_map(|s| s.process.take()).map(|p| p.child).collect();
        all.iter().for_each(Child::kill);
        let until = clock::monotonic() + ENDS_WITHIN;
        while all.iter().any(|child| process::ended(Some(child.pid)).is_none())
            && clock::monotonic() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts the keys process of the current configuration.
    pub fn start(&mut self, cx: &mut Context) {
        let config = cx.config.clone();
        if config.keys.secret.is_none() {
            return;
        }
        if self.of(&config).is_none() {
            self.all.push(Signer {
                config: config.clone(),
                process: None,
                starts: StartLimit::default(),
                asked: BTreeMap::new(),
                since: cx.now,
                waiting: BySource::default(),
                watched: false,
            });
        }
        self.start_of(cx, &config);
    }

    fn start_of(&mut self, cx: &mut Context, config: &Rc<Config>) {
        let Some(s) = self.of(config).filter(|s| s.process.is_none()) else { return };
        if s.starts.too_many(cx.now) {
            return cx.after(PAUSE, Timer::SignersAgain);
        }
        s.starts.add(cx.now);
        match Process::start(cx, config) {
            Ok(process) => {
                s.since = cx.now;
                s.process = Some(process);
                self.ask(cx, config);
            }
            Err(e) => {
                log::warn(&format!("keys: {e}"));
                cx.after(PAUSE, Timer::SignersAgain);
            }
        }
    }

    /// Starts a process for each configuration that has none.
    pub fn again(&mut self, cx: &mut Context) {
        let without: Vec<_> =
            self.all.iter().filter(|s| s.process.is_none()).map(|s| s.config.clone()).collect();
        without.iter().for_each(|config| self.start_of(cx, config));
    }

    /// Asks for the signature of a session's handshake.
    pub fn sign(
        &mut self,
        cx: &mut Context,
        config: &Rc<Config>,
        session: SessionToken,
        source: Source,
        what: ToSign,
    ) {
        let since = cx.now;
        match self.of(config) {
            Some(s) => {
                let tries = 0;
                let request = Request { session, source, what, tries, since };
                s.waiting.add(source, request);
                self.ask(cx, config);
            }
            None => self.answers.push((session, Answer::NotSigned)),
        }
    }

    /// Sends the process the requests that wait, as many as may be open at a time.
    fn ask(&mut self, cx: &mut Context, config: &Rc<Config>) {
        let number = &mut self.number;
        let Some(s) = self.all.iter_mut().find(|s| Rc::ptr_eq(&s.config, config)) else { return };
        let mut broken = None;
        while let Some(p) = s.process.as_mut().filter(|_| s.asked.len() < self.asked_max)
            && let Some(mut request) = s.waiting.take_next()
        {
            if s.asked.is_empty() {
                s.since = cx.now;
            }
            *number += 1;
            request.tries += 1;
            let order = ToKeys::Sign {
                number: *number,
                pair: request.what.pair,
                scheme: request.what.scheme,
                message: request.what.message.clone(),
            };
            let sent = p.channel.send(cx.registry(), &order, &[]);
            s.asked.insert(*number, request);
            if let Err(why) = sent {
                broken = Some((p.token, why));
                break;
            }
        }
        let idle = s.asked.is_empty() && s.waiting.is_empty();
        let watch = !s.watched && !idle;
        s.watched |= watch;
        if watch {
            cx.after(PAUSE, Timer::SignersCheck);
        }
        if let Some((token, why)) = broken {
            self.broken(token, &why);
        }
    }

    /// Takes one answer of a keys process. False: there is none now.
    pub fn order(&mut self, cx: &mut Context, token: KeysToken) -> Result<bool, Broken> {
        let Some(s) = self.with_token(token) else { return Ok(false) };
        let Some(p) = s.process.as_ref() else { return Ok(false) };
        let Some((answer, _)) = p.channel.receive::<FromKeys>(&KeysPhase::Signing)? else {
            return Ok(false);
        };
        s.since = cx.now;
        let (number, answer) = match answer {
            // A process says this of each pair at its start; it was checked when the configuration
            // was read.
            FromKeys::Pair { .. } => return Ok(true),
            FromKeys::Wrong(_) => return Err(Broken::Forbidden),
            FromKeys::Signed { number, signature } => (number, Answer::Signed(signature)),
            FromKeys::NotSigned { number } => (number, Answer::NotSigned),
        };
        let request = s.asked.remove(&number).ok_or(Broken::Forbidden)?;
        let config = s.config.clone();
        self.answers.push((request.session, answer));
        self.ask(cx, &config);
        Ok(true)
    }

    /// Ends a process whose channel cannot be used any more.
    pub fn broken(&mut self, token: KeysToken, why: &Broken) {
        let Some(p) = self.with_token(token).and_then(|s| s.process.as_ref()) else { return };
        if *why == Broken::Forbidden {
            log::warn(&format!("keys: pid {}: an invalid answer; fived ends it", p.child.pid));
        }
        p.child.kill();
    }

    /// A keys process has ended: another gets its open requests.
    pub fn ended(&mut self, cx: &mut Context, token: KeysToken, exit: Exit) {
        while let Ok(true) = self.order(cx, token) {}
        // One that no net process needed any more is not here any more.
        let Some(s) = self.with_token(token) else { return };
        let Some(p) = s.process.take() else { return };
        log::warn(&format!("keys: pid {} ended: {exit}", p.child.pid));
        let (again, given_up): (Vec<Request>, Vec<Request>) =
            std::mem::take(&mut s.asked).into_values().partition(|r| r.tries < TRIES_MAX);
        again.into_iter().rev().for_each(|r| s.waiting.add_first(r.source, r));
        self.give_up(given_up);
        self.again(cx);
    }

    fn give_up(&mut self, all: Vec<Request>) {
        self.answers.extend(all.into_iter().map(|r| (r.session, Answer::NotSigned)));
    }

    /// Ends processes that do not answer, and gives up requests that have waited for too long.
    pub fn look(&mut self, cx: &mut Context) {
        let now = cx.now;
        let (mut late, mut busy) = (Vec::new(), false);
        for s in &mut self.all {
            s.watched = false;
            if let Some(p) = s
                .process
                .as_ref()
                .filter(|_| !s.asked.is_empty() && s.since + ANSWER_TIMEOUT <= now)
            {
                log::warn(&format!(
                    "keys: pid {}: it has signed nothing for {} s; fived ends it",
                    p.child.pid,
                    ANSWER_TIMEOUT.as_secs()
                ));
                p.child.kill();
                // Its end will be noticed soon; meanwhile the warning is not repeated.
                s.since = now;
            }
            late.extend(s.waiting.take_if(|r| r.since + WAIT_TIMEOUT <= now));
            s.watched = !(s.asked.is_empty() && s.waiting.is_empty());
            busy |= s.watched;
        }
        self.give_up(late);
        if busy {
            cx.after(PAUSE, Timer::SignersCheck);
        }
    }

    /// Ends those whose configuration no net process uses any more.
    pub fn retire(&mut self, needed: impl Fn(&Rc<Config>) -> bool) {
        self.all.retain(|s| {
            let needed = needed(&s.config);
            if let Some(p) = s.process.as_ref().filter(|_| !needed) {
                p.child.kill();
            }
            needed
        });
    }
}

impl Process {
    fn start(cx: &mut Context, config: &Rc<Config>) -> Result<Process, String> {
        let secret = config.keys.secret.as_ref().ok_or("no keys")?;
        // In the background nobody reads fived's standard error, and the caller of fived may be
        // waiting for the end of file there.
        let stderr = if cx.options.background { Stderr::Null } else { Stderr::Ours };
        let (child, ours) = inspector::launch(&mut cx.spawner, stderr)?;
        let started = cx.channel(ours.into()).map_err(|e| format!("poll: {e}")).and_then(
            |(token, mut channel)| {
                for (order, with) in [(ToKeys::Pairs, Some(secret.as_fd())), (ToKeys::Serve, None)]
                {
                    let with = with.as_slice();
                    channel.send(cx.registry(), &order, with).map_err(|e| format!("{e:?}"))?;
                }
                Ok((token, channel))
            },
        );
        match started {
            Ok((token, channel)) => {
                cx.children.add(child.pid, Role::Keys(token));
                Ok(Process { token, child, channel })
            }
            Err(e) => {
                child.kill();
                Err(e)
            }
        }
    }
}
