//! The services of a server, as its HELP lists them.

use super::call::CallEvent;
use super::caller::Caller;
use super::ended::result_of;
use super::error::Error;
use super::plain::{self, LIST_MAX};
use super::request::Request;
use super::stdio::print_answer;
use super::target::Target;
use crate::sys::poll::{self, Poll};
use crate::sys::{process, socket};
use crate::wire::answer::is_shown;
use crate::wire::builtins::{self, HELP, Listed};
use crate::wire::handover::OverWhen;
use crate::wire::run::Way;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Prints the services of the server, one a line.
pub fn list(t: &Target, plain: bool) -> Result<(), Error> {
    let all = if plain { plain::list(t)? } else { names(t)? };
    let (mut shown, all) = (String::new(), String::from_utf8_lossy(&all));
    // xinetd knows no HELP. No name has a blank.
    if let Some(refusal) =
        all.lines().next().and_then(|l| l.strip_prefix('-')).filter(|l| l.contains(' '))
    {
        return Err(Error::Service {
            service: HELP.into(),
            reply: crate::wire::answer::words(refusal.as_bytes()),
            hint: "",
        });
    }
    for name in all.lines() {
        // xinetd lists itself and puts a NUL at the end.
        let name = name.trim_matches('\0');
        let builtin =
            builtins::named(name.as_bytes()).is_some_and(|row| row.listed != Listed::Never);
        if !name.is_empty() && !builtin && name.chars().all(is_shown) {
            shown.push_str(name);
            shown.push('\n');
        }
    }
    print_answer(&shown)
}

/// The answer to HELP.
fn names(t: &Target) -> Result<Vec<u8>, Error> {
    let here = || Error::system("socket");
    let (ours, theirs) = socket::pair().map_err(here())?;
    let mut caller = Caller::new(t);
    let input = process::null().map_err(here())?;
    let (host, way) = (t.virtual_host.clone(), Way::Plain);
    let request = Request { host, service: None, way, offered: None };
    let tag = caller.call(request, OverWhen::ServiceEnds, vec![input, theirs])?;
    let (mut ours, mut all) = (UnixStream::from(ours), Vec::new());
    loop {
        let mut polls: Vec<Poll> = caller.polls().collect();
        polls.push(Poll::new(ours.as_fd(), true, false));
        poll::wait(&mut polls, caller.timeout()).map_err(Error::system("poll"))?;
        let readable = polls.last().is_some_and(Poll::readable);
        drop(polls);
        let mut bytes = [0; 4096];
        if readable {
            let n = ours.read(&mut bytes).map_err(here())?;
            all.extend_from_slice(&bytes[..n]);
            if all.len() > LIST_MAX {
                return Err(Error::NotFived {
                    place: t.place(),
                    reply: "a list without end".into(),
                });
            }
        }
        for (_, event) in caller.events().into_iter().filter(|(call, _)| *call == tag) {
            if let CallEvent::Ended(ended) = event? {
                ours.read_to_end(&mut all).map_err(here())?;
                return result_of(t, &t.place(), ended).map(|_| all);
            }
        }
    }
}
