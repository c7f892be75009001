//! Rows with `libwrap`: a child asks the rules of hosts_access(5) before such a service is
//! permitted. A rule may wait for a name server, and run commands: so it is a process for each
//! request, as the helper's user, and it is told nothing but the daemon's name and two addresses.
//!
//! Where the files have no rule there is nothing to ask, and no process is started: they are read
//! when they have changed, and only their attributes are looked at for each request.
//!
//! Nothing is allowed by default: a child that does not answer in time, or not with the one word,
//! has refused.
//!
//! A connection waits for the answer. A datagram is first in the queue of its port, where all that
//! come after it wait for it: so it waits for a moment only, and is dropped then. The rules are
//! still waited for, and what they say holds for the next datagrams of its sender (`decisions`).
//!
//! Rules that have changed meanwhile are asked again; what the old ones say holds for nobody.

use super::decisions::{Decisions, Question};
use crate::parent::arrival::{Arrival, StartError};
use crate::parent::children::Role;
use crate::parent::context::{Context, Timer};
use crate::parent::lookups::LookUps;
use crate::policy::{Peer, Source};
use crate::sys::directory_calls;
use crate::sys::file;
use crate::sys::libwrap::{self, RULES};
use crate::sys::process::Exit;
use crate::wire::lookups::LibwrapAnswer;
use crate::wire::orders::Why;
use crate::wire::roles::LookUp;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long the rules may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Children at a time that connections wait for, in all and for one source.
const CONNECTIONS_MAX: (usize, usize) = (64, 8);
/// Children at a time that datagrams wait for. Their senders may be forged: they leave the others'
/// alone.
const DATAGRAMS_MAX: (usize, usize) = (16, 2);

/// What the rules are asked.
struct Check {
    /// The request that waits. None: a datagram, which has not waited.
    arrival: Option<Box<Arrival>>,
    question: Question,
    datagram: bool,
    /// The rules that are asked.
    generation: u64,
}

/// What tells a file from what it was before: inode, size, and time of change. None: it is not
/// there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Err: the system has not answered in time. Mostly it knows the path, and answers at once.
fn stamp(path: &str) -> io::Result<Stamp> {
    let of = |m: &Metadata| (m.ino(), m.size(), m.ctime(), m.ctime_nsec());
    let found = file::known_metadata(Path::new(path)).unwrap_or_else(|| {
        let at = path.to_string();
        directory_calls::make(Path::new(path), &[], |_| fs::metadata(at))
    });
    match found {
        Ok(found) => Ok(Some(of(&found))),
        Err(e) if e.kind() == ErrorKind::TimedOut => Err(e),
        Err(_) => Ok(None),
    }
}

/// See the module.
#[derive(Default)]
pub struct HostsAccess {
    checks: LookUps<Check>,
    /// Whether the files had a rule when they had these stamps.
    rules: Option<([Stamp; 2], bool)>,
    /// How often they have changed.
    generation: u64,
    decisions: Decisions,
}

/// What the rules say of a request.
pub enum Verdict {
    Allowed,
    Refused(StartError),
    /// They have changed since they were asked.
    Again,
}

pub type Checked = (Box<Arrival>, Verdict);

impl HostsAccess {
    /// Has one of the files a rule? A file that cannot be read may have one.
    pub fn has_rules(&mut self) -> bool {
        let stamps = RULES.map(stamp);
        let [Ok(allow), Ok(deny)] = stamps else {
            // Somebody keeps their directory locked. Whoever is asked finds nothing out either.
            return true;
        };
        let now = [allow, deny];
        match self.rules {
            Some((before, any)) if before == now => any,
            _ => {
                let any = directory_calls::make(Path::new(RULES[0]), &[], |_| libwrap::has_rules());
                let any = any.unwrap_or(true);
                self.rules = Some((now, any));
                self.generation += 1;
                self.decisions.clear();
                any
            }
        }
    }

    /// Asks the rules about a request, in the name of this daemon. `max_wait`: how long a datagram
    /// waits. Returns what is known already, or that they cannot be asked now.
    pub fn check(
        &mut self,
        cx: &mut Context,
        daemon: String,
        arrival: Box<Arrival>,
        max_wait: Option<Duration>,
    ) -> Option<Checked> {
        let datagram = max_wait.is_some();
        let (client, addresses) = (arrival.who.facts.peer, arrival.who.addresses.internet());
        let server = addresses.map(|(_, server)| server.ip());
        let question = (daemon.clone(), client, server);
        if datagram {
            if let Some(allowed) = self.decisions.get(&question, cx.now) {
                return Some((arrival, said(allowed, None)));
            }
            let now = self.generation;
            let asks = |c: &Check| c.datagram && c.generation == now && c.question == question;
            if self.checks.waiting().any(asks) {
                return Some((arrival, Verdict::Refused(undecided())));
            }
        }
        if !self.may_ask(client, datagram) {
            let text = "too many requests wait for the rules of libwrap".to_string();
            return Some((arrival, not_asked(datagram, "processes", text)));
        }
        let (asked, arrival) = (LookUp::Libwrap { daemon, addresses }, Some(arrival));
        let check = Check { arrival, question, datagram, generation: self.generation };
        match self.checks.start(cx, Role::HostsAccess, &asked, check) {
            Ok(pid) => {
                self.checks.set_timer(cx, pid, TIMEOUT, Timer::HostsAccessLate { pid });
                if let Some(max_wait) = max_wait {
                    self.checks.set_timer(cx, pid, max_wait, Timer::HostsAccessSlow { pid });
                }
                None
            }
            Err((check, e)) => {
                cx.note_not_started("libwrap", &e);
                let reason = if e.lacks_descriptors() { "descriptors" } else { "processes" };
                let error = not_asked(datagram, reason, e.to_string());
                check.arrival.map(|arrival| (arrival, error))
            }
        }
    }

    /// May one more child ask, for this client?
    fn may_ask(&self, client: Peer, datagram: bool) -> bool {
        let alike = self.checks.waiting().filter(|c| c.datagram == datagram);
        let most = if datagram { DATAGRAMS_MAX } else { CONNECTIONS_MAX };
        has_room(alike.map(|c| Source::of(c.question.1)), most, Source::of(client))
    }

    /// A child has ended: the request goes on, or is refused.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) -> Option<Checked> {
        let (check, answer) = self.checks.ended(cx, pid, exit)?;
        let answer = match answer.as_deref().and_then(LibwrapAnswer::decode) {
            Some(LibwrapAnswer::Allowed) => said(true, None),
            Some(LibwrapAnswer::Denied) => said(false, None),
            Some(LibwrapAnswer::Unknown(why)) => said(false, Some(why)),
            None => said(false, Some("the rules could not be asked".into())),
        };
        // Looks whether they have changed.
        self.has_rules();
        match check.generation == self.generation {
            true => self.decided(check, answer, cx.now),
            false => check.arrival.map(|a| (a, Verdict::Again)),
        }
    }

    /// The rules have taken too long: the child is killed, and the commands that it has started.
    pub fn late(&mut self, cx: &mut Context, pid: i32) -> Option<Checked> {
        let check = self.checks.late(cx, pid)?;
        let why = format!("no answer of the rules within {} s", TIMEOUT.as_secs());
        self.decided(check, said(false, Some(why)), cx.now)
    }

    fn decided(&mut self, check: Check, answer: Verdict, now: Duration) -> Option<Checked> {
        if check.arrival.is_none() && check.generation == self.generation {
            self.decisions.add(check.question, matches!(answer, Verdict::Allowed), now);
        }
        check.arrival.map(|a| (a, answer))
    }

    /// A datagram has waited long enough.
    pub fn slow(&mut self, pid: i32) -> Option<(Arrival, StartError)> {
        let arrival = self.checks.get_mut(pid)?.arrival.take()?;
        Some((*arrival, undecided()))
    }
}

/// May one more child ask for this source? `running`: the source of each; `most`: in all, and of
/// one source.
fn has_room(
    running: impl Iterator<Item = Source> + Clone,
    most: (usize, usize),
    source: Source,
) -> bool {
    running.clone().count() < most.0 && running.filter(|of| *of == source).count() < most.1
}

fn said(allowed: bool, why: Option<String>) -> Verdict {
    if allowed { Verdict::Allowed } else { Verdict::Refused(denied(why)) }
}

fn denied(text: Option<String>) -> StartError {
    StartError { reply: Some(Why::NotAvailable), reason: "libwrap", text }
}

/// A datagram is dropped, for nobody knows yet whether its sender may use the service.
fn undecided() -> StartError {
    denied(Some("the rules have not decided about its sender yet; this datagram is dropped".into()))
}

/// No child can ask. A datagram is dropped for that, because others wait for it.
fn not_asked(datagram: bool, reason: &'static str, text: String) -> Verdict {
    Verdict::Refused(match datagram {
        true => denied(Some(text)),
        false => StartError::busy(reason, Some(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_part_of_the_places() {
        for (most, all, own) in [(CONNECTIONS_MAX, 64, 8), (DATAGRAMS_MAX, 16, 2)] {
            let of = |n: usize| Source::of([192, 0, 2, n as u8].into());
            let room = |running: &[usize], n| has_room(running.iter().map(|r| of(*r)), most, of(n));
            let others: Vec<usize> = (100..100 + all - 1).collect();
            assert!(room(&others, 1) && !room(&[&others[..], &[2]].concat(), 1));
            assert!(room(&vec![1; own - 1], 1) && !room(&vec![1; own], 1));
            assert!(room(&vec![1; own], 2));
        }
    }
}
