//! A net process: what is known of it, and how its child is made.

use super::catalog;
use super::channel::Channel;
use super::config::Config;
use super::context::Context;
use crate::policy::ServiceId;
use crate::sys::shared::Shared;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Stderr};
use crate::wire::orders::{NetPhase, Refused};
use crate::wire::roles;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Serving,
    Draining,
    /// It has said its last order, and waits for the answers to what it said before.
    Leaving,
    /// It was told that there are no more: it ends.
    Left,
    /// It hung and was killed; another has its place, even while the system keeps it from ending.
    Killed,
}

/// What an order of a net process asks other parts to do.
pub enum Request {
    /// Nothing: the order was for this part alone.
    Done,
    /// A plain connection wants a service.
    Start { config: Rc<Config>, service: ServiceId, client: Shared },
    /// A client asked for a built-in, or for TLS.
    Session { config: Rc<Config>, client: Shared, channel: OwnedFd },
    /// It refused a request itself.
    Refused(Rc<Config>, Refused),
    /// A rule asks for the name of this client's address.
    Name { client: u32, round: u32, socket: Shared },
    /// It serves from now on.
    Serves,
}

/// When a net process was asked for a word, and what it has said since.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub at: Option<Duration>,
}

impl Asked {
    /// It has said something.
    pub fn heard(&mut self) {
        self.at = None;
    }
}

/// What is known of one.
pub struct Net {
    pub child: Child,
    pub channel: Channel,
    pub config: Rc<Config>,
    pub state: State,
    pub asked: Asked,
    /// Where its words for the log come (`words`), by its token.
    pub words: usize,
    /// It has listeners.
    pub listens: bool,
    /// It has ended, or was ended for what it said: that is told once.
    pub ended: bool,
}

impl Net {
    /// How far it is, for what it may say.
    pub fn phase(&self) -> NetPhase {
        match self.state {
            State::Starting => NetPhase::Starting,
            State::Serving => NetPhase::Serving,
            State::Draining | State::Leaving | State::Left | State::Killed => NetPhase::Draining,
        }
    }

    /// Ends it, and with it every connection that it relays.
    pub fn end(&self) {
        self.child.kill();
    }
}

/// Makes its child: `channel` is its end, its words for the log go to `said`.
pub fn spawn(
    cx: &mut Context,
    config: &Config,
    channel: &OwnedFd,
    said: &OwnedFd,
) -> Result<Child, String> {
    let words = |e: BadWord| e.to_string();
    let argv = CList::new([roles::NET]).map_err(words)?;
    let env = environment(cx.options.debug, config).map_err(words)?;
    let launch = Launch {
        stderr: Stderr::Connection,
        connection: Some(said.as_fd()),
        extra: Some(channel.as_fd()),
        second: Some(config.archive.as_fd()),
        ..catalog::role(&argv, &env)
    };
    cx.spawner.start(&launch).map_err(|f| f.to_string())
}

fn environment(debug: usize, config: &Config) -> Result<CList, BadWord> {
    let mut env = Env::new();
    let role = roles::Net { debug, ids: config.own_users.map(|o| o.net) };
    env.extend(role.variables())?;
    // What glibc keeps for each thread of what it freed is most of what a session's thread would
    // hold while it sleeps.
    env.push("GLIBC_TUNABLES", b"glibc.malloc.tcache_count=0")?;
    for name in ["RUST_LOG", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            env.push(name, value.as_bytes())?;
        }
    }
    Ok(env.finish())
}
