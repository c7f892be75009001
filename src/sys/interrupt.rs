//! Interrupts a thread at intervals while it makes calls that should not wait, but might.
//!
//! A timer of that thread sends SIGALRM, whose handler only counts: a call that waits ends early,
//! or is restarted if it is one that SA_RESTART restarts. The timer stops when nobody has wanted it
//! for a while.

use super::check;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Until the first interruption: for so long one such call may keep its thread.
const FIRST: Duration = Duration::from_millis(10);
/// Between the next ones: many such calls may follow, because an attacker has prepared them.
const AGAIN: Duration = Duration::from_millis(1);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A thread's timer. It is made and used by that thread.
#[derive(Debug)]
pub struct Interrupt {
    timer: libc::timer_t,
    /// Until the first interruption.
    first: Duration,
    runs: bool,
    wanted: bool,
    counted: u32,
}

// SAFETY: a timer is a number of this process's; any thread may set it.
unsafe impl Send for Interrupt {}

extern "C" fn count(_: libc::c_int) {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

impl Interrupt {
    /// The calling thread's. The timer does not run yet.
    pub fn new() -> io::Result<Interrupt> {
        Interrupt::after(FIRST)
    }

    /// The same with another time until the first interruption, of less than a second.
    pub(super) fn after(first: Duration) -> io::Result<Interrupt> {
        let mut timer = ptr::null_mut();
        // SAFETY: all zeros is a valid sigaction and a valid sigevent; the handler only adds to an
        // atomic number. The timer is written.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            check(libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()))?;
            let mut event: libc::sigevent = std::mem::zeroed();
            (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_THREAD_ID, libc::SIGALRM);
            event.sigev_notify_thread_id = libc::gettid();
            check(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer))?;
        }
        Ok(Interrupt { timer, first, runs: false, wanted: false, counted: 0 })
    }

    /// To be called before a call that could wait: starts the timer.
    pub fn want(&mut self) {
        self.wanted = true;
        if !self.runs {
            self.runs = self.set(self.first);
        }
    }

    /// To be called at intervals, and when this process was woken: stops the timer if nobody has
    /// wanted it for as long as that.
    pub fn rest(&mut self) {
        let now = COUNT.load(Ordering::Relaxed);
        if self.runs && now != self.counted {
            self.counted = now;
            let first = if std::mem::take(&mut self.wanted) { self.first } else { Duration::ZERO };
            self.runs = self.set(first) != first.is_zero();
        }
    }

    /// Stops the timer.
    pub fn stop(&mut self) {
        if self.runs {
            (self.runs, self.wanted) = (!self.set(Duration::ZERO), false);
        }
    }

    /// Starts the timer anew; with 0, stops it.
    fn set(&self, first: Duration) -> bool {
        let time = |of: Duration| libc::timespec { tv_sec: 0, tv_nsec: of.subsec_nanos().into() };
        let new = libc::itimerspec { it_interval: time(AGAIN), it_value: time(first) };
        // SAFETY: the timer is this value's own; one itimerspec is read.
        unsafe { libc::timer_settime(self.timer, 0, &new, ptr::null_mut()) == 0 }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own. It cannot fail.
        unsafe { libc::timer_delete(self.timer) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_as_long_as_it_is_wanted() {
        let mut i = Interrupt::new().unwrap();
        let next = |i: &mut Interrupt| {
            let before = COUNT.load(Ordering::Relaxed);
            (0..1000)
                .take_while(|_| COUNT.load(Ordering::Relaxed) == before)
                .for_each(|_| std::thread::sleep(Duration::from_millis(5)));
            assert_ne!(COUNT.load(Ordering::Relaxed), before);
            i.rest();
        };
        i.want();
        next(&mut i);
        assert!(i.runs && !i.wanted);
        next(&mut i);
        assert!(!i.runs);
    }
}
