//! Interrupts a thread at intervals while it makes calls that should not wait, but might.
//!
//! A timer of that thread sends SIGALRM, whose handler only counts: a call that waits ends early,
//! or is restarted if it is one that SA_RESTART restarts. The timer stops when nobody has wanted it
//! for a while.

use super::check;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Until the first interruption, in nanoseconds: for so long one such call may keep its thread.
const PERIOD: libc::c_long = 10_000_000;
/// Between the next ones: many such calls may follow, because an attacker has prepared them.
const AGAIN: libc::c_long = 1_000_000;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A thread's timer. It is made and used by that thread.
#[derive(Debug)]
pub struct Interrupt {
    timer: libc::timer_t,
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
        Ok(Interrupt { timer, runs: false, wanted: false, counted: 0 })
    }

    /// To be called before a call that could wait: starts the timer.
    pub fn want(&mut self) {
        self.wanted = true;
        if !self.runs {
            self.runs = self.set(PERIOD);
        }
    }

    /// To be called at intervals, and when this process was woken: stops the timer if nobody has
    /// wanted it for a whole period.
    pub fn rest(&mut self) {
        let now = COUNT.load(Ordering::Relaxed);
        if self.runs && now != self.counted {
            self.counted = now;
            let period = if std::mem::take(&mut self.wanted) { PERIOD } else { 0 };
            self.runs = self.set(period) == (period > 0);
        }
    }

    /// Stops the timer.
    pub fn stop(&mut self) {
        if self.runs {
            (self.runs, self.wanted) = (!self.set(0), false);
        }
    }

    /// Starts the timer anew; with 0, stops it.
    fn set(&self, first: libc::c_long) -> bool {
        let time = |nanoseconds| libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
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
    use std::time::Duration;

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
