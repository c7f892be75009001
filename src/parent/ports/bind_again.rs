//! Ports of rows of inetd.conf and xinetd.conf that could not be bound: they are tried again, as
//! inetd does it (its RETRYTIME), for as long as one is missing. Everything else is served.

use crate::log;
use crate::parent::context::{Context, Timer};
use crate::parent::lines;
use crate::parent::ports::Ports;
use crate::parent::run::Parent;
use crate::sys::foreign;
use std::time::Duration;

const AGAIN: Duration = Duration::from_secs(600);
/// The first pause while sockets are being closed beside this process that may have had the port.
/// Each further one is twice as long: whoever keeps such a socket open may do so for ever.
const AGAIN_SOON: Duration = Duration::from_millis(100);

/// What the administrator is told of those that are missing.
pub fn warnings(missing: Vec<String>) -> Vec<String> {
    let minutes = AGAIN.as_secs() / 60;
    let again = |line| format!("{line}; fived tries again every {minutes} minutes");
    missing.into_iter().map(again).collect()
}

/// The pause after one of this length.
fn pause(before: Duration, closes: bool) -> Duration {
    match closes {
        true if before < AGAIN => (2 * before).clamp(AGAIN_SOON, AGAIN),
        true => AGAIN_SOON,
        false => AGAIN,
    }
}

impl Ports {
    /// Sets the time when those that are missing are tried again; without any, none.
    pub fn again_later(&mut self, cx: &mut Context, any: bool) {
        if let Some(when) = self.again_at.take() {
            cx.cancel(when, Timer::BindAgain);
        }
        if any {
            self.again_after = pause(self.again_after, foreign::is_closing());
            let when = cx.now + self.again_after;
            cx.at(when, Timer::BindAgain);
            self.again_at = Some(when);
        }
    }

    /// A program has ended that may have had the port of one that is missing.
    pub fn again_now(&mut self, cx: &mut Context) {
        if let Some(when) = self.again_at.take() {
            cx.cancel(when, Timer::BindAgain);
            cx.at(cx.now, Timer::BindAgain);
            self.again_at = Some(cx.now);
        }
    }
}

impl Parent {
    /// Binds the ports that could not be bound before, as far as that is possible now.
    pub fn bind_again(&mut self) {
        self.ports.again_at = None;
        if self.cx.is_ending() {
            return;
        }
        let (config, ports) = (self.cx.config.clone(), &mut self.ports.listeners);
        let plain = &config.ports.plain;
        let (fresh, unbound) = ports.bind(plain, &self.listeners.all());
        for address in ports.adopt(plain, fresh) {
            lines::listening(address);
        }
        if let Err(e) = ports.watch(&mut self.cx) {
            log::warn(&format!("ports: {e}"));
        }
        let any = !unbound.missing.is_empty() || !unbound.wrong.is_empty();
        // Those that are missing have had their line before.
        warnings(unbound.wrong).iter().for_each(|line| log::warn(line));
        self.ports.again_later(&mut self.cx, any);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_a_socket_open_for_ever_has_fived_try_ever_more_rarely() {
        let mut tried = Duration::ZERO;
        let mut after = AGAIN;
        for _ in 0..13 {
            after = pause(after, true);
            tried += after;
        }
        assert_eq!(pause(AGAIN, true), AGAIN_SOON);
        assert!(after == AGAIN_SOON * 4096 && tried > AGAIN);
        assert_eq!((pause(after, true), pause(after, false)), (AGAIN, AGAIN));
    }
}
