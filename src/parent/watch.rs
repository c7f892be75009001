//! A net process that stands still is ended, and so replaced.
//!
//! One that somebody stopped (SIGSTOP) is seen at once: the system tells a child's stop as it tells
//! its end. One whose loop hangs is seen where it matters, when somebody waits at a listener: then
//! it is asked for a word, and any order is one. An idle net is never woken.

use super::context::{Context, Timer};
use super::listeners::Listeners;
use super::net::State;
use super::nets::Nets;
use crate::log;
use crate::sys::{poll, process};
use crate::wire::orders::ToNet;
use std::time::Duration;

/// How often the parent looks whether somebody waits.
pub const LOOK: Duration = Duration::from_secs(3);
/// How long a net process may take for a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the net processes that were stopped.
pub fn end_stopped(nets: &Nets) {
    for net in nets.iter().filter(|n| process::has_stopped(n.child.pid)) {
        log::warn(&format!("net: pid {} was stopped; fived ends and replaces it", net.child.pid));
        net.end();
    }
}

/// Looks after the net process that serves.
pub fn look(cx: &mut Context, nets: &mut Nets, listeners: &Listeners) {
    if cx.stopping {
        return;
    }
    cx.after(LOOK, Timer::Watch);
    let somebody_waits = listeners.sockets().any(poll::is_readable);
    let (mut ask, mut replace) = (Vec::new(), false);
    for (token, net) in nets.iter_mut().filter(|(_, n)| n.state == State::Serving) {
        match net.asked.at {
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
            None if somebody_waits => {
                net.asked.at = Some(cx.now);
                ask.push(*token);
            }
            None => {}
        }
    }
    ask.into_iter().for_each(|token| nets.tell(cx, token, &ToNet::Ping, None));
    if replace {
        nets.replace(cx);
    }
}
