//! What ends, and what ends with it: children, sessions, net processes.

use super::channel::Broken;
use super::children::Role;
use super::logins::NeedsAccount;
use super::nets::watchdog;
use super::relays::Owner;
use super::run::{AwaitsAccount, Parent};
use super::sessions::session::Step;
use super::tokens::{NetToken, SessionToken};
use crate::sys::process::Exit;
use crate::sys::{clock, foreign, reaper};
use std::rc::Rc;
use std::time::Duration;

/// Orders that are read from a channel after its net process has ended: more than the kernel holds
/// there. Somebody else may have the other end too, and go on.
pub const LAST_ORDERS: usize = 4096;

/// A service can make as many children of fived's as its user may have processes (CLONE_PARENT,
/// clone(2)), so that it takes this long to find out which has ended, or that none has: then there
/// is a pause, in which fived asks for its own ones alone.
const LONG: Duration = Duration::from_millis(1);
/// It is so many times the time that it took.
const REAP_PAUSE: u32 = 9;
/// It is no longer than this, because that time includes what others had the processor for.
const REAP_PAUSE_MAX: Duration = Duration::from_millis(250);
/// As many children as this are each asked whether they have ended; more of them only if any has.
const FEW: usize = 64;
/// Where at least one of so many had ended there is no pause before all are asked again.
const OFTEN: usize = 16;
/// When the loop looks again whether what reaps goes on.
const LATE: Duration = Duration::from_millis(25);

/// What comes of a look for the next child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Found,
    /// It waits to be reaped, and may hide others that have ended.
    Hidden,
    /// None has ended.
    None,
}

fn pause_after(took: Duration) -> Duration {
    (REAP_PAUSE * took).min(REAP_PAUSE_MAX)
}

impl Parent {
    /// A session's channel has closed or cannot be used: everything known about it is forgotten.
    pub fn session_over(&mut self, token: SessionToken, why: &Broken) {
        self.services.settle_session(&mut self.cx, token);
        for outcome in self.services.outcomes() {
            self.answer(outcome);
        }
        let Some(s) = self.sessions.over(&self.cx, token, why) else { return };
        if *why == Broken::Forbidden {
            // Only a net process that an attacker controls gives such an order, so it is ended too.
            self.net_broken(s.net, why);
        }
        self.not_resumable(&s);
        match s.step {
            Step::LoggingIn => self.logins.forget(token),
            Step::Signing => self.signers.forget(token),
            Step::Idle | Step::Signed => {}
        }
        self.services.forget(token);
        self.connects.forget(&mut self.cx, token);
        self.offers_over(token);
        self.relays_over(Owner::Session(token));
    }

    /// Finds those that have ended of what fived has started. Others are nobody's, and are reaped
    /// where they are found (`sys::reaper`).
    pub fn reap(&mut self) {
        let began = clock::monotonic();
        let again = self.reap_again_at.take_if(|at| *at <= began).is_some();
        self.next_at.take_if(|at| *at <= began);
        let next = match self.next_at {
            None => self.reap_next(),
            Some(_) => Next::Hidden,
        };
        let own = reaper::own::all();
        let few = own.len() <= FEW;
        let found = match (few, next) {
            (true, _) => self.reap_own(&own),
            (false, Next::None) => 0,
            (false, Next::Found | Next::Hidden) => self.reap_own_in_turn(&own),
        };
        if (few || next == Next::None) && next != Next::Found && found == 0 {
            // A signal without an end tells of a stop. One that came together with an end is
            // noticed by the next look (`watchdog::check`).
            watchdog::end_stopped(&self.nets);
        }
        // A few of fived's own are reaped together: after a start (`make_ahead`), or when this is
        // late.
        let at_once = again || !few || self.next_at.is_some();
        if at_once && !reaper::go_on() || next == Next::Hidden {
            self.reap_again_before(began + LATE);
        }
    }

    fn reap_again_before(&mut self, at: Duration) {
        self.reap_again_at = Some(self.reap_again_at.map_or(at, |other| other.min(at)));
    }

    /// Finds all of fived's own that have ended, if any has.
    pub fn reap_all(&mut self) {
        if self.next_at.is_some() || self.reap_next() != Next::None {
            self.reap_own(&reaper::own::all());
        }
    }

    /// Finds the next that has ended, if fived has started it.
    fn reap_next(&mut self) -> Next {
        let began = clock::monotonic();
        let ended = self.services.running.ended(None);
        let now = clock::monotonic();
        let took = now.saturating_sub(began);
        self.next_at = (took > LONG).then_some(now + pause_after(took));
        match ended {
            Some((pid, exit)) if reaper::own::has(pid) => {
                self.ended(pid, exit);
                Next::Found
            }
            Some(_) => {
                reaper::look_soon();
                Next::Hidden
            }
            None => Next::None,
        }
    }

    /// Finds those that have ended of what fived itself has started, which takes the same time
    /// however many other children there are. Returns how many have.
    fn reap_own(&mut self, own: &[i32]) -> usize {
        let mut found = 0;
        for &pid in own {
            // What ends with one may be to find others.
            if let Some((pid, exit)) = self.services.running.ended(Some(pid))
                && reaper::own::has(pid)
            {
                self.ended(pid, exit);
                found += 1;
            }
        }
        found
    }

    /// The same, but where it finds few among many not so often that it takes all the time.
    fn reap_own_in_turn(&mut self, own: &[i32]) -> usize {
        let began = clock::monotonic();
        if let Some(at) = self.own_at.filter(|at| began < *at) {
            self.reap_again_before(at);
            return 0;
        }
        let found = self.reap_own(own);
        let now = clock::monotonic();
        let pause = pause_after(now.saturating_sub(began));
        self.own_at = (found < own.len() / OFTEN).then_some(now + pause);
        found
    }

    /// This child has ended, and is reaped from now on.
    fn ended(&mut self, pid: i32, exit: Exit) {
        let uid = self.services.running.get(pid).map(|r| r.uid);
        self.services.child_ended(&mut self.cx, pid);
        self.connects.child_ended(&mut self.cx, pid);
        let cx = &mut self.cx;
        match cx.children.remove(pid) {
            Some(Role::Service) => {
                if let Some((socket, uid)) = self.services.ended(cx, pid, exit) {
                    self.lingering.close(&socket, uid, cx.now);
                }
            }
            Some(Role::Terminal) => self.services.running.terminals.ended(pid, exit),
            Some(Role::Net(token)) => self.net_ended(token, exit),
            Some(Role::Login(number)) => {
                let look_up = self.logins.ended(cx, &mut self.sessions, number, exit);
                self.look_up_login(look_up);
            }
            None => {}
            Some(Role::Keys(token)) => self.signers.ended(cx, token, exit),
            Some(Role::Host) => self.hosts.ended(cx, pid, exit),
            Some(Role::Name) => self.names.ended(cx, pid, exit),
            Some(Role::Account) => {
                let looked_up = self.accounts.ended(cx, pid, exit);
                self.account_known(looked_up);
            }
            Some(Role::HostsAccess) => {
                let checked = self.hosts_access.ended(cx, pid, exit);
                self.libwrap_checked(checked);
            }
        }
        // What is started next goes first. Others wait for the same thread: if it hangs nothing
        // else may tell of that.
        reaper::reap_soon(pid, uid);
        self.reap_again_before(clock::monotonic() + LATE);
    }

    fn look_up_login(&mut self, look_up: Option<NeedsAccount>) {
        let Some(NeedsAccount { name, config, proved }) = look_up else { return };
        self.look_up_account(name, &config, AwaitsAccount::Login(proved));
    }

    /// The channel of a net process cannot be used any more. What it gave before an error of its
    /// own still counts, because clients wait for it; nothing else does.
    pub fn net_broken(&mut self, token: NetToken, why: &Broken) {
        if self.nets.broken(&mut self.cx, token, why) {
            self.net_over(token, if *why == Broken::Closed { LAST_ORDERS } else { 0 });
        }
    }

    /// A net process hung, and was killed.
    pub fn net_hung(&mut self, token: NetToken) {
        self.last_net_orders(token);
        self.net_broken(token, &Broken::Closed);
    }

    fn last_net_orders(&mut self, token: NetToken) {
        self.nets.expects_nothing(token);
        for _ in 0..LAST_ORDERS {
            let Ok(true) = self.net_order(token) else { return };
        }
    }

    /// What a net process served ends with it, even if other processes still hold the channels, or
    /// the kernel cannot end it yet. Of each channel so many orders still count.
    fn net_over(&mut self, token: NetToken, orders: usize) {
        for session in self.sessions.of_net(token) {
            let read = self.read_orders(session, orders);
            self.session_over(session, &read.err().unwrap_or(Broken::Closed));
        }
        for thread in self.relay_threads.of_net(token) {
            for _ in 0..orders {
                let Ok(true) = self.relays_order(thread) else { break };
            }
            self.relays_over(Owner::Thread(thread));
            self.relay_threads.forget(thread);
        }
    }

    fn net_ended(&mut self, token: NetToken, exit: Exit) {
        self.nets.has_ended(token);
        // The orders that it gave before its end still count, because clients wait for them.
        self.last_net_orders(token);
        self.net_over(token, LAST_ORDERS);
        self.nets.forget(&mut self.cx, &mut self.listeners, token, exit);
        let (current, nets) = (&self.cx.config, &self.nets);
        self.signers.retire(|config| {
            Rc::ptr_eq(config, current) || nets.iter().any(|n| Rc::ptr_eq(config, &n.config))
        });
    }

    /// Ends what was made ahead or kept, and nobody has needed lately.
    pub fn tidy(&mut self) {
        let cx = &mut self.cx;
        foreign::tidy();
        self.services.tidy(cx.now);
        self.pairs.tidy(cx.now);
        self.connects.tidy(cx.now);
        self.lingering.tidy();
        cx.held_up.tidy(cx.now);
        cx.spawner.tidy(cx.now);
    }
}
