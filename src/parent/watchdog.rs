//! Ends a net process that hangs or was stopped, so that it is replaced.
//!
//! The parent notices at once when somebody stops one (SIGSTOP), because the kernel reports a
//! child's stop as it reports its end. One whose loop hangs is noticed when it matters, while a
//! client waits at a listener: then the parent sends it a ping, and any order from it counts as the
//! answer. An idle net process is never woken.

use super::context::{Context, Timer};
use super::listeners::Listeners;
use super::net::State;
use super::nets::Nets;
use crate::log;
use crate::sys::{poll, process};
use crate::wire::orders::ToNet;
use std::time::Duration;

/// How often the parent checks whether a client waits.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// How long a net process may take for its answer to a ping.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the net processes that somebody has stopped.
pub fn end_stopped(nets: &Nets) {
    for net in nets.iter().filter(|n| process::has_stopped(n.child.pid)) {
        log::warn(&format!("net: pid {} was stopped; fived ends and replaces it", net.child.pid));
        net.end();
    }
}

/// Pings the net process that serves if a client waits, and replaces one that has not answered.
pub fn check(cx: &mut Context, nets: &mut Nets, listeners: &Listeners) {
    if cx.stopping {
        return;
    }
    cx.after(INTERVAL, Timer::Watch);
    let client_waits = listeners.sockets().chain(listeners.tls.sockets()).any(poll::is_readable);
    let (mut ping, mut replace) = (Vec::new(), false);
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
                replace = true;
            }
            Some(_) => {}
            None if client_waits => {
                net.pinged = Some(cx.now);
                ping.push(*token);
            }
            None => {}
        }
    }
    ping.into_iter().for_each(|token| nets.tell(cx, token, &ToNet::Ping, None));
    if replace {
        nets.replace(cx);
    }
}
