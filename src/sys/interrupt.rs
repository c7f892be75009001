//! Interrupts this process at intervals while it makes calls that should not wait, but might.
//!
//! A timer sends SIGALRM, whose handler only counts: a call that waits ends early, or is restarted
//! if it is one that SA_RESTART restarts. The timer stops when nobody has wanted it for a while.

use super::check;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Between two interruptions, in microseconds.
const PERIOD: libc::suseconds_t = 250_000;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The process's one timer.
#[derive(Debug)]
pub struct Interrupt {
    runs: bool,
    wanted: bool,
    counted: u32,
}

extern "C" fn count(_: libc::c_int) {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

impl Interrupt {
    /// The timer does not run yet.
    pub fn new() -> io::Result<Interrupt> {
        // SAFETY: all zeros is a valid sigaction; the handler only adds to an atomic number.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            check(libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()))?;
        }
        Ok(Interrupt { runs: false, wanted: false, counted: 0 })
    }

    /// To be called before a call that could wait: starts the timer.
    pub fn want(&mut self) {
        self.wanted = true;
        if !self.runs {
            self.runs = set(PERIOD);
        }
    }

    /// To be called at intervals, and when this process was woken: stops the timer if nobody has
    /// wanted it for a whole period.
    pub fn rest(&mut self) {
        let now = COUNT.load(Ordering::Relaxed);
        if self.runs && now != self.counted {
            self.counted = now;
            self.runs = std::mem::take(&mut self.wanted) || !set(0);
        }
    }
}

fn set(period: libc::suseconds_t) -> bool {
    let time = libc::timeval { tv_sec: 0, tv_usec: period };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: one itimerval is read.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) == 0 }
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
