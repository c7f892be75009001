//! Threads for sessions. One whose session has ended, or was parked, takes the
//! next work for a moment longer, which costs less than a new thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of a thread's stack. A handshake needs a tenth of it; pages that are never touched cost
/// nothing.
const STACK: usize = if cfg!(debug_assertions) { 1024 * 1024 } else { 256 * 1024 };
/// How long a thread without work is kept.
const KEPT: Duration = Duration::from_millis(250);
/// How many threads without work are kept, at most.
const IDLE_MAX: usize = 16;

/// What a thread is to do.
type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Threads {
    /// Never more than there are idle threads.
    work: VecDeque<Work>,
    /// Threads that wait for work.
    idle: usize,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { work: VecDeque::new(), idle: 0 });
static MORE: Condvar = Condvar::new();

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does this work in a thread of its own. Err: no thread could be started, and the work is dropped.
pub fn run(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = Box::new(work);
    let mut all = threads();
    if all.idle > all.work.len() {
        all.work.push_back(work);
        MORE.notify_one();
        return Ok(());
    }
    drop(all);
    let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK);
    thread.spawn(move || {
        work();
        while let Some(work) = next() {
            work();
        }
    })?;
    Ok(())
}

/// Does this work with this thing in a thread of its own. Err: no thread could be started, and the
/// thing is given back.
pub fn run_with<T: Send + 'static>(thing: Box<T>, work: fn(Box<T>)) -> Result<(), Box<T>> {
    let given = Arc::new(Mutex::new(Some(thing)));
    let taken = given.clone();
    let take = |g: &Mutex<Option<Box<T>>>| g.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = run(move || {
        if let Some(thing) = take(&taken) {
            work(thing);
        }
    });
    let Err(e) = started else { return Ok(()) };
    log::debug!("starting a thread for a session: {e}");
    take(&given).map_or(Ok(()), Err)
}

/// The next work, if there is any soon.
fn next() -> Option<Work> {
    let mut all = threads();
    if all.idle >= IDLE_MAX {
        return None;
    }
    all.idle += 1;
    let (mut all, _) = MORE
        .wait_timeout_while(all, KEPT, |all| all.work.is_empty())
        .unwrap_or_else(PoisonError::into_inner);
    all.idle -= 1;
    all.work.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_work_is_done_also_that_of_a_thread_that_panics() {
        let (done, all) = mpsc::channel();
        for n in 0..200 {
            let done = done.clone();
            run(move || {
                done.send(n).unwrap();
                assert!(n % 50 != 7, "one of four panics that this test wants");
            })
            .unwrap();
        }
        let mut got: Vec<i32> =
            (0..200).map(|_| all.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<_>>());
        assert!(threads().idle <= IDLE_MAX);
    }
}
