//! Ends a net process that hangs or was stopped, so that it is replaced.
//!
//! The parent notices at once when somebody stops one (SIGSTOP), because the kernel reports a
//! child's stop as it reports its end. One whose loop hangs is noticed when it matters, while a
//! client waits at a listener, or net was told something, such as to relay a client of a service's
//! own port: then the parent sends it a ping, and any order from it counts as the answer. An idle
//! net process is never woken, and neither is an idle parent: when nothing has happened for a while
//! the timer is not set again, and the next client at a listener wakes the parent instead.

use super::net::State;
use crate::log;
use crate::parent::context::{Context, Timer};
use crate::parent::listeners::Listeners;
use crate::parent::nets::Nets;
use crate::sys::{poll, process};
use crate::wire::orders::ToNet;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How often the parent checks whether a client waits.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long a net process may take for its answer to a ping.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The poll's token of the listeners, while they wake the parent.
pub const LISTENERS: Token = Token(usize::MAX);

/// How often entries that no longer matter are removed.
const TIDY: Duration = Duration::from_secs(60);

/// Sets the timers that are needed only while something happens.
#[derive(Debug, Default)]
pub struct Watchdog {
    state: Watch,
    /// When entries that no longer matter were removed last.
    tidied: Duration,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The timer is not set yet.
    #[default]
    Unset,
    /// Something has happened since the last check.
    Active,
    /// Nothing has happened since the last check.
    Quiet,
    /// The timer is not set. The next client at a listener wakes the parent.
    Asleep,
}

impl Watchdog {
    /// Something has happened.
    pub fn wake(&mut self, cx: &mut Context, listeners: &Listeners) {
        match self.state {
            Watch::Active | Watch::Quiet => {}
            Watch::Unset => cx.after(INTERVAL, Timer::Watchdog),
            Watch::Asleep => {
                cx.after(INTERVAL, Timer::Watchdog);
                for socket in watched(listeners) {
                    // It was registered, and is open.
                    let _ = cx.registry().deregister(&mut SourceFd(&socket));
                }
            }
        }
        self.state = Watch::Active;
    }

    /// Checks the net processes, and sets the timer again, unless nothing happens. `spares`: what
    /// was made ahead is still to be closed.
    pub fn check(
        &mut self,
        cx: &mut Context,
        nets: &mut Nets,
        listeners: &Listeners,
        spares: bool,
    ) {
        if cx.is_ending() {
            return;
        }
        let owed = check(cx, nets, listeners) || spares;
        let was = self.state;
        self.state = match was {
            Watch::Quiet if !owed && sleep(cx, listeners).is_ok() => Watch::Asleep,
            _ => {
                cx.after(INTERVAL, Timer::Watchdog);
                Watch::Quiet
            }
        };
        if was == Watch::Quiet || self.tidied + TIDY <= cx.now {
            self.tidied = cx.now;
            cx.at(cx.now, Timer::Tidy);
        }
    }
}

fn watched(listeners: &Listeners) -> impl Iterator<Item = i32> {
    listeners.sockets().chain(listeners.tls.sockets()).map(|s| s.as_raw_fd())
}

/// Lets the next client at any listener wake the parent. A client that waits now does so at once.
fn sleep(cx: &Context, listeners: &Listeners) -> io::Result<()> {
    for socket in watched(listeners) {
        let added = cx.registry().register(&mut SourceFd(&socket), LISTENERS, Interest::READABLE);
        if let Err(e) = added {
            for socket in watched(listeners) {
                // This fails for those that were not registered yet.
                let _ = cx.registry().deregister(&mut SourceFd(&socket));
            }
            return Err(e);
        }
    }
    Ok(())
}

/// Ends the net processes that somebody has stopped.
pub fn end_stopped(nets: &Nets) {
    for net in nets.iter().filter(|n| process::has_stopped(n.child.pid)) {
        log::warn(&format!("net: pid {} was stopped; fived ends and replaces it", net.child.pid));
        net.end();
    }
}

/// Pings the net process that serves if a client may wait, and replaces one that has not answered.
/// Returns whether one owes an answer.
fn check(cx: &mut Context, nets: &mut Nets, listeners: &Listeners) -> bool {
    end_stopped(nets);
    let client_waits = listeners.sockets().chain(listeners.tls.sockets()).any(poll::is_readable);
    let (mut ping, mut hung) = (Vec::new(), Vec::new());
    for (token, net) in nets.iter_mut().filter(|(_, n)| n.state == State::Serving) {
        match net.pinged {
            Some(at) if at + ANSWER_TIMEOUT <= cx.now => {
                let seconds = cx.now.saturating_sub(at).as_secs();
                log::warn(&format!(
                    "net: pid {} has not answered for {seconds} s; fived ends and replaces it",
                    net.child.pid
                ));
                net.end();
                net.state = State::Killed;
                hung.push(*token);
            }
            Some(_) => {}
            None if client_waits || net.unheard => {
                net.pinged = Some(cx.now);
                ping.push(*token);
            }
            None => {}
        }
    }
    let owed = !hung.is_empty() || !ping.is_empty() || nets.iter().any(|net| net.pinged.is_some());
    ping.into_iter().for_each(|token| nets.tell(cx, token, &ToNet::Ping, None));
    if !hung.is_empty() {
        nets.hung.extend(hung);
        nets.replace(cx);
    }
    owed
}
