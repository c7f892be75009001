//! Look-ups: children that ask the system's name service, a name server or the rules of
//! hosts_access(5), each for one answer. The parent never asks itself while it serves, because an
//! answer may take as long as it likes.
//!
//! | file | noun |
//! |---|---|
//! | `accounts` | users and groups that were unknown when the configuration was read |
//! | `names` | names of clients' addresses, where a rule asks for them |
//! | `hosts` | addresses of upstreams' names |
//! | `hosts_access` | rules of hosts_access(5), where a row asks for them |
//! | `decisions` | what they said about senders of datagrams |

pub mod accounts;
mod decisions;
pub mod hosts;
pub mod hosts_access;
pub mod names;

use super::children::Role;
use super::config::catalog;
use super::context::{Context, Timer};
use super::descriptors::ChildError;
use crate::sys::process::Exit;
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::{CList, Child, Env, Launch, Stderr};
use crate::wire::roles::{self, LookUp};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes of an answer that are read: a user may be in tens of thousands of groups.
const ANSWER_MAX: usize = 1 << 20;

/// The look-ups of one kind that run, by process id. `T`: what waits for each.
pub struct LookUps<T>(HashMap<i32, LookUpChild<T>>);

struct LookUpChild<T> {
    waits: T,
    child: Child,
    /// The parent's end of the socket pair on which it answers.
    pipe: OwnedFd,
    /// They are removed with it: its number may soon be another child's.
    timers: Vec<(Duration, Timer)>,
}

impl<T> Default for LookUps<T> {
    fn default() -> LookUps<T> {
        LookUps(HashMap::new())
    }
}

impl<T> LookUps<T> {
    /// Starts one. Returns its process id. Err: it was not started; what would have waited for it
    /// is returned.
    pub fn start(
        &mut self,
        cx: &mut Context,
        role: Role,
        asked: &LookUp,
        waits: T,
    ) -> Result<i32, (T, ChildError)> {
        match start(cx, asked, role) {
            Ok((child, pipe)) => {
                let pid = child.pid;
                self.0.insert(pid, LookUpChild { waits, child, pipe, timers: Vec::new() });
                Ok(pid)
            }
            Err(e) => Err((waits, e)),
        }
    }

    /// Sets a timer for one of them.
    pub fn set_timer(&mut self, cx: &mut Context, pid: i32, pause: Duration, timer: Timer) {
        if let Some(l) = self.0.get_mut(&pid) {
            l.timers.push((cx.expires_after(pause, timer), timer));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What waits for each of them.
    pub fn waiting(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.values().map(|l| &l.waits)
    }

    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut().map(|l| &mut l.waits)
    }

    pub fn get_mut(&mut self, pid: i32) -> Option<&mut T> {
        self.0.get_mut(&pid).map(|l| &mut l.waits)
    }

    /// A child has ended: what waited for it, and all that it has written. No answer: it has
    /// failed.
    pub fn ended(
        &mut self,
        cx: &mut Context,
        pid: i32,
        exit: Exit,
    ) -> Option<(T, Option<Vec<u8>>)> {
        let LookUpChild { waits, pipe, timers, .. } = self.0.remove(&pid)?;
        timers.into_iter().for_each(|(at, timer)| cx.cancel(at, timer));
        let answer = (exit == Exit::Status(0)).then(|| answer(&pipe));
        Some((waits, answer))
    }

    /// Kills those of which this is true. Their ends are still to come.
    pub fn kill(&self, which: impl Fn(&T) -> bool) {
        self.0.values().filter(|l| which(&l.waits)).for_each(|l| l.child.kill());
    }

    /// One has taken too long. It is killed, with what it has started, and nothing waits for it any
    /// more.
    pub fn late(&mut self, cx: &mut Context, pid: i32) -> Option<T> {
        let LookUpChild { waits, child, timers, .. } = self.0.remove(&pid)?;
        timers.into_iter().for_each(|(at, timer)| cx.cancel(at, timer));
        // This fails where the child has just ended. Its answer comes too late all the same.
        let _ = child.signal_group(Signal::KILL);
        Some(waits)
    }
}

/// Starts a child, which becomes the helper's user. Returns the parent's end of the socket pair on
/// which it answers, too.
fn start(cx: &mut Context, asked: &LookUp, role: Role) -> Result<(Child, OwnedFd), ChildError> {
    let (ours, theirs) = cx.descriptors.pair()?;
    let argv = CList::new([roles::SERVICE, asked.name()])?;
    let mut env = Env::new();
    env.extend(asked.variables())?;
    env.extend(roles::helper_variables(cx.config.own_users.map(|o| o.helper)))?;
    let env = env.finish();
    let launch = Launch {
        stderr: Stderr::Null,
        connection: Some(theirs.as_fd()),
        ..catalog::role(&argv, &env)
    };
    let child = cx.spawner.start(&launch)?;
    cx.children.add(child.pid, role);
    Ok((child, ours))
}

/// What the child wrote before it ended. This never waits.
fn answer(pipe: &OwnedFd) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = socket::receive(pipe.as_fd(), &mut part)
        && all.len() < ANSWER_MAX
    {
        all.extend_from_slice(&part[..n]);
    }
    all
}
