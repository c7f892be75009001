//! The lines of the log about clients, and about where they are listened for. Each verb is written
//! here and nowhere else (fived(8)).

use super::arrival::{Record, StartError};
use super::backend::targets::Target;
use super::offers::offer::Offer;
use crate::log::{self, Event};
use crate::policy::{Denied, Peer, Service};
use crate::sys::clock;
use crate::sys::process::Exit;
use crate::wire::login::{LoginResult, fingerprint};
use crate::wire::orders::Reason;
use std::fmt::Display;
use std::time::Duration;

/// `listening on ADDRESS`
pub fn listening(address: impl Display) {
    log::say(&format!("listening on {address}"));
}

/// `START service= host= pid= from= session= user=`, of a process of its own.
pub fn start(service: &Service, pid: i32, record: &Record) {
    put_start(service, record, |line| match service.attributes.log_on_success.pid {
        true => line.number("pid", pid),
        false => line,
    });
}

/// `START service= host= to= from= session= user=`, of a service that ran already.
pub fn start_at(service: &Service, to: &impl ToString, record: &Record) {
    put_start(service, record, |line| line.word("to", to.to_string()));
}

fn put_start(service: &Service, record: &Record, by: impl FnOnce(Event) -> Event) {
    let what = &service.attributes.log_on_success;
    if !what.any() {
        return;
    }
    let line = Event::new("START").word("service", &service.name).word("host", &record.host);
    let mut line = by(line);
    if what.host && record.peer != Peer::Nobody {
        line = line.value("from", record.peer);
    }
    line = line.number("session", record.number);
    match &record.user {
        Some(name) => line.word("user", name).put(),
        None => line.put(),
    }
}

/// `EXIT service= to= reason= duration= in= out= session=`, likewise; with the bytes to it and from
/// it, where they are known. `late`: its time was over.
pub fn relay_exit(
    service: &Service,
    to: &Target,
    record: &Record,
    (duration, late): (Duration, bool),
    traffic: Option<(u64, u64)>,
) {
    let what = &service.attributes.log_on_success;
    if !(what.exit || what.duration || what.traffic) {
        return;
    }
    let mut line = Event::new("EXIT").word("service", &service.name);
    line = line.word("to", to.to_string());
    if what.exit && late {
        line = line.word("reason", "server_timeout");
    }
    if what.duration {
        line = line.seconds("duration", duration);
    }
    if let (true, Some((received, sent))) = (what.traffic, traffic) {
        line = line.number("in", received).number("out", sent);
    }
    line.number("session", record.number).put();
}

/// What `EXIT` says about a service.
pub struct ExitLine<'a> {
    pub pid: i32,
    pub exit: Exit,
    pub duration: Duration,
    /// Bytes to the service and from it, where a relay counted them.
    pub traffic: Option<(u64, u64)>,
    pub service: &'a Service,
    pub session: u64,
}

/// `EXIT service= pid= status= duration= session=`
pub fn exit(e: &ExitLine) {
    let what = &e.service.attributes.log_on_success;
    if !(what.exit || what.duration || what.traffic) {
        return;
    }
    let mut line = Event::new("EXIT").word("service", &e.service.name);
    if what.pid {
        line = line.number("pid", e.pid);
    }
    if what.exit {
        line = match e.exit {
            Exit::Status(n) => line.number("status", n),
            Exit::Signal(n) => line.number("signal", n),
        };
    }
    if what.duration {
        line = line.seconds("duration", e.duration);
    }
    if let (true, Some((to, from))) = (what.traffic, e.traffic) {
        line = line.number("in", to).number("out", from);
    }
    line.number("session", e.session).put();
}

/// `REFUSE service= host= from= reason= session= text`: the parent refused to start a service.
pub fn refused(service: &Service, record: &Record, error: &StartError) {
    let what = &service.attributes.log_on_failure;
    let mut line = Event::new("REFUSE").word("service", &service.name).word("host", &record.host);
    if what.host && record.peer != Peer::Nobody {
        line = line.value("from", record.peer);
    }
    line = line.word("reason", error.reason);
    if let (true, Some(name)) = (what.userid, &record.user) {
        line = line.word("user", name);
    }
    line = line.number("session", record.number);
    match &error.text {
        Some(t) => line.text(t).put(),
        None => line.put(),
    }
}

/// `REFUSE service= host= from= reason= more=`: this many more were refused, whose lines were left
/// out.
pub fn refused_more((service, host): (&str, &str), from: Option<Peer>, reason: &str, more: u64) {
    let mut line = Event::new("REFUSE").word("service", service).word("host", host);
    if let Some(from) = from {
        line = line.value("from", from);
    }
    line.word("reason", reason).number("more", more).put();
}

/// A request that net refused without asking the parent.
pub struct NetRefusal<'a> {
    /// None: there is no such service.
    pub service: Option<&'a Service>,
    /// As the client wrote it; empty: the refusal has nothing to do with it.
    pub name: &'a [u8],
    pub host: &'a str,
    pub from: Peer,
    pub reason: &'static str,
    /// Who logged in.
    pub user: Option<&'a str>,
    /// The session's number.
    pub session: Option<u64>,
}

/// `REFUSE`: net refused a request.
pub fn refused_by_net(r: &NetRefusal) {
    let what = r.service.map(|s| &s.attributes.log_on_failure);
    let mut line = match r.service {
        Some(s) => Event::new("REFUSE").word("service", &s.name),
        None => Event::new("REFUSE").word("service", r.name),
    };
    line = line.word("host", r.host);
    if what.is_none_or(|w| w.host) {
        line = line.value("from", r.from);
    }
    line = line.word("reason", r.reason);
    if let (true, Some(user)) = (what.is_some_and(|w| w.userid), r.user) {
        line = line.word("user", user);
    }
    if what.is_some_and(|w| w.attempt) && !r.name.is_empty() {
        line = line.word("attempt", r.name);
    }
    match r.session {
        Some(n) => line.number("session", n).put(),
        None => line.put(),
    }
}

/// The word for net's reason. None: there is no such reason.
pub fn reason(reason: Reason) -> Option<&'static str> {
    reason.word(|n| Denied::from_number(n).map(Denied::as_str))
}

/// `REFUSE`: the parent refused a new session, or a client at a port that no row has any more.
pub fn of_none(from: Peer, reason: &str) {
    Event::new("REFUSE")
        .word("service", "")
        .word("host", "")
        .value("from", from)
        .word("reason", reason)
        .put();
}

/// `REFUSE service= host= reason=`: the client was gone before the parent could ask its socket who
/// it was. `service`: empty for a new session.
pub fn gone(service: &str, host: &str, reason: &str) {
    let line = Event::new("REFUSE").word("service", service).word("host", host);
    line.word("reason", reason).put();
}

/// `SESSION from= session=`
pub fn session(from: Peer, number: u64) {
    Event::new("SESSION").value("from", from).number("session", number).put();
}

/// `LOST session= reason=`
pub fn lost(number: u64, reason: &str) {
    Event::new("LOST").number("session", number).word("reason", reason).put();
}

/// `RESUME session= from=`
pub fn resumed(number: u64, from: Peer) {
    Event::new("RESUME").number("session", number).value("from", from).put();
}

/// `END session= from= reason= duration=`
pub fn end(number: u64, from: Peer, reason: &str, duration: Duration) {
    Event::new("END")
        .number("session", number)
        .value("from", from)
        .word("reason", reason)
        .seconds("duration", duration)
        .put();
}

/// `LOGIN user= method= result= from= session= key=`
pub fn login(
    user: &[u8],
    method: &str,
    result: LoginResult,
    from: Peer,
    session: u64,
    key: Option<[u8; 32]>,
) {
    let mut line = Event::new("LOGIN")
        .word("user", user)
        .word("method", method)
        .word("result", result.as_str());
    line = line.value("from", from).number("session", session);
    match key {
        Some(key) => line.word("key", fingerprint(&key)).put(),
        None => line.put(),
    }
}

/// Somebody touched a sensor, which bars its source for `time`; a longer one may stand.
pub fn touched(from: Peer, (time, lasts): (Duration, Duration), now: Duration, session: u64) {
    Event::new("PENALTY")
        .value("from", from)
        .word("reason", "sensor")
        .number("seconds", time.as_secs())
        .word("end", clock::stamp(now + lasts, now))
        .number("session", session)
        .put();
}

/// `PENALTY from= reason=login failures= seconds= end= session=`; `lasts` from `now`.
pub fn penalty(
    from: Peer,
    failures: u32,
    seconds: u32,
    lasts: Duration,
    now: Duration,
    session: u64,
) {
    Event::new("PENALTY")
        .value("from", from)
        .word("reason", "login")
        .number("failures", failures)
        .number("seconds", seconds)
        .word("end", clock::stamp(now + lasts, now))
        .number("session", session)
        .put();
}

/// `OFFER service= host= from= session= user=`: a user offers a service.
pub fn offer(offer: &Offer) {
    if let Some(line) = of_offer("OFFER", offer) {
        line.put();
    }
}

/// `WITHDRAW service= host= from= session= user= duration=`: an offer has ended.
pub fn withdraw(offer: &Offer, duration: Duration) {
    if let Some(line) = of_offer("WITHDRAW", offer) {
        line.seconds("duration", duration).put();
    }
}

fn of_offer(verb: &'static str, offer: &Offer) -> Option<Event> {
    let service = offer.config.table.service(offer.service)?;
    let what = &service.attributes.log_on_success;
    let mut line = Event::new(verb).word("service", &service.name).word("host", offer.host());
    if what.host {
        line = line.value("from", offer.from);
    }
    line = line.number("session", offer.number).word("user", &offer.user.login.name);
    what.any().then_some(line)
}

/// `RELOAD file= services=`, or `RELOAD file= refused mistakes=`.
pub fn reload(file: &str, outcome: Result<usize, usize>) {
    let line = Event::new("RELOAD").word("file", file);
    match outcome {
        Ok(services) => line.number("services", services as i128).put(),
        Err(mistakes) => line.text("refused").number("mistakes", mistakes as i128).put(),
    }
}

/// `STATE text`: the text's values are escaped already.
pub fn state(text: &str) {
    log::pass(&format!("STATE {text}"));
}
