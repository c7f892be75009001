//! Calls that another process can make wait for as long as it likes, and that no signal ends: those
//! that take the lock of a socket which that process has too. It keeps the lock by a call with
//! memory that somebody else provides (userfaultfd(2), FUSE). A thread makes such calls here, and
//! whoever wants their answers waits for a moment only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

/// How long an answer is waited for. One that comes later is lost, so it is long for a computer
/// that is busy, too.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Bytes of the thread's stack.
const STACK: usize = 128 * 1024;

type Call = Box<dyn FnOnce() + Send>;

/// What makes the calls on one socket, one after the other: one thread at most, from the first call
/// on. It ends with this, or when the call ends that it makes then.
#[derive(Debug, Default)]
pub struct BoundedCalls {
    /// Somebody may have the socket who could make the calls wait.
    guards: bool,
    thread: Option<Sender<Call>>,
    /// A call was begun whose end is not known.
    busy: Arc<AtomicBool>,
}

impl BoundedCalls {
    /// Somebody gets the socket who could make the calls wait. Before that they are made at once:
    /// the change to the thread and back takes some 25 µs.
    pub fn guard(&mut self) {
        self.guards = true;
    }

    pub fn guards(&self) -> bool {
        self.guards
    }

    /// The answer. None: it does not come in time, or that of an earlier call has not come yet (or
    /// there can be no thread).
    pub fn make<T: Send + 'static>(
        &mut self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if !self.guards {
            return Some(call());
        }
        if self.busy.load(Ordering::Acquire) {
            return None;
        }
        if self.thread.is_none() {
            self.thread = start();
        }
        let ((answer, answered), busy) = (mpsc::channel(), self.busy.clone());
        self.busy.store(true, Ordering::Release);
        let call: Call = Box::new(move || {
            let over = Over(busy);
            let done = call();
            drop(over);
            // Nobody may wait for it any more.
            let _ = answer.send(done);
        });
        if self.thread.as_ref().is_none_or(|thread| thread.send(call).is_err()) {
            self.busy.store(false, Ordering::Release);
            self.thread = None;
            return None;
        }
        answered.recv_timeout(WAIT_MAX).ok()
    }
}

/// A call is over when this is dropped, whatever has become of it.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn start() -> Option<Sender<Call>> {
    let (sender, calls) = mpsc::channel::<Call>();
    let thread = std::thread::Builder::new().name("calls".into()).stack_size(STACK);
    let run = move || calls.into_iter().for_each(|call| call());
    thread.spawn(run).inspect_err(|e| log::debug!("a thread for calls: {e}")).ok()?;
    Some(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_call_that_takes_too_long_holds_up_nobody() {
        let mut calls = BoundedCalls::default();
        calls.guard();
        assert_eq!(calls.make(|| 1), Some(1));
        let (end, ended) = mpsc::channel::<()>();
        let began = Instant::now();
        assert_eq!(calls.make(move || ended.recv().is_ok()), None);
        assert!((0..1000).all(|_| calls.make(|| 2).is_none()));
        assert!(began.elapsed() < Duration::from_secs(10));
        end.send(()).unwrap();
        let again = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            calls.make(|| 3)
        });
        assert_eq!(again, Some(3));
    }
}
