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

/// What a net process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Serving,
    /// It finishes what it has.
    Draining,
    /// It has sent its last order, and waits for the answers to the earlier ones.
    Leaving,
    /// The parent has sent it the last answer, so it will end.
    Left,
    /// It hung and the parent killed it. Another replaces it at once, even if the kernel cannot end
    /// this one yet.
    Killed,
}

/// What an order of a net process asks other parts to do.
pub enum Request {
    /// Nothing: the order was for this part alone.
    Done,
    /// A plain connection asks for a service.
    Start { config: Rc<Config>, service: ServiceId, client: Shared },
    /// A client asked for a built-in, or for TLS.
    Session { config: Rc<Config>, client: Shared, channel: OwnedFd },
    /// Net refused a request itself.
    Refused(Rc<Config>, Refused),
    /// A rule asks for the name of this client's address.
    Name { client: u32, round: u32, socket: Shared },
    /// A relay has ended: bytes to the upstream and from it.
    RelayEnded { relay: u32, to: u64, from: u64 },
    /// It serves from now on.
    Serves,
}

/// What the parent knows about a net process.
pub struct Net {
    pub child: Child,
    pub channel: Channel,
    pub config: Rc<Config>,
    pub state: State,
    /// When the parent sent it a ping, if it has sent no order since.
    pub pinged: Option<Duration>,
    /// The token of the socket that its lines for the log come over (`net_log`).
    pub log: usize,
    /// Has it listeners?
    pub listens: bool,
    /// Has it ended, or has the parent ended it for an error? Only the first error is logged.
    pub ended: bool,
}

impl Net {
    /// Which orders it may give now.
    pub fn phase(&self) -> NetPhase {
        match self.state {
            State::Starting => NetPhase::Starting,
            State::Serving => NetPhase::Serving,
            State::Draining | State::Leaving | State::Left | State::Killed => NetPhase::Draining,
        }
    }

    /// Kills it, and with it every connection that it relays.
    pub fn end(&self) {
        self.child.kill();
    }
}

/// Starts one. `channel`: its end of the channel; `log`: its standard error.
pub fn spawn(
    cx: &mut Context,
    config: &Config,
    channel: &OwnedFd,
    log: &OwnedFd,
) -> Result<Child, String> {
    let text = |e: BadWord| e.to_string();
    let argv = CList::new([roles::NET]).map_err(text)?;
    let env = environment(cx.options.debug, config).map_err(text)?;
    let launch = Launch {
        stderr: Stderr::Connection,
        connection: Some(log.as_fd()),
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
    // glibc keeps freed memory for each thread, and that would be most of what a sleeping session
    // thread holds.
    env.push("GLIBC_TUNABLES", b"glibc.malloc.tcache_count=0")?;
    for name in ["RUST_LOG", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            env.push(name, value.as_bytes())?;
        }
    }
    Ok(env.finish())
}
