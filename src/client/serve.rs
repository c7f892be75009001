//! A service on standard input and output, and the forwards of the command line.

use super::caller::{CallEvent, Caller, Ended, result_of};
use super::error::Error;
use super::forward::{self, Listener};
use super::offering::Offering;
use super::options::Options;
use super::request::Request;
use super::stdio::{STDIO, Stdio, end_by_sigpipe};
use super::target::Target;
use super::{messages, plain};
use crate::sys::poll::{self, Poll};
use crate::sys::signal::{self, Signal, Signals};
use crate::wire::handover::OverWhen;
use crate::wire::run::Way;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// Serves a service on standard input and output, forwards, or both. Forwards alone are served
/// until a signal comes.
pub fn serve(t: &Target, o: &Options, service: Option<&str>) -> Result<i32, Error> {
    let listeners = listen(o, t)?;
    if o.plain {
        return serve_plainly(t, o, service, &listeners);
    }
    let mut caller = Caller::new(t);
    let request = |service: &str, way| {
        let (host, service) = (t.virtual_host.clone(), Some(service.into()));
        Request { host, service, way, offered: None }
    };
    let (mut stdio, mut own, mut all) = (Stdio::default(), None, Forwarded::new());
    if let Some(service) = service {
        let (ours, fds) = Stdio::open(o.no_input)?;
        stdio = ours;
        let request = request(service, Way::Run);
        own = Some(caller.call(request, OverWhen::ServiceEnds, fds)?);
    } else {
        caller.connect()?;
    }
    let mut offering = Offering::begin(t, &o.offers, &mut caller)?;
    // When a signal ends five, the forwards' sockets in the file system must be removed.
    let signals = if listeners.is_empty() { None } else { Some(ending_signals()?) };
    loop {
        let mut polls: Vec<Poll> = stdio.polls().to_vec();
        polls.push(signals.as_ref().map_or(Poll::none(), |s| Poll::new(s.as_fd(), true, false)));
        polls.extend(listeners.iter().map(|l| Poll::new(l.fd.as_fd(), true, false)));
        polls.extend(caller.polls());
        let timeout = [caller.timeout(), offering.timeout()].into_iter().flatten().min();
        poll::wait(&mut polls, timeout).map_err(Error::system("poll"))?;
        let ready = Stdio::ready(&polls);
        let (signalled, arrived) = (
            polls[STDIO].readable(),
            polls[STDIO + 1..][..listeners.len()].iter().map(Poll::readable).collect::<Vec<_>>(),
        );
        drop(polls);
        if stdio.copy(ready).is_err() {
            end_by_sigpipe();
        }
        if signalled && let Some(received) = signals.as_ref().and_then(Signals::next) {
            drop((listeners, signals));
            signal::raise(received.signal);
            return Ok(0);
        }
        for l in listeners.iter().zip(arrived).filter(|(_, k)| *k).map(|(l, _)| l) {
            forward(&mut caller, l, request(&l.service, Way::Plain), &mut all);
        }
        for (tag, event) in caller.events() {
            if own == Some(tag) {
                if let Some(ended) = own_event(&mut stdio, service.unwrap_or_default(), event?) {
                    return result_of(t, service.unwrap_or_default(), ended);
                }
            } else if offering.has(tag) {
                offered(offering.event(tag, event), service.is_some())?;
            } else {
                forwarded(t, tag, event, &mut all);
            }
        }
        offered(offering.make_again(&mut caller), service.is_some())?;
    }
}

/// An offer that cannot be made ends five, unless that has a service, too.
fn offered(made: Result<(), Error>, goes_on: bool) -> Result<(), Error> {
    match made {
        Err(error) if goes_on => {
            messages::error("", &error);
            Ok(())
        }
        made => made,
    }
}

/// Handles an event of the service's call. Returns how it ended, if it did.
fn own_event(stdio: &mut Stdio, service: &str, event: CallEvent) -> Option<Ended> {
    match event {
        CallEvent::Started => {
            messages::step(&format!("{service}: started"));
            stdio.release();
            None
        }
        CallEvent::Ended(ended) => {
            if stdio.finish().is_err() {
                end_by_sigpipe();
            }
            Some(ended)
        }
    }
}

/// The signals that end forwards. One that was ignored when five started (nohup) stays ignored: if
/// it were blocked here, it would be received.
fn ending_signals() -> Result<Signals, Error> {
    let handled = [Signal::Int, Signal::Term, Signal::Hup].into_iter().filter(|s| !s.is_ignored());
    Signals::new(&handled.collect::<Vec<_>>()).map_err(Error::system("signals"))
}

/// The listeners of the command line. The holder has those of the configuration; with --plain there
/// is no holder, so this process has them, too.
fn listen(o: &Options, t: &Target) -> Result<Vec<Listener>, Error> {
    let mut all = Vec::new();
    for f in &o.forwards {
        all.extend(Listener::open(f)?);
    }
    if o.plain {
        all.extend(forward::open_all(&t.forwards).into_iter().flat_map(|(_, l)| l));
    }
    all.iter().for_each(Listener::announce);
    Ok(all)
}

/// Connections of applications, by the tags of their calls: each with its name for messages, and
/// its service.
type Forwarded = BTreeMap<u32, (String, String)>;

/// An application has connected to a forward.
fn forward(caller: &mut Caller, l: &Listener, request: Request, all: &mut Forwarded) {
    let Some(app) = l.accept_or_pause() else { return };
    match caller.call(request, OverWhen::BothEnd, vec![app]) {
        Ok(tag) => drop(all.insert(tag, (l.name.clone(), l.service.clone()))),
        Err(error) => messages::error(&format!("{}: ", l.name), &error),
    }
}

/// Handles the event of an application's connection. The application sees the end by itself; a
/// message is printed only if something went wrong.
fn forwarded(t: &Target, tag: u32, event: Result<CallEvent, Error>, all: &mut Forwarded) {
    if matches!(event, Ok(CallEvent::Started)) {
        return;
    }
    let Some((name, service)) = all.remove(&tag) else { return };
    let ended = match event {
        Ok(CallEvent::Ended(Ended::Unread) | CallEvent::Started) => Ok(0),
        Ok(CallEvent::Ended(ended)) => result_of(t, &service, ended),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        messages::error(&format!("{name}: "), &error);
    }
}

fn serve_plainly(
    t: &Target,
    o: &Options,
    service: Option<&str>,
    listeners: &[Listener],
) -> Result<i32, Error> {
    std::thread::scope(|scope| match service {
        None => plain::forwards(t, listeners).map(|()| 0),
        Some(service) => {
            if !listeners.is_empty() {
                scope.spawn(|| {
                    plain::forwards(t, listeners)
                        .map_err(|error| messages::info(&error.to_string()))
                });
            }
            let ended = plain::service(t, service, o.no_input);
            // The forwards end with the service, whatever is on them.
            std::process::exit(ended.map_or_else(|e| messages::fail(&e), |()| 0))
        }
    })
}
