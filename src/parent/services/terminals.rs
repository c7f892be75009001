//! The processes of services' terminals (`internal::terminal`): one for each terminal, because a
//! terminal's users can keep whoever serves it waiting in the kernel, for as long as they like.
//!
//! Such a process ends when the service has ended and all of its output was taken, or net has
//! closed its end of the connection. One that goes on although its relay is over is kept from its
//! end by a user of the terminal. A user with many of those gets no more terminals until some have
//! ended.

use crate::log;
use crate::parent::arrival::{StartError, StreamTag};
use crate::parent::children::Role;
use crate::parent::config::catalog;
use crate::parent::context::Context;
use crate::parent::descriptors::ChildError;
use crate::parent::tokens::SessionToken;
use crate::sys::process::Exit;
use crate::sys::spawn::{CList, Env, Launch, Stderr};
use crate::wire::roles;
use crate::wire::run::Size;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// Processes of one user's terminals at most that may go on although their relays are over.
const KEPT_MAX: usize = 32;

/// The process of a terminal.
struct Terminal {
    /// The user whose service has the terminal.
    uid: u32,
    /// The relay between it and the client. None: that is over.
    stream: Option<StreamTag>,
}

/// What is made for a service with a terminal.
pub struct NewTerminal {
    /// Net's ends of the connection, and of the channel for the terminal's sizes.
    pub connection: OwnedFd,
    pub sizes: OwnedFd,
    pub service_end: OwnedFd,
}

/// By process id.
#[derive(Default)]
pub struct Terminals(HashMap<i32, Terminal>);

impl Terminals {
    /// Makes a terminal for a service of this user, and starts its process.
    pub fn start(
        &mut self,
        cx: &mut Context,
        uid: u32,
        stream: StreamTag,
        size: Size,
    ) -> Result<NewTerminal, StartError> {
        // A relay of the same tag was before this one.
        self.relay_over(stream);
        if self.are_kept(uid) {
            let text = format!("{KEPT_MAX} terminals of this user cannot be closed");
            return Err(StartError::busy("processes", Some(text)));
        }
        let (pid, made) = start(cx, uid, size).map_err(error)?;
        self.0.insert(pid, Terminal { uid, stream: Some(stream) });
        Ok(made)
    }

    /// Do as many of this user's go on as may?
    fn are_kept(&self, uid: u32) -> bool {
        let is_kept = |t: &&Terminal| t.uid == uid && t.stream.is_none();
        self.0.values().filter(is_kept).count() >= KEPT_MAX
    }

    /// This relay is over: the process of its terminal ends, if it can.
    pub fn relay_over(&mut self, stream: StreamTag) {
        self.over(|of| of == stream);
    }

    /// A session is over, with all its relays.
    pub fn session_over(&mut self, session: SessionToken) {
        self.over(|of| of.session == session);
    }

    fn over(&mut self, which: impl Fn(StreamTag) -> bool) {
        for t in self.0.values_mut() {
            t.stream = t.stream.filter(|of| !which(*of));
        }
    }

    /// One has ended.
    pub fn ended(&mut self, pid: i32, exit: Exit) {
        self.0.remove(&pid);
        if exit != Exit::Status(0) {
            log::warn(&format!("the process of a service's terminal, pid {pid}, failed: {exit}"));
        }
    }
}

fn error(e: ChildError) -> StartError {
    let lacks = if e.lacks_descriptors() { "descriptors" } else { "processes" };
    StartError::busy(lacks, Some(e.to_string()))
}

fn start(cx: &mut Context, uid: u32, size: Size) -> Result<(i32, NewTerminal), ChildError> {
    let (terminal_end, service_end) = cx.descriptors.terminal(uid, size)?;
    let (connection, theirs) = cx.descriptors.pair()?;
    let (sizes, their_sizes) = cx.descriptors.channel()?;
    let argv = CList::new([roles::TERMINAL])?;
    let mut env = Env::new();
    env.extend(roles::helper_variables(cx.config.own_users.map(|o| o.helper)))?;
    let env = env.finish();
    let launch = Launch {
        stderr: Stderr::Null,
        connection: Some(theirs.as_fd()),
        extra: Some(terminal_end.as_fd()),
        second: Some(their_sizes.as_fd()),
        ..catalog::role(&argv, &env)
    };
    let pid = cx.spawner.start(&launch)?.pid;
    cx.children.add(pid, Role::Terminal);
    Ok((pid, NewTerminal { connection, sizes, service_end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_keep_some_and_others_have_theirs() {
        let mut all = Terminals::default();
        let session = |n: usize| SessionToken::from(mio::Token(n));
        let stream = |n: u32| StreamTag { session: session(n as usize % 2), tag: n };
        for n in 0..=KEPT_MAX as u32 {
            all.0.insert(n as i32, Terminal { uid: 7, stream: Some(stream(n)) });
        }
        assert!(!all.are_kept(7));
        all.relay_over(stream(1));
        all.session_over(session(0));
        assert!(!all.are_kept(7));
        all.session_over(session(1));
        assert!(all.are_kept(7) && !all.are_kept(8));
        all.ended(0, Exit::Status(0));
        assert!(all.are_kept(7));
        all.ended(1, Exit::Status(0));
        assert!(!all.are_kept(7));
    }
}
