//! `-O`: asks about open sessions, changes them, or ends them.

use super::error::Error;
use super::forward::{self, Forward, Listener, LocalAddress};
use super::offer::Offer;
use super::options::{Options, Order};
use super::stdio::print_answer;
use super::syntax::without_place;
use super::target::Target;
use super::{channel, messages};
use crate::sys::message;
use crate::sys::poll::{self, Poll};
use crate::wire::handover::{Ask, MESSAGE_MAX, Notice};
use crate::wire::word;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long an attempt to resume a session may take.
const RESUME_TIMEOUT: Duration = Duration::from_secs(120);

/// Carries out an order, on the forwards and offers of the command line.
pub fn order(t: &Target, order: Order, o: &Options) -> Result<(), Error> {
    match order {
        Order::Check => to_all(t, &Ask::Check),
        Order::List => to_all(t, &Ask::List),
        Order::Exit => to_all(t, &Ask::Exit),
        Order::Resume => to_all(t, &Ask::Resume),
        Order::Forward => {
            let forwards = o.forwards.iter().map(|f| add(t, f));
            all(forwards.chain(o.offers.iter().map(|f| offer(t, f))))
        }
        Order::Cancel => {
            let forwards = o.forwards.iter().map(|f| cancel(t, f));
            all(forwards.chain(o.offers.iter().map(|f| withdraw(t, f))))
        }
    }
}

/// Does all of it, whichever fails, and reports those that do; the last of these is returned.
fn all(done: impl Iterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let mut failed = Ok(());
    for error in done.filter_map(Result::err) {
        // Those after it would find none either.
        let none = matches!(error, Error::NoSession { .. });
        if let Err(before) = std::mem::replace(&mut failed, Err(error)) {
            messages::error("", &before);
        }
        if none {
            break;
        }
    }
    failed
}

/// Sends an order to all open sessions: the one that takes calls, and those that drain.
fn to_all(t: &Target, ask: &Ask) -> Result<(), Error> {
    let mut none = true;
    let holders = channel::find_all(&t.socket()?)?;
    all(holders.iter().map(|holder| send(t, holder, ask, &[]).map(|done| none &= !done)))?;
    if none { Err(Error::NoSession { place: t.who() }) } else { Ok(()) }
}

/// Sends an order to the session that takes calls.
fn to_one(t: &Target, ask: &Ask, fds: &[BorrowedFd]) -> Result<(), Error> {
    let found = channel::find(&t.socket()?)?;
    match found.map(|holder| send(t, &holder, ask, fds)).transpose()? {
        Some(true) => Ok(()),
        None | Some(false) => Err(Error::NoSession { place: t.who() }),
    }
}

/// Opens a forward's listeners here, where its path is known, and hands them over.
fn add(t: &Target, f: &Forward) -> Result<(), Error> {
    let (forward, mut listeners) = forward::open(f)?;
    let ask = Ask::Forward { host: t.virtual_host.clone(), forward: forward.text() };
    // The holder owns them from the moment when it reads the message: a signal that ends this
    // process before the answer comes must not remove their sockets.
    listeners.iter_mut().for_each(Listener::disown);
    let fds: Vec<BorrowedFd> = listeners.iter().map(|l| l.fd.as_fd()).collect();
    if let Err(e) = to_one(t, &ask, &fds) {
        listeners.iter_mut().for_each(Listener::claim);
        return Err(e);
    }
    listeners.iter().for_each(Listener::announce);
    match (&f.local, &forward.local) {
        // That is what was asked for, as ssh prints it.
        (LocalAddress::Port(_, 0), LocalAddress::Port(_, port)) => {
            print_answer(&format!("{port}\n"))
        }
        _ => Ok(()),
    }
}

/// Ends a forward, as it was written or as `-O list` shows it.
fn cancel(t: &Target, f: &Forward) -> Result<(), Error> {
    let cancel = |f: &Forward| {
        to_any(t, &Ask::Cancel { forward: f.absolute()?.text() }, &format!("-L {}", f.text()))
    };
    cancel(f).or_else(|e| match shown(&f.text()).map(|text| Forward::read(&text)) {
        Some(Ok(meant)) => cancel(&meant).map_err(|_| e),
        _ => Err(e),
    })
}

/// The text of which `-O list` shows this one. None: there is none but this.
fn shown(text: &str) -> Option<String> {
    word::value(text).filter(|meant| meant != text)
}

/// Has the session offer a service.
fn offer(t: &Target, offer: &Offer) -> Result<(), Error> {
    let ask = Ask::Offer { tag: 0, host: t.virtual_host.clone(), offer: offer.resolved()?.text() };
    to_one(t, &ask, &[]).map_err(|e| about(e, &format!("-R {}", offer.text())))
}

/// Withdraws an offer, in whichever session it is.
fn withdraw(t: &Target, offer: &Offer) -> Result<(), Error> {
    let withdraw = |offer: &Offer| {
        let ask = Ask::Withdraw { offer: offer.resolved()?.text() };
        to_any(t, &ask, &format!("-R {}", offer.text()))
    };
    withdraw(offer).or_else(|e| match shown(&offer.text()).map(|text| Offer::read(&text)) {
        Some(Ok(meant)) => withdraw(&meant).map_err(|_| e),
        _ => Err(e),
    })
}

/// Sends an order to each holder until one can carry it out. `what`: what it is about.
fn to_any(t: &Target, ask: &Ask, what: &str) -> Result<(), Error> {
    let mut failed = Error::NoSession { place: t.who() };
    for holder in channel::find_all(&t.socket()?)? {
        match send(t, &holder, ask, &[]) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => failed = about(e, what),
        }
    }
    Err(failed)
}

/// The error of an order, and what that was about.
fn about(e: Error, what: &str) -> Error {
    match e {
        Error::Lost { why, .. } => Error::System { what: what.into(), why },
        e => e,
    }
}

/// Sends the order to one holder. False: it has just ended.
pub fn send(
    t: &Target,
    holder: &channel::Channel,
    ask: &Ask,
    fds: &[BorrowedFd],
) -> Result<bool, Error> {
    let no_answer = |why| Err(Error::Lost { what: t.who(), why });
    if let Some(why) = holder.stopped() {
        return no_answer(why);
    }
    if message::send_waiting(holder.fd.as_fd(), &ask.encode(), fds).is_err() {
        return Ok(false);
    }
    let timeout = if *ask == Ask::Resume { RESUME_TIMEOUT } else { channel::HOLDER_TIMEOUT };
    let mut bytes = [0; MESSAGE_MAX];
    loop {
        let mut polls = [Poll::new(holder.fd.as_fd(), true, false)];
        if poll::wait(&mut polls, Some(timeout)).map_err(Error::system("poll"))? == 0 {
            return no_answer(holder.stopped().unwrap_or_else(|| channel::NO_ANSWER.into()));
        }
        let notice = match message::receive_waiting(holder.fd.as_fd(), &mut bytes) {
            Ok((n @ 1.., _)) => Notice::decode(&bytes[..n]),
            _ => None,
        };
        match notice {
            Some(Notice::State { text }) => {
                print_answer(&format!("{text}\n"))?;
                if *ask == Ask::Check {
                    return Ok(true);
                }
            }
            Some(Notice::Done) => return Ok(true),
            Some(Notice::Waiting { .. }) => {}
            Some(Notice::Refused { text, .. }) => {
                // What comes from an attempt to connect says the place itself.
                return no_answer(without_place(&text, &t.place()).to_string());
            }
            // The end of the channel is the answer to `exit`.
            None => return Ok(*ask == Ask::Exit),
            Some(Notice::Step { .. }) => {}
            // It is about calls; an offer is none that was made.
            Some(Notice::Gone { .. }) if !matches!(ask, Ask::Offer { .. }) => {}
            Some(_) => return Ok(false),
        }
    }
}
