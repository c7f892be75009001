//! A connection to a server through a service of another one, the gate: a call on the gate's
//! session, whose other end is the connection. The gate sees what passes, and that is TLS between
//! this computer and the server.

use super::channel::{Channel, HOLDER_TIMEOUT};
use super::dial::Connection;
use super::ended;
use super::error::Error;
use super::messages;
use super::request::Request;
use super::target::Target;
use super::turn::Turn;
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, message, socket};
use crate::wire::handover::{Ask, MESSAGE_MAX, Notice, OverWhen};
use crate::wire::run::Way;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the gate's service may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Why it has not started within that time, if the gate let it wait.
const NO_STREAM: &str =
    "the server takes no more streams, and none ended within 30 s (-O list shows them)";
/// The one call on the channel.
const TAG: u32 = 1;

/// What is requested of the gate.
pub fn request(gate: &Target, service: &str) -> Request {
    let (host, service) = (gate.virtual_host.clone(), Some(service.into()));
    Request { host, service, way: Way::Plain, offered: None }
}

/// Connects through the service, on the gate's session that this channel leads to. None: the
/// session has ended, and has done nothing for this call; another one can do it.
pub fn enter(
    gate: &Target,
    channel: Channel,
    request: &Request,
) -> Result<Option<Connection>, Error> {
    let (ours, theirs) = socket::pair().map_err(Error::system("socket"))?;
    if let Some(why) = channel.stopped() {
        return Err(Error::Lost { what: gate.who(), why });
    }
    let open = Ask::Open {
        tag: TAG,
        over: OverWhen::BothEnd,
        help: false,
        host: request.host.clone(),
        service: request.name().into(),
        way: Way::Plain,
    };
    if message::send_waiting(channel.fd.as_fd(), &open.encode(), &[theirs.as_fd()]).is_err() {
        return Ok(None);
    }
    drop(theirs);
    let end = clock::monotonic() + START_TIMEOUT;
    Ok(started(gate, &channel, request, end)?
        .then(|| Connection { socket: ours, gate: Some(channel.fd) }))
}

/// Waits until the service has started. False: the session has ended before.
fn started(
    gate: &Target,
    channel: &Channel,
    request: &Request,
    end: Duration,
) -> Result<bool, Error> {
    let mut bytes = [0; MESSAGE_MAX];
    let (mut turn, mut waits) = (Turn::default(), false);
    let refused = |text: String| {
        let (service, hint) = (request.name().into(), ended::hint(ended::nobody(gate), &text));
        Error::Gate { gate: gate.who(), service, reply: format!("{text}{hint}") }
    };
    loop {
        turn.tell(&gate.who());
        let now = clock::monotonic();
        let left = end.saturating_sub(now);
        let to_tell = turn.due().map_or(HOLDER_TIMEOUT, |due| due.saturating_sub(now));
        let mut polls = [Poll::new(channel.fd.as_fd(), true, false)];
        let timeout = left.min(HOLDER_TIMEOUT).min(to_tell);
        if poll::wait(&mut polls, Some(timeout)).map_err(Error::system("poll"))? == 0 {
            let (place, seconds) = (gate.who(), START_TIMEOUT.as_secs());
            return Err(match channel.stopped() {
                None if !left.is_zero() => continue,
                None if waits => refused(NO_STREAM.into()),
                None => Error::NoAnswer { place, seconds },
                Some(why) => Error::Lost { what: place, why },
            });
        }
        let notice = match message::receive_waiting(channel.fd.as_fd(), &mut bytes) {
            Ok((n @ 1.., _)) => Notice::decode(&bytes[..n]),
            _ => None,
        };
        match notice {
            Some(Notice::Started { .. }) => return Ok(true),
            Some(Notice::Waiting { .. }) => {
                turn.waits();
                waits = true;
            }
            Some(Notice::Away { distrust, text, .. }) => messages::outage(&text, distrust),
            Some(Notice::Refused { text, .. }) => return Err(refused(text)),
            Some(Notice::Lost { text, .. }) => {
                return Err(Error::Lost { what: gate.who(), why: text });
            }
            Some(Notice::Ended { .. } | Notice::OutputClosed { .. }) => {
                let why = format!("its service {} has ended", request.name());
                return Err(Error::Lost { what: gate.who(), why });
            }
            // About the session, not about this call.
            Some(Notice::Gone { tag: 0 }) => {}
            Some(Notice::Gone { .. }) | None => return Ok(false),
            Some(Notice::Step { text }) => messages::step(&format!("{}: {text}", gate.who())),
            Some(Notice::Taken { .. } | Notice::Input { .. } | Notice::State { .. }) => {}
            Some(Notice::Terminal { .. } | Notice::Done) => {}
        }
    }
}
