//! What is done when a timer expires (`context::Timer`).

use super::context::{Phase, Timer};
use super::run::Parent;
use crate::sys::{foreign, notify};

impl Parent {
    /// Does what the timers order that have expired.
    pub fn expire(&mut self) {
        while let Some(timer) = self.cx.due() {
            let cx = &mut self.cx;
            match timer {
                Timer::Terminate { pid, started } => self.services.terminate(cx, pid, started),
                Timer::Kill { pid, started } => self.services.running.kill(pid, started),
                Timer::AccountLate { pid } => {
                    let late = self.accounts.late(cx, pid);
                    self.account_known(late);
                }
                Timer::BindAgain => self.bind_again(),
                Timer::PortAgain { token } => {
                    if self.ports.again(cx, token) {
                        self.may_have_orders(token.into());
                    }
                }
                Timer::HostsAccessLate { pid } => {
                    let checked = self.hosts_access.late(cx, pid);
                    self.libwrap_checked(checked);
                }
                Timer::HostsAccessSlow { pid } => {
                    let waited = self.hosts_access.slow(pid);
                    self.waited_in_vain(waited);
                }
                Timer::NameSlow { number } => {
                    let waited = self.ports.name_slow(number);
                    self.waited_in_vain(waited);
                }
                Timer::ConnectLate { token } => self.connects.late(cx, token),
                Timer::OfferLate { client } => self.offer_late(client),
                Timer::RelayLate { relay } => self.relay_late(relay),
                Timer::Hosts => self.hosts.look_up(cx),
                Timer::NetLate { net } => self.nets.late(net),
                Timer::NameLate { address, since } => self.names.late(cx, address, since),
                Timer::NamesAgain => self.names.resume(cx),
                Timer::NetAgain => self.nets.start_again(cx),
                Timer::SignersAgain => self.signers.again(cx),
                Timer::SignersCheck => self.signers.look(cx),
                Timer::Undelivered => self.services.look_undelivered(cx),
                Timer::RefusalsOver => self.services.refusals.over(),
                Timer::Reload => self.reloads.gathered = true,
                Timer::Shutdown => self.end_sessions(),
                Timer::SessionsLate => cx.phase = Phase::Over,
                Timer::WaitsEnded { until } => self.left(until),
                Timer::Watchdog => {
                    let spares = self.pairs.has_spares()
                        || cx.spawner.has_spare()
                        || self.lingering.has_processes()
                        || foreign::has_idle();
                    self.watchdog.check(cx, &mut self.nets, &self.listeners, spares)
                }
                Timer::SignOfLife => self.give_sign_of_life(),
                Timer::Tidy => self.tidy(),
            }
        }
    }

    /// Tells the service manager that this process lives, twice as often as it must be told. One
    /// that leaves is the unit's main process no longer.
    pub fn give_sign_of_life(&mut self) {
        let watched = notify::silence_max().filter(|_| self.cx.phase != Phase::Leaving);
        if let Some(silence) = watched {
            notify::alive();
            self.cx.after(silence / 2, Timer::SignOfLife);
        }
    }
}
