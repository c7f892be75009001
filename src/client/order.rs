//! `-O`: asks about open sessions, or ends them.

use super::error::Error;
use super::options::Order;
use super::target::Target;
use super::{rendezvous, stdio};
use crate::sys::message;
use crate::sys::poll::{self, Poll};
use crate::wire::handover::{Ask, MESSAGE_MAX, Notice};
use std::os::fd::AsFd;

/// Sends an order (-O) to all open sessions: the one that takes calls, and those that drain.
pub fn order(t: &Target, order: Order) -> Result<(), Error> {
    let mut none = true;
    for holder in rendezvous::find_all(&t.socket()?)? {
        none &= !send(t, &holder, order)?;
    }
    if none { Err(Error::NoSession { place: t.who() }) } else { Ok(()) }
}

/// Sends the order to one holder. False: it has just ended.
fn send(t: &Target, holder: &rendezvous::Channel, order: Order) -> Result<bool, Error> {
    let ask = match order {
        Order::Check => Ask::Check,
        Order::List => Ask::List,
        Order::Exit => Ask::Exit,
    };
    let no_answer = |why| Err(Error::Lost { what: t.who(), why });
    if let Some(why) = holder.stopped() {
        return no_answer(why);
    }
    if message::send_message(holder.fd.as_fd(), &ask.encode(), &[], true).is_err() {
        return Ok(false);
    }
    let mut bytes = [0; MESSAGE_MAX];
    loop {
        let mut polls = [Poll::new(holder.fd.as_fd(), true, false)];
        if poll::wait(&mut polls, Some(rendezvous::HOLDER_TIMEOUT))
            .map_err(Error::system("poll"))?
            == 0
        {
            return no_answer(holder.stopped().unwrap_or_else(|| rendezvous::NO_ANSWER.into()));
        }
        let notice = match message::receive_message(holder.fd.as_fd(), &mut bytes, true) {
            Ok((n @ 1.., _)) => Notice::decode(&bytes[..n]),
            _ => None,
        };
        match notice {
            Some(Notice::State { text }) => {
                stdio::print(&format!("{text}\n"));
                if order == Order::Check {
                    return Ok(true);
                }
            }
            Some(Notice::Done) => return Ok(true),
            // The end of the channel is the answer to `exit`.
            None => return Ok(order == Order::Exit),
            Some(_) => return Ok(false),
        }
    }
}
