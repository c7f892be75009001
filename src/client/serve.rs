//! A service on standard input and output, and the forwards of the command line.

use super::call::CallEvent;
use super::caller::Caller;
use super::ended::{Ended, result_of};
use super::error::{Error, NO_SESSION, reason};
use super::escapes::{self, Escape, Escapes};
use super::forward::{self, Listener};
use super::kept::Kept;
use super::offer::Offer;
use super::offering::Offering;
use super::options::Options;
use super::request::Request;
use super::stdio::{Failed, Ready, STDIO, Stdio, end_by_sigpipe};
use super::target::Target;
use super::terminal::{self, Terminal, Typing};
use super::{messages, plain};
use crate::sys::poll::{self, Poll};
use crate::sys::signal::Signal;
use crate::sys::undo;
use crate::wire::handover::OverWhen;
use crate::wire::run::Way;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Serves a service on standard input and output, forwards, or both. Forwards alone are served
/// until a signal comes.
pub fn serve(t: &Target, o: &Options, service: Option<&str>) -> Result<i32, Error> {
    // A mistake in the command starts no service.
    let offers = o.offers.iter().map(Offer::resolved).collect::<Result<_, _>>()?;
    let listeners = listen(o, t)?;
    if o.plain {
        return serve_plainly(t, o, service, &listeners);
    }
    let mut caller = Caller::new(t);
    let own = match Own::call(t, o, service, &mut caller) {
        // Nothing of standard input was read for it. Another virtual host has another service.
        Err(Error::NoMultiplex { .. }) if service.is_some() && t.virtual_host.is_empty() => {
            messages::step("the server has no sessions");
            return serve_plainly(t, o, service, &listeners);
        }
        own => own?,
    };
    match run(t, o, (&listeners, offers), caller, own)? {
        Outcome::Left => {
            messages::info("ended by ~.");
            Ok(NO_SESSION)
        }
        Outcome::Ended(ended) => result_of(t, service.unwrap_or_default(), ended),
    }
}

/// What ends five, once its terminal is as it was before.
enum Outcome {
    Ended(Ended),
    /// The person has typed `~.`.
    Left,
}

/// The call of the service on standard input and output.
#[derive(Default)]
struct Own {
    /// None: there is no service.
    tag: Option<u32>,
    stdio: Stdio,
    terminal: Option<Terminal>,
}

impl Own {
    /// Makes the call, on a session that exists then.
    fn call(
        t: &Target,
        o: &Options,
        service: Option<&str>,
        caller: &mut Caller,
    ) -> Result<Own, Error> {
        let Some(service) = service else {
            return caller.connect().map(|()| Own::default());
        };
        let terminal = Terminal::asked(o.terminal, o.no_input);
        let (stdio, fds) = Stdio::open(o.no_input)?;
        let way = Way::run(terminal.as_ref().map(Terminal::wanted));
        let tag = caller.call(request(t, service, way), OverWhen::ServiceEnds, fds)?;
        Ok(Own { tag: Some(tag), stdio, terminal })
    }
}

fn request(t: &Target, service: &str, way: Way) -> Request {
    let (host, service) = (t.virtual_host.clone(), Some(service.into()));
    Request { host, service, way, offered: None }
}

fn run(
    t: &Target,
    o: &Options,
    (listeners, offers): (&[Listener], Vec<Offer>),
    mut caller: Caller,
    own: Own,
) -> Result<Outcome, Error> {
    let service = o.service.as_deref();
    let (Own { tag: own, mut stdio, terminal }, mut all) = (own, Forwarded::new());
    let mut offering = Offering::begin(t, offers, &mut caller)?;
    let mut kept = own.is_none().then(|| Kept::of(&mut caller));
    let mut typing = None;
    loop {
        let received = typing.as_ref().map(Typing::as_fd);
        let of_kept = kept.as_ref().and_then(|kept| kept.timeout(&caller));
        let timeout = [caller.timeout(), offering.timeout(), of_kept].into_iter().flatten().min();
        let (ready, signalled, arrived) = wait(&stdio, received, listeners, &caller, timeout)?;
        // Before the output that had come is copied: lines of a service with a terminal of its own
        // end otherwise, and the holder tells of that before it passes them on.
        for (tag, event) in caller.events() {
            if own == Some(tag)
                && let Ok(CallEvent::Terminal(banner)) = event
            {
                typing = given(&mut stdio, terminal.as_ref(), banner)?;
                tell_size(&caller, own.filter(|_| terminal.is_some()));
            } else if own == Some(tag) {
                if let Some(ended) = own_event(&mut stdio, service.unwrap_or_default(), event?) {
                    return Ok(Outcome::Ended(ended));
                }
            } else if offering.has(tag) {
                offered(offering.event(tag, event), service.is_some())?;
            } else {
                forwarded(t, tag, event, &mut all);
            }
        }
        if let Err(failed) = stdio.copy(ready) {
            return Ok(Outcome::Ended(copy_failed(failed)));
        }
        let signal = typing.as_ref().filter(|_| signalled).and_then(Typing::signal);
        let escapes = stdio.escapes_typed().into_iter().map(Wish::Escape);
        for wish in escapes.chain(signal.map(Wish::Signal)) {
            match obey(wish, typing)? {
                Obeyed::Ends(outcome) => return Ok(outcome),
                Obeyed::GoesOn(changed) => typing = changed,
            }
            tell_size(&caller, own.filter(|_| typing.is_some()));
        }
        for l in listeners.iter().zip(arrived).filter(|(_, k)| *k).map(|(l, _)| l) {
            forward(&mut caller, l, request(t, &l.service, Way::Plain), &mut all);
        }
        kept.iter_mut().for_each(|kept| kept.keep(&mut caller));
        offered(offering.make_again(&mut caller), service.is_some())?;
    }
}

/// The service has a terminal, after so many bytes of a banner.
fn given(
    stdio: &mut Stdio,
    terminal: Option<&Terminal>,
    banner: usize,
) -> Result<Option<Typing>, Error> {
    // It is a text for any terminal, unlike what the service writes to its own.
    stdio.copy_up_to(banner).unwrap_or_else(|_| end_by_sigpipe());
    let typing = terminal.map_or(Ok(None), Terminal::given)?;
    stdio.escapes = typing.as_ref().map(|_| Escapes::default());
    Ok(typing)
}

/// What the person, or another process, wants of five itself.
enum Wish {
    Escape(Escape),
    Signal(Signal),
}

/// What became of it.
enum Obeyed {
    Ends(Outcome),
    /// five goes on, with the person's terminal like this. It may have another size.
    GoesOn(Option<Typing>),
}

fn obey(wish: Wish, typing: Option<Typing>) -> Result<Obeyed, Error> {
    let changed = match (wish, typing) {
        (Wish::Escape(Escape::End), _) => return Ok(Obeyed::Ends(Outcome::Left)),
        (Wish::Escape(Escape::Help), typing) => {
            messages::show(escapes::HELP);
            return Ok(Obeyed::GoesOn(typing));
        }
        (Wish::Escape(Escape::Suspend), Some(typing)) => {
            messages::show(escapes::SUSPENDING);
            typing.suspend(true)
        }
        (Wish::Signal(Signal::TSTP), Some(typing)) => typing.suspend(false),
        (Wish::Signal(Signal::CONT), Some(typing)) => typing.continued(),
        // That of its new size.
        (Wish::Signal(_), typing) => return Ok(Obeyed::GoesOn(typing)),
        (Wish::Escape(Escape::Suspend), None) => return Ok(Obeyed::GoesOn(None)),
    };
    changed.map(|typing| Obeyed::GoesOn(Some(typing)))
}

/// Waits until something has come: for standard input and output, a signal, on each listener, or
/// from a holder.
fn wait(
    stdio: &Stdio,
    signals: Option<BorrowedFd>,
    listeners: &[Listener],
    caller: &Caller,
    timeout: Option<Duration>,
) -> Result<(Ready, bool, Vec<bool>), Error> {
    let mut polls: Vec<Poll> = stdio.polls().to_vec();
    polls.push(signals.map_or(Poll::none(), |fd| Poll::new(fd, true, false)));
    let room = caller.has_room();
    polls.extend(listeners.iter().map(|l| Poll::new(l.fd.as_fd(), room, false)));
    polls.extend(caller.polls());
    poll::wait(&mut polls, timeout).map_err(Error::system("poll"))?;
    let arrived = polls[STDIO + 1..][..listeners.len()].iter().map(Poll::readable).collect();
    Ok((stdio.ready(&polls), polls[STDIO].readable(), arrived))
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
        CallEvent::Terminal(_) => None,
        CallEvent::Ended(ended) => Some(stdio.finish().map_or_else(copy_failed, |()| ended)),
    }
}

/// How the service's call ends where standard input or output fails.
fn copy_failed(failed: Failed) -> Ended {
    match failed {
        Failed::Input(e) => Ended::Lost(format!("standard input: {}", reason(&e))),
        Failed::Unread => Ended::Unread,
        Failed::Output(e) => Ended::Lost(format!("standard output: {}", reason(&e))),
    }
}

/// The service's terminal gets the size of the person's.
fn tell_size(caller: &Caller, own: Option<u32>) {
    if let (Some(tag), Some(size)) = (own, terminal::size()) {
        caller.resized(tag, size);
    }
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
    if matches!(event, Ok(CallEvent::Started | CallEvent::Terminal(_))) {
        return;
    }
    let Some((name, service)) = all.remove(&tag) else { return };
    let ended = match event {
        Ok(CallEvent::Ended(Ended::Unread) | CallEvent::Started | CallEvent::Terminal(_)) => Ok(0),
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
            undo::exit(ended.map_or_else(|e| messages::fail(&e), |()| 0))
        }
    })
}
