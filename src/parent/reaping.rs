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

/// How long it may take to find children that have ended, at a time.
const REAP_MAX: Duration = Duration::from_millis(5);
/// A service can make as many children of fived's as its user may have processes (CLONE_PARENT,
/// clone(2)), end some without end, and let the others live so that it takes long to find those:
/// then there is a pause, of so many times the time that it took, in which fived asks for its own
/// ones alone.
const REAP_PAUSE: u32 = 9;
/// Of so many children each is asked: of more, any that has ended, and that one has to be reaped
/// before another can be seen.
const FEW: usize = 64;
/// When the loop looks again whether what reaps goes on.
const LATE: Duration = Duration::from_millis(25);

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

    /// Finds the next child that has ended, or of few all that have. When they were reaped SIGCHLD
    /// comes again, if there is another one (`sys::reaper`).
    pub fn reap(&mut self) {
        let began = clock::monotonic();
        self.reap_again_at = None;
        reaper::go_on();
        let only_own = self.strangers_at.is_some_and(|at| began < at);
        let each = only_own || self.cx.children.len() <= FEW;
        if each && self.reap_own() || only_own {
            return;
        }
        self.strangers_at = None;
        match reaper::state() {
            reaper::State::Free if self.reap_next(began) => {}
            // A signal without an end tells of a stop. One that came together with an end is
            // noticed by the next look (`watchdog::check`).
            reaper::State::Free => watchdog::end_stopped(&self.nets),
            reaper::State::Busy => self.reap_again_at = Some(began + LATE),
            reaper::State::Full => {
                self.reap_own();
                self.reap_again_at = Some(began + LATE);
            }
        }
    }

    /// Finds all that have ended, as far as there is time for that now.
    pub fn reap_all(&mut self) {
        let began = clock::monotonic();
        while self.strangers_at.is_none()
            && clock::monotonic() < began + REAP_MAX
            && reaper::settle(REAP_MAX)
        {
            if !self.reap_next(clock::monotonic()) {
                return;
            }
        }
        self.reap_own();
    }

    /// False: none has ended.
    fn reap_next(&mut self, began: Duration) -> bool {
        let Some((pid, exit)) = self.services.running.ended(None) else { return false };
        if reaper::has(pid) {
            // The computer is busy: nobody has come to it yet, and others are not seen.
            self.reap_own();
            self.reap_again_at = Some(began + LATE);
            return true;
        }
        if self.ended(pid, exit).is_none() {
            let now = clock::monotonic();
            self.strangers_at = Some(now + REAP_PAUSE * now.saturating_sub(began));
        }
        true
    }

    /// Finds those that have ended of what fived itself has started, which takes the same time
    /// however many other children there are. False: none has.
    fn reap_own(&mut self) -> bool {
        let mut any = false;
        for pid in self.cx.children.all() {
            if let Some((pid, exit)) = self.services.running.ended(Some(pid)) {
                self.ended(pid, exit);
                any = true;
            }
        }
        any
    }

    /// This child has ended, and is reaped from now on. Returns what it was.
    fn ended(&mut self, pid: i32, exit: Exit) -> Option<Role> {
        let uid = self.services.running.get(pid).map(|r| r.uid);
        self.services.child_ended(&mut self.cx, pid);
        self.connects.child_ended(&mut self.cx, pid);
        let cx = &mut self.cx;
        let role = cx.children.remove(pid);
        match role {
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
            None => {}
        }
        // What is started next goes first. Others wait for the same thread: if it hangs nothing
        // else may tell of that.
        reaper::reap_soon(pid, uid);
        self.reap_again_at = Some(clock::monotonic() + LATE);
        role
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
