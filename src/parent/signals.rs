//! Signals, received between two polls: what each of them orders (fived(8)).

use super::context::Phase;
use super::run::Parent;
use crate::sys::clock;
use crate::sys::outcome::Asker;
use crate::sys::signal::{Received, Signal};

impl Parent {
    /// True: there was a reload, which may have taken seconds. The next turn looks at all that has
    /// come meanwhile, before any deadline and before the next signal.
    pub fn receive_signals(&mut self) -> bool {
        if std::mem::take(&mut self.reloads.done) {
            return false;
        }
        if std::mem::take(&mut self.signalled) {
            self.signals();
        }
        let reap_at = self.next_at.into_iter().chain(self.reap_again_at).min();
        if reap_at.is_some_and(|at| at <= clock::monotonic()) {
            self.reap();
            self.route();
        }
        if std::mem::take(&mut self.reloads.gathered) && !self.reloads.asking.is_empty() {
            self.reload();
        }
        self.cx.now = clock::monotonic();
        self.reloads.done
    }

    fn signals(&mut self) {
        for Received { signal, value, .. } in self.signals.receive() {
            match signal {
                Signal::CHLD => {
                    self.reap();
                    // Before this turn's orders: a port whose program has ended may have the next.
                    self.route();
                }
                Signal::HUP => self.asked_to_reload(value.map(Asker)),
                Signal::USR1 => self.reports.log(),
                Signal::TERM if matches!(self.cx.phase, Phase::Serving | Phase::Leaving) => {
                    self.stop();
                }
                // Scripts for old versions of xinetd reload it so; the last one ignores it.
                Signal::USR2 if self.cx.options.as_xinetd => self.asked_to_reload(None),
                Signal::USR2 => self.leave(),
                Signal::TERM | Signal::INT | Signal::QUIT => self.end_now(),
                _ => {}
            }
        }
    }
}
