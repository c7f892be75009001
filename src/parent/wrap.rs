//! Rows with `libwrap`: a child asks the rules of hosts_access(5) before such a service is
//! permitted. A rule may wait for a name server, and run commands: so it is a process for each
//! request, as the helper's user, and it is told nothing but the daemon's name and two addresses.
//!
//! Where the files have no rule there is nothing to ask, and no process is started: they are read
//! when they have changed, and only their attributes are looked at for each request.
//!
//! Nothing is allowed by default: a child that does not answer in time, or not with the one word,
//! has refused.

use super::arrival::{Arrival, StartError};
use super::children::Role;
use super::context::{Context, Timer};
use super::lookup;
use crate::policy::Source;
use crate::sys::libwrap::{self, RULES};
use crate::sys::process::Exit;
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::Child;
use crate::wire::lookups;
use crate::wire::orders::Why;
use crate::wire::roles::LookUp;
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long the rules may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Children at a time, in all and for one source.
const RUNNING_MAX: usize = 64;
const PER_SOURCE_MAX: usize = 8;
/// Bytes of an answer.
const ANSWER_MAX: usize = 512;

/// A child that asks the rules, and the request that waits for it.
struct Check {
    arrival: Box<Arrival>,
    child: Child,
    pipe: OwnedFd,
}

/// What tells a file from what it was before: inode, size, and time of change. None: it is not
/// there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// See the module.
#[derive(Default)]
pub struct Wrap {
    /// The checks that run, by process id.
    checks: HashMap<i32, Check>,
    /// Whether the files had a rule when they had these stamps.
    rules: Option<([Stamp; 2], bool)>,
}

/// What the rules say of a request.
pub type Checked = (Box<Arrival>, Result<(), StartError>);

impl Wrap {
    /// Has one of the files a rule? A file that cannot be read may have one.
    pub fn has_rules(&mut self) -> bool {
        let now = RULES.map(|path| {
            let m = fs::metadata(path).ok()?;
            Some((m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
        });
        match self.rules {
            Some((before, any)) if before == now => any,
            _ => {
                let any = libwrap::has_rules().unwrap_or(true);
                self.rules = Some((now, any));
                any
            }
        }
    }

    /// Asks the rules about a request, in the name of this daemon. Err: they cannot be asked now.
    pub fn check(
        &mut self,
        cx: &mut Context,
        daemon: String,
        arrival: Box<Arrival>,
    ) -> Result<(), (Box<Arrival>, StartError)> {
        let source = |a: &Arrival| Source::of(a.who.peer.ip());
        let own = source(&arrival);
        let of_source = self.checks.values().filter(|c| source(&c.arrival) == own).count();
        if self.checks.len() >= RUNNING_MAX || of_source >= PER_SOURCE_MAX {
            let text = "too many requests wait for the rules of libwrap".to_string();
            return Err((arrival, StartError::busy("processes", Some(text))));
        }
        let (client, server) = (arrival.who.peer, arrival.who.local);
        match lookup::start(cx, &LookUp::Libwrap { daemon, client, server }, Role::Wrap) {
            Ok((child, pipe)) => {
                let pid = child.pid;
                cx.after(TIMEOUT, Timer::WrapLate { pid });
                self.checks.insert(pid, Check { arrival, child, pipe });
                Ok(())
            }
            Err(e) => {
                cx.note_not_started("libwrap", &e);
                let reason = if e.lacks_descriptors() { "descriptors" } else { "processes" };
                Err((arrival, StartError::busy(reason, Some(e.to_string()))))
            }
        }
    }

    /// A child has ended: the request goes on, or is refused.
    pub fn ended(&mut self, pid: i32, exit: Exit) -> Option<Checked> {
        let Check { arrival, pipe, .. } = self.checks.remove(&pid)?;
        let mut bytes = [0; ANSWER_MAX];
        let n = socket::receive(pipe.as_fd(), &mut bytes).unwrap_or(0);
        let answer = match (exit, lookups::LibwrapAnswer::decode(&bytes[..n])) {
            (Exit::Status(0), Some(lookups::LibwrapAnswer::Allowed)) => Ok(()),
            (Exit::Status(0), Some(lookups::LibwrapAnswer::Denied)) => Err(denied(None)),
            (Exit::Status(0), Some(lookups::LibwrapAnswer::Unknown(why))) => Err(denied(Some(why))),
            _ => Err(denied(Some("the rules could not be asked".into()))),
        };
        Some((arrival, answer))
    }

    /// The rules have taken too long.
    pub fn late(&mut self, pid: i32) -> Option<Checked> {
        let check = self.checks.remove(&pid)?;
        // This fails where the child has just ended. Its answer comes too late all the same.
        let _ = check.child.signal(Signal::Kill);
        let why = format!("no answer of the rules within {} s", TIMEOUT.as_secs());
        Some((check.arrival, Err(denied(Some(why)))))
    }
}

fn denied(text: Option<String>) -> StartError {
    StartError { reply: Some(Why::NotAvailable), reason: "libwrap", text }
}
